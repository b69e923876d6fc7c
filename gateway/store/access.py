"""What a token may do: flespi's access levels and access control lists (its article on complex tokens). Pure.

What an ACL does not name is forbidden. An entry names an API noun (``gw/devices``), the methods on the items
themselves, and the methods on each part of an item (its ``submodules``: messages, telemetry, logs, ...); ``ids``
narrows all of it. MQTT topics that are not the gateway's own are named by entries with the uri ``mqtt``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

import msgspec
from attrs import field, frozen
from msgspec import Meta, Struct

from gateway.errors import PeerError

STANDARD: Literal[0] = 0
MASTER: Literal[1] = 1
ACL: Literal[2] = 2
"""``access.type``."""

ENTRIES_MOST = 100
SUBMODULES_MOST = 50
IDS_MOST = 10_000
TOPIC_MOST = 1024
"""Characters."""

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
ItemId = Annotated[int, Meta(ge=1, le=2**53)]
Key = tuple[str, str, str | None]
"""Method, uri, submodule."""


class AccessError(PeerError):
    """Rights that are not of the form that they should be; the message names the field."""


class Submodule(Struct, forbid_unknown_fields=True, frozen=True):
    """A part of an item, such as the messages of a device."""

    name: Annotated[str, Meta(pattern=r"^[a-z][a-z-]{0,63}$")]
    methods: Annotated[list[Method], Meta(max_length=10)]


class Entry(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """One line of an ACL. ``topic`` and ``actions`` only with the uri ``mqtt``."""

    uri: Annotated[str, Meta(pattern=r"^((gw|storage|mqtt)/[a-z][a-z-]{0,63}|mqtt)$")]
    methods: Annotated[list[Method], Meta(max_length=10)] = []
    ids: Annotated[list[ItemId], Meta(max_length=IDS_MOST)] | Literal["all"] = "all"
    submodules: Annotated[list[Submodule], Meta(max_length=SUBMODULES_MOST)] = []
    topic: Annotated[str, Meta(min_length=1, max_length=TOPIC_MOST)] = "#"
    actions: Annotated[list[Literal["publish", "subscribe"]], Meta(max_length=10)] = []

    def __post_init__(self) -> None:
        if self.uri != "mqtt" and (self.topic != "#" or self.actions):
            raise ValueError(f"topic and actions belong to the uri mqtt, not to {self.uri}")


class Rules(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """``access`` of a token, as JSON has it."""

    type: Literal[0, 1, 2] = STANDARD
    acl: Annotated[list[Entry], Meta(max_length=ENTRIES_MOST)] = []

    def __post_init__(self) -> None:
        if self.acl and self.type != ACL:
            raise ValueError(f"acl: only with type {ACL}, not with type {self.type}")
        if self.number_of_ids > IDS_MOST:
            raise ValueError(f"acl: {self.number_of_ids} ids in all; {IDS_MOST} are possible")

    @property
    def number_of_ids(self) -> int:
        """Of all entries together."""
        return sum(len(entry.ids) for entry in self.acl if entry.ids != "all")


def _grants(entries: Iterable[Entry]) -> dict[Key, frozenset[int] | None]:
    """Each right of an ACL with the ids that it holds for; None: all."""
    grants: dict[Key, frozenset[int] | None] = {}
    for entry in entries:
        ids = None if entry.ids == "all" else frozenset(entry.ids)
        for key in _keys(entry):
            known = grants.get(key, frozenset())
            grants[key] = None if known is None or ids is None else known | ids if known else ids
    return grants


def _keys(entry: Entry) -> Iterator[Key]:
    yield from ((method, entry.uri, None) for method in _implied(entry.methods))
    for submodule in entry.submodules:
        yield from ((method, entry.uri, submodule.name) for method in _implied(submodule.methods))


def _implied(methods: Iterable[str]) -> set[str]:
    """flespi's lists know no PATCH: who may replace a field may also change a part of it."""
    return {*methods, "PATCH"} if "PUT" in methods else set(methods)


@frozen
class Access:
    """The rights of one token."""

    rules: Rules = field(factory=Rules)
    _granted: dict[Key, frozenset[int] | None] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_granted", _grants(self.rules.acl))

    @classmethod
    def from_json(cls, value: Any) -> Access:
        """From decoded JSON: ``{"type": 2, "acl": [...]}``. Raises AccessError."""
        try:
            return cls(msgspec.convert(value, Rules))
        except msgspec.ValidationError as error:
            raise AccessError(f"access: {error}") from None

    @property
    def is_master(self) -> bool:
        """Whether nothing is forbidden."""
        return self.rules.type == MASTER

    def permits(self, method: str, uri: str, submodule: str | None = None) -> bool:
        """Whether the operation is possible, if perhaps not for every item."""
        return self.ids(method, uri, submodule) != frozenset()

    def ids(self, method: str, uri: str, submodule: str | None = None) -> frozenset[int] | None:
        """The items that the operation is possible for; None: all of them."""
        if self.is_master or (uri.partition("/")[0] == "auth" and method == "GET"):
            return None
        if self.rules.type == ACL:
            return self._granted.get((method, uri, submodule), frozenset())
        return frozenset() if uri.partition("/")[0] not in ("gw", "storage", "mqtt") else None

    def may_create(self, uri: str) -> bool:
        """Whether items of a kind can be made: not by who is limited to ids, for they could not even see them."""
        return self.ids("POST", uri) is None

    def topic_filters(self, action: str) -> list[str]:
        """The topics outside the gateway's own that may be published to or subscribed to (``action``)."""
        if self.rules.type != ACL:
            return ["#"]
        return [entry.topic for entry in self.rules.acl if entry.uri == "mqtt" and action in entry.actions]


MASTER_ACCESS = Access(Rules(type=MASTER))
