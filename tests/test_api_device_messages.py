"""``/gw/devices/{devices}/messages`` over HTTP: reading, posting and merging, rights, wrong input."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.api import device_messages
from gateway.api.posting import MESSAGES_MOST
from gateway.message import BYTES_MOST, NAME_MOST, PARAMETERS_MOST
from tests.history import KEYS, store
from tests.items_rest import key_for
from tests.messages_rest import messages_gateway, pages, right

URL = "/gw/devices/1/messages"
BASE = int(time.time()) - 3600


@pytest.fixture
def scene(run, redis):
    """Runs a coroutine with the API, and ten messages of the first device, ten seconds apart."""

    def play(coroutine, registers: bool = True) -> None:
        async def with_messages() -> None:
            async with messages_gateway(redis, registers) as there:
                for n in range(10):
                    await store(redis, 1, [BASE + n * 10], n=n, **{"can.a": n * 2, "can.b": -n})
                await coroutine(there)

        run(with_messages())

    return play


def _numbers(messages: list[dict[str, Any]]) -> list[int]:
    return [message["n"] for message in messages]


def test_messages_come_by_the_time_of_the_device(scene):
    """Ranges, both ends included; in either direction; so many; filtered; in part; fewer."""

    async def scenario(there) -> None:
        assert _numbers(await there.get(URL)) == list(range(10))
        assert _numbers(await there.get(URL, data={"reverse": True, "count": 2})) == [9, 8]
        assert _numbers(await there.get(URL, data={"from": BASE + 20, "to": BASE + 40})) == [2, 3, 4]
        assert _numbers(await there.get(URL, json={"from": BASE + 20.000001, "to": BASE + 39.9})) == [3]
        assert _numbers(await there.get(URL, data={"filter": "n % 2 == 1 && n > 2", "count": 2})) == [3, 5]
        assert await there.get(URL, data={"fields": "can.*", "count": 1}) == [{"can.a": 0, "can.b": 0}]
        fewer = await there.get(URL, data={"generalize": 3600 * 24, "method": "average", "fields": "n"})
        assert fewer[0]["n"] == pytest.approx(4.5) or len(fewer) == 2  # midnight may lie between
        assert _numbers(await there.get(URL, data={"from": BASE, "generalize": 10})) == list(range(10))

    scene(scenario)


def test_several_devices_are_one_list_and_count_is_of_all(scene):
    """Ordered by time; unknown ids are errors beside the messages."""

    async def scenario(there) -> None:
        await store(there.parts.redis, 2, [BASE + 5, BASE + 15], n=100)
        response = await there.request("GET", "/gw/devices/1,2,99/messages", data={"count": 5})
        assert _numbers(response.json()["result"]) == [0, 100, 1, 100, 2]
        assert [error["id"] for error in response.json()["errors"]] == [99]
        assert _numbers(await there.get("/gw/devices/configuration.ident=78/messages")) == [100, 100]
        assert _numbers(await there.get("/gw/devices/ident=77/messages", data={"count": 1})) == [0]
        assert len(await there.get("/gw/devices/all/messages")) == 12

    scene(scenario)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(micros=st.lists(st.integers(0, 40), unique=True, min_size=1, max_size=30).map(sorted), count=st.integers(1, 7))
def test_paging_misses_nothing_and_sees_nothing_twice(run, redis, micros, count):
    """``from = last + 0.000001``, with messages a microsecond apart, while newer ones come."""

    async def scenario() -> None:
        await redis.flushall()
        async with messages_gateway(redis, registers=False) as there:
            times = [(BASE * 1_000_000 + at) / 1e6 for at in micros]
            half = len(times) // 2
            await store(redis, 1, times[:half])
            paging = asyncio.ensure_future(pages(there, URL, "timestamp", count))
            for at in times[half:]:
                await store(redis, 1, [at])
            found = [message["timestamp"] for message in await paging]
            last = found[-1] + 0.000001 if found else 0.0
            found += [message["timestamp"] for message in await pages(there, URL, "timestamp", count, last)]
            assert found == times

    run(scenario())


def test_a_list_that_is_sent_while_messages_are_registered_is_whole(run, redis):
    """Each message that was there comes once, though others merge into it and more come before and behind."""

    async def scenario() -> None:
        async with messages_gateway(redis) as there:
            times = range(BASE, BASE + 3000)
            await store(redis, 1, times, filler="x" * 1000)

            async def post() -> None:
                for n in range(0, 3000, 100):
                    own = [
                        {"timestamp": BASE + n, "more": n},
                        {"timestamp": BASE + n + 0.5},
                        {"timestamp": BASE - 4000 + n},
                    ]
                    await there.post(URL, own)

            posting = asyncio.ensure_future(post())
            rounds = 0
            while not posting.done() or not rounds:
                found = [message["timestamp"] for message in await there.get(URL, data={"from": BASE})]
                assert found == sorted(set(found))
                assert set(times) <= set(found)
                rounds += 1
            await posting
            found = await there.get(URL)
            assert len(found) == 3060
            assert sum("more" in message and "filler" in message for message in found) == 30

    run(scenario())


def test_a_posted_message_can_be_read_when_the_call_ends(scene):
    """It has the ident and the device's own parameters, updates telemetry, and is in the device log."""

    async def scenario(there) -> None:
        at = BASE + 1000
        posted = [{"timestamp": at, "din": 1, "ident": "other"}, {"timestamp": at + 1, "device.id": 9}]
        assert await there.post(URL, posted) == [{"id": 1, "messages": 2, "registered": True}]
        first, second = await there.get(URL, data={"from": at})
        assert {"timestamp": at, "din": 1, "ident": "77", "device.id": 1, "device.name": "Van"}.items() <= first.items()
        assert second["device.id"] == 1
        assert abs(first["server.timestamp"] - time.time()) < 60
        [entry] = await there.parts.redis.xrange(KEYS.device_log)
        assert [orjson.loads(text) for text in entry[1][b"messages"].split(b"\n")] == [first, second]
        [telemetry] = await there.get("/gw/devices/1/telemetry/din")
        assert telemetry == {"id": 1, "telemetry": {"din": {"ts": at, "value": 1}}}

    scene(scenario)


def test_a_message_without_a_time_has_the_present_one(scene):
    """Also where it has a key of its own."""

    async def scenario(there) -> None:
        before = time.time()
        await there.post(URL, [{"din": 1}, {"din": 2}])
        first, second = await there.get(URL, data={"from": before})
        assert (first["din"], second["din"]) == (1, 2)
        assert before <= first["timestamp"] < second["timestamp"] <= time.time()

    scene(scenario)


def test_a_message_of_the_same_time_changes_the_stored_one(scene):
    """Same parameters are overridden, others stay; another timestamp.key is another message."""

    async def scenario(there) -> None:
        await there.post(
            URL, [{"timestamp": BASE, "can.a": 7}, {"timestamp": BASE, "timestamp.key": BASE + 2e-6, "x": 1}]
        )
        first, second = await there.get(URL, data={"count": 2})
        assert (first["n"], first["can.a"], first["can.b"]) == (0, 7, 0)
        assert second["x"] == 1
        assert "n" not in second

    scene(scenario)


def test_posts_of_one_time_at_the_same_moment_lose_nothing(scene):
    """Each adds a parameter; all are there."""

    async def scenario(there) -> None:
        posts = (there.post(URL, [{"timestamp": BASE, f"p{n}": n}]) for n in range(30))
        answers = await asyncio.gather(*posts)
        assert all(answer == [{"id": 1, "messages": 1, "registered": True}] for answer in answers)
        [message] = await there.get(URL, data={"count": 1})
        assert {f"p{n}": n for n in range(30)}.items() <= message.items()
        assert message["n"] == 0

    scene(scenario)


def test_several_devices_get_the_same_messages(scene):
    """An unknown one is an error beside them."""

    async def scenario(there) -> None:
        response = await there.request("POST", "/gw/devices/1,2,9/messages", json=[{"timestamp": BASE + 500, "a": 1}])
        assert [item["id"] for item in response.json()["result"]] == [1, 2]
        assert [error["id"] for error in response.json()["errors"]] == [9]
        messages = await there.get("/gw/devices/all/messages", data={"from": BASE + 500})
        assert [(message["device.id"], message["ident"]) for message in messages] == [(1, "77"), (2, "78")]

    scene(scenario)


BAD: list[tuple[Any, str | None, str]] = [
    ("text", None, "item 0"),
    ({}, None, "empty"),
    ({"timestamp": "now"}, "timestamp", "number"),
    ({"timestamp": True}, "timestamp", "number"),
    ({"timestamp": -1}, "timestamp", "from 0"),
    ({"timestamp": 1e15}, "timestamp", "from 0"),
    ({"timestamp": 1, "timestamp.key": None}, "timestamp.key", "number"),
    ({"a/b": 1}, "a/b", "printable"),
    ({"": 1}, "", "printable"),
    ({"a\u0000": 1}, "a\u0000", "printable"),
    ({"x" * (NAME_MOST + 1): 1}, "x" * NAME_MOST, "printable"),
    ({"a": "x" * BYTES_MOST}, None, "bytes"),
    ({f"p{n}": n for n in range(PARAMETERS_MOST + 1)}, None, "parameters"),
    ({"a": [[[[[[[[1]]]]]]]]}, None, "nested"),
]


@pytest.mark.parametrize(("message", "field", "reason"), BAD, ids=lambda value: str(value)[:20])
def test_a_message_that_cannot_be_is_named_and_the_others_are_taken(scene, message, field, reason):
    """By its place in the array, and the parameter."""

    async def scenario(there) -> None:
        response = await there.request("POST", URL, json=[message, {"timestamp": BASE + 900, "good": 1}])
        answer = response.json()
        assert response.status_code == 200
        assert answer["result"] == [{"id": 1, "messages": 1, "registered": True}]
        [error] = answer["errors"]
        assert error["index"] == 0
        assert error.get("field") == field
        assert reason in error["reason"]
        assert len(await there.get(URL, data={"from": BASE + 900})) == 1
        await there.refused("POST", URL, 400, json=[message])

    scene(scenario)


@pytest.mark.parametrize(
    ("status", "options"),
    [
        (400, {"json": {"timestamp": 1}}),
        (400, {"json": []}),
        (400, {"content": b"[{]"}),
        (400, {"content": b'[{"a":1e999}]'}),
        (400, {}),
        (413, {"content": b"[" + b" " * 5_000_000 + b"{}]"}),
        (413, {"json": [{"timestamp": n} for n in range(MESSAGES_MOST + 1)]}),
    ],
    ids=["object", "empty", "broken", "infinite", "none", "large", "many"],
)
def test_a_body_that_cannot_be_changes_nothing(scene, status, options):
    """And says what would be right."""

    async def scenario(there) -> None:
        await there.refused("POST", URL, status, **options)
        assert await there.parts.redis.xlen(KEYS.posted) == 0

    scene(scenario)


def test_many_messages_for_many_devices_are_too_many(scene):
    """The bound is on what is stored."""

    async def scenario(there) -> None:
        body = [{"timestamp": n} for n in range(MESSAGES_MOST // 2 + 1)]
        error = await there.refused("POST", "/gw/devices/1,2/messages", 413, json=body)
        assert str(MESSAGES_MOST) in error["reason"]

    scene(scenario)


def test_a_post_does_not_wait_for_a_registrar_that_does_not_come(scene, monkeypatch):
    """It is stored, and the answer says that it is not registered."""
    monkeypatch.setattr(device_messages, "REGISTERED_WITHIN", 0.05)

    async def scenario(there) -> None:
        answer = (await there.request("POST", URL, json=[{"a": 1}])).json()
        assert answer["result"] == [{"id": 1, "messages": 1, "registered": False}]
        assert "not registered yet" in answer["warnings"][0]["reason"]
        assert await there.parts.redis.xlen(KEYS.posted) == 1

    scene(scenario, registers=False)


def test_nothing_is_taken_while_trackers_are_paused(scene):
    """Redis is nearly full then, and needs its room for what is on its way."""

    async def scenario(there) -> None:
        there.parts.gate.close("memory", "Redis is full")
        error = await there.refused("POST", URL, 503, json=[{"a": 1}])
        assert "Redis is full" in error["reason"]
        assert (await there.refused("DELETE", "/gw/devices/1/telemetry/all", 503))["reason"] == error["reason"]

    scene(scenario)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"generalize": 9}, "generalize"),
        ({"generalize": 60, "method": "median"}, "method"),
        ({"method": "average"}, "generalize"),
        ({"curr_key": 5}, "curr_key"),
        ({"filter": "((", "count": 1}, "filter"),
        ({"fields": 5}, "fields"),
    ],
)
def test_wrong_parameters_are_named(scene, data, field):
    """With what would be right."""

    async def scenario(there) -> None:
        assert (await there.refused("GET", URL, 400, data=data))["field"] == field

    scene(scenario)


def test_what_needs_a_message_of_each_device_has_a_bound(scene, monkeypatch):
    """On devices."""
    monkeypatch.setattr(device_messages, "REMEMBERED_DEVICES", 1)

    async def scenario(there) -> None:
        assert len(await there.get(URL, data={"generalize": 3600})) in (1, 2)
        error = await there.refused("GET", "/gw/devices/all/messages", 400, data={"generalize": 3600})
        assert "2 devices; 1 are possible" in error["reason"]

    scene(scenario)


def test_rights_hold_for_messages(scene):
    """Reading and posting are two; ids narrow both."""

    async def scenario(there) -> None:
        await there.refused("GET", URL, 401, key=None)
        reader = await key_for(there, right("messages", "GET"))
        assert len(await there.get(URL, key=reader)) == 10
        await there.refused("POST", URL, 403, key=reader, json=[{"a": 1}])
        await there.refused("GET", URL, 403, key=await key_for(there, right("telemetry", "GET")))
        narrow = await key_for(there, right("messages", "GET", "POST", ids=[2]))
        await there.refused("GET", URL, 403, key=narrow)
        await there.refused("POST", URL, 403, key=narrow, json=[{"a": 1}])
        assert await there.get("/gw/devices/all/messages", key=narrow) == []
        await there.post("/gw/devices/all/messages", [{"a": 1}], key=narrow)
        assert [message["device.id"] for message in await there.get("/gw/devices/all/messages", key=narrow)] == [2]
        assert len(await there.get(URL)) == 10

    scene(scenario)


def test_messages_of_a_device_cannot_be_deleted(scene):
    """As in flespi: they can be changed."""

    async def scenario(there) -> None:
        assert "GET, POST" in (await there.refused("DELETE", URL, 405))["reason"]

    scene(scenario)
