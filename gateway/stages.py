"""The ordered service container: stages start one after the other, and stop in reverse order, one after the other.

Twisted's ``MultiService`` stops all its children at once and swallows what they raise; here a stage that cannot start
ends the process with status 1 and one line that says why, and the store outlives those who write to it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway import aio
from gateway.errors import GatewayError

CANCEL_AGAIN = 0.5
STOP_MOST = 45.0
"""Seconds that one stage may take to stop before the next one is stopped nevertheless."""


class Stage(Protocol):
    """One part of the gateway. ``start`` raises GatewayError where it cannot."""

    name: str

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Background:
    """Coroutines that run for as long as a stage; one that ends by itself is a bug, and ``failed`` is told."""

    def __init__(self, failed: Callable[[str, BaseException | None], None]) -> None:
        self._failed = failed
        self._may_end = False
        self._tasks: list[asyncio.Task[None]] = []

    def run(self, what: str, coroutine: Coroutine[Any, Any, None]) -> None:
        """Start it."""
        task = asyncio.ensure_future(coroutine)
        task.add_done_callback(lambda done: self._ended(what, done))
        self._tasks.append(task)

    def _ended(self, what: str, task: asyncio.Task[None]) -> None:
        if task in self._tasks and not task.cancelled() and not self._may_end:
            self._failed(what, task.exception())

    def let_end(self) -> None:
        """The stage is stopping: a coroutine that ends by itself now does what it should."""
        self._may_end = True

    async def cancel(self) -> None:
        """End them all, the latest first.

        ``asyncio.wait_for``, through which redis-py sends, can swallow a cancellation on Python 3.11: hence once more.
        """
        while self._tasks:
            task = self._tasks.pop()
            while not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=CANCEL_AGAIN)


class Stages(Service):
    """Runs stages as one Twisted service.

    ``assemble`` makes them, once the reactor runs and twistd has dropped its privileges: what they create belongs to
    the user who runs them. It gives the stages in order, and what to call when all of them have started.
    """

    log = Logger()

    def __init__(
        self,
        assemble: Callable[[], tuple[Sequence[Stage], Callable[[], None]]],
        reactor: Any,
        reopen_log: Callable[[], None] | None = None,
    ) -> None:
        self._assemble = assemble
        self._reactor = reactor
        self._reopen_log = reopen_log
        self._started: list[Stage] = []
        self._starting: asyncio.Task[None] | None = None

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._reactor.callWhenRunning(self._begin)

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return aio.as_deferred(self._stop())

    def fail(self, reason: str, error: BaseException | None = None) -> None:
        """The gateway cannot go on: say why, stop in order, exit with status 1."""
        if error is not None and not isinstance(error, GatewayError):
            self.log.failure("{reason}", Failure(error), reason=reason)
        self.log.critical("{reason}", reason=reason)
        exit_with(1)
        stop(self._reactor)

    def _begin(self) -> None:
        stop_on_signals(self._reactor)
        if self._reopen_log is not None:
            reopen_on_signals(self._reactor, self._reopen_log)
        self._starting = asyncio.ensure_future(self._start())

    async def _start(self) -> None:
        part = "the gateway"
        try:
            stages, ready = self._assemble()
            for stage in stages:
                part = stage.name
                self._started.append(stage)
                await stage.start()
        except Exception as error:
            self.fail(str(error) if isinstance(error, GatewayError) else f"{part} cannot start: {error!r}", error)
            return
        ready()

    async def _stop(self) -> None:
        self.log.info("stopping")
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        while self._started:
            stage = self._started.pop()
            try:
                async with asyncio.timeout(STOP_MOST):
                    await stage.stop()
            except Exception as error:
                self.log.failure("{stage} did not stop in order", Failure(error), stage=stage.name)


def stop_on_signals(reactor: Any) -> None:
    """SIGTERM, Ctrl-C and a closed terminal stop the reactor; twistd itself would die by the signal once more."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: reactor.callFromThread(stop, reactor))


def reopen_on_signals(reactor: Any, reopen: Callable[[], None]) -> None:
    """SIGHUP and SIGUSR1 open the log file again: what logrotate sends."""
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda _number, _frame: reactor.callFromThread(reopen))


def stop(reactor: Any) -> None:
    """Stop it, unless it is stopping already."""
    with contextlib.suppress(ReactorNotRunning):
        reactor.stop()


def exit_with(status: int) -> None:
    """End the process with ``status`` once twistd has cleaned up; twistd has no such thing."""

    def leave() -> None:
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream is not None:
                stream.flush()
        os._exit(status)

    atexit.register(leave)
