"""Messages that wait for plugins which ask others, beside the logs, so that nobody else's wait with them.

The registrar puts them into a list of the device, in the transaction that moves its cursor; the lane of plugins takes
them from there, and gives back what became of them in the stream ``processed``, which the registrar reads as it reads
the channel logs. Until all of a device's are back, its newer ones are put there too: order is kept.

A line of the list is ``t`` (a tracker's) or ``p`` (posted by the API) and the message; a line that comes back is that
letter, the fingerprint of the message as it came, and the message, or ``-`` where a plugin dropped it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from attrs import frozen
from redis.asyncio.client import Pipeline

from gateway.errors import StoreFull
from gateway.store.connection import Client, store_errors
from gateway.store.keys import ShardKeys

DROPPED = b"-"
FINGERPRINT = 16
"""Hexadecimal digits."""
PROCESSED_MOST = 500
"""Entries that the registrar has not read, of 100 messages at most: it is far behind then, or does not run. All of them
are looked at when it starts."""

FORGET = """
if redis.call('LLEN', KEYS[1]) == 0 then redis.call('SREM', KEYS[2], ARGV[1]) return 1 end
return 0
"""
"""A device of which nothing waits any more."""


@frozen
class Waiting:
    """A message as it came."""

    text: bytes
    is_posted: bool

    @property
    def line(self) -> bytes:
        """As it is stored."""
        return (b"p" if self.is_posted else b"t") + self.text

    @classmethod
    def of(cls, line: bytes) -> Waiting:
        """From a stored line."""
        return cls(line[1:], line.startswith(b"p"))


@frozen
class Processed:
    """A message that came back."""

    text: bytes
    is_posted: bool
    fingerprint: str

    @property
    def line(self) -> bytes:
        """As it is stored."""
        return (b"p" if self.is_posted else b"t") + self.fingerprint.encode() + self.text

    @classmethod
    def of(cls, line: bytes) -> Processed | None:
        """From a stored line; None: it was dropped."""
        if line == DROPPED:
            return None
        end = 1 + FINGERPRINT
        return cls(line[end:], line.startswith(b"p"), line[1:end].decode())


class Deferred:
    """The registrar and the lane share one; ``cursor`` is the registrar's field in the hash of cursors."""

    def __init__(self, redis: Client, keys: ShardKeys, reader: str = "registrar") -> None:
        self._redis = redis
        self._keys = keys
        self._cursor = f"{reader}|{keys.processed}"
        self._counts: Counter[int] = Counter()

    # -- the registrar's side

    async def load(self) -> None:
        """Learn which messages are away: at the start, and when it is not known what Redis took. Raises StoreError."""
        with store_errors():
            devices = [int(id) for id in await self._redis.smembers(self._keys.deferring)]
            cursor = await self._redis.hget(self._keys.cursors, self._cursor)
            async with self._redis.pipeline(transaction=True) as pipe:  # or the lane would move some between the two
                for id in devices:
                    pipe.llen(self._keys.deferred(id))
                pipe.xrange(self._keys.processed, f"({cursor.decode()}" if cursor else "-")
                *lengths, unread = await pipe.execute()
        self._counts = Counter(dict(zip(devices, lengths, strict=True)))
        for _, fields in unread:
            self._counts[int(fields[b"device"])] += fields[b"messages"].count(b"\n") + 1

    def is_away(self, device_id: int) -> bool:
        """Whether a message of the device has not come back yet."""
        return self._counts[device_id] > 0

    def queue(self, pipe: Pipeline, deferrals: Mapping[int, Sequence[bytes]]) -> None:
        """Have the transaction put these lines into the lists of their devices."""
        for device_id, lines in deferrals.items():
            pipe.rpush(self._keys.deferred(device_id), *lines)
        if deferrals:
            pipe.sadd(self._keys.deferring, *map(str, deferrals))

    def went(self, device_id: int, count: int) -> None:
        """So many of a device were put into its list."""
        self._counts[device_id] += count

    def came_back(self, device_id: int, count: int) -> None:
        """So many were read from the stream."""
        self._counts[device_id] -= count
        if self._counts[device_id] <= 0:
            del self._counts[device_id]

    # -- the lane's side

    async def devices(self) -> list[int]:
        """Those of which messages wait. Raises StoreError."""
        with store_errors():
            return [int(id) for id in await self._redis.smembers(self._keys.deferring)]

    async def head(self, device_id: int, count: int) -> tuple[list[Waiting], int]:
        """The oldest of a device, and how many there are. Raises StoreError."""
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.lrange(self._keys.deferred(device_id), 0, count - 1)
                pipe.llen(self._keys.deferred(device_id))
                lines, length = await pipe.execute()
        return [Waiting.of(line) for line in lines], length

    async def give_back(self, device_id: int, ident: str, results: Sequence[Processed | None]) -> None:
        """What became of the oldest ones: all of it is stored, or nothing. Raises StoreError."""
        lines = b"\n".join(DROPPED if result is None else result.line for result in results)
        with store_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.execute_command(
                    "XADD", self._keys.processed, "*", "device", device_id, "ident", ident, "messages", lines
                )
                pipe.ltrim(self._keys.deferred(device_id), len(results), -1)
                await pipe.execute()

    async def check_room(self) -> None:
        """Whether something can be given back. Raises StoreFull where the registrar is far behind; StoreError."""
        with store_errors():
            if await self._redis.xlen(self._keys.processed) >= PROCESSED_MOST:
                await self._make_room()

    async def _make_room(self) -> None:
        cursor = await self._redis.hget(self._keys.cursors, self._cursor)
        if cursor:
            await self._redis.xtrim(self._keys.processed, minid=cursor.decode(), approximate=False)
        if await self._redis.xlen(self._keys.processed) >= PROCESSED_MOST:
            raise StoreFull(f"{PROCESSED_MOST} packets wait for registration behind plugins already")

    async def is_done(self, device_id: int) -> bool:
        """Whether nothing of the device waits; then it is forgotten. Raises StoreError."""
        with store_errors():
            return bool(
                await self._redis.eval(FORGET, 2, self._keys.deferred(device_id), self._keys.deferring, str(device_id))
            )

    async def remove(self, device_id: int) -> None:
        """The device is deleted. Raises StoreError."""
        with store_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.unlink(self._keys.deferred(device_id))
                pipe.srem(self._keys.deferring, str(device_id))
                await pipe.execute()
        self._counts.pop(device_id, None)
