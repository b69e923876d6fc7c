"""The fuzz target of expressions.

Invariant: any text is an Expression or an ExpressionError; an Expression has for any JSON message a value or an
EvaluationError, and a truth; columns lie in the text; a value is finite, of bounded size or a part of the message; and
none of it takes long.

``python tests/fuzz/expression_target.py [atheris options]`` runs it under atheris, where that is installed
(``pip install .[fuzz]``); ``test_expression_target.py`` runs it with hypothesis in the suite.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import orjson

from gateway.expressions import Context, EvaluationError, Expression, ExpressionError, compile_expression
from gateway.expressions.values import TEXT_MOST

SECONDS_MOST = 1.0
"""Of processor time, for one text and one message; the slowest that a client can write takes a tenth of it."""


def check(text: str, message: dict[str, Any], previous: dict[str, Any] | None = None) -> Expression | None:
    """The target: the expression, if it is one."""
    began = time.process_time()
    expression = compile_or_refuse(text)
    if expression is not None:
        evaluate(expression, message, Context(previous=previous))
    assert time.process_time() - began < SECONDS_MOST
    return expression


def compile_or_refuse(text: str) -> Expression | None:
    """Without the cache, which would hide a failure that comes but once."""
    try:
        return compile_expression.__wrapped__(text)
    except ExpressionError as error:
        check_error(error, text)
        return None


def check_error(error: ExpressionError | EvaluationError, text: str) -> None:
    """Its column is in the text or at its end, and its reason can be sent."""
    assert 1 <= error.column <= len(text) + 1
    assert error.reason.encode()


def evaluate(expression: Expression, message: dict[str, Any], context: Context) -> None:
    """Its value and its truth belong together."""
    try:
        value = expression.evaluate(message, context)
    except EvaluationError as error:
        check_error(error, expression.text)
        assert expression.is_true(message, context) is False
    else:
        assert is_bounded(value) or any(value is part for part in parts(message, context.previous))
        if "now" not in expression.text:
            assert expression.is_true(message, context) is (value not in (0, None))


def is_bounded(value: Any) -> bool:
    """What an evaluation may make."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return abs(value) <= 2**64
    return value is None or (isinstance(value, str) and len(value) <= TEXT_MOST)


def parts(*values: Any) -> Iterator[Any]:
    """Everything that stands in these, at any depth."""
    for value in values:
        yield value
        yield from parts(*(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()))


def check_bytes(data: bytes) -> None:
    """For atheris: the text, a zero byte, a message."""
    text, _, json = data.partition(b"\0")
    try:
        message = orjson.loads(json)
    except orjson.JSONDecodeError:
        message = {}
    check(text.decode("utf-8", "surrogateescape"), message if isinstance(message, dict) else {})


def main() -> None:
    import atheris  # type: ignore[import-not-found]

    atheris.instrument_all()
    atheris.Setup(sys.argv, check_bytes)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
