"""The queue of a stream: what is ready, and how far the cursors may move."""

from __future__ import annotations

import orjson
import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import StoreFull
from gateway.expressions import compile_expression
from gateway.store.reader import LogReader
from gateway.stream.queue import COUNTED_MOST, LOOKED_MOST, READ_ENTRIES, Queue, count_waiting
from gateway.stream.selection import Form, Selection
from tests.streaming import KEYS, NOW, Carrier


def test_the_cursor_moves_to_the_last_packet_that_is_done_with(run, redis, tmp_path):
    """Also where a batch ends in the middle of a packet: what comes again after a crash is that packet, and no more."""

    async def check() -> None:
        carrier = Carrier(redis)
        await carrier.open()
        configuration = {"path": str(tmp_path / "out")}
        stream = await carrier.stream("file", configuration, enabled=False)
        selection = Selection(evolve(stream, pauses=()), carrier.items, KEYS)
        reader = LogReader(redis, KEYS, "test", selection.logs, wait=0)
        queue = Queue(reader, selection, Form(), KEYS)
        for n in range(4):
            await carrier.receive({"n": n}, {"n": n})
        ids = [id.decode() for id, _ in await redis.xrange(KEYS.channel_log(1))]
        await queue.fill(8)
        moved = []
        for _ in range(2):
            assert len(queue.head(3)) == 3
            queue.drop(3)
            await queue.confirm()
            cursor = await redis.hget(KEYS.cursors, f"test|{KEYS.channel_log(1)}")
            moved.append(ids.index(cursor.decode()) + 1)
        assert moved == [1, 3]
        await carrier.close()

    run(check())


class Queued:
    """A stream of two channels and all devices, without a sender: a test takes from its queue."""

    logs = (KEYS.channel_log(1), KEYS.channel_log(2), KEYS.device_log)

    def __init__(self, redis) -> None:
        self.carrier = Carrier(redis)
        self.redis = redis

    async def begin(self) -> None:
        await self.carrier.open()
        await self.carrier.items.create_channel(name="others", protocol_id=14)
        await self.carrier.device("d")
        stream = await self.carrier.items.create_stream(name="s", protocol="file", enabled=False)
        for to, id in (("channels", 1), ("channels", 2), ("devices", 1)):
            await self.carrier.link(stream, to, id)
        self.selection = Selection(evolve(stream, pauses=[]), self.carrier.items, KEYS)
        self.empty()

    def empty(self) -> None:
        self.reader = LogReader(self.redis, KEYS, "test", self.selection.logs, wait=0, begin=self.selection.begin)
        form = Form(compile_expression("keep"))
        self.queue = Queue(self.reader, self.selection, form, KEYS, now=lambda: self.carrier.time)

    async def clear(self) -> None:
        """As before anything came."""
        await self.redis.delete(KEYS.cursors, *self.logs)
        self.empty()

    async def add(self, log: int, keeps: list[bool], n: int) -> list[int]:
        """A packet; those of its messages that are not kept do not pass ``validate_message``."""
        messages = [{"n": n + at, "keep": keep} for at, keep in enumerate(keeps)]
        if log == 2:
            await self.carrier.register(*messages, ident="d")
        else:
            await self.carrier.receive(*messages, ident="c", channel_id=log + 1)
        return [message["n"] for message in messages if message["keep"]]

    async def cursor(self, log: int) -> str | None:
        found = await self.redis.hget(KEYS.cursors, f"test|{self.logs[log]}")
        return found.decode() if found else None

    async def packets(self, log: int) -> list[tuple[str, list[int]]]:
        """Each with its id and the messages that are for the stream."""
        rows = await self.redis.xrange(self.logs[log])
        return [
            (id.decode(), [m["n"] for m in map(orjson.loads, fields[b"messages"].split(b"\n")) if m["keep"]])
            for id, fields in rows
        ]

    async def beyond(self, done: set[int]) -> list[int]:
        """What the cursors are past, and is not done with."""
        lost = []
        for log in range(3):
            cursor = await self.cursor(log)
            for id, ns in await self.packets(log):
                if cursor is not None and _place(id) <= _place(cursor):
                    lost += [n for n in ns if n not in done]
        return lost


def _place(id: str) -> tuple[int, int]:
    major, _, minor = id.partition("-")
    return int(major), int(minor)


OPERATIONS = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 2), st.lists(st.booleans(), min_size=1, max_size=4)),
    st.tuples(st.just("fill"), st.integers(1, 12)),
    st.tuples(st.just("drop"), st.integers(1, 8)),
    st.tuples(st.just("expire"), st.integers(0, 30)),
    st.tuples(st.sampled_from(["confirm", "rewind", "tick"])),
)


def test_no_interleaving_moves_a_cursor_beyond_what_is_not_done_with(run, redis):
    """Packets of three logs, some not for the stream; batches, expiries, failures; and in the end all was delivered or
    given up, in the order of each log."""
    queued = Queued(redis)
    run(queued.begin())

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(operations=st.lists(OPERATIONS, max_size=30))
    def check(operations):
        run(interleave(queued, operations))

    check()
    run(queued.carrier.close())


async def interleave(queued: Queued, operations) -> None:
    await queued.clear()
    queued.carrier.time = start = NOW
    added: dict[int, list[int]] = {0: [], 1: [], 2: []}
    ready: list[int] = []
    done: list[int] = []
    next_n = 0
    for name, *arguments in operations:
        if name == "add":
            added[arguments[0]] += await queued.add(*arguments, next_n)
            next_n += 10
        elif name == "fill":
            await queued.queue.fill(arguments[0])
        elif name == "drop":
            batch = queued.queue.head(arguments[0])
            queued.queue.drop(len(batch))
            done += [outgoing.message["n"] for outgoing in batch]
        elif name == "expire":
            ready = [outgoing.message["n"] for outgoing in queued.queue.head(1000)]
            given_up = await queued.queue.expire(start + arguments[0])
            left = {outgoing.message["n"] for outgoing in queued.queue.head(1000)}
            gone = [n for n in ready if n not in left]
            assert given_up >= len(gone)
            everything = [n for ns in added.values() for n in ns]
            done += gone if given_up == len(gone) else [n for n in everything if n not in left]
        elif name == "confirm":
            await queued.queue.confirm()
        elif name == "rewind":
            queued.queue.rewind()
        else:
            queued.carrier.time += 10
        assert await queued.beyond(set(done)) == []
    await empty_it(queued, done)
    assert await queued.beyond(set(done)) == []
    assert set(done) == {n for ns in added.values() for n in ns}
    for log, ns in added.items():
        packets = await queued.packets(log)
        assert not packets or await queued.cursor(log) == packets[-1][0]
        first = [n for n in dict.fromkeys(done) if n in set(ns)]
        assert first == ns


async def empty_it(queued: Queued, done: list[int]) -> None:
    while True:
        await queued.queue.fill(5)
        batch = queued.queue.head(5)
        done += [outgoing.message["n"] for outgoing in batch]
        queued.queue.drop(len(batch))
        await queued.queue.confirm()
        if not batch:
            return


def test_a_cursor_stays_before_a_packet_of_which_a_part_is_done(run, redis):
    """After a crash the whole of it comes again, and not what came before it."""

    async def check() -> None:
        queued = Queued(redis)
        await queued.begin()
        await queued.add(0, [True], 0)
        await queued.add(0, [True, True, True], 10)
        (first, _), (second, _) = await queued.packets(0)
        await queued.queue.fill(10)
        queued.queue.drop(2)
        await queued.queue.confirm()
        assert await queued.cursor(0) == first
        queued.queue.rewind()
        await queued.queue.fill(10)
        assert [outgoing.message["n"] for outgoing in queued.queue.head(10)] == [10, 11, 12]
        queued.queue.drop(3)
        await queued.queue.confirm()
        assert await queued.cursor(0) == second
        await queued.carrier.close()

    run(check())


def test_the_cursor_moves_also_over_what_is_not_for_the_stream(run, redis):
    """Otherwise a quiet stream would hold a busy log."""

    async def check() -> None:
        queued = Queued(redis)
        await queued.begin()
        for n in range(250):
            await queued.add(1, [False], n)
        await queued.queue.fill(10)
        assert queued.queue.head(10) == []
        assert await queued.cursor(1) is not None  # it does not wait for the end of the log
        await queued.queue.confirm()
        assert await queued.cursor(1) == (await queued.packets(1))[-1][0]
        passed = queued.queue.take_passed()
        assert (passed.read, passed.skipped) == (250, 250)
        assert queued.queue.take_passed().read == 0
        await queued.carrier.close()

    run(check())


def test_in_memory_is_little_more_than_was_asked_for(run, redis):
    """However much waits in the logs."""

    async def check() -> None:
        queued = Queued(redis)
        await queued.begin()
        for n in range(500):
            await queued.add(0, [True, True], n * 10)
        await queued.queue.fill(10)
        assert len(queued.queue.head(10_000)) <= 2 * READ_ENTRIES
        await queued.queue.fill(500)
        assert 500 <= len(queued.queue.head(10_000)) <= 500 + 2 * READ_ENTRIES
        await queued.carrier.close()

    run(check())


def test_what_is_not_for_the_stream_is_neither_kept_nor_waited_for(run, redis):
    """A stream of one device among thousands that was away for a day would have the whole day in memory, and deliver
    nothing until it has read all of it."""

    async def check() -> None:
        queued = Queued(redis)
        await queued.begin()
        text = orjson.dumps({"ident": "x", "timestamp": NOW, "server.timestamp": NOW, "n": 1, "keep": True})
        foreign = {"device": 77, "ident": "x", "messages": text}
        await queued.add(2, [True], 1)
        async with redis.pipeline(transaction=False) as pipe:
            for _ in range(LOOKED_MOST + 3 * READ_ENTRIES):
                pipe.xadd(KEYS.device_log, foreign)
            await pipe.execute()
        await queued.queue.fill(10)
        assert [outgoing.message["n"] for outgoing in queued.queue.head(10)] == [1]
        assert len(queued.queue._items) == 2
        queued.queue.drop(1)
        await queued.queue.confirm()
        rows = await redis.xrange(KEYS.device_log)
        place = [id.decode() for id, _ in rows].index(await queued.cursor(2))
        assert LOOKED_MOST - 1 <= place < len(rows) - 1
        await queued.queue.fill(10)
        await queued.queue.confirm()
        assert await queued.cursor(2) == rows[-1][0].decode()
        await queued.carrier.close()

    run(check())


def test_a_cursor_that_cannot_be_written_is_written_later(run, redis):
    """A Redis that has no room refuses it, and nothing is forgotten."""

    async def check() -> None:
        queued = Queued(redis)
        await queued.begin()
        await queued.add(0, [True], 0)
        await queued.queue.fill(1)
        queued.queue.drop(1)
        await redis.config_set("maxmemory", 1)
        try:
            with pytest.raises(StoreFull):
                await queued.queue.confirm()
        finally:
            await redis.config_set("maxmemory", 0)
        assert await queued.cursor(0) is None
        await queued.queue.confirm()
        assert await queued.cursor(0) == (await queued.packets(0))[-1][0]
        await queued.carrier.close()

    run(check())


def test_what_is_expired_goes_up_to_the_first_that_is_not(run, redis):
    """Also what was not read yet; what a target has already is not counted as given up."""

    async def check() -> None:
        queued = Queued(redis)
        await queued.begin()
        for n in range(300):
            await queued.add(0, [True], n)
        queued.carrier.time = NOW + 100
        await queued.add(0, [True], 300)
        await queued.queue.fill(10)
        queued.queue.head(1)[0].is_done = True
        assert await queued.queue.expire(NOW + 50) == 299
        assert [outgoing.message["n"] for outgoing in queued.queue.head(10)] == [300]
        assert await queued.cursor(0) == (await queued.packets(0))[-2][0]
        assert await queued.queue.expire(NOW + 50) == 0
        await queued.carrier.close()

    run(check())


def test_what_waits_is_counted_up_to_a_bound(run, redis):
    async def check() -> None:
        queued = Queued(redis)
        await queued.begin()
        for n in range(COUNTED_MOST + 50):
            await queued.add(0, [True, True], n)
        assert await count_waiting(queued.reader, queued.selection) == 2 * COUNTED_MOST
        await queued.carrier.close()

    run(check(), 60)
