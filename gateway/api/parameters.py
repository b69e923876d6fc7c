"""``/gw/message-parameters``: what messages may contain, with type, unit and meaning (flespi's REST).

A selector is ``all``, names with commas between (``din,can.*``), or a condition or expression as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from gateway.api.answers import Answer
from gateway.api.call import Call
from gateway.api.errors import ApiError
from gateway.api.fields import FieldTable, ItemsQuery
from gateway.api.items import listed
from gateway.api.operations import Operation, Right
from gateway.api.selectors import select
from gateway.expressions import wildcard
from gateway.parameters import Parameter, catalogue, find
from gateway.store.ordered import Turn

NAMES_MOST = 1000
NOT_NAMES = frozenset('={}"')
"""What a condition or an expression has, and a name has not."""


class ParameterView(Struct):
    """A parameter, with the fields that were asked for. ``note``: in what it differs from flespi's."""

    name: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    units: str | UnsetType = UNSET
    info: str | UnsetType = UNSET
    note: str | UnsetType = UNSET


TABLE = FieldTable(
    {
        "name": lambda parameter: parameter.name,
        "type": lambda parameter: parameter.type,
        "units": lambda parameter: parameter.unit,
        "info": lambda parameter: parameter.meaning,
        "note": lambda parameter: parameter.ours,
    },
    ("name", "type", "units", "info"),
)


@cache
def _numbered() -> dict[int, Parameter]:
    """They have no ids, and selectors want some."""
    return dict(enumerate(catalogue().values()))


async def list_parameters(call: Call) -> Answer:
    """GET."""
    names = TABLE.chosen(call.query.fields)
    text = call.path["parameters"]
    if text == "all" or NOT_NAMES & set(text):
        found, errors = await select(text, _numbered(), TABLE, turn=call.parts.turn)
    else:
        found, errors = await _named(text, call.parts.turn)
    return await listed(call, found, errors, names, _table)


async def _named(text: str, turn: Turn) -> tuple[list[Parameter], list[ApiError]]:
    """Raises ApiError."""
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    if len(wanted) > NAMES_MOST:
        raise ApiError.bad_request(f"{len(wanted)} names of parameters; {NAMES_MOST} are possible in one call")
    found: dict[str, Parameter] = {}
    errors = []
    for name in wanted:
        if _is_mask(name):
            async with turn:  # for each look at all names
                several = _matching(name)
        else:
            several = _matching(name)
        found.update({parameter.name: parameter for parameter in several})
        if not several and not _is_mask(name):
            errors.append(ApiError.denied(name[:200]))
    return list(found.values()), errors


def _matching(name: str) -> list[Parameter]:
    if _is_mask(name):
        matches = wildcard(name)
        return [parameter for parameter in catalogue().values() if matches(parameter.name)]
    parameter = find(name)
    return [parameter] if parameter is not None else []


def _is_mask(name: str) -> bool:
    return "*" in name or "?" in name


async def _table(items: Sequence[Any], names: Sequence[str]) -> FieldTable:
    return TABLE


OPERATIONS = [
    Operation(
        "GET", "/gw/message-parameters/{parameters}", list_parameters, "Parameters of messages",
        Right("gw/message-parameters"), query=ItemsQuery, result=ParameterView,
    ),
]  # fmt: skip
