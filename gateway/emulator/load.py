"""``--load``: prebuilt packets on many connections, to find out what a server takes, shown as any other run."""

from __future__ import annotations

import argparse
import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gateway.emulator.endpoint import parse_address, plain
from gateway.emulator.fleet import NeverConnected, Share
from gateway.emulator.storm import Load, LoginRejected, Trackers
from gateway.emulator.tally import Tally
from gateway.emulator.tape import SHAPES, Tape
from gateway.emulator.view import View

_PREPARED = 1000  # packets that are built before the first one is sent
_LONGEST = 0.5  # s: so soon a signal is heard


def run_load(options: argparse.Namespace, share: Share, view: View) -> Sequence[Tally]:
    """Run a share of the load to its end; what it did. Raises NeverConnected."""
    group = options.made.groups[0]
    numbers = [number for number in range(group.devices) if share.has(number)]
    tape = Tape(SHAPES[options.load])
    tape.prepare(_PREPARED)
    tally = Tally(options.load, devices=len(numbers))
    try:
        trackers = Trackers(parse_address(options.made.to), len(numbers), int(group.imei) + share.first, step=share.of)
    except LoginRejected:
        tally.rejected = len(numbers)
        return [tally]
    except OSError as error:
        raise NeverConnected(plain(error)) from error
    tally.connected = tally.connections = len(trackers)
    packets = math.inf if options.made.count is None else math.ceil(options.made.count * len(numbers) / tape.records)
    with view:
        seconds = _send(trackers, tape, tally, view, options, packets, share)
    trackers.close()
    view.summary([tally], seconds)
    return [tally]


def _send(
    trackers: Trackers,
    tape: Tape,
    tally: Tally,
    view: View,
    options: argparse.Namespace,
    packets: float,
    share: Share,
) -> float:
    """Until there is a reason to end; how long that took, in seconds."""
    rate = options.rate / share.of if options.rate else None
    until = options.duration or math.inf
    started = shown = time.monotonic()
    seconds = 0.0
    with _signals() as signals:
        while seconds < until and tally.packets < packets and len(trackers) and not signals:
            load = trackers.run(tape, min(_LONGEST, until - seconds), packets - tally.packets, rate)
            _count(tally, load, trackers, tape)
            seconds = time.monotonic() - started
            if time.monotonic() - shown >= view.period:
                shown = time.monotonic()
                view.update([tally], seconds)
    return seconds


def _count(tally: Tally, load: Load, trackers: Trackers, tape: Tape) -> None:
    acknowledged = load.records + load.late_records
    unanswered = (load.lost_connections + load.wrong_acks) * tape.records
    tally.acknowledged += acknowledged
    tally.recorded += acknowledged + unanswered
    tally.packets += (acknowledged + unanswered) // tape.records
    tally.bytes_sent += (acknowledged + unanswered) // tape.records * len(tape[0])
    tally.connected = len(trackers)
    for seconds in trackers.latencies:
        tally.latencies.add(seconds)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The signals that came and mean the end."""
    seen: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: seen.append(number))
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
