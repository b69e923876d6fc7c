"""What a running gateway tells of its trackers, over REST and MQTT, before and after a restart."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import orjson
from brokers import Mosquitto, Received, Subscriber

from integration.processes import Gateway
from integration.trackers import Connection, Packets, imei, send_packet

Run = Callable[..., Any]
IMEI = imei(1)


async def get(gateway: Gateway, path: str, data: dict[str, Any] | None = None, method: str = "GET") -> list[Any]:
    """The result of a call with the master token."""
    headers = {"Authorization": f"FlespiToken {gateway.token}"}
    parameters = {"data": orjson.dumps(data).decode()} if data else {}
    async with httpx.AsyncClient(base_url=gateway.api_url, headers=headers, timeout=20) as client:
        answer = await client.request(method, f"/gw/{path}", params=parameters)
    assert answer.status_code == 200, answer.text
    result: list[Any] = answer.json()["result"]
    return result


async def until(check: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(15):
        while not (value := await check()):
            await asyncio.sleep(0.05)
    return value


def test_a_refused_tracker_is_explained_also_after_a_restart(run: Run, make_gateway) -> None:
    """Its ident, the reason, its bytes, and the log of the channel are kept."""
    gateway = make_gateway(channels={"unknown_ident": "reject"})

    async def explained() -> None:
        [ident] = await get(gateway, f"channels/1/idents/{IMEI}")
        assert (ident["verdict"], ident["count"]) == ("refused", 1)
        assert "no device has this ident" in ident["reason"]
        packets = await get(gateway, f"channels/1/idents/{IMEI}/packets")
        login = Packets(imei=IMEI).login
        assert [base64.b64decode(packet["data"]) for packet in packets[:3]] == [b"", login, b"\x00"]
        closed = [entry for entry in await get(gateway, "channels/1/logs") if entry.get("close_code") == 14]
        assert [entry["ident"] for entry in closed] == [IMEI]

    async def scenario() -> None:
        await gateway.ready()
        connection = await Connection.open(gateway.port)
        await connection.send(Packets(imei=IMEI).login)
        assert await connection.answer(1) == b"\x00"
        await connection.closed()
        await until(lambda: get(gateway, "channels/1/logs", {"filter": "close_code==14"}))
        await explained()
        assert await gateway.stop() == 0
        await gateway.ready()
        await explained()
        assert await gateway.stop() == 0

    run(scenario(), timeout=60)


def test_a_stop_ends_connections_with_a_reason(run: Run, make_gateway) -> None:
    """What is told while the gateway stops is written before its store ends."""
    gateway = make_gateway()

    async def scenario() -> None:
        await gateway.ready()
        connection = await Connection.open(gateway.port)
        await connection.log_in(Packets(imei=IMEI).login)
        assert await gateway.stop() == 0
        await connection.closed()
        await gateway.ready()
        ends = await get(gateway, "devices/1/logs", {"filter": "event_code==301"})
        assert [entry["close_code"] for entry in ends] == [7]
        assert await gateway.stop() == 0

    run(scenario(), timeout=60)


def _retained(messages: list[Received]) -> dict[str, bytes]:
    """The last value of each topic of devices that has one."""
    last = {message.topic: message.payload for message in messages if "/state/gw/devices/" in message.topic}
    return {topic: payload for topic, payload in last.items() if payload}


def test_a_device_is_told_of_on_mqtt_until_nothing_of_it_is_left(run: Run, make_gateway, mosquitto: Mosquitto) -> None:
    """Created, connected, its object and telemetry; deleted, all of it is gone from the broker."""
    gateway = make_gateway(mqtt={"url": mosquitto.url})

    async def scenario() -> None:
        subscriber = await Subscriber(mosquitto.port, "flespi/#").subscribed()
        await gateway.ready()
        await send_packet(gateway.port, Packets(imei=IMEI))

        def is_told(messages: list[Received]) -> bool:
            topics = {message.topic for message in messages}
            logs = {f"flespi/log/gw/devices/1/{event}" for event in ("created", "connected", "disconnected")}
            state = {"flespi/state/gw/devices/1", "flespi/state/gw/devices/1/telemetry/position"}
            return logs | state <= topics

        messages = await subscriber.until(is_told)
        [whole] = [message for message in messages if message.topic == "flespi/state/gw/devices/1"][-1:]
        assert orjson.loads(whole.payload)["configuration"]["ident"] == IMEI
        channel = [message for message in messages if message.topic == "flespi/state/gw/channels/1"][-1]
        assert orjson.loads(channel.payload)["uri"].endswith(f":{gateway.port}")
        await get(gateway, "devices/1", method="DELETE")
        await subscriber.until(lambda messages: not _retained(messages))
        deleted = [message for message in subscriber.messages if message.topic == "flespi/log/gw/devices/1/deleted"]
        assert orjson.loads(deleted[0].payload)["old"]["name"] == IMEI
        late = await Subscriber(mosquitto.port, "flespi/state/gw/#").subscribed()
        await late.until(lambda messages: any("/channels/1/" in message.topic for message in messages))
        assert _retained(late.messages) == {}
        await late.close()
        await subscriber.close()
        assert await gateway.stop() == 0

    run(scenario(), timeout=60)
