"""The fields of a device, as the API gives them, and which devices a path means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from attrs import field, frozen
from msgspec import UNSET, Struct, UnsetType

from gateway.api.call import Call
from gateway.api.errors import ApiError
from gateway.api.fields import FieldTable
from gateway.api.items import Json
from gateway.api.linked import plugins_of, streams_of
from gateway.api.parts import Parts
from gateway.api.selectors import select
from gateway.protocols.catalog import PROTOCOLS
from gateway.store.access import Access
from gateway.store.connection import store_errors
from gateway.store.items import Device
from gateway.store.settings import Shadow
from gateway.store.telemetry import Values
from gateway.store.views import CID

LEGACY = {"ident": "configuration.ident"}
"""Old names in selectors."""
BY_IDENT = re.compile(r"""(configuration\.)?ident=("?)(?P<ident>[^*?,{}"']+)\2""")
"""The selector of one whole ident."""


class DeviceView(Struct):
    """A device, with the fields that were asked for; parts of objects stand under their dotted name."""

    id: int | UnsetType = UNSET
    name: str | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    protocol_id: int | UnsetType = UNSET
    protocol_name: str | UnsetType = UNSET
    device_type_id: int | UnsetType = UNSET
    device_type_name: str | UnsetType | None = UNSET
    configuration: Json | UnsetType = UNSET
    messages_ttl: int | UnsetType = UNSET
    messages_rotate: int | UnsetType = UNSET
    messages_size: int | UnsetType = UNSET
    media_ttl: int | UnsetType = UNSET
    media_rotate: int | UnsetType = UNSET
    metadata: Json | UnsetType = UNSET
    connected: bool | UnsetType = UNSET
    last_active: float | UnsetType | None = UNSET
    telemetry: Json | UnsetType | None = UNSET
    commands: list[Json] | UnsetType = UNSET
    settings: Json | UnsetType | None = UNSET
    plugins: list[Json] | UnsetType = UNSET
    streams: list[Json] | UnsetType = UNSET
    blocked: int | UnsetType = UNSET
    cid: int | UnsetType = UNSET


DEFAULT = (
    "id", "name", "enabled", "device_type_id", "protocol_id", "configuration", "messages_ttl", "messages_rotate",
    "media_ttl", "media_rotate", "cid",
)  # fmt: skip
OWN = (
    "id", "name", "enabled", "device_type_id", "protocol_id", "configuration", "messages_ttl", "messages_rotate",
    "metadata",
)  # fmt: skip


@frozen
class Asked:
    """What had to be asked of Redis, or depends on who asks, by device id."""

    sizes: dict[int, int] = field(factory=dict)
    telemetry: dict[int, Values] = field(factory=dict)
    seen: dict[int, Values] = field(factory=dict)
    settings: dict[int, dict[str, Shadow]] = field(factory=dict)
    plugins: dict[int, list[Json]] = field(factory=dict)
    streams: dict[int, list[Json]] = field(factory=dict)


def local_table(parts: Parts, asked: Asked | None) -> FieldTable:
    """``asked`` None: without what has to be asked of Redis, for selectors."""
    readers: dict[str, Any] = {
        **{name: (lambda device, name=name: getattr(device, name)) for name in OWN},
        "protocol_name": lambda device: PROTOCOLS[device.protocol_id].name,
        "device_type_name": _type_name,
        "commands": _commands,
        "connected": lambda device: parts.connections.is_connected(*device.key),
        "media_ttl": lambda device: 0,
        "media_rotate": lambda device: 0,
        "blocked": lambda device: 0,
        "cid": lambda device: CID,
    }
    if asked is not None:
        readers["messages_size"] = lambda device: asked.sizes.get(device.id, 0)
        readers["settings"] = lambda device: _settings(asked.settings.get(device.id, {}))
        readers["plugins"] = lambda device: asked.plugins.get(device.id, [])
        readers["streams"] = lambda device: asked.streams.get(device.id, [])
        readers["telemetry"] = lambda device: _telemetry(asked.telemetry.get(device.id, {}))
        readers["last_active"] = lambda device: asked.seen.get(device.id, {}).get("server.timestamp", (None, None))[1]
    return FieldTable(readers, DEFAULT)


def _type_name(device: Device) -> str | None:
    kind = PROTOCOLS[device.protocol_id].device_types().get(device.device_type_id)
    return kind.name if kind is not None else None


def _commands(device: Device) -> list[Json]:
    protocol = PROTOCOLS[device.protocol_id]
    return list(protocol.describe_commands(protocol.model_of(device.device_type_id)))


def _settings(shadows: dict[str, Shadow]) -> Json | None:
    shown = ("current", "pending", "status", "error", "updated", "requested")
    return {name: {key: getattr(shadow, key) for key in shown} for name, shadow in shadows.items()} or None


def _telemetry(values: Values) -> Json | None:
    return {name: {"ts": ts, "value": value} for name, (ts, value) in values.items()} or None


async def device_table(call: Call, devices: Sequence[Device], names: Sequence[str]) -> FieldTable:
    """The fields of these devices, as far as ``names`` need them. Raises StoreError."""
    parts = call.parts
    wanted = {name.partition(".")[0] for name in names}
    ids = [device.id for device in devices]
    known = _with_part(call.access, ids, "telemetry")
    return local_table(
        parts,
        Asked(
            await _sizes(parts, ids) if "messages_size" in wanted else {},
            await parts.telemetry.get_many(known) if "telemetry" in wanted else {},
            await parts.telemetry.get_many(known, ["server.timestamp"]) if "last_active" in wanted else {},
            await _shadows(parts, _with_part(call.access, ids, "settings")) if "settings" in wanted else {},
            plugins_of(call, ids) if "plugins" in wanted else {},
            streams_of(call, "devices", ids) if "streams" in wanted else {},
        ),
    )


def _with_part(access: Access, ids: list[int], part: str) -> list[int]:
    """Of these devices those whose telemetry, or settings, the token may read: that is a right of its own."""
    if not access.permits("GET", "gw/devices", part):
        return []
    permitted = access.ids("GET", "gw/devices", part)
    return ids if permitted is None else [id for id in ids if id in permitted]


async def _shadows(parts: Parts, ids: Sequence[int]) -> dict[int, dict[str, Shadow]]:
    """What is known of each device's settings."""
    return {id: await parts.device_settings.all(id) for id in ids}


async def _sizes(parts: Parts, ids: Sequence[int]) -> dict[int, int]:
    """Bytes that each device's messages take."""
    if not ids:
        return {}
    with store_errors():
        sizes = await parts.redis.hmget(parts.keys.sizes, [str(id) for id in ids])
    return {id: int(size) for id, size in zip(ids, sizes, strict=True) if size is not None}


async def select_devices(call: Call) -> tuple[list[Device], list[ApiError]]:
    """Those that the path means and the token may reach. Raises ApiError."""
    text, items, permitted = call.path["devices"], call.parts.items, call.permitted_ids()
    by_ident = BY_IDENT.fullmatch(text)
    if by_ident is not None:  # what clients ask most: without a look at a hundred thousand others
        found = [items.find_device(protocol_id, by_ident["ident"]) for protocol_id in PROTOCOLS]
        return [one for one in found if one is not None and (permitted is None or one.id in permitted)], []
    table, turn = local_table(call.parts, None), call.parts.turn
    return await select(text, items.devices, table, permitted, turn=turn, legacy=LEGACY)


def device_names(call: Call) -> list[str]:
    """The names of the fields that are asked for, checked. Raises ApiError."""
    return local_table(call.parts, Asked()).chosen(call.query.fields)
