"""``.../connections`` over HTTP: who is there, and that DELETE closes."""

from __future__ import annotations

import pytest

from tests.builders import FrameFactory
from tests.items_rest import key_for
from tests.messages_rest import right
from tests.observed_rest import Tracker, observed_gateway, until

URL = "/gw/channels/1/connections"
IMEI = FrameFactory().imei
DEVICE = {"name": "car", "device_type_id": 303, "configuration": {"ident": IMEI}}


@pytest.fixture
def scene(run, redis):
    """Runs a coroutine with the API, the device 1, its tracker, and a connection that says nothing."""

    def play(coroutine) -> None:
        async def with_trackers() -> None:
            async with observed_gateway(redis) as there:
                await there.post("/gw/devices", [DEVICE])
                tracker, silent = await Tracker.log_in(there), await Tracker.connect(there)
                await until(lambda: _both(there))
                try:
                    await coroutine(there, tracker, silent)
                finally:
                    await tracker.close()
                    await silent.close()

        run(with_trackers())

    return play


async def _both(there) -> bool:
    return len(there.parts.connections) == 2


def test_connections_are_listed_as_flespi_does(scene):
    """Of channels, and of devices."""

    async def play(there, tracker, silent) -> None:
        first, second = await there.get(f"{URL}/all")
        assert (first["ident"], first["device_id"], first["channel_id"], first["transport"]) == (IMEI, 1, 1, "tcp")
        assert (second["ident"], second["device_id"], second["meta"], second["secondary"]) == (None, None, None, False)
        host, port = tracker.writer.get_extra_info("sockname")
        assert first["source"] == f"{host}:{port}"
        [of_device] = await there.get("/gw/devices/1/connections/all")
        assert of_device["id"] == first["id"]
        assert await there.get(f"{URL}/{second['id']}?fields=id,ident") == [{"id": second["id"], "ident": None}]
        assert [one["id"] for one in await there.get(f"{URL}/ident={IMEI}")] == [first["id"]]
        assert [one["id"] for one in await there.get(f"{URL}/device_id=1")] == [first["id"]]
        assert len(await there.get(f"{URL}/all?limit=1")) == 1

    scene(play)


def test_delete_closes(scene):
    """Only what was chosen; the answer says what it was."""

    async def play(there, tracker, silent) -> None:
        [closed] = await there.delete("/gw/devices/1/connections/all")
        assert closed["ident"] == IMEI
        assert await tracker.is_closed()
        [left] = await until(lambda: _left(there))
        await there.delete(f"{URL}/{left['id']}")
        assert await silent.is_closed()
        ends = [entry for entry in await there.get("/gw/channels/1/logs") if entry["event_code"] == 102]
        assert [entry["close_code"] for entry in ends] == [10, 10]

    scene(play)


async def _left(there) -> list:
    left = await there.get(f"{URL}/all")
    return left if len(left) == 1 else []


def test_wrong_input_is_named(scene):
    """Unknown ids, fields, selectors."""

    async def play(there, tracker, silent) -> None:
        error = await there.refused("GET", f"{URL}/12345", 403)
        assert error["id"] == 12345
        assert (await there.refused("GET", f"{URL}/all?fields=speed", 400))["field"] == "speed"
        assert (await there.refused("GET", f"{URL}/speed=5", 400))["field"] == "speed"
        assert (await there.refused("DELETE", "/gw/channels/9/connections/all", 403))["id"] == 9
        assert (await there.refused("GET", "/gw/devices/9/connections/all", 403))["id"] == 9
        assert len(there.parts.connections) == 2

    scene(play)


def test_rights_are_those_of_the_item_and_its_connections(scene):
    """Reading is not closing."""

    async def play(there, tracker, silent) -> None:
        reader = await key_for(there, right("connections", "GET", uri="gw/channels", ids=[1]))
        stranger = await key_for(there, right("connections", "GET", "DELETE", uri="gw/channels", ids=[7]))
        assert len(await there.get(f"{URL}/all", key=reader)) == 2
        await there.refused("DELETE", f"{URL}/all", 403, key=reader)
        await there.refused("GET", "/gw/devices/1/connections/all", 403, key=reader)
        await there.refused("DELETE", f"{URL}/all", 403, key=stranger)
        await there.refused("GET", f"{URL}/all", 401, key=None)
        assert len(there.parts.connections) == 2

    scene(play)
