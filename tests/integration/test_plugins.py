"""Plugins of a running gateway: what they make of a device's messages, and that a slow or wrong one harms no other."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import orjson

from integration.processes import POLL, Gateway
from integration.rest import Rest
from integration.stored import Stored, assert_nothing_lost, stored_at
from integration.test_start import assert_refuses
from integration.trackers import Connection, Fleet, Packets, imei, send_packet
from tests.brokers import Subscriber
from tests.builders import FrameFactory
from tests.targets.http import NEVER, Answer, Asked, HttpTarget

Run = Callable[..., Any]
KILLS = int(os.environ.get("GATEWAY_TEST_KILLS") or 3)
MOMENT = 1.0
FOR_EVER = {"device_messages_ttl": 100 * 365 * 86400}
"""What trackers of tests send is years old."""
DOUBLED = '''\
"""Plugin type ``speed-doubled``."""

from gateway.plugin import Context, Message, Plugin


class SpeedDoubled(Plugin):
    """Doubles the speed; it has a mistake where there is none."""

    def process(self, message: Message, context: Context) -> Message:
        message["position.speed"] = message["position.speed"] * 2 if message["position.speed"] else 1 / 0
        return message
'''


async def send_speeds(port: int, tracker: FrameFactory, *speeds: int) -> None:
    """One packet, with a record for each speed."""
    connection = await Connection.open(port)
    await connection.log_in(tracker.login())
    await connection.send(tracker.packet([tracker.record(speed=speed) for speed in speeds]))
    assert await connection.acknowledged() == len(speeds)
    connection.vanish()


def test_plugins_work_in_their_order_on_the_device_and_never_on_the_channel(
    run: Run, make_gateway: Callable[..., Gateway]
) -> None:
    """Each sees what those before it have made; the order can be changed while messages come."""
    gateway, tracker = make_gateway(limits=FOR_EVER), FrameFactory(imei(1))

    async def scenario() -> None:
        await gateway.ready()
        options = {"version": 4, "username": gateway.token}
        subscriber = await Subscriber(gateway.mqtt_port, "flespi/#", **options).subscribed()
        async with Rest(gateway) as rest:
            await rest.make_devices(imei(1))
            await make_plugin(rest, "msg-cancel", 30, validate_message="speed.scaled > 100")
            scaled = [{"name": "speed.scaled", "expression": "position.speed * speed.factor"}]
            await make_plugin(rest, "msg-expression", 20, expressions=scaled)
            await make_plugin(rest, "item-fields", 10, device_fields={"speed.factor": 2})
            await send_speeds(gateway.port, tracker, 10, 60, 20)
            first = await rest.until("devices/1/messages", lambda found: len(found) == 2)
            assert [(one["position.speed"], one["speed.scaled"]) for one in first] == [(10, 20), (20, 40)]
            entries = await rest.until("plugins/1/logs", len, filter="event_code==350")
            assert [(one["device_id"], one["ident"]) for one in entries] == [(1, imei(1))]

            await rest.call("PUT", "plugins/3", {"priority": 40})
            await send_speeds(gateway.port, tracker, 70)
            [last] = (await rest.until("devices/1/messages", lambda found: len(found) == 3))[2:]
            assert (last["position.speed"], last["speed.factor"], last.get("speed.scaled")) == (70, 2, None)

            received = await rest.until("channels/1/messages", lambda found: len(found) == 4)
        published = await subscriber.until(
            lambda messages: (
                len(_of(messages, "message/gw/devices/1")) == 3
                and len(_of(messages, f"message/gw/channels/1/{imei(1)}")) == 4
                and _of(messages, "log/gw/plugins/1/plugin_status")
            )
        )
        assert _of(published, f"message/gw/channels/1/{imei(1)}") == received
        assert [message["position.speed"] for message in received] == [10, 60, 20, 70]
        assert not {"speed.factor", "speed.scaled", "device.id"} & set().union(*received)
        assert _of(published, "message/gw/devices/1") == [*first, last]
        await subscriber.close()
        assert await gateway.stop() == 0

    run(scenario(), timeout=60)


async def make_plugin(
    rest: Rest,
    type: str,
    priority: int = 0,
    *,
    devices: str = "all",
    validate_message: str = "",
    device_fields: dict[str, Any] | None = None,
    **configuration: Any,
) -> int:
    """A plugin that is assigned to devices."""
    values = {"priority": priority, "validate_message": validate_message, "configuration": configuration}
    plugin_id = await rest.make("plugins", name=type, type_name=type, **values)
    await rest.link("plugins", plugin_id, "devices", devices, **(device_fields or {}))
    return plugin_id


def _of(messages: list[Any], topic: str) -> list[Any]:
    return [orjson.loads(message.payload) for message in messages if message.topic == f"flespi/{topic}"]


def approve(asked: Asked) -> Answer:
    """What the webhook's server says of all messages."""
    return Answer(body=orjson.dumps([{"approved": True}] * len(asked.json())))


def test_a_webhook_that_hangs_holds_up_its_own_device_and_no_other(
    run: Run, make_gateway: Callable[..., Gateway], http_target: HttpTarget
) -> None:
    """A killed gateway asks again for what it had no answer to; the order is kept, and nothing is lost or doubled."""
    gateway = make_gateway(limits=FOR_EVER)
    waiting, other = Packets(imei(1)), Packets(imei(2))
    times: dict[int, list[float]] = {1: [], 2: []}

    async def send(rest: Rest) -> None:
        for device_id, packets in ((1, waiting), (2, other)):
            times[device_id] += [at / 1000 for at in await send_packet(gateway.port, packets)]
        await rest.until("devices/2/messages", lambda found: [one["timestamp"] for one in found] == times[2], 5)

    async def scenario() -> None:
        http_target.default = NEVER
        await gateway.ready()
        options = {"version": 4, "username": gateway.token}
        async with Rest(gateway) as rest:
            await rest.make_devices(imei(1), imei(2))
            await make_plugin(rest, "msg-webhook", devices="1", uri=http_target.url, timeout=50)
            subscriber = await Subscriber(gateway.mqtt_port, "flespi/message/gw/devices/+", **options).subscribed()
            await send(rest)
            await send(rest)
            await subscriber.until(lambda messages: len(_of(messages, "message/gw/devices/2")) == 4, 5)
            await http_target.until(1)
            assert await rest.get("devices/1/messages") == _of(subscriber.messages, "message/gw/devices/1") == []
            await subscriber.close()
        gateway.kill()
        http_target.default = approve
        await gateway.ready()
        async with Rest(gateway) as rest:
            await send(rest)
            found = await rest.until("devices/1/messages", lambda found: len(found) >= len(times[1]))
            assert [one["timestamp"] for one in found] == times[1]
            assert {one.get("approved") for one in found} == {True}
            assert not any("approved" in one for one in await rest.get("devices/2/messages"))
            assert not any("approved" in one for one in await rest.get("channels/1/messages"))
        async with stored_at(gateway.socket) as stored:
            log = await stored.device_log()
        assert log == {imei(id): [round(at * 1000) for at in times[id]] for id in (1, 2)}
        assert await gateway.stop() == 0

    run(scenario(), timeout=60)


def test_killed_gateways_lose_nothing_that_waits_for_a_webhook(
    run: Run, make_gateway: Callable[..., Gateway], http_target: HttpTarget, random: Random
) -> None:
    """Half of the devices have one that takes its time; all have everything once, in order."""
    gateway = make_gateway(limits=FOR_EVER)
    size = 20

    def slowly(asked: Asked) -> Answer:
        return Answer(body=approve(asked).body, delay=random.choice((0.0, 0.02, 0.2)))

    async def scenario() -> None:
        http_target.default = slowly
        await gateway.ready()
        async with Rest(gateway) as rest:
            await rest.make_devices(*map(imei, range(size)))
            half = ",".join(map(str, range(1, size + 1, 2)))
            await make_plugin(rest, "msg-webhook", devices=half, uri=http_target.url)
        async with Fleet(gateway.port, size) as fleet:
            for _ in range(KILLS):
                await fleet.is_acknowledged()
                await asyncio.sleep(random.uniform(0, MOMENT))
                gateway.kill()
                await gateway.ready()
            await fleet.is_acknowledged()
            await fleet.finish()
        async with stored_at(gateway.socket) as stored:
            await _are_registered(stored, fleet.acknowledged)
            await assert_nothing_lost(stored, fleet.acknowledged)
            messages = await stored.decoded()
        approved = {ident: {one.get("approved") for one in found} for ident, found in messages.items()}
        assert approved == {imei(n): {True} if n % 2 == 0 else {None} for n in range(size)}
        assert await gateway.stop() == 0

    run(scenario(), timeout=60 + 10 * KILLS)


async def _are_registered(stored: Stored, wanted: dict[str, list[int]], timeout: float = 30) -> None:
    """Wait until every device has all of its messages, or as many."""
    async with asyncio.timeout(timeout):
        while any(len(times) < len(wanted[ident]) for ident, times in (await stored.device_messages()).items()):
            await asyncio.sleep(POLL)


def test_a_type_in_the_operators_folder_is_used_and_its_mistakes_are_told(
    run: Run, make_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    """A message on which it fails goes on without it, and so does everything else."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "speed_doubled.py").write_text(DOUBLED)
    gateway = make_gateway(limits=FOR_EVER, gateway={"plugin_folders": str(folder)})
    tracker = FrameFactory(imei(1))

    async def scenario() -> None:
        await gateway.ready()
        async with Rest(gateway) as rest:
            [kind] = await rest.get("plugin-types/name=speed-doubled?fields=name,description")
            assert kind["description"].startswith("Doubles the speed")
            await rest.make_devices(imei(1))
            await make_plugin(rest, "speed-doubled")
            await send_speeds(gateway.port, tracker, 10, 0, 30)
            found = await rest.until("devices/1/messages", lambda found: len(found) == 3)
            assert [one["position.speed"] for one in found] == [20, 0, 60]
            [entry] = await rest.until("plugins/1/logs", len, filter="event_code==351")
            assert (entry["reason"], entry["device_id"]) == ("ZeroDivisionError: division by zero", 1)
            assert entry["message"]["timestamp"] == found[1]["timestamp"]
            [entry] = await rest.until("devices/1/logs", len, filter="event_code==351")
            assert (entry["reason"], entry["plugin_id"]) == ("ZeroDivisionError: division by zero", 1)
            assert 'gateway_plugin_mistakes_total{type="speed-doubled"} 1.0' in await rest.metrics()
        assert "speed_doubled.py" in gateway.stderr
        assert await gateway.stop() == 0

    run(scenario(), timeout=60)


def test_a_broken_file_in_the_operators_folder_ends_the_start(
    run: Run, make_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    """One line says which file, and why; a type that is missing would change messages for good."""
    (tmp_path / "add_driver.py").write_text("import no_such_library\n")
    gateway = make_gateway(gateway={"plugin_folders": str(tmp_path)})
    run(assert_refuses(gateway, str(tmp_path / "add_driver.py"), "cannot be loaded", "no_such_library"))
