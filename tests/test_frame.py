"""Frames, logins and pings on a stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import EncodeError, ProtocolViolation
from gateway.protocols.teltonika import frame
from gateway.protocols.teltonika.frame import MAX_DATA_LENGTH, FrameBuffer
from tests.builders import IMEI, FrameFactory

KIB = 1024


def buffer_of(data: bytes, max_data_length: int = MAX_DATA_LENGTH) -> FrameBuffer:
    buffer = FrameBuffer(max_data_length)
    buffer.receive(data)
    return buffer


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_frames_come_out_one_by_one_whatever_is_in_them(first: bytes, second: bytes) -> None:
    """Only the length is believed; the body may be anything."""
    frames = [frame.build_frame(first), frame.build_frame(second)]
    buffer = buffer_of(b"".join(frames))
    assert [buffer.next_frame(), buffer.next_frame(), buffer.next_frame()] == [*frames, None]
    assert [frame.body_of(data) for data in frames] == [first, second]
    assert all(frame.has_good_crc(data) for data in frames)


def test_a_frame_is_handed_out_with_its_last_byte() -> None:
    """Not before, and nothing is lost meanwhile."""
    data = FrameFactory().packet()
    buffer = FrameBuffer()
    for byte in data[:-1]:
        buffer.receive(bytes([byte]))
        assert buffer.next_frame() is None
    buffer.receive(data[-1:])
    assert (buffer.next_frame(), len(buffer)) == (data, 0)


def test_the_default_limit_is_64_kib() -> None:
    """As documented: 65,536 bytes of data field are taken, 65,537 are not."""
    assert buffer_of(bytes(4) + (64 * KIB).to_bytes(4, "big")).next_frame() is None
    with pytest.raises(ProtocolViolation, match="65537 > 65536"):
        buffer_of(bytes(4) + (64 * KIB + 1).to_bytes(4, "big")).next_frame()


def test_a_length_above_the_limit_is_refused_before_the_body_comes() -> None:
    """Eight bytes are enough to know."""
    assert buffer_of(bytes(4) + b"\0\0\0\x64", max_data_length=100).next_frame() is None
    with pytest.raises(ProtocolViolation, match="data field length above the limit: 101 > 100"):
        buffer_of(bytes(4) + b"\0\0\0\x65", max_data_length=100).next_frame()


@pytest.mark.parametrize("data", ["01", "0001", "000001", "00000001", "00ff", "474554"])
def test_a_preamble_that_is_not_zero_is_refused_at_its_first_wrong_byte(data: str) -> None:
    """Nothing that follows could be understood."""
    with pytest.raises(ProtocolViolation, match="preamble is not zero"):
        buffer_of(bytes.fromhex(data)).next_frame()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"G", id="HTTP"),
        pytest.param(b"\x16", id="TLS"),
        pytest.param(b"SSH-2.0", id="SSH"),
        pytest.param(b"\x03\x00\x00", id="RDP"),
        pytest.param(b"\xff\xfb\x01", id="telnet"),
        pytest.param(b"\x01", id="length above 255"),
        pytest.param(b"\x00\x00", id="no length: a frame before its login"),
        pytest.param(b"\x00\x15", id="21 digits"),
        pytest.param(b"\x00\x0fA", id="a letter"),
        pytest.param(b"\x00\x0f35630704244101 ", id="a space"),
        pytest.param(b"\x00\x02\xc2\xb2", id="a digit that is not ASCII"),
    ],
)
def test_what_cannot_become_a_login_is_refused_at_once(data: bytes) -> None:
    """Without waiting for more; a scanner may never send more."""
    with pytest.raises(ProtocolViolation) as caught:
        buffer_of(data).next_login()
    assert caught.value.detail.startswith("begins with ")


@pytest.mark.parametrize("imei", ["1", IMEI, "3563070424410130", "12345678901234567890", "000000000000000"])
def test_a_login_of_1_to_20_digits_is_taken(imei: str) -> None:
    """Old documents print 16 digits; leading zeros stay."""
    assert buffer_of(frame.build_login(imei)).next_login() == imei


@pytest.mark.parametrize("end", range(17))
def test_a_login_is_waited_for(end: int) -> None:
    """Two bytes may arrive alone."""
    buffer = buffer_of(FrameFactory().login()[:end])
    assert buffer.next_login() is None
    buffer.receive(FrameFactory().login()[end:])
    assert buffer.next_login() == IMEI


def test_pings_take_no_room() -> None:
    """However many."""
    buffer = buffer_of(b"\xff" * 100_000)
    assert (buffer.next_login(), len(buffer)) == (None, 0)
    buffer.receive(b"\xff" * 100_000)
    assert (buffer.next_frame(), len(buffer)) == (None, 0)


def test_the_upper_16_bits_of_the_crc_field_must_be_zero() -> None:
    """A right checksum under dirt is a wrong field."""
    data = FrameFactory().packet()
    assert frame.has_good_crc(data)
    assert not frame.has_good_crc(data[:-4] + b"\0\1" + data[-2:])


def test_answers_are_binary() -> None:
    """The verdict is the byte 01, not the text; the count has four bytes."""
    assert (frame.build_verdict(True), frame.build_verdict(False)) == (b"\x01", b"\x00")
    assert frame.build_acknowledgement(21) == b"\0\0\0\x15"


@pytest.mark.parametrize("count", [-1, 2**32, None])
def test_an_impossible_count_is_an_encode_error(count: int) -> None:
    """Not whatever the library raises."""
    with pytest.raises(EncodeError):
        frame.build_acknowledgement(count)
