"""/health and /metrics of a running gateway, as a load balancer and a Prometheus server see them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import CATALOG
from integration.processes import Gateway, RedisServer, free_port
from integration.rest import Rest
from integration.trackers import Connection, Packets, imei, send_packet

Run = Callable[..., Any]
MISSED = 0.2
"""Seconds between two questions: a change shows when what is known is older than a second."""


async def _health(gateway: Gateway) -> tuple[int, dict[str, Any]]:
    async with httpx.AsyncClient(timeout=10) as client:
        answer = await client.get(f"{gateway.api_url}/health")
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, answer.json()


async def _becomes(gateway: Gateway, code: int) -> dict[str, Any]:
    """Wait until the gateway answers with ``code``; the body."""
    async with asyncio.timeout(20):
        while (answer := await _health(gateway))[0] != code:
            await asyncio.sleep(MISSED)
    return answer[1]


async def _figures(gateway: Gateway) -> dict[str, list[tuple[dict[str, str], float]]]:
    """By name: labels and value of every sample."""
    async with httpx.AsyncClient(timeout=10) as client:
        answer = await client.get(f"{gateway.api_url}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    figures: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            figures.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return figures


def test_a_running_gateway_shows_all_gauges_and_what_trackers_sent(run: Run, make_gateway) -> None:
    """Every gauge of the catalog has a value; packets, records, commits and acknowledgements are counted."""
    gateway = make_gateway()

    async def scenario() -> None:
        await gateway.ready()
        async with Rest(gateway) as rest:  # only where there is a stream, there is its gauge
            path = str(gateway.data_dir / "lines.jsonl")
            await rest.make("streams", name="Lines", protocol_name="file", configuration={"path": path})
        packets = Packets(imei(1), records=3)
        for _ in range(4):
            await send_packet(gateway.port, packets)
        connection = await Connection.open(gateway.port)
        await connection.log_in(packets.login)
        async with asyncio.timeout(20):
            while (figures := await _figures(gateway))["gateway_devices"] != [({}, 1.0)] or any(
                lag for _, lag in figures["gateway_reader_lag_entries"]
            ):
                await asyncio.sleep(MISSED)
        connection.vanish()
        gauges = {metric.exposed for metric in CATALOG.values() if metric.kind == "gauge"}
        assert gauges - figures.keys() == set()
        assert figures["gateway_up"] == [({}, 1.0)]
        assert figures["gateway_packets_total"] == [({"channel": "trackers"}, 4.0)]
        assert figures["gateway_records_total"] == [({"channel": "trackers"}, 12.0)]
        assert figures["gateway_connections"] == [({}, 1.0)]
        assert figures["gateway_connections_accepted_total"] == [({}, 5.0)]
        assert figures["gateway_commit_seconds_count"] == figures["gateway_log_commits_total"]
        assert ({"log": "channels", "channel": "trackers"}, 4.0) in figures["gateway_log_entries"]
        readers = {(labels["log"], labels["reader"]) for labels, _ in figures["gateway_reader_lag_seconds"]}
        assert readers == {
            ("channels", "registrar"),
            ("channels", "mqtt"),
            ("devices", "mqtt"),
            ("devices", "telemetry"),
        }
        assert all(lag == 0 for _, lag in figures["gateway_reader_lag_seconds"])
        assert "process_resident_memory_bytes" in figures
        assert (await _health(gateway))[0] == 200
        assert await gateway.stop() == 0

    run(scenario(), timeout=60)


def test_health_follows_redis(run: Run, make_gateway, redis_process: RedisServer) -> None:
    """503 while it does not answer, although no tracker has noticed; 200 when it is back."""
    gateway = make_gateway(redis={"url": redis_process.url})

    async def scenario() -> None:
        await redis_process.says("Ready to accept connections")
        await gateway.ready()
        report = await _becomes(gateway, 200)
        assert (report["status"], report["reasons"]) == ("ok", [])
        redis_process.send(signal.SIGSTOP)
        report = await _becomes(gateway, 503)
        assert report["status"] == "unavailable"
        assert report["reasons"] == ["Redis did not answer within 2 s"]
        figures = await _figures(gateway)
        assert figures["gateway_up"] == figures["gateway_redis_up"] == [({}, 0.0)]
        redis_process.send(signal.SIGCONT)
        assert (await _becomes(gateway, 200))["reasons"] == []
        redis_process.kill()
        report = await _becomes(gateway, 503)
        assert report["reasons"][0].startswith("Redis does not answer")
        redis_process.start()
        await _becomes(gateway, 200)
        assert await gateway.stop() == 0

    run(scenario(), timeout=90)


def test_a_broker_that_is_away_is_a_warning(run: Run, make_gateway) -> None:
    """Data is taken and stored; the password of the broker's address is nobody's business."""
    port = free_port()
    gateway = make_gateway(mqtt={"url": f"mqtt://user:hidden-password@127.0.0.1:{port}"})

    async def scenario() -> None:
        await gateway.ready()
        async with asyncio.timeout(20):
            while not (report := (await _health(gateway))[1])["warnings"] or "cannot connect" not in str(report):
                await asyncio.sleep(MISSED)
        assert report["status"] == "ok"
        assert len(report["warnings"]) == 1
        assert report["warnings"][0].startswith(f"the broker at mqtt://127.0.0.1:{port} is away: cannot connect")
        assert "hidden" not in str(report)
        figures = await _figures(gateway)
        assert figures["gateway_mqtt_connected"] == [({}, 0.0)]
        assert figures["gateway_mqtt_connection_failures_total"][0][1] >= 1
        assert await gateway.stop() == 0

    run(scenario(), timeout=60)
