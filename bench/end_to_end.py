"""From a tracker's socket to a subscriber of Mosquitto: every record as a channel message and a device message, QoS 1.

*Sustained* is the highest offered rate at which the subscriber keeps up: at the end of the time less than a second's
worth of device messages is missing. *Draining* is the rate at which the backlog of a storm (trackers unthrottled)
reaches the subscriber while nothing else comes in. At the end every acknowledged record must have arrived on both
topics.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import attrs

from bench.load import Load, Trackers
from bench.processes import CpuMeter, Reports, Watched, running_gateway, running_mosquitto, running_subscriber
from bench.rows import Row
from gateway.emulator.tape import SHAPES, Tape

RATES = (2_000, 3_000, 4_000, 5_000, 6_000, 7_000, 8_500, 10_000, 12_500, 15_000)
SECONDS = 6.0
STORM_SECONDS = 4.0
CONNECTIONS = 100
DRAIN_SECONDS = 90.0  # the longest wait for a backlog

# A Node server: decode, JSON, MQTT QoS 0 on one topic, no storage. It lost what it acknowledged in its first second.
PEER_RATE = 27_000.0
PEER = "peer without storage, QoS 0"


@attrs.define
class Bench:
    """Trackers at one end, a subscriber at the other."""

    trackers: Trackers
    tape: Tape
    reports: Reports
    servers: dict[str, Watched]
    acknowledged: int = 0

    def offer(self, seconds: float, rate: float | None) -> Load:
        load = self.trackers.run(self.tape, seconds, rate=rate)
        self.acknowledged += load.records + load.late_records
        return load

    @property
    def missing(self) -> int:
        """Acknowledged records whose device message has not come yet."""
        return self.acknowledged - int(self.reports.last["different_device"])

    def drain(self) -> bool:
        """Wait until everything acknowledged has come, on both topics."""
        return self.reports.wait_for(self._is_complete, DRAIN_SECONDS)

    def _is_complete(self, last: dict[str, float]) -> bool:
        return min(last["different_channel"], last["different_device"]) >= self.acknowledged


def run() -> list[Row]:
    return [*_run(telemetry=False), *_run(telemetry=True)]


def _run(telemetry: bool) -> list[Row]:
    name = "with telemetry" if telemetry else "messages only"
    with (
        running_mosquitto() as (mosquitto, port),
        running_subscriber(port, ["flespi/#"]) as (subscriber, reports),
        running_gateway(mqtt_port=port, telemetry=telemetry) as gateway,
    ):
        servers = {**gateway.watched(), "mosquitto": mosquitto, "subscriber": subscriber}
        trackers = Trackers(gateway.tracker_address, CONNECTIONS)
        bench = Bench(trackers, Tape(SHAPES["pkt10"]), reports, servers)
        bench.offer(2.0, 1_000)
        if not bench.drain():
            return [Row("end to end", f"{name}: not delivered at 1,000 records/s", bench.missing, "records missing")]
        rows = [*_sustained(bench, name), *_storm(bench, name)]
        trackers.close()
        return rows


def _sustained(bench: Bench, name: str) -> Iterator[Row]:
    best = 0.0
    note = ""
    lag = (0.0, 0.0)
    for rate in RATES:
        meter = CpuMeter(bench.servers)
        load = bench.offer(SECONDS, rate)
        missing, last, used = bench.missing, bench.reports.last, meter.note(load.records)
        drained = bench.drain()
        if load.records_per_second < 0.95 * rate or missing > rate or not drained:
            note += f"; offered {rate}: {load.records_per_second:,.0f} taken, {missing} behind"
            break
        best, lag = load.records_per_second, (last["lag_p50"], last["lag_p99"])
        note = used
    yield Row("end to end", f"{name}: sustained", best, "records/s", PEER_RATE, PEER, note)
    yield Row("end to end", f"{name}: sustained, lag p50", lag[0] * 1e3, "ms")
    yield Row("end to end", f"{name}: sustained, lag p99", lag[1] * 1e3, "ms")


def _storm(bench: Bench, name: str) -> Iterator[Row]:
    load = bench.offer(STORM_SECONDS, None)
    behind, started = bench.missing, time.perf_counter()
    meter = CpuMeter(bench.servers)
    drained = bench.drain()
    seconds = time.perf_counter() - started
    delivered = behind - bench.missing
    yield Row("end to end", f"{name}: taken in a storm", load.records_per_second, "records/s", note=f"{behind} behind")
    rate = delivered / seconds
    yield Row("end to end", f"{name}: draining", rate, "records/s", PEER_RATE, PEER, meter.note(delivered))
    yield Row("end to end", f"{name}: lost", float(0 if drained else bench.missing), "records", note=_repeated(bench))


def _repeated(bench: Bench) -> str:
    last = bench.reports.last
    repeated = last["channel"] + last["device"] - last["different_channel"] - last["different_device"]
    return f"of {bench.acknowledged} acknowledged; {repeated:.0f} messages came twice, {last['other']:.0f} other topics"
