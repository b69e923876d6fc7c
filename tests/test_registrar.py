"""Registration: what a device makes of the channel log, and that doing it again changes nothing."""

from __future__ import annotations

import random

import orjson
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.registrar import Registrar
from gateway.store.items import Device, Items
from gateway.store.keys import ShardKeys
from gateway.store.masks import Masks
from gateway.store.messages import DeviceMessages
from gateway.store.posted import Post, Posted
from gateway.store.reader import LogReader
from gateway.store.telemetry import Telemetry

KEYS = ShardKeys()
IDENT = "352093081452251"
POSTED_AT = 1_700_000_500.0


class Gateway:
    """A store with one channel, and a registrar that reads it."""

    def __init__(self, redis) -> None:
        self.redis = redis
        self.items = Items(redis)
        self.messages = DeviceMessages(redis, KEYS)
        self.telemetry = Telemetry(redis, KEYS)
        self.posted = Posted(redis, KEYS, lambda: POSTED_AT)
        self.events: list[tuple] = []
        self.forgotten: list[tuple[int, set[str]]] = []
        self.registered: list[int] = []
        self.registrar = self.new_registrar()
        self.sent = 0

    def new_registrar(self) -> Registrar:
        streams = {KEYS.channel_log(1): 1, KEYS.posted: 0}
        reader = LogReader(self.redis, KEYS, "registrar", lambda: streams, wait=0.001)
        return Registrar(
            reader, self.items, self.messages, self.registered.append,
            posted=KEYS.posted,
            record=lambda *event, **fields: self.events.append((*event, fields)),
            forgotten=lambda device_id, names: self.forgotten.append((device_id, names)),
        )  # fmt: skip

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

    async def post(self, *messages: dict, device_id: int = 1) -> None:
        """Messages that come by the API."""
        await self.posted.add([Post(self.items.devices[device_id], messages)])

    async def forget(self, parameters: str, device_id: int = 1) -> None:
        """An order to delete telemetry."""
        await self.posted.add([Post(self.items.devices[device_id], forget=Masks.parse(parameters))])

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


def test_a_posted_message_goes_the_way_of_all(run, redis):
    """Position rules, device's identity, messages, telemetry, device log."""

    async def scenario() -> None:
        gateway = Gateway(redis)
        await gateway.set_up()
        await gateway.post(
            {"timestamp": 100, "din": 1, "device.id": 99, "position.latitude": 91, "position.longitude": 1}
        )
        await gateway.register()
        [message] = await gateway.stored()
        assert message == {
            "ident": IDENT, "timestamp": 100, "din": 1, "server.timestamp": POSTED_AT, "protocol.id": 14,
            "device.id": 1, "device.name": "Van", "device.type.id": 303,
            "position.valid": False, "position.skipped": True,
        }  # fmt: skip
        assert await gateway.logged() == [message]
        assert (await gateway.telemetry.get(1))["din"] == (100, 1)
        assert gateway.registered == [0], "it took no room in a channel's log"

    run(scenario())


def test_a_posted_message_changes_the_stored_one(run, redis):
    """Which keeps what the posted one says nothing of; telemetry's position is that of both together."""

    async def scenario() -> None:
        gateway = Gateway(redis)
        await gateway.set_up()
        where = {"position.latitude": 54.5, "position.longitude": 25.5}
        await gateway.receive(
            {"timestamp": 100, **where, "position.valid": True, "din": 1}, {"timestamp": 101, "din": 2}
        )
        await gateway.register()
        await gateway.post({"timestamp": 100, "position.valid": False, "note": "tunnel"})
        await gateway.register()
        first, second = await gateway.stored()
        assert {**where, "position.valid": False, "note": "tunnel", "din": 1}.items() <= first.items()
        assert second["din"] == 2
        position = (await gateway.telemetry.get(1, ["position"]))["position"]
        assert position == (100, {"latitude": 54.5, "longitude": 25.5, "valid": False})
        assert [message.get("note") for message in await gateway.logged()] == [None, None, "tunnel"]

    run(scenario())


def test_what_was_posted_can_be_taken_back(run, redis):
    """Though the tracker said the same before; and what the tracker sends once more changes nothing then."""

    async def scenario() -> None:
        gateway = Gateway(redis)
        await gateway.set_up()
        await gateway.receive({"timestamp": 100, "din": 1})
        for value in (2, 1, 3, True):
            await gateway.post({"timestamp": 100, "din": value})
            await gateway.register()
            assert [message["din"] for message in await gateway.stored()] == [value]
        assert (await gateway.stored())[0]["din"] is True
        await gateway.post({"timestamp": 100, "din": True})
        await gateway.receive({"timestamp": 100, "din": 1})
        await gateway.register()
        assert (await gateway.stored())[0]["din"] is True
        assert len(await gateway.logged()) == 5

    run(scenario())


def test_trackers_messages_and_posted_ones_of_one_time_merge_in_one_batch(run, redis):
    """In whichever order they are read, the parameters of both are there, and each is handed on once."""

    async def scenario() -> None:
        gateway = Gateway(redis)
        await gateway.set_up()
        await gateway.receive({"timestamp": 100, "a": 1})
        await gateway.post({"timestamp": 100, "b": 2}, {"timestamp": 100, "c": 3})
        await gateway.receive({"timestamp": 100, "d": 4})
        await gateway.register()
        [message] = await gateway.stored()
        assert {"a": 1, "b": 2, "c": 3, "d": 4}.items() <= message.items()
        assert len(await gateway.logged()) == 4

    run(scenario())


def test_a_posted_message_reaches_a_disabled_device_and_not_a_deleted_one(run, redis):
    """Disabled: its tracker is not welcome. Deleted: nothing of it shall come to be again."""

    async def scenario() -> None:
        gateway = Gateway(redis)
        device = await gateway.set_up()
        await gateway.items.change_device(device.id, lambda old: evolve(old, enabled=False))
        await gateway.receive({"timestamp": 1})
        await gateway.post({"timestamp": 2})
        await gateway.register()
        assert [message["timestamp"] for message in await gateway.stored()] == [2]
        await gateway.post({"timestamp": 3})
        await gateway.items.delete_device(device.id)
        await gateway.register()
        assert [message["timestamp"] for message in await gateway.stored()] == [2]

    run(scenario())


def test_deleted_telemetry_stays_away_until_a_message_has_it(run, redis):
    """The registrar knows the values it has in memory; those go too."""

    async def scenario() -> None:
        gateway = Gateway(redis)
        await gateway.set_up()
        await gateway.receive({"timestamp": 100, "can.a": 1, "can.b": 2, "din": 3})
        await gateway.register()
        await gateway.forget("can.*,nothing")
        await gateway.register()
        assert gateway.forgotten == [(1, {"can.a", "can.b"})]
        await gateway.receive({"timestamp": 101, "din": 4})
        await gateway.receive({"timestamp": 100, "can.a": 1, "can.b": 2, "din": 3})
        await gateway.register()
        telemetry = await gateway.telemetry.get(1)
        assert telemetry.keys() & {"can.a", "can.b", "din"} == {"din"}
        await gateway.receive({"timestamp": 50, "can.a": 7})
        await gateway.register()
        assert (await gateway.telemetry.get(1, ["can.a"])) == {"can.a": (50, 7)}
        await gateway.forget("all")
        await gateway.register()
        assert await gateway.telemetry.get(1) == {}
        assert len(await gateway.stored()) == 3, "messages are another matter"

    run(scenario())


def test_deletion_and_messages_in_one_batch_keep_their_order(run, redis):
    """What came before it goes, what comes after it stays."""

    async def scenario() -> None:
        gateway = Gateway(redis)
        await gateway.set_up()
        await gateway.post({"timestamp": 100, "a": 1, "b": 1})
        await gateway.forget("a,b")
        await gateway.post({"timestamp": 101, "b": 2})
        await gateway.register()
        telemetry = await gateway.telemetry.get(1)
        assert "a" not in telemetry
        assert telemetry["b"] == (101, 2)

    run(scenario())


def test_a_device_that_stores_nothing_hands_on_all_the_same(run, redis):
    """messages_ttl 0: telemetry and the device log, no messages."""

    async def scenario() -> None:
        gateway = Gateway(redis)
        device = await gateway.set_up()
        await gateway.items.change_device(device.id, lambda old: evolve(old, messages_ttl=0))
        await gateway.receive({"timestamp": 100, "din": 1, "position.speed": 5}, {"timestamp": 100, "dout": 2})
        await gateway.register()
        assert await gateway.stored() == []
        assert await redis.exists(KEYS.merged(1), KEYS.messages(1)) == 0
        assert len(await gateway.logged()) == 2
        telemetry = await gateway.telemetry.get(1)
        assert (telemetry["din"], telemetry["dout"], telemetry["position"]) == ((100, 1), (100, 2), (100, {"speed": 5}))
        await gateway.items.change_device(device.id, lambda old: evolve(old, messages_ttl=100))
        await gateway.receive({"timestamp": 100, "din": 2})
        await gateway.register()
        assert [message["din"] for message in await gateway.stored()] == [2]

    run(scenario())


def test_removed_coordinates_are_told_once_a_batch(run, redis):
    """flespi's event 305; not for what is sent once more, nor for a message without any."""

    async def scenario() -> None:
        gateway = Gateway(redis)
        await gateway.set_up()
        nowhere = {"position.latitude": 0, "position.longitude": 0}
        packet = [{"timestamp": 1, **nowhere}, {"timestamp": 2, **nowhere}, {"timestamp": 3, "din": 1}]
        await gateway.receive(*packet)
        await gateway.register()
        await gateway.receive(*packet)
        await gateway.receive({"timestamp": 4, "position.latitude": 1.5, "position.longitude": 1.5})
        await gateway.register()
        [(kind, device_id, code, fields)] = gateway.events
        assert (kind, device_id, code) == ("devices", 1, 305)
        assert fields["ident"] == IDENT
        assert fields["messages"] == 2
        assert fields["parameters"] == ["position.latitude", "position.longitude"]

    run(scenario())


def test_a_changed_device_is_read_again(run, redis):
    """Its messages may have been trimmed meanwhile, by whoever changed it."""

    async def scenario() -> None:
        gateway = Gateway(redis)
        device = await gateway.set_up()
        await gateway.receive({"timestamp": 100, "din": 1})
        await gateway.register()
        await redis.delete(KEYS.telemetry(device.id))
        await gateway.items.change_device(device.id, lambda old: evolve(old, name="Bus"))
        await gateway.receive({"timestamp": 50, "din": 2})
        await gateway.register()
        telemetry = await gateway.telemetry.get(device.id)
        assert telemetry["din"] == (50, 2)
        assert telemetry["device.name"] == (50, "Bus")

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
