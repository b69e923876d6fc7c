"""Trimming: what is old, what was deleted, and what a reader has still to deliver."""

from __future__ import annotations

from attrs import evolve

from gateway.store.hidden import Hidden, Range
from gateway.store.history import ChannelHistory
from gateway.store.items import Items
from gateway.store.messages import DeviceMessages
from gateway.store.sources import Span
from gateway.store.trim import DEVICES_AT_ONCE, PURGED_AT_ONCE, Trimmer
from tests.history import KEYS, YEAR, add_packet, make_channel, make_device, store, times_of

NOW = 1_700_000_000
S = 1_000_000
START = (NOW - 1000) * S
READERS = ("registrar", "mqtt")


class Trimmed:
    """A store whose clock stands at NOW, its trimmer, and its readers' cursors."""

    def __init__(self, redis) -> None:
        self.redis = redis
        self.items = Items(redis)
        self.messages = DeviceMessages(redis, KEYS)
        self.history = ChannelHistory(redis, KEYS, self.items, now=lambda: NOW)
        self.trimmer = Trimmer(
            redis, KEYS, self.items, self.messages,
            channel_readers=lambda id: READERS, device_readers=lambda: ["mqtt"], now=lambda: NOW,
        )  # fmt: skip

    async def read_up_to(self, at: int, *readers: str) -> None:
        for reader in readers or READERS:
            await self.redis.hset(KEYS.cursors, f"{reader}|{KEYS.channel_log(1)}", f"{at}-0")

    async def left(self) -> list[int]:
        """The entries of the channel's log."""
        return [int(id.split(b"-")[0]) for id, _fields in await self.redis.xrange(KEYS.channel_log(1))]

    async def shown(self) -> list[int]:
        return [at async for texts in self.history.read([1], Span()) for at in times_of(texts)]

    async def ranges(self) -> list[Range]:
        return (await Hidden(self.redis, KEYS).ranges([1])).get(1, [])


def test_what_was_deleted_goes_when_all_have_read_it(run, redis):
    """At once and exactly, though its ttl is long; what a reader needs stays, and is hidden."""

    async def scenario() -> None:
        trimmed = Trimmed(redis)
        await make_channel(trimmed.items)
        for n in range(1, 11):
            await add_packet(redis, START + n * 10, 2)
        await trimmed.history.delete(1, None, (START + 80) / 1e6)
        await trimmed.read_up_to(START + 100)
        await trimmed.read_up_to(START + 50, "mqtt")
        await trimmed.trimmer.trim()
        assert await trimmed.left() == [START + n * 10 for n in range(6, 11)]
        await trimmed.read_up_to(START + 100)
        await trimmed.trimmer.trim()
        assert await trimmed.left() == [START + 90, START + 100]
        assert await trimmed.shown() == [START + 89, START + 90, START + 99, START + 100]
        assert await trimmed.ranges() == []

    run(scenario())


def test_a_range_that_ends_within_a_packet_stays_hidden(run, redis):
    """The packet is one entry; the range is remembered as long as the packet is there."""

    async def scenario() -> None:
        trimmed = Trimmed(redis)
        await make_channel(trimmed.items)
        times = await add_packet(redis, START + 100, 10)
        await trimmed.history.hide(1, 0, times[4])
        await trimmed.read_up_to(START + 100)
        await trimmed.trimmer.trim()
        assert await trimmed.shown() == times[5:]
        assert await trimmed.ranges() == [Range(0, times[4])]

    run(scenario())


def test_a_range_in_the_middle_goes_without_its_neighbours(run, redis):
    """As far as all have read; packets that reach beyond it stay, and are hidden in part."""

    async def scenario() -> None:
        trimmed = Trimmed(redis)
        await make_channel(trimmed.items)
        count = 2 * PURGED_AT_ONCE + 50
        times = [at for n in range(1, count + 1) for at in await add_packet(redis, START + n * 10, 2)]
        low, high = times[11], times[-12]
        await trimmed.history.hide(1, low, high)
        await trimmed.read_up_to(START + 1500)
        await trimmed.trimmer.trim()
        assert [at for at in await trimmed.left() if low <= at <= 1500 + START] == [low]
        assert len([at for at in await trimmed.left() if at > START + 1500]) == count - 150
        expected = [at for at in times if not low <= at <= high]
        assert await trimmed.shown() == expected
        await trimmed.read_up_to(times[-1])
        await trimmed.trimmer.trim()
        assert await trimmed.shown() == expected
        assert len(await trimmed.left()) == 6 + 6
        assert await trimmed.ranges() == [Range(low, high, high)]

    run(scenario())


def test_a_deleted_range_is_forgotten_when_the_log_is_past_it(run, redis):
    """Nothing of it can come any more."""

    async def scenario() -> None:
        trimmed = Trimmed(redis)
        channel = await make_channel(trimmed.items)
        await add_packet(redis, START)
        await trimmed.history.hide(1, START - 5, START + 5)
        await trimmed.read_up_to(START)
        await trimmed.trimmer.trim()
        assert await trimmed.left() == []
        assert await trimmed.ranges() == []
        await trimmed.items.change_channel(channel.id, lambda old: evolve(old, messages_ttl=0))
        await trimmed.trimmer.trim()

    run(scenario())


def test_a_channel_without_storage_keeps_what_readers_need(run, redis):
    """messages_ttl 0: nothing is kept once they are done."""

    async def scenario() -> None:
        trimmed = Trimmed(redis)
        await make_channel(trimmed.items, messages_ttl=0)
        for n in range(300):
            await add_packet(redis, START + n)
        await trimmed.trimmer.trim()
        assert len(await trimmed.left()) == 300
        await trimmed.read_up_to(START + 299)
        await trimmed.trimmer.trim()
        assert len(await trimmed.left()) <= 100  # Redis removes whole nodes of a stream
        assert await trimmed.shown() == []

    run(scenario())


def test_what_was_posted_goes_when_it_is_registered(run, redis):
    """The registrar alone reads it."""

    async def scenario() -> None:
        trimmed = Trimmed(redis)
        async with redis.pipeline() as pipe:
            for n in range(1, 301):
                pipe.xadd(KEYS.posted, {"device": 1, "ident": "x", "messages": "{}"}, id=f"{n}-0")
            await pipe.execute()
        await redis.hset(KEYS.cursors, f"registrar|{KEYS.posted}", f"{(NOW + 1) * 1000}-0")
        await trimmed.trimmer.trim()
        assert await redis.xlen(KEYS.posted) <= 100

    run(scenario())


def test_a_device_that_shall_store_nothing_loses_what_it_has(run, redis):
    """Whatever the times of its messages are; the others keep theirs."""

    async def scenario() -> None:
        trimmed = Trimmed(redis)
        device = await make_device(trimmed.items)
        other = await make_device(trimmed.items, ident="78")
        for one in (device, other):
            await store(redis, one.id, [NOW - 10, NOW + 3600])
        await trimmed.items.change_device(device.id, lambda old: evolve(old, messages_ttl=0))
        await trimmed.trimmer.trim()
        assert await trimmed.messages.range(device.id) == []
        assert await redis.hget(KEYS.sizes, str(device.id)) is None
        assert len(await trimmed.messages.range(other.id)) == 2

    run(scenario())


def test_each_device_has_its_own_ttl_and_size(run, redis):
    """However many devices there are; messages from the future go by when they came."""

    async def scenario() -> None:
        trimmed = Trimmed(redis)
        ages = range(10)
        for n in range(DEVICES_AT_ONCE + 5):
            device = await make_device(trimmed.items, ident=str(n), messages_ttl=YEAR)
            await store(redis, device.id, [NOW - age for age in ages])
        size = int(await redis.hget(KEYS.sizes, "1")) // 10
        for id, values in (
            (1, {"messages_ttl": 5}),
            (2, {"messages_rotate": 3 * size}),
            (DEVICES_AT_ONCE + 5, {"messages_ttl": 2}),
        ):
            await trimmed.items.change_device(id, lambda old, values=values: evolve(old, **values))
        await store(redis, 3, [NOW + 10 * 86400], **{"server.timestamp": NOW - 2 * YEAR})
        await trimmed.trimmer.trim()
        left = {id: len(await trimmed.messages.range(id)) for id in trimmed.items.devices}
        expected = dict.fromkeys(trimmed.items.devices, 10) | {1: 6, 2: 3, DEVICES_AT_ONCE + 5: 3}
        assert left == expected

    run(scenario())
