"""``/gw/plugins``: success, wrong input, missing rights, secrets; and what devices have to do with them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.api import items as of_items
from gateway.api import links as of_links
from gateway.store.event_codes import EventCode
from tests.items_rest import gateway, key_for, stored
from tests.rest import Rest

URL = "/gw/plugins"
TYPE = '''
"""A type of the operator's."""
from typing import Annotated
from msgspec import Meta
from gateway import plugin
from gateway.errors import ItemError
from gateway.plugin import PluginError


class AskOracle(plugin.RemotePlugin):
    """Asks the oracle. It answers at once."""

    class Config(plugin.Config):
        uri: str = "http://oracle.example"
        password: Annotated[str, Meta(description="as the oracle gave it")] = ""
        limit: Annotated[int, Meta(ge=1, le=9, description="questions at once")] = 5

    @classmethod
    def check(cls, config):
        if config.limit == 7:
            raise ItemError("7 is a holy number", "limit")

    def __init__(self, config):
        super().__init__(config)
        if config.uri == "refused":
            raise PluginError("the oracle does not live there")
        if config.uri == "mistake":
            raise ZeroDivisionError("by nothing")
'''


def new(name: str = "test", **values: Any) -> dict[str, Any]:
    return {"name": name, "type_name": "msg-erase", "configuration": {"parameters": ["can.*"]}, **values}


def oracle(**configuration: Any) -> dict[str, Any]:
    return {"name": "oracle", "type": "ask-oracle", "configuration": configuration}


def device(ident: str) -> dict[str, Any]:
    return {"name": f"device {ident}", "configuration": {"ident": ident}}


@pytest.fixture
def scene(run, redis, tmp_path: Path):
    """Runs a coroutine with the API, plugins 1 and 2, and devices 1, 2 and 3 with the idents a1, a2 and b3."""
    (tmp_path / "ask_oracle.py").write_text(TYPE)

    def play(coroutine) -> None:
        async def with_plugins() -> None:
            async with gateway(redis, plugin_folders=[tmp_path]) as there:
                await there.post(URL, [new("one"), new("two", type_name="item-fields", configuration={}, priority=-5)])
                await there.post("/gw/devices", [device("a1"), device("a2"), device("b3")])
                await coroutine(there)

        run(with_plugins())

    return play


# -- plugins


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


# -- devices of plugins


def test_plugins_are_assigned_to_devices(scene, redis):
    """The body may be missing, empty, or have fields; the answer is the links, and the log tells both ends."""

    async def scenario(there: Rest) -> None:
        made = await there.post(f"{URL}/1/devices/1,2", {"fields": {"driver": "Bob"}})
        assert made == [
            {"id": 1, "plugin_id": 1, "name": "device a1", "fields": {"driver": "Bob"}},
            {"id": 2, "plugin_id": 1, "name": "device a2", "fields": {"driver": "Bob"}},
        ]
        [no_body] = await there.post(f"{URL}/2/devices/configuration.ident=b*", None)
        assert no_body == {"id": 3, "plugin_id": 2, "name": "device b3", "fields": {}}
        assert (await there.post(f"{URL}/2/devices/1", {}))[0]["fields"] == {}
        assert await there.get(f"{URL}/1/devices/all") == made
        again = (await stored(redis)).links
        assert again.of("plugins", 1, "devices") == there.parts.items.links.of("plugins", 1, "devices")
        for path, names in ((f"{URL}/1/logs", {"device_id": 1}), ("/gw/devices/1/logs", {"plugin_id": 1})):
            entries = await there.get(path, data={"filter": f"event_code == {EventCode.PLUGIN_ACTIVATED}"})
            assert names.items() <= entries[0].items()

    scene(scenario)


def test_assigning_again_keeps_the_fields_unless_others_are_given(scene):
    """And the time at which it was assigned."""

    async def scenario(there: Rest) -> None:
        [first] = await there.post(f"{URL}/1/devices/1?fields=fields,created", {"fields": {"driver": "Bob"}})
        assert await there.post(f"{URL}/1/devices/1?fields=fields,created", None) == [first]
        [other] = await there.post(f"{URL}/1/devices/1?fields=fields,created", {"fields": {"driver": "Ann"}})
        assert other == {"fields": {"driver": "Ann"}, "created": first["created"]}

    scene(scenario)


@pytest.mark.parametrize(
    ("selector", "ids"),
    [
        ("all", [1, 2]),
        ("2", [2]),
        ("fields.driver=Bob", [1]),
        ("fields.driver=*n", [2]),
        ("configuration.ident=a1", [1]),
        ("ident=a2", [2]),
        ("name=*a*,enabled=true", [1, 2]),
        ('{fields.driver == "Ann" || id == 1}', [1, 2]),
        ("fields.van=7", []),
    ],
)
def test_links_are_selected_by_their_fields_and_the_devices(scene, selector: str, ids: list[int]):
    """Only what is linked can be found."""

    async def scenario(there: Rest) -> None:
        await there.post(f"{URL}/1/devices/1", {"fields": {"driver": "Bob"}})
        await there.post(f"{URL}/1/devices/2", {"fields": {"driver": "Ann"}})
        assert [one["id"] for one in await there.get(f"{URL}/1/devices/{selector}")] == ids

    scene(scenario)


def test_fields_are_replaced_merged_and_taken_away(scene):
    """PUT, PATCH with null, DELETE; a field that is not linked is an error by its id."""

    async def scenario(there: Rest) -> None:
        await there.post(f"{URL}/1/devices/1,2", {"fields": {"driver": "Bob", "van": {"seats": 2}}})
        [merged] = await there.patch(f"{URL}/1/devices/1", {"fields": {"driver": None, "van": {"color": "red"}}})
        assert merged["fields"] == {"van": {"seats": 2, "color": "red"}}
        [replaced] = await there.put(f"{URL}/1/devices/fields.driver=Bob", {"fields": {"driver": "Eve"}})
        assert (replaced["id"], replaced["fields"]) == (2, {"driver": "Eve"})
        assert await there.put(f"{URL}/1/devices/2", {}) == [replaced]
        removed = await there.delete(f"{URL}/1/devices/fields.driver=Eve")
        assert removed == [replaced]
        assert [one["id"] for one in await there.get(f"{URL}/1/devices/all")] == [1]
        for method, json in (("GET", None), ("PUT", {"fields": {}}), ("PATCH", {"fields": {}}), ("DELETE", None)):
            error = await there.refused(method, f"{URL}/1/devices/2", 403, json=json)
            assert (error["code"], error["id"]) == (3, 2)

    scene(scenario)


def test_an_id_is_an_error_where_no_plugin_has_it(scene):
    """Of several plugins, one that has it is enough."""

    async def scenario(there: Rest) -> None:
        await there.post(f"{URL}/1/devices/1", None)
        found = await there.get(f"{URL}/1,2/devices/1")
        assert [(one["plugin_id"], one["id"]) for one in found] == [(1, 1)]
        answer = (await there.request("GET", f"{URL}/1,2/devices/1,3")).json()
        assert ([one["id"] for one in answer["result"]], answer["errors"][0]["id"]) == ([1], 3)
        answer = (await there.request("POST", f"{URL}/1,77/devices/1,88")).json()
        assert ([one["id"] for one in answer["result"]], [one["id"] for one in answer["errors"]]) == ([1], [77, 88])

    scene(scenario)


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        ({"fields": 5}, "fields", "Expected `object`"),
        ({"field": {}}, "field", "unknown field `field`"),
        ([{"fields": {}}], None, "Expected `object`"),
        ({"fields": {"a": "x" * 9000}}, "fields", "8192 is the most"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_wrong_fields_are_refused_by_name(scene, method: str, body: Any, field: str | None, reason: str):
    """And the link stays as it was."""

    async def scenario(there: Rest) -> None:
        await there.post(f"{URL}/1/devices/1", {"fields": {"a": 1}})
        error = await there.refused(method, f"{URL}/1/devices/1", 400, json=body)
        assert error.get("field") == field
        assert reason in error["reason"]
        assert await there.get(f"{URL}/1/devices/1?fields=fields") == [{"fields": {"a": 1}}]

    scene(scenario)


def test_links_show_what_is_asked_for(scene):
    """The link's own, and the device's."""

    async def scenario(there: Rest) -> None:
        await there.post(f"{URL}/1/devices/1", {"fields": {"driver": "Bob"}})
        [found] = await there.get(f"{URL}/1/devices/1?fields=configuration.ident,plugin_name,fields.driver,created")
        assert found.pop("created") > 1_700_000_000
        assert found == {"configuration.ident": "a1", "plugin_name": "one", "fields.driver": "Bob"}
        error = await there.refused("GET", f"{URL}/1/devices/1?fields=x", 400)
        assert error["field"] == "x"
        await there.post(f"{URL}/1/devices/all", None)
        answer = (await there.request("GET", f"{URL}/1/devices/all?fields=id&limit=1&offset=1")).json()
        assert answer == {"result": [{"id": 2}], "pagination": {"limit": 1, "offset": 1, "count": 3}}

    scene(scenario)


def test_long_lists_of_links_are_sent_in_chunks(scene, monkeypatch):
    """And made in chunks."""

    async def scenario(there: Rest) -> None:
        monkeypatch.setattr(of_links, "AT_ONCE", 2)
        made = await there.post(f"{URL}/1/devices/all", None)
        assert [one["id"] for one in made] == [1, 2, 3]
        monkeypatch.setattr(of_items, "CHUNK", 2)
        assert await there.get(f"{URL}/1/devices/all") == made
        monkeypatch.setattr(of_links, "LINKS_MOST", 5)
        error = await there.refused("POST", f"{URL}/1,2/devices/all", 400)
        assert error["reason"] == "this would be 6 links; 5 are possible in one call"

    scene(scenario)


def test_a_device_lists_its_plugins_in_their_order(scene):
    """By priority, then by id; the links have their fields."""

    async def scenario(there: Rest) -> None:
        await there.post(URL, [new("three", priority=-5)])
        await there.post(f"{URL}/all/devices/1", {"fields": {"driver": "Bob"}})
        await there.post(f"{URL}/2/devices/2", None)
        found = await there.get("/gw/devices/1,2/plugins/all")
        assert [(one["device_id"], one["id"]) for one in found] == [(1, 2), (1, 3), (1, 1), (2, 2)]
        assert found[0] == {
            "id": 2, "device_id": 1, "name": "two", "type_id": 1, "type_name": "item-fields", "enabled": True,
            "priority": -5, "fields": {"driver": "Bob"},
        }  # fmt: skip
        assert [one["id"] for one in await there.get("/gw/devices/1/plugins/name=t*")] == [2, 3]
        assert await there.get("/gw/devices/3/plugins/all") == []
        assert (await there.refused("GET", "/gw/devices/3/plugins/1", 403))["id"] == 1
        [with_plugins, without] = await there.get("/gw/devices/1,3?fields=plugins")
        assert [one["id"] for one in with_plugins["plugins"]] == [2, 3, 1]
        assert with_plugins["plugins"][0] == {"id": 2, "name": "two", "fields": {"driver": "Bob"}}
        assert without == {"plugins": []}

    scene(scenario)


def test_a_deleted_device_leaves_its_plugins(scene):
    """The plugin goes on with the others."""

    async def scenario(there: Rest) -> None:
        await there.post(f"{URL}/1/devices/all", None)
        await there.delete("/gw/devices/2")
        assert [one["id"] for one in await there.get(f"{URL}/1/devices/all")] == [1, 3]

    scene(scenario)


LINKS = {"uri": "gw/plugins", "ids": [1], "submodules": [{"name": "devices", "methods": ["GET", "POST", "DELETE"]}]}


def test_only_visible_devices_are_linked_or_listed(scene):
    """A plugin would change, or tell of, what its token may not even see."""

    async def scenario(there: Rest) -> None:
        await there.post(f"{URL}/1/devices/3", None)
        key = await key_for(there, LINKS, {"uri": "gw/devices", "methods": ["GET"], "ids": [2]})
        assert (await there.refused("POST", f"{URL}/1/devices/1", 403, key=key))["id"] == 1
        assert (await there.refused("POST", f"{URL}/2/devices/2", 403, key=key))["id"] == 2
        assert [one["id"] for one in await there.post(f"{URL}/1/devices/all", None, key=key)] == [2]
        assert [one["id"] for one in await there.get(f"{URL}/1/devices/all", key=key)] == [2]
        assert await there.get(f"{URL}/1/devices/ident=b3", key=key) == []
        assert [one["id"] for one in await there.delete(f"{URL}/1/devices/all", key=key)] == [2]
        assert list(there.parts.items.links.of("plugins", 1, "devices")) == [3]
        await there.refused("PUT", f"{URL}/1/devices/2", 403, key=key, json={"fields": {}})
        blind = await key_for(there, LINKS)
        assert await there.post(f"{URL}/1/devices/all", None, key=blind) == []
        assert await there.get(f"{URL}/1/devices/all", key=blind) == []

    scene(scenario)


def test_only_visible_plugins_are_told_of_a_device(scene):
    """By its part ``plugins``, and by its field."""

    async def scenario(there: Rest) -> None:
        await there.post(f"{URL}/all/devices/1", None)
        device = {"uri": "gw/devices", "methods": ["GET"], "submodules": [{"name": "plugins", "methods": ["GET"]}]}
        key = await key_for(there, device, {"uri": "gw/plugins", "methods": ["GET"], "ids": [1]})
        assert [one["id"] for one in await there.get("/gw/devices/1/plugins/all", key=key)] == [1]
        [found] = await there.get("/gw/devices/1?fields=plugins", key=key)
        assert [one["id"] for one in found["plugins"]] == [1]
        blind = await key_for(there, device)
        assert await there.get("/gw/devices/1/plugins/all", key=blind) == []
        assert await there.get("/gw/devices/1?fields=plugins", key=blind) == [{"plugins": []}]

    scene(scenario)


def test_logs_tell_of_visible_devices_only(scene):
    """An entry may have a device's message in it."""

    async def scenario(there: Rest) -> None:
        await there.post(f"{URL}/1/devices/1,2", None)
        logs = {"uri": "gw/plugins", "submodules": [{"name": "logs", "methods": ["GET"]}]}
        for entry, ids in (([], []), ([{"uri": "gw/devices", "methods": ["GET"], "ids": [2]}], [2])):
            key = await key_for(there, logs, *entry)
            entries = await there.get(f"{URL}/1/logs", key=key)
            assert [one["device_id"] for one in entries if "device_id" in one] == ids
            assert entries[0]["event_code"] == EventCode.CREATED
            [last] = await there.get(f"{URL}/1/logs", key=key, data={"count": 1, "reverse": True})
            assert last.get("device_id") == (ids[0] if ids else None)

    scene(scenario)


def test_logs_of_plugins_are_theirs(scene):
    """With their changes, whose passwords are hidden."""

    async def scenario(there: Rest) -> None:
        [made] = await there.post(URL, [oracle(password="delphi")])
        await there.put(f"{URL}/{made['id']}", {"name": "pythia"})
        entries = await there.get(f"{URL}/{made['id']}/logs")
        assert [entry["event_code"] for entry in entries] == [EventCode.CREATED, EventCode.UPDATED]
        assert {entry["origin_type"] for entry in entries} == {25}
        assert entries[1]["new"]["configuration"]["password"] == "***"

    scene(scenario)
