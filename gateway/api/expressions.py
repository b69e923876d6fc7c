"""``/storage/expressions``: what expressions can do, and what one of them gives for messages of one's own."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, tzinfo
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.api.answers import Answer
from gateway.api.call import Call
from gateway.api.errors import ApiError
from gateway.api.operations import Operation, Right
from gateway.expressions import (
    FUNCTIONS,
    Context,
    EvaluationError,
    Expression,
    ExpressionError,
    compile_expression,
)

ACCESS = Right("storage/expressions")
TESTS_MOST = 100
BUSY_MOST = 0.005
"""Seconds until others have their turn."""

Message = dict[str, Any]
Text = Annotated[str, Meta(max_length=100_000, description="longer than 4096 characters is an error with a column")]


class Arguments(Struct):
    """How many arguments a function takes."""

    min: int
    max: int


class FunctionAnswer(Struct):
    """A function of the language."""

    name: str
    usage: str
    description: str
    arguments: Arguments


class ExpressionTest(Struct, forbid_unknown_fields=True):
    """``input``: one message or several; with none the expression is only compiled.

    Of several, each is the previous one of the next.
    """

    expression: Text
    input: Message | list[Message] = []
    timezone: Annotated[str, Meta(max_length=64, description="an IANA name, such as Europe/Vilnius")] = "UTC"


class Fault(Struct):
    """Why there is no value; ``column`` counts from 1."""

    column: int
    reason: str


class Verdict(Struct, omit_defaults=True):
    """``index``: of the message in ``input``, or of the test where the body is an array; ``code`` 0: there is a value.

    ``result`` is the value, ``error`` stands there instead of it.
    """

    index: int
    code: int
    result: Any = UNSET
    error: Fault | UnsetType = UNSET


async def list_functions(call: Call) -> Answer:
    """The table of functions."""
    return Answer([function.as_dict() for function in FUNCTIONS.values()])


async def try_expressions(call: Call) -> Answer:
    """Compile each expression and evaluate it for each of its messages."""
    if not isinstance(call.body, list):
        expression, timezone = _prepared(call.body)
        return Answer(await _verdicts(expression, timezone, _messages(call.body)))
    answer, verdicts = Answer(), []
    for index, test in enumerate(call.body):
        try:
            expression, timezone = _prepared(test)
        except ApiError as error:
            answer.errors.append(error.at(index=index))
            continue
        verdicts += [_at(index, verdict) for verdict in await _verdicts(expression, timezone, _messages(test))]
    answer.result = verdicts
    return answer


def _at(index: int, verdict: Verdict) -> Verdict:
    return msgspec.structs.replace(verdict, index=index)


def _messages(test: ExpressionTest) -> list[Message]:
    return test.input if isinstance(test.input, list) else [test.input]


def _prepared(test: ExpressionTest) -> tuple[Expression, tzinfo]:
    try:
        expression = compile_expression(test.expression)
    except ExpressionError as error:
        raise ApiError.bad_request(error.reason, field="expression", column=error.column) from None
    return expression, _timezone(test.timezone)


def _timezone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        reason = f"a timezone {name!r} is not known; it should be an IANA name, such as Europe/Vilnius"
        raise ApiError.bad_request(reason, field="timezone") from None


async def _verdicts(expression: Expression, timezone: tzinfo, messages: list[Message]) -> list[Verdict]:
    verdicts = []
    previous: Message | None = None
    began = time.monotonic()
    for index, message in enumerate(messages):
        verdicts.append(_verdict(index, expression, message, Context(previous, timezone)))
        previous = message
        if time.monotonic() - began > BUSY_MOST:
            await asyncio.sleep(0)
            began = time.monotonic()
    return verdicts


def _verdict(index: int, expression: Expression, message: Message, context: Context) -> Verdict:
    try:
        return Verdict(index, 0, result=expression.evaluate(message, context))
    except EvaluationError as error:
        return Verdict(index, 1, error=Fault(error.column, error.reason))


OPERATIONS = [
    Operation(
        "GET",
        "/storage/expressions/functions",
        list_functions,
        "Functions of expressions",
        access=ACCESS,
        result=FunctionAnswer,
    ),
    Operation(
        "POST",
        "/storage/expressions/test",
        try_expressions,
        "Evaluate expressions",
        access=ACCESS,
        body=ExpressionTest | Annotated[list[ExpressionTest], Meta(max_length=TESTS_MOST)],
        result=Verdict,
    ),
]
