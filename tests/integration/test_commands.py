"""The emulator as people start it, commanded over REST: at once, from the queue, after a restart of the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from integration.processes import Gateway

Run = Callable[..., Any]
IMEI = "352093081452251"
URL = "/gw/devices/1"


@asynccontextmanager
async def tracker(gateway: Gateway) -> AsyncIterator[None]:
    """A virtual FMC130 that sends a record a second and obeys."""
    to = f"127.0.0.1:{gateway.port}"
    command = (sys.executable, "-m", "gateway.emulator", "--to", to, "--model", "FMC130", "--imei", IMEI)
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await asyncio.wait_for(process.wait(), 15)


def client(gateway: Gateway) -> httpx.AsyncClient:
    """With the master token."""
    headers = {"Authorization": f"FlespiToken {gateway.token}"}
    return httpx.AsyncClient(base_url=gateway.api_url, headers=headers, timeout=30)


async def until(there: httpx.AsyncClient, path: str, wanted: Callable[[list[Any]], Any]) -> list[Any]:
    """Ask until the result is as wanted."""
    async with asyncio.timeout(30):
        while True:
            result: list[Any] = (await there.get(path)).json()["result"]
            if wanted(result):
                return result
            await asyncio.sleep(0.05)


def test_a_virtual_tracker_obeys(run: Run, make_gateway: Callable[..., Gateway]) -> None:
    """What is queued while it is away, and lives through a kill of the gateway, is delivered when it comes."""
    gateway = make_gateway(devices={"name": "Van", "ident": IMEI, "type": "FMC130"})

    async def scenario() -> None:
        await gateway.ready()
        async with client(gateway) as there:
            offline = await there.post(f"{URL}/commands", json=[{"name": "getver"}])
            assert offline.status_code == 400
            assert "device with id 1 is not connected" in offline.json()["errors"][0]["reason"]
            new = {"name": "setparam", "properties": {"param": 1003, "value": 60}}
            [queued] = (await there.post(f"{URL}/commands-queue", json=[new])).json()["result"]
            await there.put(f"{URL}/settings/link", json={"open_link_timeout": 1800})
        gateway.kill()
        await gateway.ready()
        async with tracker(gateway), client(gateway) as there:
            [result] = await until(there, f"{URL}/commands-result/{queued['id']}", bool)
            assert (result["executed"], result["response"]) == (True, {"1003": "60"})
            [link] = await until(there, f"{URL}/settings/link", lambda found: found[0]["status"] == "ok")
            assert link["current"] == {"open_link_timeout": 1800}
            order = {"name": "getparam", "properties": {"params": [1000, 1003]}}
            answers = await asyncio.gather(*(there.post(f"{URL}/commands", json=[order]) for _ in range(5)))
            for answer in answers:
                [result] = answer.json()["result"]
                assert result["response"] == {"1000": "1800", "1003": "60"}
            await until(there, f"{URL}/messages", lambda messages: len(messages) >= 3)
            entries = (await there.get(f"{URL}/logs")).json()["result"]
            codes = {entry["event_code"] for entry in entries}
            assert {334, 332, 317, 312} <= codes  # what was written just before the kill is lost
            assert 304 not in codes
        assert await gateway.stop() == 0

    run(scenario(), timeout=90)


def test_the_model_is_what_the_tracker_says(run: Run, make_gateway: Callable[..., Gateway]) -> None:
    """Of a device that the channel has just registered."""
    gateway = make_gateway()

    async def scenario() -> None:
        await gateway.ready()
        async with client(gateway) as there:
            channel = await there.patch("/gw/channels/1", json={"configuration": {"ask_model": True}})
            assert channel.status_code == 200
            async with tracker(gateway):
                fields = f"{URL}?fields=device_type_name"
                await until(there, fields, lambda found: found and found[0]["device_type_name"] == "fmc130")
                await until(there, f"{URL}?fields=connected", lambda found: found[0]["connected"])
                [result] = await until_answered(there)
                assert result["response"]["Hw"] == "FMC130"
        assert await gateway.stop() == 0

    run(scenario(), timeout=90)


async def until_answered(there: httpx.AsyncClient) -> list[Any]:
    """The tracker may be between two connections."""
    async with asyncio.timeout(30):
        while not (result := (await there.post(f"{URL}/commands", json=[{"name": "getver"}])).json()["result"]):
            await asyncio.sleep(0.1)
    return list(result)
