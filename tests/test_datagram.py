"""Teltonika over UDP."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import EncodeError, ProtocolViolation
from gateway.protocols.teltonika.datagram import (
    DatagramReceived,
    DatagramRejected,
    acknowledge_datagram,
    build_datagram,
    receive_datagram,
)
from gateway.protocols.teltonika.wire import encode_packet
from gateway.protocols.teltonika.wire_commands import encode_command
from tests.builders import AVL_CODECS, IMEI, FrameFactory, any_packet

FACTORY = FrameFactory()


@pytest.mark.parametrize("codec", AVL_CODECS)
def test_a_datagram_gives_its_records_and_both_ids(codec: int) -> None:
    """And the acknowledgement echoes both."""
    body = FACTORY.body(records=2, codec=codec)
    event = receive_datagram(build_datagram(IMEI, body, packet_id=0x1234, avl_packet_id=0x56))
    assert isinstance(event, DatagramReceived)
    assert (event.ident, event.packet_id, event.avl_packet_id, event.body) == (IMEI, 0x1234, 0x56, body)
    assert (event.packet["codec_id"], event.packet["count"]) == (codec, 2)
    assert acknowledge_datagram(event, 2).hex() == "0005" + "1234" + "01" + "56" + "02"


@pytest.mark.parametrize("kind", [0, 1, 2, 255])
def test_the_not_usable_byte_may_be_anything(kind: int) -> None:
    """Old documents use it as a packet type; the acknowledgement always has 01."""
    data = bytearray(FACTORY.datagram())
    data[4] = kind
    assert acknowledge_datagram(receive_datagram(bytes(data)), 1)[4] == 1


def test_records_that_cannot_be_decoded_are_kept_and_acknowledged_as_declared() -> None:
    """Otherwise the tracker would send them for ever."""
    body = FACTORY.body(records=3)[:-1] + b"\x04"
    data = build_datagram(IMEI, body, packet_id=0xCAFE, avl_packet_id=7)
    event = receive_datagram(data)
    assert isinstance(event, DatagramRejected)
    assert (event.ident, event.count, event.datagram, event.reason) == (IMEI, 3, data, "counts disagree")
    assert acknowledge_datagram(event, event.count).hex() == "0005cafe010703"


@pytest.mark.parametrize("body", [b"", encode_command(12, {"type": 6, "payload": b"OK"})])
def test_commands_and_empty_bodies_get_no_answer(body: bytes) -> None:
    """Commands are documented for TCP only."""
    event = receive_datagram(build_datagram(IMEI, body, packet_id=1, avl_packet_id=1))
    assert isinstance(event, DatagramRejected)
    assert acknowledge_datagram(event, event.count) == b""


GOOD = FACTORY.datagram()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(FACTORY.ping, id="a ping"),
        pytest.param(GOOD[:7], id="half a head"),
        pytest.param(GOOD[:-1], id="cut short"),
        pytest.param(GOOD + b"\0", id="too long"),
        pytest.param(FACTORY.packet(), id="a frame"),
        pytest.param(FACTORY.login(), id="a login"),
        pytest.param(build_datagram("", FACTORY.body(), 1, 1), id="no IMEI"),
        pytest.param(build_datagram("1" * 21, FACTORY.body(), 1, 1), id="21 digits"),
        pytest.param(build_datagram("35630704244101X", FACTORY.body(), 1, 1), id="a letter"),
        pytest.param(build_datagram("+/#", FACTORY.body(), 1, 1), id="what would break a topic"),
        pytest.param(bytes.fromhex("0008cafe0105000f3131"), id="IMEI longer than the datagram"),
    ],
)
def test_noise_is_a_violation(data: bytes) -> None:
    """And gets no answer: nobody is there who could be answered."""
    with pytest.raises(ProtocolViolation):
        receive_datagram(data)


@given(st.binary(max_size=100))
def test_any_bytes_are_a_datagram_or_a_violation(data: bytes) -> None:
    """No other exception."""
    try:
        event = receive_datagram(data)
    except ProtocolViolation:
        return
    assert build_datagram(event.ident, event.body, event.packet_id, event.avl_packet_id)[5:] == data[5:]


@given(st.binary(max_size=100), st.integers(0, 2**16 - 1), st.integers(0, 255))
def test_any_body_of_a_known_form_is_received_or_rejected(body: bytes, packet_id: int, avl_packet_id: int) -> None:
    """Both say who sent it, and both can be acknowledged."""
    event = receive_datagram(build_datagram(IMEI, body, packet_id, avl_packet_id))
    assert (event.ident, event.packet_id, event.avl_packet_id) == (IMEI, packet_id, avl_packet_id)
    assert len(acknowledge_datagram(event, 1)) in (0, 7)


@given(any_packet())
def test_what_is_built_is_received_as_the_same(packet: dict[str, object]) -> None:
    """All codecs."""
    event = receive_datagram(build_datagram(IMEI, encode_packet(packet), 1, 2))
    assert isinstance(event, DatagramReceived)
    assert event.packet == packet


@pytest.mark.parametrize("count", [-1, 256])
def test_a_count_that_has_no_room_is_an_encode_error(count: int) -> None:
    """It is one byte over UDP."""
    with pytest.raises(EncodeError):
        acknowledge_datagram(receive_datagram(GOOD), count)


@pytest.mark.parametrize(("packet_id", "avl_packet_id"), [(2**16, 0), (0, 256), (-1, 0)])
def test_ids_that_have_no_room_are_an_encode_error(packet_id: int, avl_packet_id: int) -> None:
    """Two bytes and one."""
    with pytest.raises(EncodeError):
        build_datagram(IMEI, b"", packet_id, avl_packet_id)
