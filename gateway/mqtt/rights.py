"""What a token may do on the embedded broker.

Topics below the gateway's prefix follow the rights on the API (flespi's article on complex tokens): who may GET the
messages of a device gets them over MQTT as well. A wildcard may cover more than a token may read: such a subscription
is accepted if there is anything in it, and each message is looked at when it is delivered. Other topics belong to the
clients; a token with an ACL needs entries with the uri ``mqtt`` for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from weakref import WeakKeyDictionary

from attrs import define

from gateway.store.access import ACL, Access, Submodule
from gateway.store.event_codes import DESCRIPTIONS, EventCode
from gateway.store.tokens import Token, Tokens

REMEMBERED_MOST = 10_000
"""Topics whose right is known without a look; then all are forgotten."""

GET = "GET"
SECTIONS = {"message": "messages", "log": "logs"}
"""First level of a topic -> what the API calls it. Below ``state`` stand an item's properties, and its other parts."""
LINKING = ("plugins", "streams")
"""Below their state stand devices and channels, which are shown to who may see both."""
ABOUT_OTHERS = {
    DESCRIPTIONS[code][0]: "channels" if "CHANNEL" in code.name else "devices"
    for code in EventCode
    if code.name.startswith(("PLUGIN_", "DEVICE_SUB", "DEVICE_UNSUB", "CHANNEL_SUB", "CHANNEL_UNSUB"))
}
"""Entries of their logs that are about any of these; the topic does not say which, so they are for who may see all."""
ITEM_ITSELF: tuple[tuple[str, None, list[str]], ...] = (("state", None, []), ("state", None, ["+"]))


def overlap(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether some topic matches both filters (MQTT 3.1.1, 4.7.1), each as its levels."""
    for mine, yours in zip(one, other, strict=False):
        if "#" in (mine, yours):
            return True
        if mine != yours and "+" not in (mine, yours):
            return False
    longer, length = (one, len(other)) if len(one) > len(other) else (other, len(one))
    return len(longer) == length or longer[length] == "#"


class TopicRights:
    """The rights of one token, by topic."""

    def __init__(self, access: Access, prefix: str) -> None:
        self._access = access
        self._prefix = prefix.split("/")
        self._below = prefix + "/"
        self._may_publish = [text.split("/") for text in access.topic_filters("publish")]
        self._may_subscribe = [text.split("/") for text in access.topic_filters("subscribe")]
        self._remembered: dict[str, bool] = {}
        self.receives_all = access.is_master
        """Nothing needs to be looked at."""

    def is_own(self, topic: str) -> bool:
        """Whether the topic is the gateway's."""
        return topic.startswith(self._below)

    def may_publish(self, topic: str) -> bool:
        """What is below the prefix is the gateway's alone, whatever the token."""
        return not self.is_own(topic) and _matches_any(topic.split("/"), self._may_publish)

    def may_receive(self, topic: str) -> bool:
        """Whether a message on ``topic`` may be delivered."""
        if self.receives_all:
            return True
        known = self._remembered.get(topic)
        if known is None:
            if len(self._remembered) >= REMEMBERED_MOST:
                self._remembered.clear()
            known = self._remembered[topic] = self._look_at(topic)
        return known

    def _look_at(self, topic: str) -> bool:
        if not self.is_own(topic):
            return _matches_any(topic.split("/"), self._may_subscribe)
        levels = topic.split("/")[len(self._prefix) :]
        if len(levels) < 4 or levels[1] != "gw":
            return False
        section, _, kind, item_id, *rest = levels
        if not _is_among(item_id, self._access.ids(GET, f"gw/{kind}", _submodule(section, rest))):
            return False
        return kind not in LINKING or self._may_see_others(section, rest)

    def _may_see_others(self, section: str, rest: Sequence[str]) -> bool:
        """The devices and channels that a topic of a plugin or a stream tells of."""
        if section == "state" and len(rest) > 1:
            return _is_among(rest[1], self._access.ids(GET, f"gw/{rest[0]}"))
        of = ABOUT_OTHERS.get(rest[0]) if section == "log" and rest else None
        return of is None or self._access.ids(GET, f"gw/{of}") is None

    def may_subscribe(self, topic_filter: str) -> bool:
        """Whether anything that matches the filter may be delivered."""
        if self.receives_all:
            return True
        levels = topic_filter.split("/")
        is_below = levels[: len(self._prefix)] == self._prefix and levels != self._prefix
        if not is_below and _matches_any(levels, self._may_subscribe):
            return True
        if is_below and not {"+", "#"} & set(levels):
            return self.may_receive(topic_filter)
        return any(self._covers(levels, pattern, ids) for pattern, ids in self._own_patterns())

    def _covers(self, levels: list[str], pattern: list[str], ids: frozenset[int] | None) -> bool:
        if not overlap(levels, pattern):
            return False
        at = len(self._prefix) + 3
        named = levels[at] if len(levels) > at and "#" not in levels[:at] else "+"
        return ids is None or named in ("+", "#") or (named.isdecimal() and int(named[:20]) in ids)

    def _own_patterns(self) -> Iterator[tuple[list[str], frozenset[int] | None]]:
        """Filters for all that may be read below the prefix, with the ids that may stand at the first ``+``."""
        if self._access.rules.type != ACL:
            yield [*self._prefix, "+", "gw", "#"], None
        for entry in self._access.rules.acl:
            kind = entry.uri.partition("/")[2]
            for section, submodule, rest in (*ITEM_ITSELF, *_parts(entry.submodules)):
                ids = self._access.ids(GET, entry.uri, submodule)
                if ids != frozenset():
                    yield [*self._prefix, section, "gw", kind, "+", *rest], ids


def _parts(submodules: Sequence[Submodule]) -> Iterator[tuple[str, str, list[str]]]:
    """Where the parts of an item stand: section, submodule, the levels after the id."""
    for part in submodules:
        section = next((section for section, name in SECTIONS.items() if name == part.name), "state")
        yield section, part.name, ["#"] if section in SECTIONS else [part.name, "#"]


def _is_among(item_id: str, ids: frozenset[int] | None) -> bool:
    """``ids`` None: all."""
    return ids is None or (item_id.isdecimal() and int(item_id[:20]) in ids)


def _submodule(section: str, rest: Sequence[str]) -> str | None:
    """The part of an item that a topic shows; ``rest`` are the levels after the item's id."""
    if section == "state":
        return rest[0] if len(rest) > 1 else None
    return SECTIONS.get(section, section)


def _matches_any(levels: Sequence[str], filters: Sequence[Sequence[str]]) -> bool:
    return any(overlap(levels, one) for one in filters)


@define(eq=False)
class Admission:
    """Who a client is; :meth:`TokenDoor.renew` keeps it up to date."""

    token: Token
    address: str
    rights: TopicRights

    @property
    def is_master(self) -> bool:
        """Whether the token may do everything."""
        return self.token.access.is_master


class TokenDoor:
    """Tells the broker who may come in."""

    def __init__(self, tokens: Tokens, prefix: str, clock: Callable[[], float] = time.time) -> None:
        self._tokens = tokens
        self._prefix = prefix
        self._clock = clock
        self._rights: WeakKeyDictionary[Token, TopicRights] = WeakKeyDictionary()

    def admit(self, key: str, address: str) -> Admission | None:
        """Whose key it is; None: nobody's who may come from there."""
        token = self._tokens.authenticate(key, self._clock(), address)
        return Admission(token, address, self._rights_of(token)) if token is not None else None

    def renew(self, admission: Admission, *, is_connected: bool) -> bool:
        """Whether it is still good. A connection keeps a token in use, so that its ``ttl`` begins anew."""
        now = self._clock()
        token = self._tokens.get(admission.token.id)
        if token is None or not token.is_valid(now) or not token.is_for(admission.address):
            return False
        if token is not admission.token:
            if token.access != admission.token.access:
                admission.rights = self._rights_of(token)
            admission.token = token
        if is_connected:
            self._tokens.touch(token, now)
        return True

    def _rights_of(self, token: Token) -> TopicRights:
        """All clients of a token share them, and what they remember."""
        rights = self._rights.get(token)
        if rights is None:
            rights = self._rights[token] = TopicRights(token.access, self._prefix)
        return rights
