"""``/gw/plugin-types`` and ``/gw/stream-protocols``: what plugins and streams can be, and how each is configured.

``schema`` is the JSON schema of ``configuration``, made of the types that it is checked with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from gateway.api.answers import Answer
from gateway.api.call import Call
from gateway.api.fields import FieldTable, ItemsQuery
from gateway.api.items import Json, listed
from gateway.api.operations import Operation, Right
from gateway.api.selectors import select
from gateway.plugin.base import RemotePlugin


class PluginTypeView(Struct):
    """A type of plugins, with the fields that were asked for. ``is_remote``: it asks another system."""

    id: int | UnsetType = UNSET
    name: str | UnsetType = UNSET
    title: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    is_remote: bool | UnsetType = UNSET
    schema: Json | UnsetType = UNSET


class StreamProtocolView(Struct):
    """A type of streams. ``is_available`` false: it cannot be used, for the reason in ``error``, and has no id."""

    id: int | UnsetType | None = UNSET
    name: str | UnsetType = UNSET
    title: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    is_available: bool | UnsetType = UNSET
    error: str | UnsetType = UNSET
    schema: Json | UnsetType | None = UNSET


PLUGIN_TYPES = FieldTable(
    {
        "id": lambda kind: kind.id,
        "name": lambda kind: kind.name,
        "title": lambda kind: _title(kind.description),
        "description": lambda kind: kind.description,
        "is_remote": lambda kind: issubclass(kind.cls, RemotePlugin),
        "schema": lambda kind: msgspec.json.schema(kind.cls.Config),
    },
    ("id", "name", "title", "description", "is_remote", "schema"),
)
STREAM_PROTOCOLS = FieldTable(
    {
        "id": lambda protocol: protocol.id or None,
        "name": lambda protocol: protocol.name,
        "title": lambda protocol: protocol.title,
        "description": lambda protocol: protocol.description if protocol.cls is not None else "",
        "is_available": lambda protocol: protocol.cls is not None,
        "error": lambda protocol: protocol.reason,
        "schema": lambda protocol: msgspec.json.schema(protocol.cls.Config) if protocol.cls is not None else None,
    },
    ("id", "name", "title", "description", "is_available", "schema"),
)


def _title(description: str) -> str:
    """The first sentence."""
    return description.partition("\n\n")[0].replace("\n", " ").partition(". ")[0].rstrip(".")


def _by_id(types: Mapping[str, Any]) -> dict[int, Any]:
    """Those without an id under a number that no selector can mean."""
    return {kind.id or -place: kind for place, kind in enumerate(types.values(), start=1)}


async def _answer(call: Call, types: Mapping[str, Any], table: FieldTable) -> Answer:
    names = table.chosen(call.query.fields)
    found, errors = await select(call.path["types"], _by_id(types), table, call.permitted_ids(), turn=call.parts.turn)

    async def load(items: Sequence[Any], names: Sequence[str]) -> FieldTable:
        return table

    return await listed(call, found, errors, names, load)


async def list_plugin_types(call: Call) -> Answer:
    """GET."""
    return await _answer(call, call.parts.chains.types, PLUGIN_TYPES)


async def list_stream_protocols(call: Call) -> Answer:
    """GET."""
    return await _answer(call, call.parts.streams.protocols, STREAM_PROTOCOLS)


OPERATIONS = [
    Operation(
        "GET", "/gw/plugin-types/{types}", list_plugin_types, "Types of plugins", Right("gw/plugin-types"),
        query=ItemsQuery, result=PluginTypeView,
    ),
    Operation(
        "GET", "/gw/stream-protocols/{types}", list_stream_protocols, "Types of streams", Right("gw/stream-protocols"),
        query=ItemsQuery, result=StreamProtocolView,
    ),
]  # fmt: skip
