"""Settings over REST, applied and read on virtual trackers, and the model that a tracker says it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.protocols.teltonika.device_types import UNKNOWN_TYPE, find_device_type
from gateway.protocols.teltonika.frame import build_frame
from gateway.protocols.teltonika.settings import settings_of
from gateway.protocols.teltonika.wire_commands import CODEC_12, RESPONSE, encode_command
from gateway.store.model_questions import TRIES_MOST
from tests.commands_rest import KEYS, There, Tracker, commanding, device_of

OTHER = "352093081450007"


def says(text: str) -> Callable[[bytes], bytes]:
    """A tracker that answers everything with this."""
    answer = build_frame(encode_command(CODEC_12, {"type": RESPONSE, "payload": text.encode()}))
    return lambda _frame: answer


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """Wait for what is stored in the background; its value."""
    async with asyncio.timeout(10):
        while not (value := await condition()):
            await asyncio.sleep(0.02)
    return value


async def setting(there: There, name: str) -> dict[str, Any]:
    [view] = await there.get(f"{there.url}/settings/{name}")
    return dict(view)


def test_a_change_waits_for_the_device_and_is_applied(run, redis):
    async def scenario() -> None:
        async with commanding(redis) as there:
            [view] = await there.put(f"{there.url}/settings/link", json={"ping_timeout": 60})
            assert (view["status"], view["pending"], view["current"]) == ("pending", {"ping_timeout": 60}, None)
            tracker = await Tracker().connect(there.port)
            await until(lambda: _has_status(there, "link", "ok"))
            assert tracker.obeyed == ["setparam 1003:60"]
            view = await setting(there, "link")
            assert (view["current"], view["pending"]) == ({"ping_timeout": 60}, None)
            assert view["updated"] > view["requested"] > 1.7e9
            assert await there.codes() == [311, 317, 312]
            [device] = await there.get(f"{there.url}?fields=settings")
            assert device["settings"]["link"]["current"] == {"ping_timeout": 60}
            await tracker.close()

    run(scenario())


async def _has_status(there: There, name: str, status: str) -> bool:
    return bool((await setting(there, name))["status"] == status)


def test_what_the_device_does_not_take_is_rejected(run, redis):
    async def scenario() -> None:
        async with commanding(redis) as there:
            tracker = await Tracker().connect(there.port)
            tracker.obey = says("ERROR: no such parameter")
            await there.put(f"{there.url}/settings/link", json={"ping_timeout": 60})
            await until(lambda: _has_status(there, "link", "rejected"))
            view = await setting(there, "link")
            assert (view["pending"], view["error"]) == (None, "ERROR: no such parameter")
            assert await there.codes() == [311, 317, 313]
            await tracker.close()

    run(scenario())


def test_a_setting_is_read_again(run, redis):
    async def scenario() -> None:
        async with commanding(redis) as there:
            tracker = await Tracker().connect(there.port)
            [view] = await there.delete(f"{there.url}/settings/server")
            assert view["status"] == "reading"
            await until(lambda: _has_status(there, "server", "ok"))
            assert tracker.obeyed == ["getparam 2004;2005;2006;2020"]
            assert set((await setting(there, "server"))["current"]) == {"domain", "port", "protocol", "encryption"}
            assert await there.codes() == [315, 317, 310]
            await tracker.close()

    run(scenario())


def test_a_change_can_be_cancelled(run, redis):
    async def scenario() -> None:
        async with commanding(redis) as there:
            await there.put(f"{there.url}/settings/link", json={"ping_timeout": 60})
            [view] = await there.delete(f"{there.url}/settings/link", data={"pending": True})
            assert (view["status"], view["pending"]) == ("unknown", None)
            error = await there.refused("DELETE", f"{there.url}/settings/link", 400, data={"pending": True})
            assert error["reason"] == "nothing is pending for setting link"
            tracker = await Tracker().connect(there.port)
            await there.refresh()
            assert tracker.obeyed == []
            await tracker.close()

    run(scenario())


def test_all_settings_of_the_model_are_listed(run, redis):
    async def scenario() -> None:
        async with commanding(redis) as there:
            await device_of(there, OTHER, "FMB640")
            found = await there.get(f"{there.url}/settings/all?fields=name,status,schema")
            assert [one["name"] for one in found] == list(settings_of("FMC130"))
            assert {one["status"] for one in found} == {"unknown"}
            assert found[0]["schema"]["properties"]["port"]["maximum"] == 65535
            both = await there.get("/gw/devices/all/settings/link,sle*")
            assert [one["name"] for one in both] == ["link", "sleep", "link", "sleep"]

    run(scenario())


@pytest.mark.parametrize(
    ("method", "path", "options", "reason"),
    [
        ("GET", "settings/nothing", {}, "setting nothing is not found"),
        ("PUT", "settings/nothing", {"json": {"a": 1}}, "setting nothing is not found"),
        ("PUT", "settings/link", {"json": {"speed": 1}}, "setting link has no field speed"),
        ("PUT", "settings/link", {"json": {"ping_timeout": 301}}, "a whole number from 0 to 300"),
        ("PUT", "settings/link", {"json": {}}, "setting link should be an object"),
        ("PUT", "settings/link", {"json": [1]}, "Expected `object`"),
        ("DELETE", "settings/link", {"data": {"current": True}}, "unknown field `current`"),
    ],
)
def test_what_cannot_be_is_refused(run, redis, method, path, options, reason):
    async def scenario() -> None:
        async with commanding(redis) as there:
            error = await there.refused(method, f"{there.url}/{path}", 400, **options)
            assert reason in error["reason"]
            assert await redis.exists(KEYS.settings(there.device.id)) == 0

    run(scenario())


def test_settings_are_read_once_where_the_device_says_so(run, redis):
    """At its first connection; not at the second, and not of devices that do not say it."""

    async def scenario() -> None:
        async with commanding(redis) as there:
            device = await device_of(there, OTHER, settings_polling="once")
            tracker, silent = Tracker(OTHER), Tracker()
            await tracker.connect(there.port)
            await silent.connect(there.port)
            url = f"/gw/devices/{device.id}/settings/all"

            async def all_known() -> bool:
                return {one["status"] for one in await there.get(url)} == {"ok"}

            await until(all_known)
            asked = len(tracker.obeyed)
            assert asked >= len(settings_of("FMC130"))
            assert all(text.startswith("getparam ") for text in tracker.obeyed)
            await tracker.close()
            await tracker.connect(there.port)
            tracker.send(tracker.frames.packet(1))
            await tracker.until(lambda: tracker.acknowledgements)
            await there.refresh()
            assert (len(tracker.obeyed), silent.obeyed) == (asked, [])
            await tracker.close()
            await silent.close()

    run(scenario())


def test_what_a_device_does_not_tell_is_asked_once_too(run, redis):
    """It is unreadable, and stays so."""

    async def scenario() -> None:
        async with commanding(redis) as there:
            device = await device_of(there, OTHER, settings_polling="once")
            tracker = Tracker(OTHER)
            tracker.obey = says("ERROR")
            await tracker.connect(there.port)
            url = f"/gw/devices/{device.id}/settings/all"

            async def all_unreadable() -> bool:
                return {one["status"] for one in await there.get(url)} == {"unreadable"}

            await until(all_unreadable)
            asked = len(tracker.obeyed)
            await tracker.close()
            await tracker.connect(there.port)
            await there.refresh()
            tracker.send(tracker.frames.packet(1))
            await tracker.until(lambda: tracker.acknowledgements)
            assert len(tracker.obeyed) == asked
            await tracker.close()

    run(scenario())


@pytest.mark.parametrize(("model", "polling"), [("", "once"), ("FMC130", "never")])
def test_settings_are_not_read_where_the_model_is_not_known_or_nobody_wants_them(run, redis, model, polling):
    """The numbers of parameters are the model's: as soon as it is known, they are read."""

    async def scenario() -> None:
        async with commanding(redis) as there:
            device = await device_of(there, OTHER, model, settings_polling=polling)
            tracker = await Tracker(OTHER).connect(there.port)
            await there.refresh()
            tracker.send(tracker.frames.packet(1))
            await tracker.until(lambda: tracker.acknowledgements)
            await there.settle()
            assert tracker.obeyed == []
            kind = find_device_type("FMC125")
            assert kind is not None
            await there.patch(f"/gw/devices/{device.id}", json={"device_type_id": kind.id})
            await tracker.ended()
            await tracker.connect(there.port)
            tracker.send(tracker.frames.packet(1))
            await tracker.until(lambda: len(tracker.acknowledgements) == 2)
            if polling == "once":
                await tracker.until(lambda: tracker.obeyed)
                assert tracker.obeyed[0].startswith("getparam ")
            else:
                await there.settle()
                assert tracker.obeyed == []
            await tracker.close()

    run(scenario())


# -- models


def test_a_tracker_of_unknown_model_is_asked_and_becomes_what_it_says(run, redis):
    """It logs in again, for its records mean something else now; a command that waits goes out after that."""

    async def scenario() -> None:
        async with commanding(redis, ask_model=True) as there:
            device = await device_of(there, OTHER, "")
            assert device.device_type_id == UNKNOWN_TYPE
            await there.post(f"/gw/devices/{device.id}/commands-queue", json=[{"name": "getio"}])
            tracker = await Tracker(OTHER, "FMB640").connect(there.port)
            await tracker.ended()
            kind = find_device_type("FMB640")
            assert kind is not None
            assert there.parts.items.devices[device.id].device_type_id == kind.id
            assert tracker.obeyed == ["getver"]
            await tracker.connect(there.port)
            await tracker.until(lambda: len(tracker.obeyed) == 2)
            assert tracker.obeyed == ["getver", "getio"]
            await tracker.close()

    run(scenario())


def test_a_tracker_that_names_no_model_is_asked_once(run, redis):
    """Which is remembered in Redis, for the next start."""

    async def scenario() -> None:
        async with commanding(redis, ask_model=True) as there:
            device = await device_of(there, OTHER, "")
            tracker = Tracker(OTHER)
            tracker.obey = says("Code Ver:01.06.15 Rev:1 Device IMEI:353976010139156 Device ID:000001")
            await tracker.connect(there.port)
            await until(lambda: redis.hexists(KEYS.models_asked, str(device.id)))
            await tracker.close()
            there.lines._questions._tries.clear()
            await there.lines._questions.load()  # as at a start
            await tracker.connect(there.port)
            tracker.send(tracker.frames.packet(1))
            await tracker.until(lambda: tracker.acknowledgements)
            await there.settle()
            assert tracker.obeyed == ["getver"]
            assert there.parts.items.devices[device.id].device_type_id == UNKNOWN_TYPE
            assert (KEYS.models_asked, str(device.id)) in KEYS.fields_of_device(device.id)
            await tracker.close()

    run(scenario())


@pytest.mark.parametrize(
    ("configuration", "model"), [({}, ""), ({"ask_model": False}, ""), ({"ask_model": True}, "FMB920")]
)
def test_nobody_is_asked_without_need(run, redis, configuration, model):
    """Only where the channel says so, and the model is not known."""

    async def scenario() -> None:
        async with commanding(redis, **configuration) as there:
            await device_of(there, OTHER, model)
            tracker = await Tracker(OTHER).connect(there.port)
            tracker.send(tracker.frames.packet(1))
            await tracker.until(lambda: tracker.acknowledgements)
            await there.settle()
            assert tracker.obeyed == []
            await tracker.close()

    run(scenario())


def test_one_that_does_not_answer_is_asked_a_few_times(run, redis):
    async def scenario() -> None:
        async with commanding(redis, ask_model=True) as there:
            await device_of(there, OTHER, "")
            tracker = Tracker(OTHER)
            tracker.obey = lambda _frame: None
            for _ in range(TRIES_MOST):
                await tracker.connect(there.port)
                await tracker.ended()
            tracker.obey = tracker._obey
            await tracker.connect(there.port)
            tracker.send(tracker.frames.packet(1))
            await tracker.until(lambda: tracker.acknowledgements)
            await there.settle()
            assert tracker.obeyed == ["getver"] * TRIES_MOST
            await tracker.close()

    run(scenario())


def test_the_setting_of_the_channel_is_one_of_its_configuration(run, redis):
    async def scenario() -> None:
        async with commanding(redis) as there:
            [channel] = there.parts.items.channels
            [view] = await there.patch(f"/gw/channels/{channel}", json={"configuration": {"ask_model": True}})
            assert view["configuration"]["ask_model"] is True
            await there.refused("PATCH", f"/gw/channels/{channel}", 400, json={"configuration": {"ask_model": 1}})
            await device_of(there, OTHER, "")
            tracker = await Tracker(OTHER, "FMB920").connect(there.port)
            await tracker.ended()
            assert tracker.obeyed == ["getver"]

    run(scenario())
