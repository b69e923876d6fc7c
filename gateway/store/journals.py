"""Journals: Redis streams of small entries that are bounded in number, in bytes and in age.

What is written here is for people who look for a fault, so nobody waits for it: :meth:`Journals.add` puts an entry into
a bounded queue, and what does not fit, or what Redis does not take, is dropped and counted. An entry's id is the time
in microseconds, strictly rising, so that one that may have been stored is never stored twice.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from attrs import define, field, frozen
from twisted.logger import Logger

from gateway import metrics
from gateway.aio import heed_cancellation
from gateway.errors import StoreError
from gateway.store.connection import Client, is_refusal, store_errors
from gateway.store.log import ChannelClock
from gateway.store.ordered import Page, Source
from gateway.store.sources import MICROSECONDS, Span

KiB, MiB = 1024, 1024 * 1024

QUEUE_ENTRIES = 20_000
QUEUE_BYTES = 16 * MiB
"""Waiting for Redis: what a few seconds of 20,000 trackers that all come back bring."""
BATCH = 100
"""Entries written at once: some 2 ms of work with what belongs to it."""
GATHER = 0.1
"""Seconds that entries gather before they are written: each write is one synchronization of the disk."""
RETRY = 2.0
TIDY_EVERY = 3600.0
"""Seconds between looks at the age of a journal that is written to; one that is not expires as a whole."""
KNOWN_MOST = 100_000
"""Journals whose growth is remembered; of the others the size is asked at their next entry."""
LOG_EVERY = 1000
NOT_RISING = "equal or smaller"
"""What Redis says of an id that is not above the last one."""


@frozen
class Bounds:
    """Of one journal: entries, bytes of Redis' memory, and seconds. The first two are kept roughly."""

    entries: int
    size: int
    ttl: float


@frozen
class Place:
    """A journal. ``index`` is a sorted set of the journals of its kind by their last use: of more than ``most``
    members the longest unused go. The key of a member's journal is the index's, a colon, and the member."""

    key: str
    bounds: Bounds
    index: str = ""
    member: str = ""
    most: int = 0


@define(eq=False)
class _Entry:
    place: Place
    id: int
    fields: tuple[Any, ...]
    size: int

    def command(self) -> tuple[Any, ...]:
        if not self.fields:
            return ("UNLINK", self.place.key)
        return ("XADD", self.place.key, "MAXLEN", "~", self.place.bounds.entries, self.id, *self.fields)


@define(eq=False)
class _Growth:
    """Of a journal since it was last looked at."""

    seen: float
    size: int


class Journals:
    """Writes to any number of journals; ``name`` is for the log and the metrics."""

    log = Logger()

    def __init__(self, redis: Client, name: str, *, now: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._name = name
        self._now = now
        self._clock = ChannelClock(now)
        self._queue: deque[_Entry] = deque()
        self._bytes = 0
        self._grown: dict[str, _Growth] = {}
        self._wakeup = asyncio.Event()
        self._writing = asyncio.Lock()

    def stamp(self) -> int:
        """The time in microseconds for the next entry: later than all before."""
        return self._clock.reserve(1)

    def add(self, place: Place, id: int, fields: tuple[Any, ...]) -> bool:
        """Write an entry (names and values in turn) with the id of :meth:`stamp`; False: there is no room, it is
        dropped and counted. Never waits, never raises."""
        return self._push(_Entry(place, id, fields, sum(len(part) for part in fields) + 64))

    def delete(self, key: str) -> None:
        """Remove a journal, after what was added to it before."""
        self._push(_Entry(Place(key, Bounds(0, 0, 0)), 0, (), 64))
        self._grown.pop(key, None)

    def _push(self, entry: _Entry) -> bool:
        if len(self._queue) >= QUEUE_ENTRIES or self._bytes + entry.size > QUEUE_BYTES:
            self._dropped(1, "queue is full")
            return False
        self._queue.append(entry)
        self._bytes += entry.size
        self._wakeup.set()
        return True

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            heed_cancellation()
            await self._wakeup.wait()
            self._wakeup.clear()
            await asyncio.sleep(GATHER)
            try:
                await self.flush()
            except StoreError as error:
                n = metrics.count("journal_failures", journal=self._name)
                if n % 100 == 1:
                    self.log.warn("{name} wait for Redis ({n}.): {error}", name=self._name, n=n, error=str(error))
                self._wakeup.set()
                await asyncio.sleep(RETRY)

    async def flush(self) -> None:
        """Write all that was added until now. Raises StoreError; what was not written stays."""
        ahead = len(self._queue)
        async with self._writing:
            while self._queue and ahead > 0:
                batch = [self._queue[place] for place in range(min(BATCH, len(self._queue)))]
                await self._write(batch)
                ahead -= len(batch)

    async def _write(self, batch: list[_Entry]) -> None:
        """Write ``batch``, which stays at the head of the queue until Redis has answered.

        Raises StoreError where it does not answer; a second attempt finds the ids that the first one stored.
        """
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for entry in batch:
                    pipe.execute_command(*entry.command())
                results = await pipe.execute(raise_on_error=False)
        for entry in batch:
            self._queue.popleft()
            self._bytes -= entry.size
        refused = {entry: str(result) for entry, result in zip(batch, results, strict=True) if is_refusal(result)}
        late = [entry for entry, reason in refused.items() if NOT_RISING in reason]
        if len(late) < len(refused):
            self._dropped(len(refused) - len(late), "refused")
        for entry in late:
            await self._write_later(entry)
        await self._tidy([entry for entry in batch if entry.fields and entry not in refused])

    async def _write_later(self, entry: _Entry) -> None:
        """Redis wants rising ids: the clock was set back, or an attempt without an answer did store the entry."""
        with store_errors():
            if await self._redis.xrange(entry.place.key, entry.id, entry.id):
                return
            [(newest, _fields)] = await self._redis.xrevrange(entry.place.key, count=1)
            self._clock.last = max(self._clock.last, int(newest.partition(b"-")[0]))
            entry.id = self.stamp()
            await self._redis.execute_command(*entry.command())

    async def _tidy(self, entries: Iterable[_Entry]) -> None:
        """Look after the journals that are new to us, have grown by a quarter of what they may, or were not looked at
        for long."""
        now = self._now()
        if len(self._grown) > KNOWN_MOST:
            self._grown.clear()
        new: dict[str, Place] = {}
        due: dict[str, Place] = {}
        for entry in entries:
            place = entry.place
            growth = self._grown.get(place.key)
            if growth is None:
                self._grown[place.key] = _Growth(now, entry.size)
                new[place.key] = place
                continue
            growth.size += entry.size
            if growth.size > place.bounds.size // 4 or now - growth.seen > TIDY_EVERY:
                due[place.key] = place
        for key in due:
            self._grown[key] = _Growth(now, 0)
        await self._keep(list({**new, **due}.values()), now)
        await self._trim(list(due.values()), now)

    async def _keep(self, places: list[Place], now: float) -> None:
        """Have them expire when nothing comes any more, and have the index know them."""
        if not places:
            return
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for place in places:
                    pipe.execute_command("EXPIRE", place.key, int(place.bounds.ttl + TIDY_EVERY))
                    if place.index:
                        pipe.execute_command("ZADD", place.index, int(now), place.member)
                await pipe.execute(raise_on_error=False)
        for index, most in {place.index: place.most for place in places if place.index}.items():
            await self._evict(index, most)

    async def _trim(self, places: list[Place], now: float) -> None:
        """Remove what is too old, and the oldest of what is too much."""
        if not places:
            return
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for place in places:
                    oldest = max(0, int((now - place.bounds.ttl) * MICROSECONDS))
                    pipe.execute_command("XTRIM", place.key, "MINID", "~", oldest)
                    pipe.execute_command("XLEN", place.key)
                    pipe.execute_command("MEMORY", "USAGE", place.key)
                answers = await pipe.execute(raise_on_error=False)
                for place, length, size in zip(places, answers[1::3], answers[2::3], strict=True):
                    if not is_refusal(size) and size and size > place.bounds.size:
                        kept = max(1, int(length * place.bounds.size * 3 // (size * 4)))
                        pipe.execute_command("XTRIM", place.key, "MAXLEN", "~", kept)
                await pipe.execute(raise_on_error=False)

    async def _evict(self, index: str, most: int) -> None:
        with store_errors():
            excess = int(await self._redis.zcard(index)) - most
            if excess <= 0:
                return
            going = await self._redis.zpopmin(index, excess)
            keys = [f"{index}:{member.decode()}" for member, _ in going]
            await self._redis.unlink(*keys)
        for key in keys:
            self._grown.pop(key, None)

    def _dropped(self, n: int, reason: str) -> None:
        total = metrics.count("journal_entries_dropped", n, journal=self._name, reason=reason)
        if total % LOG_EVERY == 1:
            self.log.warn("{name}: dropped {n} so far: {reason}", name=self._name, n=total, reason=reason)


Texts = Callable[[int, dict[bytes, bytes]], list[bytes]]
"""What an entry (its time in microseconds, its fields) is in JSON: none, one or several texts."""


@define(eq=False, kw_only=True)
class JournalEntries(Source):
    """The entries of one journal, by their time, for :func:`gateway.store.ordered.merged`."""

    key: str
    span: Span
    texts_of: Texts = field(repr=False)

    @classmethod
    def of(cls, key: str, span: Span, texts_of: Texts, most: int = 250) -> JournalEntries:
        """What the stream ``key`` has in ``span``; ``most`` rows at once."""
        return cls(-span.high if span.is_reverse else span.low, most, key=key, span=span, texts_of=texts_of)

    def command(self, count: int) -> tuple[Any, ...]:
        """See :class:`~gateway.store.ordered.Source`."""
        if self.span.is_reverse:
            return ("XREVRANGE", self.key, -self.bound, self.span.low, "COUNT", count)
        return ("XRANGE", self.key, self.bound, self.span.high, "COUNT", count)

    def rows(self, answer: Any, count: int) -> Page:
        """See :class:`~gateway.store.ordered.Source`."""
        page = Page()
        sign = -1 if self.span.is_reverse else 1
        for entry_id, fields in answer:
            at = int(entry_id.partition(b"-")[0])
            self.bound = sign * at + 1
            texts = self.texts_of(at, fields)
            page.texts += reversed(texts) if self.span.is_reverse else texts
            page.keys += [sign * at] * len(texts)
        self.is_exhausted = len(answer) < count
        return page
