"""What comes by the API waits in a stream until the registrar has it."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from gateway.errors import StoreFull
from gateway.store import posted as module
from gateway.store.changes import Forget
from gateway.store.items import Items
from gateway.store.masks import Masks
from gateway.store.posted import MESSAGES_OF_AN_ENTRY, Post, Posted, order_of
from tests.history import KEYS, make_device

NOW = 1_700_000_000.0


async def _entries(redis) -> list[tuple[int, list]]:
    """(device, lines) of each entry."""
    rows = await redis.xrange(KEYS.posted)
    return [
        (int(fields[b"device"]), [orjson.loads(line) for line in fields[b"messages"].split(b"\n")])
        for _id, fields in rows
    ]


async def _confirm(redis, entry_id: str) -> None:
    await redis.hset(KEYS.cursors, f"registrar|{KEYS.posted}", entry_id)


def test_messages_get_what_the_gateway_knows(run, redis):
    """Whatever they say themselves of the ident and of when they came; the time of the tracker is theirs."""

    async def scenario() -> None:
        device = await make_device(Items(redis))
        posted = Posted(redis, KEYS, lambda: NOW)
        await posted.add([Post(device, [{"timestamp": 5, "ident": "x", "server.timestamp": 1, "a": "ü"}, {"b": 1}])])
        [(device_id, [first, second])] = await _entries(redis)
        own = {"ident": "77", "protocol.id": 14}
        assert device_id == device.id
        assert first == {"timestamp": 5, "a": "ü", "server.timestamp": NOW, **own}
        assert second == {"timestamp": NOW + 1e-6, "b": 1, "server.timestamp": NOW + 1e-6, **own}

    run(scenario())


def test_many_messages_are_several_entries(run, redis):
    """None of which keeps the registrar for long; the last one is waited for."""

    async def scenario() -> None:
        items = Items(redis)
        posted = Posted(redis, KEYS, lambda: NOW)
        devices = [await make_device(items, ident=str(n)) for n in range(3)]
        messages = [{"timestamp": n} for n in range(2 * MESSAGES_OF_AN_ENTRY + 1)]
        last = await posted.add(Post(device, messages) for device in devices)
        entries = await _entries(redis)
        assert [(device_id, len(lines)) for device_id, lines in entries] == [
            (device.id, count) for device in devices for count in (MESSAGES_OF_AN_ENTRY, MESSAGES_OF_AN_ENTRY, 1)
        ]
        [(newest, _fields)] = await redis.xrevrange(KEYS.posted, count=1)
        assert newest.decode() == last

    run(scenario())


def test_an_order_is_no_message(run, redis):
    """A message cannot pass for an order, whatever it has in it."""

    async def scenario() -> None:
        device = await make_device(Items(redis))
        await Posted(redis, KEYS).add([Post(device, forget=Masks.parse("a,can.*"))])
        [(_id, fields)] = await redis.xrange(KEYS.posted)
        order = order_of(fields[b"messages"])
        assert isinstance(order, Forget)
        assert order.masks.texts == ("a", "can.*")
        assert order_of(orjson.dumps({"[": ["a"]})) is None

    run(scenario())


def test_whoever_posts_waits_for_the_registrar(run, redis):
    """Until its cursor has passed, or for so long."""

    async def scenario() -> None:
        device = await make_device(Items(redis))
        posted = Posted(redis, KEYS)
        first = await posted.add([Post(device, [{"a": 1}])])
        second = await posted.add([Post(device, [{"a": 2}])])
        await _confirm(redis, first)
        assert await posted.wait(first, 5)
        assert not await posted.wait(second, 0.05)
        waiting = [asyncio.ensure_future(posted.wait(second, 5)) for _ in range(50)]
        await asyncio.sleep(0)
        await _confirm(redis, second)
        assert await asyncio.gather(*waiting) == [True] * 50

    run(scenario())


def test_however_many_wait_redis_is_asked_now_and_then(run, redis):
    """Not by each of them."""

    async def scenario() -> None:
        device = await make_device(Items(redis))
        posted = Posted(redis, KEYS)
        last = await posted.add([Post(device, [{"a": 1}])])
        await redis.config_resetstat()
        assert await asyncio.gather(*(posted.wait(last, 0.1) for _ in range(50))) == [False] * 50
        calls = (await redis.info("commandstats"))["cmdstat_hget"]["calls"]
        assert 1 <= calls <= 30

    run(scenario())


def test_a_registrar_that_is_far_behind_is_not_given_more(run, redis, monkeypatch):
    """The stream has a bound; what the registrar has read makes room."""
    monkeypatch.setattr(module, "MOST_WAITING", 3)

    async def scenario() -> None:
        device = await make_device(Items(redis))
        posted = Posted(redis, KEYS)
        ids = [await posted.add([Post(device, [{"a": n}])]) for n in range(3)]
        with pytest.raises(StoreFull, match="wait for registration"):
            await posted.add([Post(device, [{"a": 4}])])
        await _confirm(redis, ids[1])
        await posted.add([Post(device, [{"a": 5}])])
        assert [lines[0]["a"] for _device, lines in await _entries(redis)] == [1, 2, 5]
        with pytest.raises(StoreFull):
            await posted.add([Post(device, [{"a": n}]) for n in range(4)])

    run(scenario())
