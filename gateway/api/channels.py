"""``/gw/channels``: listening points, made, changed and deleted while the others run on (flespi's REST, "channels").

What is ours: ``configuration.listen``, the endpoints (``tcp:5027``, ``ssl:...``, ``udp:5027``),
``configuration.unknown_ident``, and ``configuration.packets_ttl``. A channel that is created without ``listen`` gets
the lowest free port of ``api.channel_ports``; a change of the configuration that says nothing of it leaves it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from attrs import evolve
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.api.answers import Answer
from gateway.api.call import Call, convert
from gateway.api.channel_fields import ChannelView, channel_names, channel_table, select_channels
from gateway.api.errors import ApiError
from gateway.api.fields import FieldsQuery, ItemsQuery
from gateway.api.items import Id, Json, Name, created_access, given, listed, merged, one_by_one, views
from gateway.api.operations import Operation, Right
from gateway.api.parts import Parts
from gateway.channel.endpoints import LISTEN_MOST, SPEC_MOST, problem_for_api
from gateway.protocols.catalog import PROTOCOLS, TELTONIKA, find_protocol
from gateway.store.items import DAY, Channel
from gateway.store.traffic import PACKETS_TTL_MOST

URI = "gw/channels"
TTL_MOST = 30 * DAY
"""flespi's for channels."""

Ttl = Annotated[int, Meta(ge=0, le=TTL_MOST, description="seconds that messages are kept; 0: until they are delivered")]
Spec = Annotated[str, Meta(min_length=1, max_length=SPEC_MOST)]


class ChannelConfiguration(Struct, forbid_unknown_fields=True):
    """How a channel takes its trackers."""

    listen: Annotated[list[Spec], Meta(min_length=1, max_length=LISTEN_MOST)] | UnsetType = UNSET
    unknown_ident: Literal["accept", "reject", "register"] | UnsetType = UNSET
    ask_model: (
        Annotated[bool, Meta(description="ask devices of unknown type for their model, once, and change their type")]
        | UnsetType
    ) = UNSET
    packets_ttl: (
        Annotated[
            int,
            Meta(ge=0, le=PACKETS_TTL_MOST, description="seconds that all traffic is kept; 0: only what was refused"),
        ]
        | UnsetType
    ) = UNSET


class NewChannel(Struct, forbid_unknown_fields=True):
    """A channel to be created. Without ``protocol_id`` and ``protocol_name`` it is one for Teltonika."""

    name: Name = ""
    protocol_id: Id | UnsetType = UNSET
    protocol_name: Name | UnsetType = UNSET
    enabled: bool = True
    messages_ttl: Ttl = DAY
    configuration: ChannelConfiguration | None = None
    metadata: Json = {}


class ChannelValues(Struct, forbid_unknown_fields=True):
    """PUT: the fields to replace."""

    name: Name | UnsetType = UNSET
    protocol_id: Id | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    messages_ttl: Ttl | UnsetType = UNSET
    configuration: ChannelConfiguration | UnsetType = UNSET
    metadata: Json | UnsetType = UNSET


class ChannelPatch(Struct, forbid_unknown_fields=True):
    """PATCH: as PUT, but objects are merged; null removes a key."""

    name: Name | UnsetType = UNSET
    protocol_id: Id | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    messages_ttl: Ttl | UnsetType = UNSET
    configuration: Json | UnsetType = UNSET
    metadata: Json | UnsetType = UNSET


async def _views(call: Call, channels: Sequence[Channel], names: list[str]) -> list[Json]:
    return await views(channels, names, lambda some, wanted: channel_table(call, some, wanted))


async def list_channels(call: Call) -> Answer:
    """GET."""
    names = channel_names(call)
    channels, errors = await select_channels(call)
    return await listed(call, channels, errors, names, lambda some, wanted: channel_table(call, some, wanted))


async def create_channels(call: Call) -> Answer:
    """POST."""
    created_access(call, URI)
    names = channel_names(call)
    jobs = (({"index": entry.index}, lambda new=entry.value: _create(call.parts, new)) for entry in call.entries)
    made, errors = await one_by_one(jobs)
    return Answer(await _views(call, made, names), errors)


async def _create(parts: Parts, new: NewChannel) -> Channel:
    values = {
        "name": new.name,
        "protocol_id": _protocol_id(new),
        "enabled": new.enabled,
        "messages_ttl": new.messages_ttl,
        "metadata": new.metadata,
    }
    configuration = given(new.configuration) if new.configuration is not None else {}

    async def make(listen: list[str]) -> Channel:
        channel: Channel = await parts.items.create_channel(**values, configuration={**configuration, "listen": listen})
        return channel

    if "listen" not in configuration:
        channel: Channel = await parts.channels.ports.create(make)
        return channel
    _check_listen(configuration["listen"], ())
    return await make(configuration["listen"])


def _protocol_id(new: NewChannel) -> int:
    by_name = find_protocol(new.protocol_name) if not isinstance(new.protocol_name, UnsetType) else None
    if by_name is None and not isinstance(new.protocol_name, UnsetType):
        raise ApiError.bad_request(f"protocol {new.protocol_name} not found", field="protocol_name")
    by_id = PROTOCOLS.get(new.protocol_id) if not isinstance(new.protocol_id, UnsetType) else None
    if by_id is None and not isinstance(new.protocol_id, UnsetType):
        raise ApiError.bad_request(f"protocol {new.protocol_id} not found", field="protocol_id")
    if by_id is not None and by_name is not None and by_id is not by_name:
        raise ApiError.bad_request("protocol_id and protocol_name name different protocols", field="protocol_name")
    return (by_id or by_name or TELTONIKA).id


def _check_listen(listen: Sequence[str], known: Sequence[str]) -> None:
    """What stands there already may stay, also where only the configuration file could have written it."""
    for spec in listen:
        problem = problem_for_api(spec) if spec not in known else None
        if problem is not None:
            raise ApiError.bad_request(f"listen: {spec[:100]!r} should be {problem}", field="configuration.listen")
    if len(set(listen)) < len(listen):
        raise ApiError.bad_request("listen: an endpoint stands there twice", field="configuration.listen")


async def put_channels(call: Call) -> Answer:
    """PUT."""
    values = given(call.body)

    def change(old: Channel) -> Channel:
        return _changed(old, {**values})

    return await _change(call, change)


async def patch_channels(call: Call) -> Answer:
    """PATCH."""
    values = given(call.body)

    def change(old: Channel) -> Channel:
        objects: Json = {
            name: merged(getattr(old, name), values[name]) for name in ("configuration", "metadata") if name in values
        }
        return _changed(old, {**values, **objects})

    return await _change(call, change)


def _changed(old: Channel, values: Json) -> Channel:
    """Raises ApiError."""
    if "configuration" in values:
        wanted = {"listen": old.listen, **values["configuration"]} if old.listen else values["configuration"]
        values["configuration"] = given(convert(wanted, ChannelConfiguration, "configuration", within="configuration"))
        _check_listen(values["configuration"].get("listen", ()), old.listen)
    return evolve(old, **values)


async def _change(call: Call, change: Any) -> Answer:
    names = channel_names(call)
    channels, errors = await select_channels(call)
    items = call.parts.items
    jobs = (({"id": one.id}, lambda id=one.id: items.change_channel(id, change)) for one in channels)
    changed, more = await one_by_one(jobs)
    return Answer(await _views(call, changed, names), [*errors, *more])


async def delete_channels(call: Call) -> Answer:
    """DELETE."""
    names = channel_names(call)
    channels, errors = await select_channels(call)
    before = {channel.id: view for channel, view in zip(channels, await _views(call, channels, names), strict=True)}
    items = call.parts.items
    jobs = (({"id": one.id}, lambda id=one.id: items.delete_channel(id)) for one in channels)
    deleted, more = await one_by_one(jobs)
    return Answer([before[channel.id] for channel in deleted], [*errors, *more])


RIGHT = Right(URI)
ONE, ALL = "/gw/channels/{channels}", "/gw/channels"

OPERATIONS = [
    Operation("GET", ONE, list_channels, "Channels", RIGHT, query=ItemsQuery, result=ChannelView),
    Operation(
        "POST", ALL, create_channels, "Create channels", RIGHT,
        query=FieldsQuery, body=list[NewChannel], result=ChannelView,
    ),
    Operation(
        "PUT", ONE, put_channels, "Replace fields of channels", RIGHT,
        query=FieldsQuery, body=ChannelValues, result=ChannelView,
    ),
    Operation(
        "PATCH", ONE, patch_channels, "Merge into fields of channels", RIGHT,
        query=FieldsQuery, body=ChannelPatch, result=ChannelView,
    ),
    Operation("DELETE", ONE, delete_channels, "Delete channels", RIGHT, query=FieldsQuery, result=ChannelView),
]  # fmt: skip
