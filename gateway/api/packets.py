"""``.../packets``: the raw traffic of an ident (flespi's REST, "packets").

Logins, what was refused and what was parked are always kept; all bytes where a channel's ``packets_ttl`` says so.
"""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from gateway.api.answers import Answer
from gateway.api.call import Call
from gateway.api.channel_fields import select_channels
from gateway.api.device_fields import select_devices
from gateway.api.errors import ApiError
from gateway.api.message_query import MessagesQuery, Wishes
from gateway.api.operations import Operation, Right
from gateway.store.idents import IDENT_MOST

WHOSE_MOST = 1000
"""Idents on channels, in one call."""


class PacketView(Struct):
    """``type``: 0 connect, 1 disconnect, 2 received, 3 sent; 128 more on UDP. ``data`` in base64; ``size``: its length
    where only its beginning is kept; ``conn``: the connection's id, 0 on UDP."""

    timestamp: float | UnsetType = UNSET
    type: int | UnsetType = UNSET
    data: str | UnsetType = UNSET
    conn: int | UnsetType = UNSET
    ident: str | UnsetType = UNSET
    channel_id: int | UnsetType = UNSET
    source: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    size: int | UnsetType = UNSET


async def of_ident(call: Call) -> Answer:
    """GET of a channel."""
    ident = call.path["ident"]
    if not 1 <= len(ident) <= IDENT_MOST:
        raise ApiError.bad_request(f"an ident has 1 to {IDENT_MOST} characters, this one {len(ident)}")
    channels, errors = await select_channels(call)
    return await _answer(call, [(channel.id, ident) for channel in channels], errors)


async def of_devices(call: Call) -> Answer:
    """GET of a device: on all channels of its protocol."""
    devices, errors = await select_devices(call)
    channels = call.parts.items.channels.values()
    whose = [
        (channel.id, device.ident)
        for device in devices
        for channel in channels
        if channel.protocol_id == device.protocol_id
    ]
    return await _answer(call, whose, errors)


async def _answer(call: Call, whose: list[tuple[int, str]], errors: list[ApiError]) -> Answer:
    wishes = Wishes.of(call.data, call.parts.history.turn)
    if not whose:
        return Answer(errors=errors)
    if len(whose) > WHOSE_MOST:
        raise ApiError.too_large(
            f"the traffic of {len(whose)} idents on channels; {WHOSE_MOST} are possible in one call: select fewer"
        )
    await call.parts.traffic.flush()
    return Answer(wishes.fulfil(call.parts.traffic.read(whose, call.data.span, wishes.turn)), errors)


OPERATIONS = [
    Operation(
        "GET", "/gw/channels/{channels}/idents/{ident}/packets", of_ident, "What an ident sent and was sent",
        access=Right("gw/channels", "packets"), data=MessagesQuery, result=PacketView,
    ),
    Operation(
        "GET", "/gw/devices/{devices}/packets", of_devices, "What devices sent and were sent",
        access=Right("gw/devices", "packets"), data=MessagesQuery, result=PacketView,
    ),
]  # fmt: skip
