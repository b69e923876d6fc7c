"""Reading stored messages: ranges, order, several items in one list, and what is not shown."""

from __future__ import annotations

import asyncio
import itertools

import orjson
import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.store import ordered
from gateway.store.hidden import MOST_RANGES, Hidden, Range, TooManyRanges
from gateway.store.history import ChannelHistory, DeviceHistory
from gateway.store.items import Items
from gateway.store.ordered import FOREVER
from gateway.store.sources import PACKETS_OF_A_PAGE, Span
from tests.history import KEYS, YEAR, add_packet, make_channel, make_device, store, times_of

NOW = 1_700_000_000
S = 1_000_000


class Stored:
    """A store whose clock stands at NOW, with one channel and one device."""

    def __init__(self, redis) -> None:
        self.redis = redis
        self.items = Items(redis)
        self.channels = ChannelHistory(redis, KEYS, self.items, now=lambda: NOW)
        self.devices = DeviceHistory(redis, KEYS, self.items, now=lambda: NOW)

    async def set_up(self) -> Stored:
        await make_channel(self.items)
        await make_device(self.items)
        return self

    async def channel_times(self, span: Span, *ids: int) -> list[int]:
        return [at async for texts in self.channels.read(ids or (1,), span) for at in times_of(texts)]

    async def device_times(self, span: Span, *ids: int) -> list[int]:
        return [at async for texts in self.devices.read(ids or (1,), span) for at in times_of(texts, "timestamp")]


SPANS = st.builds(Span, st.integers(0, 60), st.integers(0, 60) | st.just(FOREVER), st.booleans())


def _packets(gaps: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(last, count) of packets that do not overlap, from (gap, count)."""
    packets, at = [], 0
    for gap, count in gaps:
        at += gap + count
        packets.append((at, count))
    return packets


PACKETS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), max_size=12).map(_packets)
FRESH = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FRESH
@given(packets=PACKETS, span=SPANS, ranges=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)), max_size=3))
def test_a_range_has_exactly_the_messages_in_it(run, redis, packets, span, ranges):
    """Both ends included, also within a packet; in either direction; without what is hidden."""

    async def scenario() -> None:
        await redis.flushall()
        stored = await Stored(redis).set_up()
        stored.channels._oldest = lambda channel_id: 0  # these times are just after 1970
        times = [at for last, count in packets for at in await add_packet(redis, last, count)]
        for low, length in ranges:
            await stored.channels.hide(1, low, low + length)
        gone = {at for low, length in ranges for at in range(low, low + length + 1)}
        expected = [at for at in times if span.low <= at <= span.high and at not in gone]
        assert await stored.channel_times(span) == (expected[::-1] if span.is_reverse else expected)

    run(scenario())


@FRESH
@given(
    logs=st.lists(PACKETS, min_size=2, max_size=4),
    span=SPANS,
    page=st.integers(1, 400),
    held=st.integers(1, 2000),
    at_once=st.integers(1, 4),
)
def test_several_channels_are_one_list(run, redis, logs, span, page, held, at_once):
    """In one order, complete, whatever the size of pages, and where what was read ahead is dropped."""

    async def scenario() -> None:
        await redis.flushall()
        stored = Stored(redis)
        stored.channels._oldest = lambda channel_id: 0
        expected = []
        for channel_id, packets in enumerate(logs, 1):
            await make_channel(stored.items)
            for last, count in packets:
                expected += await add_packet(redis, last, count, channel_id)
        expected = sorted((at for at in expected if span.low <= at <= span.high), reverse=span.is_reverse)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ordered, "PAGE_BYTES", page)
            patch.setattr(ordered, "HELD_BYTES", held)
            patch.setattr(ordered, "SOURCES_AT_ONCE", at_once)
            patch.setattr(ordered, "SLICE", float("inf"))
            assert await stored.channel_times(span, *range(1, len(logs) + 1)) == expected

    run(scenario())


@FRESH
@given(
    devices=st.lists(st.lists(st.integers(0, 60), unique=True, max_size=30), min_size=1, max_size=5),
    span=SPANS,
    page=st.integers(1, 2000),
    held=st.integers(1, 2000),
    at_once=st.integers(1, 4),
)
def test_several_devices_are_one_list(run, redis, devices, span, page, held, at_once):
    """As with channels; here many have messages of the same time."""

    async def scenario() -> None:
        await redis.flushall()
        stored = Stored(redis)
        base = NOW - 60
        expected = []
        for device_id, times in enumerate(devices, 1):
            await make_device(stored.items, ident=str(device_id))
            await store(redis, device_id, [base + at for at in times])
            expected += [(base + at) * S for at in times]
        high = span.high if span.high == FOREVER else (base + span.high) * S
        wanted = Span((base + span.low) * S, high, span.is_reverse)
        expected = sorted((at for at in expected if wanted.low <= at <= high), reverse=span.is_reverse)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ordered, "PAGE_BYTES", page)
            patch.setattr(ordered, "HELD_BYTES", held)
            patch.setattr(ordered, "SOURCES_AT_ONCE", at_once)
            patch.setattr(ordered, "SLICE", float("inf"))
            assert await stored.device_times(wanted, *range(1, len(devices) + 1)) == expected

    run(scenario())


@pytest.mark.parametrize("is_reverse", [False, True])
def test_a_long_list_comes_in_pages(run, redis, is_reverse):
    """None of which is large, and each message comes once."""

    async def scenario() -> None:
        stored = await Stored(redis).set_up()
        packets = 3 * PACKETS_OF_A_PAGE + 1
        times = [at for n in range(packets) for at in await add_packet(redis, NOW * S - 5000 + n * 10, 2)]
        pages = [texts async for texts in stored.channels.read([1], Span(is_reverse=is_reverse))]
        assert max(map(len, pages)) <= 2 * PACKETS_OF_A_PAGE
        assert times_of(text for page in pages for text in page) == (times[::-1] if is_reverse else times)

    run(scenario())


def test_texts_are_as_they_were_stored(run, redis):
    """Byte for byte: nothing is decoded on the way."""

    async def scenario() -> None:
        stored = await Stored(redis).set_up()
        odd = b'{ "timestamp" : 1.0e9 }'
        await redis.zadd(KEYS.messages(1), {odd: (NOW - 5) * S})
        assert [texts async for texts in stored.devices.read([1], Span())] == [[odd]]

    run(scenario())


def test_what_is_older_than_its_ttl_is_not_shown(run, redis):
    """Also where it is not trimmed yet; a shorter ttl holds at once, and 0 shows nothing."""

    async def scenario() -> None:
        stored = await Stored(redis).set_up()
        for at in (NOW - 100, NOW - 50, NOW):
            await add_packet(redis, at * S)
        await store(redis, 1, [NOW - 100, NOW - 50, NOW])
        for ttl, shown in ((YEAR, 3), (50, 2), (49, 1), (0, 0)):
            stored.items.channels[1] = await _with_ttl(stored.items.change_channel, ttl)
            stored.items.devices[1] = await _with_ttl(stored.items.change_device, ttl)
            for is_reverse in (False, True):
                assert len(await stored.channel_times(Span(is_reverse=is_reverse))) == shown
                assert len(await stored.device_times(Span(is_reverse=is_reverse))) == shown

    run(scenario())


async def _with_ttl(change, ttl: int):
    return await change(1, lambda item: evolve(item, messages_ttl=ttl))


def test_items_that_are_not_there_have_nothing(run, redis):
    """A list of several goes on without them."""

    async def scenario() -> None:
        stored = await Stored(redis).set_up()
        await add_packet(redis, NOW * S)
        await store(redis, 1, [NOW])
        await store(redis, 99, [NOW])
        assert len(await stored.channel_times(Span(), 1, 99)) == 1
        assert len(await stored.device_times(Span(), 99, 1)) == 1
        assert await stored.device_times(Span(5, 4)) == []

    run(scenario())


def test_what_is_deleted_is_hidden_and_what_comes_then_is_not(run, redis):
    """All up to now; a time in the future means now, or what comes would be gone as well."""

    async def scenario() -> None:
        stored = await Stored(redis).set_up()
        await add_packet(redis, NOW * S, 3)
        await stored.channels.delete(1, None, NOW + YEAR)
        assert await stored.channel_times(Span()) == []
        later = await add_packet(redis, NOW * S + 4, 4)
        assert await stored.channel_times(Span()) == later
        await stored.channels.delete(1, later[1] / 1e6, later[2] / 1e6)
        assert await stored.channel_times(Span()) == [later[0], later[3]]
        await stored.channels.delete(1)
        assert await stored.channel_times(Span()) == []
        assert await redis.xlen(KEYS.channel_log(1)) == 2

    run(scenario())


def test_deleting_messages_with_a_clock_that_was_ahead(run, redis):
    """The log's last message counts where it is later than now."""

    async def scenario() -> None:
        stored = await Stored(redis).set_up()
        await add_packet(redis, (NOW + 100) * S)
        await stored.channels.delete(1)
        assert await stored.channel_times(Span()) == []

    run(scenario())


def test_ranges_that_touch_become_one(run, redis):
    """And a channel has a bounded number of them."""

    async def scenario() -> None:
        hidden = Hidden(redis, KEYS)
        for low, high in ((10, 20), (40, 50), (21, 30), (45, 60)):
            await hidden.add(1, Range(low, high))
        assert await hidden.ranges([1, 2]) == {1: [Range(10, 30), Range(40, 60)]}
        await hidden.add(1, Range(0, 100))
        assert await hidden.ranges([1]) == {1: [Range(0, 100)]}
        for n in range(1, MOST_RANGES):
            await hidden.add(1, Range(n * 1000, n * 1000 + 1))
        with pytest.raises(TooManyRanges, match="leave out `from`"):
            await hidden.add(1, Range(10**9, 10**9))
        await hidden.add(1, Range(0, 10**9))
        assert await hidden.ranges([1]) == {1: [Range(0, 10**9)]}

    run(scenario())


def test_deletions_at_the_same_time_are_all_kept(run, redis):
    """Each is a read and a write; none overwrites another."""

    async def scenario() -> None:
        first, second = Hidden(redis, KEYS), Hidden(redis, KEYS)
        await asyncio.gather(
            *(
                (first, second)[n % 2].add(channel_id, Range(n * 10, n * 10 + 1))
                for n in range(4)
                for channel_id in (1, 2)
            )
        )
        ranges = await first.ranges([1, 2])
        assert [len(of_channel) for of_channel in ranges.values()] == [4, 4]

    run(scenario())


def test_reading_gives_way_to_others(run, redis):
    """While 20,000 messages are read, the loop turns at least once for each page."""

    async def scenario() -> None:
        stored = await Stored(redis).set_up()
        await store(redis, 1, range(NOW - 20_000, NOW), filler="x" * 300)
        turns = 0
        is_reading = True

        async def turn() -> None:
            nonlocal turns
            while is_reading:
                turns += 1
                await asyncio.sleep(0)

        turning = asyncio.ensure_future(turn())
        pages = 0
        async for texts in stored.devices.read([1], Span()):
            pages += 1
            assert sum(map(len, texts)) <= 2 * ordered.PAGE_BYTES
        is_reading = False
        await turning
        assert pages >= 20
        assert turns >= pages

    run(scenario())


def test_a_broken_off_read_leaves_nothing_behind(run, redis):
    """The reader goes after its first page."""

    async def scenario() -> None:
        stored = await Stored(redis).set_up()
        await store(redis, 1, range(NOW - 1000, NOW))
        chunks = stored.devices.read([1], Span())
        first = await anext(chunks)
        await chunks.aclose()
        assert orjson.loads(first[0])["timestamp"] == NOW - 1000
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)

    run(scenario())


def test_between_two_turns_there_is_as_much_time_for_others(run):
    """However many want one; and a turn that fails ends as well. Short ones share a rest."""

    async def scenario() -> None:
        turn, loop = ordered.Turn(), asyncio.get_running_loop()
        turns: list[tuple[float, float]] = []

        async def work(fails: bool) -> None:
            async with turn:
                began = loop.time()
                while loop.time() < began + 0.005:
                    pass  # as decoding messages does
                turns.append((began, loop.time()))
                if fails:
                    raise ValueError

        await asyncio.gather(*(work(n % 2 == 0) for n in range(6)), return_exceptions=True)
        assert len(turns) == 6
        for (began, ended), (next_began, _) in itertools.pairwise(turns):
            assert next_began - ended >= 0.9 * (ended - began)
        began = loop.time()
        for _ in range(1000):
            async with turn:
                pass
        assert loop.time() - began < 0.9, "no rest is shorter than a millisecond"

    run(scenario())
