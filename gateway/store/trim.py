"""Trimming: what is older than its ``messages_ttl`` goes, unless a reader of the log still needs it.

A reader that is down holds the log for ``reader_retention`` at most: after that the log says how many packets it lost.
(Before that, Redis' ``maxmemory`` may be reached, which pauses the trackers.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from twisted.logger import Logger

from gateway.store.connection import Client, store_errors
from gateway.store.items import DAY, Items
from gateway.store.keys import ShardKeys
from gateway.store.messages import MICROSECONDS, DeviceMessages

READER_RETENTION = 7 * DAY
MILLISECONDS = 1000
"""The device log's ids are Redis' own; the channel logs' are ``server.timestamp`` in microseconds."""

Id = tuple[int, int]
NOTHING: Id = (0, 0)


class Trimmer:
    """Applies ``messages_ttl``, ``messages_rotate`` and the bound on slow readers, each time :meth:`trim` is called."""

    log = Logger()

    def __init__(
        self,
        redis: Client,
        keys: ShardKeys,
        items: Items,
        messages: DeviceMessages,
        *,
        channel_readers: Sequence[str],
        device_readers: Sequence[str],
        reader_retention: float = READER_RETENTION,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._items = items
        self._messages = messages
        self._channel_readers = channel_readers
        self._device_readers = device_readers
        self._retention = reader_retention
        self._now = now

    async def trim(self) -> None:
        """Go once through all logs and devices. Raises StoreError; what was not trimmed is trimmed the next time."""
        now = self._now()
        for channel in list(self._items.channels.values()):
            stream = self._keys.channel_log(channel.id)
            await self._trim_log(stream, channel.messages_ttl, MICROSECONDS, self._channel_readers)
        await self._trim_log(self._keys.device_log, 0, MILLISECONDS, self._device_readers)
        for device in list(self._items.devices.values()):
            await self._messages.trim(device.id, before=now - device.messages_ttl, rotate=device.messages_rotate)
            await self._messages.trim_future(device.id, now=now, ttl=device.messages_ttl)

    async def _trim_log(self, stream: str, ttl: float, ticks: int, readers: Sequence[str]) -> None:
        """Remove entries older than ``ttl``, whose ids count ``ticks`` a second, but none that a reader needs."""
        now = self._now()
        expired: Id = (int((now - ttl) * ticks), 0)
        abandoned = min(expired, (int((now - self._retention) * ticks), 0))
        needed = await self._needed_from(stream, readers)
        if needed < abandoned:
            await self._give_up(stream, needed, abandoned)
        with store_errors():
            await self._redis.xtrim(stream, minid=_text(max(min(expired, needed), abandoned)), approximate=True)

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


def _text(entry_id: Id) -> str:
    return f"{entry_id[0]}-{entry_id[1]}"
