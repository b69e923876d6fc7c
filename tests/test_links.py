"""Links of plugins and streams: both directions, changes that follow one another, and ends that go away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from attrs import evolve
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.errors import ItemError, StoreError
from gateway.store import keys
from gateway.store import links as of_links
from gateway.store.items import Items
from gateway.store.links import FIELDS_MOST, LINKS_AT_ONCE, Link, Links

ALL = [1, 2, 3]


def link(id: int = 1, to_id: int = 1, kind: str = "plugins", to: str = "devices", **fields: Any) -> Link:
    return Link(kind, id, to, to_id, fields)


async def loaded(redis, exists=lambda kind, id: True) -> Links:
    links = Links(redis, exists)
    await links.load()
    return links


async def items_with_devices(redis, count: int = 2) -> Items:
    """With two plugins, a stream, a channel, and so many devices."""
    items = Items(redis)
    await items.load()
    for name in ("one", "two"):
        await items.create_plugin(name=name, type="msg-erase")
    await items.create_stream(name="out", protocol="http")
    await items.create_channel(name="in", protocol_id=14, enabled=False)
    for n in range(1, count + 1):
        await items.create_device(ident=str(n), name=f"d{n}", protocol_id=14, device_type_id=303)
    return items


def told(links: Links) -> list[tuple[Link | None, Link | None]]:
    """Whatever is told from now on."""
    heard: list[tuple[Link | None, Link | None]] = []
    links.on_change.append(lambda old, new: heard.append((old, new)))
    return heard


def test_a_link_is_found_from_both_ends(run, redis):
    """And again by another process; with its fields, and when it was made."""

    async def scenario() -> None:
        links = Links(redis, now=lambda: 1000.5)
        made = await links.put([link(1, 7, driver="Bob"), link(2, 7), link(1, 8), link(5, 7, "streams", "channels")])
        assert [(one.fields, one.at) for one in made[:2]] == [({"driver": "Bob"}, 1000.5), ({}, 1000.5)]
        for there in (links, await loaded(redis)):
            assert len(there) == 4
            assert there.of("plugins", 1, "devices") == {7: made[0], 8: made[2]}
            assert there.to("devices", 7, "plugins") == {1: made[0], 2: made[1]}
            assert there.to("channels", 7, "streams") == {5: made[3]}
            assert there.to("devices", 7, "streams") == {}
            assert there.of("streams", 5, "devices") == {}

    run(scenario())


def test_a_change_keeps_the_time_and_is_told_with_what_was(run, redis):
    """``put`` replaces the fields, ``change`` makes them of what is there."""

    async def scenario() -> None:
        now = iter([1.0, 2.0, 3.0])
        links = Links(redis, now=lambda: next(now))
        heard = told(links)
        [first] = await links.put([link(a=1)])
        [second] = await links.put([link(b=2)])
        [third] = await links.change([link()], lambda old: evolve(old, fields={**old.fields, "c": 3}))
        assert [one.fields for one in (first, second, third)] == [{"a": 1}, {"b": 2}, {"b": 2, "c": 3}]
        assert {one.at for one in (first, second, third)} == {1.0}
        assert heard == [(None, first), (first, second), (second, third)]
        assert (await loaded(redis)).of("plugins", 1, "devices") == {1: third}

    run(scenario())


def test_what_is_not_there_is_neither_changed_nor_removed(run, redis):
    """And nobody is told."""

    async def scenario() -> None:
        links = Links(redis)
        [there] = await links.put([link(1, 1)])
        heard = told(links)
        assert await links.change([link(1, 2)], lambda old: old) == []
        assert await links.remove([link(1, 2), link(1, 1), link(1, 1)]) == [there]
        assert heard == [(there, None)]
        assert len(links) == len(await loaded(redis)) == 0
        assert links.of("plugins", 1, "devices") == {}

    run(scenario())


def test_thousands_of_links_go_in_chunks(run, redis, monkeypatch):
    """Each chunk in one round trip; others have their turn between them."""

    async def scenario() -> None:
        links = Links(redis)
        sizes: list[int] = []
        hset = redis.hset

        async def counted(name: str, **values: Any) -> Any:
            sizes.append(len(values["mapping"]))
            return await hset(name, **values)

        monkeypatch.setattr(redis, "hset", counted)
        made = await links.put([link(1, n) for n in range(1, 2 * LINKS_AT_ONCE + 11)])
        assert sizes == [LINKS_AT_ONCE, LINKS_AT_ONCE, 10]
        assert len(made) == len(links) == len(await loaded(redis)) == 2 * LINKS_AT_ONCE + 10
        assert len(await links.remove(made)) == len(made)
        assert await redis.hlen(keys.LINKS) == len(links) == 0

    run(scenario())


def test_concurrent_changes_lose_nothing(run, redis):
    """Each is made of what the one before has stored, and what is in memory is what Redis has."""

    async def scenario() -> None:
        links = Links(redis)
        await links.put([link(1, n) for n in ALL])

        def adding(n: int):
            return lambda old: evolve(old, fields={**old.fields, f"key{n}": n})

        await asyncio.gather(*(links.change([link(1, to) for to in ALL], adding(n)) for n in range(50)))
        for to in ALL:
            assert links.of("plugins", 1, "devices")[to].fields == {f"key{n}": n for n in range(50)}
        assert (await loaded(redis)).of("plugins", 1, "devices") == links.of("plugins", 1, "devices")

    run(scenario())


def test_making_and_removing_at_once_ends_with_one_of_them(run, redis):
    """In memory as in Redis."""

    async def scenario() -> None:
        links = Links(redis)
        changes: list[Any] = []
        for _ in range(20):
            changes += [links.put([link(1, to) for to in ALL]), links.remove([link(1, 2)])]
        await asyncio.gather(*changes)
        assert set((await loaded(redis)).of("plugins", 1, "devices")) == set(links.of("plugins", 1, "devices"))

    run(scenario())


def test_links_go_with_either_end(run, redis):
    """In the same transaction, and whoever follows them is told."""

    async def scenario() -> None:
        items = await items_with_devices(redis)
        links = items.links
        await links.put([link(1, 1), link(1, 2), link(2, 1), link(1, 1, "streams"), link(1, 1, "streams", "channels")])
        heard = told(links)
        await items.delete_device(1)
        assert {old.place for old, new in heard if old is not None and new is None} == {
            ("plugins", 1, "devices", 1), ("plugins", 2, "devices", 1), ("streams", 1, "devices", 1),
        }  # fmt: skip
        assert set(links.of("plugins", 1, "devices")) == {2}
        await items.delete_other("plugins", 1)
        await items.delete_channel(1)
        assert len(links) == 0
        assert await redis.hlen(keys.LINKS) == 0
        assert links.to("devices", 2, "plugins") == {}

    run(scenario())


def test_what_is_deleted_meanwhile_need_not_be_unlinked(run, redis):
    """Whichever comes first."""

    async def scenario() -> None:
        items = await items_with_devices(redis)
        await items.links.put([link(1, 1), link(1, 2)])
        heard = told(items.links)
        await asyncio.gather(items.links.remove([link(1, 1), link(1, 2)]), items.delete_device(1))
        assert len(items.links) == await redis.hlen(keys.LINKS) == 0
        assert sorted(old.to_id for old, _ in heard if old is not None) == [1, 2]

    run(scenario())


def test_what_is_deleted_meanwhile_is_not_linked(run, redis):
    """Whichever comes first: no link is left in memory, and after a start none in Redis."""

    async def scenario() -> None:
        for first in ("link", "delete"):
            items = await items_with_devices(redis, 1)
            device = max(items.devices)
            pair: Sequence[Any] = (items.links.put([link(1, device)]), items.delete_device(device))
            await asyncio.gather(*(pair if first == "link" else reversed(pair)))
            assert items.links.to("devices", device, "plugins") == {}
            assert len(items.links) == 0
            again = Items(redis)
            await again.load()
            assert len(again.links) == await redis.hlen(keys.LINKS) == 0
            await redis.flushall()

    run(scenario())


def test_links_of_what_is_not_there_are_refused(run, redis):
    """Silently: they are left out of what was made."""

    async def scenario() -> None:
        items = await items_with_devices(redis)
        made = await items.links.put([link(1, 1), link(1, 99), link(99, 1)])
        assert [one.place for one in made] == [("plugins", 1, "devices", 1)]
        assert await redis.hlen(keys.LINKS) == 1

    run(scenario())


def test_orphans_are_removed_at_the_start(run, redis):
    """What a killed gateway, or another version, left behind."""

    async def scenario() -> None:
        await Links(redis).put([link(1, n) for n in ALL] + [link(1, 1, "pigeons")])
        links = await loaded(redis, lambda kind, id: kind in ("plugins", "devices") and id != 2)
        assert set(links.of("plugins", 1, "devices")) == {1, 3}
        assert await redis.hlen(keys.LINKS) == 2

    run(scenario())


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"a": "x" * FIELDS_MOST}, f"{FIELDS_MOST} is the most"),
        ({"a": 2**70}, "cannot be stored as JSON"),
        ({"a": "\ud800"}, "cannot be stored as JSON"),
    ],
)
def test_fields_that_cannot_be_stored_are_refused(run, redis, fields: dict[str, Any], reason: str):
    """With the field's name; the link stays as it was."""

    async def scenario() -> None:
        links = Links(redis)
        [before] = await links.put([link(a=1)])
        with pytest.raises(ItemError, match=reason) as raised:
            await links.put([Link("plugins", 1, "devices", 1, fields)])
        assert raised.value.field == "fields"
        assert links.of("plugins", 1, "devices") == {1: before}

    run(scenario())


def test_there_is_a_bound_on_all_links_together(run, redis, monkeypatch):
    """Known ones can still be changed."""

    async def scenario() -> None:
        monkeypatch.setattr(of_links, "LINKS_MOST", 3)
        links = Links(redis)
        await links.put([link(1, n) for n in ALL])
        with pytest.raises(ItemError, match="more than 3 links"):
            await links.put([link(2, 1)])
        assert len(await links.put([link(1, n, a=1) for n in ALL])) == 3
        await links.remove([link(1, 1)])
        assert len(await links.put([link(2, 1)])) == 1

    run(scenario())


def test_a_change_whose_answer_got_lost_is_taken_back(run, redis, monkeypatch):
    """The client was told that it failed, so it has failed, though Redis took it."""

    async def scenario() -> None:
        items = await items_with_devices(redis)
        links = items.links
        [before] = await links.put([link(1, 1, a=1)])
        lost = {"hset": redis.hset, "hdel": redis.hdel}

        def losing(name: str):
            async def call(*args: Any, **values: Any) -> Any:
                await lost[name](*args, **values)
                raise RedisConnectionError("gone")

            return call

        for name in lost:
            monkeypatch.setattr(redis, name, losing(name))
        for change in (links.put([link(1, 1, a=2)]), links.put([link(2, 2)]), links.remove([link(1, 1)])):
            with pytest.raises(StoreError):
                await change
        assert links.of("plugins", 1, "devices") == {1: before}
        monkeypatch.undo()
        assert await redis.hlen(keys.LINKS) == 1  # the second one, and not the first
        await items.mend()
        assert (await loaded(redis)).of("plugins", 1, "devices") == {1: before}
        assert await redis.hlen(keys.LINKS) == 1

    run(scenario())


def test_what_was_stored_is_known_also_where_that_of_a_deleted_item_cannot_be_removed(run, redis, monkeypatch):
    """Redis and the mirror say the same of the other links."""

    async def scenario() -> None:
        items = await items_with_devices(redis)
        links, store = items.links, redis.hset

        async def store_while_a_device_is_deleted(*args: Any, **values: Any) -> None:
            await store(*args, **values)
            if len(values.get("mapping", ())) == 2:
                await items.delete_device(2)

        async def refuse(*_: Any) -> None:
            raise RedisConnectionError("gone")

        monkeypatch.setattr(redis, "hset", store_while_a_device_is_deleted)
        monkeypatch.setattr(redis, "hdel", refuse)
        with pytest.raises(StoreError):
            await links.put([link(1, 1), link(1, 2)])
        monkeypatch.undo()
        assert set(links.of("plugins", 1, "devices")) == {1}
        await items.mend()
        assert await redis.hlen(keys.LINKS) == 1
        assert (await loaded(redis)).of("plugins", 1, "devices") == links.of("plugins", 1, "devices")

    run(scenario())


def test_what_is_linked_once_more_keeps_the_fields_of_a_change_just_before(run, redis):
    """Not those that it had when somebody asked for it to be linked."""

    async def scenario() -> None:
        items = await items_with_devices(redis)
        links = items.links
        await links.put([link(1, 1, a=1)])
        await asyncio.gather(
            links.change([link(1, 1)], lambda old: evolve(old, fields={"a": 2})),
            links.put([link(1, 1), link(1, 2)], keeps_fields=True),
        )
        assert {id: one.fields for id, one in links.of("plugins", 1, "devices").items()} == {1: {"a": 2}, 2: {}}
        assert (await loaded(redis)).of("plugins", 1, "devices") == links.of("plugins", 1, "devices")

    run(scenario())


def test_a_change_that_has_begun_is_brought_to_its_end(run, redis):
    """Also where its client has hung up; a stop waits for it."""

    async def scenario() -> None:
        items = await items_with_devices(redis)
        task = asyncio.ensure_future(items.links.put([link(1, 1)]))
        while not items.under_way:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await items.settle(5)
        assert set(items.links.of("plugins", 1, "devices")) == {1}
        assert set((await loaded(redis)).of("plugins", 1, "devices")) == {1}

    run(scenario())


def test_somebody_who_fails_when_told_harms_nobody(run, redis):
    """The others are told, and the link is there."""

    async def scenario() -> None:
        links = Links(redis)

        def fail(old: Link | None, new: Link | None) -> None:
            raise RuntimeError("mine")

        links.on_change.append(fail)
        heard = told(links)
        [made] = await links.put([link()])
        assert heard == [(None, made)]
        assert links.of("plugins", 1, "devices") == {1: made}

    run(scenario())
