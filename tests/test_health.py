"""Whether trackers' data can be taken and stored, and what else is wrong."""

from __future__ import annotations

import time
from types import SimpleNamespace

import msgspec

import gateway
from gateway.api import health
from gateway.api.health import Health, HealthReport, of_channels, show_health
from gateway.store.connection import connect
from gateway.store.gate import Gate
from gateway.store.items import Channel
from gateway.store.keys import ShardKeys
from gateway.store.lag import StoreWatch

KEYS = ShardKeys()


def _health(redis, gate=None, others=()) -> Health:
    watch = StoreWatch(
        redis, KEYS, lambda: {1: "trackers"}, channel_readers=lambda id: ["mqtt"], device_readers=lambda: ["telemetry"]
    )
    return Health(watch, gate or Gate(), others)


async def _answer(health: Health) -> tuple[int, HealthReport]:
    """As the API gives it: the status code, and the body."""
    answer = await show_health(SimpleNamespace(parts=SimpleNamespace(health=health)))
    return answer.status_code, msgspec.json.decode(answer.body, type=HealthReport)


def test_a_gateway_that_takes_data_is_ok(run, redis):
    """200, and nothing to complain about."""
    code, report = run(_answer(_health(redis)))
    assert code == 200
    assert (report.status, report.reasons, report.warnings) == ("ok", [], [])
    assert report.version == gateway.__version__
    assert 0 <= report.uptime < 60


def test_while_trackers_are_paused_it_is_unavailable(run, redis):
    """503, and every reason; ok again when the last one is over."""

    async def scenario() -> None:
        gate = Gate()
        health = _health(redis, gate)
        gate.close("disk", "/data: 5 MiB free")
        gate.close("maxmemory", "Redis is full")
        code, report = await _answer(health)
        assert (code, report.status) == (503, "unavailable")
        assert report.reasons == ["/data: 5 MiB free", "Redis is full"]
        gate.open("disk")
        assert (await _answer(health))[0] == 503
        gate.open("maxmemory")
        assert (await _answer(health))[0] == 200

    run(scenario())


def test_redis_is_asked_even_if_no_tracker_sends(run, tmp_path):
    """The gate learns that Redis is away from the next packet only."""

    async def scenario() -> None:
        client = connect(f"unix://{tmp_path / 'nobody.sock'}")
        try:
            code, report = await _answer(_health(client))
        finally:
            await client.aclose()
        assert code == 503
        assert len(report.reasons) == 1
        assert report.reasons[0].startswith("Redis does not answer")

    run(scenario())


def test_a_reason_is_given_once(run, tmp_path):
    """Where the gate says already that Redis is away, that is enough."""

    async def scenario() -> None:
        client = connect(f"unix://{tmp_path / 'nobody.sock'}")
        gate = Gate()
        gate.close("redis", "Redis does not answer (it is away)")
        try:
            code, report = await _answer(_health(client, gate))
        finally:
            await client.aclose()
        assert (code, report.reasons) == (503, ["Redis does not answer (it is away)"])

    run(scenario())


def test_a_slow_reader_is_a_warning(run, redis):
    """Trackers' data is stored all the same; only the slowest log of a reader is told."""

    async def scenario() -> None:
        now = int(time.time() * 1_000_000)
        await redis.xadd(KEYS.channel_log(1), {"ident": "1", "messages": "{}"}, id=f"{now - 600_000_000}-0")
        await redis.xadd(KEYS.device_log, {"ident": "1", "messages": "{}"})
        code, report = await _answer(_health(redis))
        assert (code, report.status) == (200, "ok")
        assert report.warnings == ["the reader mqtt is 600 s behind in the log of channels"]

    run(scenario())


def test_little_memory_is_a_warning(run, redis, monkeypatch):
    """Before it pauses the trackers."""

    async def scenario() -> None:
        used = int((await redis.info("memory"))["used_memory"])
        await redis.config_set("maxmemory", used * 10)
        try:
            monkeypatch.setattr(health, "MEMORY_MOST", 0.05)
            code, report = await _answer(_health(redis))
        finally:
            await redis.config_set("maxmemory", 0)
        assert code == 200
        assert len(report.warnings) == 1
        assert report.warnings[0].endswith("% of its maxmemory; trackers are paused at 90 %")

    run(scenario())


def test_other_parts_are_asked_for_warnings(run, redis):
    """One that fails takes nothing along."""

    def broken() -> list[str]:
        raise RuntimeError("a bug")

    others = [lambda: ["the broker is away"], broken, list, lambda: ["a channel is deaf"]]
    code, report = run(_answer(_health(redis, others=others)))
    assert code == 200
    assert report.warnings == ["the broker is away", "a channel is deaf"]


def test_an_enabled_channel_that_does_not_listen_is_a_warning():
    """Such as one whose port somebody else has taken; a disabled one is as it should be."""
    made = {id: Channel(id=id, name=f"channel {id}", protocol_id=14, enabled=id != 3) for id in (1, 2, 3)}
    items = SimpleNamespace(channels=made)
    listening = SimpleNamespace(addresses=lambda: [(made[1], "tcp 0.0.0.0:5027")])
    assert list(of_channels(items, listening)) == ["channel 2 (channel 2) does not listen: the log says why"]
