"""From the bytes of a packet to its messages as JSON: decode, normalize by the model's dictionary, encode.

The baseline is the same packet decoded by hand with ``struct`` and dumped as it is, without names, units and checks:
what a program does that leaves the meaning to others. ``python -m bench.normalize`` prints this part alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from bench.decode import hand_written
from bench.rows import Row, median_rate, table
from gateway import message as msg
from gateway.emulator.tape import SHAPES, Tape
from gateway.protocols.teltonika.frame import body_of
from gateway.protocols.teltonika.normalize import Normalizer, normalizer_for
from gateway.protocols.teltonika.wire import CODEC_8_EXTENDED, decode_packet

PART = "normalize"
BASELINE = "struct by hand and orjson, raw values"
PACKETS = 50

# What a channel knows of each message of a connection.
KNOWN = {"ident": "356307042441013", "peer": "10.0.0.1:40000", "channel.id": 1, "protocol.id": 14}


def run() -> list[Row]:
    """The rows of this part: each step alone, and all of them, for a packet of 20 records of 18 IO elements."""
    shape = SHAPES["pkt20"]
    tape = Tape(shape, 1_700_000_000_000)
    tape.prepare(PACKETS)
    bodies = [body_of(data) for data in tape.packets[:PACKETS]]
    normalizer = normalizer_for("FMB120")
    by_hand = hand_written(shape.codec_id == CODEC_8_EXTENDED)
    steps: list[tuple[str, Callable[[bytes], Any]]] = [
        ("decode, normalize", lambda body: normalized(normalizer, body)),
        ("decode, normalize, JSON", lambda body: as_json(normalizer, body)),
    ]
    baseline = _rate(lambda body: orjson.dumps(by_hand(body), option=orjson.OPT_NON_STR_KEYS), bodies, shape.records)
    rows = [
        Row(PART, what, _rate(step, bodies, shape.records), "records/s", baseline, BASELINE) for what, step in steps
    ]
    records = [record for body in bodies for record in decode_packet(body)["records"]]
    alone = median_rate(lambda: len([normalizer.normalize(record, CODEC_8_EXTENDED) for record in records]))
    return [*rows, Row(PART, "normalize alone", alone, "records/s", note=f"{1e6 / alone:.1f} us a record")]


def normalized(normalizer: Normalizer, body: bytes) -> list[msg.Message]:
    """The messages of a body, with what the channel adds."""
    packet = decode_packet(body)
    return [KNOWN | message for message in normalizer.normalize_all(packet["records"], packet["codec_id"])]


def as_json(normalizer: Normalizer, body: bytes) -> list[bytes]:
    """The same as JSON text."""
    return msg.encode_many(normalized(normalizer, body))


def _rate(work: Callable[[bytes], Any], bodies: list[bytes], records: int) -> float:
    """Records a second, on one core."""

    def once() -> int:
        for body in bodies:
            work(body)
        return len(bodies) * records

    return median_rate(once)


if __name__ == "__main__":
    print(table(run()))
