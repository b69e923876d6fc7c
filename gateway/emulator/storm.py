"""Trackers, many and cheap: N connections that send a prebuilt packet, wait for its acknowledgement, and send the next.

``epoll`` and bare sockets: an event loop's protocols and transports would cost more than the send and the receive
themselves. One process makes some 80,000 packets a second out of one core.
"""

from __future__ import annotations

import math
import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Sequence

import attrs

from gateway.emulator.tape import Tape
from gateway.protocols.teltonika.frame import build_acknowledgement, build_login, build_verdict

FIRST_IMEI = 350_000_000_000_000
LOT = 50  # logins at a time


class LoginRejected(ConnectionRefusedError):
    """A verdict that was not 01, or none."""


@attrs.frozen
class Load:
    """What was sent and acknowledged: times in seconds; ``cpu_seconds`` are this process' own.

    ``late_records`` were on their way when the time was over and were acknowledged then; ``records`` has none of them.
    """

    seconds: float
    packets: int
    records: int
    p50: float
    p99: float
    longest: float
    lost_connections: int
    wrong_acks: int
    cpu_seconds: float
    late_records: int

    @property
    def records_per_second(self) -> float:
        return self.records / self.seconds

    @property
    def packets_per_second(self) -> float:
        return self.packets / self.seconds


@attrs.define(eq=False)
class _Tracker:
    socket: socket.socket
    place: int = 0
    sent_at: float = 0.0


class Trackers:
    """``connections`` logged-in trackers; ``run`` makes them send.

    ``latencies`` has those of the last run, in seconds. Raises LoginRejected, and OSError where nobody listens.
    """

    def __init__(self, address: tuple[str, int], connections: int, first_imei: int = FIRST_IMEI, step: int = 1) -> None:
        imeis = range(first_imei, first_imei + connections * step, step)
        self._trackers = {one.fileno(): _Tracker(one) for one in _log_in(address, imeis)}
        self.latencies = array("d")

    def __len__(self) -> int:
        return len(self._trackers)

    def run(
        self, tape: Tape, seconds: float = float("inf"), packets: float = float("inf"), rate: float | None = None
    ) -> Load:
        """Send for ``seconds`` or until ``packets`` are acknowledged; ``rate`` (records/s) holds them back together."""
        run = _Run(self._trackers, tape, None if rate is None else rate / tape.records)
        self.latencies = run.latencies
        return run.until(seconds, packets)

    def close(self) -> None:
        for tracker in self._trackers.values():
            tracker.socket.close()


class _Run:
    """One go: each tracker is either waiting for its acknowledgement or, ``ready``, for its turn to send."""

    def __init__(self, trackers: dict[int, _Tracker], tape: Tape, rate: float | None) -> None:
        self._trackers = trackers
        self._tape = tape
        self._rate = rate
        self._ready = deque(trackers.values())
        self._sent = 0
        self.latencies = array("d")
        self._right_ack = build_acknowledgement(tape.records)
        self._wrong_acks = 0
        self._lost = 0
        self._poll = select.epoll()
        for descriptor in trackers:
            self._poll.register(descriptor, select.EPOLLIN)

    def until(self, seconds: float, packets: float) -> Load:
        started_cpu, started = time.process_time(), time.perf_counter()
        now = started
        while now - started < seconds and len(self.latencies) < packets and self._trackers:
            self._send_due(now - started, packets)
            self._receive()
            now = time.perf_counter()
        elapsed = now - started
        acknowledged, cpu = len(self.latencies), time.process_time() - started_cpu
        latencies = self.latencies[:]
        self._collect_last()
        self._poll.close()
        late = (len(self.latencies) - acknowledged) * self._tape.records
        ordered = sorted(latencies)
        p50, p99, longest = (_quantile(ordered, fraction) for fraction in (0.5, 0.99, 1.0))
        records = acknowledged * self._tape.records
        return Load(elapsed, acknowledged, records, p50, p99, longest, self._lost, self._wrong_acks, cpu, late)

    def _send_due(self, elapsed: float, packets: float) -> None:
        ready = self._ready
        due = len(ready) if self._rate is None else min(len(ready), int(elapsed * self._rate) + 1 - self._sent)
        for _ in range(int(min(due, packets - self._sent))):
            self._send(ready.popleft())

    def _send(self, tracker: _Tracker) -> None:
        packet = self._tape[tracker.place]
        tracker.place += 1
        self._sent += 1
        tracker.sent_at = time.perf_counter()
        try:
            tracker.socket.send(packet)
        except OSError:
            self._lose(tracker)

    def _receive(self, timeout: float = 0.001) -> None:
        """Take the acknowledgements that came; a tracker that is unthrottled sends its next packet when ``ready``."""
        trackers, ready, latencies, right = self._trackers, self._ready, self.latencies, self._right_ack
        for descriptor, _ in self._poll.poll(timeout, 256):
            tracker = trackers[descriptor]
            try:
                ack = tracker.socket.recv(64)
            except OSError:
                ack = b""
            if ack == right:
                latencies.append(time.perf_counter() - tracker.sent_at)
                ready.append(tracker)
            elif ack:
                self._wrong_acks += 1
                ready.append(tracker)
            else:
                self._lose(tracker)

    def _collect_last(self) -> None:
        """Wait for what is still on its way, so that a later run does not take it for its own; not counted."""
        give_up = time.perf_counter() + 10
        while len(self._ready) < len(self._trackers) and time.perf_counter() < give_up:
            self._receive(0.1)

    def _lose(self, tracker: _Tracker) -> None:
        self._lost += 1
        self._poll.unregister(tracker.socket.fileno())
        del self._trackers[tracker.socket.fileno()]
        tracker.socket.close()


def _quantile(ordered: list[float], fraction: float) -> float:
    """The nearest rank; 0 where there is nothing."""
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)] if ordered else 0.0


def _log_in(address: tuple[str, int], imeis: Sequence[int]) -> list[socket.socket]:
    """Connected sockets whose login was accepted; in lots, so that no server's backlog of connections overflows."""
    accepted: list[socket.socket] = []
    for begin in range(0, len(imeis), LOT):
        lot = [(socket.create_connection(address, timeout=20), imei) for imei in imeis[begin : begin + LOT]]
        for one, imei in lot:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.sendall(build_login(f"{imei:015d}"))
        for one, _ in lot:
            if one.recv(1) != build_verdict(True):
                raise LoginRejected("the login was not accepted")
        accepted += [one for one, _ in lot]
    return accepted
