"""Items under change: one at a time, none lost, none half-done, and what cannot be is refused by name."""

from __future__ import annotations

import asyncio

import pytest
from attrs import evolve

from gateway.errors import IdentTaken, ItemError, NoSuchItem, StoreError, StoreUnavailable
from gateway.store import keys
from gateway.store.item import JSON_MOST, Device, decoded
from gateway.store.items import Change, Items, Link

TRACKER = {"name": "x", "protocol_id": 14, "device_type_id": 303}


async def loaded(redis) -> Items:
    items = Items(redis)
    await items.load()
    return items


async def renamed(items: Items, id: int, ident: str) -> Device:
    return await items.change_device(id, lambda old: evolve(old, configuration={**old.configuration, "ident": ident}))


def test_concurrent_changes_of_an_item_lose_nothing(run, redis):
    """Each is made of what the one before has stored."""

    async def scenario() -> None:
        items = Items(redis)
        await items.create_device(ident="1", **TRACKER)

        def adding(n: int):
            return lambda old: evolve(old, metadata={**old.metadata, f"key{n}": n})

        await asyncio.gather(*(items.change_device(1, adding(n)) for n in range(50)))
        assert items.devices[1].metadata == {f"key{n}": n for n in range(50)}
        assert (await loaded(redis)).devices == items.devices

    run(scenario())


def test_of_concurrent_claims_to_an_ident_one_succeeds(run, redis):
    """Created or changed to: never two devices with it, and never none."""

    async def scenario() -> None:
        items = Items(redis)
        for ident in ("a", "b", "c"):
            await items.create_device(ident=ident, **TRACKER)
        claims = [*(items.create_device(ident="77", **TRACKER) for _ in range(20))]
        results = await asyncio.gather(*claims, *(renamed(items, id, "77") for id in (1, 2, 3)), return_exceptions=True)
        assert sum(isinstance(result, IdentTaken) for result in results) == 22
        [owner] = [device for device in items.devices.values() if device.ident == "77"]
        assert items.find_device(14, "77") == owner
        again = await loaded(redis)
        assert again.devices == items.devices
        assert [device.id for device in again.devices.values() if device.ident == "77"] == [owner.id]

    run(scenario())


def test_an_ident_moves_with_its_device(run, redis):
    """The old one is free at once, the new one is found; other protocols would be other idents."""

    async def scenario() -> None:
        items = Items(redis)
        await items.create_device(ident="1", **TRACKER)
        moved = await renamed(items, 1, "2")
        assert items.find_device(14, "1") is None
        assert items.device_for(14, "2") == moved
        again = await items.create_device(ident="1", **TRACKER)
        with pytest.raises(IdentTaken, match=r"device 1 \(x\) has the ident 2 already") as raised:
            await renamed(items, again.id, "2")
        assert raised.value.field == "configuration.ident"
        assert items.devices[again.id] == again

    run(scenario())


def test_a_device_is_deleted_with_its_ident(run, redis):
    """Told to whom it concerns, gone from Redis, to be purged, and its ident free."""

    async def scenario() -> None:
        items = Items(redis)
        device = await items.create_device(ident="1", **TRACKER)
        changes: list[Change] = []
        items.on_change.append(changes.append)
        await items.delete_device(1)
        assert changes == [Change("devices", 1, device, None)]
        assert items.find_device(14, "1") is None
        assert [purge.item for purge in items.purges.values()] == [device]
        for gone in (items.delete_device(1), renamed(items, 1, "2")):
            with pytest.raises(NoSuchItem):
                await gone
        new = await items.create_device(ident="1", **TRACKER)
        assert new.id == 2
        again = await loaded(redis)
        assert list(again.devices) == [2]
        assert again.purges == items.purges

    run(scenario())


def test_a_deletion_and_a_change_at_the_same_time(run, redis):
    """The change comes before it or is refused; it does not bring the device back."""

    async def scenario() -> None:
        items = Items(redis)
        for n in range(10):
            device = await items.create_device(ident=str(n), **TRACKER)
            jobs = [items.delete_device(device.id), renamed(items, device.id, f"other{n}")]
            await asyncio.gather(*(jobs if n % 2 else reversed(jobs)), return_exceptions=True)
        assert items.devices == {}
        assert (await loaded(redis)).devices == {}
        assert items.find_device(14, "other0") is None

    run(scenario())


@pytest.mark.parametrize(
    ("values", "field", "reason"),
    [
        ({"name": "x" * 257}, "name", "256 is the most"),
        ({"metadata": {"a": "x" * JSON_MOST}}, "metadata", "65536 is the most"),
        ({"configuration": {"ident": "1", "a": "x" * JSON_MOST}}, "configuration", "65536 is the most"),
        ({"metadata": {"a": 2**70}}, "metadata", "cannot be stored as JSON"),
        ({"metadata": {"a": "\ud800"}}, "metadata", "cannot be stored as JSON"),
        ({"device_type_id": 325}, "device_type_id", "device type 325 not found"),
        ({"protocol_id": 13}, "protocol_id", "protocol 13 not found"),
        ({"configuration": {}}, "configuration.ident", "1 to 64 printable"),
        ({"configuration": {"ident": "a/b"}}, "configuration.ident", "'a/b' should be"),
        ({"configuration": {"ident": "a b"}}, "configuration.ident", "'a b' should be"),
        ({"configuration": {"ident": "x" * 65}}, "configuration.ident", "1 to 64"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(run, redis, values: dict, field: str, reason: str):
    """And nothing has changed."""

    async def scenario() -> None:
        items = Items(redis)
        device = await items.create_device(ident="1", **TRACKER)
        with pytest.raises(ItemError, match=reason) as raised:
            await items.change_device(1, lambda old: evolve(old, **values))
        assert raised.value.field == field
        assert items.devices == {1: device}
        assert (await loaded(redis)).devices == {1: device}

    run(scenario())


class Deaf:
    """A Redis that takes a change and does not answer."""

    def __init__(self, redis) -> None:
        self._redis = redis
        self.is_deaf = False

    def __getattr__(self, name: str):
        return getattr(self._redis, name)

    async def hset(self, *arguments, **values):
        await self._redis.hset(*arguments, **values)
        if self.is_deaf:
            raise TimeoutError("no answer")

    def pipeline(self, **options):
        pipe = self._redis.pipeline(**options)
        if self.is_deaf:
            execute = pipe.execute

            async def execute_without_answer():
                await execute()
                raise TimeoutError("no answer")

            pipe.execute = execute_without_answer
        return pipe


def test_what_redis_took_without_an_answer_is_mended(run, redis):
    """The client was told that it failed, so it has failed: created, changed and deleted items are as before."""

    async def scenario() -> None:
        deaf = Deaf(redis)
        items = Items(deaf)
        for ident in ("1", "2"):
            await items.create_device(ident=ident, **TRACKER)
        deaf.is_deaf = True
        for job in (items.create_device(ident="3", **TRACKER), renamed(items, 1, "4"), items.delete_device(2)):
            with pytest.raises(StoreUnavailable):
                await job
        deaf.is_deaf = False
        assert (await loaded(redis)).devices != items.devices
        await items.mend()
        again = await loaded(redis)
        assert again.devices == items.devices
        assert [device.ident for device in items.devices.values()] == ["1", "2"]
        assert again.purges == items.purges == {}
        await items.create_device(ident="3", **TRACKER)

    run(scenario())


def test_links_that_redis_removed_with_an_item_without_an_answer_are_mended(run, redis):
    """The item is still there, and so is what it is linked with: also after the next start."""

    async def scenario() -> None:
        deaf = Deaf(redis)
        items = Items(deaf)
        device = await items.create_device(ident="1", **TRACKER)
        stream = await items.create_stream(name="s", protocol="file", configuration={"path": "/tmp/x"})
        [made] = await items.links.put([Link("streams", stream.id, "devices", device.id)])
        deaf.is_deaf = True
        for job in (items.delete_device(device.id), items.delete_other("streams", stream.id)):
            with pytest.raises(StoreUnavailable):
                await job
        deaf.is_deaf = False
        assert not len((await loaded(redis)).links)
        await items.mend()
        assert (await loaded(redis)).links.of("streams", stream.id, "devices") == {device.id: made}

    run(scenario())


def test_a_failed_claim_frees_the_ident(run, redis, monkeypatch):
    """And whoever waited to register it tries by itself."""

    async def scenario() -> None:
        items = Items(redis)
        store, failures = items.records.write, [StoreError("no")]

        async def fail_once(*arguments, **options) -> None:
            await asyncio.sleep(0)
            if failures:
                raise failures.pop()
            await store(*arguments, **options)

        monkeypatch.setattr(items.records, "write", fail_once)
        results = await asyncio.gather(
            *(items.register_device(ident="1", **TRACKER) for _ in range(3)), return_exceptions=True
        )
        assert isinstance(results[0], StoreError)
        assert results[1] is results[2] is items.find_device(14, "1")

    run(scenario())


def test_one_who_is_told_and_fails_does_not_harm_the_others(run, redis):
    """The change is stored; all who want to know hear of it."""

    async def scenario() -> None:
        items = Items(redis)
        heard: list[Change] = []

        def fail(change: Change) -> None:
            raise RuntimeError("a bug")

        items.on_change += [fail, heard.append]
        await items.create_device(ident="1", **TRACKER)
        assert len(heard) == 1

    run(scenario())


def test_items_of_the_first_version_are_read(run, redis):
    """They kept in the metadata what the configuration had said."""
    text = (
        b'{"id":1,"name":"x","protocol_id":14,"device_type_id":303,"later":5,"metadata":{"a":1,"configured":{"b":2}}}'
    )
    device = decoded(Device, text)
    assert (device.metadata, device.configured) == ({"a": 1}, {"b": 2})


def test_two_devices_with_one_ident_do_not_keep_the_gateway_from_starting(run, redis):
    """Somebody edited Redis: the older one has the ident."""

    async def scenario() -> None:
        items = Items(redis)
        first = await items.create_device(ident="1", **TRACKER)
        await redis.hset(keys.items("devices"), "2", b'{"id":2,"name":"x","protocol_id":14,"device_type_id":303,'
                         b'"configuration":{"ident":"1"}}')  # fmt: skip
        again = await loaded(redis)
        assert again.find_device(14, "1") == first
        await again.delete_device(2)
        assert again.find_device(14, "1") == first

    run(scenario())
