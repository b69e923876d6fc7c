"""One tracker on one TCP connection, as a state machine without I/O, clock or storage.

Who sends what, and when (Teltonika wiki, page Codec)::

    tracker                                     server
    FF                                  ->                          ping; anywhere between the others, no answer
    length 2 | IMEI                     ->                          login, once, first
                                        <-      01 or 00            verdict: 1 byte; after 00 the server closes
    00000000 | length 4 | body | CRC 4  ->                          frame with records: Codec 8, 8 Extended, 16
                                        <-      count 4             acknowledgement: the number of records accepted
    frame of Codec 12, 13, 14, 15       ->                          response to a command, serial data: no answer
                                        <-      frame of 12, 14     command, one at a time, see exchange.py

The tracker sends its next frame after the acknowledgement, and the same one again when none comes in time. It reads its
answers byte by byte and never resynchronizes: one byte too many and it misreads every later one. Hence the methods
*return* the bytes to send, and whoever drives the session decides when: after storage has committed. For the same
reason no command goes out while a packet waits for its acknowledgement, which the command's zeros would be taken for.

Three kinds of failure, three reactions:

* not enough bytes: ``NEED_DATA``;
* a frame that is delimited but bad: ``PacketRejected``, and the next frame is read as if nothing had been. With a wrong
  CRC sending it again helps, so it is not answered. With a good one the tracker would send the same bytes for ever:
  they are to be kept and acknowledged with the count that they declare;
* bytes that delimit nothing: ``ProtocolViolation``, now and at each later call.

A body of Codec 12 to 15 is never answered, decodable or not; nor is an empty one, which declares no count. A packet
of no records is a packet: acknowledged, with 0. A command frame of no messages (some firmware pings with one) is passed
over. No check digit is asked of an IMEI: digits are enough.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import final

import attrs

from gateway.errors import DecodeError, OutOfTurn, ProtocolViolation
from gateway.protocols.teltonika import frame, wire
from gateway.protocols.teltonika.exchange import CommandAnswered, CommandReceived, CommandState, Exchange
from gateway.protocols.teltonika.wire_commands import BODIES as COMMAND_BODIES
from gateway.protocols.teltonika.wire_commands import CODEC_12, Message, decode_command

__all__ = [
    "NEED_DATA",
    "PAUSED",
    "TURNS",
    "CommandAnswered",
    "CommandReceived",
    "Event",
    "IdentReceived",
    "PacketReceived",
    "PacketRejected",
    "Session",
    "State",
]


@final
class NEED_DATA:
    """Nothing more can be said before more bytes come."""


@final
class PAUSED:
    """Our own answer is awaited: a verdict, or an acknowledgement. Do not read from the socket meanwhile."""


@attrs.frozen
class IdentReceived:
    """The tracker said who it is: ``ident``, its IMEI, in the bytes ``login``. Answer with accept_ident or
    reject_ident."""

    ident: str
    login: bytes = attrs.field(default=b"", eq=False)


@attrs.frozen
class PacketReceived:
    """Records: ``packet`` as wire.decode_packet gives it, from ``body``. Answer with acknowledge or skip."""

    packet: wire.Packet
    body: bytes


@attrs.frozen
class PacketRejected:
    """A whole ``frame``, preamble to CRC, that is no packet. ``reason`` can be counted, ``detail`` has the numbers.

    ``resend_helps``: the CRC is wrong, nothing is to be done. Otherwise keep the frame, then acknowledge(``count``),
    the number of records that it declares; for what is never answered that returns no bytes.
    """

    reason: str
    resend_helps: bool
    frame: bytes
    count: int
    detail: str = ""


Event = IdentReceived | PacketReceived | CommandReceived | CommandAnswered | PacketRejected


class State(enum.Enum):
    """What the session waits for."""

    LOGIN = "login"
    VERDICT = "our verdict on the ident"
    READY = "frames"
    ACKNOWLEDGEMENT = "our acknowledgement of a packet"
    SILENCE = "our handling of a bad packet that is never answered"
    REJECTED = "the end: the ident was rejected"
    BROKEN = "the end: framing is lost"

    # Members are the only instances. Enum's own hash runs in Python, several times a packet.
    __hash__ = object.__hash__


# Which of our decisions is possible in which state, and where it leads. next_event() moves from LOGIN to VERDICT, from
# READY to ACKNOWLEDGEMENT or SILENCE, and from both to BROKEN; there is no other way to change the state.
TURNS = {
    (State.VERDICT, "accept_ident"): State.READY,
    (State.VERDICT, "reject_ident"): State.REJECTED,
    (State.ACKNOWLEDGEMENT, "acknowledge"): State.READY,
    (State.SILENCE, "acknowledge"): State.READY,
    (State.ACKNOWLEDGEMENT, "skip"): State.READY,
    (State.SILENCE, "skip"): State.READY,
    (State.READY, "skip"): State.READY,
    (State.READY, "send_command"): State.READY,
}
UNREAD_MOST = 2048
"""Bytes shown of what could not be understood."""
_PAUSED_IN = frozenset({State.VERDICT, State.ACKNOWLEDGEMENT, State.SILENCE})
_ENDED_IN = frozenset({State.REJECTED, State.BROKEN})


class Session:
    """Feed it with receive_data, ask it with next_event until it says NEED_DATA or PAUSED, answer, ask again.

    Raises ProtocolViolation from next_event and OutOfTurn where an answer is given that nothing waits for; anything
    else that escapes is a bug. It holds less than one frame of ``max_data_length`` when it says NEED_DATA, plus what
    was fed since when it says PAUSED; nothing once it has ended.
    """

    def __init__(self, max_data_length: int = frame.MAX_DATA_LENGTH) -> None:
        self._buffer = frame.FrameBuffer(max_data_length)
        self._state = State.LOGIN
        self._messages: deque[Message] = deque()
        self._exchange = Exchange()
        self._ident = ""
        self._violation: ProtocolViolation | None = None
        self._broken = b""

    @property
    def state(self) -> State:
        """What is waited for."""
        return self._state

    @property
    def command_state(self) -> CommandState:
        """Whether the response to a command is due."""
        return self._exchange.state

    @property
    def may_send_command(self) -> bool:
        """Whether a command can go out just now: none is in flight, and no packet is arriving or waits for its end."""
        is_quiet = self._state is State.READY and not self._buffer and not self._messages
        return is_quiet and self._exchange.state is not CommandState.WAITING

    @property
    def buffered(self) -> int:
        """How many bytes are held."""
        return len(self._buffer)

    def unread(self, most: int = UNREAD_MOST) -> bytes:
        """The beginning of what is held; once framing is lost, of what could not be understood."""
        return self._broken[:most] or self._buffer.peek(most)

    def receive_data(self, data: bytes) -> None:
        """Take what came from the socket, in pieces of any size."""
        if self._state not in _ENDED_IN:
            self._buffer.receive(data)

    def next_event(self) -> Event | type[NEED_DATA] | type[PAUSED]:
        """What happened next, in the order of the bytes."""
        if self._messages:
            return self._exchange.receive(self._messages.popleft())
        if self._state in _PAUSED_IN:
            return PAUSED
        if self._state is State.REJECTED:
            return NEED_DATA
        if self._violation is not None:
            raise ProtocolViolation(self._violation.reason, self._violation.detail)
        try:
            return self._next_login() if self._state is State.LOGIN else self._next_packet()
        except ProtocolViolation as violation:
            self._state = State.BROKEN
            self._violation = violation
            self._broken = self._buffer.peek(UNREAD_MOST)
            self._buffer.clear()
            raise

    def accept_ident(self) -> bytes:
        """The ident is welcome: the verdict to send."""
        self._turn("accept_ident")
        return frame.build_verdict(True)

    def reject_ident(self) -> bytes:
        """The ident is not welcome: the verdict to send before closing. Whatever else comes is thrown away."""
        self._turn("reject_ident")
        self._buffer.clear()
        return frame.build_verdict(False)

    def acknowledge(self, count: int) -> bytes:
        """``count`` records are safe: the acknowledgement to send, no bytes where the tracker expects none."""
        answer = b"" if self._state is State.SILENCE else frame.build_acknowledgement(count)
        self._turn("acknowledge")
        return answer

    def skip(self) -> None:
        """Go on without an answer; the tracker will send a packet again. Allowed, and without effect, after others."""
        self._turn("skip")

    def send_command(self, payload: bytes, codec_id: int = CODEC_12) -> bytes:
        """The frame that tells the tracker to do what ``payload`` says; its response comes as CommandAnswered.

        Codec 14 names the IMEI that is to obey, the one of the login. Raises OutOfTurn where a packet, or the response
        to another command, is awaited, and EncodeError; nothing has changed then.
        """
        self._following("send_command")
        return self._exchange.send(payload, codec_id, self._ident)

    def abandon_command(self) -> None:
        """Wait no longer for the response, or for none: if one comes, it is late. Raises OutOfTurn."""
        self._exchange.abandon()

    def _turn(self, decision: str) -> None:
        self._state = self._following(decision)

    def _following(self, decision: str) -> State:
        following = TURNS.get((self._state, decision))
        if following is None:
            raise OutOfTurn(f"{decision} while waiting for {self._state.value}")
        return following

    def _next_login(self) -> Event | type[NEED_DATA]:
        ident = self._buffer.next_login()
        if ident is None:
            return NEED_DATA
        self._state = State.VERDICT
        self._ident = ident
        return IdentReceived(ident, frame.build_login(ident))

    def _next_packet(self) -> Event | type[NEED_DATA]:
        """Frames without an event are passed over, so this loops; each turn consumes a frame."""
        while (data := self._buffer.next_frame()) is not None:
            event = self._read(data)
            if event is not None:
                return event
        return NEED_DATA

    def _read(self, data: bytes) -> Event | None:
        if not frame.has_good_crc(data):
            return PacketRejected("wrong CRC", True, data, wire.declared_count(frame.body_of(data)))
        body = frame.body_of(data)
        is_command = body[:1] != b"" and body[0] in COMMAND_BODIES
        try:
            return self._read_command(body) if is_command else self._read_packet(body)
        except DecodeError as error:
            self._state = State.SILENCE if is_command or not body else State.ACKNOWLEDGEMENT
            return PacketRejected(error.reason, False, data, wire.declared_count(body), str(error))

    def _read_packet(self, body: bytes) -> PacketReceived:
        packet = wire.decode_packet(body)
        self._state = State.ACKNOWLEDGEMENT
        return PacketReceived(packet, body)

    def _read_command(self, body: bytes) -> Event | None:
        """Whether a message is a response is decided when its turn comes: a command may go out, or be abandoned."""
        decoded = decode_command(body)
        self._messages.extend({"codec_id": decoded["codec_id"], **message} for message in decoded["messages"])
        return self._exchange.receive(self._messages.popleft()) if self._messages else None
