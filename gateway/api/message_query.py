"""What a client may ask of stored messages, and how its wishes are fulfilled while the messages stream by.

Names and meanings are flespi's (its REST documentation of channels' and devices' messages). Where only a range and a
number of messages are asked for, they go out as they are stored.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated, Any, Literal

import orjson
from attrs import define, field
from msgspec import Meta, Struct
from msgspec import field as named

from gateway import message as msg
from gateway.api.errors import ApiError
from gateway.api.generalize import Generalizer
from gateway.expressions import Context, Expression, ExpressionError, compile_filter
from gateway.store.history import Chunks
from gateway.store.masks import Masks
from gateway.store.ordered import SLICE, Turn
from gateway.store.sources import Span

LATEST = 9_007_199_254
"""Seconds: the last ones that a double tells apart by microseconds."""
FIELDS_MOST = 1000

Seconds = Annotated[float, Meta(ge=0, le=LATEST, description="UNIX seconds, microseconds in the fraction; inclusive")]
Count = Annotated[int, Meta(ge=1, le=2**53, description="messages at most, over all selected items")]
Fields = Annotated[str, Meta(max_length=65536, description="names of parameters with commas between; * and ? stand in")]
Filter = Annotated[str, Meta(max_length=65536, description="an expression that must be true of a message")]


class Range(Struct, forbid_unknown_fields=True):
    """A range of time."""

    start: Seconds | None = named(name="from", default=None)
    to: Seconds | None = None

    @property
    def span(self) -> Span:
        """The range to read."""
        return Span.of(self.start, self.to)


class MessagesQuery(Range, forbid_unknown_fields=True):
    """Which messages, and what of them."""

    count: Count | None = None
    reverse: Annotated[bool, Meta(description="the latest first")] = False
    filter: Filter = ""
    fields: Fields = ""

    @property
    def span(self) -> Span:
        """The range to read, and in which direction."""
        return Span.of(self.start, self.to, self.reverse)


class DeviceMessagesQuery(MessagesQuery, forbid_unknown_fields=True):
    """The same of devices, whose messages can be made fewer."""

    generalize: (
        Annotated[int, Meta(ge=10, le=366 * 86400, description="seconds: one message for each interval of this length")]
        | None
    ) = None
    method: (
        Annotated[
            Literal["average", "minimum", "maximum"],
            Meta(description="what becomes of numbers in an interval; without it, its first message stands for all"),
        ]
        | None
    ) = None


@define
class Wishes:
    """A query that was checked. ``turn`` is shared by all who work on messages: one slice at a time."""

    turn: Turn
    count: int | None = None
    filter: Expression | None = None
    fields: Masks | None = None
    generalizer: Generalizer | None = None
    _previous: dict[Any, dict[str, Any]] = field(init=False, factory=dict)
    _due: list[bytes] = field(init=False, factory=list)

    @classmethod
    def of(cls, query: MessagesQuery, turn: Turn) -> Wishes:
        """Raises ApiError where the filter is no expression, or wishes do not go together."""
        wishes = cls(turn, query.count, _filter(query.filter), _fields(query.fields))
        if query.reverse and wishes.filter is not None and wishes.filter.needs_previous:
            raise ApiError.bad_request("filter: with reverse there is no previous message", field="filter")
        if isinstance(query, DeviceMessagesQuery):
            if query.generalize:
                wishes.generalizer = Generalizer(query.generalize, query.method, query.reverse)
            elif query.method:
                raise ApiError.bad_request("method goes with generalize: seconds of an interval", field="generalize")
        return wishes

    @property
    def remembers(self) -> bool:
        """Whether something must be kept of each device's messages."""
        return self.generalizer is not None or (self.filter is not None and self.filter.needs_previous)

    async def fulfil(self, chunks: Chunks) -> Chunks:
        """The messages as they are wished for."""
        left = self.count
        async with aclosing(chunks), aclosing(self._changed(chunks)) as changed:
            async for texts in changed:
                yield texts if left is None else texts[:left]
                if left is not None:
                    left -= len(texts)
                    if left <= 0:
                        return

    async def _changed(self, chunks: Chunks) -> Chunks:
        if self.filter is None and self.fields is None and self.generalizer is None:
            async for texts in chunks:
                yield texts
            return
        async for texts in chunks:
            at = 0
            while at < len(texts):
                async with self.turn:
                    at = self._work(texts, at)
                yield self._taken()
        if self.generalizer is not None:
            self._give(self.generalizer.end())
            yield self._taken()

    def _work(self, texts: Sequence[bytes], at: int) -> int:
        """Deal with texts from ``at`` on, for one slice of time; gives where it ended."""
        end = time.perf_counter() + SLICE
        while at < len(texts):
            message = orjson.loads(texts[at])
            at += 1
            if self.filter is None or self._passes(self.filter, message):
                self._give([message] if self.generalizer is None else self.generalizer.add(message))
            if time.perf_counter() > end:
                break
        return at

    def _passes(self, wanted: Expression, message: dict[str, Any]) -> bool:
        if not wanted.needs_previous:
            return wanted.is_true(message)
        origin = message.get("device.id"), message.get("ident")
        previous, self._previous[origin] = self._previous.get(origin), message
        return wanted.is_true(message, Context(previous=previous))

    def _give(self, messages: Sequence[dict[str, Any]]) -> None:
        for message in messages:
            if self.fields is not None:
                message = {name: value for name, value in message.items() if self.fields.choose(name)}
            self._due.append(msg.encode(message))

    def _taken(self) -> list[bytes]:
        taken, self._due = self._due, []
        return taken


def _filter(text: str) -> Expression | None:
    if not text.strip():
        return None
    try:
        return compile_filter(text)
    except ExpressionError as error:
        raise ApiError.bad_request(f"filter: column {error.column}: {error.reason}", field="filter") from None


def _fields(text: str) -> Masks | None:
    if not text.strip():
        return None
    masks = Masks.parse(text)
    if len(masks.texts) > FIELDS_MOST:
        raise ApiError.bad_request(f"fields: {len(masks.texts)} names; {FIELDS_MOST} are possible", field="fields")
    return masks
