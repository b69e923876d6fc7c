"""One worker as the first process serves it: it answers what the worker asks, and stores what it brings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from twisted.logger import Logger

from gateway import metrics
from gateway.channel.channels import Channels
from gateway.channel.intake import Intake
from gateway.channel.observer import Decision, Observer
from gateway.errors import StoreError
from gateway.store.event_codes import CLOSE_REASONS, CloseCode
from gateway.store.item import encoded
from gateway.store.log import LogWriter
from gateway.workers import wire
from gateway.workers.remote import RemoteConnection

STAMP = b',"server.timestamp":%.6f}'
MICROSECONDS = 1_000_000
GONE = "its channel is no more"


def stamped(texts: bytes, first: int) -> bytes:
    """Messages, one a line, each with its ``server.timestamp``: ``first`` microseconds, and one more each."""
    lines = texts.split(b"\n")
    return b"\n".join(line[:-1] + STAMP % (at / MICROSECONDS) for at, line in enumerate(lines, first))


class Desk:
    """``send`` gives a message to the worker; ``write_line`` takes lines for the diagnostic log."""

    log = Logger()

    def __init__(
        self,
        number: int,
        channels: Channels,
        writer: LogWriter,
        observer: Observer,
        send: Callable[[wire.Message], None],
        write_line: Callable[[str], object],
    ) -> None:
        self.number = number
        self.is_ready = False
        self.is_heard = True
        """Whether anything came since this was made False."""
        self._channels = channels
        self._writer = writer
        self._observer = observer
        self._send = send
        self._write_line = write_line
        self._connections: dict[int, RemoteConnection] = {}
        self._takers: dict[type, Callable[[Any], None]] = {
            wire.Ready: self._ready,
            wire.Opened: self._opened,
            wire.Ask: self._asked,
            wire.Identified: self._identified,
            wire.Store: self._store,
            wire.Park: self._park,
            wire.Answered: self._answered,
            wire.Told: self._told,
            wire.Counted: self._counted,
            wire.Ended: self._ended,
            wire.Figures: self._figures,
            wire.Line: self._line,
            wire.NotListening: self._not_listening,
        }

    def take(self, message: wire.FromWorker) -> None:
        """What the worker says."""
        self.is_heard = True
        self._takers[type(message)](message)

    def close(self) -> None:
        """The worker is gone, and its connections with it."""
        for number in list(self._connections):
            self._ended(wire.Ended(number, int(CloseCode.INTERNAL_ERROR), "a worker process ended"))

    # -- connections

    def _ready(self, _: wire.Ready) -> None:
        self.is_ready = True

    def _opened(self, opened: wire.Opened) -> None:
        intake = self._channels.intake_of(opened.channel_id)
        if intake is None:
            self._send(wire.Close(opened.connection, GONE, int(CloseCode.CHANNEL_BLOCKED), True, True))
            return
        remote: Any = RemoteConnection(opened.connection, opened, intake, self._send, self._channels.now)
        if not self._channels.connections.add(remote):
            why = "limits.connections, or limits.connections_per_address, is reached"
            self._observer.turned_away(remote, why)
            self._send(wire.Close(opened.connection, why, int(CloseCode.CHANNEL_BLOCKED), True, True))
            return
        self._connections[opened.connection] = remote
        self._observer.accepted(remote)

    def _asked(self, ask: wire.Ask) -> None:
        intake = self._channels.intake_of(ask.channel_id)
        if intake is None:
            self._decided(ask, None, Decision(None, GONE, CloseCode.CHANNEL_BLOCKED))
        else:
            intake.decide(ask.ident, partial(self._decided, ask, intake))

    def _decided(self, ask: wire.Ask, intake: Intake | None, decision: Decision) -> None:
        device = intake.device_of(ask.ident) if intake is not None else None
        model = intake.lines.model_of(intake.channel, ask.ident) if intake is not None and device is None else None
        self._send(
            wire.Verdict(
                ask.question,
                decision.is_welcome,
                decision.reason,
                int(decision.code),
                decision.is_registered,
                encoded(device) if device is not None else b"",
                model,
            )
        )

    def _identified(self, identified: wire.Identified) -> None:
        remote: Any = self._connections.get(identified.connection)
        if remote is None:
            return
        remote.ident = remote.claimed = identified.ident
        remote.key = (remote.channel.protocol_id, identified.ident)
        self._channels.connections.identify(remote, remote.key)
        remote.take_line(identified.ident)

    def _answered(self, answered: wire.Answered) -> None:
        remote = self._connections.get(answered.connection)
        if remote is None:
            return
        if not remote.answered(answered.number, answered.payload, answered.refusal) and answered.said:
            remote.say(answered.said)

    def _counted(self, counts: wire.Counted) -> None:
        remote = self._connections.get(counts.connection)
        if remote is not None:
            remote.counted(counts)

    def _ended(self, ended: wire.Ended) -> None:
        remote: Any = self._connections.pop(ended.connection, None)
        if remote is not None:
            remote.leave_line()
            self._channels.connections.remove(remote)
            code = CloseCode(ended.code)
            self._observer.closed(remote, code, ended.why or CLOSE_REASONS[code])

    def _told(self, told: wire.Told) -> None:
        remote = self._connections.get(told.connection)
        if remote is None:
            return
        details = told.details
        if told.occasion in ("noted", "refused"):
            details = [*details[:-1], msgspec.convert(details[-1], Decision)]
            remote.claimed = details[0]
        getattr(self._observer, told.occasion)(remote, *details)

    # -- what is stored

    def _store(self, store: wire.Store) -> None:
        intake = self._channels.intake_of(store.channel_id)
        if intake is None:
            self._send(wire.Stored(store.job, GONE))
            return
        first = self._writer.reserve(store.channel_id, store.count)
        data = stamped(store.texts, first)
        self._writer.append(
            store.channel_id, first + store.count - 1, store.ident, data, partial(self._stored, store.job)
        )

    def _park(self, park: wire.Park) -> None:
        if self._channels.intake_of(park.channel_id) is None:
            self._send(wire.Stored(park.job, GONE))
            return
        self._writer.park(park.channel_id, park.ident, park.frame, partial(self._stored, park.job), park.reason)

    def _stored(self, job: int, error: StoreError | None) -> None:
        self._send(wire.Stored(job, str(error) or type(error).__name__ if error is not None else ""))

    # -- what is told

    def _figures(self, figures: wire.Figures) -> None:
        metrics.take(figures.counters, figures.histograms)

    def _line(self, line: wire.Line) -> None:
        self._write_line(line.text)

    def _not_listening(self, it: wire.NotListening) -> None:
        self.log.error("worker {number} does not listen: {reason}", number=self.number, reason=it.reason)
