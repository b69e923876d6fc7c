"""Registration: what a device makes of the channel log, and that doing it again changes nothing."""

from __future__ import annotations

import random

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.registrar import Registrar
from gateway.store.items import Device, Items
from gateway.store.keys import ShardKeys
from gateway.store.messages import DeviceMessages
from gateway.store.reader import LogReader
from gateway.store.telemetry import Telemetry

KEYS = ShardKeys()
IDENT = "352093081452251"


class Gateway:
    """A store with one channel, and a registrar that reads it."""

    def __init__(self, redis) -> None:
        self.redis = redis
        self.items = Items(redis)
        self.messages = DeviceMessages(redis, KEYS)
        self.telemetry = Telemetry(redis, KEYS)
        self.registrar = self.new_registrar()
        self.sent = 0

    def new_registrar(self) -> Registrar:
        reader = LogReader(self.redis, KEYS, "registrar", lambda: {KEYS.channel_log(1): 1}, wait=0.001)
        return Registrar(reader, self.items, self.messages)

    async def set_up(self) -> Device:
        await self.items.create_channel(name="test", protocol_id=14)
        return await self.items.create_device(ident=IDENT, name="Van", protocol_id=14, device_type_id=303)

    async def receive(self, *messages: dict, ident: str = IDENT) -> None:
        """One packet into the channel log."""
        self.sent += 1
        stamp = 1_700_000_000_000_000 + self.sent * 1000
        texts = [
            orjson.dumps(
                {"ident": ident, "server.timestamp": (stamp + n) / 1e6, "peer": f"10.0.0.1:{self.sent}", **message}
            )
            for n, message in enumerate(messages)
        ]
        await self.redis.xadd(KEYS.channel_log(1), {"ident": ident, "messages": b"\n".join(texts)}, id=f"{stamp}-0")

    async def register(self, registrar: Registrar | None = None) -> None:
        while await (registrar or self.registrar).step():
            pass

    async def stored(self, device_id: int = 1) -> list[dict]:
        return [orjson.loads(text) for text in await self.messages.range(device_id)]

    async def logged(self) -> list[dict]:
        rows = await self.redis.xrange(KEYS.device_log)
        return [orjson.loads(text) for _id, fields in rows for text in fields[b"messages"].split(b"\n")]


def _without_arrival(message: dict) -> dict:
    return {key: value for key, value in message.items() if key not in ("server.timestamp", "peer")}


def test_a_message_gets_its_device_and_goes_everywhere(run, redis):
    """Device messages, telemetry and device log all have it, with the device's identity."""

    async def scenario() -> None:
        gateway = Gateway(redis)
        await gateway.set_up()
        await gateway.receive({"timestamp": 100, "position.latitude": 54.5, "position.longitude": 25.5, "din": 1})
        await gateway.register()
        [message] = await gateway.stored()
        assert message["device.id"] == 1
        assert message["device.name"] == "Van"
        assert message["device.type.id"] == 303
        assert await gateway.logged() == [message]
        telemetry = await gateway.telemetry.get(1)
        assert telemetry["din"] == (100, 1)
        assert telemetry["position"] == (100, {"latitude": 54.5, "longitude": 25.5})

    run(scenario())


def test_idents_without_a_device_stay_at_the_channel(run, redis):
    """And the cursor moves past them."""

    async def scenario() -> None:
        gateway = Gateway(redis)
        await gateway.set_up()
        await gateway.receive({"timestamp": 100}, ident="999")
        await gateway.register()
        assert await gateway.logged() == []
        [(_name, cursor)] = (await redis.hgetall(KEYS.cursors)).items()
        assert cursor.startswith(b"1700000000001")

    run(scenario())


def test_messages_are_ordered_by_device_time_and_a_backlog_finds_its_place(run, redis):
    """Newest-first sending changes neither the order of the device's messages nor its telemetry."""

    async def scenario() -> None:
        gateway = Gateway(redis)
        await gateway.set_up()
        for timestamp in (300, 200, 100):
            await gateway.receive({"timestamp": timestamp, "din": timestamp})
            await gateway.register()
        assert [message["timestamp"] for message in await gateway.stored()] == [100, 200, 300]
        assert (await gateway.telemetry.get(1, ["din"])) == {"din": (300, 300)}
        assert [message["timestamp"] for message in await gateway.logged()] == [300, 200, 100]

    run(scenario())


def test_the_same_timestamp_merges_unless_its_key_differs(run, redis):
    """Same parameters are overridden, new ones added; timestamp.key tells two apart."""

    async def scenario() -> None:
        gateway = Gateway(redis)
        await gateway.set_up()
        await gateway.receive({"timestamp": 100, "a": 1, "b": 1}, {"timestamp": 100, "b": 2, "c": 2})
        await gateway.register()
        await gateway.receive({"timestamp": 100, "c": 3}, {"timestamp": 100, "timestamp.key": 100.000001, "d": 4})
        await gateway.register()
        first, second = await gateway.stored()
        assert (first["a"], first["b"], first["c"]) == (1, 2, 3)
        assert second["d"] == 4
        assert "a" not in second

    run(scenario())


def test_a_resent_packet_changes_nothing(run, redis):
    """The same records once more, over another connection: no new message, telemetry as it was, nothing in the log."""

    async def scenario() -> None:
        gateway = Gateway(redis)
        await gateway.set_up()
        packet = [{"timestamp": 100 + n, "din": n % 2} for n in range(10)]
        await gateway.receive(*packet)
        await gateway.register()
        before = (await gateway.stored(), await gateway.telemetry.get(1), await gateway.logged())
        await gateway.receive(*packet)
        await gateway.register()
        assert (await gateway.stored(), await gateway.telemetry.get(1), await gateway.logged()) == before

    run(scenario())


def test_a_resent_packet_with_two_records_of_one_timestamp_changes_nothing(run, redis):
    """A periodic record and an event of the same millisecond, as trackers send them; also when only one comes again."""

    async def scenario() -> None:
        gateway = Gateway(redis)
        await gateway.set_up()
        periodic, event = {"timestamp": 100, "din": 10, "a": 1}, {"timestamp": 100, "din": 99, "b": 2}
        await gateway.receive(periodic, event)
        await gateway.register()
        before = (await gateway.stored(), await gateway.telemetry.get(1), await gateway.logged())
        for packet in ([periodic, event], [periodic], [event]):
            await gateway.receive(*packet)
            await gateway.register()
        assert (await gateway.stored(), await gateway.telemetry.get(1), await gateway.logged()) == before
        assert before[0][0]["din"] == 99

    run(scenario())


def test_impossible_coordinates_are_removed_and_marked(run, redis):
    """Zero is no position; the rest of the message stays, and telemetry's position does not lie."""

    async def scenario() -> None:
        gateway = Gateway(redis)
        await gateway.set_up()
        await gateway.receive(
            {"timestamp": 100, "position.latitude": 0, "position.longitude": 0, "position.valid": True, "din": 1}
        )
        await gateway.register()
        [message] = await gateway.stored()
        assert "position.latitude" not in message
        assert message["position.valid"] is False
        assert message["position.skipped"] is True
        assert message["din"] == 1

    run(scenario())


def test_replaying_the_log_from_its_start_changes_nothing(run, redis):
    """The cursor lost: everything is read again and ends as it was."""

    async def scenario() -> None:
        gateway = Gateway(redis)
        await gateway.set_up()
        shuffled = list(range(100, 200))
        random.Random(7).shuffle(shuffled)
        for start in range(0, 100, 5):
            await gateway.receive(*({"timestamp": at, "din": at % 2} for at in shuffled[start : start + 5]))
        await gateway.register()
        before = (await gateway.stored(), await gateway.telemetry.get(1), await gateway.logged())
        await redis.delete(KEYS.cursors)
        await gateway.register(gateway.new_registrar())
        assert (await gateway.stored(), await gateway.telemetry.get(1), await gateway.logged()) == before

    run(scenario())


def test_a_message_that_breaks_registration_stops_nobody(run, redis):
    """It is logged and skipped; what came with it is registered."""

    async def scenario() -> None:
        gateway = Gateway(redis)
        await gateway.set_up()
        await gateway.receive({"timestamp": 1})
        await gateway.receive({"timestamp": "not a number"})
        await gateway.receive({"timestamp": 2})
        await gateway.register()
        assert [message["timestamp"] for message in await gateway.stored()] == [1, 2]
        await gateway.receive({"timestamp": 3})
        await gateway.register()
        assert len(await gateway.stored()) == 3

    run(scenario())


RECORD = st.fixed_dictionaries(
    {"timestamp": st.integers(1, 6)}, optional={name: st.integers(0, 3) for name in ("din", "dout", "position.speed")}
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    packets=st.lists(st.lists(RECORD, min_size=1, max_size=4), min_size=1, max_size=8), cuts=st.sets(st.integers(0, 7))
)
def test_batches_and_restarts_make_no_difference(run, redis, packets, cuts):
    """Registered one by one, in batches, or by a new registrar each time: messages and telemetry are the same."""

    async def scenario() -> tuple:
        outcomes = []
        for boundaries in (set(range(8)), cuts, set()):
            await redis.flushall()
            gateway = Gateway(redis)
            await gateway.set_up()
            for n, packet in enumerate(packets):
                await gateway.receive(*packet)
                if n in boundaries:
                    await gateway.register(gateway.new_registrar())
            await gateway.register(gateway.new_registrar())
            telemetry = await gateway.telemetry.get(1)
            outcomes.append(
                (
                    [_without_arrival(message) for message in await gateway.stored()],
                    {name: value for name, value in telemetry.items() if name not in ("server.timestamp", "peer")},
                )
            )
        return tuple(outcomes)

    first, second, third = run(scenario())
    assert first == second == third
    expected: dict[int, dict] = {}
    parts: dict[int, list[dict]] = {}
    for record in (record for packet in packets for record in packet):
        merged = {**expected.get(record["timestamp"], {}), **record}
        is_resent = merged == expected.get(record["timestamp"]) or record in parts.get(record["timestamp"], ())
        if not is_resent:
            expected[record["timestamp"]] = merged
            parts.setdefault(record["timestamp"], []).append(record)
    assert [message["timestamp"] for message in first[0]] == sorted(expected)
    for message in first[0]:
        assert expected[message["timestamp"]].items() <= message.items()
