"""``/gw/streams``: what carries messages to other systems (flespi's REST, "streams").

The protocol of a stream stays what it is. A disabled stream neither queues nor clears: what waits for it stays as long
as ``queue_ttl`` says, and what comes while it is disabled is not for it.
"""

from __future__ import annotations

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
from gateway.api.stream_fields import STREAMS, URI, StreamView
from gateway.api.typed import Expression, check_expression, configured, named_type
from gateway.store.item import Stream
from gateway.store.items import DAY

TTL_LEAST = 60
"""Seconds; less would lose messages at the first hiccup of a network."""
QueueTtl = Annotated[
    int, Meta(ge=TTL_LEAST, le=2**31, description="seconds that a message waits for its delivery at most")
]
PROTOCOL_NAMES = ("protocol_name", "type")


class NewStream(Struct, forbid_unknown_fields=True):
    """A stream to be created. Its protocol is needed, by one of ``protocol_id``, ``protocol_name``, ``type``."""

    name: Name = ""
    protocol_id: Id | UnsetType = UNSET
    protocol_name: Name | UnsetType = UNSET
    type: Annotated[Name, Meta(description="the same as protocol_name")] | UnsetType = UNSET
    enabled: bool = True
    queue_ttl: QueueTtl | UnsetType = UNSET
    validate_message: Expression = ""
    configuration: Json = {}
    metadata: Json = {}


class StreamValues(Struct, forbid_unknown_fields=True):
    """PUT: the fields to replace. PATCH: as PUT, but objects are merged; null removes a key."""

    name: Name | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    queue_ttl: QueueTtl | UnsetType = UNSET
    validate_message: Expression | UnsetType = UNSET
    configuration: Json | UnsetType = UNSET
    metadata: Json | UnsetType = UNSET


async def list_streams(call: Call) -> Answer:
    """GET."""
    return await STREAMS.list(call)


async def create_streams(call: Call) -> Answer:
    """POST."""
    parts = call.parts

    async def create(new: NewStream) -> Stream:
        values = {"queue_ttl": min(DAY, _ttl_most(parts)), **given(new)}
        id = values.pop("protocol_id", None)
        names = {key: values.pop(key) for key in PROTOCOL_NAMES if key in values}
        protocol = named_type(parts.streams.protocols, id, names, "protocol")
        _check(parts, values)
        kind = _class_of(parts, protocol.name, next(iter(names), "protocol_id"))
        configuration = configured(kind, new.configuration, {})
        stream: Stream = await parts.items.create_stream(
            **{**values, "protocol": protocol.name, "configuration": configuration}
        )
        return stream

    return await STREAMS.create(call, create)


def _ttl_most(parts: Parts) -> int:
    """No reader is waited for any longer."""
    return int(parts.settings.limits.reader_retention)


def _check(parts: Parts, values: Json) -> None:
    """Raises ApiError."""
    most = _ttl_most(parts)
    if values.get("queue_ttl", 0) > most:
        reason = f"queue_ttl is {values['queue_ttl']}: it should be {TTL_LEAST} to {most}, limits.reader_retention"
        raise ApiError.bad_request(reason, field="queue_ttl")
    check_expression(values.get("validate_message", ""))


def _class_of(parts: Parts, name: str, field: str) -> Any:
    """The protocol's class. Raises ApiError where it cannot be used."""
    protocol = parts.streams.protocols.get(name)
    if protocol is None:
        raise ApiError.bad_request(f"there is no stream protocol {name} any more", field=field)
    if protocol.cls is None:
        raise ApiError.bad_request(f"protocol {name} cannot be used: {protocol.reason}", field=field)
    return protocol.cls


async def put_streams(call: Call) -> Answer:
    """PUT."""
    return await _change(call, replaced)


async def patch_streams(call: Call) -> Answer:
    """PATCH."""
    return await _change(call, patched)


async def _change(call: Call, values_of: Any) -> Answer:
    parts, values = call.parts, given(call.body)
    _check(parts, values)

    def change(old: Other) -> Stream:
        assert isinstance(old, Stream)
        wanted = values_of(old, values)
        if "configuration" in wanted:
            kind = _class_of(parts, old.protocol, "configuration")
            wanted = {**wanted, "configuration": configured(kind, wanted["configuration"], old.configuration)}
        stream: Stream = changed(old, wanted)
        return stream

    return await STREAMS.change(call, parts.items.change_stream, change)


async def delete_streams(call: Call) -> Answer:
    """DELETE."""
    return await STREAMS.delete(call)


RIGHT = Right(URI)
ONE, ALL = "/gw/streams/{streams}", "/gw/streams"

OPERATIONS = [
    Operation("GET", ONE, list_streams, "Streams", RIGHT, query=ItemsQuery, result=StreamView),
    Operation(
        "POST", ALL, create_streams, "Create streams", RIGHT,
        query=FieldsQuery, body=list[NewStream], result=StreamView,
    ),
    Operation(
        "PUT", ONE, put_streams, "Replace fields of streams", RIGHT,
        query=FieldsQuery, body=StreamValues, result=StreamView,
    ),
    Operation(
        "PATCH", ONE, patch_streams, "Merge into fields of streams", RIGHT,
        query=FieldsQuery, body=StreamValues, result=StreamView,
    ),
    Operation("DELETE", ONE, delete_streams, "Delete streams", RIGHT, query=FieldsQuery, result=StreamView),
]  # fmt: skip
