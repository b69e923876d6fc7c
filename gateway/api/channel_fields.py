"""The fields of a channel, as the API gives them, and which channels a path means."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import cache
from typing import Any

from attrs import field, frozen
from msgspec import UNSET, Struct, UnsetType

from gateway.api.call import Call
from gateway.api.errors import ApiError
from gateway.api.fields import FieldTable
from gateway.api.items import Json
from gateway.api.linked import streams_of
from gateway.api.parts import Parts
from gateway.api.selectors import select
from gateway.protocols.catalog import PROTOCOLS
from gateway.store.connection import store_errors
from gateway.store.items import Channel
from gateway.store.views import CID


class ChannelView(Struct):
    """A channel, with the fields that were asked for; parts of objects stand under their dotted name."""

    id: int | UnsetType = UNSET
    name: str | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    protocol_id: int | UnsetType = UNSET
    protocol_name: str | UnsetType = UNSET
    configuration: Json | UnsetType = UNSET
    messages_ttl: int | UnsetType = UNSET
    messages_size: int | UnsetType = UNSET
    metadata: Json | UnsetType = UNSET
    connections_count: int | UnsetType = UNSET
    streams: list[Json] | UnsetType = UNSET
    blocked: int | UnsetType = UNSET
    cid: int | UnsetType = UNSET
    uri: str | UnsetType = UNSET
    secondary_uri: str | UnsetType = UNSET


DEFAULT = (
    "id", "name", "enabled", "protocol_id", "configuration", "messages_ttl", "cid", "uri", "secondary_uri",
)  # fmt: skip


def uri_of(parts: Parts, channel: Channel) -> str:
    """``host:port`` for trackers; empty where the channel has no port of its own."""
    port = parts.channels.port_of(channel)
    host = parts.settings.gateway.public_host or socket.gethostname()
    return f"{host}:{port}" if port is not None else ""


@frozen
class Asked:
    """What had to be asked of Redis, or depends on who asks, by channel id."""

    sizes: dict[int, int] = field(factory=dict)
    streams: dict[int, list[Json]] = field(factory=dict)


def local_table(parts: Parts, asked: Asked | None) -> FieldTable:
    """``asked`` None: without these, for selectors."""
    counts = cache(lambda: parts.connections.counts())  # once for all channels, and only where it is asked for
    readers: dict[str, Any] = {
        **{name: (lambda channel, name=name: getattr(channel, name)) for name in (
            "id", "name", "enabled", "protocol_id", "configuration", "messages_ttl", "metadata",
        )},
        "protocol_name": lambda channel: PROTOCOLS[channel.protocol_id].name,
        "connections_count": lambda channel: counts()[channel.id],
        "blocked": lambda channel: 0,
        "cid": lambda channel: CID,
        "uri": lambda channel: uri_of(parts, channel),
        "secondary_uri": lambda channel: "",
    }  # fmt: skip
    if asked is not None:
        readers["messages_size"] = lambda channel: asked.sizes.get(channel.id, 0)
        readers["streams"] = lambda channel: asked.streams.get(channel.id, [])
    return FieldTable(readers, DEFAULT)


async def channel_table(call: Call, channels: Sequence[Channel], names: Sequence[str]) -> FieldTable:
    """The fields of these channels, as far as ``names`` need them. Raises StoreError."""
    wanted = {name.partition(".")[0] for name in names}
    return local_table(
        call.parts,
        Asked(
            await _sizes(call.parts, channels) if "messages_size" in wanted else {},
            streams_of(call, "channels", [channel.id for channel in channels]) if "streams" in wanted else {},
        ),
    )


async def _sizes(parts: Parts, channels: Sequence[Channel]) -> dict[int, int]:
    """Bytes that each channel's log takes in Redis."""
    with store_errors():
        async with parts.redis.pipeline(transaction=False) as pipe:
            for channel in channels:
                pipe.memory_usage(parts.keys.channel_log(channel.id))
            sizes = await pipe.execute()
    return {channel.id: size or 0 for channel, size in zip(channels, sizes, strict=True)}


async def select_channels(call: Call) -> tuple[list[Channel], list[ApiError]]:
    """Those that the path means and the token may reach. Raises ApiError."""
    table = local_table(call.parts, None)
    return await select(
        call.path["channels"], call.parts.items.channels, table, call.permitted_ids(), turn=call.parts.turn
    )


def channel_names(call: Call) -> list[str]:
    """The names of the fields that are asked for, checked. Raises ApiError."""
    return local_table(call.parts, Asked()).chosen(call.query.fields)
