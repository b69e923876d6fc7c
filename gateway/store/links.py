"""What plugins and streams have to do with devices and channels: on whose messages plugins work, what streams carry.

A link goes from a plugin or a stream to a device or a channel. Plugins have ``fields`` of their own for each device
(flespi's "plugins"); a stream carries what came after ``at``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import orjson
from attrs import evolve, field, frozen
from twisted.logger import Logger

from gateway.errors import ItemError
from gateway.store import keys
from gateway.store.connection import Client, store_errors
from gateway.store.whole import whole

LINKS_AT_ONCE = 500
"""Written in one round trip, some 3 ms."""
LINKS_MOST = 1_000_000
"""Of all plugins and streams together; each takes some 600 bytes of memory, here and in Redis."""
FIELDS_MOST = 8 * 1024
"""Bytes that the fields of a link may take as JSON."""

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
    """The mirror in memory. Each of ``on_change`` is called after a link was made, changed or removed.

    ``exists`` tells whether an item is there, by kind and id. Changes follow one another, so none is lost;
    ``under_way`` are those that have begun.
    """

    log = Logger()

    def __init__(
        self,
        redis: Client,
        exists: Callable[[str, int], bool] = lambda kind, id: True,
        *,
        now: Callable[[], float] = time.time,
        under_way: set[asyncio.Future[Any]] | None = None,
    ) -> None:
        self._redis = redis
        self._exists = exists
        self._now = now
        self._from: dict[tuple[str, int, str], dict[int, Link]] = {}
        self._to: dict[tuple[str, int, str], dict[int, Link]] = {}
        self._lock = asyncio.Lock()
        self._doubtful: set[Place] = set()
        self.under_way: set[asyncio.Future[Any]] = under_way if under_way is not None else set()
        self.on_change: list[OnLink] = []

    async def load(self) -> None:
        """Read everything from Redis, and remove links of items that no longer are. Raises StoreError."""
        with store_errors():
            stored = await self._redis.hgetall(keys.LINKS)
        self._from, self._to = {}, {}
        orphans = []
        for name, text in stored.items():
            kind, id, to, to_id = name.decode().split(":")
            values = orjson.loads(text)
            link = Link(kind, int(id), to, int(to_id), values["fields"], values["at"])
            if self._has_both_ends(link):
                self._keep(link)
            else:
                orphans.append(link.name)
        for start in range(0, len(orphans), LINKS_AT_ONCE):
            with store_errors():
                await self._redis.hdel(keys.LINKS, *orphans[start : start + LINKS_AT_ONCE])

    def __len__(self) -> int:
        return sum(map(len, self._from.values()))

    def __bool__(self) -> bool:
        return True

    def of(self, kind: str, id: int, to: str) -> Mapping[int, Link]:
        """The links of a plugin or a stream, by the id of the device or channel."""
        return self._from.get((kind, id, to), NONE)

    def to(self, to: str, to_id: int, kind: str) -> Mapping[int, Link]:
        """The links to a device or a channel, by the id of the plugin or stream."""
        return self._to.get((to, to_id, kind), NONE)

    @whole
    async def put(self, links: Sequence[Link], *, keeps_fields: bool = False) -> list[Link]:
        """Store new or changed links, as they are stored then: known ones keep their ``at``.

        ``keeps_fields``: they keep their ``fields``, too, as they are then. Raises ItemError where one cannot be
        stored, StoreError; some of them may be stored then.
        """
        return await self._write(links, lambda old, link: old if old is not None and keeps_fields else link)

    @whole
    async def change(self, links: Sequence[Link], change: Callable[[Link], Link]) -> list[Link]:
        """Store what ``change`` makes of each as it is then; those that are gone are left out.

        Raises as :meth:`put`.
        """
        return await self._write(links, lambda old, link: change(old) if old is not None else None)

    @whole
    async def remove(self, links: Sequence[Link]) -> list[Link]:
        """Remove them; those that were there. Raises StoreError."""
        removed = []
        for start in range(0, len(links), LINKS_AT_ONCE):
            async with self._lock:
                part = [old for link in links[start : start + LINKS_AT_ONCE] if (old := self._known(link)) is not None]
                if part:
                    await self._erase(part)
                removed += self._drop(part)
        return removed

    async def mend(self) -> None:
        """Bring Redis in line with the mirror, where it did not say whether it took a change. Raises StoreError."""
        if not self._doubtful:
            return
        async with self._lock:
            for kind, id, to, to_id in list(self._doubtful):
                link = Link(kind, id, to, to_id)
                known = self._known(link)
                await (self._store([known]) if known is not None else self._erase([link]))

    async def _write(self, links: Sequence[Link], make: Callable[[Link | None, Link], Link | None]) -> list[Link]:
        made: list[Link] = []
        for start in range(0, len(links), LINKS_AT_ONCE):
            async with self._lock:
                part = list(self._made(links[start : start + LINKS_AT_ONCE], make))
                self._check_room(part)
                if part:
                    await self._store(part)
                kept = [link for link in part if self._has_both_ends(link)]
                orphans = [link for link in part if not self._has_both_ends(link)]
                for link in kept:
                    self._tell(self._keep(link), link)
                if orphans:  # an item was deleted meanwhile
                    await self._erase(orphans)
                made += kept
        return made

    def _made(self, links: Sequence[Link], make: Callable[[Link | None, Link], Link | None]) -> Iterator[Link]:
        for link in links:
            old = self._known(link)
            new = make(old, link)
            if new is not None and self._has_both_ends(new):
                yield evolve(new, at=old.at if old is not None else self._now())

    def _check_room(self, links: Sequence[Link]) -> None:
        if len(self) + sum(self._known(link) is None for link in links) > LINKS_MOST:
            raise ItemError(f"there would be more than {LINKS_MOST} links of plugins and streams, which is the most")

    async def _store(self, links: Sequence[Link]) -> None:
        texts = {link.name: _encoded(link) for link in links}
        with self._in_doubt(links), store_errors():
            await self._redis.hset(keys.LINKS, mapping=texts)

    async def _erase(self, links: Sequence[Link]) -> None:
        with self._in_doubt(links), store_errors():
            await self._redis.hdel(keys.LINKS, *(link.name for link in links))

    @contextmanager
    def _in_doubt(self, links: Sequence[Link]) -> Iterator[None]:
        """Redis may have taken a change whose answer got lost: see :meth:`mend`."""
        places = [link.place for link in links]
        try:
            yield
        except BaseException:
            self._doubtful.update(places)
            raise
        self._doubtful.difference_update(places)

    def _known(self, link: Link) -> Link | None:
        return self.of(link.kind, link.id, link.to).get(link.to_id)

    def _has_both_ends(self, link: Link) -> bool:
        return self._exists(link.kind, link.id) and self._exists(link.to, link.to_id)

    @contextmanager
    def leaving(self, kind: str, id: int) -> Iterator[list[str]]:
        """While an item is removed from Redis: the fields there of its links, whichever end it is, which go with it."""
        links = self._all_of(kind, id)
        with self._in_doubt(links):
            yield [link.name for link in links]

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

    def _drop(self, links: Iterable[Link]) -> list[Link]:
        """Those that were there: some may have gone with their items meanwhile."""
        dropped = []
        for link in links:
            if self._known(link) is None:
                continue
            for mirror, place, id in (
                (self._from, (link.kind, link.id, link.to), link.to_id),
                (self._to, (link.to, link.to_id, link.kind), link.id),
            ):
                mirror[place].pop(id, None)
                if not mirror[place]:
                    del mirror[place]
            dropped.append(link)
            self._tell(link, None)
        return dropped

    def _tell(self, old: Link | None, new: Link | None) -> None:
        for changed in self.on_change:
            try:
                changed(old, new)
            except Exception:
                self.log.failure("somebody who was told of a change of a link")


def _encoded(link: Link) -> bytes:
    """As it is stored. Raises ItemError."""
    try:
        fields = orjson.dumps(link.fields)
    except TypeError as error:  # as of an item
        raise ItemError(f"fields cannot be stored as JSON: {error}", "fields") from None
    if len(fields) > FIELDS_MOST:
        raise ItemError(f"fields take {len(fields)} bytes as JSON, {FIELDS_MOST} is the most", "fields")
    return orjson.dumps({"fields": orjson.Fragment(fields), "at": link.at})
