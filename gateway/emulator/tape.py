"""Packets that are made once and sent by many: what a load needs, where a drive would cost more than the server.

* ``pkt1``: Codec 8, one record of 10 IO elements, 81 bytes: a tracker that sends each record at once
* ``pkt10``: Codec 8 Extended, 10 records of 18 IO elements, 1,155 bytes: a usual packet
* ``pkt20``: the same with 20 records, 2,295 bytes: a tracker that catches up

The grammar builds one packet; the others are that one with the heads of its records, which have the time and the
position, and the CRC written over. No two records of a device are alike in time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from gateway.emulator.packets import framed
from gateway.protocols.teltonika.checksum import crc16
from gateway.protocols.teltonika.wire import RECORDS, encode_packet

STEP_MS = 1000
_FRAME_HEAD, _BODY_HEAD, _CRC = 8, 2, 4  # bytes before a body, in it before the records, and behind it

Group = Sequence[tuple[int, int]]

# AVL id, value: an FMB tracker in a car that drives.
_EXTENDED: tuple[Group, Group, Group, Group] = (
    ((239, 1), (240, 1), (80, 1), (21, 4), (200, 0), (69, 1), (113, 97), (1, 1)),
    ((181, 13), (182, 8), (66, 14120), (67, 4081), (205, 23411), (206, 314)),
    ((241, 24602), (199, 18230), (16, 48213377)),
    ((78, 0x0123456789ABCDEF),),
)
_PLAIN: tuple[Group, Group, Group, Group] = (
    ((239, 1), (240, 1), (21, 4), (69, 1)),
    ((181, 13), (182, 8), (66, 14120)),
    ((241, 24602), (16, 48213377)),
    ((78, 0x0123456789ABCDEF),),
)


@attrs.frozen
class Shape:
    """What one kind of packet looks like."""

    codec_id: int
    records: int
    groups: tuple[Group, Group, Group, Group]


SHAPES = {
    "pkt1": Shape(0x08, 1, _PLAIN),
    "pkt10": Shape(0x8E, 10, _EXTENDED),
    "pkt20": Shape(0x8E, 20, _EXTENDED),
}


class Tape:
    """An endless row of packets whose timestamps rise by a second a record; it grows as far as somebody reads.

    A packet on TCP does not name its tracker, so all connections share one tape, each at its own place: the cost of a
    packet (a few microseconds, most of it the CRC) is paid once for all of them.
    """

    def __init__(self, shape: Shape, begin_ms: int | None = None) -> None:
        self.records = shape.records
        self.packets: list[bytes] = []
        self._rest = _frames(shape, time.time_ns() // 1_000_000 if begin_ms is None else begin_ms)

    def __getitem__(self, place: int) -> bytes:
        packets = self.packets
        while place >= len(packets):
            packets.append(next(self._rest))
        return packets[place]

    def prepare(self, count: int) -> None:
        """Build the first ``count`` packets now, so that this is not part of what is timed."""
        _ = self[count - 1]


def _frames(shape: Shape, timestamp_ms: int) -> Iterator[bytes]:
    head = RECORDS[shape.codec_id].head
    frame = bytearray(framed(encode_packet({"codec_id": shape.codec_id, "records": [_record(shape)] * shape.records})))
    begin, end = _FRAME_HEAD + _BODY_HEAD, len(frame) - _CRC - 1
    offsets = range(begin, end, (end - begin) // shape.records)
    record = _record(shape)
    step = 0
    while True:
        for offset in offsets:
            record.update(_position(step), timestamp=timestamp_ms)
            head.layout.pack_into(frame, offset, *[record[name] for name in head.names])
            timestamp_ms += STEP_MS
            step += 1
        frame[-_CRC:] = crc16(bytes(frame[_FRAME_HEAD:-_CRC])).to_bytes(_CRC, "big")
        yield bytes(frame)


def _position(step: int) -> dict[str, int]:
    """A drive along a meridian and back, so that position and speed change from record to record as in traffic."""
    along = abs(step % 2000 - 1000)
    return {
        "longitude": 252_797_000,
        "latitude": 546_872_000 + along * 1250,
        "altitude": 112 + step % 7,
        "angle": 0,
        "satellites": 11 + step % 5,
        "speed": 38 + step % 23,
    }


def _record(shape: Shape) -> dict[str, Any]:
    names = ("n1", "n2", "n4", "n8")
    groups: dict[str, Any] = {name: list(group) for name, group in zip(names, shape.groups, strict=True)}
    head = {"timestamp": 0, "priority": 0, **_position(0), "event_io_id": 0, "generation_type": 0}
    return {**head, **groups, "nx": [], "total": sum(map(len, groups.values()))}
