"""A gateway with plugins that ask others, as far as storing messages goes: registrar, chains and lane, on a real Redis.

It can be killed and made anew on what Redis has then. ``Desk`` is the other system: it holds the messages of a device
back for as long as the test wants.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gateway import plugin
from gateway.plugin import Context, Message, RemotePlugin
from gateway.plugin.chains import Chains
from gateway.plugin.lane import Lane
from gateway.plugin.types import PluginType, find_types
from gateway.registrar import Registrar
from gateway.store.deferred import Deferred
from gateway.store.item import Device
from gateway.store.items import Items
from gateway.store.links import Link
from gateway.store.reader import LogReader
from tests.test_registrar import KEYS, Gateway

LIMIT = 20.0


class Desk:
    """What plugin type ``asking`` asks. It marks messages with ``asked``, the number of the question."""

    def __init__(self) -> None:
        self.questions: list[tuple[int, list[float]]] = []
        """Device, and the timestamps of the messages."""
        self._held: dict[int, asyncio.Event] = {}

    def hold(self, *device_ids: int) -> None:
        """Do not answer about these devices."""
        self._held.update((device_id, asyncio.Event()) for device_id in device_ids)

    def release(self) -> None:
        """Answer all."""
        for event in self._held.values():
            event.set()
        self._held.clear()

    async def ask(self, device_id: int, messages: Sequence[Message]) -> list[Message | None]:
        self.questions.append((device_id, [message["timestamp"] for message in messages]))
        number = len(self.questions)
        if device_id in self._held:
            await self._held[device_id].wait()
        return [None if message.get("drop") else {**message, "asked": number} for message in messages]

    def type(self) -> PluginType:
        """A plugin type that asks this desk."""
        desk = self

        class Asking(RemotePlugin):
            """Asks the desk of a test."""

            Config = plugin.Config

            async def process_many(self, messages: Sequence[Message], context: Context) -> Sequence[Message | None]:
                return await desk.ask(context.device.id, messages)

        Asking.name = "asking"
        return PluginType("asking", Asking, Path(__file__))


class LaneGateway(Gateway):
    """Running between :meth:`start` and :meth:`kill`."""

    def __init__(self, redis: Any, desk: Desk) -> None:
        self.desk = desk
        self.tasks: list[asyncio.Task[None]] = []
        super().__init__(redis)
        self._make()

    def _make(self) -> None:
        """What a process has in memory."""
        self.items = Items(self.redis)
        types = {**find_types(), "asking": self.desk.type()}
        self.chains = Chains(self.items, types, lambda *event, **fields: self.events.append((*event, fields)))
        self.deferred = Deferred(self.redis, KEYS)
        self.lane = Lane(self.deferred, self.items, self.chains, self.telemetry)
        streams = {KEYS.channel_log(1): 1, KEYS.posted: 0, KEYS.processed: 0}
        self.registrar = Registrar(
            LogReader(self.redis, KEYS, "registrar", lambda: streams, wait=0.01),
            self.items,
            self.messages,
            posted=KEYS.posted,
            chains=self.chains,
            deferred=self.deferred,
            wake=self.lane.wake,
            processed=KEYS.processed,
            record=lambda *event, **fields: self.events.append((*event, fields)),
        )

    async def set_up(self, devices: int = 1) -> Device:
        """With a channel, and devices 1, 2, ... whose idents are their ids."""
        await self.items.create_channel(name="test", protocol_id=14)
        for n in range(1, devices + 1):
            await self.items.create_device(ident=str(n), name=f"Van {n}", protocol_id=14, device_type_id=303)
        return self.items.devices[1]

    async def assign(self, type: str = "asking", *device_ids: int, **configuration: Any) -> int:
        """A new plugin, for all devices or for these; its id."""
        made = await self.items.create_plugin(name=type, type=type, configuration=configuration)
        ids = device_ids or tuple(self.items.devices)
        await self.items.links.put([Link("plugins", made.id, "devices", device_id) for device_id in ids])
        return made.id

    async def start(self) -> None:
        """Run registrar and lane."""
        await self.chains.start()
        self.tasks = [asyncio.ensure_future(self.lane.run()), asyncio.ensure_future(self.registrar.run())]

    async def kill(self) -> None:
        """Whatever it is at, nothing of it goes on."""
        for task in reversed(self.tasks):
            while not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=0.5)
        self.tasks = []
        await self.chains.stop()

    async def restart(self) -> None:
        """A new process, which knows what Redis has."""
        await self.kill()
        self._make()
        await self.items.load()
        await self.start()

    async def send(self, device_id: int, *timestamps: float, **values: Any) -> None:
        """One packet of a device."""
        await self.receive(*({"timestamp": timestamp, **values} for timestamp in timestamps), ident=str(device_id))

    async def of_log(self, device_id: int = 1, name: str = "timestamp") -> list[Any]:
        """A parameter of each message of a device that was handed on, in order."""
        return [message.get(name) for message in await self.logged() if message["device.id"] == device_id]

    async def until(self, is_so: Callable[[], Any], what: str = "") -> None:
        """Wait for something that may be a coroutine."""
        try:
            async with asyncio.timeout(LIMIT):
                while True:
                    result = is_so()
                    if await result if asyncio.iscoroutine(result) else result:
                        return
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"not within {LIMIT} s: {what}; questions {self.desk.questions[-5:]}") from None

    async def until_logged(self, count: int, device_id: int = 1) -> None:
        """So many messages of a device were handed on."""

        async def is_so() -> bool:
            return len(await self.of_log(device_id)) >= count

        await self.until(is_so, f"{count} messages of device {device_id}")

    async def until_read(self, *streams: str) -> None:
        """The registrar has dealt with all that these streams have."""

        async def is_so() -> bool:
            cursors = await self.redis.hgetall(KEYS.cursors)
            for stream in streams:
                last = await self.redis.xrevrange(stream, count=1)
                if last and cursors.get(f"registrar|{stream}".encode()) != last[0][0]:
                    return False
            return True

        await self.until(is_so, "the registrar has read")

    async def until_idle(self) -> None:
        """All that came was read, and nothing waits for plugins."""
        await self.until_read(KEYS.channel_log(1), KEYS.posted)

        async def is_so() -> bool:
            return not await self.redis.smembers(KEYS.deferring)

        await self.until(is_so, "nothing waits")
        await self.until_read(KEYS.processed)
