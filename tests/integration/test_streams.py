"""Streams of a running gateway: what trackers were told is stored comes to an HTTP server, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import orjson
import pytest

from integration.inbox import Inbox
from integration.processes import Gateway, RedisServer
from integration.rest import Rest
from integration.stored import Times, assert_holds, assert_in_order, stored_at
from integration.trackers import Fleet, Packets, imei, send_packet
from tests.brokers import Subscriber
from tests.builders import BEGIN_MS, STEP_MS
from tests.targets.http import Answer, Asked, HttpTarget

Run = Callable[..., Any]
KILLS = int(os.environ.get("GATEWAY_TEST_KILLS") or 3)
MOMENT = 1.0
"""Seconds within which the moment of a kill lies, counted from when the stream delivers."""
TRACKERS = 20
BATCH = 25
AGAIN = BATCH + 1
"""Messages that come again where a batch was not confirmed: it, and the packet that it began in the middle of."""
SHOWN = "fields=id,connected,queue_size,state,error,counters"


async def make_stream(rest: Rest, target: HttpTarget, *links: str, path: str = "/in", **options: Any) -> int:
    """A stream to the target, linked with ``channels`` or ``devices``, all that there are."""
    configuration = {"uri": target.url + path, "limit_messages": BATCH, **options}
    stream_id = await rest.make("streams", name="out", protocol_name="http", configuration=configuration)
    for to in links:
        await rest.link("streams", stream_id, to, "all")
    return stream_id


async def logged(url: str, to: str) -> Times:
    """What the stream should have delivered by now: all that came, as often as it was stored."""
    async with stored_at(url) as stored:
        await stored.registered()
        return await (stored.channel() if to == "channels" else stored.device_log())


@pytest.mark.parametrize("to", ["channels", "devices"])
def test_a_killed_gateway_delivers_all_that_it_acknowledged(
    run: Run, make_gateway: Callable[..., Gateway], http_target: HttpTarget, random: Random, to: str
) -> None:
    """At least once, in order; of each kill a batch comes again at most."""
    gateway, inbox = make_gateway(), Inbox(http_target, delay=0.01)

    async def scenario() -> None:
        await gateway.ready()
        async with Rest(gateway) as rest:
            await rest.make_devices(*map(imei, range(TRACKERS)))
            await make_stream(rest, http_target, to)
        async with Fleet(gateway.port, TRACKERS) as fleet:
            for _ in range(KILLS):
                await fleet.is_acknowledged()
                await inbox.more()
                await asyncio.sleep(random.uniform(0, MOMENT))
                gateway.kill()
                await gateway.ready()
            await fleet.is_acknowledged()
            await fleet.finish()
        wanted = await logged(gateway.socket, to)
        await inbox.has(wanted)
        assert_holds(fleet.acknowledged, inbox.times, "what was delivered")
        assert_in_order(inbox.times, "what was delivered")
        assert inbox.repeated(wanted) <= KILLS * AGAIN
        assert {"device.id" in message for message in inbox.messages} == {to == "devices"}
        assert await gateway.stop() == 0

    run(scenario(), timeout=60 + 10 * KILLS)


def test_a_gateway_that_stops_and_starts_while_the_target_is_down_delivers_all_once(
    run: Run, make_gateway: Callable[..., Gateway], http_target: HttpTarget
) -> None:
    """The queue is what the logs have, and outlives the process."""
    gateway, inbox = make_gateway(), Inbox(http_target)

    async def scenario() -> None:
        await http_target.stop()
        await gateway.ready()
        async with Rest(gateway) as rest:
            await make_stream(rest, http_target, "channels")
            async with Fleet(gateway.port, TRACKERS) as fleet:
                await fleet.is_acknowledged(each=2)
                await rest.until("streams/1?fields=state", lambda streams: streams == [{"state": "failing"}])
                assert await gateway.stop() == 0
                await gateway.ready()
                await fleet.is_acknowledged(each=2)
                await fleet.finish()
        assert not inbox.messages
        http_target.start()
        wanted = await logged(gateway.socket, "channels")
        await inbox.has(wanted)
        async with Rest(gateway) as rest:
            await rest.until("streams/1?fields=queue_size", lambda streams: streams == [{"queue_size": 0}])
        assert inbox.repeated(wanted) == 0
        assert_holds(fleet.acknowledged, inbox.times, "what was delivered")
        assert_in_order(inbox.times, "what was delivered")
        assert await gateway.stop() == 0

    run(scenario(), timeout=90)


@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "frozen"])
def test_a_redis_that_goes_away_and_comes_back_costs_no_message(
    run: Run,
    make_gateway: Callable[..., Gateway],
    redis_process: RedisServer,
    http_target: HttpTarget,
    is_killed: bool,
) -> None:
    """The stream waits for it, as the trackers do; a batch whose delivery could not be written down comes again."""
    gateway, inbox = make_gateway(redis={"url": redis_process.url}), Inbox(http_target, delay=0.01)

    async def scenario() -> None:
        await redis_process.says("Ready to accept connections")
        await gateway.ready()
        async with Rest(gateway) as rest:
            await make_stream(rest, http_target, "channels")
        async with Fleet(gateway.port, TRACKERS) as fleet:
            for times in (1, 2):
                await fleet.is_acknowledged(each=2)
                await inbox.more()
                redis_process.kill() if is_killed else redis_process.send(signal.SIGSTOP)
                await gateway.says("trackers are paused: Redis does not answer", times=times)
                redis_process.start() if is_killed else redis_process.send(signal.SIGCONT)
                await gateway.says("trackers go on", times=times)
            await fleet.is_acknowledged(each=2)
            await fleet.finish()
        wanted = await logged(redis_process.url, "channels")
        await inbox.has(wanted)
        assert_holds(fleet.acknowledged, inbox.times, "what was delivered")
        assert_in_order(inbox.times, "what was delivered")
        assert inbox.repeated(wanted) <= 2 * AGAIN
        assert await gateway.stop() == 0

    run(scenario(), timeout=90)


def test_a_stream_that_is_disabled_keeps_what_waits_and_takes_nothing_new(
    run: Run, make_gateway: Callable[..., Gateway], http_target: HttpTarget
) -> None:
    """Also when the gateway was killed meanwhile. A stream that is deleted is gone, and the others go on."""
    gateway, inbox = make_gateway(), Inbox(http_target)
    packets = Packets(imei(1))

    async def scenario() -> None:
        await http_target.stop()
        await gateway.ready()
        async with Rest(gateway) as rest:
            await make_stream(rest, http_target, "channels")
            waiting = await send_packet(gateway.port, packets)
            await rest.until("streams/1?fields=state", lambda streams: streams == [{"state": "failing"}])
            await rest.call("PUT", "streams/1", {"enabled": False})
            [shown] = await rest.get(f"streams/1?{SHOWN}")
            assert (shown["state"], shown["connected"]) == ("disabled", False)
        missed = await send_packet(gateway.port, packets)
        gateway.kill()
        await gateway.ready()
        missed += await send_packet(gateway.port, packets)
        http_target.start()
        async with Rest(gateway) as rest:
            await rest.call("PUT", "streams/1", {"enabled": True})
            later = await send_packet(gateway.port, packets)
            await inbox.has({imei(1): waiting + later})
            assert inbox.times == {imei(1): [*waiting, *later]}
            await rest.call("DELETE", "streams/1")
            second = await make_stream(rest, http_target, "channels", path="/second")
            last = await send_packet(gateway.port, packets)
            await inbox.has({imei(1): waiting + later + last})
            assert inbox.times == {imei(1): [*waiting, *later, *last]}
            assert http_target.requests[-1].path == "/second"
            assert [stream["id"] for stream in await rest.get("streams/all")] == [second] != [1]
        assert missed
        assert await gateway.stop() == 0

    run(scenario(), timeout=60)


def test_what_a_stream_does_is_told_by_rest_mqtt_and_metrics(
    run: Run, make_gateway: Callable[..., Gateway], http_target: HttpTarget
) -> None:
    """That the target does not take messages, with what it says; that it takes them; that it will never take one."""
    gateway = make_gateway()
    packets = Packets(imei(1), records=3)
    refused: list[float] = []

    def judge(asked: Asked) -> Answer:
        is_refused = any(message["timestamp"] in refused for message in asked.json())
        return Answer(422, b"no such vehicle") if is_refused else Answer()

    async def scenario() -> None:
        http_target.default = Answer(503, b"closed until noon")
        await gateway.ready()
        options = {"version": 4, "username": gateway.token}
        subscriber = await Subscriber(gateway.mqtt_port, "flespi/+/gw/streams/#", **options).subscribed()
        async with Rest(gateway) as rest:
            await make_stream(rest, http_target, "channels", refused="skip")
            await send_packet(gateway.port, packets)
            [shown] = await rest.until(f"streams/1?{SHOWN}", lambda streams: streams[0]["queue_size"] == 3)
            [shown] = await rest.until(f"streams/1?{SHOWN}", lambda streams: streams[0]["state"] == "failing")
            assert "503: closed until noon" in shown["error"]
            assert shown["connected"] is False
            assert shown["counters"]["delivered"] == 0 < shown["counters"]["failures"]
            [entry, *_] = await rest.until("streams/1/logs", len, filter="event_code==403")
            assert (entry["status"], entry["ident"], entry["messages"]) == (503, imei(1), 3)
            assert "closed until noon" in entry["reason"]
            figures = await rest.metrics()
            assert 'gateway_stream_connected{stream="1"} 0.0' in figures
            assert 'reader_lag_entries{channel="trackers",log="channels",reader="stream:1"} 1.0' in figures

            refused.append((BEGIN_MS + 4 * STEP_MS) / 1000)  # the second one of the next packet
            http_target.default = judge
            await send_packet(gateway.port, packets)
            [shown] = await rest.until(f"streams/1?{SHOWN}", lambda streams: streams[0]["counters"]["delivered"] == 5)
            assert (shown["state"], shown["connected"], shown["error"]) == ("connected", True, "")
            assert (shown["counters"]["rejected"], shown["counters"]["given_up"]) == (1, 0)
            await rest.until(f"streams/1?{SHOWN}", lambda streams: streams[0]["queue_size"] == 0)
            entries = await rest.until("streams/1/logs", lambda found: {401, 404, 406} <= _codes(found))
            assert sum(entry["accepted"] for entry in entries if entry["event_code"] == 404) == 5
            [entry] = [entry for entry in entries if entry["event_code"] == 406]
            assert (entry["ident"], entry["message_timestamp"]) == (imei(1), refused[0])
            assert "422: no such vehicle" in entry["reason"]
            assert orjson.loads(entry["message"])["timestamp"] == refused[0]
            figures = await _figures(rest, 'gateway_stream_messages_total{result="delivered",stream="1"} 5.0')
            assert 'gateway_stream_messages_total{result="rejected",stream="1"} 1.0' in figures
            assert 'gateway_stream_connected{stream="1"} 1.0' in figures
            assert 'reader_lag_entries{channel="trackers",log="channels",reader="stream:1"} 0.0' in figures
        wanted = {f"flespi/log/gw/streams/1/{name}" for name in ("connected", "failed", "sent", "rejected")}
        connected = "flespi/state/gw/streams/1/connected"
        published = await subscriber.until(
            lambda messages: (
                wanted <= {message.topic for message in messages}
                and [one.payload for one in messages if one.topic == connected][-1:] == [b"true"]
            )
        )
        assert Counter(one.payload for one in published if one.topic == connected).keys() == {b"true", b"false"}
        late = await Subscriber(gateway.mqtt_port, connected, **options).subscribed()
        [retained] = await late.until(len)
        assert (retained.payload, retained.is_retained) == (b"true", True)
        for one in (subscriber, late):
            await one.close()
        assert await gateway.stop() == 0

    run(scenario(), timeout=60)


def _codes(entries: list[Any]) -> set[int]:
    return {entry["event_code"] for entry in entries}


async def _figures(rest: Rest, wanted: str) -> str:
    """The page for Prometheus, as soon as it has this line."""
    async with asyncio.timeout(10):
        while wanted not in (page := await rest.metrics()):
            await asyncio.sleep(0.1)
    return page
