"""``/gw/channels``: success, wrong input, missing rights; what is answered is what listens."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from gateway.store.items import Channel
from tests.builders import FrameFactory
from tests.items_rest import KEYS, free_ports, gateway, key_for, stored
from tests.rest import Rest

URL = "/gw/channels"
LOCAL = "tcp:0:interface=127.0.0.1"

# Twisted before 26.10 leaves the socket of a failed bind to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def new(name: str = "test", *listen: str, **values: Any) -> dict[str, Any]:
    return {"name": name, "protocol_name": "teltonika", "configuration": {"listen": list(listen or [LOCAL])}, **values}


@pytest.fixture
def ports() -> range:
    """For three channels without endpoints of their own."""
    return free_ports(3)


def _is_open(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def scene(run, redis):
    """Runs a coroutine with the API and two channels, ``one`` and ``two``."""

    def play(coroutine, ports: range = range(0)) -> None:
        async def with_channels() -> None:
            async with gateway(redis, ports) as there:
                await there.post(URL, [new("one"), new("two", messages_ttl=60)])
                await coroutine(there)

        run(with_channels())

    return play


def _port(there: Rest, channel_id: int) -> int:
    port: int = there.parts.channels.port_of(there.parts.items.channels[channel_id])
    return port


def test_a_channel_is_created_and_answered_as_flespi_does(run, redis, ports: range):
    """flespi's example has no endpoints: it gets the lowest free port of the range, and takes trackers at once."""

    async def scenario() -> None:
        async with gateway(redis, ports) as there:
            [made] = await there.post(URL, [{"name": "micodus", "protocol_id": 14, "configuration": {}}])
            port = ports[0]
            assert made == {
                "messages_ttl": 86400,
                "protocol_id": 14,
                "id": 1,
                "enabled": True,
                "name": "micodus",
                "configuration": {"listen": [f"tcp:{port}", f"udp:{port}"]},
                "cid": 1,
                "secondary_uri": "",
                "uri": f"gps.example:{port}",
            }
            reader, tracker = await asyncio.open_connection("127.0.0.1", port)
            tracker.write(FrameFactory().login())
            assert await reader.readexactly(1) == b"\x01"
            assert await there.get(f"{URL}/1?fields=connections_count") == [{"connections_count": 1}]
            tracker.close()
            await tracker.wait_closed()
            assert (await stored(redis)).channels == there.parts.items.channels

    run(scenario())


def test_a_range_that_is_used_up_is_said_so(run, redis, ports: range):
    """What could be created is, and a port comes back with the deletion of its channel."""

    async def scenario() -> None:
        async with gateway(redis, ports) as there:
            response = await there.request("POST", URL, json=[{"name": str(n)} for n in range(4)])
            answer = response.json()
            assert [channel["uri"] for channel in answer["result"]] == [f"gps.example:{port}" for port in ports]
            [error] = answer["errors"]
            assert (error["index"], error["field"]) == (3, "configuration.listen")
            assert f"no port from {ports[0]} to {ports[-1]} is free" in error["reason"]
            await there.delete(f"{URL}/2")
            [again] = await there.post(URL, [{"name": "again", "protocol_name": "teltonika", "configuration": None}])
            assert again["uri"] == f"gps.example:{ports[1]}"

    run(scenario())


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        (new(protocol_name="gps103"), "protocol_name", "protocol gps103 not found"),
        ({**new(), "protocol_id": 13}, "protocol_id", "protocol 13 not found"),
        (new(name=5), "name", "Expected `str"),
        (new(messages_ttl=31 * 86400), "messages_ttl", "<= 2592000"),
        (new("x", "tcp:99999"), "configuration.listen", "'tcp:99999' should be tcp:PORT with a port from 0 to 65535"),
        (new("x", "unix:/tmp/x"), "configuration.listen", "should be an endpoint such as tcp:5027"),
        (new("x", "ssl:0:privateKey=/nowhere.pem"), "configuration.listen", "cannot|No such file"),
        (new("x", LOCAL, LOCAL), "configuration.listen", "twice"),
        (new(configuration={"listen": []}), "configuration.listen", "length >= 1"),
        (new(configuration={"listen": "tcp:1"}), "configuration.listen", "Expected `array"),
        (new(configuration={"unknown_ident": "ignore"}), "configuration.unknown_ident", "Invalid enum value"),
        (new(configuration={"port": 5}), "configuration.port", "unknown field `port`"),
        (new(uri="x:5"), "uri", "unknown field `uri`"),
    ],
)
def test_a_wrong_channel_is_refused_by_name(scene, body: Any, field: str, reason: str):
    """Nothing of it listens, and nothing is stored."""

    async def scenario(there: Rest) -> None:
        listening = there.parts.channels.addresses()
        error = await there.refused("POST", URL, 400, json=[body])
        assert (error["field"], error["index"]) == (field, 0)
        assert any(word in error["reason"] for word in reason.split("|")), error["reason"]
        assert list(there.parts.items.channels) == [1, 2]
        assert there.parts.channels.addresses() == listening

    scene(scenario)


def test_a_port_in_use_is_said_by_name(scene):
    """At creation and at a change, which leaves the old endpoint on."""

    async def scenario(there: Rest) -> None:
        taken = f"tcp:{_port(there, 1)}:interface=127.0.0.1"
        error = await there.refused("POST", URL, 400, json=[new("three", taken)])
        assert error["field"] == "configuration.listen"
        assert "cannot listen" in error["reason"]
        port = _port(there, 2)
        error = await there.refused("PUT", f"{URL}/2", 400, json={"name": "x", "configuration": {"listen": [taken]}})
        assert (error["id"], error["field"]) == (2, "configuration.listen")
        assert _is_open(port)
        assert there.parts.items.channels[2].name == "two"

    scene(scenario)


@pytest.mark.parametrize(
    ("selector", "ids"),
    [
        ("all", [1, 2]),
        ("2,1", [2, 1]),
        ("name=t*", [2]),
        ("protocol_name=teltonika", [1, 2]),
        ("messages_ttl=60", [2]),
        ('{name == "one" || messages_ttl < 100}', [1, 2]),
        ("connections_count=0", [1, 2]),
        ("enabled=false", []),
    ],
)
def test_selectors(scene, selector: str, ids: list[int]):
    """flespi's forms."""

    async def scenario(there: Rest) -> None:
        assert [channel["id"] for channel in await there.get(f"{URL}/{selector}?fields=id")] == ids

    scene(scenario)


def test_what_is_given_on_request_only(scene, redis):
    """And an unknown name is refused with flespi's words."""

    async def scenario(there: Rest) -> None:
        await redis.xadd(KEYS.channel_log(2), {"ident": "x", "messages": "x" * 1000})
        names = "protocol_name,metadata,blocked,messages_size,connections_count"
        first, second = await there.get(f"{URL}/all?fields={names}")
        assert first == {
            "protocol_name": "teltonika", "metadata": {}, "blocked": 0, "messages_size": 0, "connections_count": 0,
        }  # fmt: skip
        assert second["messages_size"] > 1000
        error = await there.refused("GET", f"{URL}/all?fields=title", 400)
        assert (error["reason"], error["field"]) == ("field is not allowed", "title")

    scene(scenario)


def test_put_replaces_and_patch_merges(scene):
    """A configuration that says nothing of ``listen`` keeps the endpoints: flespi's clients do not know of them."""

    async def scenario(there: Rest) -> None:
        port = _port(there, 1)
        await there.put(f"{URL}/1", {"metadata": {"a": 1}, "configuration": {"unknown_ident": "reject"}})
        [channel] = await there.patch(
            f"{URL}/1?fields=metadata,configuration", {"metadata": {"b": {"c": 2}}, "configuration": {}}
        )
        assert channel == {
            "metadata": {"a": 1, "b": {"c": 2}},
            "configuration": {"listen": [LOCAL], "unknown_ident": "reject"},
        }
        await there.patch(f"{URL}/1", {"configuration": {"unknown_ident": None}})
        [channel] = await there.put(f"{URL}/1?fields=name,configuration", {"name": "new", "configuration": {}})
        assert channel == {"name": "new", "configuration": {"listen": [LOCAL]}}
        assert _port(there, 1) == port

    scene(scenario)


@pytest.mark.parametrize("field", ["id", "cid", "uri", "secondary_uri", "protocol_name", "connections_count", "nmae"])
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_what_can_only_be_read_is_refused_by_name(scene, method: str, field: str):
    """And nothing is changed by the call."""

    async def scenario(there: Rest) -> None:
        error = await there.refused(method, f"{URL}/all", 400, json={"name": "x", field: 1})
        assert error["field"] == field
        assert [channel.name for channel in there.parts.items.channels.values()] == ["one", "two"]

    scene(scenario)


def test_a_channel_is_disabled_enabled_moved_and_deleted(scene, redis):
    """Each at once; the other channel listens all the time."""

    async def scenario(there: Rest) -> None:
        port, other = _port(there, 1), _port(there, 2)
        await there.put(f"{URL}/1", {"enabled": False})
        assert not _is_open(port)
        await there.put(f"{URL}/1", {"enabled": True, "configuration": {"listen": [f"tcp:{port}:interface=127.0.0.1"]}})
        assert _is_open(port)
        [deleted] = await there.delete(f"{URL}/1?fields=id,name")
        assert deleted == {"id": 1, "name": "one"}
        assert not _is_open(port)
        assert _is_open(other)
        assert [channel["id"] for channel in await there.get(f"{URL}/all")] == [2]
        assert list((await stored(redis)).channels) == [2]
        error = await there.refused("DELETE", f"{URL}/1", 403)
        assert error == {"code": 3, "reason": "access denied or unable to process the item", "id": 1}

    scene(scenario)


def test_endpoints_that_only_the_file_can_give_may_stay(scene):
    """A client that writes back what it read is not refused; it cannot add another."""

    async def scenario(there: Rest) -> None:
        items = there.parts.items
        listen = ["unix:/nowhere/gateway.sock"]
        channel: Channel = await items.create_channel(
            name="file", protocol_id=14, enabled=False, configuration={"listen": listen}
        )
        [changed] = await there.put(f"{URL}/{channel.id}", {"name": "x", "configuration": {"listen": listen}})
        assert changed["uri"] == ""
        error = await there.refused(
            "PUT", f"{URL}/{channel.id}", 400, json={"configuration": {"listen": [*listen, "unix:/other"]}}
        )
        assert error["field"] == "configuration.listen"

    scene(scenario)


def test_what_the_configuration_said_is_not_shown_and_not_lost(scene):
    """It is kept beside the metadata, which the API may replace."""

    async def scenario(there: Rest) -> None:
        said = {"name": "file", "enabled": True}
        channel = await there.parts.items.create_channel(name="file", protocol_id=14, enabled=False, configured=said)
        [changed] = await there.put(f"{URL}/{channel.id}?fields=metadata", {"metadata": {"mine": 1}})
        assert changed == {"metadata": {"mine": 1}}
        assert there.parts.items.channels[channel.id].configured == said

    scene(scenario)


def test_concurrent_changes_lose_nothing(scene):
    """Metadata from fifty clients, while another one moves the endpoint."""

    async def scenario(there: Rest) -> None:
        port = _port(there, 1)
        moving = there.patch(f"{URL}/1", {"configuration": {"listen": [f"tcp:{port}:interface=127.0.0.1"]}})
        patches = (there.patch(f"{URL}/1", {"metadata": {f"key{n}": n}}) for n in range(50))
        await asyncio.gather(moving, *patches)
        [channel] = await there.get(f"{URL}/1?fields=metadata,configuration")
        assert channel["metadata"] == {f"key{n}": n for n in range(50)}
        assert channel["configuration"]["listen"] == [f"tcp:{port}:interface=127.0.0.1"]
        assert _is_open(port)

    scene(scenario)


def test_a_token_sees_and_changes_what_it_may(scene):
    """As with devices."""

    async def scenario(there: Rest) -> None:
        key = await key_for(there, {"uri": "gw/channels", "methods": ["GET", "PUT"], "ids": [2]})
        assert [channel["id"] for channel in await there.get(f"{URL}/all", key=key)] == [2]
        assert (await there.refused("GET", f"{URL}/1", 403, key=key))["id"] == 1
        await there.put(f"{URL}/all", {"name": "mine"}, key=key)
        assert [channel.name for channel in there.parts.items.channels.values()] == ["one", "mine"]
        for method, path, json in (("DELETE", f"{URL}/2", None), ("POST", URL, [new()])):
            error = await there.refused(method, path, 403, key=key, json=json)
            assert error == {"code": 3, "reason": "action is not permitted by ACL"}
        await there.refused("GET", f"{URL}/all", 401, key=None)
        assert len(there.parts.items.channels) == 2

    scene(scenario)
