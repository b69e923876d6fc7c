"""Fan-out to a real Mosquitto, also one that goes away and comes back."""

from __future__ import annotations

import signal
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest

from integration.processes import Gateway
from integration.stored import Times, assert_holds, assert_in_order
from integration.trackers import Fleet, Packets, imei, send_packet
from tests.brokers import Mosquitto, Received, Subscriber

Run = Callable[..., Any]
CHANNEL_TOPIC, DEVICE_TOPIC = "flespi/message/gw/channels/1/", "flespi/message/gw/devices/"
STATUS = "flespi/state/gw/status/avl-gateway"


@pytest.mark.parametrize("victim", ["broker", "gateway"])
def test_a_subscriber_gets_every_message_in_order_whoever_fails(
    run: Run,
    make_gateway: Callable[..., Gateway],
    make_mosquitto: Callable[..., Mosquitto],
    tmp_path: Path,
    victim: str,
) -> None:
    """The broker stops and starts, or the gateway is killed: what comes again comes behind what came first."""
    persistence = ("allow_anonymous true", "persistence true", f"persistence_location {tmp_path}/")
    mosquitto = make_mosquitto(*persistence)
    gateway = make_gateway(mqtt={"url": mosquitto.url})

    async def fail(times: int, fleet: Fleet) -> None:
        if victim == "gateway":
            gateway.kill()
            await gateway.ready()
            return
        mosquitto.stop()
        await fleet.is_acknowledged(each=5)
        mosquitto.start()
        await gateway.says("connected to mqtt", times=times + 1)

    async def scenario() -> None:
        topics = {"topic": "flespi/message/gw/#", "version": 4, "client_id": "persistent", "clean_session": False}
        subscriber = await Subscriber(mosquitto.port, **topics).subscribed()
        await gateway.ready()
        async with Fleet(gateway.port, pause=0.1) as fleet:
            for times in (1, 2):
                await fleet.is_acknowledged(each=5)
                await fail(times, fleet)
            await fleet.is_acknowledged(each=5)
            await fleet.finish()
        await subscriber.until(lambda messages: _has_all(messages, fleet), timeout=40)
        await subscriber.close()
        for prefix in (CHANNEL_TOPIC, DEVICE_TOPIC):
            found = _times(subscriber.messages, prefix)
            assert_holds(fleet.acknowledged, found, prefix)
            assert_in_order(found, prefix)
        assert await gateway.stop() == 0

    run(scenario(), timeout=110)


def _has_all(messages: list[Received], fleet: Fleet) -> bool:
    """Cheap enough to be asked after each message."""
    return len(messages) >= 2 * fleet.count and all(
        sum(map(len, map(set, _times(messages, prefix).values()))) >= fleet.count
        for prefix in (CHANNEL_TOPIC, DEVICE_TOPIC)
    )


def _times(messages: Iterable[Received], prefix: str) -> Times:
    times: Times = defaultdict(list)
    for received in messages:
        if received.topic.startswith(prefix):
            message = orjson.loads(received.payload)
            times[message["ident"]].append(round(message["timestamp"] * 1000))
    return times


@pytest.mark.parametrize("version", [4, 5])
def test_an_external_broker_gets_messages_telemetry_and_properties(
    run: Run, make_gateway: Callable[..., Gateway], mosquitto: Mosquitto, version: int
) -> None:
    """On MQTT 5 each message has flespi's user properties ``timestamp`` and ``cid``; on 3.1.1 it cannot have any."""
    gateway = make_gateway(mqtt={"url": mosquitto.url, "version": version})
    ident = imei(0)
    wanted = {
        CHANNEL_TOPIC + ident,
        DEVICE_TOPIC + "1",
        "flespi/state/gw/devices/1/telemetry/position.speed",
        "flespi/state/gw/devices/1/connected",
    }

    async def scenario() -> None:
        subscriber = await Subscriber(mosquitto.port).subscribed()
        await gateway.ready()
        times = await send_packet(gateway.port, Packets(ident))
        messages = await subscriber.until(lambda messages: wanted <= {message.topic for message in messages})
        await subscriber.close()
        by_topic = {message.topic: message for message in messages if message.topic in wanted}
        for topic in (CHANNEL_TOPIC + ident, DEVICE_TOPIC + "1"):
            message = orjson.loads(by_topic[topic].payload)
            assert message["timestamp"] == times[-1] / 1000
            stamp = {"timestamp": orjson.dumps(message["timestamp"]).decode(), "cid": "1"}
            assert by_topic[topic].properties == (stamp if version == 5 else {})
        assert by_topic["flespi/state/gw/devices/1/telemetry/position.speed"].payload == b"50"
        assert await gateway.stop() == 0

    run(scenario())


@pytest.mark.parametrize("version", [4, 5])
def test_the_status_topic_tells_birth_goodbye_and_death(
    run: Run, make_gateway: Callable[..., Gateway], mosquitto: Mosquitto, version: int
) -> None:
    """Retained: a goodbye has a time, a will cannot have one."""
    gateway = make_gateway(mqtt={"url": mosquitto.url, "version": version})

    async def scenario() -> None:
        subscriber = await Subscriber(mosquitto.port, STATUS).subscribed()
        await gateway.ready()
        await subscriber.until(lambda messages: len(messages) == 1)
        assert await gateway.stop() == 0
        await subscriber.until(lambda messages: len(messages) == 2)
        await gateway.ready()
        await subscriber.until(lambda messages: len(messages) == 3)
        gateway.send(signal.SIGKILL)
        messages = await subscriber.until(lambda messages: len(messages) == 4)
        told = [orjson.loads(message.payload) for message in messages]
        assert [status["connected"] for status in told] == [True, False, True, False]
        assert ["timestamp" in status for status in told] == [True, True, True, False]
        late = await Subscriber(mosquitto.port, STATUS).subscribed()
        retained = (await late.until(lambda messages: messages))[0]
        assert retained.is_retained
        assert orjson.loads(retained.payload) == told[-1]
        await subscriber.close()
        await late.close()

    run(scenario())
