"""``/platform/tokens``: the keys to the API and to the embedded broker; only master tokens may touch them.

Fields are flespi's. A token's key stands in the answer to its creation, and nowhere else. The master token of the
configuration is none of these: it cannot be listed, changed or deleted here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.api.answers import Answer
from gateway.api.call import Call, convert
from gateway.api.errors import ApiError
from gateway.api.fields import FieldsQuery, FieldTable, ItemsQuery
from gateway.api.items import Job, Json, given, listed, merged, one_by_one, refusal, views
from gateway.api.operations import Operation, Right
from gateway.api.selectors import select
from gateway.errors import NoSuchItem, StoreError
from gateway.store.access import ACL, Access, Rules
from gateway.store.tokens import Token
from gateway.store.views import CID

URI = "platform/tokens"
TTL_MOST = 10 * 365 * 86400
IPS_MOST = 100

Info = Annotated[str, Meta(max_length=256, description="what it is for")]
Ttl = Annotated[int, Meta(ge=0, le=TTL_MOST, description="seconds that it is good for since it was last used")]
Expire = Annotated[int, Meta(ge=0, le=2**53, description="unix seconds until which it is good in any case")]
Ip = Annotated[str, Meta(min_length=1, max_length=64, description="an address, or a network such as 192.0.2.0/24")]
Ips = Annotated[list[Ip], Meta(max_length=IPS_MOST)]


class NewToken(Struct, forbid_unknown_fields=True):
    """A token to be created; it needs ``ttl`` or ``expire``."""

    info: Info = ""
    enabled: bool = True
    ttl: Ttl = 0
    expire: Expire = 0
    access: Rules = Rules()
    ips: Ips = []
    metadata: Json = {}


class TokenValues(Struct, forbid_unknown_fields=True):
    """PUT: the fields to replace."""

    info: Info | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    ttl: Ttl | UnsetType = UNSET
    expire: Expire | UnsetType = UNSET
    access: Rules | UnsetType = UNSET
    ips: Ips | UnsetType = UNSET
    metadata: Json | UnsetType = UNSET


class TokenPatch(Struct, forbid_unknown_fields=True):
    """PATCH: as PUT, but objects are merged; null removes a key."""

    info: Info | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    ttl: Ttl | UnsetType = UNSET
    expire: Expire | UnsetType = UNSET
    access: Json | UnsetType = UNSET
    ips: Ips | UnsetType = UNSET
    metadata: Json | UnsetType = UNSET


class TokenView(Struct):
    """A token, with the fields that were asked for. ``key`` only in the answer to its creation."""

    id: int | UnsetType = UNSET
    info: str | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    ttl: int | UnsetType = UNSET
    expire: int | UnsetType = UNSET
    access: Rules | UnsetType = UNSET
    ips: list[str] | UnsetType = UNSET
    created: int | UnsetType = UNSET
    accessed: int | UnsetType = UNSET
    cid: int | UnsetType = UNSET
    metadata: Json | UnsetType = UNSET
    key: str | UnsetType = UNSET


OWN = ("id", "info", "enabled", "ttl", "expire", "ips", "created", "metadata")
TABLE = FieldTable(
    {
        **{name: attrgetter(name) for name in OWN},
        "access": lambda token: rules_as_json(token.access.rules),
        "accessed": lambda token: int(token.accessed),
        "cid": lambda token: CID,
    },
    ("id", "info", "enabled", "ttl", "expire", "access", "ips", "created", "accessed", "cid", "metadata"),
)
"""A token's digest is in none of its fields."""


def rules_as_json(rules: Rules) -> Json:
    """``access``, with its type also where that is the default."""
    encoded: Json = msgspec.to_builtins(rules)
    return {"type": rules.type, **({"acl": []} if rules.type == ACL else {}), **encoded}


async def _table(tokens: Sequence[Token], names: Sequence[str]) -> FieldTable:
    return TABLE


async def _select(call: Call) -> tuple[list[Token], list[ApiError]]:
    return await select(call.path["tokens"], call.parts.tokens.all, TABLE, call.permitted_ids(), turn=call.parts.turn)


async def list_tokens(call: Call) -> Answer:
    """GET."""
    names = TABLE.chosen(call.query.fields)
    tokens, errors = await _select(call)
    return await listed(call, tokens, errors, names, _table)


async def create_tokens(call: Call) -> Answer:
    """POST; the key is in the answer whatever fields are asked for, for it cannot be had later."""
    if not call.access.is_master:  # nobody gives more than they have
        raise ApiError.not_permitted()
    names = TABLE.chosen(call.query.fields)
    jobs = [({"index": entry.index}, lambda new=entry.value: _create(call, new)) for entry in call.entries]
    made, errors = await one_by_one(jobs)
    return Answer([{**TABLE.project(token, names), "key": key} for token, key in made], errors)


async def _create(call: Call, new: NewToken) -> tuple[Token, str]:
    now = time.time()
    if not new.ttl and 0 < new.expire <= now:
        raise ApiError.bad_request(f"expire: {new.expire} is past; it is {int(now)} now", field="expire")
    _check_times(new.ttl, new.expire)
    values = {name: getattr(new, name) for name in new.__struct_fields__}
    made: tuple[Token, str] = await call.parts.tokens.create(now, **{**values, "access": Access(new.access)})
    return made


def _check_times(ttl: int, expire: int) -> None:
    """As flespi: no token is for ever by mistake."""
    if not ttl and not expire:
        raise ApiError.bad_request(
            "a token needs ttl, seconds since its last use, or expire, unix seconds; one of them keeps it good",
            field="ttl",
        )


async def put_tokens(call: Call) -> Answer:
    """PUT."""

    def change(old: Token) -> Json:
        values = given(call.body)
        return {**values, "access": Access(call.body.access)} if "access" in values else values

    return await _change(call, change)


async def patch_tokens(call: Call) -> Answer:
    """PATCH."""

    def change(old: Token) -> Json:
        values = given(call.body)
        if "metadata" in values:
            values["metadata"] = merged(old.metadata, values["metadata"])
        if "access" in values:
            values["access"] = _patched_access(old, values["access"])
        return values

    return await _change(call, change)


def _patched_access(old: Token, patch: Json) -> Access:
    """Raises ApiError."""
    try:
        return Access(convert(merged(rules_as_json(old.access.rules), patch), Rules, "access"))
    except ApiError as error:
        place = error.details.get("field")
        raise error.at(field=f"access.{place}" if place else "access") from None


async def _change(call: Call, change: Callable[[Token], Json]) -> Answer:
    def checked(old: Token) -> Json:
        values = change(old)
        _check_times(values.get("ttl", old.ttl), values.get("expire", old.expire))
        return values

    def job(token: Token) -> Job[Token]:
        async def change_it() -> Token:
            changed: Token | None = await call.parts.tokens.change(token.id, checked)
            if changed is None:
                raise NoSuchItem("deleted meanwhile")
            return changed

        return {"id": token.id}, change_it

    names = TABLE.chosen(call.query.fields)
    tokens, errors = await _select(call)
    changed, more = await one_by_one([job(token) for token in tokens])
    return Answer(await views(changed, names, _table), [*errors, *more])


async def delete_tokens(call: Call) -> Answer:
    """DELETE: what they opened is closed within seconds."""
    names = TABLE.chosen(call.query.fields)
    tokens, errors = await _select(call)
    try:
        await call.parts.tokens.delete([token.id for token in tokens])
    except StoreError as error:
        return Answer([], [*errors, *(refusal(error, id=token.id) for token in tokens)])
    return Answer(await views(tokens, names, _table), errors)


RIGHT = Right(URI)
ONE, ALL = "/platform/tokens/{tokens}", "/platform/tokens"

OPERATIONS = [
    Operation("GET", ONE, list_tokens, "Tokens", RIGHT, query=ItemsQuery, result=TokenView),
    Operation(
        "POST", ALL, create_tokens, "Create tokens", RIGHT, query=FieldsQuery, body=list[NewToken], result=TokenView
    ),
    Operation(
        "PUT", ONE, put_tokens, "Replace fields of tokens", RIGHT,
        query=FieldsQuery, body=TokenValues, result=TokenView,
    ),
    Operation(
        "PATCH", ONE, patch_tokens, "Merge into fields of tokens", RIGHT,
        query=FieldsQuery, body=TokenPatch, result=TokenView,
    ),
    Operation("DELETE", ONE, delete_tokens, "Delete tokens", RIGHT, query=FieldsQuery, result=TokenView),
]  # fmt: skip
