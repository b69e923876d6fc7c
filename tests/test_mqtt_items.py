"""Items and their logs on MQTT: retained objects and properties, entries of the log, and what a deletion leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from attrs import evolve
from brokers import Mosquitto, Received, Subscriber
from test_mqtt_client import TOPICS, make_client

from gateway import metrics
from gateway.mqtt.client import MqttClient
from gateway.mqtt.items import ItemTopics
from gateway.mqtt.logs import LogTopics
from gateway.mqtt.properties import PropertyTopics
from gateway.store.events import EventCode
from gateway.store.items import Change, Channel, Device, Link, Plugin, Stream
from gateway.store.views import view_of

DEVICE = Device(id=5, name="car", protocol_id=14, device_type_id=303, configuration={"ident": "123"})
CHANNEL = Channel(id=1, name="north", protocol_id=14)
PLUGIN = Plugin(id=3, name="erase", type="msg-erase", configuration={"password": "x"})
STREAM = Stream(id=4, name="out", protocol="http", configuration={"password": "x"})
ENTRY = {"event_code": 300, "origin_id": 5, "origin_type": 11, "timestamp": 1700000000.5, "ident": "123"}
ALL = "flespi/#"


class There:
    """What the assembly connects, on a real broker."""

    def __init__(self, url: str) -> None:
        self.client: MqttClient = make_client(url)
        self.properties = PropertyTopics(self.client, TOPICS)
        self.topics = ItemTopics(self.properties, lambda item: {**view_of(item), "uri": "host:1"})
        self.logs = LogTopics(self.client, TOPICS)

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        works = (self.client.run(), self.properties.run(), self.logs.run())
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            await self.client.next_link()
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def last(messages: list[Received]) -> dict[str, object]:
    """The last value of each topic; those of the gateway itself are left out."""
    return {
        message.topic.removeprefix("flespi/state/gw/"): orjson.loads(message.payload) if message.payload else None
        for message in messages
        if "/status/" not in message.topic
    }


def test_an_item_is_an_object_and_properties(run, mosquitto: Mosquitto):
    """All retained; a change replaces what it concerns."""

    async def scenario() -> None:
        there = There(mosquitto.url)
        async with there.publishing():
            await there.topics.publish_all("devices", [DEVICE])
            late = await Subscriber(mosquitto.port, "flespi/state/gw/devices/#").subscribed()
            found = last(await late.until(lambda messages: len(last(messages)) >= 9))
            assert found["devices/5"] == {**view_of(DEVICE), "uri": "host:1"}
            assert found["devices/5/connected"] is False
            assert found["devices/5/name"] == "car"
            assert found["devices/5/configuration"] == {"ident": "123"}
            new = evolve(DEVICE, name="bus")
            there.topics.connected(5, True)
            there.topics.changed(Change("devices", 5, DEVICE, new))
            found = last(await late.until(lambda messages: last(messages).get("devices/5/name") == "bus"))
            await late.until(lambda messages: last(messages)["devices/5"]["name"] == "bus")
            assert found["devices/5/connected"] is True
        await late.close()

    run(scenario())


def test_another_ident_is_another_tracker(run, mosquitto: Mosquitto):
    """The connection of the old one says nothing of the device any more."""

    async def scenario() -> None:
        there = There(mosquitto.url)
        async with there.publishing():
            there.topics.connected(5, True)
            there.topics.changed(Change("devices", 5, DEVICE, evolve(DEVICE, configuration={"ident": "124"})))
            late = await Subscriber(mosquitto.port, "flespi/state/gw/devices/5/connected").subscribed()
            messages = await late.until(lambda messages: messages and messages[-1].payload == b"false")
            assert messages[-1].payload == b"false"
        await late.close()

    run(scenario())


def test_a_deleted_item_leaves_nothing_retained(run, mosquitto: Mosquitto):
    """Whoever comes later sees nothing of it."""

    async def scenario() -> None:
        there = There(mosquitto.url)
        async with there.publishing():
            subscriber = await Subscriber(mosquitto.port, "flespi/state/gw/channels/#").subscribed()
            there.topics.changed(Change("channels", 1, None, CHANNEL))
            there.topics.connections(1, 3)
            await subscriber.until(lambda messages: last(messages).get("channels/1/connections_count") == 3)
            await subscriber.until(lambda messages: "channels/1" in last(messages))
            there.topics.changed(Change("channels", 1, CHANNEL, None))
            await subscriber.until(lambda messages: not any(last(messages).values()))
            late = await Subscriber(mosquitto.port, ALL).subscribed()
            messages = await late.until(len)
            assert last(messages) == {}
        await subscriber.close()
        await late.close()

    run(scenario())


def test_a_plugin_shows_its_devices(run, mosquitto: Mosquitto):
    """Each with the plugin's fields for it, as long as it is assigned to it."""

    async def scenario() -> None:
        there = There(mosquitto.url)
        async with there.publishing():
            known = Link("plugins", 3, "devices", 6, {})
            await there.topics.publish_links([known])
            bob = Link("plugins", 3, "devices", 5, {"driver": "Bob"})
            there.topics.linked(None, bob)
            there.topics.linked(None, Link("streams", 3, "devices", 5))
            late = await Subscriber(mosquitto.port, "flespi/state/gw/+/3/devices/#").subscribed()
            found = last(await late.until(lambda messages: len(last(messages)) >= 2))
            assert found == {
                "plugins/3/devices/5": {"id": 5, "plugin_id": 3, "fields": {"driver": "Bob"}},
                "plugins/3/devices/6": {"id": 6, "plugin_id": 3, "fields": {}},
            }
            there.topics.linked(bob, evolve(bob, fields={"driver": "Ann"}))
            there.topics.linked(known, None)
            found = last(await late.until(lambda messages: last(messages)["plugins/3/devices/6"] is None))
            assert found["plugins/3/devices/5"] == {"id": 5, "plugin_id": 3, "fields": {"driver": "Ann"}}
            there.topics.changed(Change("plugins", 3, PLUGIN, None))
            await late.until(lambda messages: not any(last(messages).values()))
            again = await Subscriber(mosquitto.port, ALL).subscribed()
            assert last(await again.until(len)) == {}
        await late.close()
        await again.close()

    run(scenario())


@pytest.mark.parametrize(
    ("kind", "item", "properties"),
    [
        ("plugins", PLUGIN, {"name": "erase", "enabled": True, "priority": 0, "validate_message": ""}),
        ("streams", STREAM, {"name": "out", "queue_ttl": 86400, "connected": False}),
    ],
)
def test_plugins_and_streams_are_objects_and_properties(run, mosquitto: Mosquitto, kind: str, item: Any, properties):
    """As channels and devices; their passwords are hidden."""

    async def scenario() -> None:
        there = There(mosquitto.url)
        async with there.publishing():
            there.topics.changed(Change(kind, item.id, None, item))
            late = await Subscriber(mosquitto.port, f"flespi/state/gw/{kind}/#").subscribed()
            place = f"{kind}/{item.id}"
            awaited = {place, *(f"{place}/{name}" for name in ("configuration", *properties))}
            found = last(await late.until(lambda messages: awaited <= last(messages).keys()))
            assert (
                properties.items() <= {name.removeprefix(f"{place}/"): value for name, value in found.items()}.items()
            )
            assert found[place]["configuration"] == {"password": "***"} == found[f"{place}/configuration"]
        await late.close()

    run(scenario())


def test_entries_of_the_log_are_told_once_and_not_retained(run, mosquitto: Mosquitto):
    """Under the name of the event, with its time."""

    async def scenario() -> None:
        there = There(mosquitto.url)
        subscriber = await Subscriber(mosquitto.port, "flespi/log/#").subscribed()
        async with there.publishing():
            there.logs.publish("devices", 5, ENTRY)
            there.logs.publish("channels", 1, {**ENTRY, "event_code": EventCode.CREATED, "new": {"id": 1}})
            there.logs.publish("channels", 1, {**ENTRY, "event_code": 9999})
            first, second, third = await subscriber.until(lambda messages: len(messages) == 3)
        assert first.topic == "flespi/log/gw/devices/5/connected"
        assert orjson.loads(first.payload) == ENTRY
        assert (first.qos, first.is_retained) == (0, False)
        assert first.properties == {"timestamp": "1700000000.500000", "cid": "1"}
        assert second.topic == "flespi/log/gw/channels/1/created"
        assert third.topic == "flespi/log/gw/channels/1/9999"
        await subscriber.close()

    run(scenario())


def test_without_a_connection_entries_are_dropped_and_counted(run):
    """The API has them."""

    async def scenario() -> None:
        before = metrics.value("mqtt_unconfirmed_dropped")
        there = There("mqtt://127.0.0.1:1")
        there.logs.publish("devices", 5, ENTRY)
        assert metrics.value("mqtt_unconfirmed_dropped") == before + 1

    run(scenario())


def test_the_queue_is_bounded(run, mosquitto: Mosquitto):
    """Nothing is sent before others have had their turn."""

    async def scenario() -> None:
        there = There(mosquitto.url)
        there.logs = LogTopics(there.client, TOPICS, maximum=10)
        subscriber = await Subscriber(mosquitto.port, "flespi/log/#").subscribed()
        async with there.publishing():
            before = metrics.value("mqtt_unconfirmed_dropped")
            for n in range(50):
                there.logs.publish("devices", n, ENTRY)
            assert metrics.value("mqtt_unconfirmed_dropped") == before + 40
            assert len(await subscriber.until(lambda messages: len(messages) == 10)) == 10
        await subscriber.close()

    run(scenario())
