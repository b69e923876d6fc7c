"""``/metrics``: the figures of ``gateway.metrics``, and what is asked at a scrape, in Prometheus' text format."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, chain, groupby

from attrs import frozen
from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector
from twisted.logger import Logger

from gateway import metrics
from gateway.api.answers import Answer
from gateway.api.call import Call
from gateway.api.operations import Operation
from gateway.metrics import BOUNDS, CATALOG, OTHER, VALUES_MOST, Function, Labels, Metric
from gateway.store.gate import Gate
from gateway.store.lag import LogState, StoreState, StoreWatch

KEPT = 1.0
"""Seconds that a page is given again."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
EDGES = (*(f"{bound:g}" for bound in BOUNDS), "+Inf")

Reading = tuple[str, tuple[str, ...], float]
"""A gauge's name, the values of its labels in the catalog's order, its own value."""


class Exposition:
    """Renders all metrics. ``gauges``: those that belong to no module of their own, by name."""

    log = Logger()

    def __init__(self, watch: StoreWatch, gate: Gate, gauges: Mapping[str, Function]) -> None:
        self._watch = watch
        self._gate = gate
        self._gauges = gauges
        self._process = ProcessCollector(registry=None)
        self._lock = asyncio.Lock()
        self._page = b""
        self._rendered_at = float("-inf")

    async def render(self) -> bytes:
        """The page, a second old at most. What cannot be had is missing."""
        async with self._lock:
            if time.monotonic() - self._rendered_at > KEPT:
                self._page = await self._render()
                self._rendered_at = time.monotonic()
            return self._page

    async def _render(self) -> bytes:
        state = await self._watch.read()
        readings = sorted([*self._asked(), *self._of_store(state)])
        texts = []
        for family in chain(_families(readings), self._process.collect()):
            texts.append(generate_latest(_Alone(family)))
            await asyncio.sleep(0)  # one with hundreds of channels takes milliseconds
        return b"".join(texts)

    def _of_store(self, state: StoreState) -> Iterator[Reading]:
        yield "up", (), float(state.is_up and self._gate.is_open)
        yield "redis_up", (), float(state.is_up)
        if state.is_up:
            yield "redis_memory_bytes", (), state.memory
            yield "redis_memory_limit_bytes", (), state.memory_limit
            yield from _of_logs(state.logs)

    def _asked(self) -> Iterator[Reading]:
        own = ((name, (), function) for name, function in self._gauges.items())
        for name, labels, function in (*own, *metrics.gauges()):
            try:
                yield name, tuple(_values(_metric("gauge", name, labels), labels)), float(function())
            except Exception:  # a gauge that is broken hides itself, not the others
                self.log.failure("the gauge {name}", name=name)


def _of_logs(logs: Iterable[LogState]) -> Iterator[Reading]:
    """Channels may have the same name, and be many: lengths are added up, of lags the greatest counts."""
    entries: dict[tuple[str, ...], int] = {}
    lags: dict[tuple[str, ...], tuple[int, float]] = {}
    for state in logs:
        key = (state.log, state.channel)
        if key not in entries and len(entries) >= VALUES_MOST:
            key = (state.log, OTHER)
        entries[key] = entries.get(key, 0) + state.length
        for lag in state.lags:
            place = (*key, lag.reader)
            before = lags.get(place, (0, 0.0))
            lags[place] = (before[0] + lag.entries, max(before[1], lag.seconds))
    for labels, length in entries.items():
        yield "log_entries", labels, length
    for labels, (behind, seconds) in lags.items():
        yield "reader_lag_entries", labels, behind
        yield "reader_lag_seconds", labels, seconds


@frozen
class _Alone(Collector):
    """What ``prometheus_client`` renders: one family."""

    family: Family

    def collect(self) -> Iterable[Family]:
        """It."""
        return [self.family]


def _families(readings: list[Reading]) -> Iterator[Family]:
    """Everything with a value, in the order of names; ``readings`` are the gauges, sorted."""
    for name, counters in groupby(metrics.counters(), key=lambda row: row[0]):
        yield _counter(name, [(labels, n) for _, labels, n in counters])
    for name, histograms in groupby(metrics.histograms(), key=lambda row: row[0]):
        yield _histogram(name, [(labels, histogram) for _, labels, histogram in histograms])
    for name, rows in groupby(readings, key=lambda row: row[0]):
        yield _gauge(name, [(labels, reading) for _, labels, reading in rows])


def _metric(kind: str, name: str, labels: Labels = ()) -> Metric:
    """Its line in the catalog; of one that is missing there, what can be seen."""
    return CATALOG.get(name) or Metric(kind, name, tuple(label for label, _ in labels), "not described")


def _values(metric: Metric, labels: Labels) -> list[str]:
    given = dict(labels)
    return [given.get(label, "") for label in metric.labels]


def _counter(name: str, rows: list[tuple[Labels, int]]) -> Family:
    metric = _metric("counter", name, rows[0][0])
    family = CounterMetricFamily(metric.exposed, metric.help, labels=metric.labels)
    for labels, n in rows:
        family.add_metric(_values(metric, labels), n)
    return family


def _histogram(name: str, rows: list[tuple[Labels, metrics.Histogram]]) -> Family:
    metric = _metric("histogram", name, rows[0][0])
    family = HistogramMetricFamily(metric.exposed, metric.help, labels=metric.labels)
    for labels, histogram in rows:
        buckets = list(zip(EDGES, accumulate(histogram.buckets), strict=True))
        family.add_metric(_values(metric, labels), buckets, histogram.sum)
    return family


def _gauge(name: str, rows: list[tuple[tuple[str, ...], float]]) -> Family:
    metric = _metric("gauge", name)
    family = GaugeMetricFamily(metric.exposed, metric.help, labels=metric.labels)
    for values, reading in rows:
        family.add_metric(values, reading)
    return family


async def show_metrics(call: Call) -> Answer:
    """For a Prometheus server."""
    return Answer(body=await call.parts.exposition.render())


OPERATIONS = [
    Operation(
        "GET", "/metrics", show_metrics, "Figures for Prometheus", is_bare=True, content_type=CONTENT_TYPE, result=str
    )
]
