"""Several processes: how much of a record's work leaves the first one, and what all together take.

The same load as in ``bench.ingest``, with 1, 2 and 4 processes. The first process alone stores, publishes and serves
the API, so what a record costs it is what bounds a gateway with many cores; on few cores, which trackers, Redis and all
processes share, the rate says little, and the CPU time all the more.
"""

from __future__ import annotations

import os
from pathlib import Path

from bench.load import Trackers
from bench.processes import Watched, running_gateway
from bench.rows import Row
from gateway.emulator.tape import SHAPES, Tape

PART = "workers"
SECONDS = 4.0
CONNECTIONS = 100
COUNTS = (1, 2, 4)


def run() -> list[Row]:
    rows: list[Row] = []
    for packet in ("pkt10", "pkt1"):
        measured = {count: _measure(count, packet) for count in COUNTS}
        rate_alone, first_alone, _ = measured[1]
        for count, (rate, first, others) in measured.items():
            what = f"{packet}, {count} process" + ("es" if count > 1 else "")
            note = f"{others:.1f} us in the other processes" if count > 1 else ""
            rows.append(Row(PART, what, rate, "records/s", rate_alone, "one process", f"{os.cpu_count()} cores in all"))
            rows.append(Row(PART, f"{what}: CPU of the first", first, "us a record", first_alone, "one process", note))
    return rows


def _measure(count: int, packet: str) -> tuple[float, float, float]:
    """Records a second; microseconds a record in the first process, and in the others."""
    tape = Tape(SHAPES[packet])
    tape.prepare(2000)
    with running_gateway(readers=False, workers=count) as gateway:
        others = [Watched(pid) for pid in _workers_of(gateway.process.pid)]
        assert len(others) == count - 1
        trackers = Trackers(gateway.tracker_address, CONNECTIONS)
        trackers.run(tape, seconds=1.0)
        before = [gateway.process.cpu_seconds, sum(other.cpu_seconds for other in others)]
        load = trackers.run(tape, SECONDS)
        after = [gateway.process.cpu_seconds, sum(other.cpu_seconds for other in others)]
        trackers.close()
    first, rest = ((new - old) / load.records * 1e6 for old, new in zip(before, after, strict=True))
    return load.records_per_second, first, rest


def _workers_of(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"gateway.workers" in path.read_bytes() and _parent(path.parent) == pid:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def _parent(path: Path) -> int:
    return int((path / "stat").read_text().rpartition(")")[2].split()[1])
