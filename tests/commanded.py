"""What commands devices, and a virtual tracker at the other end of a link in memory: its session against ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from gateway.emulator.commands import Commands
from gateway.emulator.device import CommandReceived as CommandForDevice
from gateway.emulator.device import Device
from gateway.emulator.group import Group
from gateway.protocols.teltonika.device_types import find_device_type
from gateway.protocols.teltonika.exchange import CommandAnswered, CommandReceived
from gateway.protocols.teltonika.frame import body_of
from gateway.protocols.teltonika.session import IdentReceived, PacketReceived, Session
from gateway.protocols.teltonika.wire_commands import decode_command
from gateway.store.command import NewCommand
from gateway.store.commands import CommandQueue
from gateway.store.dispatcher import Dispatcher
from gateway.store.event_codes import EventCode
from gateway.store.items import Device as RegisteredDevice
from gateway.store.items import Items
from gateway.store.keys import ShardKeys
from gateway.store.orders import Orders
from gateway.store.outcomes import Books
from gateway.store.settings import DeviceSettings
from gateway.store.sources import Span
from gateway.store.telemetry import Telemetry
from tests.builders import FrameFactory

KEYS = ShardKeys()
IMEI = "352093081452251"
NOW = 1_763_709_000.0


class NoPackets:
    """A tracker without records."""

    pending = None
    is_done = False
    is_due = False

    def take(self) -> None:
        return None

    def finish(self) -> None: ...

    def settle(self) -> None: ...


class Tracker:
    """A tracker that outlives its connections; ``obeyed``: the texts that it was sent."""

    def __init__(self, imei: str = IMEI, model: str = "FMC130") -> None:
        self.commands = Commands(imei, Group(model=model), lambda: None)
        self.imei = imei
        self.obeyed: list[str] = []

    def obey(self, frame: bytes) -> bytes:
        """Its reply; nothing where it restarts."""
        self.obeyed.append(decode_command(body_of(frame))["messages"][0]["payload"].decode("latin-1"))
        reply = self.commands.reply(frame)
        return reply.data if reply is not None else b""


class MemoryLink:
    """One connection of a tracker. ``is_mute``: replies are held back until :meth:`let_go`.

    ``obey`` replaces what the tracker would do: frame -> reply.
    """

    def __init__(
        self, dispatcher: Dispatcher, device_id: int, tracker: Tracker, obey: Callable[[bytes], bytes] | None = None
    ) -> None:
        self.dispatcher = dispatcher
        self.device_id = device_id
        self.obey = obey or tracker.obey
        self.is_mute = False
        self.held: list[bytes] = []
        self.unasked: list[dict[str, Any]] = []
        self._device = Device(tracker.imei, NoPackets())
        self._session = Session()
        self._is_awaiting_acknowledgement = False
        self.to_server(self._device.connect())
        dispatcher.connected(device_id, self)

    # -- what the dispatcher calls

    @property
    def may_send_command(self) -> bool:
        return self._session.may_send_command

    def send_command(self, payload: bytes, codec_id: int) -> None:
        self._to_device(self._session.send_command(payload, codec_id))

    def abandon_command(self) -> None:
        self._session.abandon_command()

    # -- what a test calls

    def to_server(self, data: bytes) -> None:
        """Bytes of the tracker."""
        self._session.receive_data(data)
        while not isinstance(event := self._session.next_event(), type):
            if isinstance(event, IdentReceived):
                self._to_device(self._session.accept_ident())
            elif isinstance(event, PacketReceived):
                self._is_awaiting_acknowledgement = True
            elif isinstance(event, CommandAnswered):
                taken = self.dispatcher.answered(self.device_id, self, event.payload, event.refusal)
                if not taken:
                    self.unasked.append(event.message)
            elif isinstance(event, CommandReceived):
                self.unasked.append(event.message)

    def begin_packet(self) -> None:
        """The tracker sends records, which are not stored yet."""
        self.to_server(FrameFactory().packet())

    def end_packet(self) -> None:
        """They are stored, and acknowledged."""
        assert self._is_awaiting_acknowledgement
        self._session.acknowledge(1)
        self.dispatcher.line_changed(self.device_id)

    def let_go(self) -> None:
        """The held replies arrive."""
        held, self.held = self.held, []
        for data in held:
            self.to_server(data)

    def close(self) -> None:
        self.dispatcher.disconnected(self.device_id, self)

    def _to_device(self, data: bytes) -> None:
        self._device.receive_data(data)
        while (event := self._device.next_event()) is not None:
            if isinstance(event, CommandForDevice):
                reply = self.obey(event.frame)
                if self.is_mute:
                    self.held.append(reply)
                else:
                    self.to_server(reply)


class There:
    """A gateway's part that commands devices, on a clock that the test sets, and one device."""

    def __init__(self, redis: Any, quiet_time: float = 0) -> None:
        self.time = NOW
        self.redis = redis
        self.items = Items(redis)
        self.queue = CommandQueue(redis, KEYS, lambda: self.time)
        self.settings = DeviceSettings(redis, KEYS, lambda: self.time)
        self.events: list[tuple[int, str, dict[str, Any]]] = []
        books = Books(self.queue, self.settings, self.record)
        self.dispatcher = Dispatcher(
            self.items, books, Telemetry(redis, KEYS), lambda: self.time, quiet_time=quiet_time
        )
        self.orders = Orders(books, self.dispatcher, lambda: self.time)
        self.tracker = Tracker()
        self.device: RegisteredDevice

    def record(self, device_id: int, code: EventCode, **fields: Any) -> None:
        self.events.append((device_id, code.name, fields))

    async def start(self, model: str = "FMC130") -> There:
        kind = find_device_type(model)
        assert kind is not None
        self.device = await self.items.create_device(ident=IMEI, name="x", protocol_id=14, device_type_id=kind.id)
        return self

    def connect(self, obey: Callable[[bytes], bytes] | None = None) -> MemoryLink:
        return MemoryLink(self.dispatcher, self.device.id, self.tracker, obey)

    async def settle(self) -> None:
        await self.dispatcher.drain(10)

    async def pass_time(self, seconds: float) -> None:
        self.time += seconds
        self.dispatcher.tick()
        await self.settle()

    async def refresh(self) -> None:
        await self.dispatcher.refresh()
        await self.settle()

    async def enqueue(self, name: str = "getver", **values: Any) -> int:
        new = msgspec.convert({"name": name, **values}, NewCommand)
        command = await self.orders.enqueue(self.device, new)
        await self.settle()
        return command.id

    async def results(self) -> list[dict[str, Any]]:
        chunks = self.queue.results([self.device.id], Span())
        return [msgspec.json.decode(text) async for texts in chunks for text in texts]

    def codes(self) -> list[str]:
        return [name for _, name, _ in self.events]
