"""Records to packets, in the codec that a tracker is set to, by the structs that also decode them.

A device keeps its records as bytes, not as dicts: a fleet's backlog is then twenty times smaller, and a packet is a
matter of joining them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from gateway.emulator.group import PACKET_RECORDS
from gateway.emulator.recorder import Record
from gateway.protocols.teltonika import border
from gateway.protocols.teltonika.datagram import build_datagram
from gateway.protocols.teltonika.frame import build_frame
from gateway.protocols.teltonika.wire import CODEC_8, CODEC_8_EXTENDED, CODEC_16, RECORDS

CODECS = {"8": CODEC_8, "8e": CODEC_8_EXTENDED, "16": CODEC_16}

Wrap = Callable[[bytes], bytes]
"""Puts around a body what the transport needs: a frame on TCP, a datagram's heads on UDP."""

# Teltonika wiki, page Codec: 1280 bytes a packet; 512 with FMB630, FMB640 and FM63XY. Around the body of a datagram
# are 23 bytes, around that of a frame 12; so much is left in either.
_AROUND = 23
_PACKET_BYTES = 1280 - _AROUND
_SMALL_PACKET_BYTES = 512 - _AROUND
_SMALL_MODELS = ("FMB63", "FMB64", "FMC64", "FMM64", "FM63")


@attrs.frozen
class Packet:
    """What is on its way: ``data`` as sent, ``body`` from codec id to number of data 2, and how many records that is.

    ``count`` is None for what no server acknowledges.
    """

    data: bytes
    body: bytes
    count: int | None


def body_limit(model: str) -> int:
    """How many bytes of body a model puts into one packet."""
    return _SMALL_PACKET_BYTES if model.upper().startswith(_SMALL_MODELS) else _PACKET_BYTES


def encode_record(codec_id: int, record: Record) -> bytes:
    """One record's bytes. Raises EncodeError, as where Codec 8 has no room for an AVL id."""
    return border.build(RECORDS[codec_id], record)


def join_records(codec_id: int, records: Sequence[bytes]) -> bytes:
    """The body that holds these records."""
    count = bytes([len(records)])
    return b"".join((bytes([codec_id]), count, *records, count))


def fits(size: int, count: int, limit: int) -> bool:
    """Whether so many records of ``size`` bytes together go into a packet; one always does."""
    return count == 1 or (count <= PACKET_RECORDS and size + 3 <= limit)


def framed(body: bytes) -> bytes:
    """What TCP needs around a body."""
    return build_frame(body)


@attrs.define
class Datagrams:
    """What UDP needs around the bodies of one tracker: each gets the next pair of ids."""

    imei: str
    _sent: int = 0

    def __call__(self, body: bytes) -> bytes:
        self._sent += 1
        return build_datagram(self.imei, body, self._sent & 0xFFFF, self._sent & 0xFF)
