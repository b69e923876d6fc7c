"""What was deleted from channels, by ranges of ``server.timestamp``: hidden at once, removed later.

A channel's log is what the registrar and the publishers read from, so a deletion may take nothing from it that one of
them has still to deliver; and a range may begin or end within a packet, which is one entry of the log. Whoever shows
messages leaves out what is in a range; the trimmer removes the packets when all have read them, and forgets the range
when the log has nothing of it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import orjson
from attrs import define, frozen
from redis.exceptions import WatchError

from gateway.errors import PeerError, StoreUnavailable
from gateway.store.connection import Client, store_errors
from gateway.store.keys import ShardKeys

MOST_RANGES = 100
"""Of a channel that do not touch each other; each is looked at for each message that is read."""
ATTEMPTS = 10


class TooManyRanges(PeerError):
    """A channel has as many deleted ranges as it can have."""


@frozen
class Range:
    """From ``low`` to ``high`` in microseconds, both included. Of it, the log has nothing up to ``purged`` any more,
    but for packets that reach beyond the range."""

    low: int
    high: int
    purged: int = -1

    def joined(self, other: Range) -> Range:
        """Both as one; they overlap or touch."""
        purged = self.purged if self.low <= other.low else other.purged
        return Range(min(self.low, other.low), max(self.high, other.high), purged)

    def touches(self, other: Range) -> bool:
        """Whether nothing lies between the two."""
        return self.low <= other.high + 1 and other.low <= self.high + 1


@define
class Hidden:
    """The deleted ranges of a shard's channels."""

    _redis: Client
    _keys: ShardKeys

    async def ranges(self, channel_ids: Iterable[int]) -> dict[int, list[Range]]:
        """Of the channels that have any. Raises StoreError."""
        ids = list(channel_ids)
        if not ids:
            return {}
        with store_errors():
            found = await self._redis.hmget(self._keys.hidden, [str(channel_id) for channel_id in ids])
        return {channel_id: _decode(text) for channel_id, text in zip(ids, found, strict=True) if text}

    async def add(self, channel_id: int, new: Range) -> None:
        """Hide a range. Raises TooManyRanges, StoreError."""
        await self._change(channel_id, lambda ranges: _with(ranges, new))

    async def purged(self, channel_id: int, done: Range) -> None:
        """``done`` was purged so far. Raises StoreError."""
        await self._change(
            channel_id,
            lambda ranges: [done if (range.low, range.high) == (done.low, done.high) else range for range in ranges],
        )

    async def forget(self, channel_id: int, before: int) -> None:
        """The log has nothing before ``before``, nor ever will: ranges that end there are over. Raises StoreError."""
        await self._change(channel_id, lambda ranges: [range for range in ranges if range.high >= before])

    async def _change(self, channel_id: int, change: Callable[[list[Range]], list[Range]]) -> None:
        """Read, change, write; again where somebody else wrote in between."""
        name = str(channel_id)
        for _ in range(ATTEMPTS):
            with store_errors():
                async with self._redis.pipeline(transaction=True) as pipe:
                    await pipe.watch(self._keys.hidden)
                    before = _decode(await pipe.hget(self._keys.hidden, name))
                    after = change(before)
                    if after == before:
                        return
                    pipe.multi()
                    if after:
                        pipe.hset(self._keys.hidden, name, _encode(after))
                    else:
                        pipe.hdel(self._keys.hidden, name)
                    try:
                        await pipe.execute()
                    except WatchError:
                        continue
            return
        raise StoreUnavailable(f"others changed {self._keys.hidden} {ATTEMPTS} times in a row")


def _with(ranges: list[Range], new: Range) -> list[Range]:
    apart = []
    for range in ranges:
        if range.touches(new):
            new = range.joined(new)
        else:
            apart.append(range)
    if len(apart) >= MOST_RANGES:
        raise TooManyRanges(
            f"{MOST_RANGES} ranges of this channel are deleted and not yet removed: "
            "leave out `from`, or wait until the log is trimmed"
        )
    return sorted([*apart, new], key=lambda range: range.low)


def _decode(text: bytes | None) -> list[Range]:
    return [Range(*numbers) for numbers in orjson.loads(text)] if text else []


def _encode(ranges: list[Range]) -> bytes:
    return orjson.dumps([(range.low, range.high, range.purged) for range in ranges])
