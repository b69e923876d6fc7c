"""Functions of numbers; null and false are 0, true is 1, as for the operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from gateway.expressions.function import Function
from gateway.expressions.values import INTEGER_MOST, Number, bounded, integer, number, whole

DIGITS_MOST = 15
"""Of round(): a double has no more."""


def _of_number(apply: Callable[[Number], Number]) -> Callable[[Any], Number]:
    def applied(value: Any) -> Number:
        return whole(apply(bounded(number(value))))

    return applied


def _square_root(value: Number) -> Number:
    if value < 0:
        raise ValueError("a negative number has no square root")
    return math.sqrt(value)


def _arc(apply: Callable[[float], float]) -> Callable[[Number], Number]:
    def applied(value: Number) -> Number:
        if not -1 <= value <= 1:
            raise ValueError("the argument should be from -1 to 1")
        return apply(value)

    return applied


def _round(value: Any, digits: Any = 0) -> Number:
    rounded, places = bounded(number(value)), integer(digits)
    if not -DIGITS_MOST <= places <= DIGITS_MOST:
        raise ValueError(f"round() to {places} digits; it can be -{DIGITS_MOST} to {DIGITS_MOST}")
    if not -INTEGER_MOST <= rounded <= INTEGER_MOST:
        return rounded
    # Decimal, so that 2.675 becomes 2.68 as it does on paper, and halves go away from zero as in C.
    exact = Decimal(repr(rounded)).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
    return whole(float(exact))


def _power(base: Any, exponent: Any) -> Number:
    mantissa, by = bounded(number(base)), bounded(number(exponent))
    if mantissa == 0 and by < 0:
        raise ValueError("division by zero")
    if mantissa < 0 and by != int(by):
        raise ValueError("a negative number has no root")
    return whole(math.pow(mantissa, by))


def _logarithm(value: Any, base: Any = math.e) -> Number:
    of, to = bounded(number(value)), bounded(number(base))
    if of <= 0 or to <= 0 or to == 1:
        raise ValueError("a logarithm is of a positive number, to a positive base that is not 1")
    return whole(math.log(of) if to == math.e else math.log10(of) if to == 10 else math.log(of) / math.log(to))


def _least(*values: Any) -> Number:
    return bounded(min(number(value) for value in values))


def _most(*values: Any) -> Number:
    return bounded(max(number(value) for value in values))


def _arc_of_two(y: Any, x: Any) -> Number:
    return whole(math.atan2(bounded(number(y)), bounded(number(x))))


MATH_FUNCTIONS = [
    Function("abs(x)", "the number without its sign", _of_number(abs)),
    Function("min(x[, ...])", "the least of its arguments", _least),
    Function("max(x[, ...])", "the greatest of its arguments", _most),
    Function("round(x[, digits])", "rounded, half away from zero; digits is how many stay behind the point", _round),
    Function("floor(x)", "the greatest integer that is not above x", _of_number(math.floor)),
    Function("ceil(x)", "the least integer that is not below x", _of_number(math.ceil)),
    Function("trunc(x)", "x without its fraction", _of_number(math.trunc)),
    Function("sqrt(x)", "the square root", _of_number(_square_root)),
    Function("pow(x, y)", "x to the power of y", _power),
    Function("exp(x)", "e to the power of x", _of_number(math.exp)),
    Function("log(x[, base])", "the logarithm, natural unless there is a base", _logarithm),
    Function("log10(x)", "the logarithm to base 10", lambda x: _logarithm(x, 10)),
    Function("sin(x)", "the sine of an angle in radians", _of_number(math.sin)),
    Function("cos(x)", "the cosine of an angle in radians", _of_number(math.cos)),
    Function("tan(x)", "the tangent of an angle in radians", _of_number(math.tan)),
    Function("asin(x)", "the arc sine, in radians", _of_number(_arc(math.asin))),
    Function("acos(x)", "the arc cosine, in radians", _of_number(_arc(math.acos))),
    Function("atan(x)", "the arc tangent, in radians", _of_number(math.atan)),
    Function("atan2(y, x)", "the angle of the point (x, y), in radians", _arc_of_two),
]
