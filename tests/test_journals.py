"""Journals: written in the background, in order, bounded in number, bytes and age, whatever Redis does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from attrs import evolve

from gateway import metrics
from gateway.errors import StoreUnavailable
from gateway.store import journals
from gateway.store.connection import connect
from gateway.store.journals import Bounds, JournalEntries, Journals, Place
from gateway.store.ordered import merged
from gateway.store.sources import MICROSECONDS, Span

PLACE = Place("journal", Bounds(1000, 1024 * 1024, 3600))
NOW = 1_700_000_000.0


def clock(start: float = NOW) -> Callable[[], float]:
    """Stands still, unless the test moves ``clock.time``."""

    def now() -> float:
        return now.time

    now.time = start
    return now


def add(journal: Journals, place: Place = PLACE, text: bytes = b"text") -> int:
    stamp = journal.stamp()
    assert journal.add(place, stamp, ("entry", text))
    return stamp


async def texts(redis, key: str = "journal", span: Span | None = None) -> list[bytes]:
    source = JournalEntries.of(key, span or Span(), lambda _at, fields: [fields[b"entry"]])
    return [text async for page in merged(redis, [source]) for text in page.texts]


def test_what_was_added_is_read_in_order_both_ways(run, redis):
    """More entries than a page has."""
    journal = Journals(redis, "test", now=clock())
    written = [b"%d" % n for n in range(700)]
    for text in written:
        add(journal, text=text)
    run(journal.flush())
    assert run(texts(redis)) == written
    assert run(texts(redis, span=Span(is_reverse=True))) == written[::-1]


def test_a_range_has_both_its_ends(run, redis):
    """As flespi's from and to."""
    journal = Journals(redis, "test", now=clock())
    stamps = [add(journal, text=b"%d" % n) for n in range(5)]
    run(journal.flush())
    assert run(texts(redis, span=Span(stamps[1], stamps[3]))) == [b"1", b"2", b"3"]
    assert run(texts(redis, span=Span(stamps[1], stamps[3], True))) == [b"3", b"2", b"1"]


def test_one_entry_can_be_several_texts_or_none(run, redis):
    """A view decides."""

    async def scenario() -> list[bytes]:
        journal = Journals(redis, "test", now=clock())
        for count in (2, 0, 1):
            add(journal, text=b"x" * count)
        await journal.flush()
        source = JournalEntries.of("journal", Span(), lambda at, fields: [b"x"] * len(fields[b"entry"]), most=1)
        return [text async for page in merged(redis, [source]) for text in page.texts]

    assert run(scenario()) == [b"x"] * 3


def test_stamps_rise_although_the_clock_does_not(redis):
    """Microseconds since 1970."""
    journal = Journals(redis, "test", now=clock())
    first = journal.stamp()
    assert first == int(NOW * MICROSECONDS)
    assert [journal.stamp(), journal.stamp()] == [first + 1, first + 2]


def test_a_clock_that_was_set_back_loses_nothing(run, redis):
    """A stream takes only rising ids: later ones are given."""
    add(before := Journals(redis, "test", now=clock()), text=b"before")
    run(before.flush())
    after = Journals(redis, "test", now=clock(NOW - 1000))
    for n in range(3):
        add(after, text=b"%d" % n)
    run(after.flush())
    assert run(texts(redis)) == [b"before", b"0", b"1", b"2"]
    assert after.stamp() > NOW * MICROSECONDS


def test_a_second_attempt_stores_nothing_twice(run, redis, monkeypatch):
    """Redis had done it and could not say so."""
    journal = Journals(redis, "test", now=clock())
    add(journal, text=b"1")
    add(journal, text=b"2")
    queue = list(journal._queue)
    run(journal.flush())
    journal._queue.extend(queue)
    run(journal.flush())
    assert run(texts(redis)) == [b"1", b"2"]


def test_more_than_the_bound_on_entries_pushes_out_the_oldest(run, redis):
    """Roughly: Redis removes whole nodes of a hundred entries."""
    journal = Journals(redis, "test", now=clock())
    place = evolve(PLACE, bounds=Bounds(200, 1024 * 1024, 3600))
    for n in range(2000):
        add(journal, place, b"%d" % n)
    run(journal.flush())
    kept = run(texts(redis))
    assert 200 <= len(kept) <= 300
    assert kept[-1] == b"1999"


def test_more_than_the_bound_on_bytes_pushes_out_the_oldest(run, redis):
    """Whatever the number of entries."""
    journal = Journals(redis, "test", now=clock())
    place = evolve(PLACE, bounds=Bounds(1000, 64 * 1024, 3600))
    for n in range(400):
        add(journal, place, b"%04d" % n + b"x" * 1000)
        if n % 50 == 49:
            run(journal.flush())
    used = run(redis.memory_usage("journal"))
    assert used < 100 * 1024
    assert run(texts(redis))[-1].startswith(b"0399")


def test_what_is_older_than_the_bound_goes_and_the_rest_expires(run, redis):
    """With the first entry after an hour; a journal without new entries goes as a whole."""
    now = clock()
    journal = Journals(redis, "test", now=now)
    for n in range(300):
        add(journal, text=b"%d" % n)
    run(journal.flush())
    assert 3600 < run(redis.ttl("journal")) <= 7200
    now.time += 4000
    add(journal, text=b"new")
    run(journal.flush())
    kept = run(texts(redis))
    assert kept[-1] == b"new"
    assert len(kept) <= 101


def test_of_too_many_journals_the_longest_unused_go(run, redis):
    """The index knows them."""
    now = clock()
    journal = Journals(redis, "test", now=now)
    for n in range(5):
        now.time += 10
        add(journal, Place(f"index:{n}", PLACE.bounds, "index", str(n), 3))
        run(journal.flush())
    assert run(redis.zrange("index", 0, -1)) == [b"2", b"3", b"4"]
    assert sorted(run(redis.keys("index:*"))) == [b"index:2", b"index:3", b"index:4"]


def test_a_deleted_journal_is_gone_with_what_waited_for_it(run, redis):
    """In the order in which it was asked."""
    journal = Journals(redis, "test", now=clock())
    add(journal)
    journal.delete("journal")
    run(journal.flush())
    assert run(redis.exists("journal")) == 0


def test_a_full_queue_drops_and_counts(redis, monkeypatch):
    """Nobody waits, nothing grows."""
    monkeypatch.setattr(journals, "QUEUE_ENTRIES", 2)
    journal = Journals(redis, "full", now=clock())
    assert [journal.add(PLACE, journal.stamp(), ("entry", b"x")) for _ in range(4)] == [True, True, False, False]
    assert metrics.value("journal_entries_dropped", journal="full", reason="queue is full") == 2


def test_bytes_that_wait_are_bounded_too(redis, monkeypatch):
    """Large entries fill the queue sooner."""
    monkeypatch.setattr(journals, "QUEUE_BYTES", 1000)
    journal = Journals(redis, "heavy", now=clock())
    assert [journal.add(PLACE, journal.stamp(), ("entry", b"x" * 400)) for _ in range(3)] == [True, True, False]


def test_what_a_redis_that_is_away_does_not_take_waits_for_it(run, redis, redis_server):
    """The writer tries again."""

    async def scenario() -> list[bytes]:
        away = connect("unix:///nowhere/redis.sock")
        journal = Journals(away, "away", now=clock())
        add(journal, text=b"kept")
        with pytest.raises(StoreUnavailable):
            await journal.flush()
        await away.aclose()
        journal._redis = redis
        await journal.flush()
        return await texts(redis)

    assert run(scenario()) == [b"kept"]


def test_the_writer_writes_by_itself(run, redis):
    """Soon after something was added, and again."""

    async def scenario() -> None:
        journal = Journals(redis, "test", now=clock())
        writing = asyncio.ensure_future(journal.run())
        for count in (1, 2):
            add(journal)
            async with asyncio.timeout(5):
                while await redis.xlen("journal") < count:
                    await asyncio.sleep(0.01)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)

    run(scenario())


def test_what_redis_refuses_for_good_is_dropped_and_counted(run, redis):
    """Somebody uses the key for something else."""
    run(redis.set("journal", "a string"))
    journal = Journals(redis, "refused", now=clock())
    add(journal)
    run(journal.flush())
    assert metrics.value("journal_entries_dropped", journal="refused", reason="refused") == 1
    add(journal, evolve(PLACE, key="other"))
    run(journal.flush())
    assert run(texts(redis, "other")) == [b"text"]
