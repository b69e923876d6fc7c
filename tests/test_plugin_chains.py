"""The chains of all devices follow what the operator changes, and registration goes through them."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import orjson
import pytest
from attrs import evolve

from gateway.plugin.chains import Chains
from gateway.plugin.lane import Lane
from gateway.plugin.types import OURS, PluginType, find_types
from gateway.registrar import Registrar
from gateway.store.deferred import Deferred
from gateway.store.event_codes import EventCode
from gateway.store.items import Link
from gateway.store.reader import LogReader
from tests.plugin_examples import EXAMPLES, Example
from tests.plugin_parts import Asks, Does, marks
from tests.test_registrar import KEYS, Gateway


class Scene:
    """A gateway, its chains, and what they record."""

    def __init__(self, redis: Any, types: dict[str, PluginType] | None = None) -> None:
        self.gateway = Gateway(redis)
        self.items = self.gateway.items
        self.events: list[tuple[str, int, EventCode, dict[str, Any]]] = []
        self.chains = Chains(self.items, types or find_types(), self._record)

    def _record(self, kind: str, id: int, code: EventCode, **fields: Any) -> None:
        self.events.append((kind, id, code, fields))

    async def add(self, type: str = "msg-expression", *, assign: bool = True, fields: Any = None, **values: Any) -> int:
        """A plugin of the one device; msg-expression puts its name into the list of who has seen the message."""
        name = values.get("name", "a")
        if type == "msg-expression":
            seen = f'exists("seen") ? concat(seen, "{name}") : "{name}"'
            values.setdefault("configuration", {"expressions": [{"name": "seen", "expression": seen}]})
        plugin = await self.items.create_plugin(type=type, **{"name": name, **values})
        if assign:
            await self.items.links.put([Link("plugins", plugin.id, "devices", 1, fields or {})])
        return plugin.id

    def process(self, **message: Any) -> Any:
        """What becomes of a message of the device."""
        chain = self.chains.of(self.items.devices[1])
        given = {"timestamp": 100, "server.timestamp": 110.5, **message}
        return chain.process(given, {}, 0.0) if chain is not None else given

    async def change(self, id: int, **values: Any) -> None:
        await self.items.change_plugin(id, lambda plugin: evolve(plugin, **values))

    def codes(self, kind: str) -> list[EventCode]:
        return [code for of, _, code, _ in self.events if of == kind]


@pytest.fixture
def scene(run, redis):
    made = Scene(redis)
    run(made.gateway.set_up())
    run(made.chains.start())
    yield made
    run(made.chains.stop())


def test_the_order_is_by_priority_and_then_by_id(run, scene: Scene):
    """Not by when they were assigned."""

    async def scenario() -> None:
        ids = [
            await scene.add(name=name, priority=priority, assign=False)
            for name, priority in (("c", 5), ("d", 5), ("b", 0), ("a", -1))
        ]
        for id in reversed(ids):
            await scene.items.links.put([Link("plugins", id, "devices", 1)])
        assert scene.process()["seen"] == "abcd"
        await scene.change(ids[0], priority=9)
        assert scene.process()["seen"] == "abdc"

    run(scenario())


def test_a_change_of_a_plugin_holds_for_the_next_message(run, scene: Scene):
    """Its configuration, its validator, whether it is enabled, and its end."""

    async def scenario() -> None:
        id = await scene.add(name="a")
        assert scene.process()["seen"] == "a"
        await scene.change(id, configuration={"expressions": [{"name": "seen", "expression": "1 + 1"}]})
        assert scene.process()["seen"] == 2
        await scene.change(id, validate_message="din == 1")
        assert "seen" not in scene.process()
        assert scene.process(din=1)["seen"] == 2
        await scene.change(id, enabled=False)
        assert scene.chains.of(scene.items.devices[1]) is None
        await scene.change(id, enabled=True, validate_message="")
        assert scene.process()["seen"] == 2
        await scene.items.delete_other("plugins", id)
        assert "seen" not in scene.process()

    run(scenario())


def test_a_change_of_an_assignment_holds_for_the_next_message(run, scene: Scene):
    """Its fields, and its end; both ends hear of the beginning and the end."""

    async def scenario() -> None:
        id = await scene.add("item-fields", fields={"driver": "Bob"})
        assert scene.process()["driver"] == "Bob"
        link = Link("plugins", id, "devices", 1, {"driver": "Eve"})
        await scene.items.links.put([link])
        assert scene.process()["driver"] == "Eve"
        await scene.items.links.remove([link])
        assert "driver" not in scene.process()
        begun_and_ended = [EventCode.PLUGIN_ACTIVATED, EventCode.PLUGIN_DEACTIVATED]
        assert scene.codes("plugins") == scene.codes("devices") == begun_and_ended
        assert scene.events[0] == ("plugins", id, EventCode.PLUGIN_ACTIVATED, {"device_id": 1})

    run(scenario())


def test_plugins_that_were_there_before_are_started(run, redis, scene: Scene):
    """As after a restart."""

    async def scenario() -> None:
        await scene.add(name="a")
        again = Scene(redis)
        await again.items.load()
        await again.chains.start()
        assert again.process()["seen"] == "a"
        await again.chains.stop()

    run(scenario())


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"type": "no-such-type"}, "there is no plugin type no-such-type any more"),
        ({"type": "msg-erase", "configuration": {}}, "missing required field `parameters`"),
        ({"type": "msg-erase", "configuration": {"parameters": ["ident"]}}, "ident cannot be removed"),
        ({"type": "msg-cancel", "validate_message": "1 +"}, "column"),
    ],
)
def test_a_plugin_that_cannot_be_used_passes_messages_by(run, scene: Scene, values: dict[str, Any], reason: str):
    """It is told why, in its log and to who asks; mending it helps."""

    async def scenario() -> None:
        id = await scene.add(**values)
        assert reason in scene.chains.problem(id)
        assert scene.process(din=1)["din"] == 1
        assert ("plugins", id, EventCode.CONFIGURATION_INVALID) in [event[:3] for event in scene.events]
        await scene.change(id, type="msg-cancel", configuration={}, validate_message="")
        assert scene.chains.problem(id) == ""
        assert scene.process() is None

    run(scenario())


def test_drops_and_errors_stand_in_both_logs(run, scene: Scene):
    """Which message it was is told, with its time beside the entry's own; an error shows all of it."""

    async def scenario() -> None:
        wrong = {"expressions": [{"name": "a", "expression": '"x" * 2'}]}
        failing = await scene.add(name="wrong", configuration=wrong)
        cancel = await scene.add("msg-cancel")
        scene.events.clear()
        assert scene.process(ident="123", din=1) is None
        about = {"ident": "123", "message_timestamp": 100, "server.timestamp": 110.5}
        message = {"ident": "123", "timestamp": 100, "server.timestamp": 110.5, "din": 1}
        error = {**about, "reason": 'a: column 5: a text is no number; tonumber() reads one: "x" * 2'}
        drop = {**about, "reason": "the message is not registered"}
        assert scene.events == [
            ("plugins", failing, EventCode.PLUGIN_ERROR, {**error, "device_id": 1, "message": message}),
            ("devices", 1, EventCode.PLUGIN_ERROR, {**error, "plugin_id": failing}),
            ("plugins", cancel, EventCode.PLUGIN_STATUS, {**drop, "device_id": 1}),
            ("devices", 1, EventCode.PLUGIN_STATUS, {**drop, "plugin_id": cancel}),
        ]

    run(scenario())


class Opening(Does):
    """Notes that it was opened and closed; it cannot be opened."""

    seen: list[str] = []

    def __init__(self, config: Any) -> None:
        super().__init__(marks("a"))

    async def open(self) -> None:
        self.seen.append("open")
        raise OSError("no such file")

    async def close(self) -> None:
        self.seen.append("close")


def test_plugins_are_opened_and_closed(run, redis):
    """One that cannot be opened is told of in its log, and gets messages all the same."""

    async def scenario() -> None:
        scene = Scene(redis, {"opening": PluginType("opening", Opening, OURS)})
        await scene.gateway.set_up()
        await scene.chains.start()
        id = await scene.add("opening")
        await asyncio.sleep(0)
        assert ("plugins", id, EventCode.PLUGIN_ERROR, {"reason": "no such file"}) in scene.events
        assert scene.process()["seen"] == ["a"]
        await scene.change(id, name="another")
        await scene.chains.stop()
        assert Opening.seen == ["open", "close", "open", "close"]

    run(scenario())


# -- through the registrar


def registrar(scene: Scene, **parts: Any) -> Registrar:
    gateway = scene.gateway
    streams = {KEYS.channel_log(1): 1, KEYS.posted: 0, KEYS.processed: 0}
    reader = LogReader(gateway.redis, KEYS, "registrar", lambda: streams, wait=0.001)
    return Registrar(reader, gateway.items, gateway.messages, posted=KEYS.posted, chains=scene.chains, **parts)


EACH_EXAMPLE = [
    pytest.param(name, example, id=f"{name}-{number}")
    for name, examples in EXAMPLES.items()
    for number, example in enumerate(examples)
    if not example.is_remote
]


@pytest.mark.parametrize(("type", "example"), EACH_EXAMPLE)
def test_what_the_channel_has_stays_as_it_came(run, scene: Scene, type: str, example: Example):
    """Whatever a plugin does shows at the device alone, and the identity of both stays."""

    async def scenario() -> None:
        gateway = scene.gateway
        await scene.add(type, configuration=example.config, fields=example.fields)
        before = {"timestamp": 1_700_000_000, **example.telemetry}
        await gateway.receive(before, {"timestamp": 1_700_000_001, **example.message})
        channel = await gateway.redis.xrange(KEYS.channel_log(1))
        await gateway.register(registrar(scene))
        assert await gateway.redis.xrange(KEYS.channel_log(1)) == channel
        for message in await gateway.stored():
            assert message["device.name"] == "Van"
            assert message["ident"] == "352093081452251"

    run(scenario())


def test_a_dropped_message_is_nowhere_at_the_device(run, scene: Scene):
    """No message, no telemetry, nothing handed on; those beside it are."""

    async def scenario() -> None:
        await scene.add("msg-cancel", validate_message="din == 1")
        await scene.gateway.receive({"timestamp": 100, "din": 1, "ain": 5}, {"timestamp": 101, "din": 2})
        await scene.gateway.register(registrar(scene))
        [stored] = await scene.gateway.stored()
        assert stored["din"] == 2
        assert await scene.gateway.logged() == [stored]
        assert "ain" not in await scene.gateway.telemetry.get(1)

    run(scenario())


def test_the_last_values_follow_within_a_packet(run, scene: Scene):
    """``#name`` is of the message before, in the same packet as well."""

    async def scenario() -> None:
        computed = [{"name": "before", "expression": "#din"}]
        await scene.add(name="before", configuration={"expressions": computed})
        await scene.gateway.receive(*({"timestamp": 100 + n, "din": n} for n in range(3)))
        await scene.gateway.receive({"timestamp": 200, "din": 9})
        await scene.gateway.register(registrar(scene))
        assert [message.get("before") for message in await scene.gateway.stored()] == [None, 0, 1, 2]

    run(scenario())


def test_coordinates_that_cannot_be_are_no_last_values(run, scene: Scene):
    """They are removed from the message only after its plugins; the next one in the packet does not find them."""

    async def scenario() -> None:
        computed = [{"name": "km", "expression": "round(mileage())"}]
        await scene.add(name="km", configuration={"expressions": computed}, validate_message="position.valid")
        place = {"position.longitude": 25.0, "position.valid": True}
        await scene.gateway.receive(
            {"timestamp": 100, "position.latitude": 54.0, **place},
            {"timestamp": 101, "position.latitude": 0, "position.longitude": 0, "position.valid": False},
            {"timestamp": 102, "position.latitude": 55.0, **place},
        )
        await scene.gateway.register(registrar(scene))
        assert [message.get("km") for message in await scene.gateway.stored()] == [None, None, 111]

    run(scenario())


def test_a_packet_that_is_sent_again_changes_nothing(run, scene: Scene):
    """Also where what the plugin makes of it differs each time."""

    async def scenario() -> None:
        await scene.add(name="now", configuration={"expressions": [{"name": "at", "expression": "server.timestamp"}]})
        for _ in range(2):
            await scene.gateway.receive({"timestamp": 100, "din": 1})
        await scene.gateway.register(registrar(scene))
        assert len(await scene.gateway.logged()) == 1

    run(scenario())


def test_beside_the_registrar_plugins_see_the_same(run, redis, tmp_path: Path):
    """A message that waits for a plugin which asks others has its device's identity, too."""

    class Answers(Asks):
        def __init__(self, config: Any) -> None:
            super().__init__(lambda messages: [message | {"asked": message["device.name"]} for message in messages])

    async def scenario() -> None:
        types = {**find_types(), "answers": PluginType("answers", Answers, tmp_path)}
        scene = Scene(redis, types)
        await scene.gateway.set_up()
        await scene.add("answers")
        named = [{"name": "said", "expression": 'concat(device.name, " ", asked)'}]
        await scene.add(name="after", configuration={"expressions": named})
        deferred = Deferred(redis, KEYS)
        lane = Lane(deferred, scene.items, scene.chains, scene.gateway.telemetry)
        made = registrar(scene, deferred=deferred, wake=lane.wake, processed=KEYS.processed)
        running = asyncio.ensure_future(lane.run())
        await scene.gateway.receive({"timestamp": 100, "din": 1})
        while not await scene.gateway.stored():
            await made.step()
        [stored] = await scene.gateway.stored()
        assert (stored["said"], stored["din"]) == ("Van Van", 1)
        assert await scene.gateway.logged() == [stored]
        channel = await redis.xrange(KEYS.channel_log(1))
        assert b"asked" not in orjson.dumps(channel[0][1][b"messages"].decode())
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await scene.chains.stop()

    run(scenario())
