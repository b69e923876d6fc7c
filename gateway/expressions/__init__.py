"""Expressions: flespi's language of filters, selectors, validators and computed values.

An expression is compiled once and evaluated many times; whatever a client writes, both take bounded time and memory,
and what is wrong comes as an ExpressionError or an EvaluationError with its column.

To read: ``grammar`` (the language), ``nodes`` and ``parse`` (text to nodes), ``values`` and ``operators`` (what values
are and do), ``functions`` (the table; each kind has a module), ``compiler`` and ``closures`` (nodes to closures),
``expression`` (what others use). ``wildcard`` stands alone.
"""

from gateway.errors import EvaluationError, ExpressionError
from gateway.expressions.context import EMPTY, Context
from gateway.expressions.expression import Expression, compile_expression, compile_filter
from gateway.expressions.function import Function
from gateway.expressions.functions import FUNCTIONS
from gateway.expressions.wildcard import wildcard

__all__ = [
    "EMPTY",
    "FUNCTIONS",
    "Context",
    "EvaluationError",
    "Expression",
    "ExpressionError",
    "Function",
    "compile_expression",
    "compile_filter",
    "wildcard",
]
