"""How the logs' readers are doing, asked of a real Redis."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.store import lag
from gateway.store.connection import connect
from gateway.store.keys import ShardKeys
from gateway.store.lag import LogState, ReaderLag, StoreWatch

KEYS = ShardKeys()
STREAM = KEYS.channel_log(1)
SECOND = 1_000_000
NOW = 1_700_000_000


def _watch(redis, channels=None, now: float = NOW) -> StoreWatch:
    names = {1: "trackers"} if channels is None else channels
    return StoreWatch(
        redis,
        KEYS,
        lambda: names,
        channel_readers=lambda id: ["mqtt"],
        device_readers=lambda: ["telemetry"],
        now=lambda: now,
    )


async def _add(redis, count: int, first: int = NOW - 1000, step: int = SECOND) -> list[str]:
    """``count`` entries, the first at the second ``first``; their ids."""
    ids = [f"{first * SECOND + n * step}-0" for n in range(count)]
    async with redis.pipeline(transaction=False) as pipe:
        for id in ids:
            pipe.xadd(STREAM, {"ident": "1", "messages": "{}"}, id=id)
        await pipe.execute()
    return ids


async def _deliver(redis, id: str, reader: str = "mqtt", stream: str = STREAM) -> None:
    await redis.hset(KEYS.cursors, f"{reader}|{stream}", id)


async def _lag(redis) -> ReaderLag:
    state = await _watch(redis).read()
    assert state.is_up
    return state.logs[0].lags[0]


def test_logs_that_do_not_exist_are_empty(run, redis):
    """A new gateway has no streams yet."""

    async def scenario() -> None:
        state = await _watch(redis).read()
        assert state.is_up
        assert state.memory > 0
        assert state.logs == (
            LogState("channels", "trackers", 0, (ReaderLag("mqtt", 0, 0.0),)),
            LogState("devices", "", 0, (ReaderLag("telemetry", 0, 0.0),)),
        )

    run(scenario())


def test_the_lag_is_the_age_of_the_first_entry_that_is_not_delivered(run, redis):
    """Not the time between the last delivered and the last entry: after a silent night that would be hours."""

    async def scenario() -> None:
        ids = await _add(redis, 10)
        assert await _lag(redis) == ReaderLag("mqtt", 10, 1000.0)
        await _deliver(redis, ids[6])
        assert await _lag(redis) == ReaderLag("mqtt", 3, 993.0)
        await _deliver(redis, ids[9])
        assert await _lag(redis) == ReaderLag("mqtt", 0, 0.0)

    run(scenario())


def test_the_device_log_counts_milliseconds(run, redis):
    """Its ids are Redis' own; a Redis whose clock is ahead gives no negative age."""

    async def scenario() -> None:
        for seconds in (NOW - 5, NOW + 5):
            await redis.xadd(KEYS.device_log, {"ident": "1", "messages": "{}"}, id=f"{seconds * 1000}-0")
        state = await _watch(redis).read()
        assert state.logs[-1].lags == (ReaderLag("telemetry", 2, 5.0),)
        await _deliver(redis, f"{(NOW - 5) * 1000}-0", "telemetry", KEYS.device_log)
        state = await _watch(redis).read()
        assert state.logs[-1].lags == (ReaderLag("telemetry", 1, 0.0),)

    run(scenario())


@pytest.mark.parametrize("delivered", [0, 250, 899, 900])
def test_a_long_lag_is_estimated(run, redis, delivered):
    """Redis cannot count from the middle of a stream; entries that came evenly are estimated well."""

    async def scenario() -> None:
        ids = await _add(redis, 1000)
        if delivered:
            await _deliver(redis, ids[delivered - 1])
        found = await _lag(redis)
        assert found.entries == pytest.approx(1000 - delivered, abs=2)
        assert found.seconds == 1000 - delivered

    run(scenario())


def test_a_lag_that_can_be_counted_is_exact_however_uneven_the_entries_came(run, redis):
    """An estimate would take 99 packets of one second after a silent day for nothing, or for all."""

    async def scenario() -> None:
        await _add(redis, 500, first=NOW - 86400, step=1000)
        ids = await _add(redis, 99, first=NOW - 1, step=1000)
        await _deliver(redis, f"{(NOW - 86400) * SECOND + 499 * 1000}-0")
        assert (await _lag(redis)).entries == 99
        await _deliver(redis, ids[-2])
        assert (await _lag(redis)).entries == 1

    run(scenario())


def test_many_logs_cost_no_more_than_few(run, redis):
    """What Redis copies to count is bounded over all logs; the ages stay exact."""

    async def scenario() -> None:
        ids = await _add(redis, 300)
        await _deliver(redis, ids[99])
        channels = {n: f"channel {n}" for n in range(1, 1001)}
        state = await _watch(redis, channels).read()
        assert len(state.logs) == 1001
        assert state.logs[0].lags[0].seconds == 900.0
        assert state.logs[0].lags[0].entries == pytest.approx(200, abs=2)

    run(scenario())


def test_redis_is_asked_once_a_second_at_most(run, redis, monkeypatch):
    """However many scrape, and also those that come at the same moment."""

    async def commands() -> int:
        return int((await redis.info("commandstats")).get("cmdstat_eval", {}).get("calls", 0))

    async def scenario() -> None:
        await redis.config_resetstat()
        watch = _watch(redis)
        states = await asyncio.gather(*(watch.read() for _ in range(20)))
        assert all(state is states[0] for state in states)
        assert await commands() == 2  # two logs
        monkeypatch.setattr(lag, "KEPT", -1.0)
        assert await watch.read() is not states[0]
        assert await commands() == 4

    run(scenario())


def test_a_redis_that_is_away_is_a_state(run, tmp_path):
    """Nothing is raised; the reason can be shown."""

    async def scenario() -> None:
        client = connect(f"unix://{tmp_path / 'nobody.sock'}")
        try:
            state = await _watch(client).read()
        finally:
            await client.aclose()
        assert not state.is_up
        assert state.reason.startswith("Redis does not answer")
        assert state.logs == ()

    run(scenario())


def test_a_redis_that_hangs_is_given_up(run, tmp_path, monkeypatch):
    """A scrape has a time limit of its own."""
    monkeypatch.setattr(lag, "PATIENCE", 0.1)
    path = str(tmp_path / "deaf.sock")
    gone = asyncio.Event()

    async def silent(reader, writer) -> None:
        await gone.wait()
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_unix_server(silent, path)
        client = connect(f"unix://{path}")
        try:
            started = time.monotonic()
            state = await _watch(client).read()
            assert time.monotonic() - started < 2
        finally:
            gone.set()
            await client.aclose()
            server.close()
            await server.wait_closed()
        assert state.reason == "Redis did not answer within 0 s"

    run(scenario())
