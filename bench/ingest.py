"""How fast trackers get rid of their records: bytes on TCP to acknowledgement, every acknowledged record on disk.

The readers of the log are paused, as after an outage, when every tracker returns with a full memory and the fan-out has
to stand back. Beside each figure: a Twisted server that only acknowledges, with the same load, moments before.
"""

from __future__ import annotations

import itertools
import sys

import attrs

from bench.load import Load, Trackers
from bench.processes import CpuMeter, Watched, free_port, running, running_gateway
from bench.rows import Row
from gateway.emulator.tape import SHAPES, Tape

SECONDS = 4.0
CONNECTIONS = (1, 100, 1000)
PACKETS = ("pkt10", "pkt1")


@attrs.frozen
class Measured:
    """One load, and where the CPU time went."""

    load: Load
    note: str


def run() -> list[Row]:
    cases = list(itertools.product(PACKETS, CONNECTIONS))
    port = free_port()
    acknowledging = running([sys.executable, "-m", "bench.ack_server", str(port)], "ready")
    rows: list[Row] = []
    with acknowledging as server, running_gateway(readers=False) as gateway:
        for case in cases:
            limit = _measure(("127.0.0.1", port), {"server": server}, *case)
            rows += _rows(case, _measure(gateway.tracker_address, gateway.watched(), *case), limit)
    return rows


def _measure(address: tuple[str, int], servers: dict[str, Watched], packet: str, connections: int) -> Measured:
    tape = Tape(SHAPES[packet])
    tape.prepare(2000)
    trackers = Trackers(address, connections)
    trackers.run(tape, seconds=0.5)
    meter = CpuMeter(servers)
    load = trackers.run(tape, SECONDS)
    note = meter.note(load.records)
    trackers.close()
    return Measured(load, note)


def _rows(case: tuple[str, int], measured: Measured, limit: Measured) -> list[Row]:
    packet, connections = case
    load = measured.load
    what = f"{packet}, {connections} connections"
    note = measured.note
    if load.lost_connections or load.wrong_acks:
        note += f"; {load.lost_connections} connections lost, {load.wrong_acks} wrong acknowledgements"
    rate = Row(
        "ingest", what, load.records_per_second, "records/s", limit.load.records_per_second, "only acknowledging", note
    )
    return [rate, *(_latency(what, name, load, limit.load) for name in ("p50", "p99"))]


def _latency(what: str, quantile: str, load: Load, limit: Load) -> Row:
    here, there = getattr(load, quantile) * 1e3, getattr(limit, quantile) * 1e3
    return Row("ingest", f"{what}: ack {quantile}", here, "ms", there, "only acknowledging")
