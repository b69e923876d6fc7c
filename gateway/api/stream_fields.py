"""The fields of a stream, as the API gives them, and which streams a path means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import asdict
from msgspec import UNSET, Struct, UnsetType

from gateway.api.call import Call
from gateway.api.fields import FieldTable
from gateway.api.items import Json
from gateway.api.others import Noun
from gateway.api.parts import Parts
from gateway.api.plugin_fields import CONFIGURATION_INVALID
from gateway.api.typed import shown_configuration
from gateway.store.item import Stream
from gateway.store.views import CID

URI = "gw/streams"


class StreamView(Struct):
    """A stream, with the fields that were asked for; parts of objects stand under their dotted name."""

    id: int | UnsetType = UNSET
    name: str | UnsetType = UNSET
    protocol_id: int | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    queue_ttl: int | UnsetType = UNSET
    validate_message: str | UnsetType = UNSET
    configuration: Json | UnsetType = UNSET
    cid: int | UnsetType = UNSET
    protocol_name: str | UnsetType = UNSET
    metadata: Json | UnsetType = UNSET
    connected: bool | UnsetType = UNSET
    queue_size: int | UnsetType = UNSET
    state: str | UnsetType = UNSET
    error: str | UnsetType = UNSET
    error_at: float | UnsetType | None = UNSET
    next_attempt_at: float | UnsetType | None = UNSET
    delivered_at: float | UnsetType | None = UNSET
    counters: dict[str, int] | UnsetType = UNSET
    blocked: int | UnsetType = UNSET
    channels_count: int | UnsetType = UNSET
    devices_count: int | UnsetType = UNSET


DEFAULT = ("id", "name", "protocol_id", "enabled", "queue_ttl", "validate_message", "configuration", "cid")


def stream_table(parts: Parts, configuration: Callable[[Stream], Json], sizes: dict[int, int] | None) -> FieldTable:
    """``configuration`` says how that of a stream is shown; ``sizes`` None: without what Redis must be asked for."""
    links = parts.items.links
    status: Callable[[int], Any] = parts.streams.status
    readers: dict[str, Any] = {
        **{name: (lambda stream, name=name: getattr(stream, name)) for name in (
            "id", "name", "enabled", "queue_ttl", "validate_message", "metadata",
        )},
        "protocol_id": lambda stream: _protocol_id(parts, stream),
        "protocol_name": lambda stream: stream.protocol,
        "configuration": configuration,
        "cid": lambda stream: CID,
        "connected": lambda stream: status(stream.id).is_connected,
        "state": lambda stream: status(stream.id).state,
        "error": lambda stream: status(stream.id).error,
        "error_at": lambda stream: status(stream.id).error_at,
        "next_attempt_at": lambda stream: status(stream.id).next_attempt_at,
        "delivered_at": lambda stream: status(stream.id).delivered_at,
        "counters": lambda stream: asdict(status(stream.id).counters),
        "blocked": lambda stream: CONFIGURATION_INVALID if status(stream.id).state == "blocked" else 0,
        "channels_count": lambda stream: len(links.of("streams", stream.id, "channels")),
        "devices_count": lambda stream: len(links.of("streams", stream.id, "devices")),
    }  # fmt: skip
    if sizes is not None:
        readers["queue_size"] = lambda stream: sizes.get(stream.id, 0)
    return FieldTable(readers, DEFAULT)


def _protocol_id(parts: Parts, stream: Stream) -> int | None:
    protocol = parts.streams.protocols.get(stream.protocol)
    return protocol.id or None if protocol is not None else None


def table_for(call: Call) -> FieldTable:
    """As the caller may see them, for selectors."""
    return stream_table(call.parts, shown_configuration(call, URI), None)


async def _load(call: Call, streams: Sequence[Stream], names: Sequence[str]) -> FieldTable:
    """Raises StoreError."""
    sizes = {}
    if any(name.partition(".")[0] == "queue_size" for name in names):
        sizes = {stream.id: await call.parts.streams.queue_size(stream.id) for stream in streams}
    return stream_table(call.parts, shown_configuration(call, URI), sizes)


STREAMS = Noun("streams", table_for, _load)
