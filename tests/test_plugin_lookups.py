"""What plugins that look things up share: a cache, a rate, and questions that are not asked in vain."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway import metrics
from gateway.errors import RemoteRefused, RemoteUnavailable
from gateway.plugin.cache import Cache
from gateway.plugin.lookups import PAUSE, PAUSE_REFUSED, Batch, Bounds, Lookups, NoTurn
from gateway.plugin.rate import Rate


class Clock:
    """Seconds as the test says."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Service:
    """Answers a number with its double, 0 with nothing; ``errors`` are raised first."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.errors: list[Exception] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self, key: int) -> int | None:
        self.asked.append(key)
        await self.may_answer.wait()
        if self.errors:
            raise self.errors.pop(0)
        return 2 * key or None


def test_a_cache_forgets_what_was_not_used_longest():
    """And never has more than it may."""
    cache: Cache[int, str] = Cache(3, 10)
    for n in range(3):
        cache.put(n, str(n))
    assert cache.get(0) == "0"
    cache.put(3, "3")
    assert [cache.get(n) for n in range(4)] == ["0", None, "2", "3"]
    assert len(cache) == 3


def test_a_cache_forgets_when_the_time_is_over():
    """That of the entry, where it has one."""
    clock = Clock()
    cache: Cache[str, int] = Cache(10, 10, now=clock)
    cache.put("a", 1)
    cache.put("b", 2, 20)
    clock.seconds += 9.9
    assert cache.get("a") == 1
    clock.seconds += 0.1
    assert (cache.get("a"), cache.get("b"), len(cache)) == (None, 2, 1)


def test_turns_come_evenly_and_nobody_waits_longer_than_said(run):
    """Whoever would is told at once."""

    async def scenario() -> None:
        rate = Rate(20)
        started = time.monotonic()
        turns = await asyncio.gather(*(rate.turn(0.12) for _ in range(10)))
        assert turns == [True] * 3 + [False] * 7
        assert 0.1 <= time.monotonic() - started < 0.5
        assert await Rate(0).turn(0)

    run(scenario())


def test_a_turn_that_was_not_taken_is_not_saved_up(run):
    """After a silence there is one turn at once, not many."""

    async def scenario() -> None:
        clock = Clock()
        rate = Rate(1, now=clock)
        assert await rate.turn(0)
        clock.seconds += 100
        assert [await rate.turn(0.5) for _ in range(3)] == [True, False, False]

    run(scenario())


def test_an_answer_is_asked_for_once(run):
    """Also that there is none, for a shorter time."""

    async def scenario() -> None:
        clock, service = Clock(), Service()
        lookups = Lookups(service, Bounds(seconds=100, nothing_seconds=10), now=clock)
        for _ in range(2):
            assert await lookups.find(4, clock() + 1) == 8
            assert await lookups.find(0, clock() + 1) is None
        assert service.asked == [4, 0]
        clock.seconds += 50
        assert await lookups.find(4, clock() + 1) == 8
        assert await lookups.find(0, clock() + 1) is None
        assert service.asked == [4, 0, 0]

    run(scenario())


def test_those_who_ask_the_same_at_once_share_the_answer(run):
    """One question goes out; of different ones each goes."""

    async def scenario() -> None:
        service = Service()
        lookups = Lookups(service, Bounds())
        service.may_answer.clear()
        finding = [asyncio.ensure_future(lookups.find(key, lookups.now() + 20)) for key in (1, 1, 2, 1)]
        while len(service.asked) < 2:
            await asyncio.sleep(0)
        service.may_answer.set()
        assert await asyncio.gather(*finding) == [2, 2, 4, 2]
        assert service.asked == [1, 2]

    run(scenario())


def test_one_that_is_cancelled_leaves_the_question_to_the_other(run):
    """Who waits for it asks then."""

    async def scenario() -> None:
        service = Service()
        lookups = Lookups(service, Bounds())
        service.may_answer.clear()
        first = asyncio.ensure_future(lookups.find(1, lookups.now() + 20))
        second = asyncio.ensure_future(lookups.find(1, lookups.now() + 20))
        while not service.asked:
            await asyncio.sleep(0)
        first.cancel()
        service.may_answer.set()
        assert await second == 2

    run(scenario())


def test_a_question_that_another_one_asks_is_waited_for_no_longer_than_said(run):
    """Then there is no turn."""

    async def scenario() -> None:
        service = Service()
        lookups = Lookups(service, Bounds())
        service.may_answer.clear()
        first = asyncio.ensure_future(lookups.find(1, lookups.now() + 20))
        await asyncio.sleep(0)
        with pytest.raises(NoTurn):
            await lookups.find(1, lookups.now() + 0.05)
        first.cancel()

    run(scenario())


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (RemoteUnavailable("gone"), PAUSE),
        (RemoteRefused("HTTP 500: gone", status=500), PAUSE),
        (RemoteRefused("gone: nothing left", status=403), PAUSE_REFUSED),
    ],
)
def test_a_service_that_fails_is_left_in_peace_for_a_while(run, error, pause):
    """Who asks meanwhile hears why; what is known is known."""

    async def scenario() -> None:
        clock, service = Clock(), Service()
        lookups = Lookups(service, Bounds(), now=clock)
        await lookups.find(1, clock() + 1)
        service.errors.append(error)
        with pytest.raises(type(error), match="gone"):
            await lookups.find(2, clock() + 1)
        clock.seconds += pause - 1
        with pytest.raises(RemoteUnavailable, match=r"gone.* \(not asked again for 1 s\)"):
            await lookups.find(3, clock() + 1)
        assert await lookups.find(1, clock() + 1) == 2
        clock.seconds += 1
        assert await lookups.find(3, clock() + 1) == 6
        assert service.asked == [1, 2, 3]

    run(scenario())


def test_a_batch_goes_on_without_what_it_cannot_have_in_time(run):
    """And counts it."""

    async def scenario() -> None:
        service = Service()
        lookups = Lookups(service, Bounds(rate=10))
        before = metrics.value("plugin_messages_passed_by", type="tested-batch")
        batch = Batch(lookups, 0.15, "tested-batch")
        assert [await batch.find(n) for n in (1, 2, 3, 4, 1)] == [2, 4, None, None, 2]
        batch.end()
        assert metrics.value("plugin_messages_passed_by", type="tested-batch") == before + 2

    run(scenario())


def test_a_batch_fails_only_where_nothing_was_answered(run):
    """Otherwise what was found out would be lost with the rest."""

    async def scenario() -> None:
        service = Service()
        lookups = Lookups(service, Bounds())
        batch = Batch(lookups, 1, "tested-batch")
        assert await batch.find(1) == 2
        service.errors.append(RemoteUnavailable("gone"))
        assert [await batch.find(2), await batch.find(3), await batch.find(1)] == [None, None, 2]
        batch.end()
        batch = Batch(lookups, 1, "tested-batch")
        assert await batch.find(5) is None
        with pytest.raises(RemoteUnavailable, match="gone"):
            batch.end()

    run(scenario())
