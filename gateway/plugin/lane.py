"""Beside the registrar: messages of devices with a plugin that asks others, each device at its own pace.

Devices with the same such plugins share a bound on how many are worked on at once, so one that waits for a slow service
holds up those that need the same service, and nobody else. What waits is in Redis (:mod:`gateway.store.deferred`): a
killed gateway asks again for what it had no answer to, and nothing is lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from weakref import WeakValueDictionary

from twisted.logger import Logger

from gateway import message as msg
from gateway import metrics
from gateway.aio import heed_cancellation
from gateway.errors import DecodeError, StoreError
from gateway.plugin.base import Message, RemotePlugin
from gateway.plugin.chain import Chain, Trouble
from gateway.plugin.chains import Chains
from gateway.store.changes import fingerprint
from gateway.store.deferred import Deferred, Processed, Waiting
from gateway.store.items import Device, Items
from gateway.store.telemetry import Telemetry, Values, update

AT_ONCE = 50
"""Devices of the same plugins that are worked on at once."""
BATCH = 100
"""Messages of a device at once."""
WAITING_MOST = 5000
"""Messages of a device; where more wait, its plugins that ask others are passed by until fewer do."""
RETRY = 1.0
"""Seconds until Redis is asked again after it failed."""
MISTAKE_PAUSE = 5.0
"""Seconds until a device is tried again after a mistake of ours."""


class Lane:
    """Runs the chains that are remote. The registrar tells it by :meth:`wake` that messages of a device wait."""

    log = Logger()

    def __init__(
        self,
        deferred: Deferred,
        items: Items,
        chains: Chains,
        telemetry: Telemetry,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._deferred = deferred
        self._items = items
        self._chains = chains
        self._telemetry = telemetry
        self._now = now
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._again: set[int] = set()
        self._is_ending = False
        self._gates: WeakValueDictionary[tuple[int, ...], asyncio.Semaphore] = WeakValueDictionary()
        self._recent: dict[int, list[Message]] = {}
        """What was given back of a device last: the registrar may not have registered it yet."""

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            with metrics.showing(plugin_devices_waiting=lambda: float(len(self._tasks))):
                await self._begin()
                await asyncio.get_running_loop().create_future()
        finally:
            self._is_ending = True
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _begin(self) -> None:
        """With what an earlier run has left."""
        while True:
            heed_cancellation()
            try:
                for device_id in await self._deferred.devices():
                    self.wake(device_id)
                return
            except StoreError as error:
                self.log.warn("plugins wait for Redis: {error}", error=str(error))
                await asyncio.sleep(RETRY)

    def wake(self, device_id: int) -> None:
        """Messages of this device wait."""
        if device_id in self._tasks:
            self._again.add(device_id)
            return
        if self._is_ending:
            return
        task = self._tasks[device_id] = asyncio.ensure_future(self._serve(device_id))
        task.add_done_callback(lambda done: self._ended(device_id, done))

    def _ended(self, device_id: int, task: asyncio.Task[None]) -> None:
        self._tasks.pop(device_id, None)
        self._recent.pop(device_id, None)
        if task.cancelled():
            return
        if task.exception() is not None:
            self.log.error("plugins of device {id}: {error!r}", id=device_id, error=task.exception())
            asyncio.get_running_loop().call_later(MISTAKE_PAUSE, self.wake, device_id)
        elif device_id in self._again:
            self._again.discard(device_id)
            self.wake(device_id)

    async def _serve(self, device_id: int) -> None:
        while True:
            heed_cancellation()
            try:
                self._again.discard(device_id)
                device = self._items.devices.get(device_id)
                if device is None:
                    await self._deferred.remove(device_id)
                    return
                async with self._gate_of(device):
                    await self._work(device)
                if await self._deferred.is_done(device_id):
                    return
            except StoreError as error:
                failures = metrics.count("plugin_store_failures")
                if failures == 1 or failures % 100 == 0:
                    self.log.warn("plugins wait for Redis ({n}.): {error}", n=failures, error=str(error))
                await asyncio.sleep(RETRY)

    def _gate_of(self, device: Device) -> asyncio.Semaphore:
        chain = self._chains.of(device)
        links = chain.links if chain is not None else ()
        key = tuple(sorted(link.item.id for link in links if isinstance(link.plugin, RemotePlugin)))
        return self._gates.setdefault(key, asyncio.Semaphore(AT_ONCE))

    async def _work(self, device: Device) -> None:
        waiting, length = await self._deferred.head(device.id, BATCH)
        if not waiting:
            return
        await self._deferred.check_room()  # before others are asked for what could not be given back
        chain = self._chains.of(device)
        results = await self._processed(device, waiting, _within(chain, length, len(waiting)))
        await self._deferred.give_back(device.id, device.ident, results)

    async def _processed(
        self, device: Device, waiting: Sequence[Waiting], chain: Chain | None
    ) -> list[Processed | None]:
        messages: list[Message | None] = [self._decoded(one, device) for one in waiting]
        prints = [fingerprint(message) if message is not None else "" for message in messages]
        present = [index for index, message in enumerate(messages) if message is not None]
        if chain is not None:
            values = await self._values(device, chain)
            given = [message for message in messages if message is not None]
            for index, message in zip(present, await chain.process_many(given, values, self._now()), strict=True):
                messages[index] = message
        self._recent[device.id] = [message for message in messages if message is not None]
        return [
            Processed(msg.encode(message), one.is_posted, print) if message is not None else None
            for one, message, print in zip(waiting, messages, prints, strict=True)
        ]

    async def _values(self, device: Device, chain: Chain) -> Values:
        if not chain.needs_telemetry:
            return {}
        values = await self._telemetry.get(device.id)
        for message in self._recent.get(device.id, ()):
            update(values, msg.apply_position_rules(dict(message)))
        return values

    def _decoded(self, one: Waiting, device: Device) -> Message | None:
        """With the device's identity, as plugins that answer at once see messages, too."""
        try:
            return msg.decode(one.text) | device.identity
        except DecodeError as error:
            metrics.count("registrar_undecodable")
            self.log.error("a message that waited for plugins: {error}", error=str(error))
            return None


def _within(chain: Chain | None, length: int, count: int) -> Chain | None:
    """The chain, without those who ask others where too many messages of the device wait for them."""
    if chain is None or length <= WAITING_MOST:
        return chain
    for link in chain.links:
        if isinstance(link.plugin, RemotePlugin):
            metrics.count("plugin_messages_passed_by", count, type=link.plugin.name)
            reason = f"passed by: {length} messages of this device wait, more than {WAITING_MOST}"
            chain.tell(Trouble(link.item, chain.device, reason, False, {}))
    return chain.without_remote()
