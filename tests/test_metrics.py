"""The figures that any layer may raise, and the catalog that names them all."""

from __future__ import annotations

import ast
import contextlib
import timeit
import uuid
from collections.abc import Iterator

import attrs
import pytest

from docs.metrics_table import PAGE, with_tables
from gateway import metrics
from gateway.metrics import BOUNDS, CATALOG, OTHER, VALUES_MOST
from tests.test_layering import SOURCES


@attrs.frozen
class Use:
    """A call of ``metrics`` in the source: what it raises, and with which labels."""

    kind: str
    name: str
    labels: frozenset[str]
    place: str


KINDS = {"count": "counter", "observe": "histogram", "gauge": "gauge"}
NOT_LABELS = {"n", "seconds", "function"}


def _uses() -> Iterator[Use]:
    for module, path in SOURCES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("metrics."):
                yield from _of_call(node, ast.unparse(node.func).removeprefix("metrics."), f"{module}:{node.lineno}")


def _of_call(node: ast.Call, function: str, place: str) -> Iterator[Use]:
    keywords = frozenset(keyword.arg or "**" for keyword in node.keywords)
    if function == "showing":
        yield from (Use("gauge", name, frozenset(), place) for name in keywords)
    elif function in KINDS:
        assert isinstance(node.args[0], ast.Constant), f"{place}: the name of a metric is a fixed text"
        yield Use(KINDS[function], node.args[0].value, keywords - NOT_LABELS, place)


USES = list(_uses())


@pytest.fixture
def name() -> str:
    """Of a metric that no other test raises."""
    return f"test_{uuid.uuid4().hex}"


@pytest.mark.parametrize("use", USES, ids=lambda use: f"{use.place}-{use.name}")
def test_what_the_source_raises_is_in_the_catalog(use):
    """With the same kind and the same labels."""
    metric = CATALOG.get(use.name)
    assert metric is not None, f"{use.place}: {use.name} is missing in CATALOG of gateway/metrics.py"
    assert (metric.kind, frozenset(metric.labels)) == (use.kind, use.labels)


def test_what_is_in_the_catalog_is_raised():
    """Gauges are also read at a scrape; the page of a running gateway shows those."""
    raised = {use.name for use in USES}
    assert [metric.name for metric in CATALOG.values() if metric.kind != "gauge" and metric.name not in raised] == []


def test_names_are_unique_and_as_prometheus_wants_them():
    """Base units, and one suffix for each kind; no label that could be an ident or an address."""
    assert len(CATALOG) == len(metrics.COUNTERS) + len(metrics.HISTOGRAMS) + len(metrics.GAUGES)
    for metric in CATALOG.values():
        assert metric.exposed.startswith("gateway_")
        assert metric.exposed.endswith("_total") == (metric.kind == "counter")
        assert metric.kind != "histogram" or metric.exposed.endswith("_seconds")
        assert not {"ident", "peer", "address", "device"} & set(metric.labels)
        assert metric.help


def test_the_page_of_the_documentation_lists_all():
    """``make docs`` writes its tables."""
    assert with_tables(PAGE.read_text()) == PAGE.read_text()
    assert all(f"`{metric.exposed}`" in PAGE.read_text() for metric in CATALOG.values())


def test_a_counter_gives_its_new_value(name):
    """So that a caller can log the first and every Nth."""
    assert metrics.count(name) == 1
    assert metrics.count(name, 5) == 6
    assert metrics.value(name) == 6
    assert metrics.value(name, channel="another") == 0


def test_the_order_of_labels_does_not_matter(name):
    """They are one counter."""
    metrics.count(name, channel="a", reason="b")
    assert metrics.count(name, reason="b", channel="a") == 2
    assert [(labels, n) for found, labels, n in metrics.counters() if found == name] == [
        ((("channel", "a"), ("reason", "b")), 2)
    ]


def test_a_histogram_puts_each_observation_into_its_bucket(name):
    """A bound belongs to the bucket below it."""
    for seconds in (0.0, BOUNDS[0], BOUNDS[0] + 1e-9, 31.0):
        metrics.observe(name, seconds)
    [histogram] = [histogram for found, _, histogram in metrics.histograms() if found == name]
    assert histogram.buckets == [2, 1, *[0] * (len(BOUNDS) - 2), 1]
    assert histogram.sum == pytest.approx(31.001)


def test_too_many_values_of_a_label_become_one(name):
    """Whoever renames channels must not grow what a Prometheus server keeps for ever."""
    for n in range(VALUES_MOST + 50):
        metrics.count(name, channel=f"channel {n}", reason="same")
        metrics.observe(name, 1.0, channel=f"channel {n}")
    counts = {dict(labels)["channel"]: n for found, labels, n in metrics.counters() if found == name}
    assert len(counts) == VALUES_MOST + 1
    assert counts[OTHER] == 50
    assert {dict(labels)["reason"] for found, labels, _ in metrics.counters() if found == name} == {"same"}
    assert len([found for found, _, _ in metrics.histograms() if found == name]) == VALUES_MOST + 1


def test_a_long_value_of_a_label_is_cut(name):
    """A reason may quote what somebody sent."""
    metrics.count(name, reason="x" * 100_000)
    [labels] = [labels for found, labels, _ in metrics.counters() if found == name]
    assert len(labels[0][1]) == 128


def test_gauges_are_asked_while_their_owner_runs(name):
    """And the last one of a name counts, as after a restart of a part."""

    def reading() -> list[float]:
        return [function() for found, _, function in metrics.gauges() if found == name]

    with metrics.showing(**{name: lambda: 1.0}):
        assert reading() == [1.0]
        with metrics.showing(**{name: lambda: 2.0}):
            assert reading() == [2.0]
        assert reading() == []
    with pytest.raises(RuntimeError), metrics.showing(**{name: lambda: 3.0}):
        raise RuntimeError
    assert reading() == []


def test_a_replaced_gauge_does_not_take_its_successor_along(name):
    """The old part may end after the new one has begun."""
    with contextlib.ExitStack() as younger:
        with metrics.showing(**{name: lambda: 1.0}):
            younger.enter_context(metrics.showing(**{name: lambda: 2.0}))
        assert [function() for found, _, function in metrics.gauges() if found == name] == [2.0]


def test_a_figure_costs_next_to_nothing(name):
    """They are raised for every packet; 1.5 us here, with room for a loaded machine."""
    calls = 20_000
    times = timeit.repeat(lambda: metrics.observe(name, 0.012, operation="x"), number=calls, repeat=5)
    assert min(times) / calls < 5e-6
