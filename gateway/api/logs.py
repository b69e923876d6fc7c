"""``.../logs``: what happened to items (flespi's REST, "logs"), and ``/const/values``: what its numbers mean."""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated, Any

import orjson
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.api.answers import Answer
from gateway.api.call import Call
from gateway.api.channel_fields import select_channels
from gateway.api.device_fields import select_devices
from gateway.api.errors import ApiError
from gateway.api.message_query import MessagesQuery, Wishes
from gateway.api.operations import Operation, Right
from gateway.api.plugin_fields import PLUGINS
from gateway.api.stream_fields import STREAMS
from gateway.store.event_codes import CLOSE_REASONS, DESCRIPTIONS, ORIGIN_TYPES
from gateway.store.history import Chunks

CODES = "toolbox/codes"
ERRORS = (103, 114, 304, 333, 351, 402, 403, 406)
"""Events that tell of something that did not work."""


class LogEntry(Struct):
    """What happened; of it what ``fields`` asks for. Other fields depend on ``event_code``: ``ident``, ``source``,
    ``transport``, ``close_code``, ``duration`` (seconds), ``msgs``, ``recv``, ``send``, ``reason``, ``new``, ``old``,
    ``repeated``."""

    event_code: int | UnsetType = UNSET
    origin_id: int | UnsetType = UNSET
    origin_type: int | UnsetType = UNSET
    timestamp: float | UnsetType = UNSET


async def _answer(call: Call, kind: str, ids: list[int], errors: list[ApiError]) -> Answer:
    wishes = Wishes.of(call.data, call.parts.history.turn)
    if not ids:
        return Answer(errors=errors)
    await call.parts.events.flush()
    entries = call.parts.events.read(kind, ids, call.data.span, wishes.turn)
    limits = _limits(call, kind)
    return Answer(wishes.fulfil(_visible(entries, limits) if limits else entries), errors)


def _limits(call: Call, kind: str) -> dict[str, frozenset[int]]:
    """Which devices and channels entries of plugins and streams may be about, where the token may not see all."""
    if kind not in ("plugins", "streams"):
        return {}
    visible = {f"{one}_id": call.access.ids("GET", f"gw/{one}s") for one in ("device", "channel")}
    return {name: ids for name, ids in visible.items() if ids is not None}


async def _visible(entries: Chunks, limits: dict[str, frozenset[int]]) -> Chunks:
    async with aclosing(entries):
        async for texts in entries:
            yield [text for text in texts if _may_see(orjson.loads(text), limits)]


def _may_see(entry: dict[str, Any], limits: dict[str, frozenset[int]]) -> bool:
    return all(entry[name] in ids for name, ids in limits.items() if name in entry)


async def of_channels(call: Call) -> Answer:
    """GET."""
    channels, errors = await select_channels(call)
    return await _answer(call, "channels", [channel.id for channel in channels], errors)


async def of_devices(call: Call) -> Answer:
    """GET."""
    devices, errors = await select_devices(call)
    return await _answer(call, "devices", [device.id for device in devices], errors)


async def of_plugins(call: Call) -> Answer:
    """GET."""
    plugins, errors = await PLUGINS.select(call)
    return await _answer(call, "plugins", [plugin.id for plugin in plugins], errors)


async def of_streams(call: Call) -> Answer:
    """GET."""
    streams, errors = await STREAMS.select(call)
    return await _answer(call, "streams", [stream.id for stream in streams], errors)


class ConstQuery(Struct):
    """Of ``/const/values``."""

    names: Annotated[str, Meta(max_length=1024, description=f"names with commas between; there is {CODES}")] = CODES


async def const_values(call: Call) -> Answer:
    """GET: as flespi's Toolbox asks for it."""
    names = [name.strip() for name in call.query.names.split(",") if name.strip()]
    unknown = [name for name in names if name != CODES]
    if unknown:
        raise ApiError.bad_request(f"names: there is no {unknown[0][:100]!r}, but {CODES}", field="names")
    return Answer([{CODES: {"codes": _codes(), "entities": _entities()}} for _ in names[:1]])


def _codes() -> dict[str, Any]:
    closes = {str(int(code)): reason for code, reason in CLOSE_REASONS.items()}
    return {
        str(int(code)): {
            "code": int(code),
            "name": name,
            "description": description,
            "severity": "error" if code in ERRORS else "info",
            "entity": _entity(code),
            **({"extra_name": "close_code", "extra_codes": closes} if code in (102, 301) else {}),
        }
        for code, (name, description) in DESCRIPTIONS.items()
    }


def _entity(code: int) -> str:
    bounds = ((100, "base"), (300, "channels"), (400, "devices"), (500, "streams"), (600, "mqtt"), (1000, "tokens"))
    return next((entity for bound, entity in bounds if code < bound), "base")


def _entities() -> dict[str, list[int]]:
    entities: dict[str, list[int]] = {"base": [], **{kind: [] for kind in ORIGIN_TYPES}}
    for code in DESCRIPTIONS:
        entities.setdefault(_entity(code), []).append(int(code))
    return entities


OPERATIONS = [
    Operation(
        "GET", "/gw/channels/{channels}/logs", of_channels, "What happened to channels",
        access=Right("gw/channels", "logs"), data=MessagesQuery, result=LogEntry,
    ),
    Operation(
        "GET", "/gw/devices/{devices}/logs", of_devices, "What happened to devices",
        access=Right("gw/devices", "logs"), data=MessagesQuery, result=LogEntry,
    ),
    Operation(
        "GET", "/gw/plugins/{plugins}/logs", of_plugins, "What happened to plugins",
        access=Right("gw/plugins", "logs"), data=MessagesQuery, result=LogEntry,
    ),
    Operation(
        "GET", "/gw/streams/{streams}/logs", of_streams, "What happened to streams",
        access=Right("gw/streams", "logs"), data=MessagesQuery, result=LogEntry,
    ),
    Operation("GET", "/const/values", const_values, "What the numbers of events mean", query=ConstQuery),
]  # fmt: skip
