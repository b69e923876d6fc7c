"""Trimming: what is older than its ``messages_ttl``, or was deleted, goes, unless a reader of the log still needs it.

A reader that is down holds the log for ``reader_retention`` at most: after that the log says how many packets it lost.
(Before that, Redis' ``maxmemory`` may be reached, which pauses the trackers.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from twisted.logger import Logger

from gateway.store.connection import Client, store_errors
from gateway.store.hidden import Hidden, Range
from gateway.store.items import DAY, Channel, Device, Items
from gateway.store.keys import ShardKeys
from gateway.store.messages import MICROSECONDS, DeviceMessages
from gateway.store.posted import READER

READER_RETENTION = 7 * DAY
MILLISECONDS = 1000
"""The device log's ids are Redis' own; the channel logs' are ``server.timestamp`` in microseconds."""

DEVICES_AT_ONCE = 100
"""Looked at in one round trip, some 2 ms."""
PURGED_AT_ONCE = 100

Id = tuple[int, int]
NOTHING: Id = (0, 0)


class Trimmer:
    """Applies ``messages_ttl``, ``messages_rotate`` and the bound on slow readers, each time :meth:`trim` is called.

    ``channel_readers`` names those who read a channel's log, given its id; ``device_readers`` those of the device log.
    """

    log = Logger()

    def __init__(
        self,
        redis: Client,
        keys: ShardKeys,
        items: Items,
        messages: DeviceMessages,
        *,
        channel_readers: Callable[[int], Sequence[str]],
        device_readers: Callable[[], Sequence[str]],
        reader_retention: float = READER_RETENTION,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._items = items
        self._messages = messages
        self._hidden = Hidden(redis, keys)
        self._channel_readers = channel_readers
        self._device_readers = device_readers
        self._retention = reader_retention
        self._now = now

    async def trim(self) -> None:
        """Go once through all logs and devices. Raises StoreError; what was not trimmed is trimmed the next time."""
        for channel in list(self._items.channels.values()):
            await self._trim_channel(channel)
        await self._trim_log(self._keys.device_log, 0, MILLISECONDS, self._device_readers())
        for stream in (self._keys.posted, self._keys.processed):
            await self._trim_log(stream, 0, MILLISECONDS, [READER])
        devices = list(self._items.devices.values())
        for start in range(0, len(devices), DEVICES_AT_ONCE):
            for device in await self._messages.overdue(devices[start : start + DEVICES_AT_ONCE], self._now()):
                await self._trim_device(device)

    async def _trim_device(self, device: Device) -> None:
        now = self._now()
        if not device.messages_ttl:
            await self._messages.clear(device.id)
            return
        await self._messages.trim(device.id, before=now - device.messages_ttl, rotate=device.messages_rotate)
        await self._messages.trim_future(device.id, now=now, ttl=device.messages_ttl)

    async def _trim_channel(self, channel: Channel) -> None:
        stream = self._keys.channel_log(channel.id)
        deleted = (await self._hidden.ranges([channel.id])).get(channel.id, [])
        beginning = max((range.high + 1 for range in deleted if range.low == 0), default=0)
        readers = self._channel_readers(channel.id)
        await self._trim_log(stream, channel.messages_ttl, MICROSECONDS, readers, beginning)
        if deleted:
            delivered = (await self._needed_from(stream, readers))[0]
            for range in deleted:
                if range.low > 0:
                    await self._purge(channel.id, stream, range, delivered)
            await self._hidden.forget(channel.id, await self._oldest(stream))

    async def _purge(self, channel_id: int, stream: str, range: Range, delivered: int) -> None:
        """Remove the packets within ``range`` that all readers have delivered."""
        at, end = max(range.low, range.purged + 1), min(range.high, delivered)
        if at > end:
            return
        while at <= end:
            with store_errors():
                rows = await self._redis.xrange(stream, at, end, count=PURGED_AT_ONCE)
                gone = [id for id, fields in rows if _first(id, fields) >= range.low]
                if gone:
                    await self._redis.xdel(stream, *gone)
            at = _major(rows[-1][0]) + 1 if len(rows) == PURGED_AT_ONCE else end + 1
        await self._hidden.purged(channel_id, Range(range.low, range.high, end))

    async def _oldest(self, stream: str) -> int:
        """The time of the first message that the log has, in microseconds; now, where it has none."""
        with store_errors():
            rows = await self._redis.xrange(stream, count=1)
        return _first(*rows[0]) if rows else int(self._now() * MICROSECONDS)

    async def _trim_log(self, stream: str, ttl: float, ticks: int, readers: Sequence[str], deleted: int = 0) -> None:
        """Remove entries older than ``ttl``, whose ids count ``ticks`` a second, but none that a reader needs.

        Also those with ids below ``deleted``; and then exactly, for what is deleted shall not be there any longer.
        """
        now = self._now()
        expired: Id = (max(int((now - ttl) * ticks), deleted), 0)
        abandoned = min(expired, (int((now - self._retention) * ticks), 0))
        needed = await self._needed_from(stream, readers)
        if needed < abandoned:
            await self._give_up(stream, needed, abandoned)
        first = max(min(expired, needed), abandoned)
        with store_errors():
            await self._redis.xtrim(stream, minid=_text(first), approximate=not deleted)

    async def _needed_from(self, stream: str, readers: Sequence[str]) -> Id:
        """The first entry that the slowest reader has not delivered."""
        with store_errors():
            cursors = await self._redis.hmget(self._keys.cursors, [f"{name}|{stream}" for name in readers])
        slowest = min((_parse(cursor.decode()) if cursor else NOTHING) for cursor in cursors)
        return slowest[0], slowest[1] + 1

    async def _give_up(self, stream: str, needed: Id, first_kept: Id) -> None:
        with store_errors():
            await self._redis.xtrim(stream, minid=_text(needed), approximate=False)
            lost = await self._redis.xtrim(stream, minid=_text(first_kept), approximate=False)
        if lost:
            self.log.error(
                "{stream}: {n} packets older than {days:.1f} days are given up, a reader is that far behind",
                stream=stream, n=lost, days=self._retention / DAY,
            )  # fmt: skip


def _parse(entry_id: str) -> Id:
    major, _, minor = entry_id.partition("-")
    return int(major), int(minor or 0)


def _major(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])


def _first(entry_id: bytes, fields: Mapping[bytes, bytes]) -> int:
    """The time of a packet's first message in microseconds."""
    return _major(entry_id) - fields[b"messages"].count(b"\n")


def _text(entry_id: Id) -> str:
    return f"{entry_id[0]}-{entry_id[1]}"
