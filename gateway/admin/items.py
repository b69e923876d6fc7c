"""Channels, devices, plugins, streams and tokens: listed, shown, made, changed, deleted; and what they can be."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from gateway.admin.client import AdminError, Client, Item
from gateway.admin.output import Column, Output, ago, column, printable, seconds, size, text
from gateway.admin.selectors import CHANNELS, DEVICES, KINDS, PLUGINS, STREAMS, TOKENS, Kind, chosen, ids, selector
from gateway.admin.values import assigned

ALIASES = {
    CHANNELS: {
        "protocol": "protocol_name",
        "listen": "configuration.listen",
        "unknown_ident": "configuration.unknown_ident",
    },
    DEVICES: {"ident": "configuration.ident", "type": "device_type_id"},
    PLUGINS: {"type": "type_name", "uri": "configuration.uri"},
    STREAMS: {"type": "protocol_name", "protocol": "protocol_name", "uri": "configuration.uri"},
    TOKENS: {},
}
"""Short names of fields in FIELD=VALUE."""
TYPES = ("gw", "channel-protocols", "all", "device-types")

LISTED: dict[Kind, str] = {
    CHANNELS: "id,name,enabled,protocol_name,configuration,messages_ttl,connections_count,uri",
    DEVICES: "id,name,enabled,device_type_name,configuration.ident,connected,last_active,messages_ttl,messages_rotate",
    PLUGINS: "id,name,enabled,type_name,priority,validate_message,devices_count,error",
    STREAMS: "id,name,enabled,protocol_name,state,queue_size,channels_count,devices_count,queue_ttl,error",
    TOKENS: "id,info,enabled,access,ttl,expire,created,accessed",
}
SHOWN: dict[Kind, str] = {
    CHANNELS: "id,name,enabled,protocol_id,protocol_name,configuration,metadata,messages_ttl,messages_size,"
    "connections_count,uri",
    DEVICES: "id,name,enabled,protocol_id,protocol_name,device_type_id,device_type_name,configuration,metadata,"
    "messages_ttl,messages_rotate,messages_size,connected,last_active",
    PLUGINS: "id,name,enabled,type_id,type_name,priority,validate_message,configuration,metadata,devices_count,error",
    STREAMS: "id,name,enabled,protocol_id,protocol_name,queue_ttl,validate_message,configuration,metadata,"
    "channels_count,devices_count,queue_size,state,error,error_at,next_attempt_at,delivered_at,counters",
    TOKENS: "",
}
"""What ``show`` asks for; empty: what the API gives by itself."""
ACCESS = {0: "standard", 1: "master", 2: "ACL"}


COLUMNS: dict[Kind, Sequence[Column]] = {
    CHANNELS: (
        column("id"),
        column("name", shrink=12),
        column("enabled", drop=2),
        column("protocol", "protocol_name", drop=5),
        column("listen", "configuration.listen", drop=1, shrink=20),
        column("unknown ident", "configuration.unknown_ident", drop=4),
        column("keeps", "messages_ttl", drop=3, show=seconds),
        column("connections", "connections_count", drop=6, show=text),
    ),
    DEVICES: (
        column("id"),
        column("name", drop=1, shrink=12),
        column("ident", "configuration.ident"),
        column("type", "device_type_name", drop=5),
        column("enabled", drop=3),
        column("connected", drop=2),
        column("last active", "last_active", drop=4, show=ago),
        column("keeps", "messages_ttl", drop=6, show=seconds),
        column("at most", "messages_rotate", drop=7, show=lambda value: size(value) if value else ""),
    ),
    PLUGINS: (
        column("id"),
        column("name", shrink=12),
        column("type", "type_name"),
        column("enabled", drop=2),
        column("priority", drop=3, show=text),
        column("for messages with", "validate_message", drop=5, shrink=20),
        column("devices", "devices_count", drop=4, show=text),
        column("error", drop=1, shrink=30, is_told=True),
    ),
    STREAMS: (
        column("id"),
        column("name", shrink=12),
        column("type", "protocol_name"),
        column("enabled", drop=4),
        column("state", drop=1),
        column("waiting", "queue_size", drop=3, show=text),
        column("channels", "channels_count", drop=5, show=text),
        column("devices", "devices_count", drop=6, show=text),
        column("keeps", "queue_ttl", drop=7, show=seconds),
        column("error", drop=2, shrink=30, is_told=True),
    ),
    TOKENS: (
        column("id"),
        column("info", shrink=12),
        column("enabled", drop=2),
        column("access", "access.type", drop=1, show=lambda value: ACCESS.get(value, text(value))),
        column("ttl", drop=4, show=lambda value: seconds(value) if value else ""),
        Column("expires in", lambda item: _expires(item), drop=3),
        column("last used", "accessed", drop=5, show=ago),
    ),
}
TYPE_COLUMNS = (column("id"), column("name"), column("title", drop=1), column("protocol", "protocol_name", drop=2))


def _expires(item: Item) -> str:
    expire = item.get("expire")
    if not isinstance(expire, int | float) or not expire:
        return ""
    return seconds(expire - time.time()) if expire > time.time() else "expired"


def run_list(client: Client, options: Namespace, output: Output) -> list[str]:
    """``KIND list [SELECTOR]``."""
    kind = KINDS[options.kind]
    fields = options.fields or LISTED[kind]
    answer = client.get(*kind.path, selector(kind, options.selector), fields=fields)
    columns = (
        [column(name, drop=place, shrink=20) for place, name in enumerate(fields.split(","))]
        if options.fields
        else COLUMNS[kind]
    )
    output.items(answer.result, columns, f"no {kind.name}", is_chosen=bool(options.fields))
    return answer.failures


def run_show(client: Client, options: Namespace, output: Output) -> list[str]:
    """``KIND show SELECTOR``: all fields."""
    kind = KINDS[options.kind]
    answer = client.get(*kind.path, ids(client, kind, options.selector), fields=SHOWN[kind])
    if not answer.result:
        raise AdminError(f"no {kind.singular} is {options.selector!r}")
    output.details(answer.result)
    return answer.failures


def run_create(client: Client, options: Namespace, output: Output) -> list[str]:
    """``KIND create FIELD=VALUE ...``."""
    kind = KINDS[options.kind]
    body = assigned(options.values, ALIASES[kind])
    if kind is CHANNELS and not {"protocol_name", "protocol_id"} & body.keys():
        body["protocol_name"] = "teltonika"
    if kind is DEVICES:
        body.setdefault("configuration", {})  # so that it is the ident which is missing, where it is
    _name_type(client, body)
    _name_access(body, is_new=True)
    answer = client.send("POST", *kind.path, body=[body])
    output.details(answer.result)
    if kind is TOKENS and not output.is_json:
        output.note("keep the key: it cannot be shown again")
    return answer.failures


def run_set(client: Client, options: Namespace, output: Output) -> list[str]:
    """``KIND set SELECTOR FIELD=VALUE ...``; of objects, only the given parts are changed."""
    kind = KINDS[options.kind]
    body = assigned(options.values, ALIASES[kind])
    _name_type(client, body)
    _name_access(body, is_new=False)
    answer = client.send("PATCH", *kind.path, ids(client, kind, options.selector), body=body)
    if not answer.result:
        raise AdminError(f"no {kind.singular} is {options.selector!r}")
    output.details(answer.result)
    return answer.failures


def _name_type(client: Client, body: dict[str, Any]) -> None:
    """A device type by its name: ``type=FMC130``."""
    given = body.get("device_type_id")
    if not isinstance(given, str):
        return
    found = client.get(*TYPES, f"name={given.lower()}", fields="id").result
    if not found:
        raise AdminError(f"there is no device type {given!r}: see types, such as types {given[:3]}")
    body["device_type_id"] = found[0]["id"]


def _name_access(body: dict[str, Any], *, is_new: bool) -> None:
    """``access=master``; an ACL is given as JSON, and goes when the access is another one."""
    number = next((number for number, word in ACCESS.items() if word == body.get("access")), None)
    if number is not None:
        body["access"] = {"type": number} if is_new else {"type": number, "acl": None}


def run_delete(client: Client, options: Namespace, output: Output) -> list[str]:
    """``KIND delete SELECTOR``, after a question."""
    kind = KINDS[options.kind]
    found = chosen(client, kind, options.selector)
    if not options.yes:
        _ask(kind, found, output)
    answer = client.send("DELETE", *kind.path, ",".join(str(item["id"]) for item in found))
    output.items(answer.result, [column("id")], "nothing was deleted") if output.is_json else output.note(
        f"deleted {len(answer.result)} of {len(found)}" if answer.failures else f"deleted {len(found)}"
    )
    return answer.failures


def _ask(kind: Kind, found: Sequence[Item], output: Output) -> None:
    named = ", ".join(f"{item['id']} ({item.get(kind.known_by[0]) or '-'})" for item in found[:10])
    more = f" and {len(found) - 10} more" if len(found) > 10 else ""
    if not sys.stdin.isatty():
        raise AdminError(f"this would delete {kind.name} {named}{more}: add --yes")
    output.note(printable(f"{kind.name}: {named}{more}"))
    print(
        f"delete {len(found)} {kind.name if len(found) > 1 else kind.singular}? [y/N] ",
        end="",
        file=sys.stderr,
        flush=True,
    )
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise AdminError("nothing was deleted")


def run_types(client: Client, options: Namespace, output: Output) -> list[str]:
    """``types [TEXT]``: those with the text in their name or title."""
    answer = client.get(*TYPES, "all", fields="id,name,title,protocol_name")
    wanted = options.text.lower()
    found = [
        item for item in answer.result if any(wanted in str(item.get(name, "")).lower() for name in ("name", "title"))
    ]
    output.items(found, TYPE_COLUMNS, f"no device type has {options.text!r} in its name")
    return answer.failures
