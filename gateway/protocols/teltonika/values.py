"""Single wire values: sign, scale, text, and the last resort, ``custom.param.<id>``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.errors import DecodeError

Message = dict[str, Any]
Number = int | float

# JSON's readers keep numbers as doubles: above this, neighbors fall together.
LARGEST_EXACT = 2**53


def to_signed(value: int, width: int) -> int:
    """``value`` of ``width`` bytes read as two's complement."""
    half = 1 << (8 * width - 1)
    return value - 2 * half if value >= half else value


def scaler(scale: str) -> Callable[[int], Number]:
    """The function that multiplies by ``scale``: a decimal as ``0.001``, or a fraction as ``1/60``; none for 1.

    Decimal fractions divide by a power of ten, because division rounds correctly: 12640 / 1000 is 12.64, where
    12640 * 0.001 is 12.640000000000001 or not, as luck has it.
    """
    numerator, denominator = scale_fraction(scale)
    if denominator == 1:
        return lambda value: value * numerator
    return lambda value: value * numerator / denominator


def scale_fraction(scale: str) -> tuple[int, int]:
    """``0.05`` as (5, 100), ``20`` as (20, 1), ``1/60`` as (1, 60), nothing as (1, 1)."""
    if "/" in scale:
        numerator, _, denominator = scale.partition("/")
        return int(numerator), int(denominator)
    whole, _, decimals = (scale or "1").partition(".")
    return int(whole + decimals), 10 ** len(decimals)


def exact(number: Number) -> Number:
    """``number``, if JSON can hold it exactly. Raises DecodeError."""
    if not -LARGEST_EXACT <= number <= LARGEST_EXACT:
        raise DecodeError("not exact as a JSON number")
    return number


def as_bytes(value: int | bytes, width: int) -> bytes:
    """``value`` as it stood on the wire."""
    return value if isinstance(value, bytes) else value.to_bytes(width, "big")


def ascii_text(data: bytes) -> str | None:
    """``data`` as text without the NULs and spaces around it; None where it is not printable ASCII."""
    text = data.strip(b"\0 ").decode("ascii", "replace")
    return text if text.isprintable() and text.isascii() else None


def keep_raw(message: Message, avl_id: int, value: object) -> None:
    """Put ``value`` under ``custom.param.<id>``: a number where JSON holds it, else lower-case hexadecimal text."""
    kept: object
    if isinstance(value, int):
        kept = int(value) if -LARGEST_EXACT <= value <= LARGEST_EXACT else f"{value:x}"
    elif isinstance(value, bytes | bytearray):
        kept = value.hex()
    else:
        kept = ascii(value)
    message[f"custom.param.{avl_id}"] = kept
