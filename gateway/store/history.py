"""Stored messages, read as chunks of JSON texts, however many they are.

A channel's are ordered by ``server.timestamp``, a device's by their key (``timestamp``, or ``timestamp.key``). What is
older than ``messages_ttl``, and what was deleted, is not shown, also where the log still keeps it for a slow reader.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from gateway.store.connection import Client, store_errors
from gateway.store.hidden import Hidden, Range
from gateway.store.items import Items
from gateway.store.keys import ShardKeys
from gateway.store.ordered import FOREVER, Page, Source, Turn, merged
from gateway.store.sources import Packets, SortedMessages, Span, microseconds

YIELD_AFTER = 500
"""Devices made ready for reading until others have their turn, some 3 ms."""

Chunks = AsyncGenerator[list[bytes], None]
"""Lists of messages as JSON texts."""


class ChannelHistory:
    """The messages of channels by ``server.timestamp``."""

    def __init__(
        self,
        redis: Client,
        keys: ShardKeys,
        items: Items,
        *,
        now: Callable[[], float] = time.time,
        turn: Turn | None = None,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._items = items
        self._now = now
        self.turn = turn or Turn()
        """Whoever works on messages takes it."""
        self.hidden = Hidden(redis, keys)

    async def read(self, channel_ids: Sequence[int], span: Span) -> Chunks:
        """Messages of the channels, in one order. Raises StoreError."""
        async with aclosing(self.pages(channel_ids, span)) as pages:
            async for page in pages:
                yield page.texts

    async def pages(self, channel_ids: Sequence[int], span: Span) -> AsyncGenerator[Page, None]:
        """The same with the time of each message; negative where ``span`` is reverse."""
        hidden = await self.hidden.ranges(channel_ids)
        sources: list[Source] = []
        for channel_id in channel_ids:
            shown = span.since(self._oldest(channel_id))
            if shown.low <= shown.high:
                log = self._keys.channel_log(channel_id)
                sources.append(Packets.of(log, shown, hidden.get(channel_id, [])))
        async with aclosing(merged(self._redis, sources, self.turn)) as pages:
            async for page in pages:
                yield page

    def _oldest(self, channel_id: int) -> int:
        """Nothing before it is shown; a channel without storage shows nothing at all."""
        channel = self._items.channels.get(channel_id)
        ttl = channel.messages_ttl if channel is not None else 0
        return microseconds(self._now() - ttl) if ttl else FOREVER + 1

    async def delete(self, channel_id: int, start: float | None = None, end: float | None = None) -> None:
        """Show nothing of a channel from ``start`` to ``end`` (seconds, inclusive; None: up to now) any more.

        What a reader of the log has still to deliver is delivered; the trimmer removes it afterwards. Raises
        TooManyRanges, StoreError.
        """
        low = 0 if start is None else microseconds(start)
        latest = max(microseconds(self._now()), await self.last(channel_id))
        await self.hide(channel_id, low, latest if end is None else min(latest, microseconds(end)))

    async def hide(self, channel_id: int, low: int, high: int) -> None:
        """The same with microseconds."""
        if low <= high:
            await self.hidden.add(channel_id, Range(low, high))

    async def last(self, channel_id: int) -> int:
        """The time of the last message in a channel's log, in microseconds; 0 without any. Raises StoreError."""
        with store_errors():
            rows = await self._redis.xrevrange(self._keys.channel_log(channel_id), count=1)
        return int(rows[0][0].partition(b"-")[0]) if rows else 0


class DeviceHistory:
    """The messages of devices by their key."""

    def __init__(
        self,
        redis: Client,
        keys: ShardKeys,
        items: Items,
        *,
        now: Callable[[], float] = time.time,
        turn: Turn | None = None,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._items = items
        self._now = now
        self.turn = turn or Turn()
        """Whoever works on messages takes it."""

    async def read(self, device_ids: Sequence[int], span: Span) -> Chunks:
        """Messages of the devices, in one order; those of the same time in any. Raises StoreError."""
        async with aclosing(self.pages(device_ids, span)) as pages:
            async for page in pages:
                yield page.texts

    async def pages(self, device_ids: Sequence[int], span: Span) -> AsyncGenerator[Page, None]:
        """The same with the key of each message; negative where ``span`` is reverse."""
        sources: list[Source] = []
        for count, device_id in enumerate(device_ids, 1):
            if count % YIELD_AFTER == 0:
                await asyncio.sleep(0)
            device = self._items.devices.get(device_id)
            if device is None or not device.messages_ttl:
                continue
            shown = span.since(microseconds(self._now() - device.messages_ttl))
            if shown.low <= shown.high:
                sources.append(SortedMessages.of(self._keys.messages(device_id), shown))
        async with aclosing(merged(self._redis, sources, self.turn)) as pages:
            async for page in pages:
                yield page
