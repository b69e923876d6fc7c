"""All streams: one sender for each, whatever happens to the items; and what they hold in the logs."""

from __future__ import annotations

import asyncio

import pytest
from attrs import evolve

from gateway import metrics
from gateway.errors import RemoteUnavailable
from gateway.store.event_codes import EventCode
from gateway.store.items import Link
from gateway.store.messages import DeviceMessages
from gateway.store.purge import SETTLED, Purger
from gateway.store.trim import Trimmer
from gateway.stream.streams import STOP_TIME
from tests.stream_probe import ProbedCarrier, take
from tests.streaming import KEYS, NOW

HOUR = 3600


@pytest.fixture
def carrier(run, redis):
    carrier = ProbedCarrier(redis)
    run(carrier.open())
    yield carrier
    run(carrier.close())


def gauge(stream_id: int) -> float | None:
    """Whether the metrics say that it is connected."""
    found = [read() for name, labels, read in metrics.gauges()
             if name == "stream_connected" and dict(labels)["stream"] == str(stream_id)]  # fmt: skip
    return found[0] if found else None


async def refuse(batch):
    raise RemoteUnavailable("away")


def test_however_quickly_an_item_changes_there_are_never_two_senders_of_it(run, carrier):
    async def slowly(*_):
        await asyncio.sleep(0.005)
        return []

    async def check() -> None:
        book = carrier.book()
        book.act = book.closing = slowly
        stream = await carrier.probe(limit_messages=2)
        for n in range(40):
            await carrier.receive({"n": n})
            enabled = n % 5 != 4
            await carrier.items.change_stream(
                stream.id, lambda old, n=n, enabled=enabled: evolve(old, name=f"s{n}", enabled=enabled)
            )
            if n % 7 == 0:
                await asyncio.sleep(0.01)
            carrier.time += 1
        await carrier.items.change_stream(stream.id, lambda old: evolve(old, enabled=True))
        await carrier.receive({"n": 99})
        await carrier.until(lambda: 99 in book.taken, "the last one is delivered")
        assert book.most == 1
        first = list(dict.fromkeys(book.taken))
        assert first == sorted(first)
        await carrier.until(lambda: len(carrier.streams._running) == 1 and not carrier.streams._tasks, "one is left")

    run(check(), 60)


def test_a_stream_that_is_deleted_while_it_delivers_ends_and_leaves_nothing(run, carrier):
    async def never(batch):
        await asyncio.Event().wait()

    async def check() -> None:
        purger = Purger(carrier.redis, KEYS, carrier.items, [], retention=HOUR, now=lambda: carrier.time)
        book = carrier.book()
        book.act = never
        stream = await carrier.probe()
        await carrier.receive({"n": 0})
        await carrier.until(lambda: book.delivering, "it is under way")
        assert any(b"stream:1|" in field for field in await carrier.redis.hkeys(KEYS.cursors))
        await carrier.items.delete_other("streams", stream.id)
        await carrier.until(lambda: not book.delivering and not book.now, "it has ended")
        await purger.purge()
        carrier.time += SETTLED
        await purger.purge()
        assert not [field for field in await carrier.redis.hkeys(KEYS.cursors) if b"stream:" in field]
        assert carrier.streams.readers_of_channel(1) == []
        assert gauge(1) is None

    run(check())


def test_the_end_of_all_waits_for_one_that_was_deleted_just_before(run, carrier):
    async def slowly():
        await asyncio.sleep(0.2)

    async def check() -> None:
        book = carrier.book()
        book.closing = slowly
        stream = await carrier.probe()
        await carrier.until(lambda: carrier.state(stream).is_connected, "it runs")
        await carrier.items.delete_other("streams", stream.id)
        await carrier.streams.stop()
        assert book.now == 0

    run(check())


@pytest.mark.parametrize("last", ["changed", "deleted", "stopped"])
def test_a_target_is_closed_to_the_end_whatever_happens_to_the_stream_meanwhile(run, carrier, last):
    async def check() -> None:
        book, ended, closing = carrier.book(), [], asyncio.Event()

        async def slowly() -> None:
            closing.set()
            await asyncio.sleep(0.1)
            ended.append(True)

        book.closing = slowly
        stream = await carrier.probe()
        await carrier.until(lambda: carrier.state(stream).is_connected, "it runs")
        await carrier.items.change_stream(stream.id, lambda old: evolve(old, name="a"))
        await closing.wait()
        if last == "changed":
            await carrier.items.change_stream(stream.id, lambda old: evolve(old, name="b"))
        elif last == "deleted":
            await carrier.items.delete_other("streams", stream.id)
        else:
            await carrier.streams.stop()
        await carrier.until(lambda: book.now == 0 or book.opened > 1, "the first one has ended")
        assert ended == [True]

    run(check())


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"protocol": "pigeon"}, "there is no stream protocol pigeon"),
        ({"protocol": "http", "configuration": {}}, "missing required field `uri`"),
        ({"protocol": "http", "configuration": {"uri": "http://h/", "old": 1}}, "unknown field `old`"),
        ({"protocol": "http", "configuration": {"uri": "ftp://h/"}}, "should be like https://host:port/path"),
        ({"protocol": "probe", "validate_message": "n >"}, "column"),
    ],
)
def test_a_stream_that_cannot_be_is_blocked_and_says_why_until_it_is_mended(run, carrier, values, reason):
    """What was stored by another version, or a type whose library is gone; the others run."""

    async def check() -> None:
        other = await carrier.probe()
        stream = await carrier.items.create_stream(name="blocked", **values)
        await carrier.link(stream, "channels", 1)
        await carrier.until(lambda: carrier.state(stream).state == "blocked", "it is blocked")
        assert reason in carrier.state(stream).error.lower()
        (told,) = carrier.told(EventCode.CONFIGURATION_INVALID, stream)
        assert reason in told["reason"].lower()
        await carrier.receive({"n": 0})
        await carrier.until(lambda: carrier.state(other).counters.delivered == 1, "the other one delivers")
        await carrier.items.change_stream(
            stream.id, lambda old: evolve(old, protocol="probe", configuration={}, validate_message="")
        )
        await carrier.until(lambda: carrier.state(stream).counters.delivered == 1, "what waited is delivered")
        assert carrier.state(stream).error == ""

    run(check())


def test_three_hundred_streams_deliver_side_by_side(run, carrier):
    """One that fails and one that is slow disturb none of them; and all end in time."""

    async def never(batch):
        await asyncio.Event().wait()

    async def check() -> None:
        carrier.book(1).act, carrier.book(2).act = refuse, never
        for _ in range(300):
            await carrier.items.create_stream(name="s", protocol="probe")
        await carrier.items.links.put([Link("streams", id, "channels", 1) for id in carrier.items.streams])
        await carrier.until(lambda: all(book.opened for book in carrier.books.values()), "all are open", 30)
        for n in range(10):
            await carrier.receive({"n": n})
        others = [carrier.book(id) for id in range(3, 301)]
        await carrier.until(lambda: all(book.taken == list(range(10)) for book in others), "all have all", 30)
        assert len(carrier.books) == 300
        assert carrier.book(1).tried
        assert carrier.book(2).delivering == 1
        async with asyncio.timeout(STOP_TIME):
            await carrier.streams.stop()
        assert all(book.now == 0 for book in carrier.books.values())

    run(check(), 120)


def test_who_listens_is_told_of_every_state(run, carrier):
    """MQTT and the metrics follow it."""
    states = []
    carrier.streams.on_change.append(lambda stream, state: states.append(state.state))

    async def check() -> None:
        book = carrier.book()
        book.act = refuse
        stream = await carrier.probe()
        await carrier.receive({"n": 0})
        await carrier.until(lambda: carrier.state(stream).state == "failing", "it fails")
        assert gauge(1) == 0
        book.act = take
        await carrier.until(lambda: carrier.state(stream).counters.delivered == 1, "it delivers")
        assert gauge(1) == 1
        await carrier.items.change_stream(stream.id, lambda old: evolve(old, enabled=False))
        await carrier.until(lambda: carrier.state(stream).state == "disabled", "it is disabled")
        order = [state for at, state in enumerate(states) if at == 0 or states[at - 1] != state]
        assert order[:3] == ["connecting", "connected", "failing"]
        assert order[-2:] == ["connected", "disabled"]

    run(check())


def test_how_much_waits_is_told_also_of_a_stream_that_is_disabled(run, carrier):
    async def check() -> None:
        carrier.book().act = refuse
        stream = await carrier.probe()
        for n in range(12):
            await carrier.receive({"n": n}, {"n": n})
        assert await carrier.streams.queue_size(stream.id) == 24
        carrier.time += 60
        await carrier.items.change_stream(stream.id, lambda old: evolve(old, enabled=False))
        await carrier.receive({"n": 99})
        assert await carrier.streams.queue_size(stream.id) == 24
        assert await carrier.streams.queue_size(77) == 0

    run(check())


# -- what streams hold in the logs


class Held:
    """A channel that keeps nothing by itself, and a trimmer that knows of streams only."""

    def __init__(self, carrier: ProbedCarrier) -> None:
        self.carrier = carrier
        self.trimmer = Trimmer(
            carrier.redis, KEYS, carrier.items, DeviceMessages(carrier.redis, KEYS),
            channel_readers=self.readers, device_readers=lambda: carrier.streams.readers_of_devices() or ["mqtt"],
            reader_retention=10 * HOUR, now=lambda: carrier.time,
        )  # fmt: skip

    def readers(self, channel_id: int) -> list[str]:
        return ["mqtt", *self.carrier.streams.readers_of_channel(channel_id)]

    async def begin(self) -> None:
        await self.carrier.items.change_channel(1, lambda old: evolve(old, messages_ttl=0))

    async def fill(self, count: int = 300) -> None:
        """More than Redis keeps in one node of a stream; MQTT has delivered them."""
        for n in range(count):
            await self.carrier.receive({"n": n})
        newest = (await self.carrier.redis.xrevrange(KEYS.channel_log(1), count=1))[0][0]
        await self.carrier.redis.hset(KEYS.cursors, f"mqtt|{KEYS.channel_log(1)}", newest)

    async def left(self) -> int:
        """Entries after a trimming a second later."""
        self.carrier.time += 1
        await self.trimmer.trim()
        return int(await self.carrier.redis.xlen(KEYS.channel_log(1)))


NODE = 100
"""Entries that Redis removes at once, or not at all."""


def test_the_log_is_kept_for_a_stream_that_is_down_until_the_retention_has_passed(run, carrier):
    async def check() -> None:
        held = Held(carrier)
        await held.begin()
        carrier.book().act = refuse
        stream = await carrier.items.create_stream(name="s", protocol="probe", queue_ttl=100 * HOUR)
        await carrier.link(stream, "channels", 1)
        await held.fill()
        assert await held.left() == 300
        carrier.time = NOW + 9 * HOUR
        assert await held.left() == 300
        carrier.time = NOW + 11 * HOUR
        assert await held.left() <= NODE

    run(check())


def test_the_log_goes_when_the_stream_has_delivered_it(run, carrier):
    async def check() -> None:
        held = Held(carrier)
        await held.begin()
        book = carrier.book()
        book.act = refuse
        stream = await carrier.probe()
        await held.fill()
        assert await held.left() == 300
        book.act = take
        newest = (await carrier.redis.xrevrange(KEYS.channel_log(1), count=1))[0][0]

        async def is_confirmed() -> bool:
            return await carrier.redis.hget(KEYS.cursors, f"stream:1|{KEYS.channel_log(1)}") == newest

        async with asyncio.timeout(20):
            while not await is_confirmed():
                await asyncio.sleep(0.01)
        assert carrier.state(stream).counters.delivered == 300
        assert await held.left() <= NODE

    run(check(), 60)


@pytest.mark.parametrize("how", ["deleted", "unlinked"])
def test_a_stream_that_is_gone_holds_nothing(run, carrier, how):
    async def check() -> None:
        held = Held(carrier)
        await held.begin()
        carrier.book().act = refuse
        stream = await carrier.probe()
        await held.fill()
        assert await held.left() == 300
        if how == "deleted":
            await carrier.items.delete_other("streams", stream.id)
        else:
            await carrier.items.links.remove([Link("streams", stream.id, "channels", 1)])
        assert carrier.streams.readers_of_channel(1) == []
        assert await held.left() <= NODE

    run(check())


def test_a_disabled_stream_holds_what_waits_for_it(run, carrier):
    """flespi: it neither queues nor clears."""

    async def check() -> None:
        held = Held(carrier)
        await held.begin()
        carrier.book().act = refuse
        stream = await carrier.probe()
        await held.fill()
        await carrier.items.change_stream(stream.id, lambda old: evolve(old, enabled=False))
        assert await held.left() == 300

    run(check())


def test_a_disabled_stream_holds_nothing_that_it_would_give_up(run, carrier):
    """What came before is older than ``queue_ttl`` then, and nothing since is for it: so it does not hold the log for
    as long as a reader may be away, with an error a minute after that. What comes when it is enabled again is held."""

    async def check() -> None:
        held = Held(carrier)
        await held.begin()
        carrier.book().act = refuse
        stream = await carrier.probe()
        await carrier.items.change_stream(stream.id, lambda old: evolve(old, queue_ttl=HOUR))
        await held.fill()
        await carrier.items.change_stream(stream.id, lambda old: evolve(old, enabled=False))
        carrier.time += HOUR - 10
        assert await held.left() == 300
        carrier.time += 20
        assert await held.left() < NODE
        carrier.book().act = take
        await carrier.items.change_stream(stream.id, lambda old: evolve(old, enabled=True))
        await carrier.receive({"n": 1000})
        await carrier.until(lambda: carrier.book().taken == [1000], "it goes on")

    run(check())


def test_a_stream_that_is_disabled_while_it_fails_says_of_no_next_attempt(run, carrier):
    async def check() -> None:
        carrier.book().act = refuse
        stream = await carrier.probe()
        await carrier.receive({"n": 0})
        await carrier.until(lambda: carrier.state(stream).next_attempt_at, "it fails")
        await carrier.items.change_stream(stream.id, lambda old: evolve(old, enabled=False))
        await carrier.until(lambda: carrier.state(stream).state == "disabled", "it is disabled")
        assert carrier.state(stream).next_attempt_at is None

    run(check())


def test_what_comes_right_after_a_link_was_made_is_held_already(run, carrier):
    """Also by a stream that has never run."""

    async def check() -> None:
        held = Held(carrier)
        await held.begin()
        stream = await carrier.items.create_stream(name="s", protocol="probe", enabled=False)
        await carrier.items.links.put([Link("streams", stream.id, "channels", 1)])
        assert carrier.streams.readers_of_channel(1) == ["stream:1"]
        await held.fill()
        assert await held.left() == 300

    run(check())


def test_the_readers_of_devices_are_the_streams_that_have_any(run, carrier):
    async def check() -> None:
        device = await carrier.device("1")
        await carrier.probe()
        second = await carrier.probe()
        assert carrier.streams.readers_of_devices() == []
        await carrier.link(second, "devices", device.id)
        assert carrier.streams.readers_of_devices() == ["stream:2"]
        assert carrier.streams.readers_of_channel(1) == ["stream:1", "stream:2"]
        assert carrier.streams.readers_of_channel(2) == []
        await carrier.items.delete_device(device.id)
        assert carrier.streams.readers_of_devices() == []

    run(check())
