"""Items of a running gateway: made, changed and deleted over REST while trackers send, and the same after a kill."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx

from gateway.store.connection import connect
from integration.processes import Gateway, free_port
from integration.trackers import Connection, Packets, imei, send_packet

Run = Callable[..., Any]
LOCAL = "interface=127.0.0.1"
FIELDS = "fields=id,name,enabled,configuration,metadata,messages_ttl"


class Rest:
    """The API of a gateway, with its master token."""

    def __init__(self, gateway: Gateway) -> None:
        headers = {"Authorization": f"FlespiToken {gateway.token}"}
        self._client = httpx.AsyncClient(base_url=gateway.api_url, headers=headers, timeout=20)

    async def __aenter__(self) -> Rest:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._client.aclose()

    async def call(self, method: str, path: str, json: Any = None) -> list[Any]:
        answer = await self._client.request(method, f"/gw/{path}", json=json)
        assert answer.status_code == 200, answer.text
        assert "errors" not in answer.json(), answer.text
        result: list[Any] = answer.json()["result"]
        return result

    async def becomes(self, path: str, wanted: Callable[[list[Any]], bool]) -> None:
        async with asyncio.timeout(15):
            while not wanted(await self.call("GET", path)):
                await asyncio.sleep(0.05)


async def _is_open(port: int) -> bool:
    try:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


def test_a_channel_comes_and_goes_while_another_ones_tracker_sends(run: Run, make_gateway) -> None:
    """From its creation to its deletion no packet of the other one has to be sent twice."""
    gateway, port = make_gateway(), free_port()

    async def scenario() -> None:
        await gateway.ready()
        steady = await Connection.open(gateway.port)
        packets = Packets(imei(1))
        await steady.log_in(packets.login)
        async with Rest(gateway) as rest:
            listen = {"listen": [f"tcp:{port}:{LOCAL}"], "unknown_ident": "register"}
            for name in ("first", "second"):
                [channel] = await rest.call("POST", "channels", [{"name": name, "configuration": listen}])
                await send_packet(port, Packets(imei(2)))
                await rest.call("PUT", f"channels/{channel['id']}", {"enabled": False})
                assert not await _is_open(port)
                await rest.call("PUT", f"channels/{channel['id']}", {"enabled": True})
                await send_packet(port, Packets(imei(3)))
                await rest.call("DELETE", f"channels/{channel['id']}")
                assert not await _is_open(port)
                packet = packets.make()
                await steady.send(packet.data)
                assert await steady.answer(4) == len(packet.timestamps).to_bytes(4, "big")
            # what was acknowledged before its channel was deleted is registered nevertheless
            await rest.becomes("devices/all?fields=id,telemetry", lambda devices: len(devices) == 3 and all(
                device["telemetry"] for device in devices
            ))  # fmt: skip
        steady.writer.close()
        await steady.writer.wait_closed()
        assert "Traceback" not in gateway.stderr

    run(scenario(), timeout=60)


def test_a_deleted_device_leaves_no_key(run: Run, make_gateway) -> None:
    """Its tracker is cut off; when it comes back, it is a new device."""
    gateway = make_gateway()

    async def scenario() -> None:
        await gateway.ready()
        packets = Packets(imei(1))
        tracker = await Connection.open(gateway.port)
        await tracker.log_in(packets.login)
        await tracker.send(packets.make().data)
        await tracker.answer(4)
        async with Rest(gateway) as rest:
            await rest.becomes("devices/all?fields=telemetry", lambda devices: bool(devices[0]["telemetry"]))
            [device] = await rest.call("DELETE", "devices/all?fields=id")
            async with asyncio.timeout(5):
                assert await tracker.reader.read() == b""
            redis = connect(gateway.socket)
            async with asyncio.timeout(15):
                while await redis.keys(f"*device:{device['id']}:*"):
                    await asyncio.sleep(0.05)
            await redis.aclose()
            await send_packet(gateway.port, packets)
            [again] = await rest.call("GET", "devices/all?fields=id")
            assert again["id"] > device["id"]
        tracker.writer.close()
        await tracker.writer.wait_closed()
        assert "Traceback" not in gateway.stderr

    run(scenario(), timeout=60)


def test_items_are_as_they_were_after_a_kill(run: Run, make_gateway) -> None:
    """Created, changed, renamed and deleted ones; the configured channel too, whose section still says the old."""
    gateway, ports = make_gateway(), [free_port() for _ in range(2)]

    async def scenario() -> None:
        await gateway.ready()
        async with Rest(gateway) as rest:
            made = [{"name": f"made {port}", "configuration": {"listen": [f"tcp:{port}:{LOCAL}"]}} for port in ports]
            await rest.call("POST", "channels", made)
            await rest.call("PATCH", "channels/1", {"name": "renamed", "metadata": {"a": 1}, "messages_ttl": 60})
            await rest.call("DELETE", f"channels/name=made {ports[0]}")
            await rest.call("POST", "devices", [{"configuration": {"ident": ident}} for ident in ("a", "b", "c")])
            await rest.call("PATCH", "devices/ident=a", {"configuration": {"ident": "d"}})
            await rest.call("DELETE", "devices/ident=b")
            before = [await rest.call("GET", f"{kind}/all?{FIELDS}") for kind in ("channels", "devices")]
        gateway.kill()
        await gateway.ready()
        async with Rest(gateway) as rest:
            assert [await rest.call("GET", f"{kind}/all?{FIELDS}") for kind in ("channels", "devices")] == before
            assert [channel["name"] for channel in before[0]] == ["renamed", f"made {ports[1]}"]
            assert [device["configuration"]["ident"] for device in before[1]] == ["d", "c"]
            await send_packet(gateway.port, Packets(imei(1)))
            await send_packet(ports[1], Packets(imei(2)))
            assert not await _is_open(ports[0])
            [new] = await rest.call("POST", "devices", [{"configuration": {"ident": "b"}}])
            assert new["id"] > 3
        assert "Traceback" not in gateway.stderr

    run(scenario(), timeout=60)
