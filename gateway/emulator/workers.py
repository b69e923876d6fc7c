"""Several processes for one scenario: each has its share of the trackers and tells what they do, one adds up and shows.

Python runs one thread of code at a time; a server that takes more than one process can send needs several.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

import attrs

from gateway.emulator.fleet import NeverConnected, Share
from gateway.emulator.tally import Tally, merged
from gateway.emulator.view import Quiet, View
from gateway.errors import ConfigError

Work = Callable[[argparse.Namespace, Share, View], Sequence[Tally]]
"""Runs a share of the trackers; the view hears of it. Raises NeverConnected and ConfigError."""


class WorkerFailed(Exception):
    """A process ended as none should; it has told why on standard error."""


class _Reporting(Quiet):
    """A worker's view: whoever looks sits at the other end of the pipe."""

    period = 0.25

    def __init__(self, pipe: Connection) -> None:
        super().__init__()
        self._pipe = pipe

    def update(self, tallies: Sequence[Tally], seconds: float) -> None:
        self._pipe.send(list(tallies))

    summary = update


@attrs.define
class _Worker:
    process: Any
    pipe: Connection
    tallies: list[Tally] = attrs.field(factory=list)


def run_workers(work: Work, options: argparse.Namespace, view: View) -> list[Tally]:
    """Run ``options.processes`` of them to their end; the tallies of all, group by group.

    :raises NeverConnected: when one of them found nobody at its first attempt
    :raises ConfigError: when one of them could not be built
    :raises WorkerFailed: when one of them crashed or was killed
    """
    started = time.monotonic()
    workers = [_start(work, options, Share(number, options.processes)) for number in range(options.processes)]
    try:
        with _signals_go_to(workers), view:
            while _hear(workers, view.period):
                view.update(_all(workers), time.monotonic() - started)
            for worker in workers:
                worker.process.join()
            _check(workers)
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
    tallies = _all(workers)
    view.summary(tallies, time.monotonic() - started)
    return tallies


def _start(work: Work, options: argparse.Namespace, share: Share) -> _Worker:
    """Spawned, not forked: nothing of this process' event loop or screen goes along."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(work, options, share, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _serve(work: Work, options: argparse.Namespace, share: Share, pipe: Connection) -> None:
    """What a worker does. Ctrl-C at a terminal reaches every process of it; only the first one listens to that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        work(options, share, _Reporting(pipe))
    except (NeverConnected, ConfigError) as error:
        pipe.send(error)
    except BrokenPipeError:
        sys.exit(1)  # the first process is gone
    pipe.close()


def _hear(workers: list[_Worker], seconds: float) -> bool:
    """Take what the workers tell, for so long; whether there is more to come."""
    give_up = time.monotonic() + seconds
    while open_ := [worker for worker in workers if not worker.pipe.closed]:
        ready = wait([worker.pipe for worker in open_], max(0.0, give_up - time.monotonic()))
        if not ready:
            return True
        for worker in open_:
            if worker.pipe in ready:
                _take(worker)
    return False


def _take(worker: _Worker) -> None:
    try:
        told = worker.pipe.recv()
    except EOFError:
        worker.pipe.close()
        return
    if isinstance(told, Exception):
        raise told
    worker.tallies = told


def _check(workers: list[_Worker]) -> None:
    statuses = [worker.process.exitcode for worker in workers]
    if any(statuses):
        raise WorkerFailed(
            f"{sum(map(bool, statuses))} of {len(workers)} processes failed (exit status {max(statuses)})"
        )


def _all(workers: list[_Worker]) -> list[Tally]:
    """Each group's tallies added up over the workers."""
    groups = zip(*(worker.tallies for worker in workers if worker.tallies), strict=True)
    return [merged(list(tallies), tallies[0].name) for tallies in groups]


@contextmanager
def _signals_go_to(workers: list[_Worker]) -> Iterator[None]:
    def pass_on(number: int, frame: object) -> None:
        for worker in workers:
            if worker.process.is_alive():
                os.kill(worker.process.pid, signal.SIGTERM)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
