"""Reading what is ordered and kept in several places as one list, page by page, with bounded memory.

Each source is read from Redis in pages, of all those that come next in one pipeline. What may be handed on are the
entries up to the first one before which a source might have another; the rest waits. The more sources there are, the
smaller are the pages, and beyond a bound on bytes what was read ahead is dropped, and read again when it is its turn.
"""

from __future__ import annotations

import asyncio
import heapq
from bisect import bisect_right
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from attrs import define, field

from gateway.store.connection import Client, store_errors

KiB, MiB = 1024, 1024 * 1024

PAGE_BYTES = 128 * KiB
"""Read at once, all sources together: some 1 ms of work. Larger pages are hardly faster, and trackers wait for them."""
HELD_BYTES = 8 * MiB
"""Read ahead for a list of many sources."""
SOURCES_AT_ONCE = 64
"""Read in one pipeline, some 1 ms."""
SLICE = 0.002
"""Seconds that turns may last until others have as much; the loop cannot wait for less than one millisecond."""
REST_MOST = 0.05
"""Seconds between two turns, also where Redis was slow."""
FIRST_GUESS = 4 * KiB
"""Bytes of a row until the first page tells."""
LEAST_ROWS = 2
"""With one row of each source nothing could be handed on but the very first."""

FOREVER = 2**53
"""Microseconds later than all others that a double can tell apart."""


@define
class Page:
    """Messages in order: JSON texts, and what each is ordered by, in microseconds."""

    keys: list[int] = field(factory=list)
    texts: list[bytes] = field(factory=list)

    @property
    def size(self) -> int:
        """Bytes of the texts."""
        return sum(map(len, self.texts))


@define(eq=False)
class Source:
    """Something ordered in Redis. Its keys are negative where it is read backwards, so that they always rise.

    ``bound``: nothing that is still to be read has a lower key. ``most``: rows of a page at most.
    """

    bound: int
    most: int = 250
    is_exhausted: bool = False
    page: Page = field(factory=Page)
    row_bytes: int = FIRST_GUESS

    def command(self, count: int) -> tuple[Any, ...]:
        """What reads the next ``count`` rows."""
        raise NotImplementedError

    def rows(self, answer: Any, count: int) -> Page:
        """The page in the answer; moves ``bound`` behind it, and notices the end."""
        raise NotImplementedError

    def take(self, answer: Any, count: int) -> int:
        """Hold what the answer to :meth:`command` has; gives its bytes."""
        page = self.rows(answer, count)
        if answer:
            self.row_bytes = max(1, page.size // len(answer))
        self.page = Page(self.page.keys + page.keys, self.page.texts + page.texts) if self.page.keys else page
        return page.size

    @property
    def head(self) -> int:
        """The key of the next entry, or what it cannot be lower than."""
        return self.page.keys[0] if self.page.keys else self.bound

    @property
    def known_up_to(self) -> int:
        """All entries up to this key are held."""
        return FOREVER if self.is_exhausted else self.bound - 1

    @property
    def has_more(self) -> bool:
        """Whether anything is held or may still be read."""
        return bool(self.page.keys) or not self.is_exhausted

    def cut(self, end: int) -> Page:
        """Hand over the entries with keys up to ``end``."""
        page = self.page
        at = len(page.keys) if not page.keys or page.keys[-1] <= end else bisect_right(page.keys, end)
        self.page = Page(page.keys[at:], page.texts[at:])
        return page if at == len(page.keys) else Page(page.keys[:at], page.texts[:at])

    def drop(self) -> int:
        """Forget what is held, to read it again; gives its bytes."""
        dropped, self.page = self.page, Page()
        if dropped.keys:
            self.go_back_to(dropped.keys[0])
        return dropped.size

    def go_back_to(self, key: int) -> None:
        """Read again from ``key`` on."""
        self.bound = key
        self.is_exhausted = False


class Turn:
    """``async with`` it, whoever reads or works on much for a slice of some milliseconds; never within another turn.

    One has it at a time, the loop turns between two, and after each :data:`SLICE` of turns there is as much time for
    others: so reading, however many do it, takes no more than half of what the process can do, and less when others
    have much to do, for then a turn lasts longer.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._began = self._ended = 0.0
        self._owed = 0.0

    async def __aenter__(self) -> None:
        await self._lock.acquire()
        self._began = asyncio.get_running_loop().time()

    async def __aexit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        rested, self._ended = self._began - self._ended, loop.time()
        self._owed = max(0.0, self._owed - rested) + self._ended - self._began
        rest = self._owed if self._owed >= SLICE else 0.0
        loop.call_later(min(rest, REST_MOST), self._lock.release)


async def merged(redis: Client, sources: Sequence[Source], turn: Turn | None = None) -> AsyncGenerator[Page, None]:
    """Everything that the sources have, in order of the keys. Pages may be empty. Raises StoreError.

    Those who share a ``turn`` read one page at a time.
    """
    turn = turn or Turn()
    heap = [(source.head, place, source) for place, source in enumerate(sources)]
    heapq.heapify(heap)
    most_bytes = min(PAGE_BYTES // max(1, min(len(heap), SOURCES_AT_ONCE)), HELD_BYTES // max(1, len(heap)))
    held = 0
    while heap:
        group = [heapq.heappop(heap) for _ in range(min(SOURCES_AT_ONCE, len(heap)))]
        async with turn:
            held += await _fill(redis, [source for _, _, source in group], most_bytes)
        end = min(source.known_up_to for _, _, source in group)
        if heap:
            end = min(end, heap[0][0])
        page = _woven([source.cut(end) for _, _, source in group])
        held -= page.size
        for _, place, source in group:
            if held > HELD_BYTES:
                held -= source.drop()
            if source.has_more:
                heapq.heappush(heap, (source.head, place, source))
        yield page


async def _fill(redis: Client, sources: list[Source], most_bytes: int) -> int:
    """Read a page of each of ``sources`` that has little left; gives the bytes."""
    asked = []
    for source in sources:
        count = max(LEAST_ROWS, min(source.most, most_bytes // source.row_bytes))
        if not source.is_exhausted and len(source.page.keys) <= count // 2:
            asked.append((source, count))
    if not asked:
        await asyncio.sleep(0)
        return 0
    with store_errors():
        if len(asked) == 1:
            [(source, count)] = asked
            answers = [await redis.execute_command(*source.command(count))]
        else:
            async with redis.pipeline(transaction=False) as pipe:
                for source, count in asked:
                    pipe.execute_command(*source.command(count))
                answers = await pipe.execute()
    return sum(source.take(answer, count) for (source, count), answer in zip(asked, answers, strict=True))


def _woven(pages: list[Page]) -> Page:
    pages = [page for page in pages if page.keys]
    if len(pages) <= 1:
        return pages[0] if pages else Page()
    rows = sorted(
        (key, place, text) for place, page in enumerate(pages) for key, text in zip(page.keys, page.texts, strict=True)
    )
    return Page([row[0] for row in rows], [row[2] for row in rows])
