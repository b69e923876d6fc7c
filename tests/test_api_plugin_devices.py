"""``/gw/plugins/{plugins}/devices``: what plugins and devices have to do with each other, and their logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.api import items as of_items
from gateway.api import links as of_links
from gateway.store.event_codes import EventCode
from tests.items_rest import key_for, stored
from tests.plugins_rest import URL, new, oracle, play_on
from tests.rest import Rest


@pytest.fixture
def scene(run, redis, tmp_path: Path):
    return play_on(run, redis, tmp_path)


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
