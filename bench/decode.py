"""How fast packets are decoded, beside a decoder written by hand with ``struct``, measured in the same run.

The baseline is the least that a Python program can do: no CRC, no check of any count, one dict a record, the IO
elements in a dict of it. ``python -m bench.decode`` prints the table of this part alone.
"""

from __future__ import annotations

import statistics
import struct
import time
from collections.abc import Callable
from typing import Any

from bench.load import FIRST_IMEI
from bench.rows import Row, table
from gateway.emulator.tape import SHAPES, Shape, Tape
from gateway.protocols.teltonika.frame import body_of, build_login
from gateway.protocols.teltonika.session import IdentReceived, PacketReceived, Session
from gateway.protocols.teltonika.wire import CODEC_8_EXTENDED, decode_packet

PART = "decode"
BASELINE = "hand-written struct"
BEGIN_MS = 1_700_000_000_000
BATCH = 50  # packets between two looks at the clock
ROUNDS = 9  # baseline and candidate take turns, so that a slow moment of the machine meets both

# 17 IO elements of all widths: what an FMB tracker in a car sends with each record.
SEVENTEEN = (
    ((239, 1), (240, 1), (80, 1), (21, 4), (200, 0), (69, 1), (113, 97), (1, 1)),
    ((181, 13), (182, 8), (66, 14120), (67, 4081), (205, 23411)),
    ((241, 24602), (199, 18230), (16, 48213377)),
    ((78, 0x0123456789ABCDEF),),
)

PACKETS = {
    "20 records of 17 IO elements, Codec 8E": Shape(CODEC_8_EXTENDED, 20, SEVENTEEN),
    "1 record of 17 IO elements, Codec 8E": Shape(CODEC_8_EXTENDED, 1, SEVENTEEN),
    "pkt10: 10 records of 18, Codec 8E": SHAPES["pkt10"],
    "pkt1: 1 record of 10, Codec 8": SHAPES["pkt1"],
}


def hand_written(is_extended: bool) -> Callable[[bytes], list[dict[str, Any]]]:
    """The baseline, for Codec 8 or Codec 8 Extended: trusts every byte. One function, because calls cost."""
    number_format = "H" if is_extended else "B"
    head = struct.Struct(f">QBiihHBH{number_format}{number_format}")
    number = struct.Struct(f">{number_format}")
    groups = [struct.Struct(f">{number_format}{value}") for value in "BHIQ"]
    readers = [(group.unpack_from, group.size) for group in groups]
    unpack_head, unpack_number, unpack_blob = head.unpack_from, number.unpack_from, struct.Struct(">HH").unpack_from

    def decode(body: bytes) -> list[dict[str, Any]]:
        records = []
        at = 2
        for _ in range(body[1]):
            timestamp, priority, longitude, latitude, altitude, angle, satellites, speed, event_io_id, total = (
                unpack_head(body, at)
            )
            at += head.size
            elements: dict[int, Any] = {}
            for unpack, size in readers:
                (count,) = unpack_number(body, at)
                at += number.size
                for _ in range(count):
                    avl_id, value = unpack(body, at)
                    elements[avl_id] = value
                    at += size
            if is_extended:
                (count,) = unpack_number(body, at)
                at += number.size
                for _ in range(count):
                    avl_id, length = unpack_blob(body, at)
                    elements[avl_id] = body[at + 4 : at + 4 + length]
                    at += 4 + length
            records.append(
                {
                    "timestamp": timestamp,
                    "priority": priority,
                    "longitude": longitude,
                    "latitude": latitude,
                    "altitude": altitude,
                    "angle": angle,
                    "satellites": satellites,
                    "speed": speed,
                    "event_io_id": event_io_id,
                    "total": total,
                    "io": elements,
                }
            )
        return records

    return decode


class InSession:
    """What a connection costs beside its transport: frame, CRC, packet, acknowledgement."""

    def __init__(self) -> None:
        self._session = Session()
        self._session.receive_data(build_login(f"{FIRST_IMEI:015d}"))
        assert isinstance(self._session.next_event(), IdentReceived)
        self._session.accept_ident()

    def take(self, frame: bytes) -> bytes:
        """Receive one frame; the acknowledgement."""
        self._session.receive_data(frame)
        event = self._session.next_event()
        assert isinstance(event, PacketReceived)
        return self._session.acknowledge(event.packet["count"])


def run() -> list[Row]:
    """Records a second of each kind of packet: decoded, and through a session."""
    return [row for what, shape in PACKETS.items() for row in _rows(what, shape)]


def ratio(shape: Shape, seconds: float = 1.0) -> float:
    """What decode_packet() reaches of the baseline's speed."""
    frames = _frames(shape)
    rate, baseline = _rates(shape, decode_packet, [body_of(frame) for frame in frames], frames, seconds)
    return rate / baseline


def main() -> None:
    """Print the table of this part."""
    print(table(run()))


def _rows(what: str, shape: Shape) -> list[Row]:
    frames = _frames(shape)
    decoded = _rates(shape, decode_packet, [body_of(frame) for frame in frames], frames)
    received = _rates(shape, InSession().take, frames, frames)
    return [
        Row(PART, what, *_valued(decoded), BASELINE, "decode_packet"),
        Row(PART, what, *_valued(received), BASELINE, "session: frame, CRC, decode_packet, acknowledgement"),
    ]


def _valued(rates: tuple[float, float]) -> tuple[float, str, float]:
    return rates[0], "records/s", rates[1]


def _frames(shape: Shape) -> list[bytes]:
    tape = Tape(shape, BEGIN_MS)
    tape.prepare(BATCH)
    return tape.packets[:BATCH]


def _rates(
    shape: Shape, candidate: Callable[[bytes], Any], inputs: list[bytes], frames: list[bytes], seconds: float = 1.0
) -> tuple[float, float]:
    """The medians of candidate and baseline, in records a second."""
    decode = hand_written(shape.codec_id == CODEC_8_EXTENDED)
    bodies = [body_of(frame) for frame in frames]
    each = seconds / 2 / ROUNDS
    rounds = [(_rate(candidate, inputs, each), _rate(decode, bodies, each)) for _ in range(ROUNDS)]
    rates, baselines = zip(*rounds, strict=True)
    return statistics.median(rates) * shape.records, statistics.median(baselines) * shape.records


def _rate(work: Callable[[bytes], Any], inputs: list[bytes], seconds: float) -> float:
    """Calls a second."""
    calls, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        for data in inputs:
            work(data)
        calls += len(inputs)
    return calls / elapsed


if __name__ == "__main__":
    main()
