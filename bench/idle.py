"""What an idle connection costs: the gateway's memory with 2,000 trackers that are logged in and silent."""

from __future__ import annotations

import time

from bench.load import Trackers
from bench.processes import Watched, running_gateway
from bench.rows import Row
from gateway.emulator.tape import SHAPES, Tape

CONNECTIONS = 2000
_SETTLE = 1.0


def run() -> list[Row]:
    with running_gateway() as gateway:
        _use_once(gateway.tracker_address)
        before = _memory(gateway.process)
        started = time.perf_counter()
        trackers = Trackers(gateway.tracker_address, CONNECTIONS)
        seconds = time.perf_counter() - started
        after = _memory(gateway.process)
        trackers.close()
    each = (after - before) / CONNECTIONS / 1024
    note = f"{before / 2**20:.0f} MiB before, {after / 2**20:.0f} MiB with {CONNECTIONS} logged in"
    return [
        Row("idle", "memory per idle connection", each, "KiB", note=note),
        Row("idle", "logins", CONNECTIONS / seconds, "logins/s", note="50 at a time"),
    ]


def _use_once(address: tuple[str, int]) -> None:
    """Let everything that is made on first use be made before it is counted."""
    trackers = Trackers(address, 10)
    trackers.run(Tape(SHAPES["pkt10"]), packets=100)
    trackers.close()


def _memory(process: Watched) -> int:
    time.sleep(_SETTLE)
    return process.resident_bytes
