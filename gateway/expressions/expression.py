"""Compiled expressions, and how they are had."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from attrs import field, frozen

from gateway.errors import EvaluationError
from gateway.expressions.compiler import Compiler
from gateway.expressions.context import EMPTY, Context
from gateway.expressions.parameters import Run, present
from gateway.expressions.parse import LENGTH_MOST, parse
from gateway.expressions.values import truth

CACHED_MOST = 256
"""Expressions that are kept compiled; the largest one has some 200 KiB."""

_NAMES = re.compile(r"\s*[A-Za-z_][\w.]*\s*(?:,\s*[A-Za-z_][\w.]*\s*)+", re.ASCII)


@frozen
class Expression:
    """An expression that can be evaluated any number of times.

    ``names`` are the parameters that it reads; ``needs_previous`` says whether it wants ``Context.previous``.
    """

    text: str
    names: frozenset[str]
    needs_previous: bool = field(repr=False)
    _run: Run = field(repr=False, eq=False)

    def evaluate(self, message: Mapping[str, Any], context: Context = EMPTY) -> Any:
        """A number, text, boolean, null, or a part of ``message``, which the caller must not change.

        Raises EvaluationError where there is no value; any other exception is a bug.
        """
        return self._run(message, context)

    def is_true(self, message: Mapping[str, Any], context: Context = EMPTY) -> bool:
        """Whether the value is neither 0, false nor null; no value is not true either."""
        try:
            value = self._run(message, context)
        except EvaluationError:
            return False
        return value is True or truth(value)


@lru_cache(CACHED_MOST)
def compile_expression(text: str) -> Expression:
    """The expression that ``text`` is. Raises ExpressionError."""
    compiler = Compiler()
    run = compiler.compile(parse(text))
    return Expression(text, frozenset(compiler.names), compiler.needs_previous, run)


@lru_cache(CACHED_MOST)
def compile_filter(text: str) -> Expression:
    """The expression of a filter. Raises ExpressionError.

    Names with commas between, as older clients send them, hold where the message has all these parameters; one name
    alone is an expression.
    """
    if len(text) > LENGTH_MOST or _NAMES.fullmatch(text) is None:
        return compile_expression(text)
    names = [name.strip() for name in text.split(",")]
    return Expression(text, frozenset(names), False, present(names))
