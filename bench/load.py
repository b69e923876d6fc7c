"""Trackers, many and cheap: N connections that send a packet, wait for its acknowledgement, and send the next.

``python -m bench.load --to HOST:PORT --connections 100 --packet pkt10 --seconds 10 [--rate RECORDS_PER_SECOND]``. One
process; several share a load by different ``--first-imei``. The emulator's ``--load`` is the same, for people.

As a part of the benchmarks: how much one process, and two, can send to a server that reads nothing (``bench.sink``),
beside what a gateway takes of the same load. That server needs a core too, so with few cores the rate per CPU second of
the sender tells most.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import attrs

from bench.processes import ROOT, NotStarted, free_port, running, running_gateway
from bench.rows import Row
from gateway.emulator.storm import FIRST_IMEI, Load, Trackers
from gateway.emulator.tape import SHAPES, Tape

__all__ = ["FIRST_IMEI", "Load", "Trackers"]

SECONDS = 2.0
CONNECTIONS = 100


def run() -> list[Row]:
    """Packets a second that one process sends, two processes send, and that a second of CPU time is good for."""
    with running_gateway(readers=False) as gateway:
        taken = {shape: _measure(gateway.tracker_address, shape) for shape in ("pkt1", "pkt10")}
    return [row for shape, load in taken.items() for row in _rows(shape, load.packets_per_second)]


def _rows(shape: str, taken: float) -> list[Row]:
    tape, port = Tape(SHAPES[shape]), free_port()
    with running([sys.executable, "-m", "bench.sink", str(port), str(len(tape[0])), str(tape.records)], "ready"):
        alone = _measure(("127.0.0.1", port), shape)
        shared = _measure_processes(port, shape)
    what = f"{shape}, {CONNECTIONS} connections"
    reads_nothing = "the server acknowledges by the count of bytes"
    return [
        Row("load", f"{what}: {name}", value, unit, taken, "taken by a gateway", note)
        for name, value, unit, note in (
            ("one process", alone.packets_per_second, "packets/s", reads_nothing),
            ("--processes 2", shared, "packets/s", f"{reads_nothing}; all on the same cores"),
            ("per CPU second", alone.packets / alone.cpu_seconds, "packets/s", "of the sending process"),
        )
    ]


def _measure(address: tuple[str, int], shape: str) -> Load:
    tape = Tape(SHAPES[shape])
    tape.prepare(2000)
    trackers = Trackers(address, CONNECTIONS)
    trackers.run(tape, seconds=0.3)
    load = trackers.run(tape, SECONDS)
    trackers.close()
    return load


def _measure_processes(port: int, shape: str) -> float:
    """Packets a second of ``python -m gateway.emulator --load``, both processes together."""
    options = ["--load", shape, "--devices", str(CONNECTIONS), "--duration", str(SECONDS), "--processes", "2", "--json"]
    command = [sys.executable, "-m", "gateway.emulator", "--to", f"127.0.0.1:{port}", *options]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise NotStarted(f"the emulator failed: {ended.stderr}")
    packets: int = json.loads(ended.stdout.splitlines()[-1])["all"]["packets"]
    return packets / SECONDS


def main() -> int:
    options = _options()
    host, _, port = options.to.rpartition(":")
    tape = Tape(SHAPES[options.packet])
    tape.prepare(1000)
    trackers = Trackers((host, int(port)), options.connections, options.first_imei)
    load = trackers.run(tape, options.seconds, options.packets, options.rate)
    trackers.close()
    print(json.dumps(attrs.asdict(load)) if options.json else _readable(load), flush=True)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__.partition("\n")[0])
    parser.add_argument("--to", default="127.0.0.1:5027", metavar="HOST:PORT")
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--packet", choices=SHAPES, default="pkt10")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--packets", type=float, default=float("inf"), help="end after so many, if sooner")
    parser.add_argument("--rate", type=float, help="records/s, all connections together (default: as fast as it goes)")
    parser.add_argument("--first-imei", type=int, default=FIRST_IMEI)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a line to read")
    return parser.parse_args()


def _readable(load: Load) -> str:
    return (
        f"{load.records_per_second:,.0f} records/s, {load.packets_per_second:,.0f} packets/s, "
        f"ack p50 {load.p50 * 1e3:.2f} ms, p99 {load.p99 * 1e3:.2f} ms, longest {load.longest * 1e3:.1f} ms; "
        f"{load.packets} packets in {load.seconds:.1f} s, {load.lost_connections} connections lost, "
        f"{load.wrong_acks} wrong acknowledgements, {load.cpu_seconds / max(1, load.packets) * 1e6:.1f} us CPU a packet"
    )


if __name__ == "__main__":
    sys.exit(main())
