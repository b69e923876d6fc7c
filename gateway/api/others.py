"""What the nouns of plugins and streams have in common: which items a path means, and how they are changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from attrs import evolve, frozen

from gateway.api.answers import Answer
from gateway.api.call import Call
from gateway.api.errors import ApiError
from gateway.api.fields import FieldTable
from gateway.api.items import Json, created_access, listed, merged, one_by_one, views
from gateway.api.selectors import select
from gateway.store.item import Plugin, Stream

Other: TypeAlias = Plugin | Stream
OBJECTS = ("configuration", "metadata")
Change = Callable[[Any], Any]


@frozen
class Noun:
    """``kind``: plugins or streams. ``table`` has the fields without what Redis must be asked for, for selectors;
    ``load`` has all of them, as far as some names need them of some items."""

    kind: str
    table: Callable[[Call], FieldTable]
    load: Callable[[Call, Sequence[Any], Sequence[str]], Awaitable[FieldTable]]

    @property
    def uri(self) -> str:
        """In a token's rights."""
        return f"gw/{self.kind}"

    async def names(self, call: Call) -> list[str]:
        """The fields that are asked for, checked. Raises ApiError."""
        return (await self.load(call, (), ())).chosen(call.query.fields)

    async def select(self, call: Call) -> tuple[list[Any], list[ApiError]]:
        """Those that the path means and the token may reach. Raises ApiError."""
        items, permitted = call.parts.items.of(self.kind), call.permitted_ids()
        return await select(call.path[self.kind], items, self.table(call), permitted, turn=call.parts.turn)

    async def views(self, call: Call, items: Sequence[Any], names: list[str]) -> list[Json]:
        """These fields of each."""
        return await views(items, names, lambda some, wanted: self.load(call, some, wanted))

    async def list(self, call: Call) -> Answer:
        """GET."""
        names = await self.names(call)
        items, errors = await self.select(call)
        return await listed(call, items, errors, names, lambda some, wanted: self.load(call, some, wanted))

    async def create(self, call: Call, create: Callable[[Any], Awaitable[Any]]) -> Answer:
        """POST: ``create`` makes an item of an entry."""
        created_access(call, self.uri)
        names = await self.names(call)
        jobs = (({"index": entry.index}, lambda new=entry.value: create(new)) for entry in call.entries)
        made, errors = await one_by_one(jobs)
        return Answer(await self.views(call, made, names), errors)

    async def change(self, call: Call, store: Callable[[int, Change], Awaitable[Any]], change: Change) -> Answer:
        """PUT and PATCH: ``store`` stores what ``change`` makes of an item."""
        names = await self.names(call)
        items, errors = await self.select(call)
        jobs = (({"id": one.id}, lambda id=one.id: store(id, change)) for one in items)
        changed, more = await one_by_one(jobs)
        return Answer(await self.views(call, changed, names), [*errors, *more])

    async def delete(self, call: Call) -> Answer:
        """DELETE."""
        names = await self.names(call)
        items, errors = await self.select(call)
        before = {item.id: view for item, view in zip(items, await self.views(call, items, names), strict=True)}
        delete = call.parts.items.delete_other
        jobs = (({"id": one.id}, lambda id=one.id: delete(self.kind, id)) for one in items)
        deleted, more = await one_by_one(jobs)
        return Answer([before[item.id] for item in deleted], [*errors, *more])


def replaced(old: Other, values: Json) -> Json:
    """What a PUT makes of ``values``: an object as a whole."""
    return values


def patched(old: Other, values: Json) -> Json:
    """What a PATCH makes of them: objects merged into the old ones."""
    return {**values, **{name: merged(getattr(old, name), values[name]) for name in OBJECTS if name in values}}


def changed(old: Any, values: Json) -> Any:
    """The item with these fields."""
    return evolve(old, **values)
