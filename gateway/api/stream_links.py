"""``/gw/streams/{sel}/channels/{sel}`` and ``.../devices/{sel}``: whose messages streams carry.

A stream carries what comes after it was linked. Of a device that it is linked with it carries the device's messages,
and not those of the channel as well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec import UNSET, Struct, UnsetType

from gateway.api.answers import Answer
from gateway.api.call import Call
from gateway.api.fields import FieldsQuery, ItemsQuery
from gateway.api.links import Ends
from gateway.api.operations import Operation, Right
from gateway.api.stream_fields import STREAMS


class NoFields(Struct, forbid_unknown_fields=True):
    """There is nothing to say of a link of a stream: ``{}``, or no body at all."""


class LinkedView(Struct):
    """A channel or a device of a stream, with the fields that were asked for: the link's, and its own."""

    id: int | UnsetType = UNSET
    stream_id: int | UnsetType = UNSET
    name: str | UnsetType | None = UNSET
    stream_name: str | UnsetType | None = UNSET
    created: float | UnsetType = UNSET


def _lists(to: str) -> Callable[[Call], Awaitable[Answer]]:
    async def list_linked(call: Call) -> Answer:
        """GET."""
        return await Ends(call, STREAMS, to).listed()

    return list_linked


def _links(to: str) -> Callable[[Call], Awaitable[Answer]]:
    async def link(call: Call) -> Answer:
        """POST."""
        return await Ends(call, STREAMS, to).made({})

    return link


def _unlinks(to: str) -> Callable[[Call], Awaitable[Answer]]:
    async def unlink(call: Call) -> Answer:
        """DELETE."""
        return await Ends(call, STREAMS, to).removed()

    return unlink


def _operations(to: str) -> list[Operation]:
    url, right = f"/gw/streams/{{streams}}/{to}/{{{to}}}", Right("gw/streams", to)
    return [
        Operation("GET", url, _lists(to), f"The {to} of streams", right, query=ItemsQuery, result=LinkedView),
        Operation(
            "POST", url, _links(to), f"Link streams with {to}", right,
            query=FieldsQuery, body=NoFields, may_lack_body=True, result=LinkedView,
        ),
        Operation(
            "DELETE", url, _unlinks(to), f"Unlink streams from {to}", right, query=FieldsQuery, result=LinkedView
        ),
    ]  # fmt: skip


OPERATIONS = [*_operations("channels"), *_operations("devices")]
