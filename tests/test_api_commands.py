"""Commands over REST, to virtual trackers on real sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from gateway.protocols.teltonika.frame import build_frame
from gateway.protocols.teltonika.wire_commands import CODEC_14, NOT_MY_IMEI, encode_command
from gateway.store.conversation import REST_TIME
from gateway.store.telemetry import encode_value
from tests.builders import FrameFactory
from tests.commands_rest import IMEI, KEYS, Clock, Tracker, commanding, device_of
from tests.items_rest import key_for

GETVER = [{"name": "getver"}]


def silent(_frame: bytes) -> bytes:
    return b""


def hangs_up(_frame: bytes) -> None:
    return None


# -- at once


def test_a_command_is_answered(run, redis):
    async def scenario() -> None:
        async with commanding(redis) as there:
            tracker = await Tracker().connect(there.port)
            order = {"name": "custom", "properties": {"text": "getinfo"}, "timeout": 5}
            [result] = await there.post(f"{there.url}/commands", json=[order])
            assert tracker.obeyed == ["getinfo"]
            assert (result["executed"], result["name"], result["ident"]) == (True, "custom", IMEI)
            assert result["properties"] == {"text": "getinfo"}
            assert "RTC" in result["response"]
            assert result["timestamp"] > 1.7e9
            [kept] = await there.get(f"{there.url}/commands-result/{result['id']}")
            assert (kept["response"], kept["device_id"]) == (result["response"], there.device.id)
            assert await there.codes() == [334, 332]
            await tracker.close()

    run(scenario())


def test_a_device_that_is_away_is_told_of_at_once(run, redis):
    """In flespi's words, with the command's id; nothing is kept."""

    async def scenario() -> None:
        async with commanding(redis) as there:
            order = {"name": "custom", "properties": {"text": "getinfo"}, "timeout": 60}
            error = await there.refused("POST", f"{there.url}/commands", 400, json=[order])
            assert error["code"] == 2
            assert error["reason"] == (
                "failed to deliver command custom with timeout pending, "
                f"device with id {there.device.id} is not connected"
            )
            assert error["id"] > 1_700_000_000_000_000
            assert error["device_id"] == there.device.id
            assert await there.get(f"{there.url}/commands-result/all") == []

    run(scenario())


def test_a_device_on_udp_cannot_be_commanded_and_that_is_said(run, redis):
    async def scenario() -> None:
        async with commanding(redis) as there:
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, remote_addr=("127.0.0.1", there.port)
            )
            transport.sendto(FrameFactory(IMEI).datagram(1, packet_id=1, avl_packet_id=1))
            [channel] = there.parts.items.channels
            async with asyncio.timeout(10):
                while there.parts.idents.find(channel, IMEI) is None:
                    await asyncio.sleep(0.01)
            transport.close()
            error = await there.refused("POST", f"{there.url}/commands", 400, json=GETVER)
            assert error["reason"].endswith("is not connected: it sends over UDP, where there are no commands")

    run(scenario())


def test_without_an_answer_the_time_is_over(run, redis):
    async def scenario() -> None:
        clock = Clock()
        async with commanding(redis, clock=clock) as there:
            tracker = await Tracker().connect(there.port)
            tracker.obey = silent
            asking = asyncio.ensure_future(there.refused("POST", f"{there.url}/commands", 400, json=GETVER))
            await tracker.until(lambda: tracker.obeyed)
            clock.ahead += 30
            there.dispatcher.tick()
            error = await asking
            assert error["reason"] == (
                f"failed to deliver command getver: no answer within 30 s from device with id {there.device.id}"
            )
            [kept] = await there.get(f"{there.url}/commands-result/all")
            assert (kept["executed"], kept["response"]) == (False, None)
            assert await there.codes() == [334, 332]
            await tracker.close()

    run(scenario())


def test_a_connection_that_breaks_is_told_of(run, redis):
    async def scenario() -> None:
        async with commanding(redis) as there:
            tracker = await Tracker().connect(there.port)
            tracker.obey = hangs_up
            error = await there.refused("POST", f"{there.url}/commands", 400, json=GETVER)
            assert "the connection was lost before the answer came" in error["reason"]

    run(scenario())


def test_the_refusal_of_another_imei_is_a_failure(run, redis):
    """Codec 14, type 0x11."""

    async def scenario() -> None:
        async with commanding(redis) as there:
            tracker = await Tracker().connect(there.port)
            refusal = {"type": NOT_MY_IMEI, "imei": "352093081459999", "payload": b""}
            tracker.obey = lambda _: build_frame(encode_command(CODEC_14, refusal))
            order = {"name": "getver", "properties": {"codec": 14}}
            error = await there.refused("POST", f"{there.url}/commands", 400, json=[order])
            assert (error["code"], error["reason"]) == (2, "IMEI does not match")
            await tracker.close()

    run(scenario())


def test_two_commands_at_once_go_one_after_the_other(run, redis):
    """In one call, and in two; each gets its own answer."""

    async def scenario() -> None:
        async with commanding(redis) as there:
            tracker = await Tracker().connect(there.port)
            both = [{"name": "getparam", "properties": {"param": number}} for number in (2004, 2005)]
            answers = await asyncio.gather(
                there.post(f"{there.url}/commands", json=both), there.post(f"{there.url}/commands", json=GETVER)
            )
            [one, other], [version] = answers
            assert list(one["response"]) == ["2004"]
            assert list(other["response"]) == ["2005"]
            assert version["response"]["Hw"] == "FMC130"
            assert sorted(tracker.obeyed) == ["getparam 2004", "getparam 2005", "getver"]
            await tracker.close()

    run(scenario())


def test_several_devices_answer_or_fail_on_their_own(run, redis):
    async def scenario() -> None:
        async with commanding(redis) as there:
            away = await device_of(there, "352093081450000")
            tracker = await Tracker().connect(there.port)
            response = await there.request("POST", "/gw/devices/all/commands", json=GETVER)
            assert response.status_code == 200
            answer = response.json()
            assert [result["device_id"] for result in answer["result"]] == [there.device.id]
            assert [error["device_id"] for error in answer["errors"]] == [away.id]
            await tracker.close()

    run(scenario())


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ([{"name": "fly"}], "command fly properties validation failed: command definition fly is not found"),
        ([{"name": "custom"}], "exactly one of text and hex is needed"),
        ([{"name": "custom", "properties": {"text": "a", "hex": "00"}}], "exactly one of text and hex is needed"),
        ([{"name": "custom", "properties": {"payload": "a"}}], "unknown field `payload`"),
        ([{"name": "getver", "timeout": 4}], ">= 5"),
        ([{"name": "getver", "timeout": 61}], "<= 60"),
        ([{"name": "getver", "ttl": 60}], "unknown field `ttl`"),
        ({"name": "getver"}, "should be an array"),
        ([], "empty array"),
    ],
)
def test_a_wrong_order_is_refused(run, redis, body, reason):
    async def scenario() -> None:
        async with commanding(redis) as there:
            tracker = await Tracker().connect(there.port)
            error = await there.refused("POST", f"{there.url}/commands", 400, json=body)
            assert reason in error["reason"]
            assert tracker.obeyed == []
            await tracker.close()

    run(scenario())


# -- the queue


def test_a_queued_command_waits_for_its_device(run, redis):
    async def scenario() -> None:
        async with commanding(redis) as there:
            new = {"name": "getver", "ttl": 3600, "priority": 1, "max_attempts": 2, "meta": {"order": 7}}
            [queued] = await there.post(f"{there.url}/commands-queue", json=[new])
            assert (queued["attempts"], queued["max_attempts"], queued["meta"]) == (0, 2, {"order": 7})
            assert queued["expires"] == pytest.approx(queued["timestamp"] + 3600, abs=1)
            assert await there.get(f"{there.url}/commands-queue/all") == [queued]
            assert await there.get("/gw/devices/all/commands-queue/name=getver?fields=id") == [{"id": queued["id"]}]
            tracker = await Tracker().connect(there.port)
            await tracker.until(lambda: tracker.obeyed)
            await result_of(there, queued["id"])
            [result] = await there.get(f"{there.url}/commands-result/{queued['id']}")
            assert (result["executed"], result["attempts"], result["meta"]) == (True, 1, {"order": 7})
            assert await there.get(f"{there.url}/commands-queue/all") == []
            assert await there.codes() == [330, 334, 332]
            await tracker.close()

    run(scenario())


def test_the_highest_priority_goes_first(run, redis):
    async def scenario() -> None:
        async with commanding(redis) as there:
            priorities = {"getio": 0, "getver": 5, "getgps": 1}
            body = [{"name": name, "priority": priority} for name, priority in priorities.items()]
            queued = await there.post(f"{there.url}/commands-queue", json=body)
            assert [one["name"] for one in queued] == ["getio", "getver", "getgps"]
            waiting = await there.get(f"{there.url}/commands-queue/all?fields=name")
            assert [one["name"] for one in waiting] == ["getver", "getgps", "getio"]
            tracker = await Tracker().connect(there.port)
            await tracker.until(lambda: len(tracker.obeyed) == 3)
            assert tracker.obeyed == ["getver", "getgps", "getio"]
            await tracker.close()

    run(scenario())


def test_after_a_lost_connection_it_is_sent_again_until_its_attempts_are_used_up(run, redis):
    async def scenario() -> None:
        async with commanding(redis) as there:
            body = [{"name": "getver", "max_attempts": 3}, {"name": "getio", "max_attempts": 2, "priority": -1}]
            getver, getio = await there.post(f"{there.url}/commands-queue", json=body)
            tracker = Tracker()
            tracker.obey = hangs_up
            for _ in range(2):
                await tracker.connect(there.port)
                await tracker.ended()
                await gone(there)
            assert tracker.obeyed == ["getver", "getver"]
            tracker.obey = tracker._obey
            await tracker.connect(there.port)
            assert (await result_of(there, getver["id"]))["attempts"] == 3
            assert (await result_of(there, getio["id"]))["executed"] is True
            await tracker.close()
            [last] = await there.post(f"{there.url}/commands-queue", json=[{"name": "getgps", "max_attempts": 1}])
            tracker.obey = hangs_up
            await tracker.connect(there.port)
            result = await result_of(there, last["id"])
            assert (result["executed"], result["error"]) == (False, "no answer after 1 attempts")
            assert (await there.codes())[-2:] == [334, 331]

    run(scenario())


def test_a_command_waits_until_its_condition_is_true(run, redis):
    async def scenario() -> None:
        async with commanding(redis) as there:
            tracker = await Tracker().connect(there.port)
            new = {"name": "getver", "condition": "position.speed == 0"}
            await there.post(f"{there.url}/commands-queue", json=[new])
            await redis.hset(KEYS.telemetry(there.device.id), "position.speed", encode_value(1, 50))
            await there.refresh()
            assert tracker.obeyed == []
            await redis.hset(KEYS.telemetry(there.device.id), "position.speed", encode_value(2, 0))
            await there.refresh()
            await tracker.until(lambda: tracker.obeyed)
            assert tracker.obeyed == ["getver"]
            await tracker.close()

    run(scenario())


def test_what_has_expired_is_not_sent(run, redis):
    async def scenario() -> None:
        async with commanding(redis) as there:
            [queued] = await there.post(f"{there.url}/commands-queue", json=[{"name": "getver", "ttl": 60}])
            there.parts.commands._now = lambda: queued["expires"] + 1
            await there.refresh()
            tracker = await Tracker().connect(there.port)
            await there.refresh()
            [result] = await there.get(f"{there.url}/commands-result/all")
            assert (result["executed"], result["error"]) == (False, "expired before it could be delivered")
            assert tracker.obeyed == []
            assert 333 in await there.codes()
            await tracker.close()

    run(scenario())


def test_commands_that_wait_can_be_removed(run, redis):
    async def scenario() -> None:
        async with commanding(redis) as there:
            first, second = await there.post(f"{there.url}/commands-queue", json=[*GETVER, {"name": "getio"}])
            [removed] = await there.delete(f"{there.url}/commands-queue/{first['id']}")
            assert removed == first
            error = await there.refused("DELETE", f"{there.url}/commands-queue/{first['id']}", 403)
            assert error["id"] == first["id"]
            assert await there.get(f"{there.url}/commands-queue/all") == [second]
            assert await there.delete(f"{there.url}/commands-queue/all") == [second]
            assert await there.codes() == [330, 330, 331, 331]

    run(scenario())


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        ({"name": "getver", "ttl": 59}, ">= 60"),
        ({"name": "getver", "ttl": 2_592_001}, "<= 2592000"),
        ({"name": "getver", "ttl": 60, "expires": 1}, "only one of ttl and expires is possible"),
        ({"name": "getver", "expires": 1}, "expires should be within"),
        ({"name": "getver", "max_attempts": 0}, ">= 1"),
        ({"name": "getver", "condition": "1 +"}, "condition is no expression"),
        ({"name": "fly"}, "command definition fly is not found"),
    ],
)
def test_a_wrong_command_is_not_queued(run, redis, new, reason):
    async def scenario() -> None:
        async with commanding(redis) as there:
            error = await there.refused("POST", f"{there.url}/commands-queue", 400, json=[new])
            assert reason in error["reason"]
            assert await there.get(f"{there.url}/commands-queue/all") == []

    run(scenario())


def test_results_are_read_by_time(run, redis):
    async def scenario() -> None:
        async with commanding(redis) as there:
            tracker = await Tracker().connect(there.port)
            for name in ("getver", "getio", "getgps"):
                await there.post(f"{there.url}/commands", json=[{"name": name}])
            url = f"{there.url}/commands-result"
            assert [one["name"] for one in await there.get(url)] == ["getver", "getio", "getgps"]
            [latest] = await there.get(url, data={"count": 1, "reverse": True})
            assert latest["name"] == "getgps"
            found = await there.get(url, data={"from": latest["timestamp"], "fields": "name,executed"})
            assert found == [{"name": "getgps", "executed": True}]
            await tracker.close()

    run(scenario())


# -- rights, and what goes with a device


@pytest.mark.parametrize(
    ("method", "path", "submodule"),
    [
        ("POST", "commands", "commands"),
        ("POST", "commands-queue", "commands-queue"),
        ("GET", "commands-queue/all", "commands-queue"),
        ("DELETE", "commands-queue/all", "commands-queue"),
        ("GET", "commands-result", "commands-result"),
        ("GET", "commands-result/all", "commands-result"),
        ("GET", "settings/all", "settings"),
        ("PUT", "settings/link", "settings"),
        ("DELETE", "settings/link", "settings"),
    ],
)
def test_each_part_is_a_right_of_its_own(run, redis, method, path, submodule):
    async def scenario() -> None:
        async with commanding(redis) as there:
            other = await device_of(there, "352093081450000")
            body: Any = [{"name": "getver"}] if method == "POST" else None
            options: Any = {"json": {"ping_timeout": 60}} if method == "PUT" else {"json": body} if body else {}
            parts = ["commands", "commands-queue", "commands-result", "settings", "messages"]
            others = [
                {"name": name, "methods": ["GET", "POST", "PUT", "DELETE"]} for name in parts if name != submodule
            ]
            may_not = await key_for(
                there, {"uri": "gw/devices", "methods": ["GET", "POST", "PUT", "DELETE"], "submodules": others}
            )
            error = await there.refused(method, f"{there.url}/{path}", 403, key=may_not, **options)
            assert error["reason"] == "action is not permitted by ACL"
            entry = {"uri": "gw/devices", "ids": [other.id], "submodules": [{"name": submodule, "methods": [method]}]}
            of_other = await key_for(there, entry)
            error = await there.refused(method, f"{there.url}/{path}", 403, key=of_other, **options)
            assert error["id"] == there.device.id
            allowed = await there.request(method, f"/gw/devices/{other.id}/{path}", key=of_other, **options)
            assert allowed.status_code in (200, 400), allowed.text
            assert "not permitted" not in allowed.text

    run(scenario())


def test_a_deleted_device_leaves_nothing(run, redis):
    """Its keys are purged with it; the sets of all forget it at the next look."""

    async def scenario() -> None:
        async with commanding(redis) as there:
            await there.post(f"{there.url}/commands-queue", json=GETVER)
            await there.put(f"{there.url}/settings/link", json={"ping_timeout": 60})
            keys = [KEYS.commands(there.device.id), KEYS.settings(there.device.id)]
            assert [await redis.exists(key) for key in keys] == [1, 1]
            assert set(keys) <= set(KEYS.of_device(there.device.id))
            assert KEYS.commands_result(there.device.id) in KEYS.of_device(there.device.id)
            await there.delete(there.url)
            await there.refresh()
            assert await redis.smembers(KEYS.settings_wanted) == set()
            await there.refused("GET", f"{there.url}/commands-queue/all", 403)

    run(scenario())


# -- what trackers say unasked


def test_what_is_said_unasked_becomes_a_message_and_is_not_answered(run, redis):
    async def scenario() -> None:
        async with commanding(redis) as there:
            tracker = await Tracker().connect(there.port)
            tracker.send(tracker.frames.command(b"hello"))
            tracker.send(tracker.frames.packet(1))
            await tracker.until(lambda: tracker.acknowledgements)
            assert tracker.acknowledgements == [1]
            [channel] = there.parts.items.channels
            rows = await redis.xrange(KEYS.channel_log(channel))
            assert len(rows) == 2
            said = orjson.loads(rows[0][1][b"messages"])
            assert (said["payload.text"], said["codec.id"], said["ident"]) == ("hello", 12, IMEI)
            assert said["server.timestamp"] == said["timestamp"]
            await tracker.close()

    run(scenario())


def test_an_answer_that_comes_too_late_becomes_a_message(run, redis):
    async def scenario() -> None:
        clock = Clock()
        async with commanding(redis, clock=clock) as there:
            tracker = await Tracker().connect(there.port)
            tracker.obey = silent
            asking = asyncio.ensure_future(there.refused("POST", f"{there.url}/commands", 400, json=GETVER))
            await tracker.until(lambda: tracker.obeyed)
            clock.ahead += 30
            there.dispatcher.tick()
            await asking
            tracker.send(tracker.frames.command())
            tracker.send(tracker.frames.packet(1))
            await tracker.until(lambda: tracker.acknowledgements)
            [channel] = there.parts.items.channels
            assert len(await redis.xrange(KEYS.channel_log(channel))) == 2
            clock.ahead += REST_TIME
            tracker.obey = tracker._obey
            [result] = await there.post(f"{there.url}/commands", json=GETVER)
            assert result["executed"]
            await tracker.close()

    run(scenario())


def test_no_command_goes_out_while_a_packet_is_stored(run, redis):
    """Its zeros would be taken for the acknowledgement."""

    async def scenario() -> None:
        async with commanding(redis) as there:
            tracker = await Tracker().connect(there.port)
            whole = tracker.frames.packet(1)
            tracker.send(whole[:20])
            connection = there.parts.connections.of_ident(14, IMEI)
            async with asyncio.timeout(10):
                while connection.recv < 17 + 20:
                    await asyncio.sleep(0.01)
            asking = asyncio.ensure_future(there.post(f"{there.url}/commands", json=GETVER))
            async with asyncio.timeout(10):
                while not there.dispatcher._talks[there.device.id].conversation.is_eager:
                    await asyncio.sleep(0.01)
            assert tracker.obeyed == []
            tracker.send(whole[20:])
            [result] = await asking
            assert result["executed"]
            assert (tracker.acknowledgements, tracker.obeyed) == ([1], ["getver"])
            await tracker.close()

    run(scenario())


# -- settings and models


async def gone(there: Any) -> None:
    """The gateway has noticed that the tracker hung up."""
    async with asyncio.timeout(10):
        while there.parts.connections.is_connected(14, IMEI):
            await asyncio.sleep(0.01)
    await there.settle()


async def result_of(there: Any, command_id: int) -> dict[str, Any]:
    """Once it is there."""
    async with asyncio.timeout(10):
        while (result := await there.parts.commands.result(there.device.id, command_id)) is None:
            await asyncio.sleep(0.02)
    [view] = await there.get(f"{there.url}/commands-result/{command_id}")
    assert view["id"] == result.id
    return dict(view)
