"""Commands and settings reach the devices, and what they answer arrives where it belongs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.errors import OutOfTurn, StoreUnavailable
from gateway.protocols.teltonika.wire_commands import CODEC_12, NOT_MY_IMEI, RESPONSE
from gateway.store.command import NewCommand
from gateway.store.commands import ANSWER_TIME as TAKEN_TIME
from gateway.store.commands import CommandQueue
from gateway.store.conversation import QUIET_TIME, REST_TIME
from gateway.store.jobs import ANSWER_TIME
from gateway.store.settings import ANSWER_TIME as SETTING_TIME
from gateway.store.telemetry import encode_value
from tests.builders import FrameFactory
from tests.commanded import IMEI, KEYS, NOW, There


@pytest.fixture
def there(redis) -> There:
    return There(redis)


# -- the queue


def test_a_queued_command_is_delivered_at_once_to_a_device_that_is_there(run, there):
    async def scenario() -> None:
        await there.start()
        there.connect()
        id = await there.enqueue("getver", meta={"order": 1})
        [result] = await there.results()
        assert (result["id"], result["executed"], result["response"]["Hw"]) == (id, True, "FMC130")
        assert (result["attempts"], result["meta"], result["error"]) == (1, {"order": 1}, None)
        assert there.tracker.obeyed == ["getver"]
        assert await there.queue.waiting(there.device.id) == []
        assert there.codes() == ["COMMAND_QUEUED", "COMMAND_SENT", "COMMAND_PROCESSED"]
        _, _, processed = there.events[-1]
        assert (processed["command_id"], processed["ident"], processed["executed"]) == (id, IMEI, True)

    run(scenario())


def test_a_queued_command_waits_for_its_device(run, there):
    """Several go out one after the other, in their order, as soon as it is there."""

    async def scenario() -> None:
        await there.start()
        await there.enqueue("getinfo")
        await there.enqueue("getver", priority=1)
        await there.enqueue("getparam", properties={"param": 1001})
        assert there.tracker.obeyed == []
        there.connect()
        await there.settle()
        assert there.tracker.obeyed == ["getver", "getinfo", "getparam 1001"]
        assert [result["executed"] for result in await there.results()] == [True] * 3

    run(scenario())


def test_what_another_gateway_queued_is_found(run, there, redis):
    """Without being told, when it looks the next time."""

    async def scenario() -> None:
        await there.start()
        there.connect()
        elsewhere = CommandQueue(redis, KEYS, lambda: there.time)
        await elsewhere.add(there.device.id, IMEI, NewCommand("getver"))
        await there.refresh()
        assert there.tracker.obeyed == ["getver"]

    run(scenario())


def test_what_waited_before_the_start_is_found(run, there):
    async def scenario() -> None:
        await there.start()
        await there.queue.add(there.device.id, IMEI, NewCommand("getver"))
        there.connect()
        await there.settle()
        assert there.tracker.obeyed == []
        await there.refresh()
        assert there.tracker.obeyed == ["getver"]

    run(scenario())


def test_no_command_goes_out_while_a_packet_is_stored(run, there):
    """It goes when the packet is acknowledged."""

    async def scenario() -> None:
        await there.start()
        link = there.connect()
        link.begin_packet()
        await there.enqueue("getver")
        assert there.tracker.obeyed == []
        [waiting] = await there.queue.waiting(there.device.id)
        assert waiting.attempts == 0
        link.end_packet()
        await there.settle()
        assert there.tracker.obeyed == ["getver"]

    run(scenario())


def test_a_line_that_becomes_free_costs_nothing_where_nothing_waits(run, there):
    """It does after each packet."""

    async def scenario() -> None:
        await there.start()
        link = there.connect()
        for _ in range(3):
            link.begin_packet()
            link.end_packet()
            assert not there.dispatcher.is_busy

    run(scenario())


def test_a_command_without_an_answer_is_sent_again_and_then_given_up(run, there):
    """At most as often as it may be; each attempt is told."""

    async def scenario() -> None:
        await there.start()
        link = there.connect(lambda frame: there.tracker.obey(frame) and b"")
        await there.enqueue("getver", max_attempts=2)
        for _ in range(2):
            await there.pass_time(ANSWER_TIME)
            await there.pass_time(TAKEN_TIME)
            await there.refresh()
        assert there.tracker.obeyed == ["getver", "getver"]
        [result] = await there.results()
        assert (result["executed"], result["error"]) == (False, "no answer after 2 attempts")
        assert result["timestamp"] == pytest.approx(NOW + ANSWER_TIME + TAKEN_TIME + ANSWER_TIME, rel=0, abs=1)
        assert there.codes() == ["COMMAND_QUEUED", "COMMAND_SENT", "COMMAND_SENT", "COMMAND_REMOVED"]
        assert [fields.get("attempt") for _, _, fields in there.events[1:3]] == [1, 2]
        assert there.events[-1][2]["reason"] == "no answer after 2 attempts"
        assert link.may_send_command

    run(scenario())


def test_a_late_answer_is_the_answer(run, there):
    """Nothing is sent again; the line is free at once."""

    async def scenario() -> None:
        await there.start()
        link = there.connect()
        link.is_mute = True
        await there.enqueue("getver")
        await there.pass_time(ANSWER_TIME)
        assert await there.results() == []
        await there.enqueue("getinfo")
        assert there.tracker.obeyed == ["getver"]
        link.is_mute = False
        link.let_go()
        await there.settle()
        assert [(one["name"], one["executed"]) for one in await there.results()] == [
            ("getver", True),
            ("getinfo", True),
        ]
        assert there.tracker.obeyed == ["getver", "getinfo"]

    run(scenario())


def test_after_no_answer_the_line_rests_before_the_next_command(run, there):
    async def scenario() -> None:
        await there.start()
        link = there.connect()
        link.is_mute = True
        await there.enqueue("getver")
        await there.enqueue("getinfo")
        await there.pass_time(ANSWER_TIME)
        await there.pass_time(REST_TIME - 1)
        assert there.tracker.obeyed == ["getver"]
        await there.pass_time(1)
        assert there.tracker.obeyed == ["getver", "getinfo"]

    run(scenario())


def test_a_connection_that_breaks_in_between_costs_an_attempt_only(run, there):
    """The tracker is back, and is sent the command once more; an answer on the old connection is nobody's."""

    async def scenario() -> None:
        await there.start()
        old = there.connect()
        old.is_mute = True
        await there.enqueue("getver")
        old.close()
        await there.settle()
        there.connect()
        await there.settle()
        [result] = await there.results()
        assert (result["executed"], result["attempts"]) == (True, 2)
        old.let_go()
        await there.settle()
        assert len(old.unasked) == 1
        assert len(await there.results()) == 1

    run(scenario())


def test_a_newer_connection_takes_the_place_of_an_older_one(run, there):
    """Which is dead, the tracker just knows it first; its end, when it comes, ends nothing."""

    async def scenario() -> None:
        await there.start()
        old = there.connect()
        there.connect()
        old.close()
        assert there.dispatcher.is_connected(there.device.id)
        await there.enqueue("getver")
        assert len(await there.results()) == 1

    run(scenario())


def test_an_answer_on_an_older_connection_is_not_that_of_the_newer_one(run, there):
    """The command was sent on both."""

    async def scenario() -> None:
        await there.start()
        old = there.connect()
        old.is_mute = True
        await there.enqueue("getver")
        new = there.connect()
        new.is_mute = True
        await there.settle()
        assert there.tracker.obeyed == ["getver", "getver"]
        old.let_go()
        await there.settle()
        assert len(old.unasked) == 1
        assert await there.results() == []
        new.let_go()
        await there.settle()
        assert len(await there.results()) == 1

    run(scenario())


def test_the_last_attempt_of_a_broken_connection_is_given_up(run, there):
    async def scenario() -> None:
        await there.start()
        link = there.connect()
        link.is_mute = True
        await there.enqueue("getver", max_attempts=1)
        link.close()
        await there.settle()
        [result] = await there.results()
        assert (result["executed"], result["error"]) == (False, "no answer after 1 attempts")

    run(scenario())


def test_a_command_whose_connection_breaks_while_it_is_fetched_is_put_back(run, there):
    """Between the store and the line."""

    async def scenario() -> None:
        await there.start()
        link = there.connect()
        await there.queue.add(there.device.id, IMEI, NewCommand("getver"))
        there.dispatcher.poke(there.device.id)
        await asyncio.sleep(0)
        link.close()
        await there.settle()
        [waiting] = await there.queue.waiting(there.device.id)
        assert waiting.attempted == 0
        assert there.tracker.obeyed == []
        there.connect()
        await there.settle()
        assert there.tracker.obeyed == ["getver"]

    run(scenario())


def test_a_refusal_is_a_failure_with_its_reason(run, there):
    """Codec 14, another IMEI."""

    async def scenario() -> None:
        await there.start()
        refusal = FrameFactory().command(b"", 14, NOT_MY_IMEI, imei="352093081452468")
        there.connect(lambda frame: refusal)
        await there.enqueue("getver", properties={"codec": 14})
        [result] = await there.results()
        assert (result["executed"], result["error"], result["response"]) == (False, "IMEI does not match", None)
        assert there.events[-1][1:] == (
            "COMMAND_PROCESSED",
            {
                "ident": IMEI,
                "name": "getver",
                "command_id": result["id"],
                "executed": False,
                "response": None,
                "reason": "IMEI does not match",
            },
        )

    run(scenario())


def test_a_command_that_is_never_answered_is_executed_when_it_is_sent(run, there):
    """cpureset: the next one waits, the tracker is away."""

    async def scenario() -> None:
        await there.start()
        there.connect()
        await there.enqueue("cpureset")
        await there.enqueue("getver")
        assert there.tracker.obeyed == ["cpureset"]
        [result] = await there.results()
        assert (result["executed"], result["response"]) == (True, None)
        await there.pass_time(REST_TIME)
        assert there.tracker.obeyed == ["cpureset", "getver"]

    run(scenario())


def test_a_command_waits_until_its_condition_is_true(run, there, redis):
    """For the telemetry as it is then; one whose parameter is missing is not true."""

    async def scenario() -> None:
        await there.start()
        there.connect()
        condition = "position.speed == 0 && engine.ignition.status == false"
        await there.enqueue("setdigout", properties={"states": "1"}, condition=condition)
        key = KEYS.telemetry(there.device.id)
        await redis.hset(key, "position.speed", encode_value(NOW, 50))
        await redis.hset(key, "engine.ignition.status", encode_value(NOW, False))
        await there.refresh()
        await there.enqueue("getver", condition="not.there > 1")
        await there.enqueue("getinfo")
        assert there.tracker.obeyed == ["getinfo"]
        await redis.hset(key, "position.speed", encode_value(NOW, 0))
        await there.refresh()
        assert there.tracker.obeyed == ["getinfo", "setdigout 1"]
        [waiting] = await there.queue.waiting(there.device.id)
        assert (waiting.name, waiting.attempts) == ("getver", 0)

    run(scenario())


def test_a_command_expires_while_its_device_is_away(run, there):
    async def scenario() -> None:
        await there.start()
        id = await there.enqueue("getver", ttl=60)
        there.time += 60
        await there.refresh()
        [result] = await there.results()
        assert (result["id"], result["executed"]) == (id, False)
        assert there.codes() == ["COMMAND_QUEUED", "COMMAND_EXPIRED"]

    run(scenario())


def test_a_command_that_the_device_s_new_type_does_not_have_is_over(run, there):
    """Others pass."""

    async def scenario() -> None:
        await there.start("ATC700")
        await there.queue.add(there.device.id, IMEI, NewCommand("setdigout", {"states": "1"}))
        await there.enqueue("getver")
        there.connect()
        await there.settle()
        refused, done = await there.results()
        assert refused["error"] == (
            "command setdigout properties validation failed: command definition setdigout is not found"
        )
        assert done["executed"]

    run(scenario())


def test_a_command_that_the_line_does_not_take_is_not_lost(run, there):
    """A bug of whoever drives the session, say: it is tried again later."""

    async def scenario() -> None:
        await there.start()
        link = there.connect()

        def fails(payload: bytes, codec_id: int) -> None:
            raise OutOfTurn("not now")

        send, link.send_command = link.send_command, fails  # type: ignore[method-assign]
        await there.enqueue("getver")
        assert there.tracker.obeyed == []
        link.send_command = send  # type: ignore[method-assign]
        there.time += TAKEN_TIME
        await there.refresh()
        assert there.tracker.obeyed == ["getver"]

    run(scenario())


def test_what_the_tracker_says_unasked_is_no_answer(run, there):
    async def scenario() -> None:
        await there.start()
        link = there.connect()
        link.to_server(FrameFactory().command(b"$GPGGA", CODEC_12, RESPONSE))
        await there.enqueue("getver")
        assert [message["payload"] for message in link.unasked] == [b"$GPGGA"]
        assert (await there.results())[0]["response"]["Hw"] == "FMC130"

    run(scenario())


def test_while_redis_is_away_commands_wait(run, there, monkeypatch):
    """Nothing is lost, and the devices stay connected."""

    async def scenario() -> None:
        await there.start()
        await there.enqueue("getver")

        async def away(*arguments: Any) -> None:
            raise StoreUnavailable("away")

        with monkeypatch.context() as patch:
            patch.setattr(CommandQueue, "take", away)
            there.connect()
            await there.settle()
            assert there.tracker.obeyed == []
        await there.refresh()
        assert there.tracker.obeyed == ["getver"]

    run(scenario())


# -- the time after the login


def test_after_the_login_the_line_is_quiet_for_a_while(run, redis):
    """The tracker sends its records; then what waits goes out, by itself, and again so after a reconnect."""

    async def scenario() -> None:
        there = await There(redis, QUIET_TIME).start()
        await there.enqueue("getver")
        link = there.connect()
        link.begin_packet()
        link.end_packet()
        await there.refresh()
        await there.pass_time(QUIET_TIME - 0.1)
        assert there.tracker.obeyed == []
        [waiting] = await there.queue.waiting(there.device.id)
        assert waiting.attempts == 0
        await there.pass_time(0.1)
        assert there.tracker.obeyed == ["getver"]
        link.close()
        there.connect()
        await there.enqueue("getinfo")
        assert there.tracker.obeyed == ["getver"]
        await there.pass_time(QUIET_TIME)
        assert there.tracker.obeyed == ["getver", "getinfo"]
        await there.enqueue("getgps")
        assert there.tracker.obeyed == ["getver", "getinfo", "getgps"]

    run(scenario())


def test_a_client_that_comes_right_after_the_login_waits_too(run, redis):
    async def scenario() -> None:
        there = await There(redis, QUIET_TIME).start()
        there.connect()
        client = await asked(there)
        assert there.tracker.obeyed == []
        await there.pass_time(QUIET_TIME)
        assert (await client).executed

    run(scenario())


def test_a_connection_of_which_nothing_is_wanted_costs_nothing_afterwards(run, redis):
    """Neither a task nor a look at the store when its quiet time is over."""

    async def scenario() -> None:
        there = await There(redis, QUIET_TIME).start()
        link = there.connect()
        there.time += QUIET_TIME
        there.dispatcher.tick()
        link.begin_packet()
        link.end_packet()
        assert not there.dispatcher.is_busy

    run(scenario())


# -- clients that wait


def test_a_client_gets_the_answer(run, there):
    async def scenario() -> None:
        await there.start()
        there.connect()
        result = await there.orders.send(there.device, "getparam", {"params": [1001, 2006]}, 5)
        assert (result.executed, result.response) == (True, {"1001": "10", "2006": "0"})
        await there.settle()
        [stored] = await there.results()
        assert (stored["id"], stored["response"]) == (result.id, result.response)
        assert there.codes() == ["COMMAND_SENT", "COMMAND_PROCESSED"]

    run(scenario())


def test_a_client_learns_at_once_that_the_device_is_away(run, there):
    """In flespi's words; nothing is sent or kept."""

    async def scenario() -> None:
        await there.start()
        result = await there.orders.send(there.device, "custom", {"text": "getver"}, 60)
        assert result.error == (
            f"failed to deliver command custom with timeout pending, device with id {there.device.id} is not connected"
        )
        assert not result.executed
        assert await there.results() == []

    run(scenario())


async def asked(there: There, timeout: float = 5, name: str = "getver") -> asyncio.Task[Any]:
    """A client that waits."""
    task = asyncio.ensure_future(there.orders.send(there.device, name, {}, timeout))
    await asyncio.sleep(0)
    await there.settle()
    return task


def test_a_client_learns_that_no_answer_came(run, there):
    """When its time is over; what comes then was said unasked."""

    async def scenario() -> None:
        await there.start()
        link = there.connect()
        link.is_mute = True
        client = await asked(there)
        await there.pass_time(4.9)
        assert not client.done()
        await there.pass_time(0.1)
        result = await client
        assert result.error == (
            f"failed to deliver command getver: no answer within 5 s from device with id {there.device.id}"
        )
        link.let_go()
        assert len(link.unasked) == 1
        await there.settle()
        assert [one["executed"] for one in await there.results()] == [False]

    run(scenario())


def test_a_client_learns_that_the_connection_was_lost(run, there):
    async def scenario() -> None:
        await there.start()
        link = there.connect()
        link.is_mute = True
        client = await asked(there)
        link.close()
        result = await client
        assert result.error == "failed to deliver command getver: the connection was lost before the answer came"

    run(scenario())


def test_a_client_does_not_wait_longer_for_a_busy_line(run, there):
    async def scenario() -> None:
        await there.start()
        link = there.connect()
        link.begin_packet()
        client = await asked(there)
        await there.pass_time(5)
        result = await client
        assert result.error == f"failed to deliver command getver: device with id {there.device.id} was busy for 5 s"
        link.end_packet()
        await there.settle()
        assert there.tracker.obeyed == []

    run(scenario())


def test_a_client_s_command_goes_before_those_that_wait(run, there):
    async def scenario() -> None:
        await there.start()
        link = there.connect()
        link.begin_packet()
        await there.enqueue("getinfo", priority=1000)
        client = await asked(there)
        link.end_packet()
        await there.settle()
        assert (await client).executed
        assert there.tracker.obeyed == ["getver", "getinfo"]

    run(scenario())


def test_a_client_that_hangs_up_leaves_the_line_in_order(run, there):
    """Its answer, when it comes, is nobody's; the next one's is the next one's."""

    async def scenario() -> None:
        await there.start()
        link = there.connect()
        link.is_mute = True
        client = await asked(there)
        client.cancel()
        await asyncio.wait([client])
        link.is_mute = False
        link.let_go()
        await there.settle()
        assert len(link.unasked) == 1
        assert (await there.orders.send(there.device, "getinfo", {}, 5)).response["MD"] == "0"

    run(scenario())


def test_clients_of_a_device_have_a_bound(run, there):
    async def scenario() -> None:
        await there.start()
        link = there.connect()
        link.begin_packet()
        clients = [await asked(there) for _ in range(9)]
        result = await clients[-1]
        assert result.error == f"failed to deliver command getver: too many wait for device {there.device.id}"
        link.close()
        assert [(await client).executed for client in clients] == [False] * 9

    run(scenario())


# -- settings


def test_a_setting_is_applied_when_the_device_is_there(run, there):
    """Before the commands that wait."""

    async def scenario() -> None:
        await there.start()
        await there.orders.request_setting(there.device, "server", {"domain": "gw.example.com", "port": 5027})
        await there.enqueue("getver")
        there.connect()
        await there.settle()
        assert there.tracker.obeyed == ["setparam 2004:gw.example.com;2005:5027", "getver"]
        shadow = (await there.settings.all(there.device.id))["server"]
        assert (shadow.status, shadow.pending) == ("ok", None)
        assert shadow.current == {"domain": "gw.example.com", "port": 5027}
        assert there.codes()[:1] == ["SETTING_PENDING"]
        assert there.codes()[2:4] == ["SETTING_REQUESTED", "SETTING_APPLIED"]

    run(scenario())


def test_a_setting_is_read(run, there):
    async def scenario() -> None:
        await there.start()
        there.connect()
        await there.orders.reread_setting(there.device, "link")
        await there.settle()
        shadow = (await there.settings.all(there.device.id))["link"]
        assert shadow.current == {"open_link_timeout": 259200, "response_timeout": 10, "ping_timeout": 0}
        assert there.codes() == ["SETTING_CLEARED", "SETTING_REQUESTED", "SETTING_RECEIVED"]

    run(scenario())


def test_a_setting_that_takes_several_commands_is_applied_as_one(run, there):
    """Of an old device, that takes one parameter at a time."""

    async def scenario() -> None:
        await there.start("FM3612")
        obeyed = []

        def obey(frame: bytes) -> bytes:
            there.tracker.obey(frame)
            _, number, value = there.tracker.obeyed[-1].split(" ")
            obeyed.append(number)
            return FrameFactory().command(f"Param ID:{number} New Val:{value}".encode())

        there.connect(obey)
        await there.orders.request_setting(there.device, "server", {"domain": "gw", "port": 5027, "protocol": "udp"})
        await there.settle()
        assert obeyed == ["1245", "1246", "1247"]
        shadow = (await there.settings.all(there.device.id))["server"]
        assert shadow.current == {"domain": "gw", "port": 5027, "protocol": "udp"}
        assert there.codes().count("SETTING_APPLIED") == 1

    run(scenario())


def test_a_connection_that_breaks_between_the_commands_of_a_setting_begins_it_anew(run, there):
    async def scenario() -> None:
        await there.start("FM3612")
        numbers = []

        def obey(frame: bytes) -> bytes:
            there.tracker.obey(frame)
            _, number, value = there.tracker.obeyed[-1].split(" ")
            numbers.append(number)
            return FrameFactory().command(f"Param ID:{number} New Val:{value}".encode())

        link = there.connect(obey)
        link.is_mute = True
        await there.orders.request_setting(there.device, "server", {"domain": "gw", "port": 5027})
        await there.settle()
        link.close()
        await there.settle()
        there.connect(obey)
        await there.settle()
        assert numbers == ["1245", "1245", "1246"]
        assert (await there.settings.all(there.device.id))["server"].status == "ok"

    run(scenario())


def test_a_connection_that_breaks_while_the_next_command_of_a_setting_waits_begins_it_anew(run, there):
    """None of it is in flight: a packet is arriving."""

    async def scenario() -> None:
        await there.start("FM3612")

        def obey(frame: bytes) -> bytes:
            there.tracker.obey(frame)
            _, number, value = there.tracker.obeyed[-1].split(" ")
            return FrameFactory().command(f"Param ID:{number} New Val:{value}".encode())

        link = there.connect(obey)
        link.is_mute = True
        await there.orders.request_setting(there.device, "server", {"domain": "gw", "port": 5027})
        await there.settle()
        link.to_server(link.held.pop() + FrameFactory().packet()[:10])
        await there.settle()
        assert there.tracker.obeyed == ["setparam 1245 gw"]
        link.close()
        await there.settle()
        there.connect(obey)
        await there.settle()
        assert there.tracker.obeyed == ["setparam 1245 gw", "setparam 1245 gw", "setparam 1246 5027"]

    run(scenario())


@pytest.mark.parametrize("reply", [b"Bad syntax", b"New value 2005:1", b"\xff\x00"])
def test_a_setting_that_the_device_does_not_take_is_rejected(run, there, reply):
    """Its own words are the reason; what was known of it stays."""

    async def scenario() -> None:
        await there.start()
        there.connect(lambda frame: FrameFactory().command(reply))
        await there.orders.request_setting(there.device, "server", {"port": 5027})
        await there.settle()
        shadow = (await there.settings.all(there.device.id))["server"]
        assert (shadow.status, shadow.pending, shadow.current) == ("rejected", None, None)
        assert shadow.error
        assert there.codes()[-1] == "SETTING_REJECTED"

    run(scenario())


def test_a_setting_that_cannot_be_read_says_so(run, there):
    async def scenario() -> None:
        await there.start()
        there.connect(lambda frame: FrameFactory().command(b"Unknown command"))
        await there.orders.reread_setting(there.device, "link")
        await there.settle()
        shadow = (await there.settings.all(there.device.id))["link"]
        assert (shadow.status, shadow.error) == ("unreadable", "Unknown command")
        assert there.codes()[-1] == "SETTING_UNREADABLE"

    run(scenario())


def test_a_setting_without_an_answer_is_tried_again_and_then_given_up(run, there):
    async def scenario() -> None:
        await there.start()
        there.connect(lambda frame: there.tracker.obey(frame) and b"")
        await there.orders.request_setting(there.device, "server", {"port": 5027})
        await there.settle()
        for _ in range(5):
            await there.pass_time(ANSWER_TIME)
            await there.pass_time(SETTING_TIME)
            await there.refresh()
        assert there.tracker.obeyed == ["setparam 2005:5027"] * 5
        shadow = (await there.settings.all(there.device.id))["server"]
        assert shadow.status == "rejected"
        assert "no answer" in shadow.error
        assert there.codes()[-1] == "SETTING_REJECTED"

    run(scenario())


def test_a_setting_that_the_device_s_new_type_does_not_have_is_rejected(run, there):
    async def scenario() -> None:
        await there.start("ATC700")
        await there.settings.request(there.device.id, "server", {"port": 5027})
        there.dispatcher.poke(there.device.id)
        there.connect()
        await there.settle()
        shadow = (await there.settings.all(there.device.id))["server"]
        assert (shadow.status, shadow.error) == (
            "rejected",
            "setting server is not found: devices of this type do not have it",
        )

    run(scenario())


# -- the end


def test_of_a_device_that_is_not_known_here_nothing_is_fetched(run, there):
    """Deleted, while its connection is about to be closed."""

    async def scenario() -> None:
        await there.start()
        there.connect()
        del there.items.devices[there.device.id]
        await there.queue.add(there.device.id, IMEI, NewCommand("getver"))
        await there.refresh()
        [waiting] = await there.queue.waiting(there.device.id)
        assert waiting.attempts == 0

    run(scenario())


def test_a_deleted_device_is_forgotten(run, there, redis):
    async def scenario() -> None:
        await there.start()
        await there.orders.request_setting(there.device, "server", {"port": 5027})
        await there.items.delete_device(there.device.id)
        await there.refresh()
        assert await there.settings.devices() == set()

    run(scenario())


def test_at_the_stop_what_is_under_way_is_put_back(run, there):
    """The next gateway sends it again; a client learns it."""

    async def scenario() -> None:
        await there.start()
        link = there.connect()
        link.is_mute = True
        await there.enqueue("getver")
        client = await asked(there)
        await there.dispatcher.stop()
        [waiting] = await there.queue.waiting(there.device.id)
        assert (waiting.attempts, waiting.attempted) == (1, 0)
        assert not (await client).executed
        assert not there.dispatcher.is_connected(there.device.id)

    run(scenario())


def test_it_looks_by_itself(run, there):
    """In the background, until it is cancelled."""

    async def scenario() -> None:
        await there.start()
        there.connect()
        await there.queue.add(there.device.id, IMEI, NewCommand("getver"))
        task = asyncio.ensure_future(there.dispatcher.run())
        async with asyncio.timeout(10):
            while not await there.results():
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(scenario())
