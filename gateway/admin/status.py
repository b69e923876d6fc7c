"""``status``: whether the gateway takes trackers' data, and the figures that matter most."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from gateway.admin.client import AdminError, Client
from gateway.admin.output import Output, column, count, printable, seconds, size

UNAVAILABLE = 503
SLOW = 5.0
"""Seconds from which on a reader's lag is shown."""
PREFIX = "gateway_"
Figures = dict[str, list[tuple[dict[str, str], float]]]
SUMS = (
    "connections", "channels", "devices", "packets_total", "records_total", "packets_parked_total",
    "packets_rejected_total", "idents_rejected_total", "connections_refused_total", "log_pending_packets",
    "mqtt_connected", "mqtt_in_flight", "mqtt_messages_published_total", "redis_memory_bytes",
    "redis_memory_limit_bytes",
)  # fmt: skip
"""What is shown of the metrics, added up over their labels."""


def run_status(client: Client, options: Namespace, output: Output) -> list[str]:
    """Fails where trackers are paused, for scripts."""
    code, report = _report(client)
    figures = _figures(client)
    shown = {**report, **{name: _sum(figures, name) for name in SUMS}}
    shown |= {f"{what}_p99": _quantile(figures, f"{what}_seconds", 0.99) for what in ("commit", "ack")}
    lags = [{**labels, "seconds": lag} for labels, lag in figures.get(f"{PREFIX}reader_lag_seconds", ())]
    if output.is_json:
        output.document({**shown, "readers": lags})
    else:
        _print(output, shown, lags)
    return [f"trackers are paused: {reason}" for reason in report["reasons"]] if code == UNAVAILABLE else []


def _report(client: Client) -> tuple[int, dict[str, Any]]:
    code, body = client.fetch("health")
    try:
        report = json.loads(body)
        if {"status", "reasons", "warnings", "version", "uptime"} <= report.keys():
            return code, report
    except (ValueError, AttributeError):
        pass
    raise AdminError(f"{client.url}/health answered {code}, and it is no gateway")


def _figures(client: Client) -> Figures:
    code, body = client.fetch("metrics")
    if code != 200:
        raise AdminError(f"{client.url}/metrics answered {code}")
    figures: Figures = {}
    try:
        for family in text_string_to_metric_families(body):
            for sample in family.samples:
                figures.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    except ValueError as error:
        raise AdminError(f"{client.url}/metrics cannot be read: {error}") from None
    return figures


def _sum(figures: Figures, name: str) -> int | None:
    samples = figures.get(PREFIX + name)
    return int(sum(value for _, value in samples)) if samples else None


def _quantile(figures: Figures, name: str, part: float) -> float | None:
    """The upper bound of the bucket in which the quantile is, in seconds since the gateway's start."""
    buckets: dict[float, float] = {}
    for labels, value in figures.get(f"{PREFIX}{name}_bucket", ()):
        edge = float(labels["le"])
        buckets[edge] = buckets.get(edge, 0.0) + value
    total = buckets.get(float("inf"), 0.0)
    if not total:
        return None
    edge = min(edge for edge, below in buckets.items() if below >= part * total)
    return edge if edge != float("inf") else max(known for known in buckets if known != edge)


def _print(output: Output, shown: dict[str, Any], lags: Iterable[dict[str, Any]]) -> None:
    is_ok = shown["status"] == "ok"
    output.line(
        f"{shown['status']}, version {shown['version']}, up for {seconds(shown['uptime'])}", "" if is_ok else "bold red"
    )
    for reason in shown["reasons"]:
        output.line(f"  trackers are paused: {printable(reason)}", "red")
    for warning in shown["warnings"]:
        output.line(f"  warning: {printable(warning)}", "yellow")
    output.line("")
    for title, value in _rows(shown):
        output.line(f"{title:<22}{value}")
    behind = [lag for lag in lags if lag["seconds"] >= SLOW]
    if behind:
        output.line("")
        output.items(behind, LAGS, "")


LAGS = (column("reader"), column("log"), column("channel"), column("behind", "seconds", show=seconds))


def _rows(shown: dict[str, Any]) -> list[tuple[str, str]]:
    def number(name: str) -> str:
        return count(shown.get(name) or 0)

    limit = shown.get("redis_memory_limit_bytes")
    memory = size(shown["redis_memory_bytes"]) if shown.get("redis_memory_bytes") is not None else "not known"
    return [
        ("channels", number("channels")),
        ("devices", number("devices")),
        ("connections", f"{number('connections')} now, {number('connections_refused_total')} refused"),
        ("packets", f"{number('packets_total')} stored, {number('log_pending_packets')} waiting"),
        ("records", number("records_total")),
        ("refused", _refused(number)),
        ("99 % acknowledged in", _milliseconds(shown["ack_p99"])),
        ("99 % stored in", _milliseconds(shown["commit_p99"])),
        ("MQTT", _broker(shown, number)),
        ("Redis' memory", memory + (f" of {size(limit)}" if limit else "")),
    ]


def _refused(number: Any) -> str:
    return (
        f"{number('packets_rejected_total')} packets not acknowledged or parked, "
        f"{number('idents_rejected_total')} logins"
    )


def _broker(shown: dict[str, Any], number: Any) -> str:
    state = "connected" if shown.get("mqtt_connected") else "not connected"
    return f"{state}, {number('mqtt_messages_published_total')} published, {number('mqtt_in_flight')} in flight"


def _milliseconds(value: float | None) -> str:
    return "nothing yet" if value is None else f"{value * 1000:g} ms or less"
