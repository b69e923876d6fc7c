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

from gateway.errors import ProtocolViolation
from gateway.protocols.teltonika import frame, wire
from gateway.protocols.teltonika.session import (
    NEED_DATA,
    PAUSED,
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
    skips = choice >= 128
    seen = run(pieces, skips)
    assert seen == run([stream], skips)
    return seen


def run(pieces: Iterable[bytes], skips: bool) -> list[Event | str]:
    """All events of one session that is fed these pieces; the reason of the violation, if it ends with one."""
    session, seen = Session(MAX_DATA_LENGTH), []
    for piece in pieces:
        session.receive_data(piece)
        try:
            while (event := session.next_event()) is not NEED_DATA:
                assert event is not PAUSED
                seen.append(event)
                answer(session, event, skips)
        except ProtocolViolation as violation:
            return [*seen, violation.reason]
        assert session.buffered < MAX_DATA_LENGTH + AROUND_BODY
    return seen


def answer(session: Session, event: Event, skips: bool) -> None:
    """Check the event and let the session go on."""
    if isinstance(event, IdentReceived):
        assert event.ident.isdecimal()
        assert session.next_event() is PAUSED
        session.accept_ident()
    elif isinstance(event, PacketReceived):
        assert wire.encode_packet(event.packet) == event.body
        assert len(event.packet["records"]) == event.packet["count"]
        assert session.next_event() is PAUSED
        acknowledge(session, event.packet["count"], skips)
    elif isinstance(event, PacketRejected):
        assert frame.has_good_crc(event.frame) is not event.resend_helps
        if not event.resend_helps:
            assert session.next_event() is PAUSED
            acknowledge(session, event.count, skips)
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
