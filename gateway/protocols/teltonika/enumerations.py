"""Enumerations of the dictionary: which raw value is which parameter's value (kind ``map``, column ``detail``).

``gnss.state.enum|gnss.status`` with ``raw|0:false,1:true``: the first parameter is the raw value, the second one what
stands behind the colon, true, false or text; a value that a column does not have does not set its parameter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.protocols.teltonika.avl_ids import AvlRow
from gateway.protocols.teltonika.values import Message, exact

# Each parameter with its values; None for the raw value.
Columns = list[tuple[str, dict[int, Any] | None]]

_BOOLEANS = {"false": False, "true": True}


def read_map(row: AvlRow) -> Columns:
    """The columns of a row of this kind."""
    return [
        (name, None if column == "raw" else dict(_entries(column)))
        for name, column in zip(row.parameters, row.detail.split("|"), strict=True)
    ]


def _entries(column: str) -> Iterator[tuple[int, Any]]:
    for entry in column.split(","):
        value, _, meaning = entry.partition(":")
        yield int(value), _BOOLEANS.get(meaning, meaning)


def map_value(columns: Columns, value: int) -> Message:
    """The parameters of ``value``; empty where it has no meaning. Raises DecodeError."""
    found = {name: exact(value) if column is None else column.get(value) for name, column in columns}
    return {name: meaning for name, meaning in found.items() if meaning is not None}
