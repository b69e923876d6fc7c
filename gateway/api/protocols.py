"""``/gw/channel-protocols`` and their device types: what a channel can speak, and what a device can be.

From the dictionary of models. flespi's REST has the same paths; which parameters a model can send is what Teltonika's
tables print for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from attrs import frozen
from msgspec import UNSET, Struct, UnsetType

from gateway.api.answers import Answer
from gateway.api.call import Call
from gateway.api.errors import ApiError
from gateway.api.fields import FieldTable, ItemsQuery
from gateway.api.items import Json, listed
from gateway.api.operations import Operation, Right
from gateway.api.selectors import select
from gateway.parameters import catalogue
from gateway.protocols.catalog import PROTOCOLS, TrackerProtocol
from gateway.protocols.teltonika import can_flags
from gateway.protocols.teltonika.avl_ids import AvlRow, all_rows, find_model, rows_for

URI = "gw/channel-protocols"


class MessageParameter(Struct):
    """One that messages may have."""

    name: str
    type: str
    unit: str
    info: str


class ProtocolView(Struct):
    """A protocol, with the fields that were asked for."""

    id: int | UnsetType = UNSET
    name: str | UnsetType = UNSET
    features: Json | UnsetType = UNSET
    message_parameters: list[MessageParameter] | UnsetType = UNSET


class DeviceTypeView(Struct):
    """A device type, with the fields that were asked for."""

    id: int | UnsetType = UNSET
    name: str | UnsetType = UNSET
    device_type_name: str | UnsetType = UNSET
    title: str | UnsetType = UNSET
    protocol_id: int | UnsetType = UNSET
    protocol_name: str | UnsetType = UNSET
    commands: list[Json] | UnsetType = UNSET
    settings: list[Json] | UnsetType = UNSET
    message_parameters: list[MessageParameter] | UnsetType = UNSET


@frozen
class _Type:
    """A device type of a protocol."""

    id: int
    name: str
    title: str
    model: str | None
    protocol: TrackerProtocol


def _parameters(names: Sequence[str]) -> list[Json]:
    known = catalogue()
    return [
        {"name": name, "type": known[name].type, "unit": known[name].unit, "info": known[name].meaning}
        for name in names
    ]


@cache
def _all_parameters() -> list[Json]:
    return _parameters(list(catalogue()))


def _sent_as(row: AvlRow) -> list[str]:
    """The parameters that a value of this row becomes."""
    return list(can_flags.parameters(row.detail)) if row.kind == "flags" else row.parameters


@cache
def _of_some_models() -> frozenset[str]:
    """Parameters that come from AVL ids: whether a model has them depends on its table."""
    return frozenset(name for row in all_rows() for name in _sent_as(row))


@cache
def _parameters_of(model: str | None) -> list[Json]:
    """Those that every tracker's messages may have, and those of the AVL ids in the model's table.

    Of a model without a table of its own, those of its family.
    """
    if model is None:
        return _all_parameters()
    found = find_model(model)
    rows = [row for row in all_rows() if found.table in row.tables] or rows_for(found.family, found.table).values()
    sent = {name for row in rows for name in _sent_as(row)}
    return _parameters([name for name in catalogue() if name in sent or name not in _of_some_models()])


PROTOCOL_TABLE = FieldTable(
    {
        "id": lambda protocol: protocol.id,
        "name": lambda protocol: protocol.name,
        "features": lambda protocol: {"transports": ["tcp", "tls", "udp"], "commands": True, "settings": True},
        "message_parameters": lambda protocol: _all_parameters(),
    },
    ("id", "name"),
)
TYPE_TABLE = FieldTable(
    {
        "id": lambda kind: kind.id,
        "name": lambda kind: kind.name,
        "device_type_name": lambda kind: kind.name,
        "title": lambda kind: kind.title,
        "protocol_id": lambda kind: kind.protocol.id,
        "protocol_name": lambda kind: kind.protocol.name,
        "commands": lambda kind: kind.protocol.describe_commands(kind.model),
        "settings": lambda kind: [
            {"name": name, "schema": setting.schema} for name, setting in kind.protocol.settings_of(kind.model).items()
        ],
        "message_parameters": lambda kind: _parameters_of(kind.model),
    },
    ("id", "name", "title", "protocol_id"),
)


def _types(protocols: Sequence[TrackerProtocol]) -> Mapping[int, _Type]:
    return {
        id: _Type(id, kind.name, kind.title, kind.model, protocol)
        for protocol in protocols
        for id, kind in protocol.device_types().items()
    }


def _without_parameters(table: FieldTable) -> FieldTable:
    """For selectors: nobody chooses by a list of hundreds."""
    return FieldTable(
        {name: read for name, read in table.readers.items() if name != "message_parameters"}, table.default
    )


async def _select_protocols(call: Call) -> tuple[list[TrackerProtocol], list[ApiError]]:
    table = _without_parameters(PROTOCOL_TABLE)
    return await select(call.path["protocols"], PROTOCOLS, table, call.permitted_ids(), turn=call.parts.turn)


async def list_protocols(call: Call) -> Answer:
    """GET."""
    names = PROTOCOL_TABLE.chosen(call.query.fields)
    protocols, errors = await _select_protocols(call)
    return await listed(call, protocols, errors, names, _always(PROTOCOL_TABLE))


async def list_device_types(call: Call) -> Answer:
    """GET. ``{types}`` of all protocols that are meant."""
    names = TYPE_TABLE.chosen(call.query.fields)
    protocols, errors = await _select_protocols(call)
    types, more = await select(
        call.path["types"], _types(protocols), _without_parameters(TYPE_TABLE), turn=call.parts.turn
    )
    return await listed(call, types, [*errors, *more], names, _always(TYPE_TABLE))


def _always(table: FieldTable) -> Any:
    async def load(items: Sequence[Any], names: Sequence[str]) -> FieldTable:
        return table

    return load


RIGHT = Right(URI)

OPERATIONS = [
    Operation(
        "GET", "/gw/channel-protocols/{protocols}", list_protocols, "Protocols of channels", RIGHT,
        query=ItemsQuery, result=ProtocolView,
    ),
    Operation(
        "GET", "/gw/channel-protocols/{protocols}/device-types/{types}", list_device_types, "Device types", RIGHT,
        query=ItemsQuery, result=DeviceTypeView,
    ),
]  # fmt: skip
