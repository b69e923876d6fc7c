"""Retained topics of telemetry: the last value of each parameter of each device.

The truth is the telemetry in Redis. The device log only tells whose it is that may have changed; at each interval the
telemetry of those devices is read, and what differs from what was published last is published. So a parameter goes out
once an interval at most, and its last value always does. The cursor moves when all of an interval is acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Protocol

import orjson
from twisted.logger import Logger

from gateway import metrics
from gateway.aio import heed_cancellation
from gateway.errors import BrokerUnavailable, StoreError
from gateway.mqtt.client import MqttClient
from gateway.mqtt.link import Link
from gateway.mqtt.packets import packed_text
from gateway.mqtt.publisher import RETRY_INTERVAL, Cursor, Reader
from gateway.mqtt.topics import Topics, is_safe_level
from gateway.store.compact import compact_json
from gateway.store.reader import LogEntry
from gateway.store.telemetry import Values

READ_ENTRIES = 500
WRITE_TIMEOUT = 1.0
DEVICES_AT_ONCE = 100
"""Devices whose telemetry is read in one round trip: 100 of 60 parameters are some 400 kB."""
STALE_AT_ONCE = 1000
"""Devices published anew in one interval besides those that changed, after a new connection."""
KNOWN_DEVICES = 20_000
"""Devices whose published values are remembered, some 10 kB each; others are published in full when they change."""


class TelemetrySource(Protocol):
    """What is needed of :class:`gateway.store.telemetry.Telemetry`."""

    async def get_many(self, device_ids: Iterable[int]) -> dict[int, Values]: ...


class _Awaited:
    """Counts the messages of an interval until all are acknowledged."""

    def __init__(self) -> None:
        self.awaited = 0
        self.done = asyncio.Event()
        self.done.set()

    def expect(self) -> None:
        self.awaited += 1
        self.done.clear()

    def acknowledged(self) -> None:
        metrics.count("mqtt_messages_published", log="telemetry")
        self.awaited -= 1
        if not self.awaited:
            self.done.set()


class TelemetryTopics:
    """``device_ids`` gives all devices that there are, ``exists`` says of one whether it does; ``interval`` is in
    seconds. When a device is deleted, :meth:`refresh` takes its topics from the broker."""

    log = Logger()

    def __init__(
        self,
        client: MqttClient,
        reader: Reader,
        source: TelemetrySource,
        topics: Topics,
        device_ids: Callable[[], Iterable[int]],
        *,
        interval: float = 1.0,
        exists: Callable[[int], bool] = lambda device_id: True,
        known_devices: int = KNOWN_DEVICES,
    ) -> None:
        self._client = client
        self._reader = reader
        self._source = source
        self._topics = topics
        self._device_ids = device_ids
        self._interval = interval
        self._exists = exists
        self._known_devices = known_devices
        self._cursor = Cursor(reader, "telemetry")
        self._published: dict[int, dict[str, bytes]] = {}
        self._forgotten: dict[int, set[str]] = {}
        self._going: dict[int, set[str]] = {}
        self._dirty: dict[int, None] = {}
        self._stale: dict[int, None] = {}
        self._read_up_to: dict[str, LogEntry] = {}

    def refresh(self, device_ids: Iterable[int]) -> None:
        """Look at these devices' telemetry again: it was changed by another way than a message."""
        self._dirty.update(dict.fromkeys(device_ids))

    def forget(self, device_id: int, names: Iterable[str]) -> None:
        """These parameters were deleted: their topics go, whether or not they were published by this process."""
        if len(self._forgotten) < self._known_devices:
            self._forgotten.setdefault(device_id, set()).update(names)
        self.refresh([device_id])

    async def run(self) -> None:
        """Publish until cancelled."""
        confirming = asyncio.ensure_future(self._cursor.run())
        try:
            await self._client.serve(self._publish_over)
        finally:
            confirming.cancel()

    async def stop(self) -> None:
        """Write the cursor; cancel :meth:`run` before."""
        try:
            async with asyncio.timeout(WRITE_TIMEOUT):
                await self._cursor.write()
        except (TimeoutError, StoreError):
            self.log.warn("the cursor of telemetry could not be written: some of it will be published again")

    async def _publish_over(self, link: Link) -> None:
        await self._start_again()
        reading = asyncio.ensure_future(self._read_log())
        try:
            while link.is_alive:
                heed_cancellation()
                due = asyncio.get_running_loop().time() + self._interval
                await self._publish_changes(link)
                await asyncio.wait([reading], timeout=max(0.0, due - asyncio.get_running_loop().time()))
                if reading.done():
                    reading.result()  # it does not end but by an error
        finally:
            reading.cancel()
        raise BrokerUnavailable("the connection to the broker is gone")

    async def _start_again(self) -> None:
        """A new connection: whether the broker still retains anything, nobody knows."""
        self._published.clear()
        self._read_up_to.clear()
        for device_id, names in self._going.items():
            self.forget(device_id, names)
        self._going.clear()
        self._stale = dict.fromkeys(self._device_ids())
        await self._cursor.rewind()

    async def _read_log(self) -> None:
        """Learn which devices have got messages."""
        while True:
            try:
                entries = await self._reader.read(READ_ENTRIES)
            except StoreError:
                await asyncio.sleep(RETRY_INTERVAL)
                continue
            for entry in entries:
                self._dirty[entry.owner] = None
                self._read_up_to[entry.stream] = entry
            if not entries:
                await asyncio.sleep(0.05)  # a reader without streams does not wait

    async def _publish_changes(self, link: Link) -> None:
        """One interval's work: the devices that changed, and some of those that a new broker does not know."""
        read_up_to, self._read_up_to = self._read_up_to, {}
        dirty, self._dirty = self._dirty, {}
        messages = _Awaited()
        devices = [*dirty, *self._take_stale(dirty)]
        try:
            for start in range(0, len(devices), DEVICES_AT_ONCE):
                await self._publish_devices(link, devices[start : start + DEVICES_AT_ONCE], messages)
        except StoreError as error:
            self.log.warn("telemetry cannot be read: {error}", error=str(error))
            self._dirty = dict.fromkeys(devices) | self._dirty
            self._read_up_to = read_up_to | self._read_up_to
            return
        await link.wait_for(messages.done)
        self._going.clear()
        for entry in read_up_to.values():
            self._cursor.deliver(entry)

    def _take_stale(self, dirty: dict[int, None]) -> list[int]:
        for device_id in dirty:
            self._stale.pop(device_id, None)
        taken = list(islice(self._stale, STALE_AT_ONCE))
        for device_id in taken:
            del self._stale[device_id]
        return taken

    async def _publish_devices(self, link: Link, device_ids: list[int], messages: _Awaited) -> None:
        for device_id, values in (await self._source.get_many(device_ids)).items():
            for name, payload, timestamp in self._changes(device_id, values):
                await link.room()
                messages.expect()
                topic = packed_text(self._topics.telemetry(device_id, name))
                link.publish(topic, payload, messages.acknowledged, link.stamp(timestamp), retain=True)

    def _changes(self, device_id: int, values: Values) -> list[tuple[str, bytes, bytes]]:
        """Name, payload and timestamp of what differs from what was published last; an empty payload: it is gone."""
        known = self._published.pop(device_id, {})
        if not self._exists(device_id):
            return [(name, b"", b"") for name in {**dict.fromkeys(values), **known} if is_safe_level(name)]
        current: dict[str, bytes] = {}
        changes = []
        for name, (timestamp, value) in values.items():
            if not is_safe_level(name):
                metrics.count("mqtt_messages_skipped", reason="no topic")
                continue
            payload = current[name] = compact_json(value)
            if known.get(name) != payload:
                changes.append((name, payload, orjson.dumps(timestamp)))
        if forgotten := self._forgotten.pop(device_id, set()):
            self._going.setdefault(device_id, set()).update(forgotten)
        gone = known.keys() | forgotten
        changes += [(name, b"", b"") for name in gone if name not in current and is_safe_level(name)]
        self._published[device_id] = current
        if len(self._published) > self._known_devices:
            del self._published[next(iter(self._published))]
        return changes
