"""``/gw/channels|devices/{...}/connections``: who is connected just now; DELETE closes (flespi's REST, "connections").

UDP has no connections: see the idents of the channel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

import orjson
from msgspec import UNSET, Struct, UnsetType

from gateway.api.answers import Answer, Texts
from gateway.api.call import Call
from gateway.api.channel_fields import select_channels
from gateway.api.device_fields import select_devices
from gateway.api.errors import ApiError
from gateway.api.fields import FieldsQuery, FieldTable, ItemsQuery, paginate
from gateway.api.operations import Operation, Right
from gateway.api.selectors import select
from gateway.channel.connection import TrackerConnection
from gateway.channel.connections import Connections
from gateway.store.event_codes import CloseCode

CHUNK = 200
"""Connections described before others have their turn."""


class ConnectionView(Struct):
    """A connection. ``ident`` is null until it said who it is and was let in; times are UNIX seconds."""

    id: int | UnsetType = UNSET
    channel_id: int | UnsetType = UNSET
    device_id: int | UnsetType | None = UNSET
    ident: str | UnsetType | None = UNSET
    source: str | UnsetType = UNSET
    transport: str | UnsetType = UNSET
    established: float | UnsetType = UNSET
    last_active: float | UnsetType = UNSET
    msgs: int | UnsetType = UNSET
    recv: int | UnsetType = UNSET
    send: int | UnsetType = UNSET
    meta: dict[str, Any] | UnsetType | None = UNSET
    secondary: bool | UnsetType = UNSET


NAMES = ConnectionView.__struct_fields__
VIEWS = FieldTable({name: itemgetter(name) for name in NAMES}, NAMES)
"""Reads what :meth:`Connections.describe` gives."""


def _table(connections: Connections) -> FieldTable:
    """Reads connections, for selectors: nothing of those that are chosen by their id, or all."""
    return FieldTable({name: partial(_field, connections, name) for name in NAMES}, NAMES)


def _field(connections: Connections, name: str, connection: TrackerConnection) -> Any:
    return connections.describe(connection)[name]


async def _select(
    call: Call, among: Iterable[TrackerConnection]
) -> tuple[list[TrackerConnection], list[ApiError], list[str]]:
    """Those of ``among`` that the path means, errors, and the names of the fields. Raises ApiError."""
    names = VIEWS.chosen(call.query.fields)
    found = {connection.id: connection for connection in among}
    chosen, errors = await select(call.path["connections"], found, _table(call.parts.connections), turn=call.parts.turn)
    return chosen, errors, names


async def _of_channels(call: Call) -> tuple[list[TrackerConnection], list[ApiError]]:
    channels, errors = await select_channels(call)
    ids = {channel.id for channel in channels}
    return [connection for connection in call.parts.connections if connection.channel.id in ids], errors


async def _of_devices(call: Call) -> tuple[list[TrackerConnection], list[ApiError]]:
    devices, errors = await select_devices(call)
    found = (call.parts.connections.of_ident(*device.key) for device in devices)
    return [connection for connection in found if connection is not None], errors


async def _listed(call: Call, among: Sequence[TrackerConnection], errors: list[ApiError]) -> Answer:
    chosen, more, names = await _select(call, among)
    page, extra = paginate(chosen, call.query)
    texts = _texts(call.parts.connections, page, names) if page else ()
    return Answer(texts, [*errors, *more], extra)


async def _texts(connections: Connections, page: Sequence[TrackerConnection], names: list[str]) -> Texts:
    for start in range(0, len(page), CHUNK):
        views = [connections.describe(connection) for connection in page[start : start + CHUNK]]
        yield [orjson.dumps(VIEWS.project(view, names)) for view in views]
        await asyncio.sleep(0)


async def _close(call: Call, among: Sequence[TrackerConnection], errors: list[ApiError]) -> Answer:
    chosen, more, names = await _select(call, among)
    connections = call.parts.connections
    views: list[dict[str, Any]] = []
    for count, connection in enumerate(chosen, 1):
        view = VIEWS.project(connections.describe(connection), names)
        if connections.close_by_id(connection.id, CloseCode.USER_REQUEST):
            views.append(view)
        if count % CHUNK == 0:
            await asyncio.sleep(0)
    return Answer(views, [*errors, *more])


async def list_of_channels(call: Call) -> Answer:
    return await _listed(call, *await _of_channels(call))


async def close_of_channels(call: Call) -> Answer:
    return await _close(call, *await _of_channels(call))


async def list_of_devices(call: Call) -> Answer:
    return await _listed(call, *await _of_devices(call))


async def close_of_devices(call: Call) -> Answer:
    return await _close(call, *await _of_devices(call))


OF_CHANNELS, OF_DEVICES = Right("gw/channels", "connections"), Right("gw/devices", "connections")
CHANNELS = "/gw/channels/{channels}/connections/{connections}"
DEVICES = "/gw/devices/{devices}/connections/{connections}"

OPERATIONS = [
    Operation(
        "GET", CHANNELS, list_of_channels, "Who is connected to channels",
        access=OF_CHANNELS, query=ItemsQuery, result=ConnectionView,
    ),
    Operation(
        "DELETE", CHANNELS, close_of_channels, "Close connections of channels",
        access=OF_CHANNELS, query=FieldsQuery, result=ConnectionView,
    ),
    Operation(
        "GET", DEVICES, list_of_devices, "The connections of devices",
        access=OF_DEVICES, query=ItemsQuery, result=ConnectionView,
    ),
    Operation(
        "DELETE", DEVICES, close_of_devices, "Close the connections of devices",
        access=OF_DEVICES, query=FieldsQuery, result=ConnectionView,
    ),
]  # fmt: skip
