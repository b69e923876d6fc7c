"""Codec 8, 8 Extended and 16, and the command bodies: what parses builds back, and what is wrong is refused."""

from __future__ import annotations

import gc
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import DecodeError, EncodeError
from gateway.protocols.teltonika import border, wire
from gateway.protocols.teltonika.bulk import Blobs, Fields, Pairs
from gateway.protocols.teltonika.frame import MAX_DATA_LENGTH
from gateway.protocols.teltonika.wire import CODEC_8, CODEC_8_EXTENDED, CODEC_16, decode_packet, encode_packet
from gateway.protocols.teltonika.wire_commands import BODIES, decode_command, encode_command
from tests.builders import AVL_CODECS, FrameFactory, any_packet

HEAD_SIZE = 24  # timestamp, priority, GPS element


@given(any_packet())
def test_what_is_built_is_parsed_to_the_same(packet: dict[str, Any]) -> None:
    """All values of all fields, duplicate ids and empty groups included."""
    assert decode_packet(encode_packet(packet)) == packet


@given(st.sampled_from(AVL_CODECS), st.binary(max_size=200))
def test_what_parses_builds_to_the_same_and_what_does_not_is_a_decode_error(codec: int, rest: bytes) -> None:
    """No other exception, whatever the bytes."""
    body = bytes([codec]) + rest
    try:
        packet = decode_packet(body)
    except DecodeError:
        return
    assert encode_packet(packet) == body


@given(any_packet(), st.data())
def test_a_damaged_packet_never_raises_anything_else(packet: dict[str, Any], data: st.DataObject) -> None:
    """Bytes that are nearly right reach further into the decoder than random ones."""
    body = bytearray(encode_packet(packet))
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(body)))
    for damaged in (bytes(body), bytes(body[:end])):
        assert plain_result(damaged) == compiled_result(damaged)


@given(st.sampled_from(AVL_CODECS), st.binary(max_size=120))
def test_the_plain_and_the_compiled_grammar_agree(codec: int, rest: bytes) -> None:
    """In what they read, and in what they refuse and why."""
    body = bytes([codec]) + rest
    assert plain_result(body) == compiled_result(body)


@given(any_packet())
def test_plain_and_compiled_agree_on_good_packets(packet: dict[str, Any]) -> None:
    """And both build the same bytes."""
    body = encode_packet(packet)
    assert plain_result(body) == compiled_result(body) == packet
    assert border.build(wire._COMPILED[body[0]], packet) == body


def plain_result(body: bytes) -> Any:
    return result(lambda: border.parse(wire.PACKETS[body[0]], body)) if body[:1] and body[0] in wire.PACKETS else None


def compiled_result(body: bytes) -> Any:
    return result(lambda: decode_packet(body)) if body[:1] and body[0] in wire.PACKETS else None


def result(decode: Any) -> Any:
    """What was read, without the stream that an interpreted Struct leaves in it; or why nothing was."""
    try:
        packet = decode()
    except DecodeError as error:
        return error.reason
    return {name: value for name, value in packet.items() if not name.startswith("_")}


def body_of(codec: int = CODEC_8, **fields: Any) -> bytes:
    factory = FrameFactory(codec=codec)
    return factory.body([factory.record(**fields)])


@pytest.mark.parametrize("codec", AVL_CODECS)
def test_a_wrong_total_is_refused(codec: int) -> None:
    """N total is the number of the elements in all groups, or the packet is not what it seems."""
    body = bytearray(body_of(codec))
    total_at = 2 + HEAD_SIZE + {CODEC_8: 1, CODEC_8_EXTENDED: 3, CODEC_16: 3}[codec]
    assert body[total_at] == 4
    body[total_at] = 5
    with pytest.raises(DecodeError, match=r"counts disagree \(at byte 2\)"):
        decode_packet(bytes(body))
    assert plain_result(bytes(body)) == "counts disagree"


def test_variable_length_elements_count_in_the_total() -> None:
    """N total includes NX."""
    (record,) = decode_packet(body_of(CODEC_8_EXTENDED, nx=[(256, b"VIN"), (331, b"")]))["records"]
    assert (record["total"], record["nx"]) == (6, [(256, b"VIN"), (331, b"")])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "ends too early"),
        (b"\x07\x00\x00", "unknown codec"),
        (b"\x08", "ends too early"),
        (b"\x08\x00", "ends too early"),
        (b"\x08\x01\x01", "ends too early"),
        (b"\x08\x00\x01", "counts disagree"),
        (b"\x08\x00\x00\x00", "goes on after its end"),
        (body_of()[:-1], "ends too early"),
        (body_of()[:-1] + b"\x02", "counts disagree"),
        (body_of() + b"\x01", "goes on after its end"),
    ],
)
def test_a_refusal_says_why(body: bytes, reason: str) -> None:
    """The reason is one of few texts, to be counted; the place is in the text for people."""
    with pytest.raises(DecodeError) as caught:
        decode_packet(body)
    assert caught.value.reason == reason
    assert caught.value.offset is not None
    assert 0 <= caught.value.offset <= len(body)


def test_the_offset_of_a_refusal_is_where_the_record_begins() -> None:
    """A record cut short is named by its first byte, trailing bytes by theirs."""
    body = FrameFactory().body(records=2)
    second = 2 + (len(body) - 3) // 2
    with pytest.raises(DecodeError) as cut_short:
        decode_packet(body[:-10])
    with pytest.raises(DecodeError) as too_long:
        decode_packet(body + b"\0\0")
    assert (cut_short.value.offset, too_long.value.offset) == (second, len(body))


def test_altitude_and_coordinates_have_a_sign_and_io_values_do_not() -> None:
    """Eight bytes are kept to the last bit."""
    fields = {"altitude": -412, "longitude": -712_345_678, "latitude": -1, "n8": [(78, 2**64 - 1), (11, 2**53 + 1)]}
    (record,) = decode_packet(body_of(**fields))["records"]
    assert {name: record[name] for name in fields} == fields


def test_an_id_that_stands_twice_is_kept_twice() -> None:
    """Which one counts is for those to say who know what it means."""
    (record,) = decode_packet(body_of(n1=[(1, 0), (1, 1)]))["records"]
    assert record["n1"] == [(1, 0), (1, 1)]


@pytest.mark.parametrize("codec", AVL_CODECS)
@pytest.mark.parametrize("count", [0, 1, 255])
def test_a_packet_holds_0_to_255_records(codec: int, count: int) -> None:
    """Number of data is one byte."""
    packet = decode_packet(FrameFactory(codec=codec).body(records=count))
    assert (packet["count"], len(packet["records"])) == (count, count)


@pytest.mark.parametrize(
    "packet",
    [
        {"codec_id": 7, "records": []},
        {"records": []},
        {"codec_id": CODEC_8, "records": [FrameFactory().record()] * 256},
        {"codec_id": CODEC_8, "records": [FrameFactory().record(n1=[(256, 1)])]},
        {"codec_id": CODEC_8, "records": [FrameFactory().record(n1=[(1, 256)])]},
        {"codec_id": CODEC_8, "records": [FrameFactory().record(altitude=2**15)]},
        {"codec_id": CODEC_8, "records": [{}]},
        {"codec_id": CODEC_8, "records": [None]},
        {"codec_id": CODEC_8_EXTENDED, "records": [FrameFactory().record(codec=CODEC_8)]},
    ],
)
def test_what_the_wire_cannot_hold_is_an_encode_error(packet: dict[str, Any]) -> None:
    """No library's error gets out of building either."""
    with pytest.raises(EncodeError):
        encode_packet(packet)


@pytest.mark.parametrize(
    "body",
    [
        # One record that claims 65,535 elements, in a group of one byte, of eight, of variable length.
        b"\x8e\x01" + bytes(HEAD_SIZE + 2) + b"\xff\xff" + b"\xff\xff" + b"\0" * (MAX_DATA_LENGTH - 32),
        b"\x8e\x01" + bytes(HEAD_SIZE + 2) + b"\xff\xff" + bytes(6) + b"\xff\xff" + b"\0" * (MAX_DATA_LENGTH - 38),
        b"\x8e\x01" + bytes(HEAD_SIZE + 2) + b"\xff\xff" + bytes(8) + b"\xff\xff" + b"\0" * (MAX_DATA_LENGTH - 40),
        # 255 records, of which the body has none.
        b"\x8e\xff\xff",
        b"\x08\xff" + b"\xff" * (MAX_DATA_LENGTH - 2),
    ],
)
def test_a_count_costs_no_more_than_the_bytes_that_are_there(body: bytes) -> None:
    """The greatest body with the worst counts is refused in milliseconds."""
    started = time.process_time()
    with pytest.raises(DecodeError):
        decode_packet(body)
    assert time.process_time() - started < 0.5


def test_what_is_decoded_is_freed_when_nobody_holds_it() -> None:
    """Nothing of a packet refers to itself: left to the garbage collector, decoding takes twice as long."""
    body = FrameFactory().body(records=3)
    gc.collect()
    gc.disable()
    try:
        for _ in range(200):
            decode_packet(body)
        assert gc.collect() < 200
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("field", "value", "data"),
    [
        (Fields(angle="H", satellites="B"), {"angle": 90, "satellites": 7}, "005a07"),
        (Pairs(count="B", avl_id="B", value="H"), [(66, 12430), (67, 1)], "02" + "42308e" + "430001"),
        (Pairs(count="H", avl_id="H", value="Q"), [], "0000"),
        (Blobs(count="H", avl_id="H", length="H"), [(331, b""), (256, b"VIN")], "0002" + "014b0000" + "0100000356494e"),
    ],
)
def test_a_bulk_field_stands_for_itself(field: Any, value: Any, data: str) -> None:
    """Each parses and builds outside a record too."""
    assert border.parse(field, bytes.fromhex(data)) == value
    assert border.build(field, value).hex() == data
    with pytest.raises(DecodeError, match="ends too early"):
        border.parse(field, bytes.fromhex(data)[:-1])


def test_only_fields_have_a_size() -> None:
    """Groups are as long as their count says."""
    assert Fields(angle="H", satellites="B").sizeof() == 3


@given(
    st.sampled_from(sorted(BODIES)),
    st.lists(
        st.fixed_dictionaries(
            {
                "type": st.integers(0, 255),
                "payload": st.binary(max_size=40),
                "imei": st.from_regex(r"[1-9][0-9]{14}", fullmatch=True),
                "timestamp": st.integers(0x400, 2**32 - 1),
            }
        ),
        max_size=3,
    ),
)
def test_command_messages_built_are_parsed_to_the_same(codec: int, messages: list[dict[str, Any]]) -> None:
    """Each codec keeps the fields that it has."""
    own = {"type", "payload"} | {12: set(), 13: {"timestamp"}, 14: {"imei"}, 15: {"timestamp", "imei"}}[codec]
    expected = [{name: value for name, value in message.items() if name in own} for message in messages]
    decoded = decode_command(encode_command(codec, *messages))["messages"]
    assert [{name: got[name] for name in got if name != "timestamp_size"} for got in decoded] == expected


@given(st.sampled_from(sorted(BODIES)), st.binary(max_size=80))
def test_command_bodies_that_parse_build_to_the_same(codec: int, rest: bytes) -> None:
    """And what does not parse is a DecodeError, nothing else."""
    body = bytes([codec]) + rest
    try:
        decoded = decode_command(body)
    except DecodeError:
        return
    assert encode_command(codec, *decoded["messages"]) == body


@pytest.mark.parametrize("arguments", [(0x08, {}), (12, {}), (12, {"type": 5}), (12, {"type": 999, "payload": b""})])
def test_an_impossible_command_is_an_encode_error(arguments: Any) -> None:
    """Unknown codec, missing fields, values out of range."""
    codec, message = arguments
    with pytest.raises(EncodeError):
        encode_command(codec, message)


def test_an_imei_with_letters_cannot_be_packed() -> None:
    """Codec 14 holds digits."""
    with pytest.raises(EncodeError):
        encode_command(14, {"type": 5, "payload": b"", "imei": "no imei at all"})


def test_a_tracker_without_a_clock_has_four_bytes_of_timestamp() -> None:
    """Only what is a plausible time in milliseconds is read as eight bytes."""
    body = encode_command(13, {"type": 6, "payload": b"longer than 4", "timestamp": 0})
    (message,) = decode_command(body)["messages"]
    assert (message["timestamp"], message["timestamp_size"], message["payload"]) == (0, 4, b"longer than 4")


@pytest.mark.parametrize("body", [b"", b"\x08\x00\x00", b"\x0c", b"\x0c\x01\x05\x00\x00\x00\xff\x01", b"\x0c\x00\x01"])
def test_a_body_that_is_no_command_is_a_decode_error(body: bytes) -> None:
    """Too short, another codec, a size beyond the end, counts that disagree."""
    with pytest.raises(DecodeError):
        decode_command(body)
