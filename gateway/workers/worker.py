"""A worker: what the first process says is done, and its figures and its log go there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.logger import Logger

from gateway import metrics
from gateway.channel.connection import TrackerConnection
from gateway.channel.connections import Limits
from gateway.store.event_codes import CloseCode
from gateway.store.gate import Gate
from gateway.workers import wire
from gateway.workers.front import FrontChannels
from gateway.workers.pipe import Pipe

REPORT_EVERY = 1.0
"""Seconds between two reports of figures and connections."""
FIRST = "first process"
"""The cause for which the gate is closed when the first process has closed its own."""


class Worker:
    """``set_up`` is given what the first message says; ``end`` ends the process."""

    log = Logger()

    def __init__(self, reactor: Any, set_up: Callable[[wire.Setup], None], end: Callable[[], None]) -> None:
        self.pipe: Pipe[wire.ToWorker] = Pipe(wire.to_worker, self._take, self._lost)
        self._reactor = reactor
        self._set_up = set_up
        self._end = end
        self._gate = Gate()
        self._channels: FrontChannels | None = None
        self._figures = FiguresOf()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_ending = False

    def _take(self, message: wire.ToWorker) -> None:
        if isinstance(message, wire.Setup):
            self._begin(message)
            return
        channels = self._channels
        assert channels is not None, "Setup comes first"
        if isinstance(message, wire.Stored):
            channels.writer.stored(message)
        elif isinstance(message, wire.Verdict):
            channels.doorkeeper.answered(message)
        elif isinstance(message, wire.Gate):
            self._gate_said(message)
        elif isinstance(message, wire.Listen):
            self._run(channels.apply(message))
        elif isinstance(message, wire.Stop):
            self._run(self._stop(channels, message.seconds))
        else:
            self._of_connection(channels, message)

    def _begin(self, setup: wire.Setup) -> None:
        self._set_up(setup)
        limits = msgspec.convert(setup.limits, Limits, strict=False)
        self._channels = FrontChannels(self._reactor, self.pipe.send, self._gate, limits)
        self._run(self._channels.sweep_forever())
        self._run(self._report_forever())
        self.pipe.send(wire.Ready())

    def _gate_said(self, said: wire.Gate) -> None:
        if said.is_open:
            self._gate.open(FIRST)
        else:
            self._gate.close(FIRST, said.reason)

    def _of_connection(
        self, channels: FrontChannels, message: wire.Close | wire.StopTaking | wire.Command | wire.Abandon | wire.Model
    ) -> None:
        connection: TrackerConnection | None = channels.connections.find(message.connection)
        if connection is None:
            return
        if isinstance(message, wire.Close):
            close = connection.abort if message.is_abort else connection.close
            close(message.why, CloseCode(message.code), is_routine=message.is_routine)
        elif isinstance(message, wire.StopTaking):
            connection.stop_taking()
        elif isinstance(message, wire.Command):
            channels.lines.command(connection, message)
        elif isinstance(message, wire.Abandon):
            channels.lines.abandon(connection)
        else:
            channels.lines.model(connection, message.model)

    async def _report_forever(self) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY)
            self._report()

    def _report(self) -> None:
        if self._channels is not None:
            self._channels.fronts.report_all()
        self.pipe.send(self._figures.grown())

    async def _stop(self, channels: FrontChannels, seconds: float) -> None:
        self._is_ending = True
        await channels.stop(seconds)
        self._report()
        self.pipe.close()

    def _lost(self) -> None:
        """Without the first process there is nothing that a tracker could be told."""
        self._end()

    def _run(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(self._logged(coroutine))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _logged(self, coroutine: Any) -> None:
        try:
            await coroutine
        except Exception:
            self.log.failure("a worker process")


COUNTED_BY_FIRST = frozenset({"connections_accepted"})
"""The first process has every connection among its own, too."""


class FiguresOf:
    """What the counters and histograms of this process grew by, but for what the first process counts itself."""

    def __init__(self) -> None:
        self._counted: dict[Any, int] = {}
        self._observed: dict[Any, tuple[list[int], float]] = {}

    def grown(self) -> wire.Figures:
        """Since this was asked last."""
        counters = []
        for name, labels, n in metrics.counters():
            more = n - self._counted.get((name, labels), 0)
            if more and name not in COUNTED_BY_FIRST and ("cause", FIRST) not in labels:
                self._counted[name, labels] = n
                counters.append((name, list(labels), more))
        histograms = []
        for name, labels, histogram in metrics.histograms():
            buckets, total = self._observed.get((name, labels), ([0] * len(histogram.buckets), 0.0))
            grown = [new - old for new, old in zip(histogram.buckets, buckets, strict=True)]
            if any(grown):
                self._observed[name, labels] = list(histogram.buckets), histogram.sum
                histograms.append((name, list(labels), grown, histogram.sum - total))
        return wire.Figures(counters, histograms)
