"""Messages as rows of a table: which row a message is, what stands in its columns, and the SQL for it.

A row is a moment of a device. What comes again for it is merged, as the gateway does with a device's messages: so a
message that is delivered twice changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import orjson
from attrs import frozen
from msgspec import Meta, Struct

from gateway.message import merge, message_key
from gateway.stream.target import Message, Outgoing

KEY = ("ident", "device_id", "timestamp")
OWN = (*KEY, "message")
"""Columns that each table has."""
IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]{0,62}"
BIGINT = 2**63
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ColumnType = Literal["double precision", "bigint", "boolean", "text", "timestamptz", "jsonb"]


class Column(Struct, forbid_unknown_fields=True, kw_only=True):
    """What stands in a column beside the message."""

    parameter: Annotated[str, Meta(min_length=1, max_length=128, description="whose value it has")]
    type: ColumnType = "double precision"


# -- values


def moment(seconds: Any) -> datetime | None:
    """UNIX seconds, to the microsecond; None: that is no time of the years 1 to 9999."""
    if type(seconds) not in (int, float) or not math.isfinite(seconds):
        return None
    try:
        return EPOCH + timedelta(microseconds=round(seconds * 1_000_000))
    except OverflowError:
        return None


def _double(value: Any) -> float | None:
    try:
        return float(value) if type(value) in (int, float) else None
    except OverflowError:
        return None


def _bigint(value: Any) -> int | None:
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and -BIGINT <= value < BIGINT else None


def _jsonb(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


CONVERTED: Mapping[str, Callable[[Any], Any]] = {
    "double precision": _double,
    "bigint": _bigint,
    "boolean": lambda value: value if type(value) is bool else None,
    "text": lambda value: value if type(value) is str else None,
    "timestamptz": moment,
    "jsonb": _jsonb,
}
"""Of each type of column: a parameter's value as the driver takes it; None where it is of another type."""


# -- rows


@frozen
class Placed:
    """A message, its index in the batch, and the moment of its row."""

    index: int
    outgoing: Outgoing
    at: datetime


def placed(index: int, outgoing: Outgoing) -> Placed | None:
    """None: the message has no time that a row could have."""
    source = outgoing.source
    at = moment(message_key(source)) if "timestamp" in source else None
    return Placed(index, outgoing, at) if at is not None else None


def arguments(messages: Iterable[Placed], columns: Sequence[Column]) -> list[list[Any]]:
    """The values of each column, a row each; messages of one row are merged in their order."""
    converted = [(column.parameter, CONVERTED[column.type]) for column in columns]
    rows: dict[tuple[str, int, datetime], list[Any]] = {}
    for one in messages:
        outgoing = one.outgoing
        source = outgoing.source
        key = (outgoing.ident, outgoing.device_id, one.at)
        row = [*key, outgoing.text.decode(), *[convert(source.get(name)) for name, convert in converted]]
        before = rows.get(key)
        rows[key] = row if before is None else _merged(before, row, outgoing.message)
    return [list(values) for values in zip(*rows.values(), strict=True)]


def _merged(before: list[Any], row: list[Any], message: Message) -> list[Any]:
    """What the database would make of the two: in one statement it takes a row only once."""
    text = orjson.dumps(merge(orjson.loads(before[3]), message)).decode()
    values = [old if new is None else new for old, new in zip(before[4:], row[4:], strict=True)]
    return [*row[:3], text, *values]


# -- SQL


def quoted(name: str) -> str:
    """An identifier, or one with its schema, as SQL has it."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


def create_table(table: str) -> str:
    """The statement that makes it."""
    return f"""
        CREATE TABLE IF NOT EXISTS {quoted(table)} (
            ident text NOT NULL,
            device_id bigint NOT NULL,
            "timestamp" timestamptz NOT NULL,
            message jsonb NOT NULL,
            PRIMARY KEY (ident, device_id, "timestamp")
        )"""


def add_columns(table: str, columns: Mapping[str, Column]) -> str:
    """The statement that adds them."""
    added = ", ".join(f"ADD COLUMN IF NOT EXISTS {quoted(name)} {column.type}" for name, column in columns.items())
    return f"ALTER TABLE {quoted(table)} {added}"


def upsert(table: str, columns: Mapping[str, Column]) -> str:
    """The statement that takes :func:`arguments`."""
    names = [quoted(name) for name in (*OWN, *columns)]
    types = ["text", "bigint", "timestamptz", "jsonb", *(column.type for column in columns.values())]
    given = ", ".join(f"${number}::{type}[]" for number, type in enumerate(types, 1))
    merged = [f"{name} = COALESCE(excluded.{name}, kept.{name})" for name in map(quoted, columns)]
    changes = ", ".join(["message = kept.message || excluded.message", *merged])
    return (
        f"INSERT INTO {quoted(table)} AS kept ({', '.join(names)}) SELECT * FROM unnest({given}) "
        f"ON CONFLICT ({', '.join(map(quoted, KEY))}) DO UPDATE SET {changes}"
    )
