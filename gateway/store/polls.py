"""flespi's first way to read a channel: a client keeps a cursor, and may wait for what comes next (long polling).

A cursor is the ``server.timestamp``, in microseconds, from which the client wants messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from attrs import define, field, frozen

from gateway.aio import heed_cancellation
from gateway.errors import PeerError
from gateway.store.connection import Client, store_errors
from gateway.store.history import ChannelHistory
from gateway.store.keys import ShardKeys
from gateway.store.ordered import MiB
from gateway.store.sources import Span

MOST_WAITING = 16
"""Polls that may wait at the same time: each has a connection to Redis, and there are 64."""
BLOCK = 2.0
"""Seconds of one wait in Redis: well below the time that a call may take."""
LONGEST_WAIT = 60.0
MOST_MESSAGES = 10_000
MOST_BYTES = 8 * MiB


class TooManyPolls(PeerError):
    """As many polls wait as may wait at the same time."""


@frozen
class Cursor:
    """What a client asks for: messages from ``key`` on, and how many; ``wait`` seconds for the first of them."""

    key: int = 0
    wait: float = 0.0
    most_messages: int = MOST_MESSAGES
    most_bytes: int = MOST_BYTES


@define
class Batch:
    """The messages, and the cursor with which the next ones are had."""

    next_key: int
    texts: list[bytes] = field(factory=list)


class Polls:
    """Reads channels by a cursor."""

    def __init__(self, redis: Client, keys: ShardKeys, history: ChannelHistory) -> None:
        self._redis = redis
        self._keys = keys
        self._history = history
        self._waiting = 0

    async def read(self, channel_ids: Sequence[int], cursor: Cursor) -> Batch:
        """The next messages; without any within ``cursor.wait``, none. Raises TooManyPolls, StoreError."""
        if not cursor.wait:
            return await self._collect(channel_ids, cursor)
        if self._waiting >= MOST_WAITING:
            raise TooManyPolls(f"{MOST_WAITING} clients wait for messages already: poll without timeout, or use MQTT")
        self._waiting += 1
        try:
            return await self._wait(channel_ids, cursor)
        finally:
            self._waiting -= 1

    async def _wait(self, channel_ids: Sequence[int], cursor: Cursor) -> Batch:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(cursor.wait, LONGEST_WAIT)
        while True:
            heed_cancellation()
            seen = await self._last_ids(channel_ids)
            batch = await self._collect(channel_ids, cursor)
            left = deadline - loop.time()
            if batch.texts or left <= 0:
                return batch
            await self._wait_for_news(seen, min(left, BLOCK))

    async def _collect(self, channel_ids: Sequence[int], cursor: Cursor) -> Batch:
        batch, size = Batch(cursor.key), 0
        async with aclosing(self._history.pages(channel_ids, Span(cursor.key))) as pages:
            async for page in pages:
                for key, text in zip(page.keys, page.texts, strict=True):
                    size += len(text)
                    if batch.texts and (size > cursor.most_bytes or len(batch.texts) >= cursor.most_messages):
                        return batch
                    batch.texts.append(text)
                    batch.next_key = key + 1
        return batch

    async def _last_ids(self, channel_ids: Sequence[int]) -> dict[str, bytes | str]:
        """Of each channel's log, the last entry that there is before anything is read: what comes later is news."""
        logs = [self._keys.channel_log(channel_id) for channel_id in channel_ids]
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for log in logs:
                    pipe.xrevrange(log, count=1)
                answers = await pipe.execute()
        return {log: rows[0][0] if rows else "0" for log, rows in zip(logs, answers, strict=True)}

    async def _wait_for_news(self, seen: dict[str, bytes | str], seconds: float) -> None:
        if not seen:
            await asyncio.sleep(seconds)
            return
        with store_errors():
            await self._redis.xread(seen, count=1, block=max(1, int(seconds * 1000)))
