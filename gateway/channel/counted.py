"""A connection as the registry of connections and observers see it: who it is, what passed, reading and closing.

What its bytes mean is the matter of :mod:`gateway.channel.connection`.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway import metrics
from gateway.channel.transport import socket_of
from gateway.store.event_codes import CLOSE_REASONS, CloseCode
from gateway.store.items import Channel


class CountedConnection(Protocol):
    """``seen`` is the time of its last byte, for those who look for silent ones; ``host`` the address that it came
    from, told by the proxy where there is one. ``claimed`` is who it says it is, ``ident`` the same once it was let
    in. ``msgs`` counts messages that were stored, ``recv`` and ``send`` bytes.
    """

    log = Logger()

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._is_reading = True
        self._is_closing = False
        self._ending: tuple[CloseCode, str] | None = None
        self.id = 0
        self.established = 0.0
        self.ident: str | None = None
        self.claimed: str | None = None
        self.key: tuple[int, str] | None = None
        self.peer = ""
        self.host = ""
        self.transport_kind = "tcp"
        self.seen = self.since = now()
        self.msgs = self.recv = self.send = 0

    @property
    def channel(self) -> Channel:
        """The one that it came to, as it is now."""
        raise NotImplementedError

    @property
    def duration(self) -> float:
        """Seconds since it began."""
        return self._now() - self.since

    def close(self, why: str, code: CloseCode, *, is_routine: bool = False) -> None:
        """Send what was answered, then close. Records under way are still stored, and sent again by the tracker.

        ``is_routine``: not worth a line in the log; at a stop each of 20,000 connections would write one.
        """
        if self._is_closing:
            return
        self._is_closing = True
        self._ending = code, why
        assert self.transport is not None
        metrics.count("connections_closed", channel=self.channel.name, reason=CLOSE_REASONS[code])
        tell = self.log.debug if is_routine else self.log.info
        tell("closed {peer} ({ident}): {why}", peer=self.peer, ident=self.ident or "no ident", why=why)
        self.transport.loseConnection()

    def abort(self, why: str, code: CloseCode, *, is_routine: bool = False) -> None:
        """Close at once; for peers that are gone."""
        self.close(why, code, is_routine=is_routine)
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]

    def paused_fd(self) -> int | None:
        """The socket, where nobody reads from it just now."""
        if self._is_reading or self._is_closing:
            return None
        handle = socket_of(self.transport)
        return handle.fileno() if handle is not None else None

    def _ended(self, reason: Failure) -> tuple[CloseCode, str]:
        """Why it ended: ours, where it was we who closed."""
        if self._ending is not None:
            return self._ending
        if reason.check(ConnectionDone):
            return CloseCode.BY_DEVICE, ""
        return CloseCode.UNEXPECTED, str(reason.value)

    def _write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)
        self.send += len(data)

    def _read(self, is_reading: bool) -> None:
        if is_reading == self._is_reading or self._is_closing:
            return
        self._is_reading = is_reading
        assert self.transport is not None
        if is_reading:
            self.transport.resumeProducing()  # type: ignore[attr-defined]
        else:
            self.transport.pauseProducing()  # type: ignore[attr-defined]
