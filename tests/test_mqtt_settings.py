"""Retained topics of settings, as the API shows them, over whatever connection there is."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from attrs import evolve
from brokers import Mosquitto, Proxy, Received, Subscriber
from test_broker import broker, gateway_client, subscriber
from test_mqtt_client import TOPICS, make_client

from gateway.errors import StoreUnavailable
from gateway.mqtt import settings as module
from gateway.mqtt.client import MqttClient
from gateway.mqtt.properties import PropertyTopics
from gateway.mqtt.settings import SettingTopics
from gateway.protocols.teltonika.device_types import find_device_type
from gateway.store.access import Access
from gateway.store.items import Device, Items
from gateway.store.keys import ShardKeys
from gateway.store.settings import DeviceSettings
from gateway.store.tokens import Tokens
from tests.commands_rest import commanding

KEYS = ShardKeys()
SETTINGS = "flespi/state/gw/devices/+/settings/+"


class There:
    """Two devices, and what publishes their settings."""

    def __init__(self, redis: Any, client: MqttClient) -> None:
        self.items = Items(redis)
        self.settings = DeviceSettings(redis, KEYS)
        self.topics = SettingTopics(client, TOPICS, self.settings, self.items)
        self.client = client

    async def start(self, model: str = "FMC130") -> There:
        for ident in ("352093081450000", "352093081450001"):
            await self.items.create_device(ident=ident, name=ident, protocol_id=14, device_type_id=type_id(model))
        return self

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        tasks = [asyncio.ensure_future(self.client.run()), asyncio.ensure_future(self.topics.run())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def type_id(model: str) -> int:
    kind = find_device_type(model)
    assert kind is not None
    return kind.id


def last(messages: list[Received]) -> dict[str, Any]:
    """The latest of each topic; None: it was emptied."""
    return {
        message.topic.removeprefix("flespi/state/gw/devices/"): json.loads(message.payload) if message.payload else None
        for message in messages
    }


def has(topic: str, **values: Any) -> Any:
    """Whether the latest message of a topic has these values."""

    def is_there(messages: list[Received]) -> bool:
        view = last(messages).get(topic)
        return view is not None and values.items() <= view.items()

    return is_there


def test_a_setting_is_published_when_it_changes(run, redis, mosquitto: Mosquitto):
    """What was known before the connection, each change after it, and nothing of which nothing is known."""

    async def scenario() -> None:
        there = await There(redis, make_client(mosquitto.url)).start()
        await there.settings.request(1, "link", {"ping_timeout": 60})
        client = await Subscriber(mosquitto.port, SETTINGS).subscribed()
        async with there.publishing():
            await client.until(has("1/settings/link", status="pending", pending={"ping_timeout": 60}))
            taken = await there.settings.take(1)
            await client.until(has("1/settings/link", attempts=1))
            await there.settings.told(1, taken, {"ping_timeout": 60})
            await client.until(has("1/settings/link", status="ok", pending=None, current={"ping_timeout": 60}))
            await there.settings.reread(2, "server")
            messages = await client.until(has("2/settings/server", status="reading"))
        assert set(last(messages)) == {"1/settings/link", "2/settings/server"}
        late = await Subscriber(mosquitto.port, SETTINGS).subscribed()
        messages = await late.until(lambda messages: len(messages) == 2)
        assert all(message.is_retained for message in messages)
        for one in (client, late):
            await one.close()

    run(scenario())


def test_the_payload_is_what_the_api_shows(run, redis, mosquitto: Mosquitto):
    async def scenario() -> None:
        async with commanding(redis) as rest:
            items, settings = rest.parts.items, rest.parts.device_settings
            client = make_client(mosquitto.url)
            topics = SettingTopics(client, TOPICS, settings, items)
            tasks = [asyncio.ensure_future(client.run()), asyncio.ensure_future(topics.run())]
            await rest.put(f"{rest.url}/settings/apn", json={"name": "internet", "password": "secret"})
            seen = await Subscriber(mosquitto.port, SETTINGS).subscribed()
            messages = await seen.until(len)
            [view] = await rest.get(f"{rest.url}/settings/apn")
            assert list(last(messages).values()) == [view]
            assert list(last(messages)["1/settings/apn"]) == list(view)
            [entry] = await rest.get(f"{rest.url}/logs", data={"filter": "event_code == 311"})
            assert entry["pending"] == {"name": "internet", "password": "***"}
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await seen.close()

    run(scenario())


def test_a_new_broker_gets_them_again(run, redis, mosquitto: Mosquitto):
    """And what changed in between as it is then."""

    async def scenario() -> None:
        proxy = Proxy(mosquitto.port)
        await proxy.start()
        there = await There(redis, make_client(proxy.url)).start()
        await there.settings.request(1, "link", {"ping_timeout": 60})
        async with there.publishing():
            first = await Subscriber(mosquitto.port, SETTINGS).subscribed()
            await first.until(len)
            await first.close()
            mosquitto.kill()
            await there.settings.request(2, "link", {"ping_timeout": 90})
            mosquitto.start()
            second = await Subscriber(mosquitto.port, SETTINGS).subscribed()
            messages = await second.until(lambda messages: len(last(messages)) == 2)
        assert {topic: view["pending"]["ping_timeout"] for topic, view in last(messages).items()} == {
            "1/settings/link": 60,
            "2/settings/link": 90,
        }
        await second.close()
        await proxy.stop()

    run(scenario())


def test_a_deleted_device_leaves_nothing(run, redis, mosquitto: Mosquitto):
    """One of which nothing was published costs no message."""

    async def scenario() -> None:
        there = await There(redis, make_client(mosquitto.url)).start()
        await there.settings.request(1, "link", {"ping_timeout": 60})
        client = await Subscriber(mosquitto.port, SETTINGS).subscribed()
        async with there.publishing():
            await client.until(has("1/settings/link", status="pending"))
            await there.items.delete_device(2)
            await there.items.delete_device(1)
            messages = await client.until(lambda messages: last(messages)["1/settings/link"] is None)
            while there.topics._removals:
                await asyncio.sleep(0.01)
        assert all(topic.startswith("1/") for topic in last(messages))
        await client.close()

    run(scenario())


def test_what_is_deleted_while_the_broker_is_away_is_removed_later(run, redis, mosquitto: Mosquitto):
    async def scenario() -> None:
        proxy = Proxy(mosquitto.port)
        await proxy.start()
        there = await There(redis, make_client(proxy.url)).start()
        await there.settings.request(1, "link", {"ping_timeout": 60})
        client = await Subscriber(mosquitto.port, SETTINGS).subscribed()
        async with there.publishing():
            await client.until(has("1/settings/link", status="pending"))
            proxy.is_open = False
            proxy.cut()
            while there.topics._is_serving:
                await asyncio.sleep(0.01)
            await there.items.delete_device(1)
            proxy.is_open = True
            await client.until(lambda messages: last(messages)["1/settings/link"] is None)
        await client.close()
        await proxy.stop()

    run(scenario())


def test_a_setting_that_the_new_type_does_not_have_is_removed(run, redis, mosquitto: Mosquitto):
    """And is there again when the type is the old one."""

    async def scenario() -> None:
        there = await There(redis, make_client(mosquitto.url)).start()
        await there.settings.request(1, "sleep", {"mode": "deep"})
        await there.settings.request(1, "link", {"open_link_timeout": 60})
        client = await Subscriber(mosquitto.port, SETTINGS).subscribed()

        async def become(model: str) -> None:
            def change(device: Device) -> Device:
                return evolve(device, device_type_id=type_id(model))

            await there.items.change_device(1, change)

        async with there.publishing():
            await client.until(lambda messages: {"1/settings/sleep", "1/settings/link"} <= last(messages).keys())
            await become("FM3612")
            messages = await client.until(lambda messages: last(messages)["1/settings/sleep"] is None)
            assert last(messages)["1/settings/link"] is not None
            await become("FMC130")
            await client.until(has("1/settings/sleep", status="pending"))
        await client.close()

    run(scenario())


def test_while_redis_is_away_it_is_tried_again(run, redis, mosquitto: Mosquitto, monkeypatch):
    async def scenario() -> None:
        there = await There(redis, make_client(mosquitto.url)).start()
        await there.settings.request(1, "link", {"ping_timeout": 60})
        monkeypatch.setattr(module, "RETRY_INTERVAL", 0.01)
        read, failures = there.settings.get_many, []

        async def away(device_ids: Any) -> Any:
            if len(failures) < 3:
                failures.append(1)
                raise StoreUnavailable("away")
            return await read(device_ids)

        monkeypatch.setattr(DeviceSettings, "get_many", lambda self, ids: away(ids))
        client = await Subscriber(mosquitto.port, SETTINGS).subscribed()
        async with there.publishing():
            await client.until(has("1/settings/link", status="pending"))
        assert len(failures) == 3
        await client.close()

    run(scenario())


def test_what_waits_to_be_removed_has_a_bound(run, redis, monkeypatch):
    async def scenario() -> None:
        there = await There(redis, make_client("mqtt://127.0.0.1:1")).start()
        monkeypatch.setattr(module, "REMOVALS_MOST", 5)
        await there.items.delete_device(1)
        await there.items.delete_device(2)
        assert len(there.topics._removals) == 5

    run(scenario())


def permitted(*parts: str) -> Access:
    submodules = [{"name": part, "methods": ["GET"]} for part in parts]
    return Access.from_json(
        {"type": 2, "acl": [{"uri": "gw/devices", "methods": ["GET"], "ids": [1], "submodules": submodules}]}
    )


@pytest.mark.parametrize("part", ["settings", "telemetry"])
def test_on_the_embedded_broker_settings_are_a_right_of_their_own(run, redis, part: str):
    """Of the devices that the token may see."""

    async def scenario() -> None:
        tokens = Tokens(redis, "m" * 64)
        _, key = await tokens.create(time.time(), access=permitted(part))
        async with broker(tokens=tokens) as server:
            there = await There(redis, gateway_client(server)).start()
            for device_id in (1, 2):
                await there.settings.request(device_id, "link", {"ping_timeout": 60})
            everything = await subscriber(server, SETTINGS).subscribed()
            limited = await subscriber(server, "#", username=key).subscribed()
            async with there.publishing():
                await everything.until(lambda messages: len(messages) == 2)
                await there.settings.request(1, "link", {"ping_timeout": 61})
                await everything.until(has("1/settings/link", pending={"ping_timeout": 61}))
                properties = PropertyTopics(there.client, TOPICS)
                properties.publish_property("devices", 1, "name", "x")
                publishing = asyncio.ensure_future(properties.run())
                await limited.until(lambda messages: messages and messages[-1].topic.endswith("/name"))
                publishing.cancel()
            found = {message.topic for message in limited.messages if "/settings/" in message.topic}
            assert found == ({"flespi/state/gw/devices/1/settings/link"} if part == "settings" else set())
            for one in (everything, limited):
                await one.close()

    run(scenario())
