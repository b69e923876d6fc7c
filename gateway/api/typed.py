"""What plugins and streams have in common: a type says what their configuration is, and it can hold passwords.

A configuration is stored as the type's ``Config`` completes it. Its passwords are shown to who may change it, and to
nobody else; :data:`~gateway.store.hiding.HIDDEN` in a change stands for what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gateway.api.call import Call, convert
from gateway.api.errors import ApiError
from gateway.api.items import Json
from gateway.errors import ExpressionError, GatewayError, ItemError
from gateway.expressions import compile_expression
from gateway.store.hiding import HIDDEN, NothingHidden, with_secrets, without_secrets
from gateway.store.item import Plugin, Stream

Expression = Annotated[
    str, Meta(max_length=100_000, description="an expression; only messages for which it is true; empty: all")
]


def configured(kind: Any, given: Json, known: Json, build: Callable[[Any], object] = lambda config: None) -> Json:
    """``given`` as it is stored: checked and completed by ``kind``, the type's class. Raises ApiError.

    ``known``: what is stored. ``build`` makes whatever shall run with it, and may refuse as well.
    """
    try:
        given = with_secrets(given, known)
    except NothingHidden as place:
        reason = f"{place} is {HIDDEN!r}, which stands for a value that is stored, and none is: give the value itself"
        raise ApiError.bad_request(reason, field=f"configuration.{place}") from None
    config = convert(given, kind.Config, "configuration", within="configuration")
    try:
        kind.check(config)
        build(config)
    except GatewayError as error:
        raise ApiError.bad_request(str(error), field=_place(error)) from None
    except Exception as error:  # an operator's own type
        raise ApiError.bad_request(f"{type(error).__name__}: {error}", field="configuration") from None
    return dict(msgspec.to_builtins(config))


def _place(error: GatewayError) -> str:
    """The field, from the item on."""
    field = error.field if isinstance(error, ItemError) else ""
    return field if field.partition(".")[0] == "configuration" else ".".join(filter(None, ("configuration", field)))


def check_expression(text: str, field: str = "validate_message") -> None:
    """Raises ApiError with the column."""
    try:
        if text:
            compile_expression(text)
    except ExpressionError as error:
        reason = f"{field}: column {error.column}: {error.reason}"
        raise ApiError.bad_request(reason, field=field, column=error.column) from None


def shown_configuration(call: Call, uri: str) -> Callable[[Plugin | Stream], Json]:
    """How the configurations of items are shown to the caller."""
    changeable = call.access.ids("PUT", uri)

    def shown(item: Plugin | Stream) -> Json:
        may_know = changeable is None or item.id in changeable
        return item.configuration if may_know else dict(without_secrets(item.configuration))

    return shown


def named_type(types: Mapping[str, Any], id: int | None, names: Mapping[str, str], what: str) -> Any:
    """The type that is meant: ``id`` is its number, ``names`` are fields with its name. Raises ApiError.

    ``what``: ``type`` of plugins, ``protocol`` of streams, which the names of the fields begin with.
    """
    found: dict[str, Any] = {}
    for field, name in names.items():
        if name not in types:
            raise ApiError.bad_request(_unknown(types, what, repr(name[:100])), field=field)
        found[field] = types[name]
    if id is not None:
        by_id = next((type for type in types.values() if type.id == id), None)
        if by_id is None:
            raise ApiError.bad_request(_unknown(types, what, str(id)), field=f"{what}_id")
        found[f"{what}_id"] = by_id
    if not found:
        raise ApiError.bad_request(f"{what}_id or {what}_name is needed: {_listed(types)}", field=f"{what}_name")
    if len({type.name for type in found.values()}) > 1:
        raise ApiError.bad_request(f"{' and '.join(found)} name different types", field=next(iter(found)))
    return next(iter(found.values()))


def _unknown(types: Mapping[str, Any], what: str, given: str) -> str:
    return f"{what} {given} not found; there are {_listed(types)}"


def _listed(types: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} ({type.id or 'not installed'})" for name, type in types.items()) or "none"
