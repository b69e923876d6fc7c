"""Reading the logs: a named reader has a cursor for each stream, moved only when its output is confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from attrs import frozen

from gateway.aio import heed_cancellation
from gateway.store.connection import Client, store_errors
from gateway.store.keys import ShardKeys

WAIT = 1.0
"""Seconds that a read waits for something new: as long as a new channel may take until its reader sees it."""

GATHER = 0.01
"""Seconds that a reader lets entries gather after a batch that was not full. Waking for every commit would double its
work; the first entry after a silence comes at once."""


@frozen
class LogEntry:
    """One packet as the logs keep it. ``owner`` is the channel's id (channel log) or the device's (device log)."""

    stream: str
    id: str
    ident: str
    owner: int
    messages: list[bytes]
    """Each a message as JSON text, in the order of the packet."""


class LogReader:
    """Reads one or several streams in order, each from its cursor on.

    ``streams`` tells, at each read, which streams there are and who owns them; for the device log the owner stands in
    the entry itself.
    """

    def __init__(
        self,
        redis: Client,
        keys: ShardKeys,
        name: str,
        streams: Callable[[], dict[str, int]],
        *,
        wait: float = WAIT,
        begin: Callable[[str], str] = lambda stream: "0",
    ) -> None:
        """``begin`` gives the id after which a stream is read that the reader has no cursor for. ``wait`` 0: it does
        not wait."""
        self._redis = redis
        self._keys = keys
        self.name = name
        self._streams = streams
        self._wait = wait
        self._begin = begin
        self._positions: dict[str, str] = {}
        self._is_behind = True

    async def read(self, count: int) -> list[LogEntry]:
        """Up to ``count`` entries of each stream after those already read; [] when nothing came in ``wait`` seconds.

        Raises StoreError; then :meth:`rewind` and try again.
        """
        heed_cancellation()
        streams = self._streams()
        await self._load_positions(streams)
        if not streams:
            return []
        if not self._is_behind:
            await asyncio.sleep(GATHER)
        with store_errors():
            answer = await self._redis.xread(
                {stream: self._positions[stream] for stream in streams},
                count=count,
                block=max(1, int(self._wait * 1000)) if self._wait else None,
            )
        entries = [entry for stream, rows in _pairs(answer) for entry in self._entries(stream, streams[stream], rows)]
        self._is_behind = len(entries) >= count
        return entries

    @property
    def is_behind(self) -> bool:
        """Whether there was more than the last read gave."""
        return self._is_behind

    async def confirm(self, entry: LogEntry) -> None:
        """Everything of the entry's stream up to ``entry`` was delivered. Raises StoreError."""
        await self.confirm_all([entry])

    async def confirm_all(self, entries: Iterable[LogEntry]) -> None:
        """The same for several entries, of several streams, in one round trip."""
        fields = self.cursor_fields(entries)
        if fields:
            with store_errors():
                await self._redis.hset(self._keys.cursors, mapping=fields)

    def cursor_fields(self, entries: Iterable[LogEntry]) -> dict[str, str]:
        """What :meth:`confirm_all` would write: for those who move the cursor in a transaction of their own."""
        return {f"{self.name}|{entry.stream}": entry.id for entry in entries}

    async def hold(self) -> None:
        """Write a cursor for each stream that has none: what comes from now on is kept for it. Raises StoreError."""
        streams = self._streams()
        if streams:
            with store_errors():
                async with self._redis.pipeline(transaction=False) as pipe:
                    for stream in streams:
                        pipe.hsetnx(self._keys.cursors, f"{self.name}|{stream}", self._begin(stream))
                    await pipe.execute()

    async def forget(self, streams: Iterable[str]) -> None:
        """Remove its cursors of these streams: it does not read them any more. Raises StoreError."""
        fields = [f"{self.name}|{stream}" for stream in streams]
        for stream in streams:
            self._positions.pop(stream, None)
        if fields:
            with store_errors():
                await self._redis.hdel(self._keys.cursors, *fields)

    def rewind(self) -> None:
        """Read again from the cursors: what was read and not confirmed comes once more."""
        self._positions.clear()

    async def _load_positions(self, streams: dict[str, int]) -> None:
        new = [stream for stream in streams if stream not in self._positions]
        if not new:
            return
        with store_errors():
            stored = await self._redis.hmget(self._keys.cursors, [f"{self.name}|{stream}" for stream in new])
        for stream, cursor in zip(new, stored, strict=True):
            self._positions[stream] = cursor.decode() if cursor else self._begin(stream)

    def _entries(self, stream: str, owner: int, rows: list[tuple[bytes, dict[bytes, bytes]]]) -> list[LogEntry]:
        if not rows:
            return []
        self._positions[stream] = rows[-1][0].decode()
        return [
            LogEntry(
                stream,
                id.decode(),
                fields[b"ident"].decode(),
                int(fields[b"device"]) if b"device" in fields else owner,
                fields[b"messages"].split(b"\n"),
            )
            for id, fields in rows
        ]


def _pairs(answer: object) -> list[tuple[str, list[tuple[bytes, dict[bytes, bytes]]]]]:
    """XREAD's answer in the forms of both versions of Redis' protocol."""
    if not answer:
        return []
    if isinstance(answer, dict):
        return [(stream.decode(), rows[0]) for stream, rows in answer.items()]
    return [(stream.decode(), rows) for stream, rows in answer]  # type: ignore[attr-defined]
