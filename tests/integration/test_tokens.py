"""Tokens of a running gateway: what one of them opens, over REST and MQTT, and when it ends."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gateway.api.nouns import operations
from integration.processes import Gateway, free_port
from integration.trackers import Packets, imei, send_packet
from tests.brokers import Received, Subscriber

Run = Callable[..., Any]
READ = [{"name": name, "methods": ["GET"]} for name in ("messages", "telemetry")]
DEVICE_1 = {"type": 2, "acl": [{"uri": "gw/devices", "methods": ["GET"], "ids": [1], "submodules": READ}]}


async def call(gateway: Gateway, method: str, path: str, key: str = "", **options: Any) -> httpx.Response:
    """With the master token, unless another key is given."""
    headers = {"Authorization": f"FlespiToken {key or gateway.token}"}
    async with httpx.AsyncClient(base_url=gateway.api_url, timeout=20) as client:
        return await client.request(method, path, headers=headers, **options)


async def token(gateway: Gateway, **values: Any) -> str:
    """The key of a new token."""
    answer = await call(gateway, "POST", "/platform/tokens", json=[{"ttl": 3600, "access": DEVICE_1, **values}])
    return str(answer.json()["result"][0]["key"])


def subscriber(gateway: Gateway, key: str) -> Subscriber:
    return Subscriber(gateway.mqtt_port, "flespi/#", version=4, username=key)


def devices_of(messages: list[Received]) -> set[str]:
    """The ids in their topics; every topic must be one of a device."""
    parts = [message.topic.split("/") for message in messages]
    assert {part[3] for part in parts} <= {"devices"}, [message.topic for message in messages]
    return {part[4] for part in parts}


async def drive(gateway: Gateway, *trackers: Packets) -> None:
    """A packet of each, acknowledged, the first one's last."""
    for packets in (*trackers, trackers[0]):
        await send_packet(gateway.port, packets)


def has_speed(messages: list[Received]) -> bool:
    return any(message.topic.endswith("/telemetry/position.speed") for message in messages)


def test_a_token_for_a_device_brings_this_device_and_no_other(run: Run, gateway: Gateway) -> None:
    """Its messages and its telemetry, as they come and for who comes later."""

    async def scenario() -> None:
        trackers = Packets(imei(1), records=1), Packets(imei(2), records=1)
        key = await token(gateway)
        early, master = subscriber(gateway, key), subscriber(gateway, gateway.token)
        await early.subscribed()
        await master.subscribed()
        await drive(gateway, *trackers)
        mine, all_of_it = "flespi/message/gw/devices/1", "flespi/message/gw/devices/2"
        await master.until(lambda messages: all_of_it in {message.topic for message in messages})
        await early.until(lambda messages: [message.topic for message in messages].count(mine) == 2)
        late = await subscriber(gateway, key).subscribed()
        assert devices_of(await late.until(has_speed)) == {"1"}
        assert devices_of(await early.until(has_speed)) == {"1"}
        for method, path, status in (
            ("GET", "/gw/devices/1", 200),
            ("GET", "/gw/devices/1/telemetry/all", 200),
            ("GET", "/gw/devices/2", 403),
            ("GET", "/gw/devices/2/telemetry/all", 403),
            ("DELETE", "/gw/devices/1", 403),
            ("GET", "/gw/channels/all", 403),
            ("GET", "/platform/tokens/all", 403),
        ):
            assert (await call(gateway, method, path, key)).status_code == status, (method, path)
        assert [one["id"] for one in (await call(gateway, "GET", "/gw/devices/all", key)).json()["result"]] == [1]
        for client in (early, late, master):
            await client.close()

    run(scenario(), timeout=60)


METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
PARTS = sorted({one.access.submodule for one in operations() if one.access and one.access.submodule})
BODIES: dict[str, Any] = {
    "PUT": {"name": "x"},
    "PATCH": {"name": "x"},
    "POST": [{"timestamp": 1.5, "name": "x", "configuration": {"ident": "7"}}],
}
COMMAND = [{"name": "getver", "properties": {}}]
BODIES_OF: dict[str, Any] = {
    "post_gw_devices_devices_commands": COMMAND,
    "post_gw_devices_devices_commands_queue": COMMAND,
    **{
        f"{method}_gw_plugins_plugins_devices_devices": {"fields": {"whose": "stolen"}}
        for method in ("post", "put", "patch")
    },
    **{f"post_gw_streams_streams_{to}_{to}": {} for to in ("channels", "devices")},
}
"""Of operations whose bodies are not those of their method."""
KINDS = ["devices", "channels", "plugins", "streams"]
OF_ITEMS = [one for one in operations() if one.segments[0] == "gw" and one.segments[1] in KINDS]
LINKS = ["/gw/plugins/{}/devices/{}", "/gw/streams/{}/devices/{}", "/gw/streams/{}/channels/{}"]


def of_one_item(uri: str) -> dict[str, Any]:
    """An entry that permits everything there is with the first item of a kind."""
    return {
        "uri": uri,
        "methods": METHODS,
        "ids": [1],
        "submodules": [{"name": part, "methods": METHODS} for part in PARTS],
    }


async def linked_plugins_and_streams(gateway: Gateway) -> None:
    """Two of each; the second ones work on the second items, and so does the first."""
    plugin = {"type_name": "item-fields", "configuration": {}}
    stream = {"protocol_name": "http", "enabled": False, "configuration": {"uri": "http://127.0.0.1:9/"}}
    for path, one in (("/gw/plugins", plugin), ("/gw/streams", stream)):
        answer = await call(gateway, "POST", path, json=[{**one, "name": name} for name in ("first", "second")])
        assert [one["id"] for one in answer.json()["result"]] == [1, 2], answer.text
    for path in LINKS:
        body = {"fields": {"whose": "theirs"}} if "plugins" in path else {}
        answer = await call(gateway, "POST", path.format("1,2", "2"), json=body)
        assert len(answer.json()["result"]) == 2, answer.text


async def second_channel_and_device(gateway: Gateway) -> None:
    """With messages in all of them."""
    await drive(gateway, Packets(imei(1), records=1))
    second = {"name": "second", "configuration": {"listen": [f"tcp:{free_port()}:interface=127.0.0.1"]}}
    answer = await call(gateway, "POST", "/gw/channels", json=[second])
    assert [one["id"] for one in answer.json()["result"]] == [2], answer.text
    if (await call(gateway, "GET", "/gw/devices/2")).status_code != 200:
        device = {"device_type_id": 10000, "configuration": {"ident": "2"}}
        answer = await call(gateway, "POST", "/gw/devices", json=[device])
        assert [one["id"] for one in answer.json()["result"]] == [2], answer.text
    answer = await call(
        gateway, "POST", "/gw/devices/1,2/messages", json=[{"timestamp": time.time(), "whose": "theirs"}]
    )
    assert answer.status_code == 200, answer.text


def test_no_operation_reaches_an_item_of_which_a_token_has_no_right(
    run: Run, make_gateway: Callable[..., Gateway]
) -> None:
    """Whoever writes another one: by its id it is refused, and "all" is without it."""
    gateway = make_gateway()

    async def scenario() -> None:
        await gateway.ready()
        await second_channel_and_device(gateway)
        await linked_plugins_and_streams(gateway)
        access = {"type": 2, "acl": [of_one_item(f"gw/{kind}") for kind in KINDS]}
        key = await token(gateway, access=access)
        before = await whole(gateway)
        assert '"whose":"theirs"' in before
        assert '"name":"second"' in before
        for operation in sorted(OF_ITEMS, key=lambda one: METHODS.index(one.method)):
            body = BODIES_OF.get(operation.name, BODIES.get(operation.method))
            if not operation.variables:
                answer = await call(gateway, operation.method, operation.path, key, json=body)
                assert answer.status_code == 403, operation.name
                continue
            others = dict.fromkeys(operation.variables[1:], "all")
            path = operation.path.format(**{operation.variables[0]: "2"}, **others)
            answer = await call(gateway, operation.method, path, key, json=body)
            assert answer.status_code == 403, (operation.name, answer.text)
            if operation.method == "GET":
                await reads_only_the_first(
                    gateway, operation.path.format(**{operation.variables[0]: "all"}, **others), key
                )
        for path, method in ((path, method) for path in LINKS for method in METHODS):
            body = None if method in ("GET", "DELETE") else {} if "streams" in path else {"fields": {"whose": "mine"}}
            answer = await call(gateway, method, path.format("1", "2"), key, json=body)
            is_there = "plugins" in path or method not in ("PUT", "PATCH")
            assert answer.status_code == (403 if is_there else 405), (method, path, answer.text)
        assert await whole(gateway) == before
        assert await gateway.stop() == 0

    run(scenario(), timeout=90)


async def whole(gateway: Gateway) -> str:
    """All that is there of the second items."""
    paths = [
        *("/gw/devices/2", "/gw/devices/2/messages", "/gw/devices/2/telemetry/all", "/gw/channels/2"),
        *("/gw/plugins/2", "/gw/streams/2", *(path.format("1,2", "2") for path in LINKS)),
    ]
    return "".join([(await call(gateway, "GET", path)).text for path in paths])


async def reads_only_the_first(gateway: Gateway, path: str, key: str) -> None:
    """What ``path`` gives names no second item."""
    answer = await call(gateway, "GET", path, key)
    assert answer.status_code == 200, (path, answer.text)
    for one in answer.json()["result"]:
        names = ("id", "device.id", "channel.id", "origin_id", *(f"{kind[:-1]}_id" for kind in KINDS))
        ids = {one.get(name, 1) for name in names}
        assert 2 not in ids, (path, one)


@pytest.mark.parametrize("how", ["expired", "deleted"])
def test_with_a_token_its_connections_end(run: Run, gateway: Gateway, how: str) -> None:
    """Within seconds; the client learns that it need not come again."""

    async def scenario() -> None:
        ends = {"ttl": 0, "expire": int(time.time()) + 2} if how == "expired" else {}
        key = await token(gateway, **ends)
        client = await subscriber(gateway, key).subscribed()
        (known,) = (await call(gateway, "GET", "/auth/info", key)).json()["result"]
        client.reason = ""
        if how == "deleted":
            answer = await call(gateway, "DELETE", f"/platform/tokens/{known['id']}")
            assert answer.status_code == 200
        assert await client.answered() == "Not authorized"
        assert (await call(gateway, "GET", "/auth/info", key)).status_code == 401
        await client.close()

    run(scenario(), timeout=60)


def test_tokens_outlive_the_gateway(run: Run, make_gateway: Callable[..., Gateway]) -> None:
    """Also when it is killed; one that was deleted stays so."""
    gateway = make_gateway()

    async def scenario() -> None:
        await gateway.ready()
        kept, gone = await token(gateway, info="kept"), await token(gateway)
        await call(gateway, "DELETE", "/platform/tokens/2")
        gateway.send(signal.SIGKILL)
        await gateway.ended()
        await gateway.ready()
        answer = (await call(gateway, "GET", "/auth/info", kept)).json()["result"][0]
        assert (answer["info"], answer["access"]) == ("kept", DEVICE_1)
        assert (await call(gateway, "GET", "/auth/info", gone)).status_code == 401
        client = await subscriber(gateway, kept).subscribed()
        await client.close()
        assert await gateway.stop() == 0

    run(scenario(), timeout=60)
