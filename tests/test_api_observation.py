"""``.../idents``, ``.../packets`` and ``.../logs`` over HTTP: "my tracker does not appear" has an answer."""

from __future__ import annotations

import asyncio
from base64 import b64decode

import pytest

from gateway.store.events import OF_ITEM, SUMMARIES_MOST
from tests.builders import FrameFactory
from tests.items_rest import KEYS, key_for
from tests.messages_rest import right
from tests.observed_rest import Tracker, observed_gateway, until

IMEI = FrameFactory().imei
CHANNEL, DEVICE = "/gw/channels/1", "/gw/devices/1"
NEW_DEVICE = {"name": "car", "device_type_id": 303, "configuration": {"ident": IMEI}}


@pytest.fixture
def scene(run, redis):
    """Runs a coroutine with the API over channel 1 with this configuration."""

    def play(coroutine, **configuration) -> None:
        async def with_channel() -> None:
            async with observed_gateway(redis, **configuration) as there:
                await coroutine(there)

        run(with_channel(), timeout=60)

    return play


async def _logged(there, code: int, count: int = 1, path: str = CHANNEL) -> list[dict]:
    """The entries with this code, once there are so many."""

    async def enough() -> list[dict]:
        entries = [entry for entry in await there.get(f"{path}/logs") if entry["event_code"] == code]
        return entries if len(entries) >= count else []

    found: list[dict] = await until(enough)
    return found


def test_a_refused_tracker_is_told_why(scene):
    """From the list of idents to what it said, and to what helps."""

    async def play(there) -> None:
        tracker = await Tracker.log_in(there, answer=b"\x00")
        assert await tracker.is_closed()
        await tracker.close()
        [ident] = await there.get(f"{CHANNEL}/idents/{IMEI}")
        assert (ident["verdict"], ident["device_id"], ident["connected"], ident["count"]) == ("refused", None, False, 1)
        assert "create a device" in ident["reason"]
        [closed] = await _logged(there, 102)
        assert (closed["ident"], closed["close_code"]) == (IMEI, 14)
        packets = await there.get(f"{CHANNEL}/idents/{IMEI}/packets")
        assert [packet["type"] for packet in packets] == [0, 2, 3, 1]
        assert b64decode(packets[1]["data"]) == FrameFactory().login()
        await there.post("/gw/devices", [NEW_DEVICE])
        tracker = await Tracker.log_in(there)
        [ident] = await there.get(f"{CHANNEL}/idents/3563*")
        assert (ident["verdict"], ident["reason"], ident["device_id"], ident["connected"]) == ("accepted", "", 1, True)
        assert ident["size"] > 0
        await tracker.close()

    scene(play, unknown_ident="reject")


def test_a_tracker_that_never_came_has_an_answer_too(scene):
    """An empty list, and where to look next."""

    async def play(there) -> None:
        response = await there.request("GET", f"{CHANNEL}/idents/999")
        assert response.status_code == 200
        answer = response.json()
        assert answer["result"] == []
        assert "nobody has said to be 999" in answer["warnings"][0]["reason"]
        assert "warnings" not in (await there.request("GET", f"{CHANNEL}/idents/9*")).json()

    scene(play)


def test_a_tracker_of_another_protocol_leaves_its_bytes(scene):
    """In the log of the channel, for it has no ident."""

    async def play(there) -> None:
        tracker = await Tracker.connect(there)
        tracker.writer.write(b"##,imei:359587010124900,A;")
        assert await tracker.is_closed()
        await tracker.close()
        [error] = await _logged(there, 103)
        assert bytes.fromhex(error["data"]).startswith(b"##,imei:359587010124900")
        [closed] = await _logged(there, 102)
        assert closed["close_code"] == 4

    scene(play)


def test_a_poison_packet_is_visible(scene):
    """With its bytes, its reason and its answer, on the channel and on the device."""

    async def play(there) -> None:
        await there.post("/gw/devices", [NEW_DEVICE])
        frames = FrameFactory()
        tracker = await Tracker.log_in(there, frames)
        poison = frames.packet(2, count_again=9)
        assert await tracker.ask(poison, 4) == b"\0\0\0\2"
        for path in (f"{CHANNEL}/idents/{IMEI}", DEVICE):
            packets = await there.get(f"{path}/packets", data={"reverse": True, "count": 2})
            assert [b64decode(packet["data"]) for packet in packets] == [b"\0\0\0\2", poison]
            assert "counts disagree" in packets[1]["reason"]
        [error] = await _logged(there, 304, path=DEVICE)
        assert "counts disagree" in error["reason"]
        await tracker.close()

    scene(play)


def test_a_thousand_junk_connections_do_not_fill_the_log(scene, redis, run):
    """They are counted; the one tracker that somebody looks for is found."""

    async def junk(there) -> None:
        tracker = await Tracker.connect(there)
        tracker.writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await tracker.is_closed()
        await tracker.close()

    async def play(there) -> None:
        for _ in range(20):
            await asyncio.gather(*(junk(there) for _ in range(50)))
        tracker = await Tracker.log_in(there)
        await tracker.close()
        await until(lambda: _is_over(there))
        there.parts.events.summarize()
        entries = await there.get(f"{CHANNEL}/logs")
        assert len(entries) < 3 * (OF_ITEM["channels"] + SUMMARIES_MOST)
        errors = [entry for entry in entries if entry["event_code"] == 103]
        assert sum(entry.get("repeated", 1) for entry in errors) == 1000
        assert [entry["ident"] for entry in entries if entry["event_code"] == 101] == [IMEI]
        assert await redis.memory_usage(KEYS.log("channels", 1)) < 300_000

    scene(play)


async def _is_over(there) -> bool:
    return len(there.parts.connections) == 0


def test_all_traffic_is_kept_from_the_moment_that_the_channel_says_so(scene):
    """packets_ttl, changed by the API, holds for those who are connected."""

    async def play(there) -> None:
        frames = FrameFactory()
        tracker = await Tracker.log_in(there, frames)
        await tracker.ask(frames.packet(1), 4)
        await there.patch(CHANNEL, {"configuration": {"packets_ttl": 3600}})
        packet = frames.packet(1)
        await tracker.ask(packet, 4)
        packets = await there.get(f"{CHANNEL}/idents/{IMEI}/packets")
        assert [(one["type"], b64decode(one["data"])) for one in packets[3:]] == [(2, packet), (3, b"\0\0\0\1")]
        assert len({one["conn"] for one in packets}) == 1
        await there.refused("PATCH", CHANNEL, 400, json={"configuration": {"packets_ttl": -1}})
        await tracker.close()

    scene(play)


def test_logs_take_ranges_filters_and_fields(scene):
    """As flespi's; of several items they are one list."""

    async def play(there) -> None:
        await there.post("/gw/devices", [NEW_DEVICE, {**NEW_DEVICE, "configuration": {"ident": "7"}}])
        await there.put("/gw/devices/2", {"name": "bus"})
        entries = await there.get("/gw/devices/all/logs")
        assert [(entry["origin_id"], entry["event_code"]) for entry in entries] == [(1, 1), (2, 1), (2, 2)]
        assert entries[2]["old"]["name"] == "car"
        assert entries[2]["new"]["name"] == "bus"
        updates = {"filter": "event_code==2", "fields": "event_code,origin_id"}
        assert await there.get("/gw/devices/all/logs", data=updates) == [{"event_code": 2, "origin_id": 2}]
        later = {"from": entries[1]["timestamp"], "count": 1}
        assert await there.get("/gw/devices/all/logs", data=later) == [entries[1]]
        assert await there.get("/gw/devices/all/logs", data={"to": entries[1]["timestamp"], "reverse": True}) == [
            entries[1], entries[0],
        ]  # fmt: skip

    scene(play)


@pytest.mark.parametrize(
    "path", [f"{CHANNEL}/logs", f"{CHANNEL}/idents/1/packets", "/gw/devices/all/logs", "/gw/devices/all/packets"]
)
def test_wrong_input_is_named(scene, path: str):
    """Fields, expressions, numbers."""

    async def play(there) -> None:
        assert await there.get("/gw/devices/all/logs") == []
        await there.refused("GET", path, 400, data={"from": "yesterday"})
        await there.refused("GET", path, 400, data={"count": 0})
        await there.refused("GET", path, 400, data={"limit": 5})
        assert "filter" in (await there.refused("GET", path, 400, data={"filter": "1 +"}))["reason"]

    scene(play)


def test_unknown_items_are_refused(scene):
    """As everywhere: 403 and the id."""

    async def play(there) -> None:
        for path in (
            "/gw/channels/9/logs", "/gw/devices/9/logs", "/gw/channels/9/idents/all", "/gw/devices/9/packets",
            "/gw/channels/9/idents/1/packets",
        ):  # fmt: skip
            assert (await there.refused("GET", path, 403))["id"] == 9
        await there.refused("GET", f"{CHANNEL}/idents/{'9' * 65}/packets", 400)
        assert (await there.refused("GET", f"{CHANNEL}/idents/all?fields=speed", 400))["field"] == "speed"

    scene(play)


@pytest.mark.parametrize(
    ("path", "submodule"),
    [("logs", "logs"), ("idents/all", "idents"), ("idents/1/packets", "packets"), ("connections/all", "connections")],
)
def test_each_noun_has_a_right_of_its_own(scene, path: str, submodule: str):
    """The right to one is none to the others, nor to other channels."""

    async def play(there) -> None:
        key = await key_for(there, right(submodule, "GET", uri="gw/channels", ids=[1]))
        other = await key_for(there, right("messages", "GET", uri="gw/channels"))
        stranger = await key_for(there, right(submodule, "GET", uri="gw/channels", ids=[2]))
        await there.get(f"{CHANNEL}/{path}", key=key)
        await there.refused("GET", f"{CHANNEL}/{path}", 403, key=other)
        await there.refused("GET", f"{CHANNEL}/{path}", 403, key=stranger)
        await there.refused("GET", f"{CHANNEL}/{path}", 401, key=None)

    scene(play)


def test_a_device_has_rights_of_its_own(scene):
    """Its logs and packets."""

    async def play(there) -> None:
        await there.post("/gw/devices", [NEW_DEVICE])
        key = await key_for(there, right("logs", "GET", ids=[1]))
        assert len(await there.get(f"{DEVICE}/logs", key=key)) == 1
        await there.refused("GET", f"{DEVICE}/packets", 403, key=key)

    scene(play)


def test_the_numbers_of_events_are_explained(scene):
    """As flespi's Toolbox asks for it, without a token."""

    async def play(there) -> None:
        [values] = await there.get("/const/values?names=toolbox%2Fcodes", key=None)
        codes = values["toolbox/codes"]["codes"]
        assert codes["301"]["description"] == "Device disconnected"
        assert codes["102"]["extra_codes"]["14"]
        assert 101 in values["toolbox/codes"]["entities"]["channels"]
        assert (await there.refused("GET", "/const/values?names=x", 400, key=None))["field"] == "names"

    scene(play)
