"""Whether trackers' data can be taken just now.

Back-pressure ends at the tracker: while any reason holds the gate closed, connections stop reading and nothing is
acknowledged. The tracker's own memory is the last buffer.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from gateway import metrics


class Gate:
    """Open unless somebody gave a reason to close it. Subscribers learn of every change, in order of subscription."""

    log = Logger()

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._subscribers: dict[object, Callable[[bool], None]] = {}
        self.is_open = True

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is closed, readable; empty when it is open."""
        return tuple(self._reasons.values())

    def close(self, cause: str, reason: str) -> None:
        """Close it for ``cause`` (a fixed word); ``reason`` is for people. A second time changes nothing."""
        if cause in self._reasons:
            return
        self._reasons[cause] = reason
        metrics.count("gate_closed", cause=cause)
        self.log.warn("trackers are paused: {reason}", reason=reason)
        self._settle()

    def open(self, cause: str) -> None:
        """Take ``cause`` back; the gate opens when it was the last one."""
        if self._reasons.pop(cause, None) is None:
            return
        if not self._reasons:
            self.log.info("trackers go on: {cause} is over", cause=cause)
        self._settle()

    def subscribe(self, who: object, changed: Callable[[bool], None]) -> None:
        """Call ``changed(is_open)`` at every change, until :meth:`unsubscribe`."""
        self._subscribers[who] = changed

    def unsubscribe(self, who: object) -> None:
        """Forget ``who``; unknown ones are fine."""
        self._subscribers.pop(who, None)

    def _settle(self) -> None:
        is_open = not self._reasons
        if is_open == self.is_open:
            return
        self.is_open = is_open
        for changed in list(self._subscribers.values()):
            changed(is_open)
