"""Figures that any layer may raise: counters, histograms of seconds, gauges. ``CATALOG`` names them all.

Calls use the short names of the catalog; for Prometheus a counter ``records`` is ``gateway_records_total``. Labels are
bounded (channel, reason): never an ident or an address. A label that takes too many values all the same, because
channels are made and renamed over the API, counts further ones as ``other``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from attrs import define, field, frozen

Labels = tuple[tuple[str, str], ...]
"""Sorted by name."""
Key = tuple[str, Labels]
Function = Callable[[], float]

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds in seconds of a histogram's buckets: from a commit on a fast disk to what a tracker waits for."""
VALUES_MOST = 256
"""Values of one label of one metric; a Prometheus server keeps a series for each, for ever."""
VALUE_LENGTH = 128
OTHER = "other"


@define
class Histogram:
    """``buckets[i]``: observations above ``BOUNDS[i - 1]`` and up to ``BOUNDS[i]``; the last one has no bound."""

    buckets: list[int] = field(factory=lambda: [0] * (len(BOUNDS) + 1))
    sum: float = 0.0


@frozen
class Metric:
    """One line of the catalog. ``kind``: counter, histogram or gauge."""

    kind: str
    name: str
    labels: tuple[str, ...]
    help: str

    @property
    def exposed(self) -> str:
        """The name in Prometheus."""
        return f"gateway_{self.name}_total" if self.kind == "counter" else f"gateway_{self.name}"


_counts: Counter[Key] = Counter()
_histograms: dict[Key, Histogram] = {}
_gauges: dict[Key, Function] = {}
_values: dict[tuple[str, str], set[str]] = {}


def count(name: str, n: int = 1, **labels: str) -> int:
    """Add ``n`` to the counter and give its new value, so that a caller can log the first and every Nth."""
    key = (name, _sorted(labels))
    if key not in _counts:
        key = _bounded(key)
    _counts[key] += n
    return _counts[key]


def value(name: str, **labels: str) -> int:
    """The counter's present value; 0 where it was never raised."""
    return _counts.get((name, _sorted(labels)), 0)


def observe(name: str, seconds: float, **labels: str) -> None:
    """Take ``seconds`` into the histogram."""
    key = (name, _sorted(labels))
    histogram = _histograms.get(key)
    if histogram is None:
        histogram = _histograms.setdefault(_bounded(key), Histogram())
    histogram.buckets[bisect_left(BOUNDS, seconds)] += 1
    histogram.sum += seconds


def take(
    counters: Iterable[tuple[str, Iterable[tuple[str, str]], int]],
    histograms: Iterable[tuple[str, Iterable[tuple[str, str]], list[int], float]],
) -> None:
    """Add what another process counted, and observed: so many in each bucket of a histogram, and their sum."""
    for name, labels, n in counters:
        count(name, n, **dict(labels))
    for name, labels, buckets, total in histograms:
        histogram = _histograms.setdefault(_bounded((name, _sorted(dict(labels)))), Histogram())
        histogram.buckets = [old + new for old, new in zip(histogram.buckets, buckets, strict=True)]
        histogram.sum += total


def gauge(name: str, function: Function, **labels: str) -> None:
    """Have ``function`` asked at each scrape; it must be cheap. A second one for the same labels replaces the first."""
    _gauges[_bounded((name, _sorted(labels)))] = function


def forget_gauge(name: str, **labels: str) -> None:
    """What it was asked of is gone."""
    _gauges.pop(_bounded((name, _sorted(labels))), None)


@contextmanager
def showing(**functions: Function) -> Iterator[None]:
    """Have the gauges of these names, which have no labels, asked for as long as the block runs."""
    for name, function in functions.items():
        gauge(name, function)
    try:
        yield
    finally:
        for name, function in functions.items():
            if _gauges.get((name, ())) is function:  # nobody replaced it
                del _gauges[name, ()]


def counters() -> Iterator[tuple[str, Labels, int]]:
    """All counters that were ever raised."""
    for (name, labels), n in sorted(_counts.items()):
        yield name, labels, n


def histograms() -> Iterator[tuple[str, Labels, Histogram]]:
    """All histograms with an observation."""
    for (name, labels), histogram in sorted(_histograms.items(), key=lambda item: item[0]):
        yield name, labels, histogram


def gauges() -> Iterator[tuple[str, Labels, Function]]:
    """All gauges that there are just now."""
    for (name, labels), function in sorted(_gauges.items(), key=lambda item: item[0]):
        yield name, labels, function


def _sorted(labels: dict[str, str]) -> Labels:
    return tuple(sorted(labels.items())) if len(labels) > 1 else tuple(labels.items())


def _bounded(key: Key) -> Key:
    """``key``, or the one that stands for it where one of its labels has too many values."""
    name, labels = key
    return name, tuple((label, _bounded_value(name, label, text)) for label, text in labels)


def _bounded_value(name: str, label: str, text: str) -> str:
    known = _values.setdefault((name, label), set())
    text = str(text)[:VALUE_LENGTH]
    if text not in known:
        if len(known) >= VALUES_MOST:
            return OTHER
        known.add(text)
    return text


def _catalog() -> Iterator[Metric]:
    for kind, rows in (("counter", COUNTERS), ("histogram", HISTOGRAMS), ("gauge", GAUGES)):
        for name, labels, text in rows:
            yield Metric(kind, name, labels, text)


COUNTERS = (
    ("packets", ("channel",), "Packets with records that were given to the log"),
    ("records", ("channel",), "Records that were given to the log, a message each"),
    ("packets_parked", ("channel", "reason"), "Packets that nobody can decode: kept as bytes and acknowledged"),
    ("packets_rejected", ("channel", "reason"), "Packets that were not acknowledged, or parked: wrong CRC, no packet"),
    ("violations", ("channel", "reason"), "Connections closed and datagrams dropped for bytes that are no protocol"),
    ("command_responses", ("channel",), "Trackers' answers to commands"),
    ("datagrams_dropped", ("channel",), "Datagrams dropped because trackers are paused or too many wait"),
    ("idents_rejected", ("channel",), "Logins of idents that are not welcome"),
    ("idents_not_registered", ("channel",), "Unknown idents that limits.devices kept from becoming devices"),
    ("connections_accepted", (), "Trackers' connections that were let in"),
    ("connections_refused", ("reason",), "Connections closed at once: a limit was reached"),
    ("connections_closed", ("channel", "reason"), "Connections that the gateway closed, and why"),
    ("tls_handshakes", ("version",), "TLS handshakes that succeeded, of trackers and of the API's clients"),
    ("tls_handshakes_failed", ("reason",), "TLS handshakes that did not"),
    ("tls_reload_failures", (), "Changed certificates or keys that could not be used; those from before stay"),
    ("proxy_connections_refused", ("reason",), "Connections to haproxy: endpoints without a PROXY header that counts"),
    ("gate_closed", ("cause",), "How often trackers were paused, and for what"),
    ("log_commits", (), "Commits of the channel logs: each a group of packets"),
    ("log_commit_failures", ("reason",), "Attempts at a commit that failed; packets are kept and tried again"),
    ("log_entries_refused", (), "Packets that Redis refused for good: not acknowledged, sent again by the tracker"),
    ("registrar_failures", (), "Batches that the registrar must repeat, because Redis did not answer"),
    ("registrar_skipped", (), "Packets that could not be registered: a bug; they stay in the channel's log"),
    ("registrar_undecodable", (), "Messages in a channel's log that are not JSON"),
    ("telemetry_parameters_refused", (), "New parameters of devices that have as many as are kept"),
    ("telemetry_texts_refused", (), "Values too long to be kept as telemetry"),
    ("mqtt_connections", (), "Connections to the broker that were accepted"),
    ("mqtt_connection_failures", (), "Attempts to connect that failed, and connections that broke"),
    ("mqtt_messages_published", ("log",), "Messages that the broker has acknowledged"),
    ("mqtt_messages_skipped", ("reason",), "Messages that no broker would take"),
    ("mqtt_publish_refused", ("reason",), "Reason codes with which the broker refused a message; it is tried again"),
    ("mqtt_unconfirmed_dropped", (), "Log entries (QoS 0) that could not be sent at once"),
    ("events", ("kind",), "Entries of the event log, by the kind of item"),
    ("journal_failures", ("journal",), "Attempts to write the event log, idents or traffic that failed; tried again"),
    ("journal_entries_dropped", ("journal", "reason"), "Entries of the event log or of traffic that are lost"),
    ("mqtt_properties_forgotten", (), "Devices whose retained properties are not remembered: too many"),
    ("mqtt_broker_warnings", ("place",), "Warnings of the embedded broker"),
    ("mqtt_clients_refused", ("reason",), "Clients that the embedded broker did not let in"),
    ("mqtt_clients_cut", (), "Clients of the embedded broker that did not read, and were disconnected"),
    ("mqtt_offline_messages_dropped", (), "Messages for absent clients of the embedded broker, beyond what is kept"),
    ("mqtt_retained_messages_dropped", (), "Retained messages of clients that the embedded broker had no room for"),
    ("plugin_errors", ("type", "plugin"), "Messages that a plugin failed on; they went on without it"),
    ("plugin_messages_dropped", ("type", "plugin"), "Messages that a plugin kept from being registered"),
    ("plugin_messages_passed_by", ("type",), "Messages that passed a plugin by, because too many waited for it"),
    ("plugin_mistakes", ("type",), "Errors of plugins that are mistakes in their code"),
    ("plugin_slow", ("type",), "Messages that a plugin kept everybody waiting for"),
    ("plugin_store_failures", (), "Attempts of waiting plugins to reach Redis that failed; tried again"),
    ("stream_messages", ("stream", "result"), "Messages of a stream: delivered, rejected, skipped or given_up"),
    ("stream_failures", ("stream",), "Attempts of a stream to connect or to deliver that failed; tried again"),
    ("stream_store_failures", (), "Attempts of streams to read their logs that failed; tried again"),
    ("worker_restarts", (), "Worker processes that ended and were started again"),
    ("log_events", ("level",), "Events of the diagnostic log: warn, error; critical is a bug, with a traceback"),
    ("library_warnings", ("place",), "Warnings of libraries"),
    ("api_requests", ("operation", "status"), "Requests to the API"),
    ("api_connections_refused", (), "Connections to the API refused: there were as many as there may be"),
    ("api_clients_gone", (), "Requests whose client left, or stopped reading, before the answer's end"),
)

HISTOGRAMS = (
    ("commit_seconds", (), "From the attempt to store a group of packets to Redis' answer"),
    ("ack_seconds", (), "From a packet's last byte to its acknowledgement"),
    ("stream_seconds", ("stream",), "From a batch's delivery to the target's confirmation"),
    ("api_seconds", ("operation",), "From a request's last byte to the end of its answer"),
)

GAUGES = (
    ("up", (), "1: trackers' data can be taken and stored, 0: it cannot; /health says why"),
    ("connections", (), "Trackers that are connected"),
    ("channels", (), "Channels"),
    ("devices", (), "Devices"),
    ("log_pending_packets", (), "Packets that wait for their commit"),
    ("log_pending_bytes", (), "Bytes that wait for their commit"),
    ("log_entries", ("log", "channel"), "Packets in a log: that of a channel, or the device log"),
    (
        "reader_lag_entries",
        ("log", "channel", "reader"),
        "Packets that a reader has not delivered; counted up to 100, estimated beyond",
    ),
    ("reader_lag_seconds", ("log", "channel", "reader"), "Age of the first packet that a reader has not delivered"),
    ("workers", (), "Worker processes beside the first one"),
    ("plugin_devices_waiting", (), "Devices whose messages wait for a plugin that asks another system"),
    ("stream_connected", ("stream",), "1: the stream's target takes messages"),
    ("mqtt_connected", (), "1: connected to the broker"),
    ("mqtt_in_flight", (), "Messages sent that the broker has not acknowledged yet"),
    ("redis_up", (), "1: Redis answered this scrape"),
    ("redis_memory_bytes", (), "Memory that Redis uses"),
    ("redis_memory_limit_bytes", (), "Redis' maxmemory; 0: none"),
)

CATALOG = {metric.name: metric for metric in _catalog()}
