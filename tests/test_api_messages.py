"""``/gw/channels/{channels}/messages`` over HTTP: ranges, the cursor, deletion, rights, wrong input."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.store.polls import MOST_WAITING
from tests.history import KEYS, add_packet, make_channel, times_of
from tests.items_rest import key_for
from tests.messages_rest import messages_gateway, pages, right

URL = "/gw/channels/1/messages"


@pytest.fixture
def scene(run, redis):
    """Runs a coroutine with the API, and ten messages in five packets that came a minute ago."""

    def play(coroutine) -> None:
        async def with_messages() -> None:
            async with messages_gateway(redis, registers=False) as there:
                start = int((time.time() - 60) * 1e6)
                times = [at for n in range(5) for at in await add_packet(redis, start + n * 10, 2, ident=f"i{n}", n=n)]
                await coroutine(there, times)

        run(with_messages())

    return play


def _times(messages: list[dict]) -> list[int]:
    return times_of(orjson.dumps(message) for message in messages)


def test_all_messages_come_by_the_time_they_came(scene):
    """Without parameters all there is; in either direction; so many; a range that begins and ends within packets."""

    async def scenario(there, times) -> None:
        assert _times(await there.get(URL)) == times
        assert _times(await there.get(URL, data={"reverse": True, "count": 3})) == times[:-4:-1]
        span = {"from": times[1] / 1e6, "to": times[6] / 1e6}
        assert _times(await there.get(URL, data=span)) == times[1:7]
        assert _times(await there.get(URL, json=span)) == times[1:7], "flespi takes a body, too"
        assert await there.get(URL, data={"filter": 'n == 3 && ident ~ "i*"', "fields": "n"}) == [{"n": 3}, {"n": 3}]
        assert await there.get(URL, data={"from": 5, "to": 4}) == []

    scene(scenario)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    packets=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=15), count=st.integers(1, 7)
)
def test_paging_misses_nothing_and_sees_nothing_twice(run, redis, packets, count):
    """``from = last + 0.000001``, while more come."""

    async def scenario() -> None:
        await redis.flushall()
        async with messages_gateway(redis, registers=False) as there:
            at = int((time.time() - 60) * 1e6)
            expected: list[int] = []
            half = len(packets) // 2
            for gap, size in packets[:half]:
                at += gap + size
                expected += await add_packet(redis, at, size)
            paging = asyncio.ensure_future(pages(there, URL, "server.timestamp", count))
            for gap, size in packets[half:]:
                at += gap + size
                expected += await add_packet(redis, at, size)
            found = _times(await paging)
            last = found[-1] / 1e6 + 0.000001 if found else 0.0
            found += _times(await pages(there, URL, "server.timestamp", count, last))
            assert found == expected

    run(scenario())


def test_several_channels_are_one_list(scene):
    """Ordered; a channel that is not there is an error beside it."""

    async def scenario(there, times) -> None:
        await make_channel(there.parts.items, enabled=False)
        more = await add_packet(there.parts.redis, times[3] + 5, 2, channel_id=2)
        response = await there.request("GET", "/gw/channels/1,2,9/messages")
        answer = response.json()
        assert response.status_code == 200
        assert _times(answer["result"]) == sorted(times + more)
        assert answer["errors"] == [{"code": 3, "reason": "access denied or unable to process the item", "id": 9}]
        assert _times(await there.get("/gw/channels/all/messages", data={"count": 3})) == sorted(times + more)[:3]
        assert await there.get("/gw/channels/name=nothing/messages") == []

    scene(scenario)


def test_a_cursor_walks_through_the_messages(scene):
    """flespi's older way: next_key becomes curr_key."""

    async def scenario(there, times) -> None:
        key, found = 0, []
        for _ in range(4):
            response = await there.request("GET", URL, data={"curr_key": key, "limit_count": 4})
            answer = response.json()
            found += answer["result"]
            key = answer["next_key"]
        assert _times(found) == times
        assert (await there.request("GET", URL, data={"curr_key": key})).json() == {"result": [], "next_key": key}
        sized = await there.get(URL, data={"curr_key": 0, "limit_size": 1})
        assert len(sized) == 1

    scene(scenario)


def test_a_long_poll_ends_with_the_next_message(scene):
    """Or after its timeout, whose other name is delay."""

    async def scenario(there, times) -> None:
        waiting = asyncio.ensure_future(there.request("GET", URL, data={"curr_key": times[-1] + 1, "timeout": 20}))
        await _until_waiting(there, 1)
        assert not waiting.done()
        [later] = await add_packet(there.parts.redis, times[-1] + 50)
        answer = (await waiting).json()
        assert (_times(answer["result"]), answer["next_key"]) == ([later], later + 1)
        started = time.monotonic()
        assert await there.get(URL, data={"curr_key": later + 1, "delay": 0.2}) == []
        assert time.monotonic() - started >= 0.2

    scene(scenario)


async def _until_waiting(there, count: int) -> None:
    async with asyncio.timeout(5):
        while there.parts.polls._waiting < count:
            await asyncio.sleep(0.005)


def test_too_many_long_polls_are_refused(scene):
    """Each of them has a connection to Redis; a client that goes away makes room."""

    async def scenario(there, times) -> None:
        query = {"curr_key": times[-1] + 1, "timeout": 20}
        waiting = [asyncio.ensure_future(there.request("GET", URL, data=query)) for _ in range(MOST_WAITING)]
        await _until_waiting(there, MOST_WAITING)
        error = await there.refused("GET", URL, 429, data=query)
        assert str(MOST_WAITING) in error["reason"]
        waiting[0].cancel()
        async with asyncio.timeout(5):
            while there.parts.polls._waiting == MOST_WAITING:
                await asyncio.sleep(0.005)
        await add_packet(there.parts.redis, times[-1] + 50)
        for answer in await asyncio.gather(*waiting[1:]):
            assert len(answer.json()["result"]) == 1

    scene(scenario)


def test_deletion_hides_at_once_and_leaves_the_log_to_its_readers(scene):
    """Up to a time, a range, all; by the cursor; what comes later is there."""

    async def scenario(there, times) -> None:
        assert await there.delete(URL, data={"to": times[1] / 1e6}) == [{"id": 1}]
        assert _times(await there.get(URL)) == times[2:]
        await there.delete(URL, data={"from": times[3] / 1e6, "to": times[4] / 1e6})
        assert _times(await there.get(URL)) == [times[2], *times[5:]]
        answer = (await there.request("GET", URL, data={"curr_key": times[7], "delete": True})).json()
        assert _times(answer["result"]) == times[7:]
        assert _times(await there.get(URL)) == times[7:]
        await there.delete(URL, data={"curr_key": times[8]})
        assert _times(await there.get(URL)) == times[8:]
        await there.delete(URL)
        assert await there.get(URL) == []
        assert await there.parts.redis.xlen(KEYS.channel_log(1)) == 5
        later = await add_packet(there.parts.redis, int((time.time() + 1) * 1e6))
        assert _times(await there.get(URL)) == later

    scene(scenario)


def test_a_channel_with_too_many_deleted_ranges_says_so(scene):
    """Each is looked at for each message; the others of the call are done."""

    async def scenario(there, times) -> None:
        await make_channel(there.parts.items, enabled=False)
        for n in range(100):
            await there.parts.history.hide(1, 10 + n * 10, 11 + n * 10)
        response = await there.request(
            "DELETE", "/gw/channels/1,2/messages", data={"from": times[3] / 1e6, "to": times[4] / 1e6}
        )
        assert response.json()["result"] == [{"id": 2}]
        [error] = response.json()["errors"]
        assert error["id"] == 1
        assert "leave out `from`" in error["reason"]

    scene(scenario)


@pytest.mark.parametrize(
    ("method", "data", "field"),
    [
        ("GET", {"form": 1}, "form"),
        ("GET", {"from": "yesterday"}, "from"),
        ("GET", {"from": -1}, "from"),
        ("GET", {"to": 1e300}, "to"),
        ("GET", {"count": 0}, "count"),
        ("GET", {"filter": "n =="}, "filter"),
        ("GET", {"curr_key": 5, "from": 1}, "from"),
        ("GET", {"timeout": 61}, "timeout"),
        ("GET", {"timeout": 1, "reverse": True}, "reverse"),
        ("GET", {"limit_count": 10_001}, "limit_count"),
        ("GET", {"generalize": 60}, "generalize"),
        ("DELETE", {"filter": "true"}, "filter"),
        ("DELETE", {"curr_key": 1, "to": 5}, "curr_key"),
    ],
)
def test_wrong_parameters_are_named(scene, method, data, field):
    """And nothing is done."""

    async def scenario(there, times) -> None:
        error = await there.refused(method, URL, 400, data=data)
        assert error["field"] == field
        assert _times(await there.get(URL)) == times

    scene(scenario)


def test_rights_hold_for_messages(scene):
    """Without a token; without the right; with it for other channels; with that to read only."""

    async def scenario(there, times) -> None:
        await there.refused("GET", URL, 401, key=None)
        for acl in (
            right("messages", "GET"),
            right("logs", "GET", "DELETE", uri="gw/channels"),
            right("messages", "GET", uri="gw/channels", ids=[2]),
        ):
            await there.refused("GET", URL, 403, key=await key_for(there, acl))
        reader = await key_for(there, right("messages", "GET", uri="gw/channels"))
        assert _times(await there.get(URL, key=reader)) == times
        await there.refused("DELETE", URL, 403, key=reader)
        await there.refused("GET", URL, 403, key=reader, data={"curr_key": times[5], "delete": True})
        some = [right("messages", "GET", uri="gw/channels"), right("messages", "DELETE", uri="gw/channels", ids=[2])]
        await there.refused(
            "GET", URL, 403, key=await key_for(there, *some), data={"curr_key": times[5], "delete": True}
        )
        assert _times(await there.get(URL)) == times
        owner = await key_for(there, right("messages", "GET", "DELETE", uri="gw/channels", ids=[1]))
        await there.delete(URL, key=owner)
        assert await there.get(URL, key=owner) == []

    scene(scenario)


def test_unknown_channels_and_methods(scene):
    """An explicit id that is not there is 403, as in flespi; a method that is not there says which are."""

    async def scenario(there, times) -> None:
        assert (await there.refused("GET", "/gw/channels/99/messages", 403))["id"] == 99
        assert (await there.refused("DELETE", "/gw/channels/99/messages", 403))["id"] == 99
        assert "DELETE, GET" in (await there.refused("POST", URL, 405, json=[{}]))["reason"]

    scene(scenario)
