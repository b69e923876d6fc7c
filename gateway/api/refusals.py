"""What is wrong with a value, so that its sender can mend it: msgspec's words, the field, and what would be right."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct, inspect

from gateway.api.errors import ApiError

PLACE = re.compile(r" - at `\$(?P<path>[^`]*)`$")
UNKNOWN = re.compile(r"unknown field `(?P<name>[^`]*)`")
MISSING = re.compile(r"missing required field `(?P<name>[^`]*)`")
STEP = re.compile(r"\[[^\]]*\]|[^.\[\]]+")


def refusal(text: str, kind: Any, what: str, within: str = "") -> ApiError:
    """The error for ``text``, msgspec's about ``what``, that should have been of the type ``kind``.

    ``within``: the field that ``what`` is the value of.
    """
    place = PLACE.search(text)
    path = (place["path"] if place else "").lstrip(".")
    reason = PLACE.sub("", text)
    if "Invalid enum value" in reason:
        reason += f"; it should be {_listed(_choices(kind, path))}"
    named = UNKNOWN.search(text) or MISSING.search(text)
    name = ".".join(part for part in (path, named["name"] if named else "") if part)
    hint = _field_names(kind) if UNKNOWN.search(text) and not path else None
    return ApiError.bad_request(
        f"{what}: {reason}" + (f" ({name})" if path else ""),
        field=".".join(part for part in (within, name) if part) or None,
        schema_hint=hint,
    )


def _field_names(kind: Any) -> list[str] | None:
    """As a client writes them."""
    return list(kind.__struct_encode_fields__) if isinstance(kind, type) and issubclass(kind, Struct) else None


def _choices(kind: Any, path: str) -> list[Any]:
    """The values that are possible at a place of ``kind``: ``access.acl[0].methods[0]``."""
    places: list[Any] = [inspect.type_info(kind)]
    for step in STEP.findall(path):
        places = [part for place in places for part in _inside(place, step)]
    return [value for place in places for value in _values(place)]


def _parts(place: Any) -> list[Any]:
    """The types of which a value may be."""
    if isinstance(place, inspect.Metadata):
        return _parts(place.type)
    if isinstance(place, inspect.UnionType):
        return [part for one in place.types for part in _parts(one)]
    return [place]


def _inside(place: Any, step: str) -> list[Any]:
    found = []
    for part in _parts(place):
        if isinstance(part, inspect.StructType):
            found += [field.type for field in part.fields if field.encode_name == step]
        elif isinstance(part, inspect.DictType):
            found.append(part.value_type)
        elif step.startswith("[") and hasattr(part, "item_type"):
            found.append(part.item_type)
    return found


def _values(place: Any) -> list[Any]:
    found: list[Any] = []
    for part in _parts(place):
        if isinstance(part, inspect.LiteralType):
            found += part.values
        elif isinstance(part, inspect.EnumType):
            found += [member.value for member in part.cls]
    return found


def _listed(values: list[Any]) -> str:
    *most, last = map(str, values)
    return f"{', '.join(most)} or {last}" if most else last
