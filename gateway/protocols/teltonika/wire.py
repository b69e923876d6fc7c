"""The AVL data packet as bytes: Codec 8, Codec 8 Extended and Codec 16.

Names and order are those of the Teltonika wiki, page Codec; all integers are big-endian::

    codec id 1 | number of data 1: 1 | records | number of data 2: 1
    record:      timestamp 8 | priority 1 | GPS element 15 | IO element
    GPS element: longitude 4 | latitude 4 | altitude 2 | angle 2 | satellites 1 | speed 2
    IO element:  event IO id | [generation type 1] | N total | N1 | N1 x (id, 1 byte) | N2 ... | N4 ... | N8 ... | [NX]

                                event IO id   N total, N1...   id   generation type   NX
    Codec 8           0x08           1              1           1          -           -
    Codec 8 Extended  0x8E           2              2           2          -          yes
    Codec 16          0x10           2              1           2          1           -

(A table of that page gives Codec 16 two bytes of N total; its own frames have one.)

A packet is a dict of ``codec_id``, ``count``, ``records`` and ``count_again``; a record is a dict of wire values:
``timestamp`` in ms, ``longitude`` and ``latitude`` in 1e-7 degrees, ``altitude`` in m, ``angle`` in degrees, ``speed``
in km/h, and the groups ``n1`` to ``n8`` as lists of (AVL id, unsigned value), ``nx`` of (AVL id, bytes). An id that
stands twice is kept twice. Nothing is converted, and no value is judged: a strange position rejects no packet.
"""

from __future__ import annotations

from typing import Any

from construct import Array, Check, Const, Construct, Int8ub, Rebuild, Terminated, len_, this

from gateway.errors import DecodeError, EncodeError
from gateway.protocols.teltonika import border
from gateway.protocols.teltonika.bulk import Blobs, Fields, FlatStruct, Pairs, Record

Packet = dict[str, Any]

CODEC_8 = 0x08
CODEC_8_EXTENDED = 0x8E
CODEC_16 = 0x10

# The documents say only "2 bytes" of altitude; below sea level it is two's complement, as longitude and latitude are.
_BEGIN = {
    "timestamp": "Q",
    "priority": "B",
    "longitude": "i",
    "latitude": "i",
    "altitude": "h",
    "angle": "H",
    "satellites": "B",
    "speed": "H",
}

RECORDS: dict[int, Construct] = {
    CODEC_8: Record(
        Fields(**_BEGIN, event_io_id="B", total="B"),
        n1=Pairs(count="B", avl_id="B", value="B"),
        n2=Pairs(count="B", avl_id="B", value="H"),
        n4=Pairs(count="B", avl_id="B", value="I"),
        n8=Pairs(count="B", avl_id="B", value="Q"),
    ),
    CODEC_8_EXTENDED: Record(
        Fields(**_BEGIN, event_io_id="H", total="H"),
        n1=Pairs(count="H", avl_id="H", value="B"),
        n2=Pairs(count="H", avl_id="H", value="H"),
        n4=Pairs(count="H", avl_id="H", value="I"),
        n8=Pairs(count="H", avl_id="H", value="Q"),
        nx=Blobs(count="H", avl_id="H", length="H"),
    ),
    CODEC_16: Record(
        Fields(**_BEGIN, event_io_id="H", generation_type="B", total="B"),
        n1=Pairs(count="B", avl_id="H", value="B"),
        n2=Pairs(count="B", avl_id="H", value="H"),
        n4=Pairs(count="B", avl_id="H", value="I"),
        n8=Pairs(count="B", avl_id="H", value="Q"),
    ),
}


def _packet(codec_id: int) -> Construct:
    return FlatStruct(
        "codec_id" / Const(codec_id, Int8ub),
        "count" / Rebuild(Int8ub, len_(this.records)),
        "records" / Array(this.count, RECORDS[codec_id]),
        "count_again" / Rebuild(Int8ub, this.count),
        Check(this.count == this.count_again),
        Terminated,
    )


PACKETS: dict[int, Construct] = {codec_id: _packet(codec_id) for codec_id in RECORDS}

_COMPILED = {codec_id: packet.compile() for codec_id, packet in PACKETS.items()}


def decode_packet(body: bytes) -> Packet:
    """The AVL data packet in ``body``, which is all bytes from codec id to number of data 2.

    Raises DecodeError where these bytes are not one: an unknown codec, too few or too many bytes, counts that disagree.
    The time that this takes is bounded by the length of ``body``, whatever counts it claims.
    """
    packet = _COMPILED.get(body[0]) if body else None
    if packet is None:
        raise DecodeError("unknown codec" if body else "ends too early", 0)
    decoded: Packet = border.parse(packet, body)
    return decoded


def encode_packet(packet: Packet) -> bytes:
    """The body of ``packet``, whose ``codec_id`` and ``records`` are used; counts and totals are computed.

    Raises EncodeError.
    """
    grammar = PACKETS.get(packet.get("codec_id", -1))
    if grammar is None:
        raise EncodeError(f"unknown codec {packet.get('codec_id')!r}")
    return border.build(grammar, {"codec_id": packet["codec_id"], "records": packet["records"]})


def declared_count(body: bytes) -> int:
    """Number of data 1, whatever else is wrong with ``body``; 0 where it is too short to have one."""
    return body[1] if len(body) > 1 else 0
