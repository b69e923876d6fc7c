"""``/gw/devices/{devices}/messages``: what devices have stored, by ``timestamp``; and messages that come by the API.

A posted message goes the way of a tracker's: it merges with the stored one of the same ``timestamp`` (or
``timestamp.key``), updates telemetry, and is published. Messages cannot be deleted, as in flespi.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from gateway.api.answers import Answer
from gateway.api.call import Call
from gateway.api.device_fields import select_devices
from gateway.api.errors import ApiError
from gateway.api.message_query import DeviceMessagesQuery, Wishes
from gateway.api.operations import MiB, Operation, Right
from gateway.api.posting import MESSAGES_MOST, checked
from gateway.store.posted import Post

MESSAGES = Right("gw/devices", "messages")
REGISTERED_WITHIN = 5.0
"""Seconds that a POST waits for the registrar."""
REMEMBERED_DEVICES = 1000
"""Of each, a message is kept while an interval lasts, or for expressions that ask for the one before."""
LATE = "stored, and not registered yet: it will be when the gateway gets to it"


class PostedView(Struct):
    """A device that got messages. ``registered``: they can be read already."""

    id: int
    messages: int
    registered: bool


async def get_messages(call: Call) -> Answer:
    devices, errors = await select_devices(call)
    if not devices:
        return Answer(errors=errors)
    wishes = Wishes.of(call.data, call.parts.device_history.turn)
    if wishes.remembers and len(devices) > REMEMBERED_DEVICES:
        raise ApiError.bad_request(
            f"{len(devices)} devices; {REMEMBERED_DEVICES} are possible with generalize, or previous messages in filter"
        )
    chunks = call.parts.device_history.read([device.id for device in devices], call.data.span)
    return Answer(wishes.fulfil(chunks), errors)


async def post_messages(call: Call) -> Answer:
    devices, errors = await select_devices(call)
    messages, refused = await checked(call.entries)
    errors += refused
    if len(messages) * len(devices) > MESSAGES_MOST:
        raise ApiError.too_large(
            f"{len(messages)} messages for {len(devices)} devices; {MESSAGES_MOST} are possible in one call"
        )
    if not messages or not devices:
        return Answer(errors=errors)
    require_room(call)
    last = await call.parts.posted.add([Post(device, messages) for device in devices])
    is_registered = await wait_registered(call, last)
    return Answer([PostedView(device.id, len(messages), is_registered) for device in devices], errors)


def require_room(call: Call) -> None:
    """Raises ApiError while trackers are paused: what keeps them from being stored would be made worse."""
    if not call.parts.gate.is_open:
        raise ApiError.unavailable(f"nothing is taken just now: {'; '.join(call.parts.gate.reasons)}")


async def wait_registered(call: Call, entry_id: str) -> bool:
    """Whether the registrar got to it in time; if not, the answer says so."""
    is_registered: bool = await call.parts.posted.wait(entry_id, REGISTERED_WITHIN)
    if not is_registered:
        call.warnings.append(LATE)
    return is_registered


OPERATIONS = [
    Operation(
        "GET", "/gw/devices/{devices}/messages", get_messages, "Messages as devices have stored them",
        access=MESSAGES, data=DeviceMessagesQuery,
    ),
    Operation(
        "POST", "/gw/devices/{devices}/messages", post_messages, "Register messages, or change stored ones",
        access=MESSAGES, body=list[dict[str, Any]], body_most=4 * MiB, result=PostedView,
    ),
]  # fmt: skip
