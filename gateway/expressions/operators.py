"""The operators: each a function of two values (or one), which raises ValueError with a reason for the reader.

What the kinds of values mean for them is flespi's "maximum level of automatic type casting": null and false are 0, true
is 1. Where flespi would also take a text for 1, we say that it is none: nobody can mean that.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from gateway.expressions.values import (
    NUMBERS,
    Number,
    as_text,
    bounded,
    integer,
    kind,
    number,
    short,
    text,
    whole,
)
from gateway.expressions.wildcard import wildcard

Binary = Callable[[Any, Any], Any]
SHIFT_MOST = 64
MASK_MOST = 256
"""Characters of a computed mask: it is read anew at each evaluation."""


def add(left: Any, right: Any) -> Any:
    """The sum of numbers, or two texts as one."""
    if isinstance(left, str) and isinstance(right, str):
        return short(short(left) + short(right))
    return bounded(number(left) + number(right))


def subtract(left: Any, right: Any) -> Number:
    """The difference."""
    return bounded(number(left) - number(right))


def multiply(left: Any, right: Any) -> Number:
    """The product."""
    return bounded(number(left) * number(right))


def divide(left: Any, right: Any) -> Number:
    """The quotient, with its fraction: 5 / 2 is 2.5."""
    divisor = number(right)
    if divisor == 0:
        raise ValueError("division by zero")
    return whole(number(left) / divisor)


def remainder(left: Any, right: Any) -> Number:
    """What a division leaves, with the sign of the dividend, as in C; for fractions too."""
    divisor = number(right)
    if divisor == 0:
        raise ValueError("division by zero")
    return whole(math.fmod(number(left), divisor))


def all_bits(left: Any, right: Any) -> Number:
    """The bits that both have."""
    return bounded(integer(left) & integer(right))


def any_bit(left: Any, right: Any) -> Number:
    """The bits that one of them has."""
    return bounded(integer(left) | integer(right))


def odd_bits(left: Any, right: Any) -> Number:
    """The bits that exactly one of them has."""
    return bounded(integer(left) ^ integer(right))


def shift_left(left: Any, right: Any) -> Number:
    """Bits moved up."""
    return bounded(integer(left) << _shift(right))


def shift_right(left: Any, right: Any) -> Number:
    """Bits moved down; a negative number stays one."""
    return bounded(integer(left) >> _shift(right))


def _shift(value: Any) -> int:
    by = integer(value)
    if not 0 <= by <= SHIFT_MOST:
        raise ValueError(f"a shift by {by} bits; it can be by 0 to {SHIFT_MOST}")
    return by


def equal(left: Any, right: Any) -> bool:
    """Numbers, booleans and null as numbers; a text equals only a text."""
    if left.__class__ in NUMBERS and right.__class__ in NUMBERS:
        return bool(left == right)
    if isinstance(left, list | dict) and isinstance(right, list | dict):
        raise ValueError("arrays and objects cannot be compared; tostring() makes texts of them")
    return bool(_plain(left) == _plain(right))


def _plain(value: Any) -> Any:
    return 0 if value is None else value


def is_null(value: Any) -> bool:
    """``== null``, written so: who asks for null does not mean 0."""
    return value is None


def unequal(left: Any, right: Any) -> bool:
    """Not :func:`equal`."""
    return not equal(left, right)


def _ordered(compare: Callable[[Any, Any], bool]) -> Binary:
    def ordered(left: Any, right: Any) -> bool:
        if left.__class__ in NUMBERS and right.__class__ in NUMBERS:
            return compare(left, right)
        if isinstance(left, str) and isinstance(right, str):
            return compare(left, right)
        if isinstance(left, str) or isinstance(right, str):
            raise ValueError(f"{kind(left)} and {kind(right)} have no order; tonumber() reads a number from a text")
        return compare(number(left), number(right))

    return ordered


def matches(left: Any, right: Any) -> bool:
    """Whether a value matches a mask that is not known before."""
    mask = text(right)
    if len(mask) > MASK_MOST:
        raise ValueError(f"a mask of {len(mask)} characters; one that is computed can have {MASK_MOST}")
    return fits(wildcard(mask), left)


def fits(test: Callable[[str], bool], value: Any) -> bool:
    """Whether a value, as it is written, passes the test of a mask; null never does."""
    if value is None:
        return False
    if isinstance(value, list | dict):
        raise ValueError("an array or object has no mask; tostring() makes a text of it")
    return test(as_text(value))


def equals(test: Callable[[str], bool], value: Any) -> bool:
    """``==`` with a text that has ``*`` or ``?`` in it, which flespi's expressions have always taken for a mask."""
    return isinstance(value, str) and test(short(value))


def negative(value: Any) -> Number:
    """The number with the other sign."""
    return bounded(-number(value))


def positive(value: Any) -> Number:
    """The value as a number."""
    return bounded(number(value))


def complement(value: Any) -> Number:
    """Every bit turned over: ~0 is -1."""
    return bounded(~integer(value))


BINARY: dict[str, Binary] = {
    "+": add,
    "-": subtract,
    "*": multiply,
    "/": divide,
    "%": remainder,
    "&": all_bits,
    "|": any_bit,
    "^": odd_bits,
    "<<": shift_left,
    ">>": shift_right,
    "==": equal,
    "=": equal,
    "!=": unequal,
    "<": _ordered(operator.lt),
    "<=": _ordered(operator.le),
    ">": _ordered(operator.gt),
    ">=": _ordered(operator.ge),
    "~": matches,
}
"""All but ``&&`` and ``||``, which do not always look at their right operand."""

PREFIX: dict[str, Callable[[Any], Any]] = {"-": negative, "+": positive, "~": complement}
"""All but ``!``."""
