"""The channel log: what is reported as committed is there, once, in order; whatever Redis does meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from gateway.errors import NotCommitted, StoreError
from gateway.store.connection import connect, store_errors
from gateway.store.embedded import EmbeddedRedis
from gateway.store.gate import Gate
from gateway.store.keys import ShardKeys
from gateway.store.log import ChannelClock, LogWriter

KEYS = ShardKeys()
STREAM = KEYS.channel_log(1)


class Commits:
    """Appends packets and collects how each went."""

    def __init__(self, writer: LogWriter) -> None:
        self.writer = writer
        self.results: dict[int, StoreError | None] = {}
        self.appended = 0

    def append(self, data: bytes = b"{}") -> int:
        stamp = self.writer.reserve(1, 1)
        self.appended += 1
        self.writer.append(1, stamp, "1234", data, lambda error: self.results.__setitem__(stamp, error))
        return stamp

    async def all_done(self) -> None:
        async with asyncio.timeout(20):
            while len(self.results) < self.appended:
                await asyncio.sleep(0.01)


async def _stored_ids(redis) -> list[int]:
    return [int(id.split(b"-")[0]) for id, _fields in await redis.xrange(STREAM)]


async def _answers(redis) -> None:
    """A server that was killed a moment ago may answer a last time, or not yet."""
    async with asyncio.timeout(20):
        while True:
            try:
                with store_errors():
                    await redis.ping()
                return
            except StoreError:
                await asyncio.sleep(0.05)


async def _writer(redis, gate: Gate | None = None, **options) -> tuple[LogWriter, asyncio.Task]:
    writer = LogWriter(redis, KEYS, gate or Gate(), **options)
    await writer.open_channel(1)
    return writer, asyncio.ensure_future(writer.run())


def test_a_clock_that_stands_or_goes_back_still_rises():
    """server.timestamp is unique and strictly rising whatever the system's clock does."""
    times = iter([10.0, 10.0, 9.0])
    clock = ChannelClock(lambda: next(times))
    assert clock.reserve(3) == 10_000_000
    assert clock.reserve(1) == 10_000_003
    assert clock.reserve(1) == 10_000_004


def test_packets_are_stored_in_order_with_their_server_timestamp_as_id(run, redis):
    """An entry's id is the timestamp of its last message in microseconds."""

    async def scenario() -> None:
        writer, task = await _writer(redis)
        commits = Commits(writer)
        stamps = [commits.append(b'{"n":%d}' % n) for n in range(50)]
        await commits.all_done()
        assert set(commits.results.values()) == {None}
        assert await _stored_ids(redis) == stamps
        entries = await redis.xrange(STREAM)
        assert entries[7][1] == {b"ident": b"1234", b"messages": b'{"n":7}'}
        task.cancel()

    run(scenario())


def test_the_clock_goes_on_behind_what_is_stored(run, redis):
    """After a restart with a clock that went back, timestamps still rise."""

    async def scenario() -> None:
        writer, task = await _writer(redis, now=lambda: 1000.0)
        commits = Commits(writer)
        last = commits.append()
        await commits.all_done()
        task.cancel()
        writer, task = await _writer(redis, now=lambda: 500.0)
        assert writer.reserve(1, 1) == last + 1
        task.cancel()

    run(scenario())


def test_an_id_that_the_log_has_passed_is_reported_and_not_acknowledged(run, redis):
    """Somebody else wrote to this log: the packet is not called stored, and the clock goes on behind the intruder."""

    async def scenario() -> None:
        writer, task = await _writer(redis)
        await redis.xadd(STREAM, {"ident": "x", "messages": "{}"}, id="99999999999999999-0")
        commits = Commits(writer)
        stamp = commits.append()
        await commits.all_done()
        assert isinstance(commits.results[stamp], NotCommitted)
        await asyncio.sleep(0.1)
        later = commits.append()
        await commits.all_done()
        assert commits.results[later] is None
        assert later > 99999999999999999
        task.cancel()

    run(scenario())


def test_a_killed_redis_loses_nothing_and_stores_nothing_twice(run, tmp_path: Path):
    """SIGKILL during a stream of commits: all that was reported is there once, and all is reported in the end."""

    async def scenario() -> None:
        server = EmbeddedRedis(tmp_path)
        await server.start()
        redis = connect(server.url)
        gate = Gate()
        writer, task = await _writer(redis, gate)
        commits = Commits(writer)
        for _ in range(4):
            for _ in range(200):
                commits.append(b"x" * 500)
                await asyncio.sleep(0.0005)
            pid = server.pid
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                while server.pid == pid:
                    await asyncio.sleep(0.005)
        await commits.all_done()
        assert set(commits.results.values()) == {None}
        await _answers(redis)
        stored = await _stored_ids(redis)
        assert stored == sorted(commits.results)
        assert gate.is_open
        task.cancel()
        await redis.aclose()
        await server.stop()

    run(scenario(), timeout=60)


def test_a_frozen_redis_closes_the_gate_until_it_goes_on(run, tmp_path: Path):
    """No answer: trackers are paused, nothing is reported; afterwards everything is stored once."""

    async def scenario() -> None:
        server = EmbeddedRedis(tmp_path)
        await server.start()
        redis = connect(server.url)
        gate = Gate()
        changes: list[bool] = []
        gate.subscribe("test", changes.append)
        writer, task = await _writer(redis, gate)
        commits = Commits(writer)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        stamps = [commits.append() for _ in range(10)]
        async with asyncio.timeout(15):
            while not changes:
                await asyncio.sleep(0.05)
        assert changes == [False]
        assert commits.results == {}
        os.kill(server.pid, signal.SIGCONT)
        await commits.all_done()
        assert changes == [False, True]
        assert await _stored_ids(redis) == stamps
        task.cancel()
        await redis.aclose()
        await server.stop()

    run(scenario(), timeout=60)


def test_a_full_redis_closes_the_gate_and_the_packet_waits(run, tmp_path: Path):
    """maxmemory reached: not an error for the packet, but back-pressure; it is stored when there is room again."""

    async def scenario() -> None:
        server = EmbeddedRedis(tmp_path)
        await server.start()
        redis = connect(server.url)
        gate = Gate()
        changes: list[bool] = []
        gate.subscribe("test", changes.append)
        writer, task = await _writer(redis, gate)
        await redis.config_set("maxmemory", "1")
        commits = Commits(writer)
        commits.append()
        async with asyncio.timeout(10):
            while not changes:
                await asyncio.sleep(0.02)
        assert "takes no more data" in gate.reasons[0]
        assert commits.results == {}
        await redis.config_set("maxmemory", "0")
        await commits.all_done()
        assert set(commits.results.values()) == {None}
        assert gate.is_open
        task.cancel()
        await redis.aclose()
        await server.stop()

    run(scenario(), timeout=60)


def test_parked_packets_are_kept_raw_and_bounded(run, redis):
    """Undecodable packets stand in a log of their own, the oldest going first."""

    async def scenario() -> None:
        writer, task = await _writer(redis)
        done: list[StoreError | None] = []
        for n in range(3000):
            writer.park(1, "1234", b"\x08%d" % n, done.append)
        async with asyncio.timeout(10):
            while len(done) < 3000:
                await asyncio.sleep(0.01)
        entries = await redis.xrevrange(KEYS.parked(1), count=1)
        assert entries[0][1] == {b"ident": b"1234", b"frame": b"\x082999"}
        assert 1000 <= await redis.xlen(KEYS.parked(1)) < 1500
        task.cancel()

    run(scenario())
