"""``/gw/devices/{devices}/telemetry/{parameters}``: the last value of each parameter, and the time that brought it.

``parameters`` is ``all``, names with commas between, and masks such as ``can.*``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from msgspec import Struct

from gateway.api.answers import Answer
from gateway.api.call import Call
from gateway.api.device_fields import select_devices
from gateway.api.device_messages import require_room, wait_registered
from gateway.api.errors import ApiError
from gateway.api.operations import Operation, Right
from gateway.store.history import Chunks
from gateway.store.items import Device
from gateway.store.masks import ALL, Masks
from gateway.store.ordered import Turn
from gateway.store.posted import Post
from gateway.store.telemetry import Telemetry

TELEMETRY = Right("gw/devices", "telemetry")
PARAMETERS_MOST = 1000
DEVICES_AT_ONCE = 50
"""Read in one round trip: some 200 kB."""
DELETED_MOST = 5000
"""Devices whose telemetry one call deletes."""


class Value(Struct):
    """A parameter's last value. ``ts``: the ``timestamp`` of the message that had it."""

    ts: float
    value: Any


class TelemetryView(Struct):
    """A device's telemetry; parameters that it does not have are absent."""

    id: int
    telemetry: dict[str, Value]


class Forgotten(Struct):
    """A device whose parameters were deleted."""

    id: int


def _masks(call: Call) -> Masks:
    masks = Masks.parse(call.path.get("parameters", ALL))
    if not masks.texts:
        raise ApiError.bad_request("which parameters: all, or names with commas between")
    if len(masks.texts) > PARAMETERS_MOST:
        raise ApiError.bad_request(f"{len(masks.texts)} parameters; {PARAMETERS_MOST} are possible, or a mask")
    return masks


async def get_telemetry(call: Call) -> Answer:
    masks = _masks(call)
    devices, errors = await select_devices(call)
    if not devices:
        return Answer(errors=errors)
    return Answer(_read(call.parts.telemetry, devices, masks, call.parts.turn), errors)


async def _read(telemetry: Telemetry, devices: Sequence[Device], masks: Masks, turn: Turn) -> Chunks:
    for start in range(0, len(devices), DEVICES_AT_ONCE):
        ids = [device.id for device in devices[start : start + DEVICES_AT_ONCE]]
        async with turn:
            found = await telemetry.texts(ids, masks)
            texts = [_view(device_id, values) for device_id, values in found.items()]
        yield texts


def _view(device_id: int, values: dict[str, bytes]) -> bytes:
    return orjson.dumps({"id": device_id, "telemetry": {name: orjson.Fragment(text) for name, text in values.items()}})


async def delete_telemetry(call: Call) -> Answer:
    masks = _masks(call)
    devices, errors = await select_devices(call)
    if len(devices) > DELETED_MOST:
        raise ApiError.too_large(f"{len(devices)} devices; {DELETED_MOST} are possible in one call")
    if not devices:
        return Answer(errors=errors)
    require_room(call)
    await wait_registered(call, await call.parts.posted.add([Post(device, forget=masks) for device in devices]))
    return Answer([Forgotten(device.id) for device in devices], errors)


OPERATIONS = [
    Operation(
        "GET", "/gw/devices/{devices}/telemetry/{parameters}", get_telemetry, "The last values of parameters",
        access=TELEMETRY, result=TelemetryView,
    ),
    Operation(
        "GET", "/gw/devices/{devices}/telemetry", get_telemetry, "The last values of all parameters",
        access=TELEMETRY, result=TelemetryView,
    ),
    Operation(
        "DELETE", "/gw/devices/{devices}/telemetry/{parameters}", delete_telemetry, "Delete parameters",
        access=TELEMETRY, result=Forgotten,
    ),
]  # fmt: skip
