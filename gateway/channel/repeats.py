"""Failures that come again and again from outside: all are counted, few are told."""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import define, field

TOLD_EVERY = 10.0
"""Seconds between two lines about the same kind of failure."""
KINDS_MOST = 50


@define
class Repeats:
    """When to log the next one. ``now`` never jumps."""

    now: Callable[[], float] = time.monotonic
    _last: dict[str, float] = field(factory=dict, init=False)
    _untold: dict[str, int] = field(factory=dict, init=False)

    def tell(self, kind: str) -> str | None:
        """What to add to the line: nothing, or how many came untold since the last one; None: log no line."""
        now = self.now()
        if kind not in self._last and len(self._last) >= KINDS_MOST:
            return None
        if now - self._last.get(kind, -TOLD_EVERY) < TOLD_EVERY:
            self._untold[kind] = self._untold.get(kind, 0) + 1
            return None
        self._last[kind] = now
        untold = self._untold.pop(kind, 0)
        return f" ({untold} more like it since the last such line)" if untold else ""
