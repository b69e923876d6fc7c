"""The page for Prometheus: it parses, it has everything, and asking for it costs next to nothing."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from gateway import metrics
from gateway.api import exposition
from gateway.api.exposition import Exposition
from gateway.metrics import BOUNDS, CATALOG, OTHER, VALUES_MOST, Metric
from gateway.store import lag
from gateway.store.connection import connect
from gateway.store.gate import Gate
from gateway.store.keys import ShardKeys
from gateway.store.lag import StoreWatch
from gateway.store.log import LogWriter

KEYS = ShardKeys()


@pytest.fixture
def metric(monkeypatch) -> Callable[..., Metric]:
    """Puts a metric of the given kind into the catalog for the time of a test."""

    def add(kind: str, *labels: str) -> Metric:
        made = Metric(kind, f"test_{uuid.uuid4().hex}" + ("_seconds" if kind == "histogram" else ""), labels, "A test")
        monkeypatch.setitem(CATALOG, made.name, made)
        return made

    return add


@pytest.fixture
def always_new(monkeypatch) -> None:
    """Every page is rendered, and Redis asked, anew."""
    monkeypatch.setattr(exposition, "KEPT", -1.0)
    monkeypatch.setattr(lag, "KEPT", -1.0)


def _exposition(redis, channels=None, gate=None, gauges=None) -> Exposition:
    names = {1: "trackers"} if channels is None else channels
    watch = StoreWatch(
        redis, KEYS, lambda: names, channel_readers=lambda id: ["mqtt"], device_readers=lambda: ["telemetry"]
    )
    return Exposition(watch, gate or Gate(), gauges or {})


async def _samples(page: Exposition) -> list[Sample]:
    """Everything on the page; it parses, and nothing is there twice."""
    text = (await page.render()).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    places = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in samples]
    assert len(places) == len(set(places))
    return samples


def _value(samples: list[Sample], name: str, **labels: str) -> float | None:
    return next((sample.value for sample in samples if sample.name == name and sample.labels == labels), None)


def test_counters_are_rendered_with_their_labels(run, redis, metric):
    """Also labels with characters that mean something in the format."""
    counter = metric("counter", "channel", "reason")
    metrics.count(counter.name, 3, channel='tall "ships"\n', reason="back\\slash")
    metrics.count(counter.name, channel="Грузовики", reason="-")
    samples = run(_samples(_exposition(redis)))
    assert _value(samples, counter.exposed, channel='tall "ships"\n', reason="back\\slash") == 3
    assert _value(samples, counter.exposed, channel="Грузовики", reason="-") == 1


def test_histograms_are_cumulative(run, redis, metric):
    """As the format wants it: each bucket has all that is below it, the last one has everything."""
    histogram = metric("histogram")
    for seconds in (0.0001, 0.003, 0.004, 99.0):
        metrics.observe(histogram.name, seconds)
    samples = run(_samples(_exposition(redis)))
    buckets = [sample.value for sample in samples if sample.name == f"{histogram.exposed}_bucket"]
    assert len(buckets) == len(BOUNDS) + 1
    assert _value(samples, f"{histogram.exposed}_bucket", le="0.0005") == 1
    assert _value(samples, f"{histogram.exposed}_bucket", le="0.005") == 3
    assert _value(samples, f"{histogram.exposed}_bucket", le="+Inf") == 4
    assert buckets == sorted(buckets)
    assert _value(samples, f"{histogram.exposed}_count") == 4
    assert _value(samples, f"{histogram.exposed}_sum") == pytest.approx(99.0071)


def test_gauges_are_asked_at_the_scrape(run, redis, metric):
    """One that fails is missing, and the others are there."""
    good, labelled, broken = metric("gauge"), metric("gauge", "b", "a"), metric("gauge")
    metrics.gauge(labelled.name, lambda: 7.0, a="1", b="2")
    gauges = {good.name: lambda: 5.0, broken.name: lambda: 1 / 0}
    samples = run(_samples(_exposition(redis, gauges=gauges)))
    assert _value(samples, good.exposed) == 5
    assert _value(samples, labelled.exposed, a="1", b="2") == 7
    assert _value(samples, broken.exposed) is None


def test_the_logs_and_their_readers_are_asked_at_the_scrape(run, redis):
    """Length, lag in packets and in seconds, for each log and each reader."""

    async def scenario() -> None:
        now = int(time.time() * 1_000_000)
        for ago in (30_000_000, 20_000_000, 10_000_000):
            await redis.xadd(KEYS.channel_log(1), {"ident": "1", "messages": "{}"}, id=f"{now - ago}-0")
        await redis.hset(KEYS.cursors, f"mqtt|{KEYS.channel_log(1)}", f"{now - 30_000_000}-0")
        samples = await _samples(_exposition(redis))
        log = {"log": "channels", "channel": "trackers"}
        assert _value(samples, "gateway_log_entries", **log) == 3
        assert _value(samples, "gateway_reader_lag_entries", reader="mqtt", **log) == 2
        assert _value(samples, "gateway_reader_lag_seconds", reader="mqtt", **log) == pytest.approx(20, abs=2)
        assert _value(samples, "gateway_log_entries", log="devices", channel="") == 0
        assert _value(samples, "gateway_reader_lag_entries", reader="telemetry", log="devices", channel="") == 0
        assert _value(samples, "gateway_redis_up") == 1
        assert (_value(samples, "gateway_redis_memory_bytes") or 0) > 100_000

    run(scenario())


def test_channels_of_the_same_name_are_one_and_too_many_are_others(run, redis):
    """The same labels twice would make Prometheus refuse the page."""

    async def scenario() -> None:
        for id in (1, 2, 900):
            await redis.xadd(KEYS.channel_log(id), {"ident": "1", "messages": "{}"}, id=f"{1_000_000 * id}-0")
        channels = {1: "same", 2: "same"} | {id: f"channel {id}" for id in range(3, 901)}
        samples = await _samples(_exposition(redis, channels))
        assert _value(samples, "gateway_log_entries", log="channels", channel="same") == 2
        assert _value(samples, "gateway_reader_lag_entries", log="channels", channel="same", reader="mqtt") == 2
        assert _value(samples, "gateway_log_entries", log="channels", channel=OTHER) == 1
        assert len([sample for sample in samples if sample.name == "gateway_log_entries"]) <= VALUES_MOST + 2

    run(scenario())


def test_a_commit_shows(run, redis):
    """Its duration, and what waits for it."""

    async def scenario() -> None:
        writer = LogWriter(redis, KEYS, Gate())
        await writer.open_channel(1)
        running = asyncio.ensure_future(writer.run())
        stored: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        page = _exposition(redis)
        await asyncio.sleep(0)  # the writer begins to wait
        before = await _samples(page)
        writer.append(1, writer.reserve(1, 1), "1", b"{}", stored.set_result)
        assert await stored is None
        after = await _samples(_exposition(redis))
        running.cancel()
        assert _value(after, "gateway_log_pending_packets") == 0
        assert _value(after, "gateway_log_pending_bytes") == 0
        for name in ("gateway_log_commits_total", "gateway_commit_seconds_count"):
            assert (_value(after, name) or 0) == (_value(before, name) or 0) + 1

    run(scenario())


def test_the_process_shows(run, redis):
    """Processor time and memory, under the names that dashboards know."""
    samples = run(_samples(_exposition(redis)))
    assert (_value(samples, "process_cpu_seconds_total") or 0) > 0
    assert (_value(samples, "process_resident_memory_bytes") or 0) > 10_000_000


def test_up_is_what_health_says(run, redis, always_new):
    """0 while trackers are paused."""

    async def scenario() -> None:
        gate = Gate()
        page = _exposition(redis, gate=gate)
        assert _value(await _samples(page), "gateway_up") == 1
        gate.close("disk", "full")
        assert _value(await _samples(page), "gateway_up") == 0

    run(scenario())


def test_without_redis_the_rest_is_there(run, tmp_path, metric):
    """The page is what one looks at when something is wrong."""
    counter = metric("counter")
    metrics.count(counter.name)

    async def scenario() -> None:
        client = connect(f"unix://{tmp_path / 'nobody.sock'}")
        try:
            samples = await _samples(_exposition(client))
        finally:
            await client.aclose()
        assert _value(samples, counter.exposed) == 1
        assert _value(samples, "gateway_up") == 0
        assert _value(samples, "gateway_redis_up") == 0
        assert _value(samples, "gateway_redis_memory_bytes") is None
        assert not [sample for sample in samples if sample.name.startswith("gateway_reader_lag")]

    run(scenario())


def test_a_page_is_made_once_a_second(run, redis, metric):
    """However many ask, and also those that ask at the same moment."""
    gauge = metric("gauge")
    asked = []

    async def scenario() -> None:
        page = _exposition(redis, gauges={gauge.name: lambda: asked.append(1) or 1.0})
        pages = await asyncio.gather(*(page.render() for _ in range(50)))
        assert all(text is pages[0] for text in pages)

    run(scenario())
    assert len(asked) == 1


def test_what_no_catalog_describes_is_shown_all_the_same(run, redis):
    """A forgotten line in the catalog must not hide a figure."""
    name = f"test_{uuid.uuid4().hex}"
    metrics.count(name, reason="x")
    assert _value(run(_samples(_exposition(redis))), f"gateway_{name}_total", reason="x") == 1
