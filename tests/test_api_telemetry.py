"""``/gw/devices/{devices}/telemetry/{parameters}`` over HTTP."""

from __future__ import annotations

import time

import pytest

from gateway.api import telemetry as module
from gateway.api.telemetry import PARAMETERS_MOST
from tests.items_rest import key_for
from tests.messages_rest import make_device, messages_gateway, right

URL = "/gw/devices/1/telemetry"
AT = int(time.time()) - 100
VALUES = {"din": 1, "can.speed": 5, "can.name": "ü", "position.latitude": 54.5, "position.longitude": 25.25}


@pytest.fixture
def scene(run, redis):
    """Runs a coroutine with the API, and a first device that has telemetry."""

    def play(coroutine) -> None:
        async def with_telemetry() -> None:
            async with messages_gateway(redis) as there:
                await there.post("/gw/devices/1/messages", [{"timestamp": AT, **VALUES}])
                await coroutine(there)

        run(with_telemetry())

    return play


async def _names(there, parameters: str) -> set[str]:
    [device] = await there.get(f"{URL}/{parameters}")
    return set(device["telemetry"])


def test_values_come_with_the_time_that_brought_them(scene):
    """flespi's form; position is an object; what is not there is absent."""

    async def scenario(there) -> None:
        [device] = await there.get(f"{URL}/din,position,nothing")
        position = {"latitude": 54.5, "longitude": 25.25}
        assert device == {
            "id": 1,
            "telemetry": {"din": {"ts": AT, "value": 1}, "position": {"ts": AT, "value": position}},
        }

    scene(scenario)


def test_parameters_are_chosen_by_name_and_by_mask(scene):
    """``all``, and the path without any, is everything."""

    async def scenario(there) -> None:
        assert await _names(there, "can.*") == {"can.speed", "can.name"}
        assert await _names(there, "d%3Fn,can.speed") == {"din", "can.speed"}
        assert await _names(there, "nothing") == set()
        everything = await _names(there, "all")
        assert VALUES.keys() | {"position", "timestamp", "server.timestamp", "ident"} <= everything
        [device] = await there.get(URL)
        assert set(device["telemetry"]) == everything

    scene(scenario)


def test_several_devices_come_one_by_one(scene, monkeypatch):
    """However many; one without telemetry has an empty object."""
    monkeypatch.setattr(module, "DEVICES_AT_ONCE", 2)

    async def scenario(there) -> None:
        for n in range(5):
            await make_device(there.parts.items, ident=f"more{n}")
        response = await there.request("GET", "/gw/devices/all/telemetry/din")
        assert [device["id"] for device in response.json()["result"]] == list(range(1, 8))
        assert response.json()["result"][1] == {"id": 2, "telemetry": {}}
        some = (await there.request("GET", "/gw/devices/1,99/telemetry/din")).json()
        assert ([device["id"] for device in some["result"]], [error["id"] for error in some["errors"]]) == ([1], [99])

    scene(scenario)


def test_deleted_parameters_are_gone_until_a_message_has_them(scene):
    """When the call ends, they are not to be seen; the registrar does not bring them back."""

    async def scenario(there) -> None:
        assert await there.delete(f"{URL}/can.*,position") == [{"id": 1}]
        assert (await _names(there, "all")) & {"can.speed", "can.name", "position", "din"} == {"din"}
        await there.post("/gw/devices/1/messages", [{"timestamp": AT + 1, "can.speed": 6}])
        assert await _names(there, "can.*,position") == {"can.speed"}
        await there.delete(f"{URL}/all")
        assert await _names(there, "all") == set()

    scene(scenario)


@pytest.mark.parametrize("parameters", ["%20", ",", ",".join(f"p{n}" for n in range(PARAMETERS_MOST + 1))])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_list_that_names_nothing_or_too_much_is_refused(scene, method, parameters):
    """Rather than answered with nothing."""

    async def scenario(there) -> None:
        assert "parameters" in (await there.refused(method, f"{URL}/{parameters}", 400))["reason"]

    scene(scenario)


def test_the_telemetry_of_very_many_devices_is_not_deleted_at_once(scene, monkeypatch):
    """Each is an order to the registrar."""
    monkeypatch.setattr(module, "DELETED_MOST", 1)

    async def scenario(there) -> None:
        await there.refused("DELETE", "/gw/devices/all/telemetry/din", 413)
        assert await _names(there, "din") == {"din"}

    scene(scenario)


def test_rights_hold_for_telemetry(scene):
    """Reading and deleting are two; ids narrow both; there is nothing to write."""

    async def scenario(there) -> None:
        await there.refused("GET", f"{URL}/all", 401, key=None)
        reader = await key_for(there, right("telemetry", "GET"))
        assert len(await there.get(f"{URL}/din", key=reader)) == 1
        await there.refused("DELETE", f"{URL}/din", 403, key=reader)
        await there.refused("GET", f"{URL}/din", 403, key=await key_for(there, right("messages", "GET")))
        other = await key_for(there, right("telemetry", "GET", "DELETE", ids=[2]))
        await there.refused("GET", f"{URL}/din", 403, key=other)
        await there.refused("DELETE", f"{URL}/din", 403, key=other)
        assert await there.delete("/gw/devices/all/telemetry/din", key=other) == [{"id": 2}]
        assert await _names(there, "din") == {"din"}
        await there.refused("POST", f"{URL}/din", 405, json=[{}])
        assert (await there.refused("GET", "/gw/devices/99/telemetry/all", 403))["id"] == 99

    scene(scenario)
