"""What trackers say unasked, as messages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import parameters
from gateway.message import decode, encode, message_key
from gateway.protocols.teltonika.datagram import acknowledge_datagram, build_datagram, receive_datagram, said_in
from gateway.protocols.teltonika.exchange import CommandReceived
from gateway.protocols.teltonika.frame import body_of
from gateway.protocols.teltonika.serial_data import message_of, text_of
from gateway.protocols.teltonika.session import Session
from gateway.protocols.teltonika.wire_commands import CODEC_12, CODEC_13, CODEC_14, CODEC_15, decode_command
from tests.builders import IMEI, FrameFactory
from tests.test_exchange import VECTORS, events, ready

RECEIVED = 1_763_709_000.123456
FACTORY = FrameFactory()


def said(vector: str) -> dict[str, Any]:
    """The message of a vector, as a session tells it."""
    session: Session = ready()
    [event] = events(session, VECTORS[vector])
    assert isinstance(event, CommandReceived)
    return event.message


@pytest.mark.parametrize(
    ("vector", "expected"),
    [
        ("syn-0c-ok-crlf", {"codec.id": 12, "payload.text": "OK\r\n", "payload.type.enum": 6, "timestamp": RECEIVED}),
        (
            "syn-0c-binary-response",
            {"codec.id": 12, "payload.hex": "01040aff00fe81c3", "payload.type.enum": 6, "timestamp": RECEIVED},
        ),
        (
            "wiki-codec13-2024-hello",
            {
                "codec.id": 13,
                "payload.text": "hello lets test\r\n",
                "payload.type.enum": 6,
                "timestamp": 1692938881,
                "timestamp.key": 1692938881.123456,
            },
        ),
        (
            "wiki-codec13-2019-8byte-ts",
            {
                "codec.id": 13,
                "payload.text": "getinfo",
                "payload.type.enum": 5,
                "timestamp": 1563544372,
                "timestamp.key": 1563544372.123456,
            },
        ),
        (
            "wiki-codec14-nack-2251",
            {
                "codec.id": 14,
                "payload.text": "",
                "payload.type.enum": 17,
                "payload.imei": "352093081452251",
                "timestamp": RECEIVED,
            },
        ),
        (
            "wiki-codec15-hello",
            {
                "codec.id": 15,
                "payload.text": "Hello!\n",
                "payload.type.enum": 11,
                "payload.imei": "123456789123456",
                "timestamp": 1699440036,
                "timestamp.key": 1699440036.123456,
            },
        ),
    ],
)
def test_the_vendor_s_examples_become_messages(vector: str, expected: dict[str, Any]) -> None:
    """Every codec that can bring them."""
    assert message_of(said(vector), IMEI, RECEIVED) == expected


def test_the_imei_of_the_connection_is_not_repeated() -> None:
    """The message's ident says it."""
    body = body_of(FACTORY.command(b"x", CODEC_15, 0x0B, imei=IMEI, timestamp=1_700_000_000))
    message = message_of({"codec_id": 15, **decode_command(body)["messages"][0]}, IMEI, RECEIVED)
    assert "payload.imei" not in message


def test_messages_of_one_second_do_not_merge() -> None:
    """Their keys differ as their receptions do, and are not that of a record of this second."""
    one = {"codec_id": 13, "type": 6, "timestamp": 1_700_000_000, "timestamp_size": 4, "payload": b"a"}
    keys = [message_key(message_of(one, IMEI, RECEIVED + n * 1e-6)) for n in range(3)]
    assert len({round(key * 1_000_000) for key in keys} | {1_700_000_000_000_000}) == 4


@given(st.sampled_from([CODEC_12, CODEC_13, CODEC_14, CODEC_15]), st.integers(0, 255), st.binary(max_size=80))
def test_whatever_is_said_is_in_the_message(codec: int, type: int, payload: bytes) -> None:
    """As text or hexadecimal, of which the bytes can be had; every parameter is in the catalogue; JSON can hold it."""
    body = body_of(FACTORY.command(payload, codec, type, imei=IMEI, timestamp=1, timestamp_size=4))
    message = message_of({"codec_id": codec, **decode_command(body)["messages"][0]}, IMEI, RECEIVED)
    assert decode(encode(message)) == message
    assert [name for name in message if parameters.find(name) is None] == []
    again = message["payload.text"].encode() if "payload.text" in message else bytes.fromhex(message["payload.hex"])
    assert again == payload


@pytest.mark.parametrize("vector", ["syn-0c-ok-crlf", "wiki-codec13-2024-hello", "wiki-codec15-hello"])
def test_over_udp_the_same_is_said(vector: str) -> None:
    """And is not answered."""
    event = receive_datagram(build_datagram(IMEI, body_of(VECTORS[vector]), 0xCAFE, 5))
    assert said_in(event) == [said(vector)]
    assert acknowledge_datagram(event, 1) == b""


@pytest.mark.parametrize("body", [b"", b"\x0c\x01", b"\x07\x01\x01", FACTORY.body(records=2)])
def test_a_datagram_of_another_kind_says_nothing(body: bytes) -> None:
    """An undecodable one is kept as a whole, one of records has them."""
    assert said_in(receive_datagram(build_datagram(IMEI, body, 0xCAFE, 5))) == []


@pytest.mark.parametrize("payload", [b"\0", b"\x1b[0m", b"\xff\xfe", "a\u200eb".encode(), b"\x7f"])
def test_bytes_that_nobody_can_read_are_no_text(payload: bytes) -> None:
    assert text_of(payload) is None


def test_text_need_not_be_ascii() -> None:
    assert text_of("Žalia, 20 °C\r\n".encode()) == "Žalia, 20 °C\r\n"
