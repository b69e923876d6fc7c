"""Messages and telemetry of a running gateway: from a tracker to REST, and from REST to MQTT."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import orjson

from integration.processes import Gateway
from integration.trackers import Packets, imei, send_packet
from tests.brokers import Subscriber

Run = Callable[..., Any]
MESSAGE = "flespi/message/gw/devices/1"
TELEMETRY = "flespi/state/gw/devices/1/telemetry/cargo.weight"


class Rest:
    """The API of a gateway, with its master token."""

    def __init__(self, gateway: Gateway) -> None:
        headers = {"Authorization": f"FlespiToken {gateway.token}"}
        self.client = httpx.AsyncClient(base_url=gateway.api_url, headers=headers, timeout=20)

    async def call(self, method: str, path: str, json: Any = None, **data: Any) -> list[Any]:
        params = {"data": orjson.dumps(data).decode()} if data else {}
        answer = await self.client.request(method, f"/gw/{path}", json=json, params=params)
        assert answer.status_code == 200, answer.text
        assert "errors" not in answer.json(), answer.text
        result: list[Any] = answer.json()["result"]
        return result

    async def until(self, path: str, count: int) -> list[Any]:
        """The messages, as soon as there are so many."""
        async with asyncio.timeout(20):
            while len(found := await self.call("GET", path)) < count:
                await asyncio.sleep(0.05)
        return found


def test_messages_go_in_by_trackers_and_by_rest_and_come_out_everywhere(run: Run, make_gateway) -> None:
    """Posted ones merge and are published like a tracker's; what is deleted is gone, also after a restart."""
    gateway = make_gateway(limits={"device_messages_ttl": 100 * 365 * 86400})

    async def scenario() -> None:
        await gateway.ready()
        rest = Rest(gateway)
        packets = Packets(imei(1), records=3)
        times = [at / 1000 for _ in range(4) for at in await send_packet(gateway.port, packets)]
        stored = await rest.until("devices/1/messages", len(times))
        assert [message["timestamp"] for message in stored] == times
        received = await rest.call("GET", "channels/1/messages", reverse=True)
        assert [message["timestamp"] for message in received] == times[::-1]

        options = {"version": 4, "username": gateway.token}
        subscriber = await Subscriber(gateway.mqtt_port, "flespi/#", **options).subscribed()
        [posted] = await rest.call("POST", "devices/1/messages", [{"timestamp": times[-1], "cargo.weight": 12.5}])
        assert posted["registered"] is True
        [last] = await rest.call("GET", "devices/1/messages", count=1, reverse=True)
        assert last == {**stored[-1], "cargo.weight": 12.5, "server.timestamp": last["server.timestamp"]}
        published = await subscriber.until(
            lambda messages: {MESSAGE, TELEMETRY} <= {message.topic for message in messages if not message.is_retained}
        )
        [message] = [orjson.loads(message.payload) for message in published if message.topic == MESSAGE]
        assert message["cargo.weight"] == 12.5
        assert "cargo.weight" not in (await rest.call("GET", "channels/1/messages", reverse=True))[0]

        await rest.call("DELETE", "devices/1/telemetry/cargo.*")
        await subscriber.until(
            lambda messages: [one.payload for one in messages if one.topic == TELEMETRY] == [b"12.5", b""]
        )
        await rest.call("DELETE", "channels/1/messages", to=received[-1]["server.timestamp"])
        await subscriber.close()
        await rest.client.aclose()

        gateway.kill()
        await gateway.ready()
        rest = Rest(gateway)
        assert len(await rest.call("GET", "channels/1/messages")) == len(times) - 1
        assert (await rest.call("GET", "devices/1/messages"))[-1]["cargo.weight"] == 12.5
        assert (await rest.call("GET", "devices/1/telemetry/cargo.weight,ident"))[0]["telemetry"].keys() == {"ident"}
        await rest.client.aclose()

    run(scenario(), timeout=60)
