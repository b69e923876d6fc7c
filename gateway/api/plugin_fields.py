"""The fields of a plugin, as the API gives them, and which plugins a path means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from gateway.api.call import Call
from gateway.api.fields import FieldTable
from gateway.api.items import Json
from gateway.api.others import Noun
from gateway.api.parts import Parts
from gateway.api.typed import shown_configuration
from gateway.store.item import Plugin
from gateway.store.views import CID

URI = "gw/plugins"
CONFIGURATION_INVALID = 6
"""``blocked`` of an item that cannot be used as it is."""


class PluginView(Struct):
    """A plugin, with the fields that were asked for; parts of objects stand under their dotted name."""

    id: int | UnsetType = UNSET
    name: str | UnsetType = UNSET
    type_id: int | UnsetType | None = UNSET
    type_name: str | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    validate_message: str | UnsetType = UNSET
    configuration: Json | UnsetType = UNSET
    cid: int | UnsetType = UNSET
    metadata: Json | UnsetType = UNSET
    blocked: int | UnsetType = UNSET
    error: str | UnsetType = UNSET
    devices_count: int | UnsetType = UNSET


DEFAULT = ("id", "name", "type_id", "type_name", "enabled", "priority", "validate_message", "configuration", "cid")


def plugin_table(parts: Parts, configuration: Callable[[Plugin], Json]) -> FieldTable:
    """``configuration`` says how that of a plugin is shown."""
    chains, links = parts.chains, parts.items.links
    readers: dict[str, Any] = {
        **{name: (lambda plugin, name=name: getattr(plugin, name)) for name in (
            "id", "name", "enabled", "priority", "validate_message", "metadata",
        )},
        "type_id": lambda plugin: chains.types[plugin.type].id if plugin.type in chains.types else None,
        "type_name": lambda plugin: plugin.type,
        "configuration": configuration,
        "cid": lambda plugin: CID,
        "blocked": lambda plugin: CONFIGURATION_INVALID if chains.problem(plugin.id) else 0,
        "error": lambda plugin: chains.problem(plugin.id),
        "devices_count": lambda plugin: len(links.of("plugins", plugin.id, "devices")),
    }  # fmt: skip
    return FieldTable(readers, DEFAULT)


def table_for(call: Call) -> FieldTable:
    """As the caller may see them."""
    return plugin_table(call.parts, shown_configuration(call, URI))


async def _load(call: Call, plugins: Sequence[Plugin], names: Sequence[str]) -> FieldTable:
    return table_for(call)


PLUGINS = Noun("plugins", table_for, _load)
