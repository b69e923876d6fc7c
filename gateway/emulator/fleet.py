"""Many trackers in one event loop: those of a scenario, or one worker's share of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from random import Random

import attrs

from gateway.emulator.capture import UDP, Captured, Replay
from gateway.emulator.commands import Commands
from gateway.emulator.device import DatagramDevice, Device
from gateway.emulator.endpoint import Dialer, Endpoint
from gateway.emulator.group import Group
from gateway.emulator.memory import Memory
from gateway.emulator.observers import Counting
from gateway.emulator.packets import CODECS, Datagrams, Wrap, body_limit, framed
from gateway.emulator.recorder import Burst, Recorder
from gateway.emulator.scenario import Scenario
from gateway.emulator.surroundings import End, Observer, Surroundings, Tap
from gateway.emulator.tally import Tally
from gateway.emulator.tracker import Pace, Tracker, Trip

Observe = Callable[[Tally], Observer]


class NeverConnected(Exception):
    """Nobody listens at the very first attempt to connect: the address is wrong, or the server is not there yet."""


@attrs.frozen
class Share:
    """Which devices are ours: every ``of``-th, beginning with number ``first``."""

    first: int = 0
    of: int = 1

    def has(self, number: int) -> bool:
        return number % self.of == self.first


class Fleet:
    """Trackers that run together. ``tallies`` has one for each group."""

    def __init__(self, tallies: list[Tally], trackers: list[tuple[Tracker, Tally]], dialer: Dialer) -> None:
        self.tallies = tallies
        self._trackers = trackers
        self._tally_of = {id(tracker): tally for tracker, tally in trackers}
        self._left = len(trackers)
        self._dialer = dialer
        self._starts: list[asyncio.TimerHandle] = []
        self._over: asyncio.Future[None] | None = None

    async def run(self, began: float, delays: Iterator[float], wait: bool = False) -> None:
        """Until every tracker is done. With ``wait`` a server that is not there at first is waited for.

        :param began: the event loop's time from which ``delays``, one for each tracker, are counted
        :raises NeverConnected: when nobody listens at the first attempts, without ``wait``
        """
        loop = asyncio.get_running_loop()
        self._over = loop.create_future()
        self._check_over()
        for (tracker, _), delay in zip(self._trackers, delays, strict=False):
            unreachable = (lambda reason: None) if wait else self._unreachable
            if delay:
                self._starts.append(loop.call_at(began + delay, tracker.start, self._ended, unreachable))
            else:
                tracker.start(self._ended, unreachable)
        try:
            await self._over
        finally:
            await self._close()

    def stop(self) -> None:
        """Record no more; what is left is still sent. Trackers that were not switched on yet never are."""
        for start in self._starts:
            start.cancel()
        for tracker, _ in self._trackers:
            if tracker.is_on:
                tracker.stop()
            elif not tracker.is_over:
                tracker.abandon()
                self._ended(tracker, End.DONE)

    async def _close(self) -> None:
        for start in self._starts:
            start.cancel()
        for tracker, _ in self._trackers:
            tracker.abandon()
        await self._dialer.close()
        await asyncio.sleep(0)  # transports close in the next turn

    def _ended(self, tracker: Tracker, end: End) -> None:
        self._tally_of[id(tracker)].finished += 1
        self._left -= 1
        self._check_over()

    def _check_over(self) -> None:
        if self._over is not None and not self._left and not self._over.done():
            self._over.set_result(None)

    def _unreachable(self, reason: str) -> None:
        """As long as no tracker has ever been connected."""
        assert self._over is not None
        if not self._over.done() and not any(tally.connections for tally in self.tallies):
            self._over.set_exception(NeverConnected(reason))


@attrs.frozen
class Plan:
    """Everything that it takes to build a fleet in the process where it runs.

    Where something was ``captured``, that is sent instead, with the timing and the faults of the first group.
    """

    scenario: Scenario
    endpoint: Callable[[str], Endpoint]  # of HOST:PORT
    observe: Observe = Counting
    tap: Tap | None = None
    share: Share = Share()
    captured: tuple[Captured, ...] = ()

    def fleet(self, began: float, now: float | None = None) -> tuple[Fleet, Iterator[float]]:
        """The fleet, and how long after ``began`` each of its trackers is switched on."""
        builder = _Builder(self, began, time.time() if now is None else now)
        if self.captured:
            return builder.replay(), repeat(0.0)
        return builder.fleet(), builder.delays()


class _Builder:
    def __init__(self, plan: Plan, began: float, now: float) -> None:
        self._plan = plan
        self._scenario = plan.scenario
        self._began = began
        self._now = now
        self._random = Random(f"{plan.scenario.seed}/{plan.share.first}")
        self._dialer = Dialer(self._random)

    def fleet(self) -> Fleet:
        tallies = [Tally(group.name) for group in self._scenario.groups]
        trackers: list[tuple[Tracker, Tally]] = []
        for group, tally in zip(self._scenario.groups, tallies, strict=True):
            around = self._around(group, tally)
            endpoint = self._plan.endpoint(group.to or self._scenario.to)
            for number in self._ours(group):
                trackers.append((self._tracker(group, number, tally, around, endpoint), tally))
                tally.devices += 1
        return Fleet(tallies, trackers, self._dialer)

    def replay(self) -> Fleet:
        group = self._scenario.groups[0]
        tally = Tally("replay")
        around = self._around(group, tally)
        endpoint = self._plan.endpoint(group.to or self._scenario.to)
        ours = [one for number, one in enumerate(self._plan.captured) if self._plan.share.has(number)]
        trackers = [(self._repeated(one, group, tally, around, endpoint), tally) for one in ours]
        tally.devices = len(trackers)
        return Fleet([tally], trackers, self._dialer)

    def _around(self, group: Group, tally: Tally) -> Surroundings:
        """A single tracker's rejection is the end of the run: there is somebody who looks at it."""
        is_fleet = sum(group.devices for group in self._scenario.groups) > 1
        return Surroundings(group.timing, group.faults, self._plan.observe(tally), self._plan.tap, is_fleet)

    def _repeated(
        self, captured: Captured, group: Group, tally: Tally, around: Surroundings, endpoint: Endpoint
    ) -> Tracker:
        is_udp = captured.transport == UDP
        device = (DatagramDevice if is_udp else Device)(captured.imei, Replay(captured.packets, tally))
        transport = UDP if is_udp else "tls" if group.transport == "tls" else captured.transport
        return Tracker(device, None, None, around, endpoint, transport, self._dialer, self._random)

    def delays(self) -> Iterator[float]:
        for group in self._scenario.groups:
            for number in self._ours(group):
                yield self._delay(group, number)

    def _ours(self, group: Group) -> list[int]:
        return [number for number in range(group.devices) if self._plan.share.has(number)]

    def _delay(self, group: Group, number: int) -> float:
        return group.spread * number / group.devices

    def _tracker(self, group: Group, number: int, tally: Tally, around: Surroundings, endpoint: Endpoint) -> Tracker:
        imei = group.ident(number)
        is_udp = group.transport == "udp"
        memory = _memory(group, tally, Datagrams(imei) if is_udp else framed)
        trip = self._trip(group, number, memory)
        commands = None if is_udp else Commands(imei, group, lambda: trip.newest)
        device = (DatagramDevice if is_udp else Device)(imei, memory)
        return Tracker(device, trip, commands, around, endpoint, group.transport, self._dialer, self._random)

    def _trip(self, group: Group, number: int, memory: Memory) -> Trip:
        scenario = self._scenario
        delay = self._delay(group, number)
        start = self._now + delay - self._ahead(group) if scenario.start is None else scenario.start
        pace = Pace(start, self._began + delay, scenario.speed_up)
        recorder = scenario.recorder(group, number, start)
        return Trip(_bursts(recorder), scenario.count, pace, memory, group.timing.send_period)

    def _ahead(self, group: Group) -> float:
        """How far fast records would get into the future; a drive without a beginning of its own begins so much ago."""
        if self._scenario.count is None:
            return 0.0
        return max(0.0, self._scenario.count * group.timing.period * (1 - 1 / self._scenario.speed_up))


def _memory(group: Group, tally: Tally, wrap: Wrap) -> Memory:
    timing = group.timing
    return Memory(
        CODECS[group.codec],
        tally,
        wrap,
        least=timing.records_per_packet,
        most=body_limit(group.model),
        backlog=timing.backlog,
        newest_first=timing.sort == "newest",
    )


def _bursts(recorder: Recorder) -> Iterator[Burst]:
    while True:
        yield recorder.next_burst()


__all__ = ["Fleet", "NeverConnected", "Plan", "Share"]
