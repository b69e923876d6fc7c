"""``/gw/streams``: success, wrong input, missing rights, secrets; and what streams are linked with."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta

from gateway.errors import ItemError, RemoteUnavailable
from gateway.settings import Settings
from gateway.store.event_codes import EventCode
from gateway.stream.protocols import StreamProtocol
from gateway.stream.target import Options, Target
from tests.items_rest import gateway, key_for, stored
from tests.rest import Rest

URL = "/gw/streams"


class Memory(Target):
    """Delivers to nobody. It is there at once.

    For tests.
    """

    class Config(Options):
        """The options."""

        uri: Annotated[str, Meta(min_length=1, description="where to")]
        password: str = ""
        mode: Literal["up", "down"] = "up"

    id = 9001
    title = "Memory"

    @classmethod
    def check(cls, config: Any) -> None:
        if config.uri == "nowhere":
            raise ItemError("uri should be somewhere", "uri")

    async def open(self) -> None:
        if self.config.mode == "down":
            raise RemoteUnavailable("nobody is there")


PROTOCOLS = {
    "memory": StreamProtocol("memory", Memory),
    "pigeon": StreamProtocol("pigeon", reason="pigeons is not installed: pip install 'avl-gateway[pigeon]'"),
}


def new(name: str = "test", **values: Any) -> dict[str, Any]:
    return {"name": name, "protocol_name": "memory", "configuration": {"uri": "a"}, **values}


def device(ident: str) -> dict[str, Any]:
    return {"name": f"device {ident}", "configuration": {"ident": ident}}


@pytest.fixture
def scene(run, redis):
    """Runs a coroutine with the API, streams 1 and 2, devices 1 and 2, and channels 1 and 2."""

    def play(coroutine) -> None:
        async def with_streams() -> None:
            async with gateway(redis, protocols=PROTOCOLS) as there:
                await there.post(URL, [new("one"), new("two", enabled=False, queue_ttl=60)])
                await there.post("/gw/devices", [device("a1"), device("b2")])
                listen = {"configuration": {"listen": ["tcp:0:interface=127.0.0.1"]}}
                await there.post("/gw/channels", [{"name": "first", **listen}, {"name": "second", **listen}])
                await coroutine(there)

        run(with_streams())

    return play


async def until(there: Rest, id: int, **expected: Any) -> None:
    """The stream has these fields, within some seconds."""
    names = ",".join(expected)
    for _ in range(200):
        [found] = await there.get(f"{URL}/{id}?fields={names}")
        if found == expected:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(found)


# -- streams


@pytest.mark.parametrize("named", [{"protocol_id": 9001}, {"protocol_name": "memory"}, {"type": "memory"}])
def test_a_stream_is_created_and_answered(run, redis, named: dict[str, Any]):
    """By any name of its protocol; the configuration is completed, and all of it is stored."""

    async def scenario() -> None:
        async with gateway(redis, protocols=PROTOCOLS) as there:
            [made] = await there.post(URL, [{"name": "x", **named, "configuration": {"uri": "a"}}])
            assert made == {
                "id": 1,
                "name": "x",
                "protocol_id": 9001,
                "enabled": True,
                "queue_ttl": 86400,
                "validate_message": "",
                "configuration": {
                    "uri": "a", "password": "", "mode": "up", "limit_messages": 100, "convert_message": None,
                },
                "cid": 1,
            }  # fmt: skip
            assert await there.get(f"{URL}/1") == [made]
            assert (await stored(redis)).streams == there.parts.items.streams

    run(scenario())


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        ({"name": "x"}, "protocol_name", "protocol_id or protocol_name is needed"),
        (new(protocol_name="memoir"), "protocol_name", "protocol 'memoir' not found; there are"),
        ({"protocol_id": 99}, "protocol_id", "memory (9001), pigeon (not installed)"),
        (new(protocol_name="pigeon"), "protocol_name", "protocol pigeon cannot be used: pigeons is not installed"),
        (new(queue_ttl=59), "queue_ttl", ">= 60"),
        (new(queue_ttl=604801), "queue_ttl", "should be 60 to 604800, limits.reader_retention"),
        (new(validate_message="1 +"), "validate_message", "column 4"),
        (new(configuration={}), "configuration.uri", "missing required field `uri`"),
        (new(configuration={"uri": "nowhere"}), "configuration.uri", "uri should be somewhere"),
        (new(configuration={"uri": "a", "mode": "x"}), "configuration.mode", "down or up"),
        (new(configuration={"uri": "a", "url": "a"}), "configuration.url", "unknown field `url`"),
        (new(configuration={"uri": "a", "limit_messages": 0}), "configuration.limit_messages", ">= 1"),
        (
            new(configuration={"uri": "a", "convert_message": {"dots": "x"}}),
            "configuration.convert_message.dots",
            "camelcase, keep or underscore",
        ),
        (new(configuration={"uri": "a", "password": "***"}), "configuration.password", "give the value itself"),
        (new(name=5), "name", "Expected `str"),
        (new(metadata={"a": "x" * 70_000}), "metadata", "65536 is the most"),
        (new(pauses=[]), "pauses", "unknown field"),
        (new(connected=True), "connected", "unknown field"),
        ("text", None, "Expected `object`"),
    ],
)
def test_a_wrong_stream_is_refused_by_name(scene, body: Any, field: str | None, reason: str):
    """The others of the same call are created."""

    async def scenario(there: Rest) -> None:
        answer = (await there.request("POST", URL, json=[new("three"), body])).json()
        assert [made["name"] for made in answer["result"]] == ["three"]
        [error] = answer["errors"]
        assert (error["code"], error["index"], error.get("field")) == (2, 1, field), error
        assert reason in error["reason"]
        assert list(there.parts.items.streams) == [1, 2, 3]

    scene(scenario)


def test_a_queue_lives_no_longer_than_readers_are_waited_for(run, redis, monkeypatch):
    """The default as well; a change is checked, too."""

    async def scenario() -> None:
        async with gateway(redis, protocols=PROTOCOLS) as there:
            limits = Settings().limits
            monkeypatch.setattr(there.parts, "settings", Settings(limits=type(limits)(reader_retention=3600)))
            [made] = await there.post(URL, [new()])
            assert made["queue_ttl"] == 3600
            for method in ("PUT", "PATCH"):
                error = await there.refused(method, f"{URL}/1", 400, json={"queue_ttl": 3601})
                assert error["field"] == "queue_ttl"
                assert "3600, limits.reader_retention" in error["reason"]

    run(scenario())


@pytest.mark.parametrize(
    ("selector", "ids"),
    [
        ("all", [1, 2]),
        ("2,1", [2, 1]),
        ("name=t*", [2]),
        ("protocol_name=memory", [1, 2]),
        ("protocol_id=9001", [1, 2]),
        ("enabled=true", [1]),
        ("state=disabled", [2]),
        ("{queue_ttl < 100}", [2]),
        ("configuration.uri=b", []),
    ],
)
def test_selectors(scene, selector: str, ids: list[int]):
    """flespi's forms."""

    async def scenario(there: Rest) -> None:
        assert [stream["id"] for stream in await there.get(f"{URL}/{selector}?fields=id")] == ids

    scene(scenario)


def test_what_is_given_on_request_only(scene):
    """How it is doing, what waits, what it is linked with."""

    async def scenario(there: Rest) -> None:
        await there.post(f"{URL}/1/devices/all", None)
        await there.post(f"{URL}/1/channels/2", None)
        await until(there, 1, connected=True, state="connected")
        names = "protocol_name,metadata,connected,queue_size,error,counters,blocked,channels_count,devices_count"
        first, second = await there.get(f"{URL}/all?fields={names},state")
        assert first == {
            "protocol_name": "memory", "metadata": {}, "connected": True, "queue_size": 0, "state": "connected",
            "error": "", "blocked": 0, "channels_count": 1, "devices_count": 2,
            "counters": {"delivered": 0, "rejected": 0, "skipped": 0, "given_up": 0, "failures": 0},
        }  # fmt: skip
        assert (second["connected"], second["state"]) == (False, "disabled")
        error = await there.refused("GET", f"{URL}/all?fields=pauses", 400)
        assert (error["reason"], error["field"]) == ("field is not allowed", "pauses")

    scene(scenario)


def test_why_a_stream_does_not_work_is_told(scene):
    """Its target is away; or its protocol cannot be used, which blocks it."""

    async def scenario(there: Rest) -> None:
        await there.patch(f"{URL}/1", {"configuration": {"mode": "down"}})
        await until(there, 1, error="cannot connect: nobody is there", connected=False, blocked=0)
        items = there.parts.items
        for protocol in ("pigeon", "telex"):
            await items.create_stream(name=protocol, protocol=protocol, configuration={})
        await until(there, 3, state="blocked", blocked=6, error=PROTOCOLS["pigeon"].reason)
        await until(there, 4, blocked=6, protocol_id=None, protocol_name="telex")
        for id, word in ((3, "pigeons is not installed"), (4, "no stream protocol telex any more")):
            error = await there.refused("PUT", f"{URL}/{id}", 400, json={"configuration": {"uri": "a"}})
            assert error["field"] == "configuration"
            assert word in error["reason"]
        await there.put(f"{URL}/4", {"name": "may be renamed"})

    scene(scenario)


def test_put_replaces_and_patch_merges(scene):
    """What was merged is checked and completed as a whole."""

    async def scenario(there: Rest) -> None:
        await there.put(f"{URL}/1", {"metadata": {"a": 1}, "configuration": {"uri": "b", "mode": "down"}})
        [stream] = await there.patch(
            f"{URL}/1?fields=metadata,configuration.uri,configuration.mode",
            {"metadata": {"b": 2}, "configuration": {"uri": "c"}},
        )
        assert stream == {"metadata": {"a": 1, "b": 2}, "configuration.uri": "c", "configuration.mode": "down"}
        [stream] = await there.put(f"{URL}/1?fields=configuration", {"configuration": {"uri": "d"}})
        assert stream["configuration"]["mode"] == "up"
        error = await there.refused("PATCH", f"{URL}/1", 400, json={"configuration": {"uri": None}})
        assert error["field"] == "configuration.uri"
        assert there.parts.items.streams[1].configuration["uri"] == "d"

    scene(scenario)


@pytest.mark.parametrize("field", ["id", "cid", "protocol_id", "protocol_name", "queue_size", "state", "pauses"])
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_what_cannot_be_changed_is_refused_by_name(scene, method: str, field: str):
    """And nothing is changed by the call."""

    async def scenario(there: Rest) -> None:
        error = await there.refused(method, f"{URL}/all", 400, json={"name": "x", field: 1})
        assert error["field"] == field
        assert [stream.name for stream in there.parts.items.streams.values()] == ["one", "two"]

    scene(scenario)


def test_the_time_when_it_was_disabled_is_kept(scene, redis):
    """Whoever changes it: from then to now, and what is disabled from the beginning has a pause from the beginning."""

    async def scenario(there: Rest) -> None:
        streams, before = there.parts.items.streams, time.time()
        assert streams[1].pauses == []
        [[since, until]] = streams[2].pauses
        assert until is None
        await there.put(f"{URL}/1", {"enabled": False})
        await there.patch(f"{URL}/1", {"enabled": False, "name": "still"})
        [[start, end]] = streams[1].pauses
        assert before <= start <= time.time()
        assert end is None
        await there.put(f"{URL}/all", {"enabled": True})
        assert streams[1].pauses[0][0] == start
        assert start <= streams[1].pauses[0][1] <= time.time()
        assert streams[2].pauses[0][0] == since
        assert streams[2].pauses[0][1] >= since
        assert (await stored(redis)).streams == streams

    scene(scenario)


def test_passwords_are_shown_to_who_may_change_them(scene):
    """As with plugins."""

    async def scenario(there: Rest) -> None:
        secret = {"uri": "amqp://u:rabbit@h/v", "password": "carrot"}
        await there.put(f"{URL}/1", {"configuration": secret})
        reader = await key_for(there, {"uri": "gw/streams", "methods": ["GET"]})
        names = "configuration.uri,configuration.password"
        hidden = {"configuration.uri": "amqp://u:***@h/v", "configuration.password": "***"}
        assert await there.get(f"{URL}/1?fields={names}", key=reader) == [hidden]
        assert await there.get(f"{URL}/configuration.password=carrot", key=reader) == []
        [kept] = await there.put(
            f"{URL}/1?fields={names}", {"configuration": {"uri": "amqp://u:***@other/v", "password": "***"}}
        )
        assert kept == {"configuration.uri": "amqp://u:rabbit@other/v", "configuration.password": "carrot"}

    scene(scenario)


def test_a_deleted_stream_is_gone_with_its_links(scene, redis):
    """The answer is what it was."""

    async def scenario(there: Rest) -> None:
        await there.post(f"{URL}/1,2/devices/1", None)
        assert await there.delete(f"{URL}/1?fields=id,name") == [{"id": 1, "name": "one"}]
        assert (await there.refused("DELETE", f"{URL}/1", 403))["id"] == 1
        again = await stored(redis)
        assert list(again.streams) == [2]
        assert len(again.links) == 1
        assert await there.get("/gw/devices/1?fields=streams") == [{"streams": [{"id": 2, "name": "two"}]}]

    scene(scenario)


def test_concurrent_changes_lose_nothing(scene):
    """Nor does one that goes on while it is enabled and disabled."""

    async def scenario(there: Rest) -> None:
        changes = [there.patch(f"{URL}/1", {"metadata": {f"key{n}": n}, "enabled": n % 2 == 0}) for n in range(30)]
        await asyncio.gather(*changes)
        [stream] = await there.get(f"{URL}/1?fields=metadata")
        assert stream["metadata"] == {f"key{n}": n for n in range(30)}
        pauses = there.parts.items.streams[1].pauses
        assert [end for _, end in pauses[:-1] if end is None] == []
        assert len(pauses) <= 20

    scene(scenario)


def test_a_token_sees_and_changes_what_it_may(scene):
    """As with devices."""

    async def scenario(there: Rest) -> None:
        key = await key_for(there, {"uri": "gw/streams", "methods": ["GET", "PUT"], "ids": [2]})
        assert [stream["id"] for stream in await there.get(f"{URL}/all", key=key)] == [2]
        assert (await there.refused("GET", f"{URL}/1", 403, key=key))["id"] == 1
        await there.put(f"{URL}/all", {"name": "mine"}, key=key)
        assert [stream.name for stream in there.parts.items.streams.values()] == ["one", "mine"]
        for method, path, json in (
            ("DELETE", f"{URL}/2", None),
            ("POST", URL, [new()]),
            ("POST", f"{URL}/2/devices/all", None),
            ("GET", f"{URL}/2/channels/all", None),
            ("GET", f"{URL}/2/logs", None),
            ("GET", "/gw/stream-protocols/all", None),
        ):
            error = await there.refused(method, path, 403, key=key, json=json)
            assert error == {"code": 3, "reason": "action is not permitted by ACL"}
        await there.refused("GET", f"{URL}/all", 401, key=None)

    scene(scenario)


def test_protocols_tell_how_they_are_configured(scene):
    """One that cannot be used is listed with the reason, and without an id."""

    async def scenario(there: Rest) -> None:
        [memory] = await there.get("/gw/stream-protocols/9001")
        assert (memory["name"], memory["title"], memory["is_available"]) == ("memory", "Memory", True)
        assert memory["description"].startswith("Delivers to nobody.")
        properties = memory["schema"]["$defs"]["Config"]["properties"]
        assert properties["uri"]["description"] == "where to"
        [pigeon] = await there.get("/gw/stream-protocols/name=pigeon?fields=id,is_available,error,schema")
        assert pigeon == {
            "id": None, "is_available": False, "error": PROTOCOLS["pigeon"].reason, "schema": None,
        }  # fmt: skip
        named = {one["name"] for one in await there.get("/gw/stream-protocols/all?fields=name")}
        assert named == set(there.parts.streams.protocols)

    scene(scenario)


# -- what they are linked with


@pytest.mark.parametrize(
    ("to", "names", "codes"),
    [
        ("devices", ["device a1", "device b2"], (EventCode.DEVICE_SUBSCRIBED, EventCode.DEVICE_UNSUBSCRIBED)),
        ("channels", ["first", "second"], (EventCode.CHANNEL_SUBSCRIBED, EventCode.CHANNEL_UNSUBSCRIBED)),
    ],
)
def test_a_stream_is_linked_and_unlinked(scene, redis, to: str, names: list[str], codes: tuple[int, int]):
    """The log tells both ends."""

    async def scenario(there: Rest) -> None:
        made = await there.post(f"{URL}/1/{to}/all", None)
        assert made == [{"id": n, "stream_id": 1, "name": names[n - 1]} for n in (1, 2)]
        assert await there.get(f"{URL}/1/{to}/all") == made
        assert await there.post(f"{URL}/1/{to}/1", {}) == made[:1]
        assert set((await stored(redis)).links.of("streams", 1, to)) == {1, 2}
        assert await there.get(f"/gw/{to}/1?fields=streams") == [{"streams": [{"id": 1, "name": "one"}]}]
        assert await there.delete(f"{URL}/1/{to}/name={names[1]}") == made[1:]
        assert await there.get(f"{URL}/1/{to}/all?fields=id,stream_name") == [{"id": 1, "stream_name": "one"}]
        assert (await there.refused("DELETE", f"{URL}/1/{to}/2", 403))["id"] == 2
        for path, about in ((f"{URL}/1/logs", {f"{to[:-1]}_id": 2}), (f"/gw/{to}/2/logs", {"stream_id": 1})):
            entries = [entry for entry in await there.get(path) if entry["event_code"] in codes]
            assert [entry["event_code"] for entry in entries if about.items() <= entry.items()] == list(codes)

    scene(scenario)


@pytest.mark.parametrize("body", [{"fields": {}}, []])
def test_a_link_of_a_stream_has_no_fields(scene, body: Any):
    """Only an empty object, or no body."""

    async def scenario(there: Rest) -> None:
        await there.refused("POST", f"{URL}/1/devices/1", 400, json=body)
        assert not there.parts.items.links.of("streams", 1, "devices")

    scene(scenario)


def test_what_is_deleted_leaves_its_streams(scene):
    """The stream goes on with the others."""

    async def scenario(there: Rest) -> None:
        await there.post(f"{URL}/1/devices/all", None)
        await there.post(f"{URL}/1/channels/all", None)
        await there.delete("/gw/devices/1")
        await there.delete("/gw/channels/2")
        assert [one["id"] for one in await there.get(f"{URL}/1/devices/all")] == [2]
        assert [one["id"] for one in await there.get(f"{URL}/1/channels/all")] == [1]

    scene(scenario)


@pytest.mark.parametrize("to", ["devices", "channels"])
def test_only_what_a_token_may_see_is_linked_or_listed(scene, to: str):
    """With a stream of its own it could read the messages of others otherwise."""

    async def scenario(there: Rest) -> None:
        await there.post(f"{URL}/1/{to}/1", None)
        links = {"uri": "gw/streams", "submodules": [{"name": to, "methods": ["GET", "POST", "DELETE"]}]}
        key = await key_for(there, links, {"uri": f"gw/{to}", "methods": ["GET"], "ids": [2]})
        assert (await there.refused("POST", f"{URL}/1/{to}/1", 403, key=key))["id"] == 1
        assert [one["id"] for one in await there.post(f"{URL}/1/{to}/all", None, key=key)] == [2]
        assert [one["id"] for one in await there.get(f"{URL}/1/{to}/all", key=key)] == [2]
        assert [one["id"] for one in await there.delete(f"{URL}/1/{to}/all", key=key)] == [2]
        assert list(there.parts.items.links.of("streams", 1, to)) == [1]
        blind = await key_for(there, links)
        assert await there.post(f"{URL}/1/{to}/all", None, key=blind) == []
        assert await there.get(f"{URL}/1/{to}/all", key=blind) == []
        assert list(there.parts.items.links.of("streams", 1, to)) == [1]

    scene(scenario)


@pytest.mark.parametrize("to", ["devices", "channels"])
def test_streams_among_the_fields_are_those_that_a_token_may_see(scene, to: str):
    """The others are not named."""

    async def scenario(there: Rest) -> None:
        await there.post(f"{URL}/all/{to}/1", None)
        item = {"uri": f"gw/{to}", "methods": ["GET"]}
        key = await key_for(there, item, {"uri": "gw/streams", "methods": ["GET"], "ids": [2]})
        assert await there.get(f"/gw/{to}/1?fields=streams", key=key) == [{"streams": [{"id": 2, "name": "two"}]}]
        blind = await key_for(there, item)
        assert await there.get(f"/gw/{to}/1?fields=streams", key=blind) == [{"streams": []}]

    scene(scenario)
