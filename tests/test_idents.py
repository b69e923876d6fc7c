"""Idents seen: who was let in, who was not and why; kept over a restart, bounded, written in the background."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.connection import connect
from gateway.store.idents import ACCEPTED, REFUSED, SeenIdents
from gateway.store.keys import ShardKeys

KEYS = ShardKeys()
NOW = 1_700_000_000.0


class There:
    """Idents whose clock the test moves."""

    def __init__(self, redis, most: int = 10_000) -> None:
        self.time = NOW
        self.redis = redis
        self.idents = SeenIdents(redis, KEYS, now=lambda: self.time, most=most)

    def note(self, ident: str, verdict: str = ACCEPTED, reason: str = "", channel_id: int = 1, **more) -> None:
        values = {"peer": "10.0.0.1:7", "transport": "tcp", "is_registered": False, **more}
        self.idents.note(channel_id, ident, verdict, reason, **values)

    async def again(self) -> SeenIdents:
        """As after a restart."""
        idents = SeenIdents(self.redis, KEYS)
        await idents.load([1])
        return idents


@pytest.fixture
def there(redis) -> There:
    return There(redis)


def test_an_ident_has_its_first_and_last_time_and_the_last_verdict(there):
    """And how often it came, and from where."""
    there.note("123", REFUSED, "device 5 is disabled", peer="10.0.0.1:1")
    there.time += 60
    there.note("123", ACCEPTED, peer="10.0.0.2:2", transport="udp")
    seen = there.idents.find(1, "123")
    assert seen is not None
    assert (seen.first, seen.last, seen.count) == (NOW, NOW + 60, 2)
    assert (seen.verdict, seen.reason, seen.peer, seen.transport) == (ACCEPTED, "", "10.0.0.2:2", "udp")


def test_channels_are_apart(there):
    """The same tracker may have been sent to another port."""
    there.note("123", channel_id=1)
    there.note("124", channel_id=2)
    assert [seen.ident for seen in there.idents.of_channel(1)] == ["123"]
    assert there.idents.find(2, "123") is None
    assert there.idents.of_channel(3) == []


def test_the_list_ends_with_the_latest(there):
    """By when each was seen last."""
    for n, ident in enumerate(("1", "2", "3", "1")):
        there.time = NOW + n
        there.note(ident, is_registered=ident == "2")
    assert [seen.ident for seen in there.idents.of_channel(1)] == ["2", "3", "1"]


def test_they_are_known_after_a_restart(run, there):
    """With all that was known of them."""
    there.note("123", REFUSED, "no device")
    run(there.idents.flush())
    again = run(there.again())
    assert again.of_channel(1) == there.idents.of_channel(1)


def test_too_many_push_out_the_longest_unseen_of_their_own_kind(run, redis):
    """Junk does not push out the idents of devices, nor a fleet the one that was refused."""
    there = There(redis, most=3)
    there.note("refused", REFUSED, "no device")
    for n in range(10):
        there.time += 1
        there.note(f"car{n}", is_registered=True)
    run(there.idents.flush())
    assert {seen.ident for seen in there.idents.of_channel(1)} == {"refused", "car7", "car8", "car9"}
    assert {seen.ident for seen in run(there.again()).of_channel(1)} == {"refused", "car7", "car8", "car9"}
    for n in range(10):
        there.note(f"junk{n}", REFUSED, "no device")
    run(there.idents.flush())
    assert {seen.ident for seen in run(there.again()).of_channel(1)} == {
        "junk7", "junk8", "junk9", "car7", "car8", "car9",
    }  # fmt: skip


def test_all_channels_together_are_bounded_too(there, monkeypatch):
    """Junk on a thousand channels is not a thousand times as much."""
    monkeypatch.setattr("gateway.store.idents.IN_ALL_MOST", 10)
    for n in range(30):
        there.note(f"junk{n}", REFUSED, "no device", channel_id=n % 2)
    there.note("car", channel_id=3, is_registered=True)
    found = [seen.ident for channel_id in (0, 1, 3) for seen in there.idents.of_channel(channel_id)]
    assert len(found) <= 11
    assert {"junk28", "junk29", "car"} <= set(found)
    there.idents.forget_channel(0)
    there.note("later", channel_id=3)
    assert [seen.ident for seen in there.idents.of_channel(3)] == ["car", "later"]


def test_an_ident_that_gets_a_device_changes_its_kind(there):
    """It is listed once."""
    there.note("123", REFUSED, "no device")
    there.note("123", ACCEPTED, is_registered=True)
    [seen] = there.idents.of_channel(1)
    assert (seen.verdict, seen.count) == (ACCEPTED, 2)


def test_being_seen_once_more_is_written_only_now_and_then(run, there):
    """A fleet on UDP is seen with every datagram."""
    there.note("123")
    run(there.idents.flush(with_routine=False))
    there.note("123")
    run(there.idents.flush(with_routine=False))
    assert [seen.count for seen in run(there.again()).of_channel(1)] == [1]
    run(there.idents.flush())
    assert [seen.count for seen in run(there.again()).of_channel(1)] == [2]


def test_what_redis_did_not_take_is_written_the_next_time(run, redis):
    """Also what was to be removed."""

    async def scenario() -> None:
        there = There(redis, most=1)
        there.note("122", REFUSED, "no device")
        await there.idents.flush()
        there.note("123", REFUSED, "no device")
        away = connect("unix:///nowhere/redis.sock")
        there.idents._redis = away
        with pytest.raises(StoreUnavailable):
            await there.idents.flush()
        await away.aclose()
        there.idents._redis = redis
        await there.idents.flush()
        assert await redis.hkeys(KEYS.idents(1)) == [b"123"]

    run(scenario())


def test_a_deleted_channel_is_forgotten(run, there, redis):
    """In memory at once."""
    there.note("123")
    run(there.idents.flush())
    there.idents.forget_channel(1)
    assert there.idents.of_channel(1) == []
    run(there.idents.flush())
    assert run(redis.exists(KEYS.idents(1))) == 0


def test_an_ident_is_cut_to_what_a_device_can_have(there):
    """Whatever a protocol lets through."""
    there.note("9" * 1000)
    assert [len(seen.ident) for seen in there.idents.of_channel(1)] == [64]


def test_it_writes_by_itself(run, there, redis, monkeypatch):
    """Soon, where a verdict is new."""
    monkeypatch.setattr("gateway.store.idents.FLUSH_EVERY", 0.01)

    async def scenario() -> None:
        running = asyncio.ensure_future(there.idents.run())
        there.note("123")
        async with asyncio.timeout(5):
            while not await redis.hexists(KEYS.idents(1), "123"):
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run(scenario())
