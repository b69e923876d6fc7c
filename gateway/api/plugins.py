"""``/gw/plugins``: what messages of devices go through before they are registered (flespi's REST, "plugins").

The type of a plugin stays what it is. ``priority`` is the order: the lowest first, and of the same by id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.api.answers import Answer
from gateway.api.call import Call
from gateway.api.errors import ApiError
from gateway.api.fields import FieldsQuery, ItemsQuery
from gateway.api.items import Id, Json, Name, given
from gateway.api.operations import Operation, Right
from gateway.api.others import Other, changed, patched, replaced
from gateway.api.parts import Parts
from gateway.api.plugin_fields import PLUGINS, URI, PluginView
from gateway.api.typed import Expression, check_expression, configured, named_type
from gateway.store.item import Plugin

PRIORITY_MOST = 1_000_000
Priority = Annotated[int, Meta(ge=-PRIORITY_MOST, le=PRIORITY_MOST, description="the lowest is the first")]


TYPE_NAMES: Sequence[str] = ("type_name", "type")


class NewPlugin(Struct, forbid_unknown_fields=True):
    """A plugin to be created. Its type is needed, by one of ``type_id``, ``type_name``, ``type``."""

    name: Name = ""
    type_id: Id | UnsetType = UNSET
    type_name: Name | UnsetType = UNSET
    type: Annotated[Name, Meta(description="the same as type_name")] | UnsetType = UNSET
    enabled: bool = True
    priority: Priority = 0
    validate_message: Expression = ""
    configuration: Json = {}
    metadata: Json = {}


class PluginValues(Struct, forbid_unknown_fields=True):
    """PUT: the fields to replace. PATCH: as PUT, but objects are merged; null removes a key."""

    name: Name | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET
    validate_message: Expression | UnsetType = UNSET
    configuration: Json | UnsetType = UNSET
    metadata: Json | UnsetType = UNSET


async def list_plugins(call: Call) -> Answer:
    """GET."""
    return await PLUGINS.list(call)


async def create_plugins(call: Call) -> Answer:
    """POST."""

    async def create(new: NewPlugin) -> Plugin:
        values = given(new)
        id = values.pop("type_id", None)
        names = {key: values.pop(key) for key in TYPE_NAMES if key in values}
        kind = named_type(call.parts.chains.types, id, names, "type")
        check_expression(new.validate_message)
        configuration = configured(kind.cls, new.configuration, {}, kind.cls)
        plugin: Plugin = await call.parts.items.create_plugin(
            **{**values, "type": kind.name, "configuration": configuration}
        )
        return plugin

    return await PLUGINS.create(call, create)


async def put_plugins(call: Call) -> Answer:
    """PUT."""
    return await _change(call, replaced)


async def patch_plugins(call: Call) -> Answer:
    """PATCH."""
    return await _change(call, patched)


async def _change(call: Call, values_of: Any) -> Answer:
    values = given(call.body)
    check_expression(values.get("validate_message", ""))

    def change(old: Other) -> Plugin:
        plugin: Plugin = changed(old, _configured(call.parts, old, values_of(old, values)))
        return plugin

    return await PLUGINS.change(call, call.parts.items.change_plugin, change)


def _configured(parts: Parts, old: Any, values: Json) -> Json:
    """The values with a configuration that is checked, if there is one. Raises ApiError."""
    if "configuration" not in values:
        return values
    kind = parts.chains.types.get(old.type)
    if kind is None:
        reason = f"there is no plugin type {old.type} any more: its configuration cannot be changed"
        raise ApiError.bad_request(reason, field="configuration")
    return {**values, "configuration": configured(kind.cls, values["configuration"], old.configuration, kind.cls)}


async def delete_plugins(call: Call) -> Answer:
    """DELETE."""
    return await PLUGINS.delete(call)


RIGHT = Right(URI)
ONE, ALL = "/gw/plugins/{plugins}", "/gw/plugins"

OPERATIONS = [
    Operation("GET", ONE, list_plugins, "Plugins", RIGHT, query=ItemsQuery, result=PluginView),
    Operation(
        "POST", ALL, create_plugins, "Create plugins", RIGHT,
        query=FieldsQuery, body=list[NewPlugin], result=PluginView,
    ),
    Operation(
        "PUT", ONE, put_plugins, "Replace fields of plugins", RIGHT,
        query=FieldsQuery, body=PluginValues, result=PluginView,
    ),
    Operation(
        "PATCH", ONE, patch_plugins, "Merge into fields of plugins", RIGHT,
        query=FieldsQuery, body=PluginValues, result=PluginView,
    ),
    Operation("DELETE", ONE, delete_plugins, "Delete plugins", RIGHT, query=FieldsQuery, result=PluginView),
]  # fmt: skip
