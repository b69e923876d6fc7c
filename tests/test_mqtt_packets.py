"""PUBLISH and PUBACK as bytes, checked against paho's own encoder and decoder."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.errors import PeerError
from gateway.mqtt.packets import (
    MAX_INCOMING,
    PUBLISH_QOS_1,
    PacketCutter,
    packed_text,
    publish_head,
    read_puback,
    stamp,
    timestamp_of,
    variable_length,
)


def test_a_publish_packet_has_the_layout_of_the_standard():
    """MQTT 3.1.1, 3.3: header, topic, packet id, and the payload to the end."""
    head = publish_head(PUBLISH_QOS_1, packed_text("a/b"), b"\x00\x0a", b"", 3)
    assert head + b"xyz" == b"\x32\x0a\x00\x03a/b\x00\x0axyz"


@pytest.mark.parametrize(
    ("length", "encoded"),
    [(0, "00"), (127, "7f"), (128, "8001"), (16383, "ff7f"), (16384, "808001"), (268435455, "ffffff7f")],
)
def test_lengths_are_encoded_as_in_the_standard(length: int, encoded: str):
    """MQTT 5, 1.5.5, the bounds of its table."""
    assert variable_length(length).hex() == encoded


@pytest.mark.parametrize("timestamp", [b"1729132792", b"1729132792.002753"])
def test_the_stamp_is_what_paho_would_send(timestamp: bytes):
    """User properties ``timestamp`` and ``cid``."""
    expected = Properties(PacketTypes.PUBLISH)
    expected.UserProperty = [("timestamp", timestamp.decode()), ("cid", "1")]
    assert stamp(timestamp) == expected.pack()


def test_a_message_without_timestamp_has_only_the_cid():
    """Nothing is made up."""
    expected = Properties(PacketTypes.PUBLISH)
    expected.UserProperty = ("cid", "1")
    assert stamp(b"") == expected.pack()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["timestamp", "server.timestamp", '"timestamp":', "position", "x"]) | st.text(max_size=8)


@given(st.dictionaries(NAMES, VALUES | st.floats(0, 2e9) | st.just('"timestamp":5,'), max_size=6))
def test_the_timestamp_is_found_without_parsing(message: dict):
    """Whatever stands beside it, in any order, nested or in strings."""
    found = timestamp_of(orjson.dumps(message))
    value = message.get("timestamp")
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        assert float(found) == value
    elif value is None or isinstance(value, str | list | dict):
        assert found == b""


@given(st.lists(st.binary(max_size=300), max_size=5), st.data())
def test_packets_are_cut_alike_however_they_arrive(bodies: list[bytes], data):
    """Whole, byte by byte, or in any pieces."""
    packets = [b"\x40" + variable_length(len(body)) + body for body in bodies]
    stream = b"".join(packets)
    size = data.draw(st.integers(1, max(1, len(stream))))
    cutter = PacketCutter()
    found = [packet for at in range(0, len(stream), size) for packet in cutter.cut(stream[at : at + size])]
    assert found == packets


@pytest.mark.parametrize("data", [b"\x40\xff\xff\xff\xff\x01", b"\x30" + variable_length(MAX_INCOMING + 1)])
def test_a_broker_out_of_its_mind_is_noticed(data: bytes):
    """A length that is none, or one that nobody has a reason for."""
    with pytest.raises(PeerError):
        PacketCutter().cut(data)


@pytest.mark.parametrize(
    ("packet", "expected"),
    [("40020102", (258, 0)), ("4003010210", (258, 0x10)), ("404200ff9940" + "00" * 63, (255, 0x99))],
)
def test_a_puback_gives_packet_id_and_reason(packet: str, expected: tuple[int, int]):
    """MQTT 3.1.1 has no reason, MQTT 5 may leave success out."""
    assert read_puback(bytes.fromhex(packet)) == expected


def test_a_puback_without_packet_id_is_the_brokers_fault():
    """It is told as such, not as an IndexError."""
    with pytest.raises(PeerError):
        read_puback(b"\x40\x00")
