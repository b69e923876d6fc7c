"""What a tracker sends, built readably: ``FrameFactory().packet(records=2, bad_crc=True)`` instead of hexadecimal.

Made with the gateway's own grammar; that this is right, ``test_vectors.py`` shows on bytes of others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import attrs
from hypothesis import strategies as st

from gateway.protocols.teltonika.checksum import crc16
from gateway.protocols.teltonika.datagram import build_datagram
from gateway.protocols.teltonika.frame import PING, build_frame, build_login
from gateway.protocols.teltonika.wire import CODEC_8, CODEC_8_EXTENDED, CODEC_16, encode_packet
from gateway.protocols.teltonika.wire_commands import CODEC_12, RESPONSE, encode_command

AVL_CODECS = (CODEC_8, CODEC_8_EXTENDED, CODEC_16)
IMEI = "356307042441013"
BEGIN_MS = 1_700_000_000_000
STEP_MS = 1000

Record = dict[str, Any]


@attrs.define
class FrameFactory:
    """One tracker's bytes. Each record that it makes is a second later than the one before."""

    imei: str = IMEI
    codec: int = CODEC_8
    next_timestamp: int = BEGIN_MS

    ping = PING

    def login(self, imei: str | None = None) -> bytes:
        """The length of the IMEI and the IMEI."""
        return build_login(self.imei if imei is None else imei)

    def record(self, codec: int | None = None, **fields: Any) -> Record:
        """A wire record: a car that drives in Vilnius, except for ``fields`` (``n1=[(240, 0)]``, ``satellites=0``)."""
        record = {
            "timestamp": self._tick(),
            "priority": 0,
            "longitude": 252_797_000,
            "latitude": 546_872_000,
            "altitude": 112,
            "angle": 90,
            "satellites": 11,
            "speed": 50,
            "event_io_id": 0,
            "n1": [(239, 1), (240, 1)],
            "n2": [(66, 12_430)],
            "n4": [(16, 48_213_377)],
            "n8": [],
        }
        record |= _own_fields(self.codec if codec is None else codec) | fields
        return record | {"total": sum(len(record[group]) for group in _GROUPS if group in record)}

    def body(self, records: int | Sequence[Record] = 1, codec: int | None = None) -> bytes:
        """Codec id to number of data 2, of so many records or of these."""
        codec = self.codec if codec is None else codec
        made = [self.record(codec) for _ in range(records)] if isinstance(records, int) else list(records)
        return encode_packet({"codec_id": codec, "records": made})

    def packet(
        self,
        records: int | Sequence[Record] = 1,
        codec: int | None = None,
        bad_crc: bool = False,
        count_again: int | None = None,
    ) -> bytes:
        """A frame. ``count_again`` puts a wrong number of data 2 into it, under a right CRC."""
        body = self.body(records, codec)
        if count_again is not None:
            body = body[:-1] + bytes([count_again])
        return self.frame(body, bad_crc)

    def frame(self, body: bytes, bad_crc: bool = False) -> bytes:
        """A frame around any bytes."""
        return build_frame(body, crc16(body) ^ 1 if bad_crc else None)

    def command(self, payload: bytes = b"OK", codec: int = CODEC_12, type: int = RESPONSE, **fields: Any) -> bytes:
        """A frame of Codec 12 to 15 with one message; ``fields`` are its IMEI and timestamp, where it has them."""
        return self.frame(encode_command(codec, {"type": type, "payload": payload, **fields}))

    def datagram(
        self,
        records: int | Sequence[Record] = 1,
        codec: int | None = None,
        packet_id: int = 0xCAFE,
        avl_packet_id: int = 5,
        imei: str | None = None,
    ) -> bytes:
        """The same records over UDP."""
        imei = self.imei if imei is None else imei
        return build_datagram(imei, self.body(records, codec), packet_id, avl_packet_id)

    def _tick(self) -> int:
        self.next_timestamp += STEP_MS
        return self.next_timestamp - STEP_MS


_GROUPS = ("n1", "n2", "n4", "n8", "nx")


def _own_fields(codec: int) -> Record:
    return {CODEC_8_EXTENDED: {"nx": []}, CODEC_16: {"generation_type": 5}}.get(codec, {})


def _unsigned(size: int) -> st.SearchStrategy[int]:
    return st.integers(0, 256**size - 1)


def _signed(size: int) -> st.SearchStrategy[int]:
    return st.integers(-(256**size) // 2, 256**size // 2 - 1)


def any_record(codec: int) -> st.SearchStrategy[Record]:
    """Every record that the codec can hold, up to five elements a group; ids and values repeat."""
    avl_id = _unsigned(1 if codec == CODEC_8 else 2)
    fields: dict[str, st.SearchStrategy[Any]] = {
        "timestamp": _unsigned(8),
        "priority": _unsigned(1),
        "longitude": _signed(4),
        "latitude": _signed(4),
        "altitude": _signed(2),
        "angle": _unsigned(2),
        "satellites": _unsigned(1),
        "speed": _unsigned(2),
        "event_io_id": avl_id,
    }
    fields |= {f"n{size}": st.lists(st.tuples(avl_id, _unsigned(size)), max_size=5) for size in (1, 2, 4, 8)}
    if codec == CODEC_16:
        fields["generation_type"] = _unsigned(1)
    if codec == CODEC_8_EXTENDED:
        fields["nx"] = st.lists(st.tuples(avl_id, st.binary(max_size=40)), max_size=5)
    return st.fixed_dictionaries(fields).map(_with_total)


def any_packet() -> st.SearchStrategy[dict[str, Any]]:
    """Packets of every codec with up to four records, as encode_packet takes and decode_packet gives them."""
    return st.sampled_from(AVL_CODECS).flatmap(
        lambda codec: st.lists(any_record(codec), max_size=4).map(lambda records: _packet(codec, records))
    )


def _with_total(record: Record) -> Record:
    return record | {"total": sum(len(record[group]) for group in _GROUPS if group in record)}


def _packet(codec: int, records: list[Record]) -> dict[str, Any]:
    return {"codec_id": codec, "count": len(records), "records": records, "count_again": len(records)}


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """``data`` in pieces, cut at these places, wherever they fall."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[begin:end] for begin, end in pairwise(places)]
