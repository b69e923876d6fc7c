"""Tokens of a running gateway: what one of them opens, over REST and MQTT, and when it ends."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from integration.processes import Gateway
from integration.trackers import Packets, imei, send_packet
from tests.brokers import Received, Subscriber

Run = Callable[..., Any]
READ = [{"name": name, "methods": ["GET"]} for name in ("messages", "telemetry")]
DEVICE_1 = {"type": 2, "acl": [{"uri": "gw/devices", "methods": ["GET"], "ids": [1], "submodules": READ}]}


async def call(gateway: Gateway, method: str, path: str, key: str = "", **options: Any) -> httpx.Response:
    """With the master token, unless another key is given."""
    headers = {"Authorization": f"FlespiToken {key or gateway.token}"}
    async with httpx.AsyncClient(base_url=gateway.api_url, timeout=20) as client:
        return await client.request(method, path, headers=headers, **options)


async def token(gateway: Gateway, **values: Any) -> str:
    """The key of a new token."""
    answer = await call(gateway, "POST", "/platform/tokens", json=[{"ttl": 3600, "access": DEVICE_1, **values}])
    return str(answer.json()["result"][0]["key"])


def subscriber(gateway: Gateway, key: str) -> Subscriber:
    return Subscriber(gateway.mqtt_port, "flespi/#", version=4, username=key)


def devices_of(messages: list[Received]) -> set[str]:
    """The ids in their topics; every topic must be one of a device."""
    parts = [message.topic.split("/") for message in messages]
    assert {part[3] for part in parts} <= {"devices"}, [message.topic for message in messages]
    return {part[4] for part in parts}


async def drive(gateway: Gateway, *trackers: Packets) -> None:
    """A packet of each, acknowledged, the first one's last."""
    for packets in (*trackers, trackers[0]):
        await send_packet(gateway.port, packets)


def has_speed(messages: list[Received]) -> bool:
    return any(message.topic.endswith("/telemetry/position.speed") for message in messages)


def test_a_token_for_a_device_brings_this_device_and_no_other(run: Run, gateway: Gateway) -> None:
    """Its messages and its telemetry, as they come and for who comes later."""

    async def scenario() -> None:
        trackers = Packets(imei(1), records=1), Packets(imei(2), records=1)
        key = await token(gateway)
        early, master = subscriber(gateway, key), subscriber(gateway, gateway.token)
        await early.subscribed()
        await master.subscribed()
        await drive(gateway, *trackers)
        mine, all_of_it = "flespi/message/gw/devices/1", "flespi/message/gw/devices/2"
        await master.until(lambda messages: all_of_it in {message.topic for message in messages})
        await early.until(lambda messages: [message.topic for message in messages].count(mine) == 2)
        late = await subscriber(gateway, key).subscribed()
        assert devices_of(await late.until(has_speed)) == {"1"}
        assert devices_of(await early.until(has_speed)) == {"1"}
        for method, path, status in (
            ("GET", "/gw/devices/1", 200),
            ("GET", "/gw/devices/1/telemetry/all", 200),
            ("GET", "/gw/devices/2", 403),
            ("GET", "/gw/devices/2/telemetry/all", 403),
            ("DELETE", "/gw/devices/1", 403),
            ("GET", "/gw/channels/all", 403),
            ("GET", "/platform/tokens/all", 403),
        ):
            assert (await call(gateway, method, path, key)).status_code == status, (method, path)
        assert [one["id"] for one in (await call(gateway, "GET", "/gw/devices/all", key)).json()["result"]] == [1]
        for client in (early, late, master):
            await client.close()

    run(scenario(), timeout=60)


@pytest.mark.parametrize("how", ["expired", "deleted"])
def test_with_a_token_its_connections_end(run: Run, gateway: Gateway, how: str) -> None:
    """Within seconds; the client learns that it need not come again."""

    async def scenario() -> None:
        ends = {"ttl": 0, "expire": int(time.time()) + 2} if how == "expired" else {}
        key = await token(gateway, **ends)
        client = await subscriber(gateway, key).subscribed()
        (known,) = (await call(gateway, "GET", "/auth/info", key)).json()["result"]
        client.reason = ""
        if how == "deleted":
            answer = await call(gateway, "DELETE", f"/platform/tokens/{known['id']}")
            assert answer.status_code == 200
        assert await client.answered() == "Not authorized"
        assert (await call(gateway, "GET", "/auth/info", key)).status_code == 401
        await client.close()

    run(scenario(), timeout=60)


def test_tokens_outlive_the_gateway(run: Run, make_gateway: Callable[..., Gateway]) -> None:
    """Also when it is killed; one that was deleted stays so."""
    gateway = make_gateway()

    async def scenario() -> None:
        await gateway.ready()
        kept, gone = await token(gateway, info="kept"), await token(gateway)
        await call(gateway, "DELETE", "/platform/tokens/2")
        gateway.send(signal.SIGKILL)
        await gateway.ended()
        await gateway.ready()
        answer = (await call(gateway, "GET", "/auth/info", kept)).json()["result"][0]
        assert (answer["info"], answer["access"]) == ("kept", DEVICE_1)
        assert (await call(gateway, "GET", "/auth/info", gone)).status_code == 401
        client = await subscriber(gateway, kept).subscribed()
        await client.close()
        assert await gateway.stop() == 0

    run(scenario(), timeout=60)
