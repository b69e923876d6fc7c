"""Commands to a tracker, and what of that which it says answers them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.emulator.commands import Commands
from gateway.emulator.device import CommandReceived as CommandForDevice
from gateway.emulator.device import Device
from gateway.emulator.group import Group
from gateway.errors import EncodeError, OutOfTurn
from gateway.protocols.teltonika.exchange import REFUSED, CommandAnswered, CommandReceived, CommandState, Exchange
from gateway.protocols.teltonika.frame import body_of
from gateway.protocols.teltonika.session import NEED_DATA, Event, IdentReceived, PacketReceived, Session
from gateway.protocols.teltonika.wire_commands import (
    CODEC_12,
    CODEC_13,
    CODEC_14,
    CODEC_15,
    NOT_MY_IMEI,
    REQUEST,
    RESPONSE,
    decode_command,
)
from tests.builders import IMEI, FrameFactory, pieces

FACTORY = FrameFactory()
VECTORS = {
    vector["name"]: bytes.fromhex(vector["hex"])
    for vector in json.loads((Path(__file__).parent / "vectors" / "teltonika.json").read_text())
}


def ready(imei: str = IMEI) -> Session:
    """A session behind its login."""
    session = Session()
    session.receive_data(FACTORY.login(imei))
    session.next_event()
    session.accept_ident()
    return session


def events(session: Session, data: bytes = b"") -> list[Any]:
    session.receive_data(data)
    return list(iter(session.next_event, NEED_DATA))


def response(payload: bytes = b"OK", codec: int = CODEC_12, type: int = RESPONSE) -> bytes:
    return FACTORY.command(payload, codec, type, imei=IMEI, timestamp=1_700_000_000, timestamp_size=4)


@pytest.mark.parametrize(
    ("vector", "payload", "codec"),
    [
        ("wiki-codec12-getinfo-cmd", b"getinfo", CODEC_12),
        ("wiki-codec12-getio-cmd", b"getio", CODEC_12),
        ("aagsolutions-codec12-getvin", b"getvin", CODEC_12),
        ("wiki-codec14-getver-cmd", b"getver", CODEC_14),
    ],
)
def test_a_command_goes_out_as_the_vendor_prints_it(vector: str, payload: bytes, codec: int) -> None:
    """Codec 14 names the IMEI of the login."""
    assert ready("352093081452251").send_command(payload, codec) == VECTORS[vector]


@pytest.mark.parametrize(
    ("vector", "codec", "beginning"),
    [
        ("wiki-codec12-getinfo-resp", CODEC_12, b"INI:2019/7/22 7:22 RTC:"),
        ("wiki-codec12-getio-resp", CODEC_12, b"DI1:1 DI2:0"),
        ("syn-0c-binary-response", CODEC_12, b"\x01\x04\n\xff\x00\xfe\x81\xc3"),
        ("wiki-codec14-getver-ack", CODEC_14, b"Ver:03.18.14_04"),
    ],
)
def test_the_response_is_taken_for_the_command(vector: str, codec: int, beginning: bytes) -> None:
    """Once: the same again was said unasked."""
    session = ready()
    session.send_command(b"getinfo", codec)
    [answered, again] = events(session, VECTORS[vector] * 2)
    assert isinstance(answered, CommandAnswered)
    assert (answered.refusal, answered.is_late) == ("", False)
    assert answered.payload.startswith(beginning)
    assert again == CommandReceived(answered.message)


def test_a_tracker_that_is_not_the_named_one_refuses() -> None:
    """Codec 14, type 0x11."""
    session = ready()
    session.send_command(b"getver", CODEC_14)
    [answered] = events(session, VECTORS["wiki-codec14-nack-2251"])
    assert isinstance(answered, CommandAnswered)
    assert (answered.refusal, answered.payload) == (REFUSED, b"")
    assert REFUSED == "IMEI does not match"


@pytest.mark.parametrize("codec", [CODEC_12, CODEC_13, CODEC_14, CODEC_15])
@pytest.mark.parametrize("type", [REQUEST, RESPONSE, 0x0B, 0x0D, NOT_MY_IMEI])
@pytest.mark.parametrize("asked", [CODEC_12, CODEC_14])
def test_only_what_has_the_form_of_the_response_is_taken_for_it(codec: int, type: int, asked: int) -> None:
    """The codec of the question, and type 06; all else is serial data, or an answer to nobody."""
    session = ready()
    session.send_command(b"getver", asked)
    [event] = events(session, response(codec=codec, type=type))
    is_answer = codec == asked and (type == RESPONSE or (type, codec) == (NOT_MY_IMEI, CODEC_14))
    assert isinstance(event, CommandAnswered if is_answer else CommandReceived)
    assert session.command_state is (CommandState.NONE if is_answer else CommandState.WAITING)


@pytest.mark.parametrize("codec", [CODEC_12, CODEC_13, CODEC_14, CODEC_15])
def test_what_nobody_asked_for_is_told_and_never_answered(codec: int) -> None:
    """The tracker expects no answer: the session waits for none of ours."""
    session = ready()
    [event] = events(session, response(b"$GPGGA", codec))
    assert isinstance(event, CommandReceived)
    assert (event.message["codec_id"], event.message["payload"]) == (codec, b"$GPGGA")
    assert session.may_send_command


def test_a_response_that_comes_late_says_so() -> None:
    """And after it, nothing is due."""
    session = ready()
    session.send_command(b"getver")
    session.abandon_command()
    [event] = events(session, response())
    assert isinstance(event, CommandAnswered)
    assert event.is_late
    assert session.command_state is CommandState.NONE


def test_after_an_abandoned_command_the_next_one_gets_the_next_response() -> None:
    """Responses have no numbers: whoever sends at once takes the risk."""
    session = ready()
    session.send_command(b"getver")
    session.abandon_command()
    session.send_command(b"getinfo")
    [event] = events(session, response())
    assert isinstance(event, CommandAnswered)
    assert not event.is_late


def test_no_command_goes_out_while_a_packet_waits() -> None:
    """The tracker would read the command's zeros as an acknowledgement of nothing."""
    session = ready()
    [packet] = events_until_packet(session, FACTORY.packet(records=2))
    assert not session.may_send_command
    with pytest.raises(OutOfTurn, match="send_command while waiting for our acknowledgement"):
        session.send_command(b"getver")
    session.acknowledge(packet.packet["count"])
    assert session.may_send_command
    session.send_command(b"getver")


def events_until_packet(session: Session, data: bytes) -> list[PacketReceived]:
    session.receive_data(data)
    event = session.next_event()
    assert isinstance(event, PacketReceived)
    return [event]


def test_while_something_arrives_it_is_better_to_wait() -> None:
    """It may be a packet, which is to be acknowledged first; a command is still possible."""
    session = ready()
    packet = FACTORY.packet()
    assert events(session, packet[:-1]) == []
    assert not session.may_send_command
    session.receive_data(packet[-1:])
    session.next_event()
    session.acknowledge(1)
    assert session.may_send_command


def test_a_second_command_has_to_wait() -> None:
    """One in flight on a connection."""
    session = ready()
    session.send_command(b"getver")
    assert not session.may_send_command
    with pytest.raises(OutOfTurn, match="send_command while the response to a command is due"):
        session.send_command(b"getinfo")
    events(session, response())
    session.send_command(b"getinfo")


def test_a_command_in_another_codec_changes_nothing() -> None:
    """Only 12 and 14 go out."""
    session = ready()
    for codec in (CODEC_13, CODEC_15, 8):
        with pytest.raises(EncodeError):
            session.send_command(b"getver", codec)
    assert session.command_state is CommandState.NONE


def test_an_imei_that_does_not_fit_changes_nothing() -> None:
    """A login may have up to 20 digits, Codec 14 has room for 16."""
    exchange = Exchange()
    with pytest.raises(EncodeError):
        exchange.send(b"getver", CODEC_14, "1" * 20)
    assert exchange.state is CommandState.NONE


def test_of_several_messages_in_a_frame_the_first_is_the_response() -> None:
    session = ready()
    session.send_command(b"getver")
    frame = bytes.fromhex("0c02" + "06000000026f6e" + "0600000003747766" + "02")
    kinds = [type(event).__name__ for event in events(session, FACTORY.frame(frame))]
    assert kinds == ["CommandAnswered", "CommandReceived"]


STREAM = FACTORY.packet(records=2) + response(b"serial", CODEC_13) + response(b"first") + response(b"second")


def conversation(parts: list[bytes]) -> list[Event]:
    """All events where one command is sent after the login."""
    session, seen = ready(), []
    session.send_command(b"getver")
    for part in parts:
        session.receive_data(part)
        while not isinstance(event := session.next_event(), type):
            seen.append(event)
            if isinstance(event, PacketReceived):
                session.acknowledge(event.packet["count"])
    return seen


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_how_the_bytes_are_cut_changes_no_response(cuts: list[int]) -> None:
    """TCP keeps bytes, not writes."""
    whole = conversation([STREAM])
    assert conversation(pieces(STREAM, cuts)) == whole
    assert [type(event).__name__ for event in whole] == [
        "PacketReceived",
        "CommandReceived",
        "CommandAnswered",
        "CommandReceived",
    ]


class NoPackets:
    """A tracker without records."""

    pending = None
    is_done = False
    is_due = False

    def take(self) -> None:
        return None

    def finish(self) -> None: ...

    def settle(self) -> None: ...


@pytest.mark.parametrize("codec", [CODEC_12, CODEC_14])
def test_a_virtual_tracker_answers_what_it_is_asked(codec: int) -> None:
    """Both ends in memory: the emulator's session against ours, one byte at a time."""
    device = Device(IMEI, NoPackets())
    obedient = Commands(IMEI, Group(model="FMC130"), lambda: None)
    session, answers = Session(), []

    def to_server(data: bytes) -> None:
        for byte in data:
            session.receive_data(bytes([byte]))
            while not isinstance(event := session.next_event(), type):
                if isinstance(event, IdentReceived):
                    to_device(session.accept_ident())
                else:
                    answers.append(event)

    def to_device(data: bytes) -> None:
        for byte in data:
            device.receive_data(bytes([byte]))
            if isinstance(event := device.next_event(), CommandForDevice):
                reply = obedient.reply(event.frame)
                assert reply is not None
                to_server(reply.data)

    to_server(device.connect())
    for text in (b"getparam 1001", b"getver"):
        to_device(session.send_command(text, codec))
    assert [answer.payload[:12] for answer in answers] == [b"Param ID:100", b"Ver:03.28.07"]
    assert {answer.message["codec_id"] for answer in answers} == {codec}


def test_a_command_for_another_tracker_is_refused_by_a_virtual_one() -> None:
    """A connection whose login names another IMEI than the tracker has: behind a faulty converter, say."""
    obedient = Commands("352093081452251", Group(model="FMC130"), lambda: None)
    session = ready("352093081452468")
    frame = session.send_command(b"setdigout 1", CODEC_14)
    assert decode_command(body_of(frame))["messages"][0]["imei"] == "352093081452468"
    reply = obedient.reply(frame)
    assert reply is not None
    [answered] = events(session, reply.data)
    assert answered.refusal == REFUSED
