"""Retained properties of items: the latest value of each, over whatever connection there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from brokers import Mosquitto, Proxy, Received, Subscriber
from test_mqtt_client import TOPICS, make_client

from gateway.mqtt.properties import PropertyTopics

ITEMS = "flespi/state/gw/+/+/+"


@asynccontextmanager
async def publishing(properties: PropertyTopics) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(properties._client.run()), asyncio.ensure_future(properties.run())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def last(messages: list[Received]) -> dict[str, bytes]:
    return {message.topic.removeprefix("flespi/state/gw/"): message.payload for message in messages}


def test_the_latest_value_counts(run, mosquitto: Mosquitto):
    """Told before the connection: one message each, with the last value, as JSON."""

    async def scenario() -> None:
        subscriber = await Subscriber(mosquitto.port, ITEMS).subscribed()
        properties = PropertyTopics(make_client(mosquitto.url), TOPICS)
        for value in (True, False, True):
            properties.publish_property("devices", 7, "connected", value)
        properties.publish_property("channels", 1, "name", "north")
        async with publishing(properties):
            messages = await subscriber.until(lambda messages: len(last(messages)) == 2)
            assert last(messages) == {"devices/7/connected": b"true", "channels/1/name": b'"north"'}
            properties.publish_property("channels", 1, "name", "north")
            properties.publish_property("devices", 7, "connected", False)
            messages = await subscriber.until(lambda messages: len(messages) >= 3)
        assert [message.payload for message in messages] == [b"true", b'"north"', b"false"]
        await subscriber.close()

    run(scenario())


def test_a_new_broker_gets_them_again(run, mosquitto: Mosquitto):
    """What was told once survives the broker."""

    async def scenario() -> None:
        proxy = Proxy(mosquitto.port)
        await proxy.start()
        properties = PropertyTopics(make_client(proxy.url), TOPICS)
        properties.publish_property("devices", 7, "connected", True)
        async with publishing(properties):
            first = await Subscriber(mosquitto.port, ITEMS).subscribed()
            await first.until(len)
            await first.close()
            mosquitto.kill()
            properties.publish_property("devices", 8, "connected", False)
            mosquitto.start()
            second = await Subscriber(mosquitto.port, ITEMS).subscribed()
            messages = await second.until(lambda messages: len(last(messages)) == 2)
        assert last(messages) == {"devices/7/connected": b"true", "devices/8/connected": b"false"}
        await second.close()
        await proxy.stop()

    run(scenario())


def test_a_deleted_item_leaves_nothing(run, mosquitto: Mosquitto):
    """Its topics are emptied on the broker, and forgotten here."""

    async def scenario() -> None:
        properties = PropertyTopics(make_client(mosquitto.url), TOPICS)
        properties.publish_property("devices", 7, "connected", True)
        properties.publish_property("devices", 7, "name", "x")
        async with publishing(properties):
            subscriber = await Subscriber(mosquitto.port, ITEMS).subscribed()
            await subscriber.until(lambda messages: len(messages) == 2)
            properties.forget_item("devices", 7)
            messages = await subscriber.until(lambda messages: len(messages) == 4)
            assert last(messages) == {"devices/7/connected": b"", "devices/7/name": b""}
            while properties._items:
                await asyncio.sleep(0.01)
            assert properties._size == 0
        await subscriber.close()

    run(scenario())


def test_memory_is_bounded(run):
    """The oldest items are forgotten first."""

    async def scenario() -> None:
        properties = PropertyTopics(make_client("mqtt://127.0.0.1:1"), TOPICS, maximum=10)
        for device_id in range(50):
            properties.publish_property("devices", device_id, "connected", True)
            properties.publish_property("devices", device_id, "name", "x")
        assert properties._size == sum(len(values) for values in properties._items.values()) == 10
        assert list(properties._items)[-1] == ("devices", 49)

    run(scenario())
