"""The TCP session: its events, its states, its three kinds of failure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_session_states import BAD_CRC, PACKET, UNDECODABLE, session_in

from gateway.errors import EncodeError, ProtocolViolation
from gateway.protocols.teltonika.frame import build_frame
from gateway.protocols.teltonika.session import (
    NEED_DATA,
    PAUSED,
    CommandReceived,
    IdentReceived,
    PacketReceived,
    PacketRejected,
    Session,
    State,
)
from gateway.protocols.teltonika.wire import CODEC_8_EXTENDED
from gateway.protocols.teltonika.wire_commands import encode_command
from tests.builders import AVL_CODECS, IMEI, FrameFactory, pieces

FACTORY = FrameFactory()


def events_of(parts: list[bytes]) -> list[Any]:
    """Everything that a session says to these bytes when all is accepted and acknowledged at once, answers included."""
    session, seen = Session(), []
    for part in parts:
        session.receive_data(part)
        while (event := session.next_event()) is not NEED_DATA:
            seen.append(event)
            if isinstance(event, IdentReceived):
                seen.append(session.accept_ident())
            elif isinstance(event, PacketReceived):
                seen.append(session.acknowledge(event.packet["count"]))
            elif isinstance(event, PacketRejected) and not event.resend_helps:
                seen.append(session.acknowledge(event.count))
    return seen


STREAM = b"".join(
    [
        FACTORY.ping,
        FACTORY.login(),
        FACTORY.ping * 3,
        PACKET,
        BAD_CRC,
        FACTORY.ping,
        UNDECODABLE,
        FACTORY.command(b"Hw:FMB120"),
        FACTORY.packet(records=1, codec=CODEC_8_EXTENDED),
        FACTORY.ping,
    ]
)


def test_a_whole_conversation_gives_its_events_in_order() -> None:
    """Every kind of event, each with its answer; pings and bad checksums get none."""
    seen = events_of([STREAM])
    assert [type(item).__name__ if not isinstance(item, bytes) else item.hex() for item in seen] == [
        *("IdentReceived", "01"),
        *("PacketReceived", "00000002"),
        "PacketRejected",
        *("PacketRejected", "00000003"),
        "CommandReceived",
        *("PacketReceived", "00000001"),
    ]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_how_the_bytes_are_cut_changes_nothing(cuts: list[int]) -> None:
    """TCP keeps bytes, not writes."""
    assert events_of(pieces(STREAM, cuts)) == events_of([STREAM])


def test_one_byte_at_a_time_changes_nothing() -> None:
    """Two bytes may arrive alone on GPRS."""
    assert events_of([bytes([byte]) for byte in STREAM]) == events_of([STREAM])


@given(st.lists(st.sampled_from([PACKET, BAD_CRC, UNDECODABLE, FACTORY.ping, FACTORY.command()]), max_size=6))
def test_glued_frames_give_what_they_give_alone(frames: list[bytes]) -> None:
    """A frame's event does not depend on its neighbors."""
    login = events_of([FACTORY.login()])
    alone = [event for data in frames for event in events_of([FACTORY.login(), data])[len(login) :]]
    assert events_of([FACTORY.login() + b"".join(frames)]) == login + alone


@pytest.mark.parametrize("codec", AVL_CODECS)
def test_a_packet_arrives_with_its_body(codec: int) -> None:
    """The body is what a store may keep; the packet is what it says."""
    session = session_in(State.READY)
    body = FACTORY.body(records=2, codec=codec)
    session.receive_data(build_frame(body))
    event = session.next_event()
    assert isinstance(event, PacketReceived)
    assert (event.body, event.packet["codec_id"], event.packet["count"]) == (body, codec, 2)


def test_while_our_answer_is_awaited_the_session_is_paused() -> None:
    """And hands out nothing of what came meanwhile."""
    session = Session()
    session.receive_data(FACTORY.login() + PACKET + PACKET)
    assert session.next_event() == IdentReceived(IMEI)
    assert [session.next_event(), session.next_event()] == [PAUSED, PAUSED]
    session.accept_ident()
    assert isinstance(session.next_event(), PacketReceived)
    assert session.next_event() is PAUSED
    session.acknowledge(2)
    assert isinstance(session.next_event(), PacketReceived)


def test_a_packet_can_be_left_without_an_acknowledgement() -> None:
    """When storage refused it: the tracker sends it again."""
    session = session_in(State.ACKNOWLEDGEMENT)
    session.skip()
    assert session.next_event() is NEED_DATA
    session.receive_data(PACKET)
    assert isinstance(session.next_event(), PacketReceived)


def test_a_wrong_crc_is_passed_over_without_an_answer() -> None:
    """The next frame is read at once: nothing is to be decided."""
    session = session_in(State.READY)
    session.receive_data(BAD_CRC + PACKET)
    assert session.next_event() == PacketRejected("wrong CRC", True, BAD_CRC, 2)
    session.skip()
    assert isinstance(session.next_event(), PacketReceived)


def test_a_good_crc_over_nonsense_is_kept_and_acknowledged_as_declared() -> None:
    """Otherwise the tracker would send it for ever."""
    session = session_in(State.READY)
    session.receive_data(UNDECODABLE)
    event = session.next_event()
    assert isinstance(event, PacketRejected)
    assert (event.resend_helps, event.frame, event.count) == (False, UNDECODABLE, 3)
    assert event.reason == "counts disagree"
    assert event.detail.startswith("counts disagree (at byte ")
    assert session.next_event() is PAUSED
    assert session.acknowledge(event.count) == b"\0\0\0\x03"


@pytest.mark.parametrize(
    ("body", "count", "answer"),
    [
        (b"", 0, ""),
        (b"\x08", 0, "00000000"),
        (b"\x07\x05", 5, "00000005"),
        (b"\x0c", 0, ""),
        (b"\x0c\x01\x05\x00\x00\x00\xff", 1, ""),
        (b"\x0f\x02", 2, ""),
    ],
)
def test_a_bad_body_is_answered_by_its_codec(body: bytes, count: int, answer: str) -> None:
    """Whoever sent a command body, or an empty one, expects no answer and would misread every later one."""
    session = session_in(State.READY)
    session.receive_data(build_frame(body))
    event = session.next_event()
    assert isinstance(event, PacketRejected)
    assert (event.resend_helps, event.count) == (False, count)
    assert session.acknowledge(event.count).hex() == answer
    assert session.next_event() is NEED_DATA


def test_a_packet_of_no_records_is_acknowledged_with_0() -> None:
    """It follows the grammar, and the truth is that nothing was accepted."""
    session = session_in(State.READY)
    session.receive_data(FACTORY.packet(records=0))
    event = session.next_event()
    assert isinstance(event, PacketReceived)
    assert (event.packet["records"], session.acknowledge(0)) == ([], b"\0\0\0\0")


def test_each_message_of_a_command_frame_is_an_event() -> None:
    """In order, and nothing waits for an answer."""
    messages = [{"type": 6, "payload": b"one"}, {"type": 6, "payload": b"two"}]
    session = session_in(State.READY)
    session.receive_data(build_frame(encode_command(12, *messages)) + PACKET)
    for message in messages:
        assert session.next_event() == CommandReceived({"codec_id": 12, **message})
    assert isinstance(session.next_event(), PacketReceived)


def test_a_command_frame_without_messages_is_passed_over() -> None:
    """Some trackers ping with one."""
    session = session_in(State.READY)
    session.receive_data(build_frame(b"\x0c\x00\x00") + PACKET)
    assert isinstance(session.next_event(), PacketReceived)


def test_lost_framing_is_told_again_and_again() -> None:
    """Nothing that comes later is looked at, or kept."""
    session = session_in(State.BROKEN)
    session.receive_data(PACKET)
    with pytest.raises(ProtocolViolation, match="preamble is not zero"):
        session.next_event()
    assert session.buffered == 0


def test_events_before_the_violation_are_handed_out_first() -> None:
    """A packet is not lost because of what follows it."""
    session = session_in(State.READY)
    session.receive_data(PACKET + b"GET")
    assert isinstance(session.next_event(), PacketReceived)
    session.acknowledge(2)
    with pytest.raises(ProtocolViolation):
        session.next_event()


def test_a_rejected_tracker_is_not_listened_to() -> None:
    """The verdict 00, then silence until the connection is closed."""
    session = session_in(State.VERDICT)
    session.receive_data(PACKET)
    assert session.reject_ident() == b"\x00"
    session.receive_data(PACKET)
    assert (session.next_event(), session.buffered) == (NEED_DATA, 0)


def test_an_impossible_acknowledgement_changes_nothing() -> None:
    """The packet still waits."""
    session = session_in(State.ACKNOWLEDGEMENT)
    with pytest.raises(EncodeError):
        session.acknowledge(-1)
    assert session.acknowledge(2) == b"\0\0\0\x02"


def test_the_limit_can_be_chosen() -> None:
    """Greater ones lose the connection before their body comes."""
    session = Session(max_data_length=len(PACKET) - 13)
    session.receive_data(FACTORY.login())
    session.next_event()
    session.accept_ident()
    session.receive_data(PACKET[:8])
    with pytest.raises(ProtocolViolation, match="data field length above the limit"):
        session.next_event()
