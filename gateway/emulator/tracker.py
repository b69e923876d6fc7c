"""A tracker as a whole: a vehicle that drives, a device that remembers, and a link that comes and goes.

Everything here is a callback of the event loop; a tracker has no task of its own, and at most two timers.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from itertools import islice
from random import Random

import attrs

from gateway.emulator.commands import Commands
from gateway.emulator.device import Device
from gateway.emulator.endpoint import Dialer, Endpoint, plain
from gateway.emulator.link import Link
from gateway.emulator.memory import Memory
from gateway.emulator.recorder import Burst, Record
from gateway.emulator.surroundings import End, Surroundings


@attrs.frozen
class Pace:
    """How a tracker's time passes: ``speed_up`` of its seconds in a real one, infinity as fast as acknowledged.

    ``start`` is the first record's time in seconds since 1970, ``began`` the event loop's at that moment.
    """

    start: float
    began: float
    speed_up: float = 1.0

    @property
    def is_endless(self) -> bool:
        return math.isinf(self.speed_up)

    def due(self, at: float) -> float:
        """The event loop's time at which the tracker's clock shows ``at``."""
        return self.began + (at - self.start) / self.speed_up


class Trip:
    """The records of one device, each when it is due, into its memory.

    Once in ``send_period`` seconds of its time what waits is to be sent, however little; 0 is never.
    """

    __slots__ = (
        "_bursts", "_commands", "_flushed_at", "_left", "_memory", "_next", "_on_stored", "_pace", "_send_period",
        "_timer", "newest",
    )  # fmt: skip

    def __init__(
        self, bursts: Iterator[Burst], count: int | None, pace: Pace, memory: Memory, send_period: float = 0.0
    ) -> None:
        self._bursts = bursts
        self._left = math.inf if count is None else count
        self._pace = pace
        self._memory = memory
        self._send_period = send_period
        self._flushed_at = pace.start
        self._commands: Commands | None = None
        self._on_stored: Callable[[], None] = lambda: None
        self._timer: asyncio.TimerHandle | None = None
        self._next: Burst | None = None
        self.newest: Record | None = None

    def start(self, on_stored: Callable[[], None], commands: Commands | None = None) -> None:
        """Begin to record; ``on_stored`` is called after each time that something was."""
        self._on_stored, self._commands = on_stored, commands
        if self._pace.is_endless:
            self.fill()
        else:
            self._plan()

    def stop(self) -> None:
        """Record no more."""
        self._left = 0
        if self._timer is not None:
            self._timer.cancel()
        self._memory.finish()

    @property
    def goes_on(self) -> bool:
        """Whether time brings more records, with or without acknowledgements."""
        return math.isinf(self._left) or (self._left > 0 and not self._pace.is_endless)

    def fill(self) -> None:
        """Where time is as fast as the acknowledgements: record as much as the next packets need."""
        if not self._pace.is_endless or self._memory.is_due:
            return
        while self._left > 0 and not self._memory.is_due:
            self._store(next(self._bursts))
        if self._left <= 0:
            self._memory.finish()

    def _plan(self) -> None:
        self._next = next(self._bursts)
        self._timer = asyncio.get_running_loop().call_at(self._pace.due(self._next.at), self._record)

    def _record(self) -> None:
        assert self._next is not None
        self._store(self._next)
        if self._left > 0:
            self._plan()
        else:
            self.stop()
        self._on_stored()

    def _store(self, burst: Burst) -> None:
        if self._send_period and burst.at - self._flushed_at >= self._send_period:
            self._flushed_at = burst.at
            self._memory.flush()
        for record in islice(burst.records, None if math.isinf(self._left) else int(self._left)):
            self.newest = record if self._commands is None else self._commands.overlay(record)
            self._memory.store(self.newest)
            self._left -= 1


class Tracker:
    """Runs one device until all is acknowledged, or its ident is rejected for good: then ``on_over`` is called."""

    __slots__ = (
        "_around", "_backoff", "_commands", "_dialer", "_endpoint", "_link", "_on_over", "_on_unreachable", "_random",
        "_silent", "_timer", "_transport", "device", "is_over", "trip",
    )  # fmt: skip

    def __init__(
        self,
        device: Device,
        trip: Trip | None,
        commands: Commands | None,
        around: Surroundings,
        endpoint: Endpoint,
        transport: str,
        dialer: Dialer,
        random: Random,
    ) -> None:
        self.device = device
        self.trip = trip
        self.is_over = False
        self._commands = commands
        self._around = around
        self._endpoint = endpoint
        self._transport = transport
        self._dialer = dialer
        self._random = random
        self._backoff = 0.0
        self._link: Link | None = None
        self._silent: Link | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._on_over: Callable[[Tracker, End], None] | None = None
        self._on_unreachable: Callable[[str], None] = lambda reason: None

    def start(self, on_over: Callable[[Tracker, End], None], on_unreachable: Callable[[str], None]) -> None:
        """Switch it on. ``on_unreachable`` is called with the reason whenever nobody listens there."""
        self._on_over, self._on_unreachable = on_over, on_unreachable
        if self.trip is not None:
            self.trip.start(self._stored, self._commands)
        if not self._around.timing.open_link_timeout:
            self._connect()
        else:
            self._stored()

    def stop(self) -> None:
        """Record no more; what is left is still sent. One that was never switched on is over at once."""
        if self.trip is not None:
            self.trip.stop()
        self.device.source.finish()
        if self._timer is not None:  # no time to wait for the next attempt
            self._timer.cancel()
            self._timer, self._backoff = None, 0.0
        self._stored()
        if self._link is None and self.device.is_done:
            self._over(End.DONE)

    @property
    def is_on(self) -> bool:
        """Whether it was switched on, and is not over."""
        return self._on_over is not None and not self.is_over

    def abandon(self) -> None:
        """Let go of everything at once."""
        self.is_over = True
        if self.trip is not None:
            self.trip.stop()
        if self._timer is not None:
            self._timer.cancel()
        if self._link is not None:
            self._link.end(End.TROUBLE, "stopped")
        self._drop_silent()

    def _stored(self) -> None:
        if self.is_over:
            return
        if self._link is not None:
            self._link.send()
        elif self._timer is None and self.device.source.is_due:
            self._connect()

    def _connect(self) -> None:
        self._timer = None
        if self.is_over or self._link is not None:
            return
        if self.device.is_done:
            self._over(End.DONE)
            return
        self._link = Link(self.device, self._commands, self._around, self._random, self._ended, self._idle)
        self._dialer.dial(self._endpoint, self._transport, self._link, self._unreachable)

    def _unreachable(self, error: OSError) -> None:
        if self._link is not None:
            self._link.end(End.REFUSED, plain(error))

    def _idle(self) -> None:
        """The link waits for something to send."""
        if self.trip is not None:
            self.trip.fill()
            if self._link is not None and (self.device.source.is_due or self.device.is_done):
                self._link.send()

    def _ended(self, end: End, reason: str) -> None:
        link, self._link = self._link, None
        assert link is not None
        if link.was_accepted:
            self._around.observer.disconnected(self.device)
            self._backoff = 0.0
        if self.is_over:
            return
        if end is End.DONE or (end is End.REJECTED and not self._tries_after_rejection):
            self._over(end)
            return
        if end is End.REFUSED:
            self._on_unreachable(reason)
        if link.is_silent:
            self._drop_silent()
            self._silent = link
        if end is not End.IDLE:
            self._again(reason)
        elif self.device.source.is_due:
            self._connect()

    @property
    def _tries_after_rejection(self) -> bool:
        return self._around.tries_after_rejection and self.trip is not None and self.trip.goes_on

    def _again(self, reason: str) -> None:
        if self.is_over:
            return
        self._backoff = self._endpoint.next_backoff(self._backoff)
        delay = self._dialer.spread(self._backoff)
        self._around.observer.lost(self.device, reason, delay)
        self._timer = asyncio.get_running_loop().call_later(delay, self._connect)

    def _over(self, end: End) -> None:
        if self.is_over:
            return
        self.is_over = True
        if self.trip is not None:
            self.trip.stop()
        self._drop_silent()
        if self._on_over is not None:
            self._on_over(self, end)

    def _drop_silent(self) -> None:
        if self._silent is not None:
            self._silent.drop()
            self._silent = None
