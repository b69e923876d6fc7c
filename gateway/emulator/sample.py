"""What a tracker has at hand when it writes a record: the vehicle's condition, its receiver's, and who it is."""

from __future__ import annotations

from random import Random

import attrs
from fastcrc import crc8

from gateway.emulator.condition import Condition

FIX, NO_FIX, SLEEPS = 0, 1, 2  # of the satellite receiver

# Decimal degrees of south, west, north, east, and the mobile network that is at home there: country and network code.
_COUNTRIES = (
    (53.9, 20.9, 56.4, 26.9, 24602),
    (49.0, 14.1, 54.9, 20.9, 26002),
    (47.2, 5.8, 55.1, 14.1, 26201),
    (49.9, -8.2, 59.0, 1.8, 23410),
    (42.3, -4.8, 51.1, 5.8, 20801),
    (24.5, -125.0, 49.4, -66.9, 310410),
)
_ELSEWHERE = 90143  # satellite networks, at home everywhere


@attrs.frozen
class Identity:
    """What belongs to one device for ever, apart from its IMEI."""

    ibutton: int
    thermometer: int
    iccid: int
    tag: int
    vin: bytes
    driver_card: bytes

    @classmethod
    def draw(cls, random: Random) -> Identity:
        """Make one up. One-wire codes have the family's byte in front and their check byte behind, as real ones."""
        letters = "ABCDEFGHJKLMNPRSTUVWXYZ0123456789"
        return cls(
            ibutton=_one_wire(0x01, random),
            thermometer=_one_wire(0x28, random),
            iccid=8_937_002 * 10**12 + random.randrange(10**12),
            tag=random.getrandbits(32),
            vin=b"WV1ZZZ7H" + "".join(random.choice(letters) for _ in range(9)).encode(),
            driver_card=b"LT" + f"{random.randrange(10**12):012d}".encode() + b"00",
        )


@attrs.define
class Sample:
    """One moment as a tracker sees it: ``c`` is the vehicle's condition, the rest what the tracker itself knows."""

    c: Condition
    gnss: int
    speed: int
    hdop: float
    operator: int
    area: int
    identity: Identity
    random: Random


def operator_at(latitude: float, longitude: float) -> int:
    """A mobile network at a place: country and network code as one number, roughly."""
    for south, west, north, east, code in _COUNTRIES:
        if south <= latitude <= north and west <= longitude <= east:
            return code
    return _ELSEWHERE


def _one_wire(kind: int, random: Random) -> int:
    code = bytes([kind]) + random.getrandbits(48).to_bytes(6, "big")
    return int.from_bytes(code + bytes([crc8.maxim_dow(code)]), "big")
