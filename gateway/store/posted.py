"""What comes for devices by the API: messages, and orders to delete telemetry.

Both go into a stream that the registrar reads beside the channel logs. So it alone writes what a device has, messages
merge with those of trackers, and everything that reads the device log has them as well. A line of an entry is a
message, or an array: the order to forget the telemetry parameters that its masks choose.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson
from attrs import define, field, frozen

from gateway import message as msg
from gateway.aio import heed_cancellation
from gateway.errors import StoreFull
from gateway.store.changes import MICROSECONDS, Forget
from gateway.store.connection import Client, store_errors
from gateway.store.items import Device
from gateway.store.keys import ShardKeys
from gateway.store.log import ChannelClock
from gateway.store.masks import Masks

READER = "registrar"
MESSAGES_OF_AN_ENTRY = 100
"""What the registrar takes at a time: more would keep it from the trackers' messages for too long."""
ENTRIES_AT_ONCE = 100
LARGE = 64 * 1024
"""Bytes of an entry that is written by itself."""
MOST_WAITING = 10_000
"""Entries that the registrar has not read; it is far behind then, or does not run."""
LOOK_EVERY = 0.01
"""Seconds between two looks at the registrar's cursor, however many wait for it."""


@frozen
class Post:
    """What goes to one device: messages, or an order."""

    device: Device
    messages: Sequence[dict[str, Any]] = ()
    forget: Masks | None = None


@define
class Posted:
    """Writes the stream, and sees when the registrar has read it. One for each process and shard."""

    _redis: Client
    _keys: ShardKeys
    _now: Callable[[], float] = time.time
    _clock: ChannelClock = field(init=False)
    _cursor: tuple[int, int] = field(init=False, default=(0, 0))
    _looks: int = field(init=False, default=0)
    _lock: asyncio.Lock = field(init=False, factory=asyncio.Lock)

    def __attrs_post_init__(self) -> None:
        self._clock = ChannelClock(self._now)

    async def add(self, posts: Iterable[Post]) -> str:
        """Store all posts, of which there is at least one; gives the id to :meth:`wait` for.

        Messages get what the gateway knows: ``ident``, ``server.timestamp``, and ``timestamp`` where it is missing.
        Raises StoreFull where the registrar is far behind; StoreError. Some of it may be stored then: posting it again
        does no harm.
        """
        last = b""
        batch: list[tuple[Any, ...]] = []
        for post in posts:
            for entry in self._entries(post):
                batch.append(entry)
                if len(batch) >= ENTRIES_AT_ONCE or len(entry[-1]) >= LARGE:
                    last, batch = await self._write(batch), []
        return (await self._write(batch) if batch else last).decode()

    async def _write(self, entries: Sequence[tuple[Any, ...]]) -> bytes:
        with store_errors():
            if await self._redis.xlen(self._keys.posted) + len(entries) > MOST_WAITING:
                await self._make_room(len(entries))
            async with self._redis.pipeline(transaction=True) as pipe:
                for entry in entries:
                    pipe.execute_command("XADD", self._keys.posted, "*", *entry)
                ids: list[bytes] = await pipe.execute()
        return ids[-1]

    async def _make_room(self, count: int) -> None:
        await self._look()
        await self._redis.xtrim(self._keys.posted, minid=f"{self._cursor[0]}-{self._cursor[1]}", approximate=False)
        if await self._redis.xlen(self._keys.posted) + count > MOST_WAITING:
            raise StoreFull(f"{MOST_WAITING} posted packets wait for registration already")

    def _entries(self, post: Post) -> Iterable[tuple[Any, ...]]:
        head = ("device", post.device.id, "ident", post.device.ident, "messages")
        if post.forget is not None:
            yield (*head, orjson.dumps(post.forget.texts))
        for start in range(0, len(post.messages), MESSAGES_OF_AN_ENTRY):
            part = post.messages[start : start + MESSAGES_OF_AN_ENTRY]
            yield (*head, b"\n".join(self._text(message, post.device) for message in part))

    def _text(self, message: dict[str, Any], device: Device) -> bytes:
        now = self._clock.reserve(1) / MICROSECONDS
        own = {"ident": device.ident, "protocol.id": device.protocol_id, "server.timestamp": now}
        return msg.encode({"timestamp": now, **message, **own})

    async def wait(self, entry_id: str, timeout: float) -> bool:
        """Wait until the registrar has read up to ``entry_id``; False when it has not within ``timeout`` seconds.

        Raises StoreError.
        """
        wanted = _parsed(entry_id)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while self._cursor < wanted:
            if loop.time() >= deadline:
                return False
            heed_cancellation()
            await self._look()
        return True

    async def _look(self) -> None:
        """Read the cursor, or wait until somebody else, who is just about to, has done so."""
        looks = self._looks
        async with self._lock:
            if self._looks != looks:
                return
            await asyncio.sleep(LOOK_EVERY)
            with store_errors():
                cursor = await self._redis.hget(self._keys.cursors, f"{READER}|{self._keys.posted}")
            self._looks += 1
            if cursor:
                self._cursor = _parsed(cursor.decode())


def order_of(line: bytes) -> Forget | None:
    """The order that a line of an entry is; None: it is a message."""
    if not line.startswith(b"["):
        return None
    return Forget(Masks(orjson.loads(line)))


def _parsed(entry_id: str) -> tuple[int, int]:
    major, _, minor = entry_id.partition("-")
    return int(major), int(minor or 0)
