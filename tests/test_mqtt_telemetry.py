"""Retained telemetry: only what changed, not too often, the last value always, and all of it to a new broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from brokers import Mosquitto, Proxy, Received, Subscriber
from test_mqtt_client import TOPICS, make_client

from gateway import metrics
from gateway.mqtt.telemetry import TelemetryTopics
from gateway.store.keys import ShardKeys
from gateway.store.reader import LogReader
from gateway.store.telemetry import Telemetry, encode_value

KEYS = ShardKeys()
ALL = "flespi/state/gw/devices/#"


class Devices:
    """What the registrar would do: telemetry in Redis, and an entry in the device log."""

    def __init__(self, redis) -> None:
        self._redis = redis
        self._entries = 0

    async def set(self, device_id: int, ts: float, **values: Any) -> None:
        fields = {name: encode_value(ts, value) for name, value in values.items()}
        self._entries += 1
        await self._redis.hset(KEYS.telemetry(device_id), mapping=fields)
        entry = {"ident": "x", "device": str(device_id), "messages": "{}"}
        await self._redis.xadd(KEYS.device_log, entry, id=f"{self._entries}-0")

    async def until_confirmed(self) -> None:
        while await self._redis.hget(KEYS.cursors, f"telemetry|{KEYS.device_log}") != b"%d-0" % self._entries:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def publishing(redis, url: str, device_ids: list[int], **options: Any) -> AsyncIterator[TelemetryTopics]:
    client = make_client(url, **{name: options.pop(name) for name in ("version",) if name in options})
    reader = LogReader(redis, KEYS, "telemetry", lambda: {KEYS.device_log: 0})
    source = Telemetry(redis, KEYS)
    topics = TelemetryTopics(client, reader, source, TOPICS, lambda: device_ids, **({"interval": 0.05} | options))
    tasks = [asyncio.ensure_future(client.run()), asyncio.ensure_future(topics.run())]
    try:
        yield topics
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def values(messages: list[Received]) -> dict[str, Any]:
    """The last value by device and parameter, as a subscriber would see it."""
    return {
        message.topic.removeprefix("flespi/state/gw/devices/"): orjson.loads(message.payload or b'"removed"')
        for message in messages
    }


def test_a_parameter_is_a_retained_bare_value(run, redis, mosquitto: Mosquitto):
    """JSON as it is, with the time of the message that brought it."""

    async def scenario() -> None:
        devices = Devices(redis)
        position = {"latitude": 54.5, "longitude": 25.25, "valid": True}
        await devices.set(7, 1000.5, position=position, **{"engine.ignition.status": True, "vehicle.vin": "WAU"})
        async with publishing(redis, mosquitto.url, [7]):
            await devices.until_confirmed()
        late = await Subscriber(mosquitto.port, ALL).subscribed()
        messages = await late.until(lambda messages: len(messages) == 3)
        assert values(messages) == {
            "7/telemetry/position": position,
            "7/telemetry/engine.ignition.status": True,
            "7/telemetry/vehicle.vin": "WAU",
        }
        assert all(message.is_retained and message.qos == 1 for message in messages)
        assert messages[0].properties == {"timestamp": "1000.5", "cid": "1"}
        await late.close()

    run(scenario())


def test_only_what_changed_is_published(run, redis, mosquitto: Mosquitto):
    """A value that came again is no news, though its time is newer."""

    async def scenario() -> None:
        devices = Devices(redis)
        subscriber = await Subscriber(mosquitto.port, ALL).subscribed()
        async with publishing(redis, mosquitto.url, [7]):
            await devices.set(7, 1, speed=10, fuel=50)
            await devices.until_confirmed()
            await devices.set(7, 2, speed=11, fuel=50)
            await devices.until_confirmed()
            messages = await subscriber.until(lambda messages: len(messages) >= 3)
        assert sorted(message.payload for message in messages) == [b"10", b"11", b"50"]
        await subscriber.close()

    run(scenario())


def test_the_interval_holds_and_the_last_value_arrives(run, redis, mosquitto: Mosquitto):
    """Fifty changes within one interval are one or two messages, the last of them the newest value."""

    async def scenario() -> None:
        devices = Devices(redis)
        subscriber = await Subscriber(mosquitto.port, ALL).subscribed()
        async with publishing(redis, mosquitto.url, [7], interval=0.5):
            for speed in range(50):
                await devices.set(7, speed, speed=speed)
            await devices.until_confirmed()
            messages = await subscriber.until(lambda messages: messages and messages[-1].payload == b"49")
        assert len(messages) <= 3
        await subscriber.close()

    run(scenario())


def test_a_new_connection_gets_everything(run, redis, mosquitto: Mosquitto):
    """A broker may have forgotten what it retained: all devices are published anew, also those that say nothing."""

    async def scenario() -> None:
        proxy = Proxy(mosquitto.port)
        await proxy.start()
        devices = Devices(redis)
        for device_id in (7, 8):
            await devices.set(device_id, 1, speed=device_id)
        async with publishing(redis, proxy.url, [7, 8]):
            await devices.until_confirmed()
            mosquitto.kill()
            mosquitto.start()
            subscriber = await Subscriber(mosquitto.port, ALL).subscribed()
            messages = await subscriber.until(lambda messages: len(values(messages)) == 2)
        assert values(messages) == {"7/telemetry/speed": 7, "8/telemetry/speed": 8}
        await subscriber.close()
        await proxy.stop()

    run(scenario())


def test_a_parameter_that_is_gone_is_taken_from_the_broker(run, redis, mosquitto: Mosquitto):
    """Deleted telemetry is not retained for ever."""

    async def scenario() -> None:
        devices = Devices(redis)
        subscriber = await Subscriber(mosquitto.port, ALL).subscribed()
        async with publishing(redis, mosquitto.url, [7]) as topics:
            await devices.set(7, 1, speed=10, fuel=50)
            await subscriber.until(lambda messages: len(messages) == 2)
            await redis.hdel(KEYS.telemetry(7), "fuel")
            topics.refresh([7])
            messages = await subscriber.until(lambda messages: len(messages) == 3)
        assert values(messages) == {"7/telemetry/speed": 10, "7/telemetry/fuel": "removed"}
        await subscriber.close()

    run(scenario())


def test_a_parameter_name_that_breaks_topics_is_skipped(run, redis, mosquitto: Mosquitto):
    """Posted messages may hold any name; the others are published."""

    async def scenario() -> None:
        before = metrics.value("mqtt_messages_skipped", reason="no topic")
        devices = Devices(redis)
        subscriber = await Subscriber(mosquitto.port, ALL).subscribed()
        async with publishing(redis, mosquitto.url, []):
            await devices.set(7, 1, **{"a/b": 1, "#": 1, "good": 1})
            await devices.until_confirmed()
            messages = await subscriber.until(len)
        assert values(messages) == {"7/telemetry/good": 1}
        assert metrics.value("mqtt_messages_skipped", reason="no topic") > before
        await subscriber.close()

    run(scenario())


def test_devices_beyond_the_memory_are_published_in_full(run, redis, mosquitto: Mosquitto):
    """What is not remembered is taken for changed: nothing is missed."""

    async def scenario() -> None:
        devices = Devices(redis)
        subscriber = await Subscriber(mosquitto.port, ALL).subscribed()
        async with publishing(redis, mosquitto.url, [], known_devices=1):
            for ts in (1, 2):
                for device_id in (7, 8):
                    await devices.set(device_id, ts, speed=5)
                    await devices.until_confirmed()
            messages = await subscriber.until(lambda messages: len(messages) == 4)
        assert values(messages) == {"7/telemetry/speed": 5, "8/telemetry/speed": 5}
        await subscriber.close()

    run(scenario())


def test_deleted_parameters_leave_the_broker(run, redis, mosquitto: Mosquitto):
    """Also those that another process had published; what has come back meanwhile stays."""

    async def scenario() -> None:
        devices = Devices(redis)
        await devices.set(7, 1, speed=10, fuel=50, level=3)
        async with publishing(redis, mosquitto.url, [7]):
            await devices.until_confirmed()
        await redis.hdel(KEYS.telemetry(7), "speed", "fuel")
        await devices.set(7, 2, fuel=49)
        watching = await Subscriber(mosquitto.port, ALL).subscribed()
        async with publishing(redis, mosquitto.url, [7]) as topics:
            topics.forget(7, ["speed", "fuel", "not/a/level"])
            await watching.until(lambda messages: values(messages).get("7/telemetry/speed") == "removed")
            await watching.until(lambda messages: values(messages).get("7/telemetry/fuel") == 49)
        late = await Subscriber(mosquitto.port, ALL).subscribed()
        messages = await late.until(lambda messages: len(messages) == 2)
        assert values(messages) == {"7/telemetry/fuel": 49, "7/telemetry/level": 3}
        await watching.close()
        await late.close()

    run(scenario())


def test_a_deletion_that_the_broker_did_not_take_is_told_again(run, redis, mosquitto: Mosquitto):
    """The connection was lost before it was acknowledged."""

    async def scenario() -> None:
        devices = Devices(redis)
        watching = await Subscriber(mosquitto.port, ALL).subscribed()
        proxy = Proxy(mosquitto.port)
        await proxy.start()
        async with publishing(redis, proxy.url, [7]) as topics:
            await devices.set(7, 1, speed=10)
            await devices.until_confirmed()
            proxy.hold()
            await redis.hdel(KEYS.telemetry(7), "speed")
            topics.forget(7, ["speed"])
            await watching.until(lambda messages: [message.payload for message in messages] == [b"10", b""])
            proxy.cut()
            proxy.release()
            await watching.until(lambda messages: [message.payload for message in messages] == [b"10", b"", b""])
        await proxy.stop()
        await watching.close()

    run(scenario())


def test_a_deleted_device_leaves_nothing_retained(run, redis, mosquitto: Mosquitto):
    """Also while its telemetry is still in Redis, and where it is not known what was published."""

    async def scenario() -> None:
        devices = Devices(redis)
        existing = {7, 8}
        await devices.set(7, 1, speed=10, fuel=50)
        await devices.set(8, 1, speed=20)
        subscriber = await Subscriber(mosquitto.port, ALL).subscribed()
        options = {"exists": existing.__contains__, "known_devices": 1}
        async with publishing(redis, mosquitto.url, [7, 8], **options) as topics:
            await subscriber.until(lambda messages: len(values(messages)) == 3)
            existing.discard(7)
            topics.refresh([7])
            await subscriber.until(lambda messages: list(values(messages).values()).count("removed") == 2)
            await devices.set(7, 2, speed=11)
            await devices.until_confirmed()
        late = await Subscriber(mosquitto.port, ALL).subscribed()
        assert values(await late.until(len)) == {"8/telemetry/speed": 20}
        await subscriber.close()
        await late.close()

    run(scenario())
