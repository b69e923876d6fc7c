"""``/gw/channels/{channels}/messages``: what channels received, by ``server.timestamp``.

Two ways of reading are flespi's: a range (``from``, ``to``, ``count``, ``reverse``, ``filter``, ``fields``), and the
older cursor (``curr_key`` and ``next_key``, with long polling).
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec import field as named

from gateway.api.answers import Answer
from gateway.api.call import Call
from gateway.api.channel_fields import select_channels
from gateway.api.errors import ApiError
from gateway.api.message_query import MessagesQuery, Range, Wishes
from gateway.api.operations import Operation, Right
from gateway.store.hidden import TooManyRanges
from gateway.store.polls import LONGEST_WAIT, MOST_BYTES, MOST_MESSAGES, Cursor, TooManyPolls

MESSAGES = Right("gw/channels", "messages")
CURSOR = ("curr_key", "timeout", "delay", "delete", "limit_count", "limit_size")
RANGE = ("start", "to", "count", "reverse", "filter", "fields")

Wait = Annotated[float, Meta(ge=0, le=LONGEST_WAIT, description="seconds to wait for the first message")]


class ChannelMessagesQuery(MessagesQuery, forbid_unknown_fields=True):
    """Either a range, or a cursor."""

    curr_key: (
        Annotated[int, Meta(ge=0, le=2**53, description="cursor: messages from here on; next_key of the answer before")]
        | None
    ) = None
    timeout: Wait | None = None
    delay: Annotated[Wait, Meta(description="another name of timeout")] | None = None
    delete: Annotated[bool, Meta(description="remove what precedes curr_key")] = False
    limit_count: Annotated[int, Meta(ge=1, le=MOST_MESSAGES, description="cursor: messages at most")] | None = None
    limit_size: (
        Annotated[int, Meta(ge=1, le=MOST_BYTES, description="cursor: bytes at most, of one or more")] | None
    ) = None

    @property
    def has_cursor(self) -> bool:
        """Whether it is the older way."""
        return any(getattr(self, name) not in (None, False) for name in CURSOR)

    @property
    def cursor(self) -> Cursor:
        """What the older way asks for. Raises ApiError where it is mixed with a range."""
        mixed = [name for name in RANGE if getattr(self, name)]
        if mixed:
            name = "from" if mixed[0] == "start" else mixed[0]
            raise ApiError.bad_request(f"{name} does not go together with {', '.join(CURSOR)}", field=name)
        wait = self.timeout if self.timeout is not None else self.delay or 0.0
        return Cursor(self.curr_key or 0, wait, self.limit_count or MOST_MESSAGES, self.limit_size or MOST_BYTES)


class Deleted(Struct):
    """A channel whose messages were deleted."""

    id: int


class DeleteQuery(Range, forbid_unknown_fields=True):
    """Which messages to delete; without anything, all that there are now."""

    curr_key: Annotated[int, Meta(ge=0, le=2**53, description="what precedes this cursor")] | None = named(default=None)


async def get_messages(call: Call) -> Answer:
    channels, errors = await select_channels(call)
    if not channels:
        return Answer(errors=errors)
    ids = [channel.id for channel in channels]
    if call.data.has_cursor:
        answer = await _poll(call, ids)
        answer.errors = errors
        return answer
    wishes = Wishes.of(call.data, call.parts.history.turn)
    return Answer(wishes.fulfil(call.parts.history.read(ids, call.data.span)), errors)


async def _poll(call: Call, ids: list[int]) -> Answer:
    cursor = call.data.cursor
    if call.data.delete:
        await _delete_before(call, ids, cursor.key)
    try:
        batch = await call.parts.polls.read(ids, cursor)
    except TooManyPolls as error:
        raise ApiError.too_many(str(error)) from None
    return Answer(_once(batch.texts), extra={"next_key": batch.next_key})


async def _once(texts: list[bytes]) -> Any:
    yield texts


async def _delete_before(call: Call, ids: list[int], key: int) -> None:
    """``delete`` of a GET is a deletion: who may only read may not do it."""
    permitted = call.access.ids("DELETE", MESSAGES.uri, MESSAGES.submodule)
    if permitted is not None and not permitted.issuperset(ids):
        raise ApiError.not_permitted()
    if key > 0:
        for channel_id in ids:
            await call.parts.history.hide(channel_id, 0, key - 1)


async def delete_messages(call: Call) -> Answer:
    query: DeleteQuery = call.data
    if query.curr_key is not None and (query.start is not None or query.to is not None):
        raise ApiError.bad_request("curr_key does not go together with from and to", field="curr_key")
    channels, errors = await select_channels(call)
    done = []
    for channel in channels:
        try:
            if query.curr_key is None:
                await call.parts.history.delete(channel.id, query.start, query.to)
            elif query.curr_key > 0:
                await call.parts.history.hide(channel.id, 0, query.curr_key - 1)
            done.append(Deleted(channel.id))
        except TooManyRanges as error:
            errors.append(ApiError.too_many(str(error)).at(id=channel.id))
    return Answer(done, errors)


OPERATIONS = [
    Operation(
        "GET", "/gw/channels/{channels}/messages", get_messages, "Messages as channels received them",
        access=MESSAGES, data=ChannelMessagesQuery,
    ),
    Operation(
        "DELETE", "/gw/channels/{channels}/messages", delete_messages, "Delete messages of channels",
        access=MESSAGES, data=DeleteQuery, result=Deleted,
    ),
]  # fmt: skip
