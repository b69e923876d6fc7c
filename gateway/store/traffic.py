"""The raw traffic of an ident on a channel: what it sent, what it was sent, when it came and went.

What is rare is always kept: logins, what was refused and why, connects and disconnects. All bytes are kept only where
the channel's ``packets_ttl`` says for how long, for each packet is a write to Redis then. Types are flespi's (its page
"Channels", traffic): 0 connect, 1 disconnect, 2 received, 3 sent; 128 more on UDP.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Any

import orjson
from attrs import frozen

from gateway import metrics
from gateway.store.connection import Client, store_errors
from gateway.store.history import Chunks
from gateway.store.journals import Bounds, JournalEntries, Journals, KiB, MiB, Place
from gateway.store.keys import ShardKeys
from gateway.store.ordered import Source, Turn, merged
from gateway.store.sources import MICROSECONDS, Span

CONNECT, DISCONNECT, RECEIVED, SENT = range(4)
UDP = 128
"""Added to the type."""

DAY = 86400.0
RARE = Bounds(100, 16 * KiB, 7 * DAY)
"""Of one ident, where the channel keeps only what is rare."""
ENTRIES_MOST, BYTES_MOST = 20_000, 1 * MiB
"""Of one ident, where the channel keeps everything: some days of a car."""
PACKETS_TTL_MOST = 2_592_000
IDENTS_MOST = 10_000
"""Of one channel; the longest silent ones go."""
DATA_MOST = 2 * KiB
"""Bytes of one entry among what is rare; real packets have less than 1300."""
WINDOW = 60.0
OF_IDENT = 60
"""Entries of one ident in a window, where only what is rare is kept."""
WINDOWS_MOST = 50_000
PARKED_AT_ONCE = 16
"""Rows: each can be 64 KiB."""


@frozen
class Whose:
    """An ident on a channel, by one connection (0: UDP). ``ttl``: the channel's ``packets_ttl``."""

    channel_id: int
    ident: str
    connection: int = 0
    ttl: int = 0


class Traffic:
    """Keeps it in a journal for each ident of a channel."""

    def __init__(self, redis: Client, keys: ShardKeys, *, now: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._keys = keys
        self._now = now
        self._journals = Journals(redis, "traffic", now=now)
        self._counts: dict[tuple[int, str], int] = {}
        self._window_ends = 0.0

    # -- never waits, never raises

    def connected(self, whose: Whose, source: str, login: bytes, verdict: bytes) -> None:
        """An ident came and was let in, or not; ``login`` and ``verdict`` are the bytes of both sides."""
        self._add(whose, CONNECT, b"", source, "", ("login", login, "verdict", verdict))

    def disconnected(self, whose: Whose, reason: str) -> None:
        """Its connection ended."""
        self._add(whose, DISCONNECT, b"", "", reason)

    def record(self, whose: Whose, type: int, data: bytes, *, source: str = "", reason: str = "") -> None:
        """``data`` was received or sent; ``reason`` says why it was not taken."""
        self._add(whose, type, data, source, reason)

    def _add(
        self, whose: Whose, type: int, data: bytes, source: str, reason: str, more: tuple[str | bytes, ...] = ()
    ) -> None:
        if not whose.ttl and not self._is_rare(whose):
            return
        fields: list[Any] = ["type", str(type), "conn", str(whose.connection)]
        most = None if whose.ttl else DATA_MOST
        if data:
            fields += ["data", data[:most]]
        if most is not None and len(data) > most:
            fields += ["size", str(len(data))]
        for name, text in (("source", source), ("reason", reason)):
            if text:
                fields += [name, text.encode(errors="replace")]
        self._journals.add(self._place(whose), self._journals.stamp(), (*fields, *more))

    def _is_rare(self, whose: Whose) -> bool:
        """Nobody can make us write without end by being refused without end."""
        now = self._now()
        if now >= self._window_ends or len(self._counts) > WINDOWS_MOST:
            self._counts.clear()
            self._window_ends = now + WINDOW
        place = (whose.channel_id, whose.ident)
        count = self._counts[place] = self._counts.get(place, 0) + 1
        if count > OF_IDENT:
            metrics.count("journal_entries_dropped", journal="traffic", reason="too often")
        return count <= OF_IDENT

    def _place(self, whose: Whose) -> Place:
        bounds = Bounds(ENTRIES_MOST, BYTES_MOST, whose.ttl) if whose.ttl else RARE
        index = self._keys.traffic(whose.channel_id)
        return Place(f"{index}:{whose.ident}", bounds, index, whose.ident, IDENTS_MOST)

    # -- in the background

    async def run(self) -> None:
        """Write until cancelled."""
        await self._journals.run()

    async def flush(self) -> None:
        """Write what waits. Raises StoreError."""
        await self._journals.flush()

    async def forget_channel(self, channel_id: int) -> None:
        """The channel is deleted. Raises StoreError."""
        index = self._keys.traffic(channel_id)
        with store_errors():
            while members := await self._redis.zpopmin(index, 500):
                await self._redis.unlink(*(f"{index}:{member.decode()}" for member, _ in members))

    async def read(self, whose: Iterable[tuple[int, str]], span: Span, turn: Turn | None = None) -> Chunks:
        """The traffic of these (channel id, ident) in one order, as JSON texts. Raises StoreError.

        ``{"timestamp", "type", "data" (base64), "conn", "ident", "channel_id"}``, and ``source``, ``reason``, or
        ``size`` where ``data`` is only its beginning; what the channel parked is there with its reason.
        """
        await self.flush()
        sources: list[Source] = []
        for channel_id, ident in whose:
            view = _View(channel_id, ident)
            sources.append(JournalEntries.of(self._keys.traffic_of(channel_id, ident), span, view.of_entry))
            parked = self._keys.parked(channel_id)
            sources.append(JournalEntries.of(parked, span, view.of_parked, PARKED_AT_ONCE))
        async with aclosing(merged(self._redis, sources, turn)) as pages:
            async for page in pages:
                yield page.texts

    async def sizes(self, channel_id: int, idents: Iterable[str]) -> dict[str, int]:
        """Bytes of Redis' memory that the traffic of each ident takes. Raises StoreError."""
        wanted = list(idents)
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for ident in wanted:
                    pipe.execute_command("MEMORY", "USAGE", self._keys.traffic_of(channel_id, ident))
                answers = await pipe.execute()
        return {ident: int(size or 0) for ident, size in zip(wanted, answers, strict=True)}


@frozen
class _View:
    """Entries of one ident as JSON."""

    channel_id: int
    ident: str

    def of_entry(self, at: int, fields: dict[bytes, bytes]) -> list[bytes]:
        """What a journal's entry is: a connect brings the login and the verdict along."""
        type = int(fields[b"type"])
        texts = [self._text(at, type, fields.get(b"data", b""), fields)]
        if b"login" in fields:
            texts.append(self._text(at, RECEIVED, fields[b"login"], fields))
        if fields.get(b"verdict"):
            texts.append(self._text(at, SENT, fields[b"verdict"], fields))
        return texts

    def of_parked(self, at: int, fields: dict[bytes, bytes]) -> list[bytes]:
        """What a parked packet is, if it is of this ident."""
        if fields[b"ident"].decode() != self.ident:
            return []
        given = fields.get(b"reason", b"cannot be decoded").decode()
        reason = f"{given}: acknowledged, its records are in no message".encode()
        return [self._text(at, RECEIVED, fields[b"frame"], {b"reason": reason})]

    def _text(self, at: int, type: int, data: bytes, fields: dict[bytes, bytes]) -> bytes:
        view: dict[str, Any] = {
            "timestamp": at / MICROSECONDS,
            "type": type,
            "data": b64encode(data).decode(),
            "conn": int(fields.get(b"conn", 0)),
            "ident": self.ident,
            "channel_id": self.channel_id,
        }
        for name in ("source", "reason"):
            if name.encode() in fields:
                view[name] = fields[name.encode()].decode("utf-8", "replace")
        if b"size" in fields:
            view["size"] = int(fields[b"size"])
        return orjson.dumps(view)
