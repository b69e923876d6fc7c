"""Published frames and datagrams: each is decoded as it says, refused as it says, or left to the payloads' tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ProtocolViolation
from gateway.protocols.teltonika import border, frame, wire
from gateway.protocols.teltonika.checksum import crc16
from gateway.protocols.teltonika.datagram import (
    ACKNOWLEDGEMENT,
    DatagramReceived,
    DatagramRejected,
    acknowledge_datagram,
    build_datagram,
    receive_datagram,
)
from gateway.protocols.teltonika.session import (
    NEED_DATA,
    CommandReceived,
    IdentReceived,
    PacketReceived,
    PacketRejected,
    Session,
)
from gateway.protocols.teltonika.wire_commands import decode_command, encode_command

Vector = dict[str, Any]

VECTORS: list[Vector] = json.loads((Path(__file__).parent / "vectors" / "teltonika.json").read_text())
SIZES = {"n1": 1, "n2": 2, "n4": 4, "n8": 8}
PAYLOADS = frozenset({"beacons385"})
RECORD_FIELDS = ("priority", "altitude", "angle", "satellites", "speed", "event_io_id")


def vectors(transport: str, content: str) -> Any:
    """The vectors of this transport that expect this key, as parameters of a test."""
    chosen = [vector for vector in VECTORS if vector["transport"] == transport and content in vector["expect"]]
    assert chosen, f"no vector of transport {transport} expects {content}"
    return pytest.mark.parametrize("vector", chosen, ids=lambda vector: vector["name"])


def data_of(vector: Vector) -> bytes:
    return bytes.fromhex(vector["hex"])


def logged_in(data: bytes) -> Session:
    """A session behind its login that was fed ``data``."""
    session = Session()
    session.receive_data(frame.build_login("356307042441013"))
    assert session.next_event() == IdentReceived("356307042441013")
    session.accept_ident()
    session.receive_data(data)
    return session


def as_expected(record: dict[str, Any]) -> dict[str, Any]:
    """A wire record with the names and the order of the vectors."""
    groups = [name for name in ("n1", "n2", "n4", "n8", "nx") if name in record]
    described = {name: record[name] for name in RECORD_FIELDS} | {
        "timestamp_ms": record["timestamp"],
        "longitude_raw": record["longitude"],
        "latitude_raw": record["latitude"],
        "longitude": record["longitude"] / 1e7,
        "latitude": record["latitude"] / 1e7,
        "io_total": record["total"],
        "io_counts": {name: len(record[name]) for name in groups},
        "io": [element_as_expected(name, *pair) for name in groups for pair in record[name]],
    }
    own = {"generation_type": record["generation_type"]} if "generation_type" in record else {}
    return described | own


def element_as_expected(group: str, avl_id: int, value: Any) -> dict[str, Any]:
    if group == "nx":
        return {"id": avl_id, "len": len(value), "hex": value.hex(), "var": True}
    size = SIZES[group]
    return {"id": avl_id, "len": size, "hex": value.to_bytes(size, "big").hex(), "uint": value}


def check_records(packet: wire.Packet, expect: Vector) -> None:
    assert packet["codec_id"] == expect["codec_id"]
    assert packet["count"] == packet["count_again"] == expect["record_count"]
    records = [as_expected(record) for record in packet["records"]]
    assert records == [on_the_wire(record) for record in expect["records"]]


def on_the_wire(record: Vector) -> Vector:
    """Without what a structured payload means: that is read when normalizing."""
    elements = [{name: value for name, value in element.items() if name not in PAYLOADS} for element in record["io"]]
    return {**record, "io": elements}


@vectors("tcp", "records")
def test_a_published_frame_gives_its_records_and_builds_back(vector: Vector) -> None:
    """All fields, all IO elements in order, the acknowledgement; and the same bytes from what was read."""
    data, expect = data_of(vector), vector["expect"]
    session = logged_in(data)
    event = session.next_event()
    assert isinstance(event, PacketReceived)
    check_records(event.packet, expect)
    assert len(event.body) == expect["data_length"]
    assert f"0x{crc16(event.body):04X}" == expect["crc16"]
    assert session.acknowledge(event.packet["count"]).hex() == expect["server_ack"] == expect["reply"]
    assert session.next_event() is NEED_DATA
    assert frame.build_frame(wire.encode_packet(event.packet)) == data


@vectors("tcp", "messages")
def test_a_published_command_frame_gives_its_messages_and_builds_back(vector: Vector) -> None:
    """Codecs 12 to 15 are read, and never answered."""
    data, expect = data_of(vector), vector["expect"]
    assert expect["server_ack"] is None
    body = frame.body_of(data)
    decoded = decode_command(body)
    assert (decoded["codec_id"], decoded["count"]) == (expect["codec_id"], expect["record_count"])
    assert (len(body), f"0x{crc16(body):04X}") == (expect["data_length"], expect["crc16"])
    session = logged_in(data)
    for message, expected in zip(decoded["messages"], expect["messages"], strict=True):
        check_message(message, expected)
        assert session.next_event() == CommandReceived({"codec_id": expect["codec_id"], **message})
    assert session.next_event() is NEED_DATA
    assert frame.build_frame(encode_command(decoded["codec_id"], *decoded["messages"])) == data


def check_message(message: dict[str, Any], expect: Vector) -> None:
    """``size`` counts what stands between it and the payload too."""
    before_payload = message.get("timestamp_size", 4 if "timestamp" in message else 0) + (8 if "imei" in message else 0)
    seen = {
        "type": message["type"],
        "size": before_payload + len(message["payload"]),
        "payload_hex": message["payload"].hex(),
        "text": text_of(message["payload"]),
    }
    if "timestamp" in message:
        seen["timestamp_ms" if message.get("timestamp_size") == 8 else "timestamp_s"] = message["timestamp"]
    if "imei" in message:
        seen |= {"imei": message["imei"], "imei_hex": message["imei"].rjust(16, "0")}
    assert {name: seen[name] for name in expect} == expect


def text_of(payload: bytes) -> str | None:
    return payload.decode() if all(32 <= byte < 127 or byte in b"\r\n\t" for byte in payload) else None


@vectors("udp", "records")
def test_a_published_datagram_gives_its_records_and_its_acknowledgement(vector: Vector) -> None:
    """Both ids come back in the acknowledgement, and the datagram builds back."""
    data, expect = data_of(vector), vector["expect"]
    event = receive_datagram(data)
    assert isinstance(event, DatagramReceived)
    check_records(event.packet, expect)
    assert (event.ident, event.avl_packet_id) == (expect["imei"], expect["avl_packet_id"])
    assert f"0x{event.packet_id:04X}" == expect["packet_id"]
    assert len(data) - 2 == expect["udp_length"]
    assert acknowledge_datagram(event, event.packet["count"]).hex() == expect["server_ack"]
    assert build_datagram(event.ident, wire.encode_packet(event.packet), event.packet_id, event.avl_packet_id) == data


@vectors("server-ack-udp", "accepted")
def test_a_published_acknowledgement_is_read_and_built(vector: Vector) -> None:
    """The emulator reads what the gateway builds."""
    data, expect = data_of(vector), vector["expect"]
    read = border.parse(ACKNOWLEDGEMENT, data)
    assert {**read, "packet_id": f"0x{read['packet_id']:04X}"} == expect
    assert border.build(ACKNOWLEDGEMENT, read) == data


@vectors("array", "records")
def test_a_published_array_gives_its_records_and_builds_back(vector: Vector) -> None:
    """Codec id to number of data 2, without a frame."""
    body = data_of(vector)
    packet = wire.decode_packet(body)
    check_records(packet, vector["expect"])
    assert f"0x{crc16(body):04X}" == vector["expect"]["crc16_over_array"]
    assert wire.encode_packet(packet) == body


@vectors("tcp-login", "imei")
def test_a_published_login_gives_its_imei(vector: Vector) -> None:
    """And its verdicts are one byte."""
    session, expect = Session(), vector["expect"]
    session.receive_data(data_of(vector))
    assert session.next_event() == IdentReceived(expect["imei"])
    assert session.accept_ident().hex() == expect["server_reply_accept"]
    assert frame.build_verdict(False).hex() == expect["server_reply_reject"]
    assert frame.build_login(expect["imei"]) == data_of(vector)


@vectors("ping", "meaning")
def test_a_ping_is_one_byte_and_gets_no_reply(vector: Vector) -> None:
    """Before the login and after it."""
    assert vector["expect"]["reply"] is None
    for session in (Session(), logged_in(b"")):
        session.receive_data(data_of(vector))
        assert (session.next_event(), session.buffered) == (NEED_DATA, 0)


@vectors("stream", "frames")
@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
def test_a_stream_gives_its_frames_in_pieces_of_any_size(vector: Vector, size: int) -> None:
    """Pings leave no trace; everything else is answered in order."""
    data, session, seen = data_of(vector), Session(), []
    for begin in range(0, len(data), size):
        session.receive_data(data[begin : begin + size])
        while (event := session.next_event()) is not NEED_DATA:
            seen.append(answered(session, event))
    assert seen == [expected for expected in vector["expect"]["frames"] if expected["kind"] != "ping"]


def answered(session: Session, event: Any) -> Vector:
    if isinstance(event, IdentReceived):
        return {"kind": "login", "imei": event.ident, "reply": session.accept_ident().hex()}
    packet = event.packet
    reply = session.acknowledge(packet["count"]).hex()
    return {"kind": "avl", "codec_id": packet["codec_id"], "reply": reply}


def violates(data: bytes) -> bool:
    with pytest.raises(ProtocolViolation):
        logged_in(data).next_event()
    return True


def is_no_datagram(data: bytes) -> bool:
    with pytest.raises(ProtocolViolation):
        receive_datagram(data)
    return True


def rejected(resend_helps: bool) -> Callable[[bytes], bool]:
    def is_rejected(data: bytes) -> bool:
        event = logged_in(data).next_event()
        return isinstance(event, PacketRejected) and event.resend_helps is resend_helps and event.frame == data

    return is_rejected


# What an error of the vectors is called here: how it begins, and what is to happen.
REFUSALS: dict[str, Callable[[bytes], bool]] = {
    "tcp preamble not zero": violates,
    "tcp data length field": lambda data: logged_in(data).next_event() is NEED_DATA,
    "tcp CRC mismatch": rejected(resend_helps=True),
    "tcp record count mismatch": rejected(resend_helps=False),
    "udp UDP length field": is_no_datagram,
    "udp truncated": lambda data: isinstance(receive_datagram(data), DatagramRejected),
}


@pytest.mark.parametrize(
    "vector", [vector for vector in VECTORS if "error" in vector["expect"]], ids=lambda vector: vector["name"]
)
def test_a_broken_vector_is_refused_as_it_says(vector: Vector) -> None:
    """Framing lost, too short, wrong CRC, or not decodable: each in its own way."""
    error = f"{vector['transport']} {vector['expect']['error']}"
    (is_refused,) = [check for beginning, check in REFUSALS.items() if error.startswith(beginning)]
    assert is_refused(data_of(vector))


def test_noise_is_noise_before_the_login_too() -> None:
    """A scanner is known by its first bytes."""
    (noise,) = [vector for vector in VECTORS if vector["name"] == "svenpete-scanner-noise"]
    session = Session()
    session.receive_data(data_of(noise)[:1])
    with pytest.raises(ProtocolViolation):
        session.next_event()


def test_no_vector_is_left_out() -> None:
    """Each is taken by a test above, by its transport and what it expects; values of elements by test_payloads.py."""
    taken = {
        ("tcp", "records"),
        ("tcp", "messages"),
        ("tcp", "error"),
        ("udp", "records"),
        ("udp", "error"),
        ("server-ack-udp", "accepted"),
        ("array", "records"),
        ("tcp-login", "imei"),
        ("ping", "meaning"),
        ("stream", "frames"),
    }
    left = [
        vector["name"]
        for vector in VECTORS
        if vector["transport"] != "value" and not any((vector["transport"], key) in taken for key in vector["expect"])
    ]
    assert left == []
    assert len({vector["name"] for vector in VECTORS}) == len(VECTORS)
