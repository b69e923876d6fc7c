"""``/gw/devices/{devices}/settings/{settings}``: what devices have, and what they shall have (flespi's REST,
"settings").

PUT stores what a setting shall be (``pending``); it is applied as soon as the device is connected. DELETE forgets what
is known, and asks the device; with ``data`` ``{"pending": true}`` it cancels what is pending.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from gateway.api.answers import Answer, Texts
from gateway.api.call import Call
from gateway.api.device_fields import select_devices
from gateway.api.errors import ApiError
from gateway.api.fields import FieldsQuery, FieldTable
from gateway.api.items import Json, one_by_one
from gateway.api.operations import Operation, Right
from gateway.protocols.catalog import PROTOCOLS
from gateway.protocols.teltonika.settings import Setting
from gateway.store.compact import compact_json
from gateway.store.items import Device
from gateway.store.masks import Masks
from gateway.store.settings import SHOWN, Shadow

CHANGED_MOST = 10_000
"""Settings, over all devices, that one call changes."""
NAMES_MOST = 100


class SettingView(Struct):
    """A setting of a device. Times are UNIX seconds, 0: never.

    ``status``: unknown, ok, pending, reading, rejected or unreadable, where ``error`` says why.
    """

    device_id: int | UnsetType = UNSET
    name: str | UnsetType = UNSET
    current: Json | UnsetType | None = UNSET
    pending: Json | UnsetType | None = UNSET
    status: str | UnsetType = UNSET
    error: str | UnsetType | None = UNSET
    updated: float | UnsetType = UNSET
    requested: float | UnsetType = UNSET
    attempts: int | UnsetType = UNSET
    schema: Json | UnsetType = UNSET


class Forget(Struct, forbid_unknown_fields=True):
    """Of DELETE."""

    pending: bool = False


NAMES = ("device_id", *SHOWN)
One = tuple[Device, Setting, Shadow]


def _of_shadow(name: str, one: One) -> Any:
    return getattr(one[2], name)


TABLE = FieldTable(
    {
        "device_id": lambda one: one[0].id,
        **{name: partial(_of_shadow, name) for name in SHOWN},
        "schema": lambda one: one[1].schema,
    },
    NAMES,
)


def settings_of(device: Device) -> dict[str, Setting]:
    """Those that a device of this type has."""
    protocol = PROTOCOLS[device.protocol_id]
    return protocol.settings_of(protocol.model_of(device.device_type_id))


def _masks(call: Call) -> Masks:
    masks = Masks.parse(call.path["settings"])
    if not masks.texts or len(masks.texts) > NAMES_MOST:
        raise ApiError.bad_request(f"which settings: all, or 1 to {NAMES_MOST} names with commas between")
    return masks


def _chosen(masks: Masks, device: Device) -> tuple[list[Setting], list[ApiError]]:
    """The settings of a device that the path means, and an error for each name that is none."""
    settings = settings_of(device)
    known = ", ".join(settings) or "none"
    unknown = [text for text in masks.texts if text != "all" and "*" not in text and "?" not in text]
    errors = [
        ApiError.bad_request(
            f"setting {name[:64]} is not found; devices of this type have {known}", device_id=device.id
        )
        for name in unknown
        if name not in settings
    ]
    return [setting for name, setting in settings.items() if masks.choose(name)], errors


async def get_settings(call: Call) -> Answer:
    """GET."""
    names, masks = TABLE.chosen(call.query.fields), _masks(call)
    devices, errors = await select_devices(call)
    chosen = [(device, *_chosen(masks, device)) for device in devices]
    errors += [error for _, _, more in chosen for error in more]
    there = [(device, settings) for device, settings, _ in chosen if settings]
    return Answer(_read(call, there, names) if there else (), errors)


async def _read(call: Call, there: list[tuple[Device, list[Setting]]], names: list[str]) -> Texts:
    for device, settings in there:
        known = await call.parts.device_settings.all(device.id)
        ones = [(device, one, known.get(one.name) or Shadow(name=one.name)) for one in settings]
        yield [compact_json(TABLE.project(one, names)) for one in ones]


async def put_settings(call: Call) -> Answer:
    """PUT: the body is the values."""
    orders = call.parts.orders
    return await _change(call, lambda device, name: orders.request_setting(device, name, call.body))


async def delete_settings(call: Call) -> Answer:
    """DELETE."""
    orders = call.parts.orders
    if not call.data.pending:
        return await _change(call, orders.reread_setting)

    async def cancel(device: Device, name: str) -> Shadow:
        shadow: Shadow | None = await orders.cancel_setting(device, name)
        if shadow is None:
            raise ApiError.bad_request(f"nothing is pending for setting {name}")
        return shadow

    return await _change(call, cancel)


async def _change(call: Call, change: Callable[[Device, str], Awaitable[Shadow]]) -> Answer:
    masks = _masks(call)
    devices, errors = await select_devices(call)
    jobs: list[Any] = []
    for device in devices:
        settings, more = _chosen(masks, device)
        errors += more
        jobs += [
            ({"device_id": device.id, "name": one.name}, lambda device=device, one=one: _one(device, one, change))
            for one in settings
        ]
        if len(jobs) > CHANGED_MOST:
            raise ApiError.too_large(f"more than {CHANGED_MOST} settings: select fewer devices")
    changed, more = await one_by_one(jobs)
    return Answer([TABLE.project(one, list(NAMES)) for one in changed], [*errors, *more])


async def _one(device: Device, setting: Setting, change: Callable[[Device, str], Awaitable[Shadow]]) -> One:
    return device, setting, await change(device, setting.name)


RIGHT = Right("gw/devices", "settings")
PATH = "/gw/devices/{devices}/settings/{settings}"

OPERATIONS = [
    Operation("GET", PATH, get_settings, "Settings of devices", RIGHT, query=FieldsQuery, result=SettingView),
    Operation("PUT", PATH, put_settings, "Change settings of devices", RIGHT, body=Json, result=SettingView),
    Operation(
        "DELETE", PATH, delete_settings, "Read settings again, or cancel a change", RIGHT,
        data=Forget, result=SettingView,
    ),
]  # fmt: skip
