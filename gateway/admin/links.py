"""What plugins and streams are linked with, and what they can be."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from gateway.admin.client import AdminError, Answer, Client, Item
from gateway.admin.output import Output, column, compact, text, when
from gateway.admin.selectors import KINDS, Kind, ids
from gateway.admin.values import assigned

TYPES = {"plugins": ("gw", "plugin-types"), "streams": ("gw", "stream-protocols")}
OPTIONS = (
    column("option"),
    column("type", drop=2, shrink=12),
    column("default", drop=1, shrink=12),
    column("meaning", shrink=30, is_folded=True),
)


def _ends(client: Client, options: Namespace) -> tuple[Kind, tuple[str, ...]]:
    """The kind of what is linked, and the path of its links."""
    kind, to = KINDS[f"{options.kind}s"], KINDS[f"{options.to}s"]
    if kind.name == "plugins" and to.name == "channels":
        raise AdminError("plugins work on the messages of devices: link plugin NAME device SELECTOR")
    return kind, (*kind.path, ids(client, kind, options.selector), to.name)


def run_link(client: Client, options: Namespace, output: Output) -> list[str]:
    """``link plugin|stream SELECTOR device|channel SELECTOR [FIELD=VALUE ...]``."""
    kind, path = _ends(client, options)
    if options.values and kind.name != "plugins":
        raise AdminError("only plugins have fields for a device")
    body = {"fields": assigned(options.values, {})} if options.values else {}
    answer = client.send("POST", *path, ids(client, KINDS[f"{options.to}s"], options.to_selector), body=body)
    _show(answer, kind, output, "nothing was linked")
    return answer.failures


def run_unlink(client: Client, options: Namespace, output: Output) -> list[str]:
    """``unlink plugin|stream SELECTOR device|channel SELECTOR``."""
    kind, path = _ends(client, options)
    answer = client.send("DELETE", *path, ids(client, KINDS[f"{options.to}s"], options.to_selector))
    _show(answer, kind, output, "nothing was unlinked")
    return answer.failures


def run_links(client: Client, options: Namespace, output: Output) -> list[str]:
    """``links plugin|stream SELECTOR device|channel [SELECTOR]``."""
    kind, path = _ends(client, options)
    one = kind.singular
    fields = f"id,name,{one}_id,{one}_name,created" + (",fields" if kind.name == "plugins" else "")
    answer = client.get(*path, ids(client, KINDS[f"{options.to}s"], options.to_selector), fields=fields)
    _show(answer, kind, output, "nothing is linked")
    return answer.failures


def _show(answer: Answer, kind: Kind, output: Output, nothing: str) -> None:
    one = kind.singular
    columns = (
        column(one, f"{one}_id"),
        column(f"{one} name", f"{one}_name", drop=3, shrink=12),
        column("id"),
        column("name", drop=1, shrink=12),
        column("fields", drop=2, shrink=20, show=lambda value: compact(value) if value else ""),
        column("since", "created", drop=4, show=when),
    )
    output.items(answer.result, columns, nothing)


def run_types(client: Client, options: Namespace, output: Output) -> list[str]:
    """``plugins|streams types [TYPE]``."""
    path = TYPES[options.kind]
    if not options.name:
        fields = "id,name,title,error" if options.kind == "streams" else "id,name,title"
        answer = client.get(*path, "all", fields=fields)
        columns = (column("id"), column("name"), column("title", shrink=30), column("error", shrink=30))
        output.items(answer.result, columns, "there is none")
        return answer.failures
    more = ",error" if options.kind == "streams" else ""
    answer = client.get(*path, f"name={options.name}", fields=f"name,description,schema{more}")
    if not answer.result:
        raise AdminError(f"there is no type {options.name!r}: see {options.kind} types")
    found = answer.result[0]
    if output.is_json:
        output.items([found], [column("name")], "")
        return answer.failures
    if found.get("error"):
        raise AdminError(f"{options.name} cannot be used: {found['error']}")
    output.note(found["description"].replace("``", "`") + "\n")
    output.items(_options(found.get("schema") or {}), OPTIONS, "it has no options")
    return answer.failures


def _options(schema: Item) -> list[Item]:
    """The options that a JSON schema describes."""
    inside = _resolved(schema, schema)
    needed = inside.get("required", [])
    return [
        {
            "option": name,
            "type": _type_name(_resolved(value, schema)),
            "default": "(needed)" if name in needed else text(value.get("default")),
            "meaning": value.get("description", ""),
        }
        for name, value in inside.get("properties", {}).items()
    ]


def _resolved(value: Item, schema: Item) -> Item:
    """What a reference leads to."""
    reference = str(value.get("$ref", ""))
    found: Any = schema.get("$defs", {}).get(reference.rpartition("/")[2]) if reference else None
    return found if isinstance(found, dict) else value


def _type_name(value: Item) -> str:
    if "enum" in value:
        return ", ".join(text(one) for one in value["enum"])
    if "anyOf" in value:
        return " or ".join(_type_name(one) for one in value["anyOf"])
    return str(value.get("type") or "object")  # what a reference leads to is one
