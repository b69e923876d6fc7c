"""One stream: batches, repetition, refusals, mistakes of its type, and a Redis that goes away."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from twisted.logger import capturedLogs, formatEvent

from gateway import metrics
from gateway.errors import RemoteRefused, RemoteUnavailable
from gateway.store.connection import connect
from gateway.store.event_codes import EventCode
from gateway.stream import sender
from gateway.stream.target import Rejection
from tests.integration.processes import RedisServer
from tests.stream_probe import ProbedCarrier, take
from tests.streaming import RETRY


@pytest.fixture
def carrier(run, redis):
    carrier = ProbedCarrier(redis)
    run(carrier.open())
    yield carrier
    run(carrier.close())


def failing(times: int, error: Exception):
    """So many batches fail, the next ones are taken."""
    left = times

    async def act(batch):
        nonlocal left
        left -= 1
        if left >= 0:
            raise error
        return []

    return act


def test_a_batch_that_is_too_large_is_halved_and_grows_again(run, carrier):
    async def small(batch):
        if len(batch) > 3:
            raise RemoteRefused("too much", is_too_large=True)
        return []

    async def check() -> None:
        book = carrier.book()
        book.act = small
        stream = await carrier.probe(limit_messages=16)
        await carrier.receive(*({"n": n} for n in range(16)))
        await carrier.until(lambda: carrier.state(stream).counters.delivered == 16, "all in small ones")
        assert [len(batch) for batch in book.tried][:5] == [16, 8, 4, 2, 4]
        assert book.taken == list(range(16))
        assert not carrier.told(EventCode.STREAM_FAILED, stream)
        book.act, book.tried = take, []
        await carrier.receive(*({"n": n} for n in range(16, 66)))
        await carrier.until(lambda: carrier.state(stream).counters.delivered == 66, "all")
        sizes = [len(batch) for batch in book.tried]
        assert max(sizes) == 16
        assert all(later <= 2 * earlier for earlier, later in pairwise(sizes))

    run(check())


def test_a_single_message_that_is_too_large_is_told(run, carrier):
    """It cannot be halved: it waits, and the log says why."""

    async def check() -> None:
        carrier.book().act = failing(3, RemoteRefused("too much", status=413, is_too_large=True))
        stream = await carrier.probe()
        await carrier.receive({"n": 0})
        await carrier.until(lambda: carrier.state(stream).counters.delivered == 1, "it is taken in the end")
        failed = carrier.told(EventCode.STREAM_FAILED, stream)
        assert len(failed) == 3
        assert (failed[0]["status"], failed[0]["ident"], failed[0]["messages"]) == (413, "1", 1)
        assert "the target refuses a batch: too much" in failed[0]["reason"]

    run(check())


def test_pauses_grow_up_to_a_bound_and_begin_anew_after_a_success(run, carrier, monkeypatch):
    monkeypatch.setattr(sender, "RETRY_MOST", 4 * RETRY)

    async def check() -> None:
        book = carrier.book()
        book.act = failing(6, RemoteUnavailable("away"))
        stream = await carrier.probe()
        await carrier.receive({"n": 0})
        await carrier.until(lambda: carrier.state(stream).counters.delivered == 1, "it is taken in the end")
        pauses = [later - earlier for earlier, later in pairwise(book.times)]
        assert len(pauses) == 6
        for pause, delay in zip(pauses, (1, 2, 4, 4, 4, 4), strict=True):
            assert 0.5 * delay * RETRY <= pause < delay * RETRY + 0.5  # the machine may be slow
        book.act, book.times = failing(1, RemoteUnavailable("away")), []
        await carrier.receive({"n": 1})
        await carrier.until(lambda: carrier.state(stream).counters.delivered == 2, "it is taken in the end")
        assert carrier.streams._running  # the sender that paused is the one that goes on
        assert carrier.state(stream).counters.failures == 7

    run(check())


def test_after_a_refusal_the_connection_stays_and_after_all_else_it_is_made_anew(run, carrier):
    async def check() -> None:
        book = carrier.book()
        stream = await carrier.probe()
        for n, (error, opened) in enumerate(
            [(RemoteRefused("no"), 1), (RemoteUnavailable("away"), 2), (ValueError("boom"), 3)]
        ):
            book.act = failing(1, error)
            await carrier.receive({"n": n})
            await carrier.until(lambda n=n: carrier.state(stream).counters.delivered == n + 1, "it is taken")
            assert book.opened == opened
        lost = [entry["reason"] for entry in carrier.told(EventCode.STREAM_LOST, stream)]
        assert lost == ["away", "ValueError: boom"]

    run(check())


def test_of_many_rejections_the_first_ten_are_told_and_the_others_counted(run, carrier):
    async def reject(batch):
        return [Rejection(at, f"no {outgoing.message['n']}") for at, outgoing in enumerate(batch)]

    async def check() -> None:
        carrier.book().act = reject
        stream = await carrier.probe()
        await carrier.receive(*({"n": n, "text": "x" * 5000} for n in range(15)))
        await carrier.until(lambda: carrier.state(stream).counters.rejected == 15, "all are rejected")
        told = carrier.told(EventCode.STREAM_REJECTED, stream)
        assert [entry["reason"] for entry in told] == [
            *(f"no {n}" for n in range(10)), "5 more messages of the same batch: no 14",
        ]  # fmt: skip
        assert all(len(entry["message"]) == sender.EXCERPT_MOST for entry in told[:10])
        (sent,) = carrier.told(EventCode.STREAM_SENT, stream)
        assert (sent["accepted"], sent["rejected"], sent["read"]) == (0, 15, 15)

    run(check())


def test_what_was_done_before_an_error_is_not_given_again(run, carrier):
    async def check() -> None:
        tries = 0

        async def partly(batch):
            nonlocal tries
            tries += 1
            if tries == 1:
                for outgoing in batch[:3]:
                    outgoing.is_done = True
                raise RemoteUnavailable("broke off")
            return [Rejection(0, "not this one")] if tries == 2 else []

        book = carrier.book()
        book.act = partly
        stream = await carrier.probe()
        await carrier.receive(*({"n": n} for n in range(5)))
        await carrier.until(lambda: carrier.state(stream).counters.delivered == 4, "four are taken")
        assert book.tried == [[0, 1, 2, 3, 4], [3, 4]]
        (rejected,) = carrier.told(EventCode.STREAM_REJECTED, stream)
        assert '"n":3' in rejected["message"]  # places are those of what was given

    run(check())


@pytest.mark.parametrize("where", ["act", "opening", "closing"])
def test_a_mistake_of_a_type_does_not_end_its_stream(run, carrier, where):
    async def wrong(*_):
        raise ZeroDivisionError("a mistake")

    async def check() -> None:
        book = carrier.book()
        setattr(book, where, wrong)
        if where == "closing":
            book.act = failing(1, RemoteUnavailable("away"))
        stream = await carrier.probe()
        await carrier.receive({"n": 0})
        if where != "closing":
            await carrier.until(lambda: carrier.state(stream).counters.failures > 1, "it fails")
            assert "ZeroDivisionError: a mistake" in carrier.state(stream).error
            setattr(book, where, take if where == "act" else None)
        await carrier.until(lambda: carrier.state(stream).counters.delivered == 1, "it goes on")

    run(check())


def test_a_rejection_of_what_is_not_there_does_not_end_the_stream(run, carrier):
    async def wrong(batch):
        return [Rejection(99, "what?")]

    async def check() -> None:
        book = carrier.book()
        book.act = wrong
        stream = await carrier.probe()
        await carrier.receive({"n": 0})
        await carrier.until(lambda: book.tried, "it is tried")
        book.act = take
        await carrier.receive({"n": 1})
        await carrier.until(lambda: 1 in book.taken, "the next one is delivered")
        await carrier.until(lambda: carrier.state(stream).is_connected, "it goes on")

    run(check())


def test_a_target_that_was_never_there_is_told_of_once(run, carrier):
    """In the diagnostic log; and not at each attempt."""

    async def away() -> None:
        raise RemoteUnavailable("nobody is there")

    async def check() -> None:
        carrier.book().opening = away
        stream = await carrier.probe()
        await carrier.until(lambda: carrier.state(stream).counters.failures > 2, "it is tried again and again")

    with capturedLogs() as events:
        run(check())
    told = [formatEvent(event) for event in events if "it is tried again" in (formatEvent(event) or "")]
    assert len(told) == 1
    assert "cannot connect: nobody is there; it is tried again" in told[0]


def test_a_type_that_never_answers_is_ended_after_a_time(run, carrier, monkeypatch):
    monkeypatch.setattr(sender, "DELIVER_TIME", 0.1)
    monkeypatch.setattr(sender, "OPEN_TIME", 0.1)
    monkeypatch.setattr(sender, "CLOSE_TIME", 0.1)

    async def never(*_):
        await asyncio.Event().wait()

    async def check() -> None:
        book = carrier.book()
        book.act = book.closing = never
        stream = await carrier.probe()
        await carrier.receive({"n": 0})
        await carrier.until(lambda: "cannot deliver: no answer within 0.1 s" in carrier.state(stream).error, "told")
        book.act, book.opening = take, never
        await carrier.until(lambda: "cannot connect: no answer within 0.1 s" in carrier.state(stream).error, "told")
        book.opening = book.closing = None
        await carrier.until(lambda: carrier.state(stream).counters.delivered == 1, "it goes on")

    run(check())


def test_a_batch_is_delivered_once_also_where_redis_has_no_room_for_the_cursor(run, carrier, monkeypatch):
    """It is written when there is room, and the batch not read again before that."""
    monkeypatch.setattr(sender, "STORE_RETRY", 0.01)

    async def check() -> None:
        book, failures = carrier.book(), metrics.value("stream_store_failures")

        async def fill_redis(batch):
            book.act = take
            await carrier.redis.config_set("maxmemory", 1)
            return []

        book.act = fill_redis
        await carrier.probe()
        await carrier.receive({"n": 0})
        try:
            await carrier.until(
                lambda: metrics.value("stream_store_failures") >= failures + 3, "it was tried to write the cursor"
            )
        finally:
            await carrier.redis.config_set("maxmemory", 0)
        await carrier.receive({"n": 1})
        await carrier.until(lambda: 1 in book.taken, "it goes on")
        assert book.taken == [0, 1]

    run(check())


def test_a_redis_that_is_killed_and_comes_back_loses_nothing(run, tmp_path):
    """Neither what waits nor where the stream is; and the stream goes on by itself."""

    async def check() -> None:
        server = RedisServer(tmp_path)
        server.start()
        await server.says("Ready to accept connections")
        client = connect(server.url)
        carrier = ProbedCarrier(client)
        try:
            await carrier.open()
            book = carrier.book()
            stream = await carrier.probe(limit_messages=5)
            for n in range(20):
                await carrier.receive({"n": n})
            await carrier.until(lambda: len(book.taken) >= 10, "some are delivered")
            server.kill()
            await asyncio.sleep(0.3)  # it looks for news meanwhile
            server.start()
            await server.says("Ready to accept connections")
            for n in range(20, 40):
                await carrier.receive({"n": n})
            await carrier.until(lambda: set(book.taken) == set(range(40)), "all are delivered")
            assert list(dict.fromkeys(book.taken)) == list(range(40))
            await carrier.until(lambda: carrier.state(stream).is_connected, "it says so")
        finally:
            await carrier.close()
            await client.aclose()
            server.kill()

    run(check(), 60)
