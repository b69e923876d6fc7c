"""What deleted items leave behind: nothing, in the end, and nothing that a reader still needs goes before."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from gateway.store.items import Items
from gateway.store.keys import ShardKeys
from gateway.store.messages import DeviceChange, DeviceMessages
from gateway.store.purge import SETTLED, Purger

KEYS = ShardKeys()
READERS = ["registrar", "mqtt"]
RETENTION = 1000.0


class There:
    """Items, and a purger whose clock the test sets."""

    def __init__(self, redis) -> None:
        self.redis = redis
        self.time = 1000.0
        self.items = Items(redis, now=lambda: self.time)
        self.purger = Purger(redis, KEYS, self.items, READERS, retention=RETENTION, now=lambda: self.time)

    async def device(self) -> int:
        device = await self.items.create_device(ident="77", name="x", protocol_id=14, device_type_id=303)
        await self.write(device.id)
        return device.id

    async def write(self, device_id: int) -> None:
        change = DeviceChange(device_id, "77", {1: b"{}"}, telemetry={"a": (1, 1)}, merged={1: {"x"}})
        await DeviceMessages(self.redis, KEYS).commit([change], {})

    async def channel(self) -> int:
        channel = await self.items.create_channel(name="a", protocol_id=14)
        for at in (5, 6):
            await self.redis.xadd(KEYS.channel_log(channel.id), {"ident": "77", "messages": "{}"}, id=f"{at}-0")
        await self.redis.xadd(KEYS.parked(channel.id), {"ident": "77", "frame": "x"})
        return channel.id

    async def read_by(self, reader: str, channel_id: int, entry_id: str) -> None:
        await self.redis.hset(KEYS.cursors, f"{reader}|{KEYS.channel_log(channel_id)}", entry_id)

    async def names(self) -> set[str]:
        """What there is, but for the items' own and the device log."""
        found = {name.decode() for name in await self.redis.keys("*")}
        return {name for name in found if "{items}" not in name} - {KEYS.device_log}


@pytest.fixture
def there(redis) -> There:
    return There(redis)


def test_all_of_a_deleted_device_goes_and_once_more_what_was_under_way(run, there):
    """A registrar's commit that comes after the deletion leaves no keys for ever."""

    async def scenario() -> None:
        device_id = await there.device()
        assert await there.names() != set()
        await there.items.delete_device(device_id)
        await there.purger.purge()
        assert await there.names() == set()
        await there.write(device_id)
        there.time += SETTLED
        await there.purger.purge()
        assert await there.names() == set()
        assert there.items.purges != {}, "something was found: it is looked at once more"
        await there.purger.purge()
        assert there.items.purges == {}
        assert await there.redis.hlen("gw:{items}:purges") == 0

    run(scenario())


def test_a_deleted_channel_keeps_its_log_until_all_readers_are_done(run, there):
    """What a tracker was told to be stored reaches its device and MQTT."""

    async def scenario() -> None:
        channel_id = await there.channel()
        await there.items.delete_channel(channel_id)
        await there.read_by("registrar", channel_id, "6-0")
        await there.read_by("mqtt", channel_id, "5-0")
        await there.purger.purge()
        assert KEYS.channel_log(channel_id) in await there.names()
        assert list(there.items.logged_channels()) == [channel_id]
        await there.read_by("mqtt", channel_id, "6-0")
        await there.purger.purge()
        assert await there.names() == set()

    run(scenario())


def test_a_reader_that_never_comes_does_not_hold_the_log_for_ever(run, there):
    """The same bound as for channels that live."""

    async def scenario() -> None:
        channel_id = await there.channel()
        await there.items.delete_channel(channel_id)
        there.time += RETENTION - 1
        await there.purger.purge()
        assert KEYS.channel_log(channel_id) in await there.names()
        there.time += 1
        await there.purger.purge()
        assert await there.names() == set()

    run(scenario())


def test_what_is_pending_outlives_the_process(run, there, redis):
    """A gateway that is killed after a deletion purges when it is back."""

    async def scenario() -> None:
        device_id = await there.device()
        await there.items.delete_device(device_id)
        again = There(redis)
        await again.items.load()
        await again.purger.purge()
        assert await again.names() == set()

    run(scenario())


def test_deleting_wakes_the_purger(run, there):
    """Not only at its next look."""

    async def scenario() -> None:
        running = asyncio.ensure_future(there.purger.run())
        device_id = await there.device()
        await there.items.delete_device(device_id)
        async with asyncio.timeout(5):
            while await there.names():
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run(scenario())


@pytest.mark.parametrize(("parameter", "kind"), [("channel_id", "of_channel"), ("device_id", "of_device")])
def test_every_key_of_an_item_goes_with_it(parameter: str, kind: str):
    """A new kind of key must be named among those that are purged; ``traffic`` is an index, which goes by itself."""
    methods = [
        method
        for name, method in inspect.getmembers(KEYS, inspect.ismethod)
        if list(inspect.signature(method).parameters) == [parameter] and "of_" not in name and name != "traffic"
    ]
    assert len(methods) >= 2
    log = KEYS.log(parameter.replace("_id", "s"), 5)
    assert {method(5) for method in methods} | {log} == set(getattr(KEYS, kind)(5))
