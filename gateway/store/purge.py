"""What deleted items leave in Redis: removed at once, and looked for again until nothing more can come.

A device's keys go when it is deleted. The registrar may be writing just then what it prepared before, so they go once
more later. A channel's log stays until its readers have delivered what is in it, or ``retention`` has passed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from twisted.logger import Logger

from gateway.aio import heed_cancellation
from gateway.errors import StoreError
from gateway.store.connection import Client, store_errors
from gateway.store.items import Change, Items, Purge
from gateway.store.keys import ShardKeys

EVERY = 30.0
"""Seconds between two looks at what is pending."""
SETTLED = 120.0
"""Seconds after a deletion in which something that was under way may still be written: far above all time limits."""


class Purger:
    """Purges what ``items`` has deleted. ``readers`` are the names of those who read the channels' logs."""

    log = Logger()

    def __init__(
        self,
        redis: Client,
        keys: ShardKeys,
        items: Items,
        readers: Sequence[str],
        *,
        retention: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._items = items
        self._readers = readers
        self._retention = retention
        self._now = now
        self._has_work = asyncio.Event()
        items.on_change.append(self._changed)

    def _changed(self, change: Change) -> None:
        if change.new is None:
            self._has_work.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            heed_cancellation()
            self._has_work.clear()
            try:
                await self._items.mend()
                await self.purge()
            except StoreError as error:
                self.log.warn("what deleted items left stays until Redis answers: {error}", error=str(error))
            await self._rest()

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(EVERY):
                await self._has_work.wait()
        except TimeoutError:
            pass

    async def purge(self) -> None:
        """Go once through all deleted items. Raises StoreError; what was not purged is purged the next time."""
        for purge in list(self._items.purges.values()):
            age = self._now() - purge.at
            if purge.kind == "channels" and age < self._retention and not await self._is_read(purge.item.id):
                continue
            found = await self._remove(purge)
            if not found and age >= SETTLED:
                await self._items.records.purged(purge.kind, purge.item.id)

    async def _remove(self, purge: Purge) -> bool:
        """Whether there was anything."""
        id = purge.item.id
        if purge.kind == "channels":
            names, fields = self._keys.of_channel(id), self._keys.fields_of_channel(id, self._readers)
        elif purge.kind == "devices":
            names, fields = self._keys.of_device(id), self._keys.fields_of_device(id)
        else:
            names, fields = self._keys.of_other(purge.kind, id), self._fields_of_other(purge.kind, id)
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.unlink(*names)
                for name, field in fields:
                    pipe.hdel(name, field)
                removed: list[int] = await pipe.execute()
        return any(removed)

    def _fields_of_other(self, kind: str, id: int) -> list[tuple[str, str]]:
        """A stream has a cursor for each log that it read."""
        if kind != "streams":
            return []
        logs = [self._keys.channel_log(channel_id) for channel_id in self._items.logged_channels()]
        return [(self._keys.cursors, f"stream:{id}|{log}") for log in [*logs, self._keys.device_log]]

    async def _is_read(self, channel_id: int) -> bool:
        """Whether all readers have delivered the last packet of the channel's log."""
        stream = self._keys.channel_log(channel_id)
        with store_errors():
            newest = await self._redis.xrevrange(stream, count=1)
            if not newest:
                return True
            cursors = await self._redis.hmget(self._keys.cursors, [f"{name}|{stream}" for name in self._readers])
        last = _place(newest[0][0])
        return all(cursor is not None and _place(cursor) >= last for cursor in cursors)


def _place(entry_id: bytes) -> tuple[int, int]:
    major, _, minor = entry_id.partition(b"-")
    return int(major), int(minor or 0)
