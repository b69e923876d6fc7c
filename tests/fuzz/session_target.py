"""The fuzz target of the TCP session.

Invariant: whatever bytes come, in whatever pieces, and whatever is answered, a session raises ProtocolViolation or
nothing; it holds less than one frame when it asks for more; the same bytes in one piece give the same events; and what
it decoded builds back to the bytes that it came from.

``python tests/fuzz/session_target.py [atheris options]`` runs it under atheris, where that is installed
(``pip install .[fuzz]``); ``test_session_target.py`` runs it with hypothesis in the suite.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import attrs

from gateway.errors import ProtocolViolation
from gateway.protocols.teltonika import frame, wire
from gateway.protocols.teltonika.exchange import CommandState
from gateway.protocols.teltonika.session import (
    NEED_DATA,
    PAUSED,
    CommandAnswered,
    CommandReceived,
    Event,
    IdentReceived,
    PacketReceived,
    PacketRejected,
    Session,
)

MAX_DATA_LENGTH = 2048
AROUND_BODY = 12


def check(data: bytes) -> list[Event | str]:
    """The target: a first byte that chooses the pieces and the answers, then what the tracker sends."""
    choice, stream = (data[0], data[1:]) if data else (0, b"")
    size = choice % 16 + 1
    pieces = [stream[begin : begin + size] for begin in range(0, len(stream), size)]
    answers = Answers(skips=choice >= 128, commands=bool(choice & 64))
    seen = run(pieces, answers)
    assert seen == run([stream], answers)
    return seen


@attrs.frozen
class Answers:
    """Whether packets stay without an acknowledgement, and whether a command is sent after the login."""

    skips: bool = False
    commands: bool = False


def run(pieces: Iterable[bytes], answers: Answers) -> list[Event | str]:
    """All events of one session that is fed these pieces; the reason of the violation, if it ends with one."""
    session, seen = Session(MAX_DATA_LENGTH), []
    for piece in pieces:
        session.receive_data(piece)
        try:
            while (event := session.next_event()) is not NEED_DATA:
                assert event is not PAUSED
                seen.append(event)
                answer(session, event, answers)
        except ProtocolViolation as violation:
            return [*seen, violation.reason]
        assert session.buffered < MAX_DATA_LENGTH + AROUND_BODY
    return seen


def answer(session: Session, event: Event, answers: Answers) -> None:
    """Check the event and let the session go on."""
    if isinstance(event, IdentReceived):
        assert event.ident.isdecimal()
        assert session.next_event() is PAUSED
        session.accept_ident()
        if answers.commands:
            assert frame.has_good_crc(session.send_command(b"getver"))
    elif isinstance(event, PacketReceived):
        assert wire.encode_packet(event.packet) == event.body
        assert len(event.packet["records"]) == event.packet["count"]
        assert session.next_event() is PAUSED
        acknowledge(session, event.packet["count"], answers.skips)
    elif isinstance(event, PacketRejected):
        assert frame.has_good_crc(event.frame) is not event.resend_helps
        if not event.resend_helps:
            assert session.next_event() is PAUSED
            acknowledge(session, event.count, answers.skips)
    elif isinstance(event, CommandAnswered):
        assert answers.commands
        assert session.command_state is CommandState.NONE
    else:
        assert isinstance(event, CommandReceived)


def acknowledge(session: Session, count: int, skips: bool) -> None:
    if skips:
        session.skip()
    else:
        assert session.acknowledge(count) in (b"", count.to_bytes(4, "big"))


def main() -> None:
    import atheris  # type: ignore[import-not-found]

    atheris.instrument_all()
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
