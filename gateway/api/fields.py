"""``fields=a,b.c``: which fields of an item are asked for (flespi's REST documentation, "fields")."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from attrs import frozen
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.api.errors import ApiError

FIELDS_MOST = 100
Text = Annotated[str, Meta(max_length=4096)]


class FieldsQuery(Struct):
    """Of an operation that answers with items."""

    fields: Annotated[Text, Meta(description="names of fields, with commas between; a.b is a part of an object")] = ""


class ItemsQuery(FieldsQuery):
    """Of a list."""

    limit: Annotated[int, Meta(ge=1, le=1_000_000, description="items at most")] | UnsetType = UNSET
    offset: Annotated[int, Meta(ge=0, le=2**53, description="items left out before")] = 0


@frozen
class FieldTable:
    """The fields of a kind of item: how each is had, and which of them are given when none are asked for."""

    readers: Mapping[str, Callable[[Any], Any]]
    default: Sequence[str]

    def chosen(self, text: str) -> list[str]:
        """The names in ``text``, checked. Raises ApiError that names the unknown one."""
        names = [name.strip() for name in text.split(",") if name.strip()]
        if len(names) > FIELDS_MOST:
            raise ApiError.bad_request(f"fields: {len(names)} names; {FIELDS_MOST} are possible", field="fields")
        for name in names:
            if name.partition(".")[0] not in self.readers:
                raise ApiError.bad_request("field is not allowed", field=name[:200], schema_hint=sorted(self.readers))
        return names or list(self.default)

    def project(self, item: Any, names: Sequence[str]) -> dict[str, Any]:
        """The item with these fields; of ``a.b`` the part, under the name ``a.b``, if it is there."""
        view: dict[str, Any] = {}
        for name in names:
            first, _, rest = name.partition(".")
            value = self.readers[first](item)
            if not rest:
                view[name] = value
                continue
            found, part = _part(value, rest)
            if found:
                view[name] = part
        return view


def _part(value: Any, path: str) -> tuple[bool, Any]:
    """What stands at ``path``: keys may have dots in them, so the longest key that fits wins."""
    if not isinstance(value, Mapping):
        return False, None
    if path in value:
        return True, value[path]
    first, _, rest = path.partition(".")
    return _part(value[first], rest) if rest and first in value else (False, None)


def paginate(items: Sequence[Any], query: ItemsQuery) -> tuple[Sequence[Any], dict[str, Any]]:
    """The part of ``items`` that ``limit`` and ``offset`` ask for, and the envelope's ``pagination``, if they do."""
    if isinstance(query.limit, UnsetType) and not query.offset:
        return items, {}
    limit = len(items) if isinstance(query.limit, UnsetType) else query.limit
    chosen = items[query.offset : query.offset + limit]
    return chosen, {"pagination": {"limit": limit, "offset": query.offset, "count": len(items)}}
