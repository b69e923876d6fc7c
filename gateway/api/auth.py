"""``/auth/info``: whose token this is, and what it may do; any valid token may ask."""

from __future__ import annotations

from gateway.api.answers import Answer
from gateway.api.call import Call
from gateway.api.fields import FieldsQuery
from gateway.api.operations import Operation, Right
from gateway.api.tokens import TABLE, TokenView


async def show_caller(call: Call) -> Answer:
    """GET; the master token of the configuration has the id 0."""
    return Answer([TABLE.project(call.token, TABLE.chosen(call.query.fields))])


OPERATIONS = [
    Operation(
        "GET", "/auth/info", show_caller, "The token of this call", Right("auth/info"),
        query=FieldsQuery, result=TokenView,
    ),
]  # fmt: skip
