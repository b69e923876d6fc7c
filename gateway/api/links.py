"""What plugins and streams are linked with: ``/gw/plugins/{sel}/devices/{sel}`` and the like.

Whoever links a device or a channel needs a right to the plugin or stream, and must see the device or channel: with a
stream its messages could be had, otherwise, by who may not read them. The others are as if they were not there.

A link is shown with the fields of what it leads to, and some of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from attrs import define, field

from gateway.api import channel_fields, device_fields
from gateway.api.answers import Answer
from gateway.api.call import Call
from gateway.api.errors import ApiError
from gateway.api.fields import FieldTable
from gateway.api.items import Json, listed, one_by_one, views
from gateway.api.others import Noun
from gateway.api.selectors import select
from gateway.store.links import Link

LINKS_MOST = 100_000
"""That one call may make: plugins or streams times devices or channels."""
AT_ONCE = 500
"""Links that are put together at once, a millisecond; others have their turn while Redis stores them."""


def linked_table(of: FieldTable, items: Mapping[int, Any], id_of: Callable[[Link], int]) -> dict[str, Any]:
    """The readers of ``of`` for links: ``id_of`` says which of ``items`` a link is shown as.

    Of an item that is deleted meanwhile, what its link said is left.
    """

    def lifted(read: Callable[[Any], Any]) -> Callable[[Link], Any]:
        def read_link(link: Link) -> Any:
            item = items.get(id_of(link))
            return read(item) if item is not None else None

        return read_link

    return {**{name: lifted(read) for name, read in of.readers.items()}, "id": id_of}


@define(slots=False)
class Ends:
    """The links from the plugins or streams (``noun``) of a path to its devices or channels (``to``)."""

    call: Call
    noun: Noun
    to: str
    errors: list[ApiError] = field(factory=list)

    @property
    def _items(self) -> dict[int, Any]:
        items: dict[int, Any] = self.call.parts.items.of(self.to)
        return items

    @property
    def _one(self) -> str:
        """``plugin``, ``stream``: what its fields in a link are called by."""
        return self.noun.kind.removesuffix("s")

    @cached_property
    def _visible(self) -> frozenset[int] | None:
        """The devices or channels that the token may see."""
        return self.call.access.ids("GET", f"gw/{self.to}")

    @cached_property
    def _of_item(self) -> FieldTable:
        parts = self.call.parts
        if self.to == "devices":
            return device_fields.local_table(parts, None)
        return channel_fields.local_table(parts, None)

    @cached_property
    def table(self) -> FieldTable:
        """The fields of a link."""
        others = self.call.parts.items.of(self.noun.kind)
        readers = {
            **linked_table(self._of_item, self._items, lambda link: link.to_id),
            f"{self._one}_id": lambda link: link.id,
            f"{self._one}_name": lambda link: others[link.id].name if link.id in others else None,
            "created": lambda link: link.at,
        }
        default = ["id", f"{self._one}_id", "name"]
        if self.noun.kind == "plugins":
            readers["fields"] = lambda link: link.fields
            default.append("fields")
        return FieldTable(readers, default)

    @property
    def _legacy(self) -> Mapping[str, str]:
        return device_fields.LEGACY if self.to == "devices" else {}

    async def found(self) -> list[Link]:
        """Those that there are and the path means. Raises ApiError."""
        others, self.errors = await self.noun.select(self.call)
        links, found, missing = self.call.parts.items.links, [], None
        for one in others:
            chosen, errors = await select(
                self.call.path[self.to], links.of(self.noun.kind, one.id, self.to), self.table, self._visible,
                turn=self.call.parts.turn, legacy=self._legacy,
            )  # fmt: skip
            found += chosen
            ids = [error.details["id"] for error in errors]
            missing = ids if missing is None else [id for id in missing if id in ids]
        self.errors += [ApiError.denied(id) for id in missing or ()]
        return found

    async def wanted(self) -> tuple[list[Any], list[Any]]:
        """What the path means, be it linked or not: plugins or streams, and devices or channels. Raises ApiError."""
        others, self.errors = await self.noun.select(self.call)
        items, errors = await select(
            self.call.path[self.to], self._items, self._of_item, self._visible,
            turn=self.call.parts.turn, legacy=self._legacy,
        )  # fmt: skip
        self.errors += errors
        if len(others) * len(items) > LINKS_MOST:
            reason = f"this would be {len(others) * len(items)} links; {LINKS_MOST} are possible in one call"
            raise ApiError.bad_request(reason)
        return others, items

    async def _load(self, links: Sequence[Link], names: Sequence[str]) -> FieldTable:
        return self.table

    async def listed(self) -> Answer:
        """GET."""
        names = self.table.chosen(self.call.query.fields)
        return await listed(self.call, await self.found(), self.errors, names, self._load)

    async def made(self, fields: Json | None) -> Answer:
        """POST: link; a link that there is already keeps its fields, unless others are given."""
        names = self.table.chosen(self.call.query.fields)
        others, items = await self.wanted()
        jobs = (({"id": one.id}, lambda id=one.id: self._link(id, items, fields)) for one in others)
        return await self._done(jobs, names)

    async def _link(self, id: int, items: Sequence[Any], fields: Json | None) -> list[Link]:
        links, made = self.call.parts.items.links, []
        for start in range(0, len(items), AT_ONCE):
            some = [Link(self.noun.kind, id, self.to, item.id, fields or {}) for item in items[start : start + AT_ONCE]]
            made += await links.put(some, keeps_fields=fields is None)
        return made

    async def changed(self, change: Callable[[Link], Link]) -> Answer:
        """PUT and PATCH."""
        names = self.table.chosen(self.call.query.fields)
        links = self.call.parts.items.links
        jobs = [
            ({"id": some[0].id}, lambda some=some: links.change(some, change)) for some in _by_id(await self.found())
        ]
        return await self._done(jobs, names)

    async def removed(self) -> Answer:
        """DELETE."""
        names = self.table.chosen(self.call.query.fields)
        links = self.call.parts.items.links
        jobs = [({"id": some[0].id}, lambda some=some: links.remove(some)) for some in _by_id(await self.found())]
        return await self._done(jobs, names)

    async def _done(self, jobs: Iterable[Any], names: list[str]) -> Answer:
        done, errors = await one_by_one(jobs)
        links = [link for some in done for link in some]
        return Answer(await views(links, names, self._load), [*self.errors, *errors])


def _by_id(links: Sequence[Link]) -> list[list[Link]]:
    """Those of each plugin or stream."""
    found: dict[int, list[Link]] = {}
    for link in links:
        found.setdefault(link.id, []).append(link)
    return list(found.values())
