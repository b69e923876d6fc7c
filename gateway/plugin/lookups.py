"""Questions to a service that answers the same each time: cached, not too often, and not at all while it fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from attrs import frozen
from twisted.logger import Logger

from gateway import metrics
from gateway.errors import GatewayError, RemoteRefused, RemoteUnavailable
from gateway.plugin.cache import Cache
from gateway.plugin.rate import Rate

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

PAUSE = 5.0
"""Seconds without questions after the service could not be reached, or failed."""
PAUSE_REFUSED = 60.0
"""Seconds without questions after it said that we may not ask: a wrong key, nothing left to spend, too often."""
LOG_EACH = 1000
REFUSALS = frozenset({401, 402, 403, 429})


@frozen
class Bounds:
    """``most`` answers are kept for ``seconds``, those that there is nothing for ``nothing_seconds``; ``rate`` is
    questions a second, 0 for no bound."""

    most: int = 10_000
    seconds: float = 3600.0
    nothing_seconds: float = 60.0
    rate: float = 0.0


class NoTurn(Exception):
    """It would have taken too long until the question may be asked."""


@frozen
class _Found(Generic[V]):
    value: V | None


class Lookups(Generic[K, V]):
    """``ask`` gives the answer to a key, None where there is none; it raises RemoteError, PluginError.

    Who asks for a key while another one does gets the same answer.
    """

    def __init__(
        self,
        ask: Callable[[K], Awaitable[V | None]],
        bounds: Bounds = Bounds(),
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._bounds = bounds
        self.now = now
        self._cache: Cache[K, _Found[V]] = Cache(bounds.most, bounds.seconds, now=now)
        self._rate = Rate(bounds.rate, now=now)
        self._failure = ""
        self._paused_until = 0.0
        self._asking: dict[K, asyncio.Future[None]] = {}

    async def find(self, key: K, deadline: float) -> V | None:
        """The answer, if the question can be asked before ``deadline``, by the clock ``now``.

        Raises NoTurn where it cannot, and what ``ask`` raises: without asking while the service is left in peace.
        """
        while (found := self._cache.get(key)) is None:
            other = self._asking.get(key)
            if other is None:
                return await self._asked(key, deadline)
            if self.now() >= deadline:
                raise NoTurn
            await asyncio.wait([other], timeout=deadline - self.now())
        return found.value

    async def _asked(self, key: K, deadline: float) -> V | None:
        asking = self._asking[key] = asyncio.get_running_loop().create_future()
        try:
            self._check_pause()
            if not await self._rate.turn(deadline - self.now()):
                raise NoTurn
            self._check_pause()
            return await self._answer(key)
        finally:
            del self._asking[key]
            asking.set_result(None)

    async def _answer(self, key: K) -> V | None:
        try:
            value = await self._ask(key)
        except GatewayError as error:
            is_refused = isinstance(error, RemoteRefused) and error.status in REFUSALS
            self._failure = str(error)
            self._paused_until = self.now() + (PAUSE_REFUSED if is_refused else PAUSE)
            raise
        self._cache.put(key, _Found(value), self._bounds.nothing_seconds if value is None else None)
        return value

    def _check_pause(self) -> None:
        seconds = self._paused_until - self.now()
        if seconds > 0:
            raise RemoteUnavailable(f"{self._failure} (not asked again for {seconds:.0f} s)")


class Batch(Generic[K, V]):
    """The questions of one batch of messages, which have ``wait`` seconds for their turns.

    A message whose question cannot be asked in time goes on without an answer. So does one whose question fails, where
    another one has an answer; else :meth:`end` raises why it failed.
    """

    log = Logger()

    def __init__(self, lookups: Lookups[K, V], wait: float, type: str) -> None:
        self._lookups = lookups
        self._deadline = lookups.now() + wait
        self._type = type
        self._answers = self._missed = 0
        self._failure: GatewayError | None = None

    async def find(self, key: K) -> V | None:
        """The answer; None where there is none, or it cannot be had."""
        try:
            value = await self._lookups.find(key, self._deadline)
        except NoTurn:
            self._missed += 1
            return None
        except GatewayError as error:
            self._missed += 1
            self._failure = error
            return None
        self._answers += 1
        return value

    def end(self) -> None:
        """Count what has no answer. Raises RemoteError, PluginError."""
        if self._failure is not None and not self._answers:
            raise self._failure
        if not self._missed:
            return
        count = metrics.count("plugin_messages_passed_by", self._missed, type=self._type)
        if count == self._missed or count // LOG_EACH > (count - self._missed) // LOG_EACH:
            reason = self._failure or "more questions than may be asked"
            self.log.warn(
                "{type}: {n} messages without an answer until now: {reason}",
                type=self._type, n=count, reason=str(reason),
            )  # fmt: skip
