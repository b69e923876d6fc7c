"""Stored messages for tests: packets in a channel's log, and messages of devices, as the gateway stores them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from gateway.store.changes import DeviceChange, score
from gateway.store.items import Channel, Device, Items
from gateway.store.keys import ShardKeys
from gateway.store.messages import DeviceMessages

KEYS = ShardKeys()
YEAR = 365 * 86400


def text(at: int, **values: Any) -> bytes:
    """A channel's message that came ``at`` microseconds."""
    return orjson.dumps({"server.timestamp": at / 1e6, **values})


async def add_packet(redis: Any, last: int, count: int = 1, channel_id: int = 1, **values: Any) -> list[int]:
    """A packet whose last message has this time; gives the times of all its messages, in microseconds."""
    times = list(range(last - count + 1, last + 1))
    fields = {"ident": "77", "messages": b"\n".join(text(at, **values) for at in times)}
    await redis.xadd(KEYS.channel_log(channel_id), fields, id=f"{last}-0")
    return times


async def make_channel(items: Items, **values: Any) -> Channel:
    """A channel that keeps its messages."""
    return await items.create_channel(**{"name": "a", "protocol_id": 14, "messages_ttl": YEAR, **values})


async def make_device(items: Items, ident: str = "77", **values: Any) -> Device:
    """A device that keeps its messages."""
    wanted = {"name": "Van", "protocol_id": 14, "device_type_id": 303, "messages_ttl": YEAR, **values}
    return await items.create_device(ident=ident, **wanted)


async def store(redis: Any, device_id: int, times: Iterable[float], **values: Any) -> None:
    """Messages of a device with these timestamps, in seconds."""
    change = DeviceChange(device_id, "77")
    for at in times:
        change.stored[score(at)] = orjson.dumps({"device.id": device_id, "timestamp": at, **values})
    await DeviceMessages(redis, KEYS).commit([change], {})


def times_of(texts: Iterable[bytes], name: str = "server.timestamp") -> list[int]:
    """The times of messages in microseconds."""
    return [round(orjson.loads(one)[name] * 1e6) for one in texts]
