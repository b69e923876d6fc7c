"""Which items people mean: by id or any selector of the API, or just by what they know, a name or an ident."""

from __future__ import annotations

import json
import re

from attrs import frozen

from gateway.admin.client import AdminError, Client, Item

ID_DIGITS = 9
"""A longer number is an ident: ids count up from 1."""
IDS_MOST = 500
"""More would make too long a path."""


@frozen
class Kind:
    """A kind of items: the path of its noun, and the fields by which people know an item."""

    name: str
    path: tuple[str, ...]
    known_by: tuple[str, ...]

    @property
    def singular(self) -> str:
        """One of them."""
        return self.name.removesuffix("s")


CHANNELS = Kind("channels", ("gw", "channels"), ("name",))
DEVICES = Kind("devices", ("gw", "devices"), ("name", "configuration.ident"))
PLUGINS = Kind("plugins", ("gw", "plugins"), ("name",))
STREAMS = Kind("streams", ("gw", "streams"), ("name",))
TOKENS = Kind("tokens", ("platform", "tokens"), ("info",))
KINDS = {kind.name: kind for kind in (CHANNELS, DEVICES, PLUGINS, STREAMS, TOKENS)}


def selector(kind: Kind, text: str) -> str:
    """As the API wants it. ``text`` is one of its selectors, or a name, an ident, or a mask (``*``, ``?``) of them."""
    text = text.strip()
    if text == "all" or text.startswith("{") or re.match(r"[a-z_][\w.]*=", text):
        return text
    if re.fullmatch(rf"\d{{1,{ID_DIGITS}}}(,\s*\d{{1,{ID_DIGITS}}})*", text, re.ASCII):
        return text
    sign = "~" if "*" in text or "?" in text else "=="
    return "{" + " || ".join(f"{field} {sign} {json.dumps(text)}" for field in kind.known_by) + "}"


def chosen(client: Client, kind: Kind, text: str) -> list[Item]:
    """The items with their ids and what people know them by; one at least. Raises AdminError."""
    found = client.get(*kind.path, selector(kind, text), fields=",".join(["id", *kind.known_by]))
    if found.failures:
        raise AdminError("\n".join(found.failures))
    if not found.result:
        raise AdminError(f"no {kind.singular} is {text!r}: {_example(kind)}")
    return found.result


def ids(client: Client, kind: Kind, text: str) -> str:
    """A selector of the items that ``text`` means, which exist. Raises AdminError."""
    as_selector = selector(kind, text)
    if not as_selector.startswith("{") or text.startswith("{"):
        return as_selector
    found = chosen(client, kind, text)
    return ",".join(str(item["id"]) for item in found) if len(found) <= IDS_MOST else as_selector


def _example(kind: Kind) -> str:
    names = " or ".join(field.rpartition(".")[2] for field in kind.known_by)
    return f"it should be an id, {names}, or a selector such as all; see {kind.name} list"
