"""``/gw/plugins/{sel}/devices/{sel}``: on whose messages plugins work, and ``/gw/devices/{sel}/plugins/{sel}``.

``fields`` of a link are the plugin's for this device, such as ``{"driver": "Bob"}``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import evolve
from msgspec import UNSET, Struct, UnsetType

from gateway.api.answers import Answer
from gateway.api.call import Call
from gateway.api.device_fields import select_devices
from gateway.api.errors import ApiError
from gateway.api.fields import FieldsQuery, FieldTable, ItemsQuery
from gateway.api.items import Json, listed, merged
from gateway.api.links import Ends, linked_table
from gateway.api.operations import Operation, Right
from gateway.api.plugin_fields import PLUGINS, table_for
from gateway.api.selectors import select
from gateway.store.links import Link


class LinkFields(Struct, forbid_unknown_fields=True):
    """What the plugin shall know of the device. PUT replaces them, PATCH merges; null removes a key."""

    fields: Json | UnsetType = UNSET


class PluginDeviceView(Struct):
    """A device that a plugin is assigned to, with the fields that were asked for: the link's, and the device's own."""

    id: int | UnsetType = UNSET
    plugin_id: int | UnsetType = UNSET
    name: str | UnsetType | None = UNSET
    fields: Json | UnsetType = UNSET
    plugin_name: str | UnsetType | None = UNSET
    created: float | UnsetType = UNSET


class DevicePluginView(Struct):
    """A plugin of a device, with the fields that were asked for: the link's, and the plugin's own."""

    id: int | UnsetType = UNSET
    device_id: int | UnsetType = UNSET
    name: str | UnsetType | None = UNSET
    type_id: int | UnsetType | None = UNSET
    type_name: str | UnsetType | None = UNSET
    enabled: bool | UnsetType | None = UNSET
    priority: int | UnsetType | None = UNSET
    fields: Json | UnsetType = UNSET
    created: float | UnsetType = UNSET


def _given(call: Call) -> Json | None:
    return call.body.fields if not isinstance(call.body.fields, UnsetType) else None


async def list_devices(call: Call) -> Answer:
    """GET."""
    return await Ends(call, PLUGINS, "devices").listed()


async def assign(call: Call) -> Answer:
    """POST."""
    return await Ends(call, PLUGINS, "devices").made(_given(call))


async def put_fields(call: Call) -> Answer:
    """PUT."""
    fields = _given(call)
    return await Ends(call, PLUGINS, "devices").changed(
        lambda link: link if fields is None else evolve(link, fields=fields)
    )


async def patch_fields(call: Call) -> Answer:
    """PATCH."""
    patch = _given(call) or {}
    return await Ends(call, PLUGINS, "devices").changed(lambda link: evolve(link, fields=merged(link.fields, patch)))


async def detach(call: Call) -> Answer:
    """DELETE."""
    return await Ends(call, PLUGINS, "devices").removed()


def _plugin_links(call: Call) -> FieldTable:
    own = {"device_id": lambda link: link.to_id, "fields": lambda link: link.fields, "created": lambda link: link.at}
    readers: dict[str, Any] = {
        **linked_table(table_for(call), call.parts.items.plugins, lambda link: link.id),
        **own,
    }
    return FieldTable(readers, ("id", "device_id", "name", "type_id", "type_name", "enabled", "priority", "fields"))


async def list_plugins(call: Call) -> Answer:
    """GET: of each device in the order in which they work."""
    table = _plugin_links(call)
    names = table.chosen(call.query.fields)
    devices, errors = await select_devices(call)
    links, plugins = call.parts.items.links, call.parts.items.plugins
    visible = call.access.ids("GET", PLUGINS.uri)
    found: list[Link] = []
    missing: list[Any] | None = None
    for device in devices:
        of_device = links.to("devices", device.id, "plugins")
        chosen, more = await select(call.path["plugins"], of_device, table, visible, turn=call.parts.turn)
        chosen = [link for link in chosen if link.id in plugins]
        found += sorted(chosen, key=lambda link: (plugins[link.id].priority, link.id))
        ids = [error.details["id"] for error in more]
        missing = ids if missing is None else [id for id in missing if id in ids]

    async def load(some: Sequence[Link], wanted: Sequence[str]) -> FieldTable:
        return table

    return await listed(call, found, [*errors, *(ApiError.denied(id) for id in missing or ())], names, load)


RIGHT = Right("gw/plugins", "devices")
URL = "/gw/plugins/{plugins}/devices/{devices}"

OPERATIONS = [
    Operation("GET", URL, list_devices, "Devices of plugins", RIGHT, query=ItemsQuery, result=PluginDeviceView),
    Operation(
        "POST", URL, assign, "Assign plugins to devices", RIGHT,
        query=FieldsQuery, body=LinkFields, may_lack_body=True, result=PluginDeviceView,
    ),
    Operation(
        "PUT", URL, put_fields, "Replace the fields of plugins for devices", RIGHT,
        query=FieldsQuery, body=LinkFields, result=PluginDeviceView,
    ),
    Operation(
        "PATCH", URL, patch_fields, "Merge into the fields of plugins for devices", RIGHT,
        query=FieldsQuery, body=LinkFields, result=PluginDeviceView,
    ),
    Operation(
        "DELETE", URL, detach, "Take plugins from devices", RIGHT, query=FieldsQuery, result=PluginDeviceView,
    ),
    Operation(
        "GET", "/gw/devices/{devices}/plugins/{plugins}", list_plugins, "Plugins of devices, in order",
        Right("gw/devices", "plugins"), query=ItemsQuery, result=DevicePluginView,
    ),
]  # fmt: skip
