"""A worker's connection, as the first process knows it: among all connections, and as the line of its device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.channel.intake import Intake
from gateway.channel.lines import Stranger
from gateway.errors import OutOfTurn
from gateway.store.event_codes import CloseCode
from gateway.store.items import Channel
from gateway.workers import wire


class RemoteConnection:
    """As a :class:`gateway.channel.connection.TrackerConnection` to the registry, to observers and to commands."""

    def __init__(
        self,
        number: int,
        opened: wire.Opened,
        intake: Intake,
        send: Callable[[wire.Message], None],
        now: Callable[[], float],
    ) -> None:
        self._number = number
        self._intake = intake
        self._send = send
        self._now = now
        self._is_closing = False
        self._is_command_out = False
        self._command = 0
        """The number of the last one."""
        self._line_id: int | None = None
        self.id = 0
        self.established = 0.0
        self.ident: str | None = None
        self.claimed: str | None = None
        self.key: tuple[int, str] | None = None
        self.peer = opened.peer
        self.host = opened.host
        self.transport_kind = opened.transport_kind
        self.seen = self.since = now()
        self.msgs = self.recv = self.send_bytes = 0

    @property
    def send(self) -> int:
        """Bytes that were sent to the tracker."""
        return self.send_bytes

    @property
    def channel(self) -> Channel:
        """The one that it came to, as it is now."""
        return self._intake.channel

    @property
    def duration(self) -> float:
        """Seconds since it began."""
        return self._now() - self.since

    def counted(self, counts: wire.Counted) -> None:
        """What its worker says of it."""
        self.seen = self._now() - counts.silence
        self.msgs, self.recv, self.send_bytes = counts.msgs, counts.recv, counts.send

    # -- for the registry of connections

    def close(self, why: str, code: CloseCode, *, is_routine: bool = False) -> None:
        """Have it closed; it ends when its worker says so."""
        self._close(why, code, is_routine, is_abort=False)

    def abort(self, why: str, code: CloseCode, *, is_routine: bool = False) -> None:
        """Have it closed at once."""
        self._close(why, code, is_routine, is_abort=True)

    def _close(self, why: str, code: CloseCode, is_routine: bool, is_abort: bool) -> None:
        if self._is_closing and not is_abort:
            return
        self._is_closing = True
        self._send(wire.Close(self._number, why, int(code), is_routine, is_abort))
        self.leave_line()

    def stop_taking(self) -> None:
        """What was taken is still acknowledged."""
        self._send(wire.StopTaking(self._number))

    def gate_changed(self, is_open: bool) -> None:
        """Its worker is told by itself."""
        if is_open:
            self.offer_line()

    def paused_fd(self) -> int | None:
        """Its worker looks after those that hung up."""
        return None

    def said(self) -> bytes:
        """What it sent and could not be used is known to its worker."""
        return b""

    # -- as a line

    @property
    def may_send_command(self) -> bool:
        """Whether a command can be given to the worker, which sends it as soon as the line is free."""
        return not self._is_closing and not self._is_command_out and self._intake.gate.is_open

    def send_command(self, payload: bytes, codec_id: int) -> None:
        """Have it sent. Raises OutOfTurn."""
        if not self.may_send_command:
            raise OutOfTurn("the connection is being closed, or a command is under way")
        self._is_command_out = True
        self._command += 1
        self._send(wire.Command(self._number, self._command, payload, codec_id))

    def abandon_command(self) -> None:
        """Its answer is not waited for any longer, or none is due."""
        self._is_command_out = False
        self._send(wire.Abandon(self._number))

    def take_line(self, ident: str) -> None:
        """It was let in as ``ident``."""
        self._line_id = self._intake.line_of(ident, self, Stranger(-self.id, ident, self._tell_model))

    def _tell_model(self) -> None:
        if self.ident is not None:
            self._send(wire.Model(self._number, self._intake.lines.model_of(self._intake.channel, self.ident)))

    def offer_line(self) -> None:
        """A command may go out now."""
        if self._line_id is not None:
            self._intake.lines.line_changed(self._line_id)

    def leave_line(self) -> None:
        """It is gone, or about to be."""
        line_id, self._line_id = self._line_id, None
        if line_id is not None:
            self._intake.lines.disconnected(line_id, self)

    def answered(self, number: int, payload: bytes, refusal: str) -> bool:
        """The tracker's response to a command; False: nobody waits for it.

        One that came when its command was given up, and the next one was on its way already, is none to that one.
        """
        if number != self._command:
            return False
        self._is_command_out = False
        return self._line_id is not None and self._intake.lines.answered(self._line_id, self, payload, refusal)

    def say(self, said: Any) -> None:
        """What nobody waited for becomes a message."""
        if self.ident is not None:
            self._intake.say(self.ident, self.peer, [said], lambda error: None)
