"""``/gw/devices``: registered trackers (flespi's REST, "devices").

A device is found by its ident and protocol; there is no link to a channel. Without ``device_type_id`` it is one of an
unknown model. There is no media here: ``media_ttl`` and ``media_rotate`` are always 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from attrs import evolve
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.api.answers import Answer
from gateway.api.call import Call, convert
from gateway.api.device_fields import DeviceView, device_names, device_table, select_devices
from gateway.api.errors import ApiError
from gateway.api.fields import FieldsQuery, ItemsQuery
from gateway.api.items import Id, Json, Name, created_access, given, listed, merged, one_by_one, views
from gateway.api.operations import MiB, Operation, Right
from gateway.api.parts import Parts
from gateway.errors import IdentTaken
from gateway.protocols.catalog import PROTOCOLS, TELTONIKA, TrackerProtocol
from gateway.store.items import DAY, Device
from gateway.store.settings_polling import ONCE

URI = "gw/devices"
TTL_MOST = 3650 * DAY
ROTATE_MOST = 2**40

Ttl = Annotated[int, Meta(ge=0, le=TTL_MOST, description="seconds that messages are kept; 0: they are not")]
Rotate = Annotated[int, Meta(ge=0, le=ROTATE_MOST, description="bytes that messages may take; 0: any number")]
Word = Annotated[str, Meta(max_length=64)]


class DeviceConfiguration(Struct, forbid_unknown_fields=True):
    """What a tracker is known by, and what commands need to reach it."""

    ident: Annotated[str, Meta(min_length=1, max_length=64, pattern="^[!-~]+$")]
    phone: Word | UnsetType = UNSET
    password: Word | UnsetType = UNSET
    sms_password: Word | UnsetType = UNSET
    settings_polling: (
        Annotated[
            Literal["once", "never"],
            Meta(description="whether settings of which nothing is known are read when it connects; by default once"),
        ]
        | UnsetType
    ) = UNSET


class NewDevice(Struct, forbid_unknown_fields=True):
    """A device to be created. Without ``name`` it is called as its ident."""

    configuration: DeviceConfiguration
    name: Name | UnsetType = UNSET
    device_type_id: Id | UnsetType = UNSET
    protocol_id: Id | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    messages_ttl: Ttl | UnsetType = UNSET
    messages_rotate: Rotate | UnsetType = UNSET
    media_ttl: Literal[0] | UnsetType = UNSET
    media_rotate: Literal[0] | UnsetType = UNSET
    metadata: Json | UnsetType = UNSET


class DeviceValues(Struct, forbid_unknown_fields=True):
    """PUT: the fields to replace."""

    configuration: DeviceConfiguration | UnsetType = UNSET
    name: Name | UnsetType = UNSET
    device_type_id: Id | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    messages_ttl: Ttl | UnsetType = UNSET
    messages_rotate: Rotate | UnsetType = UNSET
    media_ttl: Literal[0] | UnsetType = UNSET
    media_rotate: Literal[0] | UnsetType = UNSET
    metadata: Json | UnsetType = UNSET


class DevicePatch(Struct, forbid_unknown_fields=True):
    """PATCH: as PUT, but objects are merged; null removes a key."""

    configuration: Json | UnsetType = UNSET
    name: Name | UnsetType = UNSET
    device_type_id: Id | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    messages_ttl: Ttl | UnsetType = UNSET
    messages_rotate: Rotate | UnsetType = UNSET
    media_ttl: Literal[0] | UnsetType = UNSET
    media_rotate: Literal[0] | UnsetType = UNSET
    metadata: Json | UnsetType = UNSET


async def _views(call: Call, devices: Sequence[Device], names: list[str]) -> list[Json]:
    return await views(devices, names, lambda some, wanted: device_table(call, some, wanted))


async def list_devices(call: Call) -> Answer:
    """GET."""
    names = device_names(call)
    devices, errors = await select_devices(call)
    return await listed(call, devices, errors, names, lambda some, wanted: device_table(call, some, wanted))


async def create_devices(call: Call) -> Answer:
    """POST."""
    created_access(call, URI)
    names = device_names(call)
    jobs = (({"index": entry.index}, lambda new=entry.value: _create(call.parts, new)) for entry in call.entries)
    made, errors = await one_by_one(jobs)
    return Answer(await _views(call, made, names), errors)


async def _create(parts: Parts, new: NewDevice) -> Device:
    values = _with_defaults(_stored(given(new)))
    ident = values["configuration"]["ident"]
    protocol = _protocol(values)
    values = {"name": ident, "device_type_id": protocol.unknown_device_type, **values, "protocol_id": protocol.id}
    device: Device = await parts.items.create_device(ident=ident, **values)
    return device


def _protocol(values: Json) -> TrackerProtocol:
    """The one that is named, or the one that the device type belongs to."""
    kind = values.get("device_type_id")
    fits = [protocol for protocol in PROTOCOLS.values() if kind is None or kind in protocol.device_types()]
    if not fits:
        raise ApiError.bad_request(f"device type {kind} not found", field="device_type_id")
    wanted = values.get("protocol_id")
    if wanted is None:
        return TELTONIKA if TELTONIKA in fits else fits[0]
    found = next((protocol for protocol in fits if protocol.id == wanted), None)
    if found is None:
        reason = (
            f"device type {kind} is not of protocol {wanted}" if wanted in PROTOCOLS else f"protocol {wanted} not found"
        )
        raise ApiError.bad_request(reason, field="protocol_id")
    return found


def _stored(values: Json) -> Json:
    """Without what is accepted for flespi's sake, and can only be 0."""
    return {name: value for name, value in values.items() if name not in ("media_ttl", "media_rotate")}


def _with_defaults(values: Json) -> Json:
    """A configuration that a client gives as a whole has flespi's default; one that it merges into stays as it is."""
    if "configuration" not in values:
        return values
    configuration = values["configuration"]
    polling = configuration.get("settings_polling", ONCE)
    return {**values, "configuration": {**configuration, "settings_polling": polling}}


async def put_devices(call: Call) -> Answer:
    """PUT."""
    values = _with_defaults(_stored(given(call.body)))
    return await _change(call, lambda old: evolve(old, **values))


async def patch_devices(call: Call) -> Answer:
    """PATCH."""
    values = _stored(given(call.body))

    def change(old: Device) -> Device:
        objects: Json = {
            name: merged(getattr(old, name), values[name]) for name in ("configuration", "metadata") if name in values
        }
        if "configuration" in objects:
            objects["configuration"] = given(
                convert(objects["configuration"], DeviceConfiguration, "configuration", within="configuration")
            )
        return evolve(old, **{**values, **objects})

    return await _change(call, change)


async def _change(call: Call, change: Any) -> Answer:
    names = device_names(call)
    devices, errors = await select_devices(call)

    async def change_it(id: int) -> Device:
        try:
            device: Device = await call.parts.items.change_device(id, change)
        except IdentTaken as error:
            if call.permitted_ids() is None:
                raise
            reason = "another device has this ident already"  # whose it is, is nothing for a token of certain devices
            raise ApiError.bad_request(reason, field=error.field) from None
        return device

    jobs = (({"id": one.id}, lambda id=one.id: change_it(id)) for one in devices)
    changed, more = await one_by_one(jobs)
    return Answer(await _views(call, changed, names), [*errors, *more])


async def delete_devices(call: Call) -> Answer:
    """DELETE."""
    names = device_names(call)
    devices, errors = await select_devices(call)
    before = {device.id: view for device, view in zip(devices, await _views(call, devices, names), strict=True)}
    items = call.parts.items
    jobs = (({"id": one.id}, lambda id=one.id: items.delete_device(id)) for one in devices)
    deleted, more = await one_by_one(jobs)
    return Answer([before[device.id] for device in deleted], [*errors, *more])


RIGHT = Right(URI)
ONE, ALL = "/gw/devices/{devices}", "/gw/devices"
CREATE_MOST = 4 * MiB

OPERATIONS = [
    Operation("GET", ONE, list_devices, "Devices", RIGHT, query=ItemsQuery, result=DeviceView),
    Operation(
        "POST", ALL, create_devices, "Create devices", RIGHT,
        query=FieldsQuery, body=list[NewDevice], result=DeviceView, body_most=CREATE_MOST,
    ),
    Operation(
        "PUT", ONE, put_devices, "Replace fields of devices", RIGHT,
        query=FieldsQuery, body=DeviceValues, result=DeviceView,
    ),
    Operation(
        "PATCH", ONE, patch_devices, "Merge into fields of devices", RIGHT,
        query=FieldsQuery, body=DevicePatch, result=DeviceView,
    ),
    Operation("DELETE", ONE, delete_devices, "Delete devices", RIGHT, query=FieldsQuery, result=DeviceView),
]  # fmt: skip
