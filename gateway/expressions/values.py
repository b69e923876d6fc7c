"""Values: numbers, texts, booleans, null, and JSON; how one kind stands for another, and how large each may get.

Functions here and in the modules of operators and functions raise ValueError with a reason for the reader; the compiler
knows the column and makes an EvaluationError of it.
"""

from __future__ import annotations

import math
from typing import Any

import orjson

Number = int | float
INTEGER_MOST = 2**53
"""Larger numbers become doubles, as all numbers are for flespi."""
BITS_MOST = 2.0**64
"""What operators on bits take; an AVL value has 64 bits at most."""
TEXT_MOST = 16 * 1024
"""Characters of a text that is worked on: a packet's values are shorter, and it bounds an evaluation's time."""
SHOWN_MOST = 40

NUMBERS: frozenset[type[Any]] = frozenset({int, float, bool})
"""What counts as a number as it is: booleans are 0 and 1, in C and in Python."""


def kind(value: Any) -> str:
    """What the reader calls it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    return "a text" if isinstance(value, str) else "an array or object"


def shown(text: str) -> str:
    """``text`` for a reason, in quotes, the end left out where it is long."""
    return repr(text if len(text) <= SHOWN_MOST else text[:SHOWN_MOST] + "…")


def truth(value: Any) -> bool:
    """0, false and null are false; everything else is true, any text too (flespi's page of expressions)."""
    return bool(value is not None and value != 0)


def number(value: Any) -> Number:
    """``value`` as a number: null and false are 0, true is 1. A text is none, nor is JSON."""
    if value.__class__ in NUMBERS:
        result: Number = value
        return result
    if value is None:
        return 0
    raise ValueError(f"{kind(value)} is no number" + ("; tonumber() reads one" if isinstance(value, str) else ""))


def bounded(value: Number) -> Number:
    """A result: an integer as long as a double could hold it exactly. Raises ValueError where it is not finite."""
    if isinstance(value, int) and -INTEGER_MOST <= value <= INTEGER_MOST:
        return int(value)
    try:
        double = float(value)
    except OverflowError:
        double = math.inf
    if not math.isfinite(double):
        raise ValueError("the result is too large for a number")
    return double


def whole(value: Number) -> Number:
    """``value`` as an integer where it is one, so that 4 / 2 is 2 and not 2.0."""
    value = bounded(value)
    return int(value) if -INTEGER_MOST <= value <= INTEGER_MOST and value == int(value) else value


def integer(value: Any) -> int:
    """A number without its fraction. Raises ValueError beyond 64 bits."""
    value = number(value)
    if not -BITS_MOST <= value <= BITS_MOST:
        raise ValueError("a number beyond 64 bits is no integer here")
    return int(value)


def text(value: Any) -> str:
    """A text that may be worked on. Raises ValueError where it is none, or too long."""
    if not isinstance(value, str):
        raise ValueError(f"{kind(value)} is no text; tostring() makes one")
    return short(value)


def short(value: str) -> str:
    """``value``, if it is not too long. Raises ValueError."""
    if len(value) > TEXT_MOST:
        raise ValueError(f"the text has {len(value)} characters; {TEXT_MOST} can be worked on")
    return value


def number_in(written: str) -> Number | None:
    """The number that ``written`` is: decimal, with exponent, or hexadecimal behind 0x; None where it is too large."""
    if written[:2] in ("0x", "0X"):
        value: Number = int(written, 16)
    elif written.isdecimal():
        value = int(written) if len(written) <= 400 else math.inf
    else:
        value = float(written)
    try:
        return bounded(value)
    except ValueError:
        return None


def as_text(value: Any) -> str:
    """Any value as a text: JSON's spelling, but a text as it is. Raises ValueError where it gets too long."""
    if isinstance(value, str):
        return short(value)
    if value.__class__ is int or value.__class__ is float:
        return str(value if value.__class__ is int and -BITS_MOST <= value <= BITS_MOST else whole(value))
    if isinstance(value, list | dict):
        _check_size(value)
    try:
        return short(orjson.dumps(value).decode())
    except (TypeError, orjson.JSONEncodeError):
        raise ValueError(f"{kind(value)} that has no text") from None


def _check_size(value: list[Any] | dict[str, Any]) -> None:
    """Before it is written: a message's JSON may be long."""
    size, waiting = 0, [value]
    while waiting:
        item: Any = waiting.pop()
        size += len(item) if isinstance(item, str | list | dict) else 1
        if size > TEXT_MOST:
            raise ValueError(f"its text would have more than {TEXT_MOST} characters")
        if isinstance(item, dict):
            waiting.extend(item.keys())
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
