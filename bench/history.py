"""Reading history over REST: what it costs, and what trackers notice of it.

100,000 messages of one device are registered as a tracker brings them, then read in one answer. Beside the CPU time:
that of a bare client of Redis that reads the same pages and throws them away; beside the memory that the gateway grows
by: the bytes of the answer. Then trackers send at a steady rate while ten clients read all of it again and again, and
while nobody does, in turns; what counts is the ratio.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from bench.history_clients import MESSAGES_OF_FIRST, Client
from bench.load import FIRST_IMEI, Trackers
from bench.processes import CpuMeter, Gateway, NotStarted, Watched, running, running_gateway
from bench.rows import Row, quantile
from gateway.emulator.tape import SHAPES, Tape

MESSAGES = 100_000
CLIENTS = 10
RATE = 1_500  # records/s, a fifth of what the gateway sustains up to MQTT
CONNECTIONS = 100
SECONDS = 2.0
ROUNDS = 8
BUDGET = 2.0  # CPU seconds that the whole answer may cost
_REGISTER_SECONDS = 120.0

ASKED: dict[str, dict[str, object]] = {
    "as stored": {},
    "fields": {"fields": "position.*,timestamp"},
    "filter": {"filter": "position.speed > 55"},
    "generalize": {"generalize": 60, "method": "average"},
}


def run() -> list[Row]:
    with running_gateway() as gateway:
        _register(gateway)
        return [*_cost(gateway), *_latency(gateway)]


def _register(gateway: Gateway) -> None:
    """Bring the messages by a tracker, and wait until they are registered."""
    records = SHAPES["pkt20"].records
    begin = int(time.time()) - 2 * MESSAGES
    tracker = Trackers(gateway.tracker_address, 1, FIRST_IMEI)
    tracker.run(Tape(SHAPES["pkt20"], begin_ms=begin * 1000), packets=MESSAGES // records)
    tracker.close()
    give_up = time.monotonic() + _REGISTER_SECONDS
    while _newest(Client(gateway.api_url, gateway.token)) < begin + MESSAGES - 1:
        if time.monotonic() > give_up:
            raise NotStarted(f"{MESSAGES} messages were not registered within {_REGISTER_SECONDS:.0f} s")
        time.sleep(0.5)
    gateway.process.until_idle(_REGISTER_SECONDS)  # what publishes the messages is done as well


def _newest(client: Client) -> float:
    """The timestamp of the last message of all devices; 0 without any."""
    answer = json.loads(b"".join(client.get("/gw/devices/all/messages", {"count": 1, "reverse": True})))
    return float(answer["result"][0]["timestamp"]) if answer["result"] else 0.0


def _cost(gateway: Gateway) -> Iterator[Row]:
    client = Client(gateway.api_url, gateway.token)
    client.size(MESSAGES_OF_FIRST, {"count": 1000})
    bare = _bare_client(gateway)
    for name, data in ASKED.items():
        with _watching_memory(gateway.process) as memory:
            meter = CpuMeter(gateway.watched())
            before = gateway.process.cpu_seconds
            started = time.perf_counter()
            size = client.size(MESSAGES_OF_FIRST, data)
            wall = time.perf_counter() - started
        cpu = gateway.process.cpu_seconds - before
        what = f"{MESSAGES:,} device messages, {name}"
        note = f"{size / 1e6:.0f} MB in {wall:.1f} s; at most {BUDGET:.0f} s as stored; {meter.note(MESSAGES)}"
        yield Row("history", f"{what}: CPU", cpu, "s", bare, "a bare client of Redis", note)
        yield Row("history", f"{what}: memory grown by", memory.growth / 2**20, "MiB", size / 2**20, "the answer")


def _bare_client(gateway: Gateway) -> float:
    """CPU seconds of reading the same pages from Redis, and nothing else."""
    [socket] = list(gateway.data_dir.rglob("*.sock"))
    client = redis.Redis(unix_socket_path=str(socket), protocol=2)
    started, low = time.process_time(), 0
    while True:
        page = client.execute_command(
            "ZRANGEBYSCORE", "gw:{s0}:device:1:messages", low, "+inf", "WITHSCORES", "LIMIT", 0, 250
        )
        if not page:
            break
        low = int(float(page[-1])) + 1
    client.close()
    return time.process_time() - started


class Memory:
    """The most that a process' memory grew by since the beginning."""

    def __init__(self, process: Watched) -> None:
        self._process = process
        self._before = process.resident_bytes
        self._is_over = threading.Event()
        self.growth = 0

    def watch(self) -> None:
        while not self._is_over.wait(0.02):
            self.growth = max(self.growth, self._process.resident_bytes - self._before)

    def end(self) -> None:
        self._is_over.set()


@contextmanager
def _watching_memory(process: Watched) -> Iterator[Memory]:
    memory = Memory(process)
    thread = threading.Thread(target=memory.watch)
    thread.start()
    try:
        yield memory
    finally:
        memory.end()
        thread.join()


def _latency(gateway: Gateway) -> Iterator[Row]:
    trackers = Trackers(gateway.tracker_address, CONNECTIONS, FIRST_IMEI + 1)
    tape = Tape(SHAPES["pkt10"])
    tape.prepare(500)
    trackers.run(tape, 1.0, rate=RATE)
    alone: list[float] = []
    beside: list[float] = []
    read = 0
    total = gateway.data_dir / "read"
    meter = CpuMeter(gateway.watched())
    with _reading(gateway, total) as clients:
        for _ in range(ROUNDS):
            with _paused(clients):
                gateway.process.until_idle(_REGISTER_SECONDS)
                alone += _latencies(trackers, tape)
            before = int(total.read_text())
            beside += _latencies(trackers, tape)
            read += int(total.read_text()) - before
    trackers.close()
    note = f"{read / ROUNDS / SECONDS / 1e6:.0f} MB/s read; {ROUNDS} times {SECONDS:.0f} s each, in turns"
    note += f"; {meter.note(len(alone + beside) * tape.records)}"
    for name, fraction in (("p50", 0.5), ("p99", 0.99)):
        what = f"{RATE:,} records/s, {CONNECTIONS} connections, {CLIENTS} clients read: ack {name}"
        values = quantile(beside, fraction) * 1e3, quantile(alone, fraction) * 1e3
        yield Row("history", what, values[0], "ms", values[1], "nobody reads", note)


def _latencies(trackers: Trackers, tape: Tape) -> list[float]:
    trackers.run(tape, SECONDS, rate=RATE)
    return list(trackers.latencies)


@contextmanager
def _reading(gateway: Gateway, total: Path) -> Iterator[Watched]:
    """Clients in a process of their own, for the one that measures latencies does nothing else. ``total`` has how many
    bytes they have read."""
    clients = [sys.executable, "-m", "bench.history_clients", gateway.api_url, gateway.token, str(CLIENTS), str(total)]
    with running(clients, "reading") as process:
        yield process


@contextmanager
def _paused(process: Watched) -> Iterator[None]:
    """It does nothing meanwhile; whoever writes to it has to wait."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)
