"""What the nouns of items (channels, devices) have in common: lists in chunks, changes one by one, merging."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
import orjson
from msgspec import UNSET, Meta, Struct

from gateway.api.answers import Answer, Texts
from gateway.api.call import Call
from gateway.api.errors import ApiError
from gateway.api.fields import FieldTable, paginate
from gateway.errors import ConfigError, GatewayError, ItemError, ListenError, NoSuchItem, StoreError
from gateway.store.item import NAME_MOST
from gateway.store.ordered import Turn

CHUNK = 200
"""Items whose fields are read at once; more of them are sent in so many chunks."""
CHANGES_TIME = 60.0
"""Seconds that the changes of one call may take; what was not done by then is named in the answer."""

Name = Annotated[str, Meta(max_length=NAME_MOST)]
Id = Annotated[int, Meta(ge=1, le=2**53)]
Json = dict[str, Any]
T = TypeVar("T")

LoadTable = Callable[[Sequence[Any], Sequence[str]], Awaitable[FieldTable]]
"""Given items and the names of fields: a table that has what these fields need."""


def refusal(error: GatewayError, **details: Any) -> ApiError:
    """What went wrong with one item, as the client is told; ``details``: its ``id`` or ``index``."""
    if isinstance(error, ApiError):
        return error.at(**details)
    if isinstance(error, NoSuchItem):
        return ApiError.denied(None).at(**details)
    if isinstance(error, ItemError):
        return ApiError.bad_request(str(error), field=error.field or None, **details)
    if isinstance(error, ListenError | ConfigError):
        return ApiError.bad_request(str(error), field="configuration.listen", **details)
    if isinstance(error, StoreError):
        return ApiError.unavailable("Redis does not answer, or has no room: nothing is changed").at(**details)
    return ApiError.bad_request(str(error), **details)


Job = tuple[Json, Callable[[], Awaitable[T]]]
"""The details that name an item, and what is to be done with it."""


async def one_by_one(
    jobs: Iterable[Job[T]], *, now: Callable[[], float] = time.monotonic
) -> tuple[list[T], list[ApiError]]:
    """Do each job, whatever becomes of the others: what they gave, and an error for each that failed.

    After an error of the store, or :data:`CHANGES_TIME`, the others are not tried, which the answer says of each.
    """
    done: list[T] = []
    errors: list[ApiError] = []
    deadline = now() + CHANGES_TIME
    hopeless = ""
    for details, job in jobs:
        if not hopeless and now() > deadline:
            hopeless = "not tried, for lack of time: send it again"
        if hopeless:
            errors.append(ApiError.unavailable(hopeless).at(**details))
            continue
        try:
            done.append(await job())
        except GatewayError as error:
            errors.append(refusal(error, **details))
            if isinstance(error, StoreError):
                hopeless = "not tried, for Redis did not answer before: send it again"
    return done, errors


def given(body: Struct) -> Json:
    """The fields that the client named, their values as JSON has them."""
    values = {name: getattr(body, name) for name in body.__struct_fields__}
    return {name: msgspec.to_builtins(value) for name, value in values.items() if value is not UNSET}


def merged(old: Mapping[str, Any], patch: Mapping[str, Any]) -> Json:
    """``old`` with ``patch`` merged into it: objects are merged, null removes, anything else replaces (RFC 7396)."""
    result = dict(old)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            before = result.get(name)
            result[name] = merged(before if isinstance(before, Mapping) else {}, value)
        else:
            result[name] = value
    return result


async def listed(call: Call, items: Sequence[Any], errors: list[ApiError], names: list[str], load: LoadTable) -> Answer:
    """The answer to a GET of ``items``."""
    chosen, extra = paginate(items, call.query)
    if len(chosen) <= CHUNK:
        return Answer(await views(chosen, names, load), errors, extra)
    return Answer(_texts(chosen, names, load, call.parts.turn), errors, extra)


async def views(items: Sequence[Any], names: list[str], load: LoadTable) -> list[Json]:
    """These fields of each."""
    found: list[Json] = []
    for start in range(0, len(items), CHUNK):
        found += await _views(items[start : start + CHUNK], names, load)
        await asyncio.sleep(0)  # others have their turn after some 3 ms
    return found


async def _texts(items: Sequence[Any], names: list[str], load: LoadTable, turn: Turn) -> Texts:
    """One chunk at a time, however many clients want lists: each is a slice of some 3 ms."""
    for start in range(0, len(items), CHUNK):
        async with turn:
            texts = [orjson.dumps(view) for view in await _views(items[start : start + CHUNK], names, load)]
        yield texts


async def _views(items: Sequence[Any], names: list[str], load: LoadTable) -> list[Json]:
    table = await load(items, names)
    return [table.project(item, names) for item in items]


def created_access(call: Call, uri: str) -> None:
    """Raises ApiError: a token that is limited to certain items cannot make others."""
    if not call.access.may_create(uri):
        raise ApiError.not_permitted()
