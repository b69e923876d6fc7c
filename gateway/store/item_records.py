"""Items as Redis keeps them, and what is remembered of deleted ones.

Redis may have taken a change whose answer got lost. The client was told that it failed, so it has failed: the item is
``doubtful`` until :meth:`ItemRecords.mend` has written what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import orjson

from gateway.store import keys
from gateway.store.connection import Client, store_errors
from gateway.store.item import KINDS, Channel, Device, Item, Purge, decoded, decoded_purge, encoded, encoded_purge

T = TypeVar("T", bound=Item)


class ItemRecords:
    """Reads and writes them. Who changes an item sees to it that nobody else does at the same time."""

    def __init__(self, redis: Client, now: Callable[[], float]) -> None:
        self._redis = redis
        self._now = now
        self.purges: dict[tuple[str, int], Purge] = {}
        self.deleted: dict[tuple[str, str], dict[str, Any]] = {}
        """(kind, name or ident) of configured items that were deleted -> what the configuration had said of them."""
        self.doubtful: set[tuple[str, int]] = set()

    async def load(self) -> dict[str, dict[int, Any]]:
        """All items of each kind, by id and in its order. Raises StoreError."""
        with store_errors():
            texts = {kind: await self._redis.hvals(keys.items(kind)) for kind in KINDS}
            purges = await self._redis.hvals(keys.PURGES)
            deleted = await self._redis.hgetall(keys.DELETED)
        self.purges = {(purge.kind, purge.item.id): purge for purge in map(decoded_purge, purges)}
        self.deleted = {_place(name.decode()): orjson.loads(text) for name, text in deleted.items()}
        return {kind: _by_id(decoded(KINDS[kind], text) for text in found) for kind, found in texts.items()}

    async def next_id(self, kind: str) -> int:
        """One that no item has had. Raises StoreError."""
        with store_errors():
            return int(await self._redis.hincrby(keys.NEXT_IDS, kind, 1))

    async def write(self, kind: str, item: Item) -> None:
        """Store a new or changed item. Raises StoreError."""
        with self._in_doubt(kind, item.id), store_errors():
            await self._redis.hset(keys.items(kind), str(item.id), encoded(item))

    async def remove(self, kind: str, item: Item, configured_as: str | None, links: Sequence[str] = ()) -> None:
        """Remove an item and its ``links``, and remember what is to be purged, and what the configuration shall not
        make again.

        Raises StoreError.
        """
        purge = Purge(kind, item, self._now())
        said = item.configured if isinstance(item, Channel | Device) else {}
        with self._in_doubt(kind, item.id), store_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hdel(keys.items(kind), str(item.id))
                pipe.hset(keys.PURGES, f"{kind}:{item.id}", encoded_purge(purge))
                if links:
                    pipe.hdel(keys.LINKS, *links)
                if configured_as is not None:
                    pipe.hset(keys.DELETED, f"{kind}:{configured_as}", orjson.dumps(said))
                await pipe.execute()
        self.purges[kind, item.id] = purge
        if configured_as is not None:
            self.deleted[kind, configured_as] = said

    async def mend(self, kind: str, id: int, item: Item | None) -> None:
        """Write what a doubtful item is; None: it is none. Raises StoreError."""
        with store_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                if item is not None:
                    pipe.hset(keys.items(kind), str(id), encoded(item))
                    pipe.hdel(keys.PURGES, f"{kind}:{id}")
                else:
                    pipe.hdel(keys.items(kind), str(id))
                await pipe.execute()
        self.doubtful.discard((kind, id))

    async def purged(self, kind: str, id: int) -> None:
        """Nothing of this deleted item is left. Raises StoreError."""
        with store_errors():
            await self._redis.hdel(keys.PURGES, f"{kind}:{id}")
        self.purges.pop((kind, id), None)

    @contextmanager
    def _in_doubt(self, kind: str, id: int) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.doubtful.add((kind, id))
            raise
        self.doubtful.discard((kind, id))


def _by_id(items: Iterable[T]) -> dict[int, T]:
    return {item.id: item for item in sorted(items, key=lambda item: item.id)}


def _place(name: str) -> tuple[str, str]:
    kind, _, rest = name.partition(":")
    return kind, rest
