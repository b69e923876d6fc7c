"""One request as its handler sees it: checked, with the rights of its token, and with the parts of the gateway."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, get_args, get_origin

import msgspec
import orjson
from attrs import define, field, frozen

from gateway.api.errors import ApiError
from gateway.api.operations import Operation
from gateway.api.parts import Parts
from gateway.api.refusals import refusal
from gateway.message import is_deeper
from gateway.store.access import Access
from gateway.store.tokens import Token

DEPTH_MOST = 32
"""Levels of a JSON text; what is stored must be written again, and writers have limits of their own."""
ENTRIES_MOST = 10_000

T = TypeVar("T")


@frozen
class Entry(Generic[T]):
    """One valid item of a request's array, and its place there."""

    index: int
    value: T


@define
class Call:
    """``path``: the values of the path's variables, decoded. ``query``, ``data`` and ``body`` are of the types that the
    operation names. ``entries``: the valid items of a body that is a list; what is wrong with the others stands in
    ``errors``, which become part of the answer, and to which a handler adds.
    """

    operation: Operation
    path: dict[str, str]
    parts: Parts
    caller: Token | None
    """Whose token it is; None where the operation needs none."""
    peer: str
    query: Any = None
    data: Any = None
    body: Any = None
    entries: list[Entry[Any]] = field(factory=list)
    errors: list[ApiError] = field(factory=list)
    warnings: list[str] = field(factory=list)

    @property
    def token(self) -> Token:
        """The caller's token; only for operations that need one."""
        assert self.caller is not None, f"{self.operation.name} is open to all"
        return self.caller

    @property
    def access(self) -> Access:
        """What the token may do."""
        return self.token.access

    def permitted_ids(self) -> frozenset[int] | None:
        """The items that the token may reach with this operation; None: all."""
        right = self.operation.access
        if right is None:
            return None
        return self.access.ids(self.operation.method, right.uri, right.submodule)


def parse_json(text: bytes, what: str) -> Any:
    """The JSON value of ``text``, not nested too deep. Raises ApiError."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ApiError.bad_request(f"{what} is not JSON: {error}") from None
    if is_deeper(value, DEPTH_MOST):
        raise ApiError.bad_request(f"{what} is nested deeper than {DEPTH_MOST} levels")
    return value


def convert(value: Any, kind: Any, what: str, *, strict: bool = True, within: str = "") -> Any:
    """``value`` as the msgspec type ``kind``. Raises ApiError that names the field, as a part of ``within``."""
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise refusal(str(error), kind, what, within) from None


def item_type(body: Any) -> Any:
    """X of ``list[X]``; None where the body is something else."""
    return get_args(body)[0] if get_origin(body) is list else None


def convert_entries(value: Any, kind: Any) -> tuple[list[Entry[Any]], list[ApiError]]:
    """The items of a body that is a list: the valid ones, and what is wrong with the others. Raises ApiError."""
    if not isinstance(value, list):
        raise ApiError.bad_request("the body should be an array of objects, also for one")
    if not value:
        raise ApiError.bad_request("the body is an empty array: nothing to do")
    if len(value) > ENTRIES_MOST:
        raise ApiError.too_large(f"the body has {len(value)} items; {ENTRIES_MOST} are possible in one call")
    entries, errors = [], []
    for index, item in enumerate(value):
        try:
            entries.append(Entry(index, convert(item, kind, f"item {index}")))
        except ApiError as error:
            errors.append(error.at(index=index))
    return entries, errors
