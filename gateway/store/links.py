"""What plugins and streams have to do with devices and channels: on whose messages plugins work, what streams carry.

A link goes from a plugin or a stream to a device or a channel. Plugins have ``fields`` of their own for each device
(flespi's "plugins"); a stream carries what came after ``at``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson
from attrs import field, frozen
from twisted.logger import Logger

from gateway.store import keys
from gateway.store.connection import Client, store_errors

LINKS_AT_ONCE = 500
"""Written in one round trip, some 3 ms."""

Place = tuple[str, int, str, int]
"""Kind and id of a plugin or a stream, kind and id of a device or a channel."""
NONE: Mapping[int, Any] = {}


@frozen
class Link:
    """``kind``: plugins or streams; ``to``: devices or channels. ``at``: when it was made, UNIX seconds."""

    kind: str
    id: int
    to: str
    to_id: int
    fields: dict[str, Any] = field(factory=dict)
    at: float = 0.0

    @property
    def place(self) -> Place:
        """What no other link has."""
        return self.kind, self.id, self.to, self.to_id

    @property
    def name(self) -> str:
        """Its field in Redis."""
        return _name(self.place)


OnLink = Callable[[Link | None, Link | None], None]
"""Given the old and the new one: None where there was or is none."""


def _name(place: Place) -> str:
    return ":".join(map(str, place))


class Links:
    """The mirror in memory. Each of ``on_change`` is called after a link was made, changed or removed."""

    log = Logger()

    def __init__(self, redis: Client, *, now: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._now = now
        self._from: dict[tuple[str, int, str], dict[int, Link]] = {}
        self._to: dict[tuple[str, int, str], dict[int, Link]] = {}
        self.on_change: list[OnLink] = []

    async def load(self, exists: Callable[[str, int], bool]) -> None:
        """Read everything from Redis; links of items that no longer are have gone with them. Raises StoreError."""
        with store_errors():
            stored = await self._redis.hgetall(keys.LINKS)
        self._from, self._to = {}, {}
        for name, text in stored.items():
            kind, id, to, to_id = name.decode().split(":")
            values = orjson.loads(text)
            if exists(kind, int(id)) and exists(to, int(to_id)):
                self._keep(Link(kind, int(id), to, int(to_id), values["fields"], values["at"]))

    def of(self, kind: str, id: int, to: str) -> Mapping[int, Link]:
        """The links of a plugin or a stream, by the id of the device or channel."""
        return self._from.get((kind, id, to), NONE)

    def to(self, to: str, to_id: int, kind: str) -> Mapping[int, Link]:
        """The links to a device or a channel, by the id of the plugin or stream."""
        return self._to.get((to, to_id, kind), NONE)

    async def put(self, links: Sequence[Link]) -> list[Link]:
        """Store new or changed links, as they are stored then. Raises StoreError: some of them may be stored."""
        made: list[Link] = []
        for start in range(0, len(links), LINKS_AT_ONCE):
            part = [self._dated(link) for link in links[start : start + LINKS_AT_ONCE]]
            texts = {link.name: orjson.dumps({"fields": link.fields, "at": link.at}) for link in part}
            with store_errors():
                await self._redis.hset(keys.LINKS, mapping=texts)
            for link in part:
                self._tell(self._keep(link), link)
            made += part
        return made

    def _dated(self, link: Link) -> Link:
        known = self.of(link.kind, link.id, link.to).get(link.to_id)
        at = known.at if known is not None else self._now()
        return Link(link.kind, link.id, link.to, link.to_id, link.fields, at)

    async def remove(self, links: Sequence[Link]) -> None:
        """Remove them. Raises StoreError."""
        for start in range(0, len(links), LINKS_AT_ONCE):
            part = links[start : start + LINKS_AT_ONCE]
            with store_errors():
                await self._redis.hdel(keys.LINKS, *(link.name for link in part))
            self._drop(part)

    def names_of(self, kind: str, id: int) -> list[str]:
        """The fields in Redis of all links of an item, whichever end it is."""
        return [link.name for link in self._all_of(kind, id)]

    def forget(self, kind: str, id: int) -> None:
        """The item is deleted, and its links have gone from Redis with it."""
        self._drop(self._all_of(kind, id))

    def _all_of(self, kind: str, id: int) -> list[Link]:
        places = [(self._from, to) for to in ("devices", "channels")] + [
            (self._to, of) for of in ("plugins", "streams")
        ]
        return [link for mirror, other in places for link in mirror.get((kind, id, other), NONE).values()]

    def _keep(self, link: Link) -> Link | None:
        of = self._from.setdefault((link.kind, link.id, link.to), {})
        old = of.get(link.to_id)
        of[link.to_id] = link
        self._to.setdefault((link.to, link.to_id, link.kind), {})[link.id] = link
        return old

    def _drop(self, links: Iterable[Link]) -> None:
        for link in links:
            for mirror, place, id in (
                (self._from, (link.kind, link.id, link.to), link.to_id),
                (self._to, (link.to, link.to_id, link.kind), link.id),
            ):
                mirror[place].pop(id, None)
                if not mirror[place]:
                    del mirror[place]
            self._tell(link, None)

    def _tell(self, old: Link | None, new: Link | None) -> None:
        for changed in self.on_change:
            try:
                changed(old, new)
            except Exception:
                self.log.failure("somebody who was told of a change of a link")
