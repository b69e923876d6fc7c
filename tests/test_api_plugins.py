"""``/gw/plugins``: success, wrong input, missing rights, secrets; and the types of plugins."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.items_rest import gateway, key_for, stored
from tests.plugins_rest import URL, new, oracle, play_on
from tests.rest import Rest


@pytest.fixture
def scene(run, redis, tmp_path: Path):
    return play_on(run, redis, tmp_path)


@pytest.mark.parametrize("named", [{"type_id": 4}, {"type_name": "msg-erase"}, {"type": "msg-erase"}])
def test_a_plugin_is_created_and_answered(run, redis, named: dict[str, Any]):
    """By any name of its type; the configuration is completed by the type, and all of it is stored."""

    async def scenario() -> None:
        async with gateway(redis) as there:
            sent = {"name": "no CAN", **named, "configuration": {"parameters": ["can.*"]}}
            [made] = await there.post(URL, [sent])
            assert made == {
                "id": 1,
                "name": "no CAN",
                "type_id": 4,
                "type_name": "msg-erase",
                "enabled": True,
                "priority": 0,
                "validate_message": "",
                "configuration": {"on_error": "skip", "parameters": ["can.*"]},
                "cid": 1,
            }
            assert await there.get(f"{URL}/1") == [made]
            assert (await stored(redis)).plugins == there.parts.items.plugins

    run(scenario())


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        ({"name": "x"}, "type_name", "type_id or type_name is needed"),
        (new(type_name="msg-erode"), "type_name", "type 'msg-erode' not found; there are ask-oracle ("),
        ({"type": "x"}, "type", "msg-erase (4)"),
        ({"type_id": 99}, "type_id", "type 99 not found"),
        (new(type_id=3), "type_name", "type_name and type_id name different types"),
        (new(name="x" * 257), "name", "length <= 256"),
        (new(priority=1.5), "priority", "Expected `int"),
        (new(priority=10**7), "priority", "<= 1000000"),
        (new(validate_message="position.speed >"), "validate_message", "validate_message: column 17"),
        (new(validate_message="1+" * 3000), "validate_message", "4096"),
        (new(configuration={}), "configuration.parameters", "missing required field `parameters`"),
        (new(configuration={"parameters": []}), "configuration.parameters", "length >= 1"),
        (new(configuration={"parameters": ["a"], "on_error": "x"}), "configuration.on_error", "skip or stop"),
        (new(configuration={"parameters": ["a"], "mask": 1}), "configuration.mask", "unknown field `mask`"),
        (new(configuration={"parameters": ["ident"]}), "configuration.parameters", "ident cannot be removed"),
        (new(configuration=5), "configuration", "Expected `object`"),
        (oracle(limit=10), "configuration.limit", "<= 9"),
        (oracle(limit=7), "configuration.limit", "7 is a holy number"),
        (oracle(uri="refused"), "configuration", "the oracle does not live there"),
        (oracle(uri="mistake"), "configuration", "ZeroDivisionError: by nothing"),
        (oracle(password="***"), "configuration.password", "none is: give the value itself"),
        (new(metadata={"a": "x" * 70_000}), "metadata", "65536 is the most"),
        (new(id=7), "id", "unknown field `id`"),
        (new(blocked=0), "blocked", "unknown field"),
        ("text", None, "Expected `object`"),
    ],
)
def test_a_wrong_plugin_is_refused_by_name(scene, body: Any, field: str | None, reason: str):
    """The others of the same call are created."""

    async def scenario(there: Rest) -> None:
        answer = (await there.request("POST", URL, json=[new("three"), body])).json()
        assert [made["name"] for made in answer["result"]] == ["three"]
        [error] = answer["errors"]
        assert (error["code"], error["index"], error.get("field")) == (2, 1, field), error
        assert reason in error["reason"]
        assert list(there.parts.items.plugins) == [1, 2, 3]

    scene(scenario)


def test_a_wrong_expression_is_told_with_its_column(scene):
    """As everywhere; at a change, too."""

    async def scenario(there: Rest) -> None:
        error = await there.refused("PATCH", f"{URL}/1", 400, json={"validate_message": "din == 1 &&& 2"})
        assert (error["field"], error["column"]) == ("validate_message", 12)

    scene(scenario)


@pytest.mark.parametrize(
    ("selector", "ids"),
    [
        ("all", [1, 2]),
        ("2,1", [2, 1]),
        ("name=t*", [2]),
        ("type_name=msg-erase", [1]),
        ("type_id=1", [2]),
        ("priority=-5", [2]),
        ('{name == "one" || priority > 0}', [1]),
        ("configuration.on_error=skip", [1, 2]),
        ("enabled=false", []),
    ],
)
def test_selectors(scene, selector: str, ids: list[int]):
    """flespi's forms."""

    async def scenario(there: Rest) -> None:
        assert [plugin["id"] for plugin in await there.get(f"{URL}/{selector}?fields=id")] == ids

    scene(scenario)


def test_what_is_given_on_request_only(scene):
    """And an unknown name is refused with flespi's words."""

    async def scenario(there: Rest) -> None:
        await there.post(f"{URL}/1/devices/1,2", None)
        names = "metadata,blocked,error,devices_count"
        first, second = await there.get(f"{URL}/all?fields={names}")
        assert first == {"metadata": {}, "blocked": 0, "error": "", "devices_count": 2}
        assert second["devices_count"] == 0
        error = await there.refused("GET", f"{URL}/all?fields=item_type", 400)
        assert (error["reason"], error["field"]) == ("field is not allowed", "item_type")

    scene(scenario)


def test_a_plugin_that_cannot_be_used_any_more_says_so(scene):
    """Its type is gone, or its configuration was written by an older version: it is blocked, and the reason told."""

    async def scenario(there: Rest) -> None:
        items = there.parts.items
        await items.create_plugin(name="old", type="msg-old", configuration={})
        await items.create_plugin(name="bad", type="msg-erase", configuration={"parameters": 5})
        gone, bad = await there.get(f"{URL}/3,4?fields=type_id,type_name,blocked,error")
        assert gone == {
            "type_id": None, "type_name": "msg-old", "blocked": 6, "error": "there is no plugin type msg-old any more",
        }  # fmt: skip
        assert bad["blocked"] == 6
        assert "Expected `array`" in bad["error"]
        assert await there.get(f"{URL}/blocked=6?fields=id") == [{"id": 3}, {"id": 4}]
        error = await there.refused("PUT", f"{URL}/3", 400, json={"configuration": {}})
        assert "no plugin type msg-old" in error["reason"]
        await there.put(f"{URL}/4", {"configuration": {"parameters": ["a"]}})
        assert await there.get(f"{URL}/4?fields=blocked") == [{"blocked": 0}]
        await there.put(f"{URL}/3", {"name": "renamed"})

    scene(scenario)


def test_put_replaces_and_patch_merges(scene):
    """What was merged is checked and completed as a whole."""

    async def scenario(there: Rest) -> None:
        await there.put(f"{URL}/1", {"metadata": {"a": 1}, "configuration": {"parameters": ["x"], "on_error": "stop"}})
        [plugin] = await there.patch(
            f"{URL}/1?fields=metadata,configuration", {"metadata": {"b": 2}, "configuration": {"parameters": ["y"]}}
        )
        assert plugin == {
            "metadata": {"a": 1, "b": 2}, "configuration": {"parameters": ["y"], "on_error": "stop"},
        }  # fmt: skip
        [plugin] = await there.put(f"{URL}/1?fields=configuration", {"configuration": {"parameters": ["z"]}})
        assert plugin["configuration"] == {"parameters": ["z"], "on_error": "skip"}
        error = await there.refused("PATCH", f"{URL}/1", 400, json={"configuration": {"parameters": None}})
        assert error["field"] == "configuration.parameters"
        assert there.parts.items.plugins[1].configuration["parameters"] == ["z"]

    scene(scenario)


@pytest.mark.parametrize("field", ["id", "cid", "type_id", "type_name", "type", "blocked", "devices_count", "nmae"])
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_what_cannot_be_changed_is_refused_by_name(scene, method: str, field: str):
    """And nothing is changed by the call."""

    async def scenario(there: Rest) -> None:
        error = await there.refused(method, f"{URL}/all", 400, json={"name": "x", field: 1})
        assert error["field"] == field
        assert [plugin.name for plugin in there.parts.items.plugins.values()] == ["one", "two"]

    scene(scenario)


def test_a_deleted_plugin_is_gone_with_its_links(scene, redis):
    """The answer is what it was."""

    async def scenario(there: Rest) -> None:
        await there.post(f"{URL}/1,2/devices/all", None)
        [deleted] = await there.delete(f"{URL}/1?fields=id,name,devices_count")
        assert deleted == {"id": 1, "name": "one", "devices_count": 3}
        error = await there.refused("DELETE", f"{URL}/1", 403)
        assert error == {"code": 3, "reason": "access denied or unable to process the item", "id": 1}
        again = await stored(redis)
        assert list(again.plugins) == [2]
        assert len(again.links) == 3
        assert [one["id"] for one in await there.get("/gw/devices/1/plugins/all")] == [2]

    scene(scenario)


def test_concurrent_changes_lose_nothing(scene):
    """Of the plugin, and of its fields for a device."""

    async def scenario(there: Rest) -> None:
        await there.post(f"{URL}/1/devices/1", None)
        await asyncio.gather(
            *(there.patch(f"{URL}/1", {"metadata": {f"key{n}": n}}) for n in range(30)),
            *(there.patch(f"{URL}/1/devices/1", {"fields": {f"key{n}": n}}) for n in range(30)),
        )
        expected = {f"key{n}": n for n in range(30)}
        assert await there.get(f"{URL}/1?fields=metadata") == [{"metadata": expected}]
        assert await there.get(f"{URL}/1/devices/1?fields=fields") == [{"fields": expected}]

    scene(scenario)


def test_passwords_are_shown_to_who_may_change_them(scene):
    """Others see their place; a selector does not find them out, and what they send back keeps them."""

    async def scenario(there: Rest) -> None:
        made = await there.post(URL, [oracle(password="delphi", uri="http://u:pythia@oracle.example/")])
        id = made[0]["id"]
        assert made[0]["configuration"]["password"] == "delphi"
        reader = await key_for(there, {"uri": "gw/plugins", "methods": ["GET", "PATCH"]})
        [seen] = await there.get(f"{URL}/{id}?fields=configuration", key=reader)
        assert seen["configuration"] == {
            "on_error": "skip", "password": "***", "uri": "http://u:***@oracle.example/", "limit": 5,
        }  # fmt: skip
        assert await there.get(f"{URL}/configuration.password=delphi?fields=id", key=reader) == []
        assert await there.get(f'{URL}/%7Bconfiguration.password == "delphi"%7D?fields=id', key=reader) == []
        seen["configuration"]["limit"] = 3
        [changed] = await there.patch(f"{URL}/{id}?fields=configuration", seen, key=reader)
        assert changed["configuration"]["password"] == "***"
        changer = await key_for(there, {"uri": "gw/plugins", "methods": ["GET", "PUT"], "ids": [id]})
        [kept] = await there.put(f"{URL}/{id}?fields=configuration", changed, key=changer)
        assert kept["configuration"] == {
            "on_error": "skip", "password": "delphi", "uri": "http://u:pythia@oracle.example/", "limit": 3,
        }  # fmt: skip
        assert await there.get(f"{URL}/configuration.password=delphi?fields=id", key=changer) == [{"id": id}]

    scene(scenario)


def test_a_token_sees_and_changes_what_it_may(scene):
    """As with devices."""

    async def scenario(there: Rest) -> None:
        key = await key_for(there, {"uri": "gw/plugins", "methods": ["GET", "PUT"], "ids": [2]})
        assert [plugin["id"] for plugin in await there.get(f"{URL}/all", key=key)] == [2]
        assert (await there.refused("GET", f"{URL}/1", 403, key=key))["id"] == 1
        await there.put(f"{URL}/all", {"name": "mine"}, key=key)
        assert [plugin.name for plugin in there.parts.items.plugins.values()] == ["one", "mine"]
        for method, path, json in (
            ("DELETE", f"{URL}/2", None),
            ("POST", URL, [new()]),
            ("GET", f"{URL}/2/devices/all", None),
            ("GET", f"{URL}/2/logs", None),
            ("GET", "/gw/plugin-types/all", None),
        ):
            error = await there.refused(method, path, 403, key=key, json=json)
            assert error == {"code": 3, "reason": "action is not permitted by ACL"}
        await there.refused("GET", f"{URL}/all", 401, key=None)

    scene(scenario)


# -- types


def test_types_tell_how_they_are_configured(scene):
    """A schema from what the configuration is checked with; an operator's type is one of them."""

    async def scenario(there: Rest) -> None:
        [erase] = await there.get("/gw/plugin-types/name=msg-erase")
        assert (erase["id"], erase["is_remote"]) == (4, False)
        assert erase["title"].startswith("Removes parameters from messages")
        [schema] = erase["schema"]["$defs"].values()
        assert schema["required"] == ["parameters"]
        assert schema["properties"]["on_error"]["enum"] == ["skip", "stop"]
        [own] = await there.get("/gw/plugin-types/name=ask-oracle?fields=id,title,description,is_remote")
        assert own["id"] >= 1000
        assert (own["title"], own["is_remote"]) == ("Asks the oracle", True)
        assert await there.get(f"/gw/plugin-types/{own['id']},4?fields=name") == [
            {"name": "ask-oracle"}, {"name": "msg-erase"},
        ]  # fmt: skip
        assert (await there.refused("GET", "/gw/plugin-types/5000000", 403))["id"] == 5000000

    scene(scenario)
