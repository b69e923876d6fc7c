"""Bit masks of CAN adapters that expand into parameters: data/can_flags.csv.

One row is one flag: the mask that it stands in (as the dictionary's column ``detail`` names it), its lowest bit with 0
the least significant of the whole value, how many bits it has, and its parameter. One bit is a boolean, ``values``
says if it is an inverted one; several bits are a number. The bits are those of the Teltonika wiki, page "CAN adapters".
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import attrs

from gateway.protocols.teltonika.avl_ids import read_table
from gateway.protocols.teltonika.values import Message

# Vendor's text: 0 is "all doors closed", whichever of its flags they count as doors.
ANY_DOOR = "door.open.status"


@attrs.frozen
class Flag:
    """``bits`` bits from ``bit`` on are ``parameter``; ``inverted``: 0 is true."""

    parameter: str
    bit: int
    bits: int
    inverted: bool
    ours: str

    @property
    def mask(self) -> int:
        return ((1 << self.bits) - 1) << self.bit

    def read(self, value: int) -> bool | int:
        found = (value & self.mask) >> self.bit
        return found if self.bits > 1 else bool(found) != self.inverted


@functools.cache
def flag_maps() -> dict[str, tuple[Flag, ...]]:
    """The flags of each mask."""
    maps: dict[str, list[Flag]] = {}
    for row in read_table("can_flags.csv"):
        flag = Flag(row["parameter"], int(row["bit"]), int(row["bits"]), bool(row["values"]), row["ours"])
        maps.setdefault(row["flags"], []).append(flag)
    return {name: tuple(flags) for name, flags in maps.items()}


def known_bits(name: str) -> int:
    """All bits of the mask ``name`` that have a parameter."""
    mask = 0
    for flag in flag_maps()[name]:
        mask |= flag.mask
    return mask


def parameters(name: str) -> Iterator[str]:
    """Every parameter that the mask ``name`` expands into."""
    if name == "doors":
        yield ANY_DOOR
    for flag in flag_maps()[name]:
        yield flag.parameter


def expand(message: Message, name: str, value: int) -> None:
    """Set each parameter of the mask ``name``, true and false alike."""
    for shift in _shifts(name):
        message.update(_byte(name, shift, value >> shift & 0xFF))
    if name == "doors":
        message[ANY_DOOR] = value & known_bits(name) != 0


@functools.cache
def _shifts(name: str) -> tuple[int, ...]:
    """Where the bytes of the mask ``name`` begin that have flags."""
    return tuple(sorted({flag.bit & ~7 for flag in flag_maps()[name]}))


@functools.cache
def _byte(name: str, shift: int, byte: int) -> Message:
    """The parameters of one byte of a mask. Kept, because trackers send the same masks over and over; 256 at most each.

    No flag crosses the border of a byte.
    """
    return {flag.parameter: flag.read(byte << shift) for flag in flag_maps()[name] if flag.bit & ~7 == shift}
