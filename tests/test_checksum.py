"""CRC-16/IBM."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocols.teltonika.checksum import crc16

REFLECTED_POLYNOMIAL = 0xA001


def bit_by_bit(data: bytes) -> int:
    """The definition, as the Teltonika wiki draws it on its page Codec."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (REFLECTED_POLYNOMIAL if crc & 1 else 0)
    return crc


@pytest.mark.parametrize(("data", "crc"), [(b"", 0x0000), (b"123456789", 0xBB3D), (b"\0" * 20, 0x0000)])
def test_known_checksums_are_reproduced(data: bytes, crc: int) -> None:
    """The check value of the catalogue of CRCs, and the trap of all zeros."""
    assert crc16(data) == crc


@given(st.binary(max_size=200))
def test_the_compiled_checksum_is_the_one_of_the_definition(data: bytes) -> None:
    """Whatever library computes it."""
    assert crc16(data) == bit_by_bit(data)
