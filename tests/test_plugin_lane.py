"""Messages that wait for plugins which ask others: in order, beside those of other devices, once and not lost."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from attrs import evolve

from gateway import registrar
from gateway.plugin import lane
from gateway.store.event_codes import EventCode
from gateway.store.links import Link
from tests.lane_gateway import KEYS, Desk, LaneGateway
from tests.targets.http import NEVER, Answer, Asked


@pytest.fixture
def gateway(run, redis):
    """One with plugins, killed with the test."""
    made = LaneGateway(redis, Desk())
    yield made
    made.desk.release()
    run(made.kill())


def test_devices_do_not_wait_for_each_other_and_each_keeps_its_order(run, gateway):
    """While one is held back, another one has its messages; then the first one has its own, in order."""

    async def scenario() -> None:
        await gateway.set_up(3)
        await gateway.assign("asking", 1, 2)
        gateway.desk.hold(1)
        await gateway.start()
        for n in range(5):
            for device_id in (1, 2, 3):
                await gateway.send(device_id, 100 + 2 * n, 101 + 2 * n)
        await gateway.until_logged(10, 2)
        await gateway.until_logged(10, 3)
        assert await gateway.of_log(1) == []
        gateway.desk.release()
        await gateway.until_logged(10, 1)
        for device_id in (1, 2, 3):
            assert await gateway.of_log(device_id) == list(range(100, 110))
        assert None not in await gateway.of_log(1, "asked")
        assert await gateway.of_log(3, "asked") == [None] * 10
        assert [message["timestamp"] for message in await gateway.stored(1)] == list(range(100, 110))
        assert (await gateway.telemetry.get(1, ["asked"]))["asked"][0] == 109

    run(scenario())


def test_a_webhook_changes_messages_of_many_devices_in_order(run, gateway, http_target):
    """With a real server, which takes its time."""
    dice = random.Random(5)

    def answer(request: Asked) -> Answer:
        changes = [{"seen": message["device.name"] + str(message["timestamp"])} for message in request.json()]
        return Answer(200, json.dumps(changes).encode(), delay=dice.uniform(0.001, 0.03))

    async def scenario() -> None:
        http_target.default = answer
        await gateway.set_up(5)
        await gateway.assign("msg-webhook", uri=http_target.url + "/%ident%", batch=7)
        await gateway.start()
        for n in range(20):
            for device_id in range(1, 6):
                await gateway.send(device_id, *range(100 + 3 * n, 103 + 3 * n))
        for device_id in range(1, 6):
            await gateway.until_logged(60, device_id)
            assert await gateway.of_log(device_id) == list(range(100, 160))
            seen = await gateway.of_log(device_id, "seen")
            assert seen == [f"Van {device_id}{timestamp}" for timestamp in range(100, 160)]

    run(scenario())


def test_a_webhook_that_fails_lets_messages_through_as_they_were(run, gateway, http_target):
    """And says so in the logs of plugin and device; one that hangs holds nobody else up."""

    async def scenario() -> None:
        http_target.default = lambda request: NEVER if request.path == "/1" else Answer(500, b"out of order")
        await gateway.set_up(2)
        plugin_id = await gateway.assign("msg-webhook", uri=http_target.url + "/%device.id%", timeout=1)
        await gateway.start()
        await gateway.send(1, 100, 101)
        await gateway.send(2, 100, 101)
        await gateway.until_logged(2, 2)
        assert await gateway.of_log(1) == []
        await gateway.until_logged(2, 1)
        assert await gateway.of_log(1) == [100, 101]
        errors = [event for event in gateway.events if event[2] == EventCode.PLUGIN_ERROR]
        reasons = {(kind, id, fields["reason"].partition("/")[0]) for kind, id, _, fields in errors}
        late = f"127.0.0.1:{http_target.port} did not answer within 1 s"
        assert reasons == {
            ("plugins", plugin_id, "HTTP 500: out of order"), ("devices", 2, "HTTP 500: out of order"),
            ("plugins", plugin_id, late), ("devices", 1, late),
        }  # fmt: skip

    run(scenario())


def test_what_waits_survives_a_kill(run, gateway):
    """It is asked about again; nothing is lost, and nothing comes twice."""

    async def scenario() -> None:
        await gateway.set_up()
        await gateway.assign()
        gateway.desk.hold(1)
        await gateway.start()
        await gateway.send(1, 100, 101, 102)
        await gateway.until(lambda: gateway.desk.questions)
        await gateway.send(1, 103)
        gateway.desk.hold(1)
        await gateway.restart()
        await gateway.send(1, 104)
        await gateway.until(lambda: len(gateway.desk.questions) > 1)
        assert await gateway.of_log() == []
        gateway.desk.release()
        await gateway.until_logged(5)
        await gateway.until_idle()
        assert await gateway.of_log() == [100, 101, 102, 103, 104]

    run(scenario())


def test_what_came_back_survives_a_kill(run, gateway):
    """The registrar ended before it could read it."""

    async def scenario() -> None:
        await gateway.set_up()
        await gateway.assign()
        gateway.desk.hold(1)
        await gateway.start()
        await gateway.send(1, 100, 101)
        await gateway.until(lambda: gateway.desk.questions)
        registrar = gateway.tasks.pop()
        registrar.cancel()
        await asyncio.wait([registrar])
        gateway.desk.release()
        await gateway.until(lambda: gateway.redis.xlen(KEYS.processed))
        assert await gateway.of_log() == []
        await gateway.send(1, 102)
        await gateway.restart()
        await gateway.until_logged(3)
        await gateway.until_idle()
        assert await gateway.of_log() == [100, 101, 102]
        assert len(gateway.desk.questions) == 2

    run(scenario())


@pytest.mark.parametrize("seed", range(3))
def test_kills_at_any_moment_lose_nothing_and_repeat_nothing(run, gateway, seed):
    """While packets come: each message is handed on once, in the order of its device."""
    dice = random.Random(seed)

    async def scenario() -> None:
        await gateway.set_up(4)
        await gateway.assign("asking", 1, 2, 3)
        await gateway.start()
        for n in range(60):
            for device_id in range(1, 5):
                await gateway.send(device_id, 100 + 2 * n, 101 + 2 * n)
            if dice.random() < 0.5:
                await asyncio.sleep(dice.uniform(0, 0.02))
            if dice.random() < 0.4:
                await gateway.restart()
        await gateway.until_idle()
        for device_id in range(1, 5):
            assert await gateway.of_log(device_id) == list(range(100, 220))
            assert len(await gateway.stored(device_id)) == 120
            await gateway.until(lambda id=device_id: not gateway.deferred.is_away(id), "is it back")

    run(scenario())


def test_a_device_that_stores_nothing_has_its_messages_handed_on(run, gateway):
    """Once each, in order, also over a kill."""

    async def scenario() -> None:
        await gateway.set_up()
        await gateway.items.change_device(1, lambda device: evolve(device, messages_ttl=0))
        await gateway.assign()
        await gateway.start()
        for n in range(20):
            await gateway.send(1, 100 + n)
            if n == 10:
                await gateway.restart()
        await gateway.until_idle()
        assert await gateway.of_log() == list(range(100, 120))
        assert await gateway.stored() == []
        assert (await gateway.telemetry.get(1, ["timestamp"]))["timestamp"][1] == 119

    run(scenario())


@pytest.mark.parametrize("how", ["link", "plugin", "disabled"])
def test_messages_stay_behind_earlier_ones_when_the_plugin_goes(run, gateway, how):
    """Those that came before it went have been asked about, later ones have not; then none goes aside any more."""

    async def scenario() -> None:
        await gateway.set_up()
        plugin_id = await gateway.assign()
        gateway.desk.hold(1)
        await gateway.start()
        await gateway.send(1, 100, 101)
        await gateway.until(lambda: gateway.desk.questions)
        if how == "link":
            await gateway.items.links.remove([Link("plugins", plugin_id, "devices", 1)])
        elif how == "plugin":
            await gateway.items.delete_other("plugins", plugin_id)
        else:
            await gateway.items.change_plugin(plugin_id, lambda plugin: evolve(plugin, enabled=False))
        await gateway.send(1, 102, 103)
        await gateway.until_read(KEYS.channel_log(1))
        gateway.desk.release()
        await gateway.until_logged(4)
        await gateway.until_idle()
        assert await gateway.of_log() == [100, 101, 102, 103]
        assert await gateway.of_log(name="asked") == [1, 1, None, None]
        await gateway.until(lambda: not gateway.deferred.is_away(1), "nothing is away")
        before = await gateway.redis.xlen(KEYS.processed)
        await gateway.send(1, 104)
        await gateway.until_logged(5)
        assert await gateway.redis.xlen(KEYS.processed) == before

    run(scenario())


def test_a_plugin_that_comes_finds_earlier_messages_registered(run, gateway):
    """From the next packet on, messages go aside."""

    async def scenario() -> None:
        await gateway.set_up()
        await gateway.start()
        await gateway.send(1, 100)
        await gateway.until_logged(1)
        await gateway.assign()
        await gateway.send(1, 101)
        await gateway.until_logged(2)
        assert await gateway.of_log(name="asked") == [None, 1]

    run(scenario())


def test_a_plugin_that_comes_while_messages_are_registered_keeps_no_other_one_from_them(run, gateway, monkeypatch):
    """What one that answers at once shall take out of messages is never stored."""

    async def scenario() -> None:
        await gateway.set_up()
        await gateway.assign("msg-erase", parameters=["secret"])
        load_states = gateway.messages.load_states

        async def load_while_a_plugin_comes(ids):
            monkeypatch.undo()
            await gateway.assign()
            return await load_states(ids)

        monkeypatch.setattr(gateway.messages, "load_states", load_while_a_plugin_comes)
        await gateway.start()
        await gateway.send(1, 100, secret=1)
        await gateway.until_logged(1)
        await gateway.send(1, 101, secret=2)
        await gateway.until_logged(2)
        assert await gateway.of_log(name="secret") == [None, None]
        assert await gateway.of_log(name="asked") == [None, 1]

    run(scenario())


def test_a_message_that_breaks_registration_when_it_comes_back_sends_no_later_ones_aside(run, gateway, monkeypatch):
    """It is skipped, and not waited for."""

    async def scenario() -> None:
        await gateway.set_up()
        plugin_id = await gateway.assign()
        finish = registrar.finished

        def break_down(arrived, device):
            if arrived.message.get("breaks"):
                raise ValueError("it breaks registration")
            return finish(arrived, device)

        monkeypatch.setattr(registrar, "finished", break_down)
        await gateway.start()
        await gateway.send(1, 100, breaks=1)
        await gateway.until(lambda: gateway.desk.questions, "it is asked about")
        await gateway.until_idle()
        await gateway.items.delete_other("plugins", plugin_id)
        await gateway.until(lambda: not gateway.deferred.is_away(1), "nothing is away")

    run(scenario())


def test_devices_of_the_same_plugins_share_their_bound_and_it_goes_with_them(run, gateway, monkeypatch):
    """Whatever plugins there were, nothing is kept of them."""
    monkeypatch.setattr(lane, "AT_ONCE", 2)

    async def scenario() -> None:
        await gateway.set_up(devices=4)
        await gateway.assign()
        gateway.desk.hold(1, 2, 3, 4)
        await gateway.start()
        for device_id in range(1, 5):
            await gateway.send(device_id, 100)
        await gateway.until_read(KEYS.channel_log(1))
        await gateway.until(lambda: len(gateway.lane._tasks) == 4 and len(gateway.desk.questions) == 2, "two at once")
        assert len(gateway.lane._gates) == 1
        gateway.desk.release()
        await gateway.until_idle()
        assert len(gateway.desk.questions) == 4
        await gateway.until(lambda: not gateway.lane._tasks and not gateway.lane._gates, "nothing is kept")

    run(scenario())


def test_a_plugin_that_is_changed_gets_what_is_on_its_way_to_it_before_it_is_closed(run, gateway):
    """Messages that are at an earlier plugin of the chain are for this one as it was."""

    async def scenario() -> None:
        await gateway.set_up()
        await gateway.assign("asking")
        second = await gateway.assign("asking")
        await gateway.start()
        closed_after: list[int] = []
        plugin = gateway.chains._running[second].plugin

        async def close() -> None:
            closed_after.append(len(gateway.desk.questions))

        plugin.close = close
        gateway.desk.hold(1)
        await gateway.send(1, 100)
        await gateway.until(lambda: gateway.desk.questions, "the first one is asked")
        await gateway.items.change_plugin(second, lambda old: evolve(old, name="changed"))
        for _ in range(10):  # it would be closed now
            await asyncio.sleep(0)
        gateway.desk.release()
        await gateway.until_logged(1)
        await gateway.until(lambda: closed_after, "the one before the change is closed")
        assert closed_after == [2]

    run(scenario())


def test_a_device_that_is_deleted_leaves_nothing_behind(run, gateway):
    """What waits for it goes with it, whenever the answer comes; others go on."""

    async def scenario() -> None:
        await gateway.set_up(2)
        await gateway.assign()
        gateway.desk.hold(1)
        await gateway.start()
        await gateway.send(1, 100, 101)
        await gateway.send(2, 100)
        await gateway.until(lambda: 1 in dict(gateway.desk.questions))
        await gateway.send(1, 102)
        await gateway.items.delete_device(1)
        gateway.desk.release()
        await gateway.send(2, 101)
        await gateway.until_logged(2, 2)
        await gateway.until_idle()
        assert await gateway.of_log(1) == []
        assert await gateway.redis.exists(KEYS.deferred(1)) == 0
        await gateway.until(lambda: not gateway.deferred.is_away(1), "nothing is away")

    run(scenario())


def test_a_resent_packet_changes_nothing(run, gateway):
    """Although the answer is another one each time; also when the gateway was killed between."""

    async def scenario() -> None:
        await gateway.set_up()
        await gateway.assign()
        await gateway.start()
        await gateway.send(1, 100, 101, din=1)
        await gateway.until_logged(2)
        before = (await gateway.stored(), await gateway.telemetry.get(1), await gateway.logged())
        await gateway.send(1, 100, 101, din=1)
        await gateway.until(lambda: len(gateway.desk.questions) == 2)
        await gateway.restart()
        await gateway.send(1, 100, 101, din=1)
        await gateway.send(1, 102)
        await gateway.until_logged(3)
        await gateway.until_idle()
        stored, telemetry, logged = await gateway.stored(), await gateway.telemetry.get(1), await gateway.logged()
        assert (stored[:2], logged[:2]) == (before[0], before[2])
        assert len(logged) == 3
        assert telemetry["din"] == before[1]["din"]

    run(scenario())


def test_a_resent_packet_changes_nothing_after_its_plugin_went(run, gateway):
    """What the plugin has erased does not come back."""

    async def scenario() -> None:
        await gateway.set_up()
        await gateway.assign()
        eraser = await gateway.assign("msg-erase", parameters=["din"])
        await gateway.start()
        await gateway.send(1, 100, din=1)
        await gateway.until_logged(1)
        before = await gateway.stored()
        assert "din" not in before[0]
        for plugin_id in (eraser, 1):
            await gateway.items.delete_other("plugins", plugin_id)
        await gateway.send(1, 100, din=1)
        await gateway.send(1, 101, din=1)
        await gateway.until_logged(2)
        assert (await gateway.stored())[0] == before[0]
        assert await gateway.of_log() == [100, 101]

    run(scenario())


def test_messages_of_one_timestamp_merge_as_they_would_without(run, gateway):
    """A periodic record and an event of the same time, which the desk marks alike."""

    async def scenario() -> None:
        await gateway.set_up()
        await gateway.assign()
        await gateway.start()
        await gateway.receive({"timestamp": 100, "a": 1, "b": 1}, {"timestamp": 100, "b": 2}, ident="1")
        await gateway.until_logged(2)
        [message] = await gateway.stored()
        assert (message["a"], message["b"], message["asked"]) == (1, 2, 1)

    run(scenario())


def test_posted_messages_go_the_same_way(run, gateway):
    """Asked about, in order with those of the tracker that came before; the same again is no repetition."""

    async def scenario() -> None:
        await gateway.set_up()
        await gateway.assign()
        gateway.desk.hold(1)
        await gateway.start()
        await gateway.send(1, 100)
        await gateway.until(lambda: gateway.desk.questions)
        await gateway.post({"timestamp": 101, "din": 1}, {"timestamp": 102})
        await gateway.until_read(KEYS.posted)
        assert await gateway.of_log() == []
        gateway.desk.release()
        await gateway.until_logged(3)
        assert await gateway.of_log() == [100, 101, 102]
        assert await gateway.of_log(name="asked") == [1, 2, 2]
        await gateway.post({"timestamp": 101, "din": 2})
        await gateway.post({"timestamp": 101, "din": 1})
        await gateway.until_logged(5)
        assert (await gateway.telemetry.get(1, ["din"]))["din"] == (101, 1)

    run(scenario())


def test_dropped_messages_are_gone_and_hold_nobody_up(run, gateway):
    """Each is told of."""

    async def scenario() -> None:
        await gateway.set_up()
        plugin_id = await gateway.assign()
        await gateway.start()
        await gateway.send(1, 100, 101, drop=True)
        await gateway.send(1, 102)
        await gateway.until_logged(1)
        await gateway.until_idle()
        assert await gateway.of_log() == [102]
        drops = [event for event in gateway.events if event[2] == EventCode.PLUGIN_STATUS]
        assert [(kind, id) for kind, id, _, _ in drops] == [("plugins", plugin_id), ("devices", 1)] * 2

    run(scenario())


def test_where_too_many_wait_they_pass_until_few_do(run, gateway, monkeypatch):
    """In order; the log of events says why they were not asked about."""
    monkeypatch.setattr(lane, "WAITING_MOST", 150)

    async def scenario() -> None:
        await gateway.set_up(2)
        await gateway.assign()
        gateway.desk.hold(1)
        await gateway.start()
        await gateway.send(1, 1)
        await gateway.until(lambda: gateway.desk.questions)
        for n in range(40):
            await gateway.send(1, *range(100 + 10 * n, 110 + 10 * n))
        await gateway.send(2, 100)
        await gateway.until_logged(1, 2)
        await gateway.until(lambda: _waiting(gateway, 401))
        gateway.desk.release()
        await gateway.until_logged(401)
        assert await gateway.of_log() == [1, *range(100, 500)]
        asked = await gateway.of_log(name="asked")
        assert asked[0] == 1
        assert [number is not None for number in asked[1:]] == [False] * 300 + [True] * 100
        assert await gateway.of_log(2, "asked") == [2]
        reasons = {fields.get("reason", "") for _, _, code, fields in gateway.events if code == EventCode.PLUGIN_ERROR}
        assert [reason for reason in reasons if "more than 150" in reason]

    run(scenario())


async def _waiting(gateway: LaneGateway, count: int) -> bool:
    return bool(await gateway.redis.llen(KEYS.deferred(1)) == count)
