"""The API over real ports and a real store, and virtual trackers on real sockets that obey commands."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet import reactor

from gateway.api.parts import Parts
from gateway.channel.channels import Channels
from gateway.channel.commanded import CommandedLines
from gateway.channel.connections import Limits
from gateway.emulator.commands import Commands
from gateway.emulator.group import Group
from gateway.observation import Observation
from gateway.protocols.teltonika.device_types import find_device_type
from gateway.protocols.teltonika.frame import body_of
from gateway.protocols.teltonika.wire_commands import decode_command
from gateway.settings import Settings
from gateway.store.commands import CommandQueue
from gateway.store.dispatcher import Dispatcher
from gateway.store.failures import Failures
from gateway.store.gate import Gate
from gateway.store.history import ChannelHistory
from gateway.store.ident_models import IdentModels
from gateway.store.items import Device, Items
from gateway.store.keys import ShardKeys
from gateway.store.log import LogWriter
from gateway.store.model_questions import ModelQuestions
from gateway.store.orders import Orders
from gateway.store.outcomes import Books
from gateway.store.settings import DeviceSettings
from gateway.store.settings_polling import SettingsPolling
from gateway.store.telemetry import Telemetry
from gateway.store.tokens import Tokens
from tests.builders import FrameFactory
from tests.items_rest import free_ports
from tests.rest import MASTER, Rest, serving

KEYS = ShardKeys()
IMEI = "352093081452251"
WAIT = 10


class Tracker:
    """A tracker on a socket; ``obeyed``: the texts that it was sent, over all its connections.

    ``obey`` replaces what it would do: frame -> bytes to send; None: it hangs up.
    """

    def __init__(self, imei: str = IMEI, model: str = "FMC130") -> None:
        self.frames = FrameFactory(imei)
        self.commands = Commands(imei, Group(model=model), lambda: None)
        self.obey: Callable[[bytes], bytes | None] = self._obey
        self.obeyed: list[str] = []
        self.acknowledgements: list[int] = []
        self._news = asyncio.Condition()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    def _obey(self, frame: bytes) -> bytes:
        reply = self.commands.reply(frame)
        return reply.data if reply is not None else b""

    async def connect(self, port: int) -> Tracker:
        """Log in, and obey from now on."""
        reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        self._writer.write(self.frames.login())
        assert await asyncio.wait_for(reader.readexactly(1), WAIT) == b"\x01"
        self._reading = asyncio.ensure_future(self._read(reader, self._writer))
        return self

    def send(self, data: bytes) -> None:
        """Anything."""
        assert self._writer is not None
        self._writer.write(data)

    async def close(self) -> None:
        """Hang up."""
        assert self._writer is not None
        assert self._reading is not None
        self._writer.close()
        await asyncio.wait_for(self._reading, WAIT)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for something that it hears."""
        async with asyncio.timeout(WAIT), self._news:
            await self._news.wait_for(condition)

    async def ended(self) -> None:
        """The gateway closed."""
        assert self._reading is not None
        await asyncio.wait_for(asyncio.shield(self._reading), WAIT)

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self._hear(reader, writer):
                async with self._news:
                    self._news.notify_all()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """An acknowledgement or a command; whether it goes on."""
        head = await reader.readexactly(4)
        if any(head):
            self.acknowledgements.append(int.from_bytes(head, "big"))
            return True
        length = await reader.readexactly(4)
        frame = head + length + await reader.readexactly(int.from_bytes(length, "big") + 4)
        self.obeyed.append(decode_command(body_of(frame))["messages"][0]["payload"].decode("latin-1"))
        reply = self.obey(frame)
        if reply is not None:
            writer.write(reply)
        return reply is not None


class There(Rest):
    """The API, a channel for trackers on ``port``, and one device of the model FMC130."""

    port: int
    device: Device
    dispatcher: Dispatcher
    lines: CommandedLines

    @property
    def url(self) -> str:
        """Of the device."""
        return f"/gw/devices/{self.device.id}"

    async def codes(self) -> list[int]:
        """What the device's log says of its commands."""
        entries = await self.get(f"{self.url}/logs")
        return [entry["event_code"] for entry in entries if 310 <= entry["event_code"] <= 334]

    async def settle(self) -> None:
        """What can be done just now is done."""
        await self.dispatcher.drain(WAIT)

    async def refresh(self) -> None:
        """As every 15 seconds."""
        await self.dispatcher.refresh()
        await self.settle()


def make_parts(redis: Any, clock: Callable[[], float]) -> tuple[Parts, Dispatcher, Observation, CommandedLines]:
    """A gateway's parts that command devices; the dispatcher's clock is the test's."""
    gate, items, tokens = Gate(), Items(redis), Tokens(redis, MASTER)
    observation = Observation(redis, KEYS, items)
    telemetry, queue, settings = Telemetry(redis, KEYS), CommandQueue(redis, KEYS), DeviceSettings(redis, KEYS)

    def record(device_id: int, code: Any, **fields: Any) -> None:
        observation.events.record("devices", device_id, code, **fields)

    books = Books(queue, settings, record)
    dispatcher = Dispatcher(items, books, telemetry, clock, quiet_time=0)
    questions = ModelQuestions(redis, KEYS, items, dispatcher, record)
    lines = CommandedLines(dispatcher, questions, IdentModels(redis, KEYS), SettingsPolling(settings, dispatcher))
    writer = LogWriter(redis, KEYS, gate)
    channels = Channels(reactor, items, writer, gate, Limits(), observer=observation.recorder, lines=lines)
    parts = Parts(
        settings=Settings(), redis=redis, keys=KEYS, items=items, telemetry=telemetry, gate=gate, tokens=tokens,
        channels=channels, connections=channels.connections, failures=Failures(), events=observation.events,
        traffic=observation.traffic, idents=observation.idents, commands=queue, device_settings=settings,
        orders=Orders(books, dispatcher, clock), others={"writer": writer}, history=ChannelHistory(redis, KEYS, items),
    )  # fmt: skip
    return parts, dispatcher, observation, lines


class Clock:
    """A dispatcher's clock that can be set forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead


@asynccontextmanager
async def commanding(redis: Any, *, clock: Clock | None = None, **configuration: Any) -> AsyncIterator[There]:
    """Everything, running; ``configuration`` is the channel's."""
    parts, dispatcher, observation, lines = make_parts(redis, clock or Clock())
    writing = asyncio.ensure_future(parts.others["writer"].run())
    port = free_ports(1)[0]
    await parts.channels.start()
    try:
        listen = [f"{kind}:{port}:interface=127.0.0.1" for kind in ("tcp", "udp")]
        await parts.items.create_channel(name="a", protocol_id=14, configuration={"listen": listen, **configuration})
        async with serving(parts) as rest:
            there = There(rest.parts, rest.server, rest.client)
            there.port, there.dispatcher, there.lines = port, dispatcher, lines
            there.device = await device_of(there, IMEI)
            yield there
    finally:
        await parts.channels.stop(timeout=2)
        await lines.stop()
        await dispatcher.stop()
        await observation.flush()
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


async def device_of(there: There, imei: str, model: str = "FMC130", **configuration: Any) -> Device:
    """A device with this ident; the empty model is the unknown one."""
    kind = find_device_type(model)
    assert kind is not None
    device: Device = await there.parts.items.create_device(
        ident=imei, name=imei, protocol_id=14, device_type_id=kind.id, configuration=configuration
    )
    return device
