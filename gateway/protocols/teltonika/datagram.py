"""Teltonika over UDP: every datagram stands for itself, names its tracker and is answered by a datagram.

Teltonika wiki, page Codec; all integers are big-endian::

    datagram  length 2 | packet id 2 | not usable byte 1 | AVL packet id 1 | IMEI length 2 | IMEI | body
    length    of all that follows it
    body      codec id to number of data 2, as on TCP; no preamble, no data field length, no CRC
    answer    0005 | packet id 2 | 01 | AVL packet id 1 | number of records accepted 1

There is no login: who may send is decided for each datagram by its ident, and whoever may not hears nothing. What is no
datagram of this form is noise and hears nothing either: ProtocolViolation. The not usable byte is 01 (in old documents
a packet type, 0 to 2): any is taken. Commands are documented for TCP only.
"""

from __future__ import annotations

import attrs

from gateway.errors import DecodeError, ProtocolViolation
from gateway.protocols.teltonika import border, wire
from gateway.protocols.teltonika.bulk import Fields
from gateway.protocols.teltonika.frame import MAX_IMEI_LENGTH
from gateway.protocols.teltonika.wire_commands import BODIES as COMMAND_BODIES
from gateway.protocols.teltonika.wire_commands import Message, decode_command

NOT_USABLE = 1

HEAD = Fields(length="H", packet_id="H", not_usable="B", avl_packet_id="B", imei_length="H")
ACKNOWLEDGEMENT = Fields(length="H", packet_id="H", not_usable="B", avl_packet_id="B", accepted="B")

_LENGTH = 2  # the length counts what follows it


@attrs.frozen
class DatagramReceived:
    """Records of ``ident``: ``packet`` as wire.decode_packet gives it, from ``body``."""

    ident: str
    packet: wire.Packet
    packet_id: int
    avl_packet_id: int
    body: bytes


@attrs.frozen
class DatagramRejected:
    """A datagram of ``ident`` whose ``body`` is no packet: to be kept whole (``datagram``), then acknowledged.

    ``reason`` can be counted, ``detail`` has the numbers; ``count`` is the number of records that it declares.
    """

    reason: str
    ident: str
    count: int
    packet_id: int
    avl_packet_id: int
    body: bytes
    datagram: bytes
    detail: str = ""


DatagramEvent = DatagramReceived | DatagramRejected


def receive_datagram(data: bytes) -> DatagramEvent:
    """What one datagram says. Raises ProtocolViolation where it is not one of a Teltonika tracker."""
    head = _head(data)
    imei, body = _split(data, head["imei_length"])
    packet_id, avl_packet_id = head["packet_id"], head["avl_packet_id"]
    try:
        return DatagramReceived(imei, wire.decode_packet(body), packet_id, avl_packet_id, body)
    except DecodeError as error:
        count = wire.declared_count(body)
        return DatagramRejected(error.reason, imei, count, packet_id, avl_packet_id, body, data, detail=str(error))


def said_in(event: DatagramEvent) -> list[Message]:
    """What a datagram of Codec 12 to 15 says, as serial_data.message_of takes it; nothing where it is another one.

    Trackers that pass on a serial port may do so over UDP (wiki, page Codec, Codec 15). There is no answer to it.
    """
    if not event.body or event.body[0] not in COMMAND_BODIES:
        return []
    try:
        decoded = decode_command(event.body)
    except DecodeError:
        return []
    return [{"codec_id": decoded["codec_id"], **message} for message in decoded["messages"]]


def acknowledge_datagram(event: DatagramEvent, count: int) -> bytes:
    """``count`` records of ``event`` are safe: the datagram to send back; no bytes for commands and empty bodies.

    Raises EncodeError where ``count`` is more than one byte can say.
    """
    if not event.body or event.body[0] in COMMAND_BODIES:
        return b""
    answer = {
        "length": ACKNOWLEDGEMENT.layout.size - _LENGTH,
        "packet_id": event.packet_id,
        "not_usable": NOT_USABLE,
        "avl_packet_id": event.avl_packet_id,
        "accepted": count,
    }
    return border.build(ACKNOWLEDGEMENT, answer)


def build_datagram(imei: str, body: bytes, packet_id: int, avl_packet_id: int) -> bytes:
    """What a tracker sends. Raises EncodeError."""
    content = imei.encode("ascii", "replace") + body
    head = {
        "length": HEAD.layout.size - _LENGTH + len(content),
        "packet_id": packet_id,
        "not_usable": NOT_USABLE,
        "avl_packet_id": avl_packet_id,
        "imei_length": len(imei),
    }
    return border.build(HEAD, head) + content


def _head(data: bytes) -> dict[str, int]:
    try:
        head: dict[str, int] = border.parse(HEAD, data)
    except DecodeError as error:
        raise ProtocolViolation("not a datagram of a tracker", str(error)) from error
    if head["length"] != len(data) - _LENGTH:
        raise ProtocolViolation("datagram length is wrong", f"{head['length']}, but {len(data) - _LENGTH} bytes follow")
    return head


def _split(data: bytes, imei_length: int) -> tuple[str, bytes]:
    """The IMEI and the body behind the head."""
    begin = HEAD.layout.size
    imei, body = data[begin : begin + imei_length], data[begin + imei_length :]
    if not (1 <= imei_length <= MAX_IMEI_LENGTH and len(imei) == imei_length and imei.isdigit()):
        raise ProtocolViolation("not an IMEI", imei[:MAX_IMEI_LENGTH].hex())
    return imei.decode("ascii"), body
