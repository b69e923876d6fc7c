"""CRC-16/IBM, also called CRC-16/ARC, over a frame's body: codec id to number of data 2.

Polynomial 0x8005 reflected, initial value 0, no final XOR; ``123456789`` gives 0xBB3D (Teltonika wiki, page Codec).
The frame carries it in four bytes, of which the upper two are zero.
"""

from __future__ import annotations

from fastcrc import crc16 as _crc16


def crc16(body: bytes) -> int:
    """The checksum of ``body``, 0 to 0xFFFF.

    Compiled: a table in pure Python costs more than the whole decoding of the packet.
    """
    return _crc16.arc(body)
