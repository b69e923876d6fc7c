"""The line of a connection's device: commands go out on it, answers and what is said unasked come in.

When packets come, are stored and acknowledged is the matter of :mod:`gateway.channel.connection`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway import metrics
from gateway.channel.counted import CountedConnection
from gateway.channel.intake import Intake
from gateway.channel.lines import Stranger
from gateway.errors import OutOfTurn, StoreError
from gateway.protocols.teltonika.session import CommandAnswered, CommandReceived, Session
from gateway.store.event_codes import CloseCode
from gateway.store.items import Channel

UNASKED_MOST = 200
"""Messages of what a tracker said unasked that wait for storage, until no more is read."""


class CommandableConnection(CountedConnection):
    """A :class:`gateway.channel.lines.Link` to the device that it was let in as, or to a stranger that is asked."""

    def __init__(self, intake: Intake, session: Session, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._intake = intake
        self._session = session
        self._is_storing = False
        self._is_draining = False
        self._unasked = 0
        self._line_id: int | None = None
        """The device's id; below 0: a stranger's."""
        self._is_line_wanted = False

    @property
    def channel(self) -> Channel:
        """The one that it came to, as it is now."""
        return self._intake.channel

    @property
    def may_send_command(self) -> bool:
        """Whether a command can go out just now; if not, the line is told of as soon as one can."""
        is_taking = not (self._is_closing or self._is_draining or self._is_storing) and self._intake.gate.is_open
        may_send = is_taking and self._session.may_send_command
        self._is_line_wanted = not may_send
        return may_send

    def send_command(self, payload: bytes, codec_id: int) -> None:
        """Send it. Raises OutOfTurn where that cannot be, EncodeError."""
        if self._is_closing:
            raise OutOfTurn("the connection is being closed")
        frame = self._session.send_command(payload, codec_id)
        self._write(frame)
        if self._intake.packets_ttl:
            self._intake.observer.sent(self, frame)

    def abandon_command(self) -> None:
        """Its answer is not waited for any longer, or none is due. Raises OutOfTurn."""
        self._session.abandon_command()

    def close(self, why: str, code: CloseCode, *, is_routine: bool = False) -> None:
        super().close(why, code, is_routine=is_routine)
        self._leave_line()

    # -- what comes in

    def _hear(self, event: CommandReceived | CommandAnswered) -> None:
        """An answer goes to whoever waits for it; what nobody waits for is a message."""
        metrics.count("command_responses", channel=self._intake.channel.name)
        is_awaited = (
            isinstance(event, CommandAnswered)
            and self._line_id is not None
            and self._intake.lines.answered(self._line_id, self, event.payload, event.refusal)
        )
        if not is_awaited:
            self._tell(event.message)

    def _tell(self, said: Mapping[str, Any]) -> None:
        assert self.ident is not None
        self._unasked += 1
        self._intake.say(self.ident, self.peer, [said], self._told)

    def _told(self, error: StoreError | None) -> None:
        """It is a message now, or lost: a tracker says it once."""
        self._unasked -= 1
        if error is None:
            self.msgs += 1
        elif not self._is_closing:
            self.log.info("what {ident} said unasked is lost: {error}", ident=self.ident, error=str(error))
        if not self._is_reading and self._unasked < UNASKED_MOST:
            self._go_on()

    def _go_on(self) -> None:
        """Take what is buffered, if that can be done just now."""
        raise NotImplementedError

    def _know_model(self) -> None:
        """What comes from now on means what the tracker's model says that it means."""
        raise NotImplementedError

    # -- the line of the device

    def _take_line(self, ident: str) -> None:
        self._line_id = self._intake.line_of(ident, self, Stranger(-self.id, ident, self._know_model))

    def _offer_line(self) -> None:
        """A command may go out now, where one was wanted before and could not."""
        if self._is_line_wanted and self._line_id is not None and not self._is_storing:
            self._is_line_wanted = False
            self._intake.lines.line_changed(self._line_id)

    def _leave_line(self) -> None:
        line_id, self._line_id = self._line_id, None
        if line_id is not None:
            self._intake.lines.disconnected(line_id, self)
