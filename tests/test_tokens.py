"""Tokens: a key opens until its token ends, and Redis keeps no key."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.errors import ItemError, StoreError
from gateway.store import keys, tokens
from gateway.store.access import MASTER_ACCESS, Access
from gateway.store.tokens import PURGE_AFTER, Token, Tokens, digest_of

NOW = 1_800_000_000.0
HERE = "192.0.2.1"
MASTER = "the master's key"
READER = Access.from_json({"type": 2, "acl": [{"uri": "gw/devices", "methods": ["GET"], "ids": [1, 2]}]})


def token_with(**values: Any) -> Token:
    return Token(5, digest_of("key"), created=int(NOW), **values)


def test_a_key_is_told_once_and_opens_from_then_on(run, redis):
    """flespi's form: 64 letters and digits; no two are the same."""

    async def scenario() -> None:
        store = Tokens(redis)
        token, key = await store.create(NOW, info="reader", access=READER)
        other, other_key = await store.create(NOW)
        assert len(key) == 64
        assert key.isascii()
        assert key.isalnum()
        assert key != other_key
        assert (token.id, other.id) == (1, 2)
        assert store.authenticate(key, NOW, HERE) is token
        assert store.authenticate(other_key, NOW, HERE) is other
        assert (token.info, token.access, token.created, token.enabled) == ("reader", READER, NOW, True)

    run(scenario())


@pytest.mark.parametrize("change", [lambda key: key[:-1], lambda key: key + "x", str.swapcase, lambda key: key[:16]])
def test_nothing_but_the_whole_key_opens(run, redis, change):
    """Not even one that is almost right."""

    async def scenario() -> None:
        store = Tokens(redis, MASTER)
        _, key = await store.create(NOW)
        assert store.authenticate(change(key), NOW, HERE) is None

    run(scenario())


@pytest.mark.parametrize("key", ["", "x", "x" * 1_000_000, "\ud800", "\0", digest_of(MASTER).hex()])
def test_noise_opens_nothing(key: str):
    """Whatever comes in place of a key."""
    assert Tokens(None, MASTER).authenticate(key, NOW, HERE) is None
    assert Tokens(None).authenticate(key, NOW, HERE) is None


def test_redis_knows_no_key(run, redis):
    """Nor does a token, when it is printed into a log."""

    async def scenario() -> None:
        store = Tokens(redis, MASTER)
        token, key = await store.create(NOW, info="x")
        store.authenticate(key, NOW + 1, HERE)
        await store.save()
        for name in await redis.keys("*"):
            for field, text in (await redis.hgetall(name)).items():
                assert key.encode() not in field + text
                assert MASTER.encode() not in field + text
        assert key not in repr(token)
        assert token.digest.hex() not in repr(token)

    run(scenario())


def test_the_master_token_is_no_business_of_redis(run, redis):
    """It opens without anything being stored, has the id 0, and is not in the list."""

    async def scenario() -> None:
        store = Tokens(redis, MASTER)
        token = store.authenticate(MASTER, NOW, HERE)
        assert token is not None
        assert token is store.get(0) is store.master
        assert (token.id, token.access) == (0, MASTER_ACCESS)
        assert store.all == {}
        await store.save()
        await store.delete([0])
        assert store.authenticate(MASTER, NOW, HERE) is token
        assert await redis.keys("*") == []

    run(scenario())


def test_everything_is_there_after_a_restart(run, redis):
    """Also when it was last used; what a later version wrote into it is left alone."""

    async def scenario() -> None:
        store = Tokens(redis)
        values = {
            "info": "ünïcode",
            "enabled": False,
            "ttl": 60,
            "expire": int(NOW) + 5,
            "access": READER,
            "ips": ["192.0.2.0/24"],
            "metadata": {"a": {"b": 1}},
        }
        token, key = await store.create(NOW, **values)
        store.touch(token, NOW + 7.5)
        await store.save()
        text = await redis.hget(keys.TOKENS, "1")
        await redis.hset(keys.TOKENS, "1", text.replace(b'"info"', b'"later":1,"info"'))
        again = Tokens(redis)
        await again.load()
        loaded = again.get(1)
        assert loaded is not None
        assert {name: getattr(loaded, name) for name in values} == values
        assert (loaded.created, loaded.accessed, loaded.digest) == (NOW, NOW + 7.5, digest_of(key))

    run(scenario())


def test_a_token_that_cannot_be_read_is_refused_and_stops_nobody(run, redis):
    """Somebody's hand in Redis must not keep the gateway from starting."""

    async def scenario() -> None:
        store = Tokens(redis)
        _, key = await store.create(NOW)
        await redis.hset(keys.TOKENS, mapping={"7": b"{", "8": b'{"id":8,"digest":"xy"}', "9": b'{"id":"9"}'})
        again = Tokens(redis)
        await again.load()
        assert set(again.all) == {1}
        assert again.authenticate(key, NOW, HERE) is again.get(1)

    run(scenario())


@pytest.mark.parametrize(
    ("values", "age", "is_valid"),
    [
        ({}, 10**9, True),
        ({"expire": int(NOW) + 10}, 9.9, True),
        ({"expire": int(NOW) + 10}, 10, False),
        ({"ttl": 10}, 9.9, True),
        ({"ttl": 10}, 10, False),
        ({"ttl": 10, "accessed": NOW + 5}, 14.9, True),
        ({"ttl": 10, "accessed": NOW + 5}, 15, False),
        ({"ttl": 10, "expire": int(NOW) + 100}, 99, True),
        ({"ttl": 100, "expire": int(NOW) + 10}, 99, True),
        ({"ttl": 10, "expire": int(NOW) + 20}, 20, False),
        ({"enabled": False}, 0, False),
    ],
)
def test_a_token_is_good_as_long_as_one_of_its_times_says_so(values: dict[str, Any], age: float, is_valid: bool):
    """flespi's rule. ``ttl`` counts from its last use; one with neither time never ends."""
    assert token_with(**values).is_valid(NOW + age) is is_valid


def test_an_expired_token_is_refused_at_once(run, redis):
    """Use keeps one with ``ttl`` alive, until nobody uses it; no attempt revives it."""

    async def scenario() -> None:
        store = Tokens(redis)
        token, key = await store.create(NOW, ttl=10)
        for age in (9, 18, 27):
            assert store.authenticate(key, NOW + age, HERE) is token
        assert store.authenticate(key, NOW + 37, HERE) is None
        assert store.authenticate(key, NOW + 38, HERE) is None

    run(scenario())


def test_an_expired_token_is_deleted_later(run, redis):
    """Until then it can be given a new time."""

    async def scenario() -> None:
        store = Tokens(redis)
        _, key = await store.create(NOW, expire=int(NOW) + 10)
        kept, _ = await store.create(NOW)
        changes: list[int] = []
        store.on_change.append(changes.append)
        await store.purge(NOW + 9 + PURGE_AFTER)
        assert store.get(1) is not None
        await store.purge(NOW + 10 + PURGE_AFTER)
        assert store.all == {2: kept}
        assert changes == [1]
        assert await redis.hkeys(keys.TOKENS) == [b"2"]
        assert store.authenticate(key, NOW, HERE) is None

    run(scenario())


@pytest.mark.parametrize(
    ("ips", "address", "is_for"),
    [
        ([], "anything", True),
        (["192.0.2.1"], "192.0.2.1", True),
        (["192.0.2.1"], "192.0.2.2", False),
        (["192.0.2.0/24", "10.0.0.0/8"], "10.1.2.3", True),
        (["192.0.2.7/24"], "192.0.2.1", True),
        (["192.0.2.0/24"], "::ffff:192.0.2.1", True),
        (["2001:db8::/32"], "2001:db8:1::1%eth0", True),
        (["2001:db8::/32"], "192.0.2.1", False),
        (["127.0.0.1"], "local", True),
        (["192.0.2.1"], "local", False),
        (["0.0.0.0/0"], "nonsense", False),
    ],
)
def test_a_token_may_be_for_some_addresses_only(ips: list[str], address: str, is_for: bool):
    """IPv4 in IPv6's clothes is IPv4; a socket in the file system is this machine."""
    assert token_with(ips=ips).is_for(address) is is_for


def test_from_elsewhere_a_key_opens_nothing(run, redis):
    """And does not keep the token in use."""

    async def scenario() -> None:
        store = Tokens(redis)
        token, key = await store.create(NOW, ips=["192.0.2.1"], ttl=10)
        assert store.authenticate(key, NOW + 5, "198.51.100.1") is None
        assert token.accessed == 0
        assert store.authenticate(key, NOW + 5, HERE) is token

    run(scenario())


def test_wrong_addresses_are_refused(run, redis):
    """With the one that is wrong."""

    async def scenario() -> None:
        store = Tokens(redis)
        with pytest.raises(ItemError, match=r"'192\.0\.2\.256'"):
            await store.create(NOW, ips=["192.0.2.256"])
        await store.create(NOW)
        with pytest.raises(ItemError, match="'x'"):
            await store.update(1, ips=["x"])
        assert await redis.hlen(keys.TOKENS) == 1

    run(scenario())


def test_a_change_holds_at_once_and_after_a_restart(run, redis):
    """The key stays, and when it was used; who wants to know is told."""

    async def scenario() -> None:
        store = Tokens(redis)
        old, key = await store.create(NOW, info="old", ttl=10)
        store.touch(old, NOW + 5)
        changes: list[int] = []
        store.on_change.append(changes.append)
        changed = await store.update(1, access=READER)
        assert changed is store.authenticate(key, NOW + 14, HERE)
        assert changed is not None
        assert changed is not old
        assert (changed.info, changed.access, changed.created) == ("old", READER, NOW)
        await store.update(1, enabled=False)
        assert store.authenticate(key, NOW + 14, HERE) is None
        assert changes == [1, 1]
        again = Tokens(redis)
        await again.load()
        assert again.authenticate(key, NOW, HERE) is None
        assert await store.update(2, info="x") is None

    run(scenario())


def test_a_deleted_token_opens_nothing_any_more(run, redis):
    """Several at once; what does not exist is no error."""

    async def scenario() -> None:
        store = Tokens(redis)
        made = [await store.create(NOW) for _ in range(3)]
        store.authenticate(made[0][1], NOW, HERE)
        changes: list[int] = []
        store.on_change.append(changes.append)
        await store.delete([1, 3, 99])
        assert [store.authenticate(key, NOW, HERE) for _, key in made] == [None, made[1][0], None]
        assert changes == [1, 3, 99]
        await store.delete([])
        await store.save()
        assert await redis.hkeys(keys.TOKENS) == await redis.hkeys(keys.TOKENS_ACCESSED) == [b"2"]

    run(scenario())


def test_an_id_is_never_given_twice(run, redis):
    """Or a program that remembered the old one would meet a stranger."""

    async def scenario() -> None:
        store = Tokens(redis)
        await store.create(NOW)
        await store.delete([1])
        token, _ = await store.create(NOW)
        assert token.id == 2

    run(scenario())


def test_changes_at_the_same_time_lose_nothing(run, redis):
    """One after the other, each with what the one before has made; what is deleted does not come back."""

    async def scenario() -> None:
        store = Tokens(redis)
        await store.create(NOW)
        await asyncio.gather(store.update(1, info="x"), store.update(1, enabled=False), store.update(1, ttl=9))
        token = store.get(1)
        assert token is not None
        assert (token.info, token.enabled, token.ttl) == ("x", False, 9)
        deleted, changed = await asyncio.gather(store.delete([1]), store.update(1, info="y"))
        assert changed is deleted is None
        assert store.all == {}
        assert await redis.hlen(keys.TOKENS) == 0

    run(scenario())


def test_uses_are_written_together(run, redis):
    """A thousand requests are one write, and without requests there is none."""

    async def scenario() -> None:
        store = Tokens(redis)
        made = [await store.create(NOW) for _ in range(3)]
        before = await commands(redis)
        for n in range(1000):
            store.authenticate(made[n % 2][1], NOW + n, HERE)
        await store.save()
        await store.save()
        assert await commands(redis) == before + 1
        assert await redis.hgetall(keys.TOKENS_ACCESSED) == {b"1": b"1800000998.0", b"2": b"1800000999.0"}

    run(scenario())


async def commands(redis: Any) -> int:
    """HSETs that Redis has done so far."""
    return int((await redis.info("commandstats")).get("cmdstat_hset", {"calls": 0})["calls"])


def test_uses_that_could_not_be_written_are_written_later(run, redis):
    """Redis may be away for a while."""

    async def scenario() -> None:
        store = Tokens(redis)
        _, key = await store.create(NOW)
        store.authenticate(key, NOW + 1, HERE)
        await redis.set(keys.TOKENS_ACCESSED, "in the way")
        with pytest.raises(StoreError):
            await store.save()
        await redis.delete(keys.TOKENS_ACCESSED)
        await store.save()
        assert await redis.hgetall(keys.TOKENS_ACCESSED) == {b"1": b"1800000001.0"}

    run(scenario())


def test_the_background_saves_and_purges(run, redis, monkeypatch: pytest.MonkeyPatch):
    """Again and again, also after Redis failed."""
    monkeypatch.setattr(tokens, "SAVE_EVERY", 0.01)

    async def scenario() -> None:
        store = Tokens(redis)
        _, key = await store.create(NOW)
        await store.create(1.0, ttl=1)
        store.authenticate(key, NOW, HERE)
        await redis.set(keys.TOKENS_ACCESSED, "in the way")
        running = asyncio.ensure_future(store.run())
        await asyncio.sleep(0.05)
        await redis.delete(keys.TOKENS_ACCESSED)
        while set(store.all) != {1} or not await redis.hexists(keys.TOKENS_ACCESSED, "1"):
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run(scenario(), 10)


def test_nothing_is_remembered_that_redis_does_not_have(run, redis):
    """A token that would be gone after a restart is none."""

    async def scenario() -> None:
        store = Tokens(redis)
        await redis.set(keys.TOKENS, "in the way")
        with pytest.raises(StoreError):
            await store.create(NOW)
        assert store.all == {}

    run(scenario())


def test_there_is_a_limit_to_tokens_and_to_their_ids(run, redis, monkeypatch: pytest.MonkeyPatch):
    """They are kept in memory."""
    monkeypatch.setattr(tokens, "TOKENS_MOST", 2)
    monkeypatch.setattr(tokens, "IDS_MOST_OF_ALL", 4)

    async def scenario() -> None:
        store = Tokens(redis)
        await store.create(NOW, access=READER)
        three = Access.from_json({"type": 2, "acl": [{"uri": "gw/channels", "ids": [1, 2, 3]}]})
        with pytest.raises(ItemError, match="room for 4 ids"):
            await store.create(NOW, access=three)
        await store.update(1, access=three)
        await store.create(NOW)
        with pytest.raises(ItemError, match="2 tokens, which is the limit"):
            await store.create(NOW)
        assert set(store.all) == {1, 2}

    run(scenario())
