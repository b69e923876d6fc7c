"""Nodes to one closure; on the way it is found out which parameters are read, and whether all functions exist."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

from attrs import define, field

from gateway.errors import ExpressionError
from gateway.expressions import closures, operators, parameters
from gateway.expressions.function import Function
from gateway.expressions.functions import ABSENT, FUNCTIONS
from gateway.expressions.nodes import Call, Chain, Choice, Literal, Node, Prefix, Reference, Step
from gateway.expressions.parameters import Run
from gateway.expressions.values import SHOWN_MOST, shown
from gateway.expressions.wildcard import has_wildcards, is_slow, wildcard

SLOW_MASKS_MOST = 16
"""Masks with ``?`` between two stars, and masks that are only known when evaluated: 4 ms each on the longest text."""
EQUALITIES = ("==", "=", "!=")

Test = Callable[[Any], bool]


@define
class Compiler:
    """Compiles one expression. ``names`` are the parameters that it reads."""

    names: set[str] = field(factory=set)
    needs_previous: bool = False
    _slow_masks: int = 0

    def compile(self, node: Node) -> Run:
        """Raises ExpressionError: an unknown function, or arguments that it does not take."""
        return _COMPILE[type(node)](self, node)

    def _literal(self, node: Literal) -> Run:
        return closures.constant(node.value)

    def _reference(self, node: Reference) -> Run:
        self.names.add(node.name)
        if node.sign == "$":
            return parameters.optional(node.name)
        if node.sign == "#":
            self.needs_previous = True
            return parameters.previous(node.name, node.column)
        return parameters.required(node.name, node.column)

    def _prefix(self, node: Prefix) -> Run:
        operand = self.compile(node.operand)
        if node.operator == "!":
            return closures.negation(operand)
        return closures.unary(operators.PREFIX[node.operator], operand, node.column)

    def _choice(self, node: Choice) -> Run:
        return closures.choice(self.compile(node.condition), self.compile(node.yes), self.compile(node.no))

    def _chain(self, node: Chain) -> Run:
        if node.rest[0].operator in ("&&", "||"):
            combined = closures.every if node.rest[0].operator == "&&" else closures.some
            return combined([self.compile(operand) for operand in (node.first, *(step.operand for step in node.rest))])
        first, rest = _test_to_the_right(node.first, node.rest)
        left = self.compile(first)
        if len(rest) > 1:
            return closures.chain(left, [self._step(step) for step in rest])
        test = self._test(rest[0])
        if test is not None:
            return closures.unary(test, left, rest[0].column)
        return closures.binary(operators.BINARY[rest[0].operator], left, self.compile(rest[0].operand), rest[0].column)

    def _step(self, step: Step) -> closures.Combine:
        test = self._test(step)
        if test is not None:
            return closures.step(lambda left, right: test(left), closures.constant(None), step.column)
        return closures.step(operators.BINARY[step.operator], self.compile(step.operand), step.column)

    def _test(self, step: Step) -> Test | None:
        """An operator whose right side stands there and asks more than a comparison: a mask, or null."""
        value = step.operand.value if isinstance(step.operand, Literal) else 0
        if step.operator == "~":
            return self._mask_test(operators.fits, value, step.column)
        if step.operator not in EQUALITIES:
            return None
        if value is None:
            equals: Test | None = operators.is_null
        else:
            equals = self._mask_test(operators.equals, value, step.column) if _is_mask(step.operand) else None
        return _negated(equals) if step.operator == "!=" and equals is not None else equals

    def _mask_test(self, passes: Callable[[Test, Any], bool], mask: Any, column: int) -> Test | None:
        is_known = isinstance(mask, str)
        if not is_known or is_slow(mask):
            self._slow_masks += 1
        if self._slow_masks > SLOW_MASKS_MOST:
            reason = f"more than {SLOW_MASKS_MOST} masks that have a ? between two *, or are not known before"
            raise ExpressionError(column, reason)
        return partial(passes, wildcard(mask)) if is_known else None

    def _call(self, node: Call) -> Run:
        function = _function(node)
        self.needs_previous |= function.needs_previous
        self.names |= function.reads if node.arguments else function.reads | function.reads_bare
        special = _SPECIAL.get(node.name)
        if special is not None:
            return special(self, node)
        arguments = [self.compile(argument) for argument in node.arguments]
        if function.apply_to is not None:
            return closures.called_with_message(function.apply_to, arguments, node.column)
        assert function.apply is not None, f"{node.name}() does nothing"
        return closures.called(function.apply, arguments, node.column)

    def _if(self, node: Call) -> Run:
        condition, yes, no = node.arguments
        return self._choice(Choice(node.column, condition, yes, no))

    def _not(self, node: Call) -> Run:
        return closures.negation(self.compile(node.arguments[0]))

    def _match(self, node: Call) -> Run:
        text, mask = node.arguments
        return self._chain(Chain(text, [Step(node.column, "~", mask)]))

    def _exists(self, node: Call) -> Run:
        names = [_name(node, argument) for argument in node.arguments]
        self.names.update(names)
        return parameters.present(names)

    def _param(self, node: Call) -> Run:
        return self._reference(Reference(node.column, "", _name(node, node.arguments[0])))

    def _previous(self, node: Call) -> Run:
        return self._reference(Reference(node.column, "#", _name(node, node.arguments[0])))


_COMPILE: dict[type[Any], Callable[[Compiler, Any], Run]] = {
    Literal: Compiler._literal,
    Reference: Compiler._reference,
    Prefix: Compiler._prefix,
    Choice: Compiler._choice,
    Chain: Compiler._chain,
    Call: Compiler._call,
}

_SPECIAL: dict[str, Callable[[Compiler, Call], Run]] = {
    "if": Compiler._if,
    "not": Compiler._not,
    "match": Compiler._match,
    "exists": Compiler._exists,
    "param": Compiler._param,
    "previous": Compiler._previous,
}
"""Functions whose arguments are not simply evaluated."""


def _is_mask(node: Node) -> bool:
    return isinstance(node, Literal) and isinstance(node.value, str) and has_wildcards(node.value)


def _negated(test: Test) -> Test:
    return lambda value: not test(value)


def _test_to_the_right(first: Node, rest: Sequence[Step]) -> tuple[Node, Sequence[Step]]:
    """``"12*" == name`` is the same as ``name == "12*"``, and null on the left what it is on the right."""
    asks = _is_mask(first) or (isinstance(first, Literal) and first.value is None)
    asks = asks and not isinstance(rest[0].operand, Literal)
    if asks and len(rest) == 1 and rest[0].operator in EQUALITIES:
        return rest[0].operand, [Step(rest[0].column, rest[0].operator, first)]
    return first, rest


def _function(node: Call) -> Function:
    function = FUNCTIONS.get(node.name)
    if function is None:
        raise ExpressionError(node.column, _unknown(node.name))
    count = len(node.arguments)
    if not function.least <= count <= function.most:
        given = f"{count} argument{'' if count == 1 else 's'}"
        raise ExpressionError(node.column, f"{node.name}() has {given} here; it is {function.usage}")
    return function


def _unknown(name: str) -> str:
    if name in ABSENT:
        return f"{name}(): {ABSENT[name]}"
    similar = get_close_matches(name.lower(), FUNCTIONS, 1, 0.8) if len(name) <= SHOWN_MOST else []
    if similar:
        return f"a function {shown(name)} does not exist; did you mean {FUNCTIONS[similar[0]].usage}?"
    return f"a function {shown(name)} does not exist; /storage/expressions/functions lists those that do"


def _name(node: Call, argument: Node) -> str:
    """The name of a parameter: in quotes, as flespi has it, or as it is."""
    if isinstance(argument, Literal) and isinstance(argument.value, str) and argument.value:
        return argument.value
    if isinstance(argument, Reference) and argument.sign != "#":
        return argument.name
    usage = FUNCTIONS[node.name].usage
    raise ExpressionError(argument.column, f"{usage} takes the name of a parameter in quotes here")
