"""What nodes become: closures of a message and a context. Errors of operators and functions get their column here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gateway.errors import EvaluationError, MissingParameter
from gateway.expressions.context import Context
from gateway.expressions.function import Missing
from gateway.expressions.operators import Binary
from gateway.expressions.parameters import Message, Run
from gateway.expressions.values import truth

Combine = Callable[[Any, Message, Context], Any]
"""One step of a chain: what stands left of the operator is known."""


def failure(column: int, error: Exception) -> EvaluationError:
    """The error of an operator or function, at its column."""
    reason = str(error) if isinstance(error, ValueError) else "the result is too large for a number"
    return MissingParameter(column, reason) if isinstance(error, Missing) else EvaluationError(column, reason)


def constant(value: Any) -> Run:
    """Always ``value``."""
    return lambda message, context: value


def unary(apply: Callable[[Any], Any], operand: Run, column: int) -> Run:
    """A function of one value."""

    def run(message: Message, context: Context) -> Any:
        value = operand(message, context)
        try:
            return apply(value)
        except (ValueError, ArithmeticError) as error:
            raise failure(column, error) from None

    return run


def binary(apply: Binary, left: Run, right: Run, column: int) -> Run:
    """A function of two values."""

    def run(message: Message, context: Context) -> Any:
        try:
            return apply(left(message, context), right(message, context))
        except (ValueError, ArithmeticError) as error:
            raise failure(column, error) from None

    return run


def called(apply: Callable[..., Any], arguments: Sequence[Run], column: int) -> Run:
    """A function of any number of values."""
    if len(arguments) == 1:
        return unary(apply, arguments[0], column)

    def run(message: Message, context: Context) -> Any:
        try:
            return apply(*[argument(message, context) for argument in arguments])
        except (ValueError, ArithmeticError) as error:
            raise failure(column, error) from None

    return run


def called_with_message(apply: Callable[..., Any], arguments: Sequence[Run], column: int) -> Run:
    """A function that also looks at the message and the context."""

    def run(message: Message, context: Context) -> Any:
        try:
            return apply(message, context, *[argument(message, context) for argument in arguments])
        except (ValueError, ArithmeticError) as error:
            raise failure(column, error) from None

    return run


def chain(first: Run, steps: Sequence[Combine]) -> Run:
    """Operators of one priority, from left to right, without a deeper stack for a longer chain."""

    def run(message: Message, context: Context) -> Any:
        value = first(message, context)
        for combine in steps:
            value = combine(value, message, context)
        return value

    return run


def step(apply: Binary, right: Run, column: int) -> Combine:
    """One step of it."""

    def combine(left: Any, message: Message, context: Context) -> Any:
        try:
            return apply(left, right(message, context))
        except (ValueError, ArithmeticError) as error:
            raise failure(column, error) from None

    return combine


def every(operands: Sequence[Run]) -> Run:
    """``&&``: what follows the first operand that is not true is not evaluated."""

    def run(message: Message, context: Context) -> bool:
        for operand in operands:
            value = operand(message, context)
            if value is not True and not truth(value):
                return False
        return True

    return run


def some(operands: Sequence[Run]) -> Run:
    """``||``: what follows the first true operand is not evaluated.

    An operand without a value makes way for the next; only where none is true, its error is that of the whole.
    """

    def run(message: Message, context: Context) -> bool:
        failed: tuple[type[EvaluationError], int, str] | None = None
        for operand in operands:
            try:
                value = operand(message, context)
            except EvaluationError as error:
                failed = failed or (type(error), error.column, error.reason)
                continue
            if value is True or truth(value):
                return True
        if failed is not None:
            kind, column, reason = failed
            raise kind(column, reason)
        return False

    return run


def choice(condition: Run, yes: Run, no: Run) -> Run:
    """``condition ? yes : no``: only the chosen one is evaluated."""
    return lambda message, context: (yes if truth(condition(message, context)) else no)(message, context)


def negation(operand: Run) -> Run:
    """``!`` and ``not()``."""
    return lambda message, context: not truth(operand(message, context))
