"""A tracker on TCP or TLS.

The session decides what bytes mean; this protocol gives it bytes, asks for verdicts and commits, and writes what the
session gives back. It stops reading while the gate is closed, and when a tracker sends on while its packet is being
stored.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol as Interface

from twisted.python.failure import Failure

from gateway import metrics
from gateway.channel.commandable import UNASKED_MOST, CommandableConnection
from gateway.channel.intake import Intake
from gateway.channel.observer import SHOWN_BYTES, Decision
from gateway.channel.transport import keep_alive, kind_of, peer_of
from gateway.errors import ProtocolViolation, StoreError
from gateway.protocols.catalog import Normalizer
from gateway.protocols.teltonika.session import (
    NEED_DATA,
    PAUSED,
    Event,
    IdentReceived,
    PacketReceived,
    PacketRejected,
)
from gateway.store.event_codes import CloseCode

EVENTS_AT_ONCE = 8
LOG_FIRST, LOG_EVERY = 3, 1000


class Registry(Interface):
    """Who must know of each connection: :class:`gateway.channel.connections.Connections`."""

    def add(self, connection: TrackerConnection) -> bool: ...

    def remove(self, connection: TrackerConnection) -> None: ...

    def identify(self, connection: TrackerConnection, key: tuple[int, str]) -> None: ...

    def __contains__(self, connection: object) -> bool: ...


class TrackerConnection(CommandableConnection):
    """One connection, driven by what its session makes of its bytes."""

    def __init__(
        self,
        intake: Intake,
        connections: Registry,
        max_packet: int,
        now: Callable[[], float],
        later: Callable[[Callable[[], None]], object],
    ) -> None:
        """``later`` calls a function when others had their turn."""
        super().__init__(intake, intake.protocol.session(max_packet), now)
        self._later = later
        self._connections = connections
        self._normalizer: Normalizer | None = None
        self._is_advancing = False
        self._rejections = 0
        self._taken = 0.0

    # -- what Twisted calls

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.peer = peer_of(self.transport.getPeer())
        self.host = self.peer.rpartition(":")[0]
        self.transport_kind = kind_of(self.transport)
        keep_alive(self.transport)
        if not self._connections.add(self):
            self._is_closing = True
            self._intake.observer.turned_away(self, "limits.connections, or limits.connections_per_address, is reached")
            self.transport.abortConnection()  # type: ignore[attr-defined]
            return
        self._intake.observer.accepted(self)
        if not self._intake.gate.is_open:
            self._read(False)

    def dataReceived(self, data: bytes) -> None:
        self.seen = self._now()
        self.recv += len(data)
        self._session.receive_data(data)
        if self._intake.packets_ttl and self.ident is not None:
            self._intake.observer.received(self, data)
        if self._is_storing:
            self._read(False)
        else:
            self._advance()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._is_closing = True
        self._leave_line()
        if self in self._connections:
            self._connections.remove(self)
            self._intake.observer.closed(self, *self._ended(reason))

    # -- what channels call

    def gate_changed(self, is_open: bool) -> None:
        """Trackers' data can, or cannot, be taken."""
        if not is_open:
            self._read(False)
        elif not self._is_storing and not self._is_closing:
            self._read(True)
            self._advance()

    def said(self) -> bytes:
        """The beginning of what it sent and could not be used yet."""
        return self._session.unread()[:SHOWN_BYTES]

    def stop_taking(self) -> None:
        """Take nothing new; what is being stored is still acknowledged."""
        self._read(False)
        self._is_draining = True

    # -- the session's events

    def _advance(self) -> None:
        """Take events from the session until it needs bytes or an answer of ours."""
        self._is_advancing = True
        try:
            self._take_events()
        except ProtocolViolation as violation:
            self._violate(violation)
        finally:
            self._is_advancing = False

    def _take_events(self) -> None:
        """So many at most: frames that get no answer could otherwise keep everybody else waiting for seconds."""
        for _ in range(EVENTS_AT_ONCE):
            if self._is_closing or self._is_draining:
                return
            if not self._intake.gate.is_open or self._unasked >= UNASKED_MOST:
                self._read(False)
                return
            event = self._session.next_event()
            if event is NEED_DATA:
                self._read(True)
                self._offer_line()
                return
            if event is PAUSED:
                return
            self._react(event)
        self._read(False)
        self._later(self._go_on)

    def _go_on(self) -> None:
        if not self._is_storing and not self._is_closing and not self._is_advancing:
            self._advance()

    def _react(self, event: Event) -> None:
        if isinstance(event, PacketReceived):
            self._store(event)
        elif isinstance(event, IdentReceived):
            self._intake.decide(event.ident, partial(self._answer_ident, event))
        elif isinstance(event, PacketRejected):
            self._reject(event)
        else:
            self._hear(event)

    def _answer_ident(self, event: IdentReceived, decision: Decision) -> None:
        if self._is_closing:
            return
        self.claimed = event.ident
        self._intake.observer.noted(self, event.ident, decision)
        if decision.is_welcome:
            self._welcome(event)
        else:
            self._turn_away(event, decision)

    def _turn_away(self, event: IdentReceived, decision: Decision) -> None:
        verdict = b""
        if decision.is_welcome is False:
            metrics.count("idents_rejected", channel=self._intake.channel.name)
            verdict = self._session.reject_ident()
            self._write(verdict)
        self._intake.observer.refused(self, event.ident, event.login, verdict, decision)
        self.close(f"ident {event.ident} is not welcome: {decision.reason}", decision.code)

    def _welcome(self, event: IdentReceived) -> None:
        self.ident = event.ident
        self._know_model()
        verdict = self._session.accept_ident()
        self._write(verdict)
        self.log.info("{ident} is connected from {peer}", ident=event.ident, peer=self.peer)
        self.key = (self._intake.channel.protocol_id, event.ident)
        self._connections.identify(self, self.key)
        self._intake.observer.identified(self, event.login, verdict)
        self._take_line(event.ident)
        if self._intake.packets_ttl and self._session.buffered:
            self._intake.observer.received(self, self._session.unread(self._session.buffered))
        self._advance_later()

    def _know_model(self) -> None:
        assert self.ident is not None
        self._normalizer = self._intake.normalizer_for(self.ident)

    def _store(self, event: PacketReceived) -> None:
        assert self.ident is not None
        assert self._normalizer is not None
        self._is_storing = True
        self._taken = self.seen
        count = event.packet["count"]
        self._intake.submit(
            self.ident, self.peer, self._normalizer, event.packet, event.body, partial(self._committed, count, count)
        )

    def _reject(self, event: PacketRejected) -> None:
        name = self._intake.channel.name
        metrics.count("packets_rejected", channel=name, reason=event.reason)
        self._intake.observer.rejected(self, event.reason, event.frame, is_parked=not event.resend_helps)
        if event.resend_helps:
            self._rejections += 1
            if self._rejections <= LOG_FIRST or self._rejections % LOG_EVERY == 0:
                self.log.info(
                    "not acknowledged to {ident} on {channel}: {reason} ({n}. time)",
                    ident=self.ident, channel=name, reason=event.reason, n=self._rejections,
                )  # fmt: skip
            self._session.skip()
            return
        self._is_storing = True
        self._taken = self.seen
        assert self.ident is not None
        self._intake.park(self.ident, event.frame, event.reason, partial(self._committed, event.count, 0))

    def _committed(self, count: int, stored: int, error: StoreError | None) -> None:
        """``stored`` of the ``count`` records are messages now; none of them, where they were parked."""
        self._is_storing = False
        if self._is_closing:
            return
        if error is not None:
            self.close(f"a packet could not be stored: {error}", CloseCode.INTERNAL_ERROR)
            return
        answer = self._session.acknowledge(count)
        self._write(answer)
        self.msgs += stored
        metrics.observe("ack_seconds", self._now() - self._taken)
        if self._intake.packets_ttl:
            self._intake.observer.sent(self, answer)
        elif stored != count:
            self._intake.observer.answered(self, answer)
        self._advance_later()
        if self._is_line_wanted:
            self._offer_line()

    def _advance_later(self) -> None:
        """Go on with what is buffered; in the common case, nothing is, and the transport was never paused."""
        if not self._is_advancing and (self._session.buffered or not self._is_reading):
            self._advance()

    def _violate(self, violation: ProtocolViolation) -> None:
        metrics.count("violations", channel=self._intake.channel.name, reason=violation.reason)
        self._intake.observer.violated(self, str(violation), self._session.unread())
        self.close(str(violation), CloseCode.PROTOCOL_VIOLATION)
