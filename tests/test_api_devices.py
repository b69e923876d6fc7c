"""``/gw/devices``: success, wrong input, missing rights, and many at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.api import items as of_items
from gateway.errors import StoreUnavailable
from gateway.store.messages import DeviceChange, DeviceMessages
from tests.items_rest import KEYS, gateway, key_for, stored
from tests.rest import Rest

URL = "/gw/devices"


def new(ident: str = "352625333222111", **values: Any) -> dict[str, Any]:
    return {"name": f"device {ident}", "device_type_id": 303, "configuration": {"ident": ident}, **values}


@pytest.fixture
def scene(run, redis):
    """Runs a coroutine with the API and three devices: 1, 2 and 3 with the idents a1, a2 and b3."""

    def play(coroutine, ports: range = range(0)) -> None:
        async def with_devices() -> None:
            async with gateway(redis, ports) as there:
                await there.post(URL, [new("a1"), new("a2", enabled=False), new("b3", device_type_id=10000)])
                await coroutine(there)

        run(with_devices())

    return play


def test_a_device_is_created_and_answered_as_flespi_does(run, redis):
    """flespi's example of a POST, but for the numbers of its protocol; the device is stored."""

    async def scenario() -> None:
        async with gateway(redis) as there:
            sent = {
                "name": "MV730-001",
                "device_type_id": 303,
                "messages_ttl": 31536000,
                "configuration": {"ident": "352625333222111", "settings_polling": "once"},
            }
            [made] = await there.post(URL, [sent])
            assert made == {
                "messages_ttl": 31536000,
                "protocol_id": 14,
                "device_type_id": 303,
                "id": 1,
                "enabled": True,
                "media_ttl": 0,
                "name": "MV730-001",
                "configuration": {"ident": "352625333222111", "settings_polling": "once"},
                "cid": 1,
                "media_rotate": 0,
                "messages_rotate": 0,
            }
            assert await there.get(f"{URL}/1") == [made]
            assert (await stored(redis)).devices == there.parts.items.devices

    run(scenario())


def test_what_is_not_said_has_a_default(run, redis):
    """An ident is enough; its name is the ident, its model unknown, its lifetime the configured one."""

    async def scenario() -> None:
        async with gateway(redis) as there:
            [made] = await there.post(URL, [{"configuration": {"ident": "77"}}])
            assert (made["name"], made["device_type_id"], made["messages_ttl"]) == ("77", 10000, 2592000)
            assert made["configuration"] == {"ident": "77", "settings_polling": "once"}

    run(scenario())


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        ({}, "configuration", "missing required field"),
        ({"configuration": {}}, "configuration.ident", "missing required field"),
        (new("a1"), "configuration.ident", "device 1 (device a1) has the ident a1 already"),
        (new("a/b"), "configuration.ident", "without spaces, '#', '+' and '/'"),
        (new("x", name="x" * 257), "name", "length <= 256"),
        (new("x", device_type_id=325), "device_type_id", "device type 325 not found"),
        (new("x", protocol_id=13), "protocol_id", "protocol 13 not found"),
        (new("x", messages_ttl=-1), "messages_ttl", ">= 0"),
        (new("x", messages_ttl=10**9), "messages_ttl", "<= 315360000"),
        (new("x", messages_rotate=1.5), "messages_rotate", "Expected `int"),
        (new("x", media_ttl=5), "media_ttl", "Invalid enum value 5"),
        (new("x", id=7), "id", "unknown field `id`"),
        (new("x", cid=7), "cid", "unknown field `cid`"),
        (new("x", telemetry={}), "telemetry", "unknown field"),
        (new("x", configuration={"ident": "x", "imei": "y"}), "configuration.imei", "unknown field `imei`"),
        (new("x", metadata={"a": "x" * 70_000}), "metadata", "65536 is the most"),
        ("text", None, "Expected `object`"),
    ],
)
def test_a_wrong_device_is_refused_by_name(scene, body: Any, field: str | None, reason: str):
    """The others of the same call are created, and the answer says which was wrong."""

    async def scenario(there: Rest) -> None:
        response = await there.request("POST", URL, json=[new("c4"), body, new("c5")])
        answer = response.json()
        assert response.status_code == 200, answer
        assert [made["configuration"]["ident"] for made in answer["result"]] == ["c4", "c5"]
        [error] = answer["errors"]
        assert (error["code"], error["index"], error.get("field")) == (2, 1, field)
        assert reason in error["reason"]
        error = await there.refused("POST", URL, 400, json=[body])
        assert error.get("field") == field
        assert len(there.parts.items.devices) == 5

    scene(scenario)


@pytest.mark.parametrize(
    ("selector", "ids"),
    [
        ("all", [1, 2, 3]),
        ("3,1", [3, 1]),
        ("configuration.ident=a1", [1]),
        ('configuration.ident="a1"', [1]),
        ("configuration.ident=a*", [1, 2]),
        ("ident=b3", [3]),
        ("enabled=true", [1, 3]),
        ("device_type_id=303", [1, 2]),
        ("protocol_name=teltonika", [1, 2, 3]),
        ("device_type_name=fmb204,enabled=false", [2]),
        ('{name~"*b*" || configuration.ident~"*2*"}', [2, 3]),
        ('{name=="device a1" || device_type_id==10000}', [1, 3]),
        ("connected=true", []),
        ("name=nobody", []),
    ],
)
def test_selectors(scene, selector: str, ids: list[int]):
    """flespi's forms; none that fits is no error."""

    async def scenario(there: Rest) -> None:
        assert [device["id"] for device in await there.get(f"{URL}/{selector}")] == ids

    scene(scenario)


def test_an_id_that_is_not_there_is_403_as_flespi_says(scene):
    """Its documented answer, word for word; beside others that are there, it is an error among results."""

    async def scenario(there: Rest) -> None:
        for method, json in (("GET", None), ("PUT", {"name": "x"}), ("PATCH", {"name": "x"}), ("DELETE", None)):
            error = await there.refused(method, f"{URL}/98765", 403, json=json)
            assert error == {"code": 3, "reason": "access denied or unable to process the item", "id": 98765}
        response = await there.request("GET", f"{URL}/1,98765?fields=id")
        assert response.status_code == 200
        assert response.json()["result"] == [{"id": 1}]
        assert response.json()["errors"][0]["id"] == 98765

    scene(scenario)


def test_telemetry_among_the_fields_needs_the_right_to_read_it(scene, redis):
    """It is a part of the API of its own; without the right the field is empty, as of a device without telemetry."""

    async def scenario(there: Rest) -> None:
        for device_id in (1, 2):
            change = DeviceChange(device_id, f"a{device_id}", {1: b"{}"}, telemetry={"server.timestamp": (5, 6.5)})
            await DeviceMessages(redis, KEYS).commit([change], {})
        devices = {"uri": "gw/devices", "methods": ["GET"]}
        telemetry = {"uri": "gw/devices", "ids": [2], "submodules": [{"name": "telemetry", "methods": ["GET"]}]}
        for acl, times in (([devices], [None, None]), ([devices, telemetry], [None, 6.5])):
            key = await key_for(there, *acl)
            found = await there.get(f"{URL}/1,2?fields=telemetry,last_active", key=key)
            assert [device["last_active"] for device in found] == times
            assert [device["telemetry"] is not None for device in found] == [time is not None for time in times]

    scene(scenario)


def test_fields_are_chosen_by_name(scene, redis):
    """Also those that are given on request only, and parts of objects."""

    async def scenario(there: Rest) -> None:
        change = DeviceChange(1, "a1", {1: b"{}"}, telemetry={"server.timestamp": (5, 6.5), "din": (5, 1)})
        await DeviceMessages(redis, KEYS).commit([change], {})
        names = "name,configuration.ident,connected,last_active,telemetry,messages_size,protocol_name,device_type_name"
        first, second, _ = await there.get(f"{URL}/all?fields={names},metadata,blocked")
        assert first == {
            "name": "device a1", "configuration.ident": "a1", "connected": False, "last_active": 6.5,
            "telemetry": {"server.timestamp": {"ts": 5, "value": 6.5}, "din": {"ts": 5, "value": 1}},
            "messages_size": 2, "protocol_name": "teltonika", "device_type_name": "fmb204",
            "metadata": {}, "blocked": 0,
        }  # fmt: skip
        assert (second["last_active"], second["telemetry"], second["messages_size"]) == (None, None, 0)
        error = await there.refused("GET", f"{URL}/all?fields=id,nmae", 400)
        assert (error["reason"], error["field"]) == ("field is not allowed", "nmae")
        assert "name" in error["schema_hint"]

    scene(scenario)


def test_a_list_has_pages(scene):
    """``limit`` and ``offset``, and how many there are."""

    async def scenario(there: Rest) -> None:
        answer = (await there.request("GET", f"{URL}/all?limit=2&offset=1&fields=id")).json()
        assert answer == {"result": [{"id": 2}, {"id": 3}], "pagination": {"limit": 2, "offset": 1, "count": 3}}

    scene(scenario)


def test_a_long_list_is_sent_in_chunks(scene, monkeypatch):
    """The same list, however it is cut."""

    async def scenario(there: Rest) -> None:
        whole = await there.get(f"{URL}/all?fields=id,messages_size")
        monkeypatch.setattr(of_items, "CHUNK", 2)
        assert await there.get(f"{URL}/all?fields=id,messages_size") == whole

    scene(scenario)


def test_put_replaces_the_given_fields(scene):
    """An object as a whole, and what is not named stays."""

    async def scenario(there: Rest) -> None:
        await there.put(f"{URL}/1", {"metadata": {"a": 1, "b": 2}, "configuration": {"ident": "a1", "phone": "+1"}})
        [changed] = await there.put(
            f"{URL}/1?fields=name,metadata,configuration,messages_ttl", {"metadata": {"c": 3}, "messages_ttl": 60}
        )
        assert changed == {
            "name": "device a1", "metadata": {"c": 3}, "messages_ttl": 60,
            "configuration": {"ident": "a1", "phone": "+1", "settings_polling": "once"},
        }  # fmt: skip
        [changed] = await there.put(f"{URL}/1?fields=configuration", {"configuration": {"ident": "new"}})
        assert changed == {"configuration": {"ident": "new", "settings_polling": "once"}}
        [changed] = await there.put(
            f"{URL}/1?fields=configuration", {"configuration": {"ident": "new", "settings_polling": "never"}}
        )
        assert changed == {"configuration": {"ident": "new", "settings_polling": "never"}}

    scene(scenario)


def test_patch_merges_objects(scene):
    """flespi's example; null removes, and what was merged is checked as a whole."""

    async def scenario(there: Rest) -> None:
        await there.put(
            f"{URL}/1",
            {
                "metadata": {"a": 1, "b": {"c": 2}},
                "configuration": {"ident": "a1", "phone": "5", "settings_polling": "never"},
            },
        )
        [changed] = await there.patch(f"{URL}/1", {"configuration": {"ident": "new"}})
        assert changed["configuration"] == {"ident": "new", "phone": "5", "settings_polling": "never"}
        [changed] = await there.patch(
            f"{URL}/1?fields=metadata,configuration",
            {"metadata": {"a": None, "b": {"d": 3}}, "configuration": {"phone": None, "settings_polling": None}},
        )
        assert changed == {"metadata": {"b": {"c": 2, "d": 3}}, "configuration": {"ident": "new"}}
        for wrong, field in (({"ident": None}, "ident"), ({"imei": 5}, "imei"), ({"phone": 5}, "phone")):
            error = await there.refused("PATCH", f"{URL}/1", 400, json={"configuration": wrong})
            assert error["field"].endswith(field)
        wrong = {"settings_polling": "daily"}
        error = await there.refused("PATCH", f"{URL}/1", 400, json={"configuration": wrong})
        assert error["field"] == "configuration.settings_polling"
        assert "'daily'; it should be never or once" in error["reason"]
        assert there.parts.items.devices[1].configuration == {"ident": "new"}

    scene(scenario)


@pytest.mark.parametrize("field", ["id", "cid", "protocol_name", "protocol_id", "connected", "telemetry", "nmae"])
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_what_can_only_be_read_is_refused_by_name(scene, method: str, field: str):
    """And nothing is changed by the call."""

    async def scenario(there: Rest) -> None:
        error = await there.refused(method, f"{URL}/all", 400, json={"name": "x", field: 1})
        assert error["field"] == field
        assert all(device.name != "x" for device in there.parts.items.devices.values())

    scene(scenario)


def test_of_several_changes_each_stands_for_itself(scene):
    """One ident for all: the first gets it, the others say why not."""

    async def scenario(there: Rest) -> None:
        response = await there.request("PUT", f"{URL}/2,3", json={"configuration": {"ident": "z"}})
        answer = response.json()
        assert [device["id"] for device in answer["result"]] == [2]
        [error] = answer["errors"]
        assert (error["id"], error["field"]) == (3, "configuration.ident")
        assert "device 2" in error["reason"]

    scene(scenario)


def test_a_deleted_device_is_gone(scene, redis):
    """The answer is what it was; its ident is free."""

    async def scenario(there: Rest) -> None:
        deleted = await there.delete(f"{URL}/configuration.ident=a*?fields=id,name")
        assert deleted == [{"id": 1, "name": "device a1"}, {"id": 2, "name": "device a2"}]
        assert [device["id"] for device in await there.get(f"{URL}/all")] == [3]
        assert list((await stored(redis)).devices) == [3]
        [again] = await there.post(URL, [new("a1")])
        assert again["id"] == 4

    scene(scenario)


def test_concurrent_patches_lose_nothing(scene):
    """Fifty keys at once, from as many requests."""

    async def scenario(there: Rest) -> None:
        await asyncio.gather(*(there.patch(f"{URL}/1", {"metadata": {f"key{n}": n}}) for n in range(50)))
        [device] = await there.get(f"{URL}/1?fields=metadata")
        assert device["metadata"] == {f"key{n}": n for n in range(50)}

    scene(scenario)


def test_of_concurrent_creations_with_one_ident_one_succeeds(scene, redis):
    """Whoever else wanted it is told who has it."""

    async def scenario(there: Rest) -> None:
        responses = await asyncio.gather(*(there.request("POST", URL, json=[new("z")]) for _ in range(20)))
        assert sorted(response.status_code for response in responses) == [200] + [400] * 19
        assert [device.ident for device in (await stored(redis)).devices.values()].count("z") == 1

    scene(scenario)


def test_a_store_that_fails_is_said_of_each_device(scene, monkeypatch):
    """What was done before is done; nothing is tried in vain a thousand times."""

    async def scenario(there: Rest) -> None:
        create, calls = there.parts.items.create_device, []

        async def fail_at_second(**values: Any) -> Any:
            calls.append(values)
            if len(calls) == 2:
                raise StoreUnavailable("gone")
            return await create(**values)

        monkeypatch.setattr(there.parts.items, "create_device", fail_at_second)
        answer = (await there.request("POST", URL, json=[new(f"z{n}") for n in range(4)])).json()
        assert [device["configuration"]["ident"] for device in answer["result"]] == ["z0"]
        assert [error["index"] for error in answer["errors"]] == [1, 2, 3]
        assert "not tried" in answer["errors"][2]["reason"]
        assert len(calls) == 2

    scene(scenario)


def test_whose_an_ident_is_is_not_told_to_who_may_not_see_it(scene):
    """It is taken, and that is all that a token of certain devices learns."""

    async def scenario(there: Rest) -> None:
        key = await key_for(there, {"uri": "gw/devices", "methods": ["PUT"], "ids": [2]})
        theirs = {"json": {"configuration": {"ident": "a1"}}}
        error = await there.refused("PATCH", f"{URL}/2", 400, key=key, **theirs)
        assert (error["field"], error["id"]) == ("configuration.ident", 2)
        assert error["reason"] == "another device has this ident already"
        assert "device 1" in (await there.refused("PATCH", f"{URL}/2", 400, **theirs))["reason"]

    scene(scenario)


def test_a_token_sees_and_changes_what_it_may(scene):
    """Ids that it may not touch are as if they were not there; without the method, nothing at all."""

    async def scenario(there: Rest) -> None:
        key = await key_for(there, {"uri": "gw/devices", "methods": ["GET", "PUT"], "ids": [2]})
        assert [device["id"] for device in await there.get(f"{URL}/all", key=key)] == [2]
        assert await there.get(f"{URL}/ident=a1", key=key) == []
        assert [device["id"] for device in await there.get(f"{URL}/ident=a2", key=key)] == [2]
        assert (await there.refused("GET", f"{URL}/1", 403, key=key))["id"] == 1
        assert (await there.refused("PUT", f"{URL}/1", 403, key=key, json={"name": "x"}))["id"] == 1
        [changed] = await there.put(f"{URL}/all", {"name": "mine"}, key=key)
        assert (changed["id"], changed["name"]) == (2, "mine")
        for method, path, json in (("DELETE", f"{URL}/2", None), ("POST", URL, [new("z")])):
            error = await there.refused(method, path, 403, key=key, json=json)
            assert error == {"code": 3, "reason": "action is not permitted by ACL"}
        limited = await key_for(there, {"uri": "gw/devices", "methods": ["POST"], "ids": [2]})
        await there.refused("POST", URL, 403, key=limited, json=[new("z")])
        await there.refused("GET", f"{URL}/all", 401, key=None)
        other = await key_for(there, {"uri": "gw/channels", "methods": ["GET"]})
        await there.refused("GET", f"{URL}/all", 403, key=other)
        assert len(there.parts.items.devices) == 3

    scene(scenario)
