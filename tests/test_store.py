"""Items, device messages, telemetry rules, trimming and the gate."""

from __future__ import annotations

import asyncio

import pytest
from attrs import evolve

from gateway.errors import ConfigError, OperatorError, StoreError, StoreUnavailable
from gateway.store import lease
from gateway.store.connection import connect, store_errors
from gateway.store.embedded import EmbeddedRedis
from gateway.store.gate import Gate
from gateway.store.items import Change, Items
from gateway.store.keys import ShardKeys
from gateway.store.messages import DeviceChange, DeviceMessages, score
from gateway.store.telemetry import MOST_PARAMETERS, Telemetry, update
from gateway.store.trim import Trimmer

KEYS = ShardKeys()


def test_every_key_of_a_shard_has_its_hash_tag():
    """A Redis Cluster keeps a shard together."""
    keys = ShardKeys(3)
    names = [keys.channel_log(1), keys.parked(1), keys.device_log, keys.cursors, keys.messages(1), keys.telemetry(1)]
    assert all(name.startswith("gw:{s3}:") for name in names)


def test_items_outlive_the_process(run, redis):
    """What is created is found again by another process, by name and by ident."""

    async def scenario() -> None:
        items = Items(redis)
        changes: list[Change] = []
        items.on_change.append(changes.append)
        channel = await items.create_channel(name="a", protocol_id=14, configuration={"listen": ["tcp:1"]})
        device = await items.create_device(ident="77", name="Van", protocol_id=14, device_type_id=303)
        changed = await items.change_channel(1, lambda channel: evolve(channel, messages_ttl=5))
        assert changes == [
            Change("channels", 1, None, channel),
            Change("devices", 1, None, device),
            Change("channels", 1, channel, changed),
        ]
        again = Items(redis)
        await again.load()
        assert again.find_channel("a") == changed
        assert again.device_for(14, "77") == device
        assert again.device_for(13, "77") is None

    run(scenario())


def test_an_ident_belongs_to_one_device(run, redis):
    """A second device with it is refused, and two connections that register it at the same moment get the same."""

    async def scenario() -> None:
        items = Items(redis)
        values = {"name": "x", "protocol_id": 14, "device_type_id": 303}
        first, second = await asyncio.gather(*(items.register_device(ident="77", **values) for _ in range(2)))
        assert first is second
        with pytest.raises(OperatorError, match="has the ident 77 already"):
            await items.create_device(ident="77", **values)

    run(scenario())


def test_a_disabled_device_gets_no_messages(run, redis):
    """It exists, but its ident is not registered."""

    async def scenario() -> None:
        items = Items(redis)
        await items.create_device(ident="77", name="x", protocol_id=14, device_type_id=303, enabled=False)
        assert items.device_for(14, "77") is None
        assert items.find_device(14, "77") is not None

    run(scenario())


def test_telemetry_never_goes_backwards():
    """An older message sets only what nothing newer has set; the same time overrides."""
    values: dict = {}
    assert update(values, {"timestamp": 20, "a": 1}) == {"timestamp", "a"}
    assert update(values, {"timestamp": 10, "a": 2, "b": 2}) == {"b"}
    assert update(values, {"timestamp": 20, "a": 3}) == {"timestamp", "a"}
    assert values == {"timestamp": (20, 20), "a": (20, 3), "b": (10, 2)}


def test_position_is_the_object_of_the_last_message_that_has_one():
    """flespi's virtual parameter."""
    values: dict = {}
    update(values, {"timestamp": 1, "position.latitude": 1.5, "position.speed": 3})
    update(values, {"timestamp": 2, "din": 1})
    assert values["position"] == (1, {"latitude": 1.5, "speed": 3})
    update(values, {"timestamp": 3, "position.latitude": 2.5})
    assert values["position"] == (3, {"latitude": 2.5})
    update(values, {"timestamp": 2, "position.latitude": 9.5})
    assert values["position"] == (3, {"latitude": 2.5})


def _text(at: int) -> bytes:
    return b'{"timestamp":%d}' % at


async def _store(messages: DeviceMessages, *times: int, device_id: int = 1) -> None:
    change = DeviceChange(device_id, "77", {score(at): _text(at) for at in times})
    await messages.commit([change], {})


def test_ranges_of_messages(run, redis):
    """From and to are inclusive, count bounds, reverse begins at the newest."""

    async def scenario() -> None:
        messages = DeviceMessages(redis, KEYS)
        await _store(messages, 1, 2, 3, 4)
        assert await messages.range(1, 2, 3) == [_text(2), _text(3)]
        assert await messages.range(1, count=2) == [_text(1), _text(2)]
        assert await messages.range(1, count=2, reverse=True) == [_text(4), _text(3)]

    run(scenario())


def test_messages_expire_by_age_and_by_size(run, redis):
    """messages_ttl goes by the device's time; messages_rotate keeps the newest bytes."""

    async def scenario() -> None:
        messages = DeviceMessages(redis, KEYS)
        await _store(messages, *range(1000, 2000))
        assert await messages.trim(1, before=1500, rotate=0) == 500
        assert (await messages.range(1))[0] == _text(1500)
        size = len(_text(1500))
        assert await messages.trim(1, before=0, rotate=100 * size) == 400
        left = await messages.range(1)
        assert left == [_text(at) for at in range(1900, 2000)]
        assert int(await redis.hget(KEYS.sizes, "1")) == 100 * size

    run(scenario())


NOW = 1_000_000


async def _trimmer(redis, **options) -> Trimmer:
    items = Items(redis)
    await items.create_channel(name="a", protocol_id=14, messages_ttl=100)
    return Trimmer(
        redis, KEYS, items, DeviceMessages(redis, KEYS),
        channel_readers=lambda id: ["registrar", "mqtt"], device_readers=lambda: ["mqtt"], now=lambda: NOW, **options,
    )  # fmt: skip


async def _fill(redis) -> None:
    """1,000 entries, one a second, the last one now."""
    async with redis.pipeline() as pipe:
        for at in range(NOW - 999, NOW + 1):
            pipe.xadd(KEYS.channel_log(1), {"ident": "x", "messages": "{}" * 200}, id=f"{at * 1_000_000}-0")
        await pipe.execute()


async def _cursor(redis, reader: str, at: int) -> None:
    await redis.hset(KEYS.cursors, f"{reader}|{KEYS.channel_log(1)}", f"{at * 1_000_000}-0")


def test_a_log_is_trimmed_to_its_ttl_once_all_have_read_it(run, redis):
    """Approximately: whole nodes of the stream go, never more than what is old enough."""

    async def scenario() -> None:
        trimmer = await _trimmer(redis)
        await _fill(redis)
        for reader in ("registrar", "mqtt"):
            await _cursor(redis, reader, NOW)
        await trimmer.trim()
        assert 100 <= await redis.xlen(KEYS.channel_log(1)) <= 300

    run(scenario())


def test_what_a_reader_still_needs_is_kept(run, redis):
    """The slowest reader counts, and one that has never begun needs everything."""

    async def scenario() -> None:
        trimmer = await _trimmer(redis)
        await _fill(redis)
        await _cursor(redis, "registrar", NOW)
        await trimmer.trim()
        assert await redis.xlen(KEYS.channel_log(1)) == 1000
        await _cursor(redis, "mqtt", NOW - 500)
        await trimmer.trim()
        [(first, _fields)] = await redis.xrange(KEYS.channel_log(1), count=1)
        assert int(first.split(b"-")[0]) <= (NOW - 499) * 1_000_000
        assert await redis.xlen(KEYS.channel_log(1)) >= 500

    run(scenario())


def test_a_reader_that_is_down_for_too_long_is_given_up(run, redis):
    """The documented bound: reader_retention."""

    async def scenario() -> None:
        trimmer = await _trimmer(redis, reader_retention=300)
        await _fill(redis)
        await _cursor(redis, "registrar", NOW)
        await trimmer.trim()
        assert await redis.xlen(KEYS.channel_log(1)) == 301

    run(scenario())


def test_the_gate_is_closed_while_any_cause_holds_it():
    """Each cause is taken back by itself; subscribers hear of changes only."""
    gate = Gate()
    heard: list[bool] = []
    gate.subscribe("me", heard.append)
    gate.close("disk", "full")
    gate.close("redis", "away")
    gate.open("disk")
    assert not gate.is_open
    assert gate.reasons == ("away",)
    gate.open("redis")
    gate.open("redis")
    assert gate.is_open
    assert heard == [False, True]
    gate.unsubscribe("me")
    gate.close("disk", "full")
    assert heard == [False, True]


def test_an_address_that_is_none_is_a_matter_of_configuration():
    """The error names the key and what would be right."""
    with pytest.raises(ConfigError, match=r"redis\.url"):
        connect("http://localhost")


def test_a_redis_that_is_not_there_is_unavailable(run, tmp_path):
    """No other error than ours leaves the store."""

    async def scenario() -> None:
        client = connect(f"unix://{tmp_path}/none.sock")
        with pytest.raises(StoreUnavailable):
            await Telemetry(client, KEYS).get(1)
        await client.aclose()

    run(scenario())


def test_a_wrong_type_of_key_is_an_error_of_the_store(run, redis):
    """Somebody else uses our names: said so, not raised as the library's error."""

    async def scenario() -> None:
        await redis.set(KEYS.telemetry(1), "not a hash")
        with pytest.raises(StoreError, match="wrong kind of value"):
            await Telemetry(redis, KEYS).get(1)
        with pytest.raises(StoreError), store_errors():
            await redis.execute_command("NOSUCHCOMMAND")

    run(scenario())


def test_a_store_has_one_gateway(run, redis, monkeypatch):
    """A second one waits for the first to expire, and is refused when it does not."""
    monkeypatch.setattr(lease, "WAIT", 0.1)

    async def scenario() -> None:
        first, second = lease.Lease(redis, KEYS), lease.Lease(redis, KEYS)
        await first.take()
        with pytest.raises(OperatorError, match="another gateway uses this Redis"):
            await second.take()
        await second.release()
        with pytest.raises(OperatorError, match="another gateway uses this Redis"):
            await second.take()
        await first.release()
        await second.take()

    run(scenario())


def test_a_gateway_whose_lease_was_taken_stops(run, redis, monkeypatch):
    """It was out of reach for too long; one that only expired is taken again."""
    monkeypatch.setattr(lease, "RENEW_EVERY", 0.01)

    async def scenario() -> None:
        held = lease.Lease(redis, KEYS)
        await held.take()
        keeping = asyncio.ensure_future(held.keep())
        await redis.delete(KEYS.lease)
        async with asyncio.timeout(5):
            while not await redis.exists(KEYS.lease):
                await asyncio.sleep(0.01)
        await redis.set(KEYS.lease, "another")
        with pytest.raises(OperatorError, match="another gateway took this Redis"):
            await asyncio.wait_for(keeping, 5)

    run(scenario())


def test_telemetry_has_a_bound_on_parameters_and_texts():
    """A tracker can send 65,536 AVL ids, each with 64 KiB."""
    values: dict = {}
    update(values, {"timestamp": 1, **{f"custom.param.{n}": n for n in range(3000)}})
    assert len(values) == MOST_PARAMETERS
    changed = update(values, {"timestamp": 2, "custom.param.5": "x" * 5000, "custom.param.6": 7})
    assert "custom.param.5" not in changed
    assert values["custom.param.6"] == (2, 7)


def test_a_clock_that_is_ahead_by_years_does_not_freeze_telemetry():
    """Its value has the time of reception, and the next good message replaces it."""
    values: dict = {}
    update(values, {"timestamp": 9e9, "server.timestamp": 1000.5, "a": 1})
    assert values["a"] == (1000.5, 1)
    update(values, {"timestamp": 1001, "server.timestamp": 1001.5, "a": 2})
    assert values["a"] == (1001, 2)


def test_messages_from_the_future_expire_after_their_reception(run, redis):
    """By their timestamp they would stay for ever."""

    async def scenario() -> None:
        messages = DeviceMessages(redis, KEYS)
        texts = [b'{"timestamp":%d,"server.timestamp":%d}' % (NOW + 10**9, at) for at in (NOW - 50, NOW - 500)]
        await messages.commit(
            [DeviceChange(1, "77", {score(NOW + 10**9 + n): text for n, text in enumerate(texts)})], {}
        )
        assert await messages.trim_future(1, now=NOW, ttl=100) == 1
        assert await messages.range(1) == texts[:1]

    run(scenario())


def test_a_full_redis_can_still_be_trimmed(run, tmp_path):
    """Or it would stay full: the count of bytes is what cannot be written then."""

    async def scenario() -> None:
        server = EmbeddedRedis(tmp_path)
        await server.start()
        client = connect(server.url)
        messages = DeviceMessages(client, KEYS)
        await _store(messages, *range(1000, 1010))
        await client.config_set("maxmemory", "1")
        assert await messages.trim(1, before=1005, rotate=0) == 5
        assert await messages.range(1) == [_text(at) for at in range(1005, 1010)]
        await client.aclose()
        await server.stop()

    run(scenario())
