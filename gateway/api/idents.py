"""``/gw/channels/{channels}/idents/{idents}``: who has come to a channel, who was refused, and why.

flespi lists the idents whose traffic is stored (``ident``, ``size``); the rest is ours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, Literal

import orjson
from msgspec import UNSET, Struct, UnsetType

from gateway.api.answers import Answer, Texts
from gateway.api.call import Call
from gateway.api.channel_fields import select_channels
from gateway.api.errors import ApiError
from gateway.api.fields import FieldTable, ItemsQuery, paginate
from gateway.api.operations import Operation, Right
from gateway.api.parts import Parts
from gateway.store.idents import Seen, SeenIdents
from gateway.store.items import Channel
from gateway.store.masks import Masks

CHUNK = 200
SLICE = 0.002
"""Seconds of looking at idents after which others have their turn."""
SELECTOR_MOST = 65536
"""Bytes of idents in a path."""


class IdentView(Struct):
    """An ident on a channel. ``first`` and ``last``: when it was seen, UNIX seconds; ``count``: its logins, or its
    datagrams; ``reason``: why it was refused, or why its messages reach no device; ``size``: bytes that its traffic
    takes in Redis."""

    channel_id: int | UnsetType = UNSET
    ident: str | UnsetType = UNSET
    verdict: Literal["accepted", "refused", "none"] | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    device_id: int | UnsetType | None = UNSET
    connected: bool | UnsetType = UNSET
    first: float | UnsetType = UNSET
    last: float | UnsetType = UNSET
    count: int | UnsetType = UNSET
    source: str | UnsetType = UNSET
    transport: str | UnsetType = UNSET
    size: int | UnsetType = UNSET


NAMES = IdentView.__struct_fields__
TABLE = FieldTable({name: itemgetter(name) for name in NAMES}, NAMES)


async def list_idents(call: Call) -> Answer:
    """GET."""
    names = TABLE.chosen(call.query.fields)
    if len(call.path["idents"]) > SELECTOR_MOST:
        raise ApiError.bad_request(f"{len(call.path['idents'])} characters of idents; {SELECTOR_MOST} are possible")
    masks = Masks.parse(call.path["idents"])
    channels, errors = await select_channels(call)
    found = await _find(call.parts.idents, channels, masks)
    _warn(call, channels, masks, {seen.ident for _, seen in found})
    page, extra = paginate(found, call.query)
    if not page:
        return Answer(errors=errors, extra=extra)
    return Answer(_texts(call.parts, page, names), errors, extra)


async def _find(idents: SeenIdents, channels: Sequence[Channel], masks: Masks) -> list[tuple[Channel, Seen]]:
    found = []
    end = time.perf_counter() + SLICE
    for channel in channels:
        for seen in _of_channel(idents, channel.id, masks):
            if time.perf_counter() > end:
                await asyncio.sleep(0)
                end = time.perf_counter() + SLICE
            if seen is not None and masks.choose(seen.ident):
                found.append((channel, seen))
    return found


def _of_channel(idents: SeenIdents, channel_id: int, masks: Masks) -> Iterable[Seen | None]:
    if masks.plain is None:
        return idents.of_channel(channel_id)
    return (idents.find(channel_id, ident) for ident in dict.fromkeys(masks.plain))


def _warn(call: Call, channels: Sequence[Channel], masks: Masks, found: set[str]) -> None:
    """Nothing is an answer too: the tracker never came this far."""
    for ident in (masks.plain or [])[:10]:
        if channels and ident not in found:
            call.warnings.append(
                f"nobody has said to be {ident[:64]} here: it did not reach this port, or was not understood; "
                "the channel's logs show connections without an ident"
            )


async def _texts(parts: Parts, found: Sequence[tuple[Channel, Seen]], names: list[str]) -> Texts:
    for start in range(0, len(found), CHUNK):
        chunk = found[start : start + CHUNK]
        sizes = await _sizes(parts, chunk) if "size" in names else {}
        views = [_view(parts, channel, seen, sizes.get((channel.id, seen.ident), 0)) for channel, seen in chunk]
        yield [orjson.dumps(TABLE.project(view, names)) for view in views]


async def _sizes(parts: Parts, chunk: Sequence[tuple[Channel, Seen]]) -> dict[tuple[int, str], int]:
    sizes: dict[tuple[int, str], int] = {}
    for channel_id in {channel.id for channel, _ in chunk}:
        idents = [seen.ident for channel, seen in chunk if channel.id == channel_id]
        of_channel = await parts.traffic.sizes(channel_id, idents)
        sizes.update({(channel_id, ident): size for ident, size in of_channel.items()})
    return sizes


def _view(parts: Parts, channel: Channel, seen: Seen, size: int) -> dict[str, Any]:
    device = parts.items.find_device(channel.protocol_id, seen.ident)
    connection = parts.connections.of_ident(channel.protocol_id, seen.ident)
    is_here = connection is not None and connection.channel.id == channel.id
    return {
        "channel_id": channel.id,
        "ident": seen.ident,
        "verdict": seen.verdict,
        "reason": seen.reason,
        "device_id": device.id if device is not None else None,
        "connected": is_here,
        "first": seen.first,
        "last": max(seen.last, parts.connections.last_active(connection)) if is_here else seen.last,
        "count": seen.count,
        "source": seen.peer,
        "transport": seen.transport,
        "size": size,
    }


OPERATIONS = [
    Operation(
        "GET", "/gw/channels/{channels}/idents/{idents}", list_idents, "Who has come to channels, and who was refused",
        access=Right("gw/channels", "idents"), query=ItemsQuery, result=IdentView,
    ),
]  # fmt: skip
