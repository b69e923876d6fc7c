"""The command that waits for its response, on one connection. No I/O, no clock.

Teltonika wiki, page Codec::

    server -> tracker   Codec 12 or 14, type 05        command
    tracker -> server   the same codec, type 06        response
                        Codec 14, type 11              refusal: the command names another IMEI

A response has no number that would tell whose it is, so one command is in flight at a time, and the next message that
has the form of its response is taken for it. (A tracker that passes on its serial port by Codec 12 may say something
just then that looks the same. Codec 14 has no such use.) Everything else was said unasked.

A command is abandoned when it has waited for too long, or when none is due: what comes then is its response, but late.
"""

from __future__ import annotations

import enum

import attrs

from gateway.errors import EncodeError, OutOfTurn
from gateway.protocols.teltonika.frame import build_frame
from gateway.protocols.teltonika.wire_commands import (
    CODEC_12,
    CODEC_14,
    NOT_MY_IMEI,
    REQUEST,
    RESPONSE,
    Message,
    encode_command,
)

REFUSED = "IMEI does not match"


@attrs.frozen
class CommandReceived:
    """One message of Codec 12 to 15 that nobody asked for: a dict of ``codec_id`` and what wire_commands.decode_command
    gives. No answer."""

    message: Message


@attrs.frozen
class CommandAnswered:
    """The response to the command that was sent; ``message`` as in CommandReceived. No answer.

    ``refusal``: why the tracker did not obey; empty where it did. ``is_late``: the command was abandoned before.
    """

    message: Message
    refusal: str = ""
    is_late: bool = False

    @property
    def payload(self) -> bytes:
        """What the tracker said: mostly ASCII."""
        return bytes(self.message["payload"])


class CommandState(enum.Enum):
    """What is due from the tracker."""

    NONE = "no response"
    WAITING = "the response to a command"
    LATE = "the response to an abandoned command"


# What we can do in which state, and where it leads. A response leads from WAITING and from LATE to NONE; there is no
# other way to change the state.
COMMAND_TURNS = {
    (CommandState.NONE, "send_command"): CommandState.WAITING,
    (CommandState.LATE, "send_command"): CommandState.WAITING,
    (CommandState.WAITING, "abandon_command"): CommandState.LATE,
}
_RESPONSES = {CODEC_12: frozenset({RESPONSE}), CODEC_14: frozenset({RESPONSE, NOT_MY_IMEI})}


class Exchange:
    """At most one command in flight."""

    def __init__(self) -> None:
        self._state = CommandState.NONE
        self._codec_id = CODEC_12

    @property
    def state(self) -> CommandState:
        """What is due."""
        return self._state

    def send(self, payload: bytes, codec_id: int, imei: str) -> bytes:
        """The frame of a command. Raises OutOfTurn where one is in flight, EncodeError for another codec or IMEI."""
        following = self._following("send_command")
        if codec_id not in _RESPONSES:
            raise EncodeError(f"commands go out in Codec 12 or 14, not in {codec_id!r}")
        frame = build_frame(encode_command(codec_id, {"type": REQUEST, "imei": imei, "payload": payload}))
        self._state, self._codec_id = following, codec_id
        return frame

    def abandon(self) -> None:
        """Wait no longer; a response that comes nevertheless is late. Raises OutOfTurn."""
        self._state = self._following("abandon_command")

    def receive(self, message: Message) -> CommandReceived | CommandAnswered:
        """Whether ``message`` is what is due."""
        is_due = self._state is not CommandState.NONE and message["codec_id"] == self._codec_id
        if not is_due or message["type"] not in _RESPONSES[self._codec_id]:
            return CommandReceived(message)
        is_late = self._state is CommandState.LATE
        self._state = CommandState.NONE
        return CommandAnswered(message, REFUSED if message["type"] == NOT_MY_IMEI else "", is_late)

    def _following(self, decision: str) -> CommandState:
        following = COMMAND_TURNS.get((self._state, decision))
        if following is None:
            raise OutOfTurn(f"{decision} while {self._state.value} is due")
        return following
