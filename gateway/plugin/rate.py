"""Not more often than so many times a second, in turn, with a bound on how long anybody waits for that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Rate:
    """``per_second`` turns, evenly; 0: as many as are asked for. ``now`` gives seconds that only rise."""

    def __init__(self, per_second: float, *, now: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._now = now
        self._next = 0.0

    async def turn(self, seconds: float) -> bool:
        """Wait for a turn. False at once where it would come later than in ``seconds``: so few wait at any time."""
        now = self._now()
        wait = max(0.0, self._next - now)
        if wait > seconds:
            return False
        self._next = now + wait + self._interval
        if wait:
            await asyncio.sleep(wait)
        return True
