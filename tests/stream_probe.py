"""A type of stream for tests of what all types share: it does what a test says, and notes what was asked of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from attrs import define, field

from gateway.stream.protocols import StreamProtocol
from gateway.stream.streams import Streams
from gateway.stream.target import Options, Outgoing, Rejection, StreamInfo, Target
from tests.streaming import KEYS, PROTOCOLS, RETRY, Carrier

Act = Callable[[Sequence[Outgoing]], Awaitable[Sequence[Rejection]]]


async def take(batch: Sequence[Outgoing]) -> Sequence[Rejection]:
    return []


@define
class Book:
    """Of one stream: what its targets did, over all that were made for it."""

    act: Act = take
    opening: Callable[[], Awaitable[None]] | None = None
    closing: Callable[[], Awaitable[None]] | None = None
    tried: list[list[int]] = field(factory=list)
    """Batches as they were given, also those that failed."""
    taken: list[int] = field(factory=list)
    times: list[float] = field(factory=list)
    opened: int = 0
    now: int = 0
    """Targets that are open, or being opened or closed."""
    most: int = 0
    delivering: int = 0


class Probe(Target):
    """Does what the test says, and keeps what it got in a book, one for each stream."""

    Config = Options
    id = 99
    title = "Probe"
    books: dict[int, Book]

    def __init__(self, config: Any, stream: StreamInfo) -> None:
        super().__init__(config, stream)
        self.book = self.books.setdefault(stream.id, Book())
        self._is_open = False

    async def open(self) -> None:
        if not self._is_open:
            self._is_open = True
            self.book.now += 1
            self.book.most = max(self.book.most, self.book.now)
        self.book.opened += 1
        if self.book.opening is not None:
            await self.book.opening()

    async def close(self) -> None:
        try:
            if self.book.closing is not None:
                await self.book.closing()
        finally:
            if self._is_open:
                self._is_open = False
                self.book.now -= 1

    async def deliver(self, batch: Sequence[Outgoing]) -> Sequence[Rejection]:
        book = self.book
        numbers = [outgoing.message["n"] for outgoing in batch]
        book.tried.append(numbers)
        book.times.append(asyncio.get_running_loop().time())
        book.delivering += 1
        assert book.delivering == 1, "one batch at a time"
        try:
            rejections = await book.act(batch)
        finally:
            book.delivering -= 1
        book.taken += numbers
        return rejections


class ProbedCarrier(Carrier):
    """A carrier that has the type ``probe``, too."""

    def __init__(self, redis) -> None:
        Probe.books = self.books = {}
        super().__init__(redis)

    def new_streams(self) -> Streams:
        protocols = {**PROTOCOLS, "probe": StreamProtocol("probe", Probe)}
        return Streams(
            self.redis, KEYS, self.items, protocols, self._record, now=lambda: self.time, retry_first=RETRY
        )  # fmt: skip

    def book(self, id: int = 1) -> Book:
        return self.books.setdefault(id, Book())

    async def probe(self, **options: Any):
        return await self.stream("probe", options)
