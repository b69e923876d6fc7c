"""The queue of commands, and what becomes of them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from gateway.errors import StoreUnavailable
from gateway.store import commands as store
from gateway.store.command import REPLY_MOST, TEXT_MOST, CommandRefused, NewCommand, QueuedCommand, result_of
from gateway.store.commands import ANSWER_TIME, QUEUE_MOST, RESULTS_MOST, RESULTS_TTL, CommandQueue
from gateway.store.connection import connect
from gateway.store.keys import ShardKeys
from gateway.store.sources import Span

KEYS = ShardKeys()
DEVICE, IDENT = 7, "352093081452251"
NOW = 1_763_709_000.0


class Clock:
    """A clock that the test sets."""

    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(redis, clock) -> CommandQueue:
    return CommandQueue(redis, KEYS, clock)


def new(name: str = "getver", **values: Any) -> NewCommand:
    return msgspec.convert({"name": name, **values}, NewCommand)


async def add(queue: CommandQueue, name: str = "getver", **values: Any) -> QueuedCommand:
    return await queue.add(DEVICE, IDENT, new(name, **values))


async def results(queue: CommandQueue, span: Span | None = None, devices: tuple[int, ...] = (DEVICE,)) -> list[Any]:
    return [msgspec.json.decode(text) async for texts in queue.results(devices, span or Span()) for text in texts]


def test_a_command_waits_with_all_that_was_said_of_it(run, queue):
    """Its id is the microsecond in which it came."""

    async def scenario() -> None:
        values = {"properties": {"param": 2004}, "priority": 5, "max_attempts": 2, "condition": "a > 1"}
        command = await add(queue, "getparam", **values, ttl=60, meta={"order": "A1"})
        assert await queue.waiting(DEVICE) == [command]
        assert (command.id, command.timestamp) == (int(NOW * 1e6), NOW)
        assert (command.ident, command.expires, command.attempts) == (IDENT, NOW + 60, 0)
        assert {name: getattr(command, name) for name in values} == values
        assert command.meta == {"order": "A1"}

    run(scenario())


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"ttl": 59}, "Expected `int` >= 60"),
        ({"ttl": 2_592_001}, "Expected `int` <= 2592000"),
        ({"ttl": 60, "expires": NOW + 60}, "only one of ttl and expires"),
        ({"priority": 1001}, "<= 1000"),
        ({"max_attempts": 0}, ">= 1"),
        ({"condition": "a >"}, "condition is no expression: column 4"),
        ({"name": ""}, "length >= 1"),
        ({"name": "x" * 65}, "length <= 64"),
        ({"address": "sms"}, "Invalid enum value 'sms'"),
        ({"attempts": 1}, "unknown field `attempts`"),
    ],
)
def test_what_cannot_wait_is_refused(values, reason):
    with pytest.raises(msgspec.ValidationError) as caught:
        new(**{"name": "getver", **values})
    assert reason in str(caught.value)


@pytest.mark.parametrize("expires", [NOW - 1, NOW, NOW + 2_592_001])
def test_a_time_that_is_over_or_far_away_is_refused(run, queue, expires):
    with pytest.raises(CommandRefused, match="expires should be within the next 2592000 seconds of 1763709000"):
        run(add(queue, expires=expires))


def test_a_command_that_is_too_large_is_refused(run, queue):
    with pytest.raises(CommandRefused, match=f"the command takes .* bytes, {TEXT_MOST} is the most"):
        run(add(queue, meta={"x": "y" * TEXT_MOST}))


def test_the_queue_of_a_device_has_a_bound(run, queue):
    """Of another device there is room."""

    async def scenario() -> None:
        for _ in range(QUEUE_MOST):
            await add(queue)
        with pytest.raises(CommandRefused, match="100 commands wait for device 7 already"):
            await add(queue)
        await queue.add(DEVICE + 1, IDENT, new())
        assert len({command.id for command in await queue.waiting(DEVICE)}) == QUEUE_MOST

    run(scenario())


def test_two_gateways_never_give_the_same_id_to_a_device(run, queue, redis, clock):
    """Their clocks may well say the same microsecond."""

    async def scenario() -> None:
        other = CommandQueue(redis, KEYS, clock)
        added = [await one.add(DEVICE, IDENT, new()) for one in (queue, other, queue, other)]
        assert len({command.id for command in added}) == 4

    run(scenario())


def test_commands_go_by_priority_then_age(run, queue):
    async def scenario() -> None:
        for name, priority in (("a", 0), ("b", 5), ("c", 0), ("d", -1), ("e", 5)):
            await add(queue, name, priority=priority)
        assert [command.name for command in await queue.waiting(DEVICE)] == ["b", "e", "a", "c", "d"]
        taken = [await queue.take(DEVICE) for _ in range(6)]
        assert [command and command.name for command in taken] == ["b", "e", "a", "c", "d", None]

    run(scenario())


def test_an_attempt_is_counted_before_it_is_made(run, queue, clock):
    """Whoever dies with it has counted it; nobody else makes one while its answer may come."""

    async def scenario() -> None:
        command = await add(queue)
        taken = await queue.take(DEVICE)
        assert (taken.attempts, taken.attempted) == (1, NOW)
        [stored] = await queue.waiting(DEVICE)
        assert stored == taken
        assert await queue.take(DEVICE) is None
        clock.now += ANSWER_TIME
        again = await queue.take(DEVICE)
        assert (again.id, again.attempts) == (command.id, 2)

    run(scenario())


def test_two_gateways_do_not_take_the_same_attempt(run, queue, redis, clock):
    """Both ask at the same moment, again and again."""

    async def scenario() -> None:
        queues = [queue, CommandQueue(redis, KEYS, clock)]
        for _ in range(20):
            await add(queue)
        taken = await asyncio.gather(*(queues[n % 2].take(DEVICE) for n in range(40)))
        ids = [command.id for command in taken if command is not None]
        assert len(ids) == len(set(ids)) > 0
        assert all(command.attempts <= 1 for command in await queue.waiting(DEVICE))

    run(scenario())


def test_a_released_attempt_can_be_made_again_at_once(run, queue):
    """The connection broke, the tracker is back."""

    async def scenario() -> None:
        await add(queue)
        taken = await queue.take(DEVICE)
        assert await queue.release(taken)
        assert not await queue.release(taken)
        again = await queue.take(DEVICE)
        assert again.attempts == 2

    run(scenario())


def test_what_was_sent_as_often_as_it_may_be_is_given_up(run, queue, clock):
    """With a result that says so, once."""
    told = []

    async def scenario() -> None:
        queue.on_give_up = lambda command, error: told.append((command.name, error))
        await add(queue, max_attempts=2)
        for _ in range(2):
            assert await queue.take(DEVICE) is not None
            clock.now += ANSWER_TIME
        assert await queue.take(DEVICE) is None
        assert await queue.waiting(DEVICE) == []
        [result] = await results(queue)
        assert (result["executed"], result["error"], result["attempts"]) == (False, "no answer after 2 attempts", 2)
        assert told == [("getver", "no answer after 2 attempts")]

    run(scenario())


def test_it_is_known_for_which_devices_commands_wait(run, queue, clock):
    """Whoever has their connections need not look at each."""

    async def scenario() -> None:
        first, second = await add(queue), await add(queue)
        other = await queue.add(DEVICE + 1, IDENT, new(ttl=60))
        assert await queue.devices() == {DEVICE, DEVICE + 1}
        await queue.finish(first, response="OK")
        assert await queue.devices() == {DEVICE, DEVICE + 1}
        await queue.remove(DEVICE, [second.id])
        assert await queue.devices() == {DEVICE + 1}
        clock.now += 60
        assert await queue.expire() == [other]
        assert await queue.devices() == set()

    run(scenario())


def test_a_command_that_is_not_ready_lets_others_pass(run, queue):
    async def scenario() -> None:
        first, second = await add(queue, condition="speed == 0"), await add(queue)

        async def is_ready(command: QueuedCommand) -> bool:
            return not command.condition

        taken = await queue.take(DEVICE, is_ready)
        assert taken.id == second.id
        [left, _] = await queue.waiting(DEVICE)
        assert (left.id, left.attempts) == (first.id, 0)

    run(scenario())


def test_a_command_leaves_the_queue_with_its_result(run, queue, clock):
    async def scenario() -> None:
        command = await add(queue, "getver", properties={"codec": 14}, meta={"order": "A1"})
        taken = await queue.take(DEVICE)
        clock.now += 3
        finished = await queue.finish(taken, response={"Hw": "FMB120"})
        assert finished.id == command.id
        assert await queue.waiting(DEVICE) == []
        assert await results(queue) == [
            {
                "id": command.id,
                "command_id": command.id,
                "device_id": DEVICE,
                "ident": IDENT,
                "name": "getver",
                "properties": {"codec": 14},
                "executed": True,
                "response": {"Hw": "FMB120"},
                "error": None,
                "attempts": 1,
                "meta": {"order": "A1"},
                "address": "connection",
                "timestamp": NOW + 3,
            }
        ]
        assert (await queue.result(DEVICE, command.id)).response == {"Hw": "FMB120"}

    run(scenario())


def test_there_is_one_result(run, queue):
    """Whoever comes second learns that it is over."""

    async def scenario() -> None:
        await add(queue)
        taken = await queue.take(DEVICE)
        done = await asyncio.gather(*(queue.finish(taken, response=str(n)) for n in range(5)))
        assert len([result for result in done if result is not None]) == 1
        assert len(await results(queue)) == 1

    run(scenario())


def test_a_removed_command_leaves_no_result(run, queue):
    """Of those asked for, those that were there are told."""

    async def scenario() -> None:
        a, b, c = [await add(queue, name) for name in "abc"]
        removed = await queue.remove(DEVICE, [a.id, c.id, 12345])
        assert [command.id for command in removed] == [a.id, c.id]
        assert [command.id for command in await queue.waiting(DEVICE)] == [b.id]
        assert [command.id for command in await queue.remove(DEVICE)] == [b.id]
        assert await queue.finish(a, response="late") is None
        assert await results(queue) == []

    run(scenario())


def test_what_waits_for_too_long_expires(run, queue, clock, redis):
    """Its result says so; nothing is left of it."""

    async def scenario() -> None:
        soon, later = await add(queue, ttl=60), await add(queue, ttl=120)
        clock.now += 60
        assert [command.id for command in await queue.waiting(DEVICE)] == [later.id]
        assert [command.id for command in await queue.expire()] == [soon.id]
        assert await queue.expire() == []
        [result] = await results(queue)
        assert (result["id"], result["executed"], result["error"]) == (
            soon.id,
            False,
            "expired before it could be delivered",
        )
        assert await redis.zcard(KEYS.commands_expiring) == 1

    run(scenario())


def test_what_a_deleted_device_left_expires_without_a_result(run, queue, clock, redis):
    """Its keys are purged; its names in what is shared are not."""

    async def scenario() -> None:
        await add(queue, ttl=60)
        await redis.unlink(*KEYS.of_device(DEVICE))
        clock.now += 60
        assert await queue.expire() == []
        assert await redis.zcard(KEYS.commands_expiring) == 0
        assert await queue.devices() == set()
        assert await redis.exists(*KEYS.of_device(DEVICE)) == 0

    run(scenario())


def test_the_result_of_a_real_time_command_is_kept_too(run, queue, clock):
    async def scenario() -> None:
        command = QueuedCommand(
            id=queue.new_id(), device_id=DEVICE, ident=IDENT, name="getver", properties={}, expires=0, attempts=1
        )
        await queue.record(result_of(command, error="no answer within 5 s"))
        [result] = await results(queue)
        assert (result["id"], result["executed"], result["error"]) == (command.id, False, "no answer within 5 s")

    run(scenario())


def test_results_are_read_by_time_from_both_ends_and_of_several_devices(run, queue, clock):
    async def scenario() -> None:
        for n in range(6):
            clock.now = NOW + n
            command = await queue.add(DEVICE + n % 2, IDENT, new(f"c{n}"))
            await queue.finish(command, response="OK")
        both = (DEVICE, DEVICE + 1)
        assert [one["name"] for one in await results(queue, devices=both)] == [f"c{n}" for n in range(6)]
        assert [one["name"] for one in await results(queue)] == ["c0", "c2", "c4"]
        span = Span.of(NOW + 1, NOW + 4.5, is_reverse=True)
        assert [one["name"] for one in await results(queue, span, both)] == ["c4", "c3", "c2", "c1"]
        stamps = [one["timestamp"] for one in await results(queue, devices=both)]
        again = Span.of(stamps[2] + 0.000001, None)
        assert [one["timestamp"] for one in await results(queue, again, both)] == stamps[3:]

    run(scenario())


def test_results_have_a_bound_in_number_and_age(run, queue, clock, redis, monkeypatch):
    async def scenario() -> None:
        monkeypatch.setattr(store, "RESULTS_MOST", 5)
        assert RESULTS_MOST == 500
        for n in range(8):
            await queue.finish(await add(queue, f"c{n}"), response="OK")
        assert [one["name"] for one in await results(queue)] == ["c3", "c4", "c5", "c6", "c7"]
        clock.now += RESULTS_TTL + 1
        await queue.finish(await add(queue, "new"), response="OK")
        assert [one["name"] for one in await results(queue)] == ["new"]
        assert 0 < await redis.ttl(KEYS.commands_result(DEVICE)) <= RESULTS_TTL

    run(scenario())


def test_results_keep_their_order_when_a_clock_is_behind(run, queue, clock, redis):
    """That of another gateway, or ours after it was set."""

    async def scenario() -> None:
        await queue.finish(await add(queue, "first"), response="OK")
        behind = Clock()
        behind.now = NOW - 100
        other = CommandQueue(redis, KEYS, behind)
        await other.finish(await other.add(DEVICE, IDENT, new("second")), response="OK")
        found = await results(queue)
        assert [one["name"] for one in found] == ["first", "second"]
        assert found[0]["timestamp"] < found[1]["timestamp"]

    run(scenario())


@pytest.mark.parametrize("response", ["x" * 100_000, {"hex": "00" * 60_000}])
def test_a_reply_beyond_all_measure_is_kept_in_part(run, queue, response):
    async def scenario() -> None:
        await queue.finish(await add(queue), response=response)
        [result] = await results(queue)
        assert len(result["response"]) <= REPLY_MOST
        assert result["response"].endswith("...")

    run(scenario())


def test_a_store_that_is_away_says_so(run):
    """As an error of ours."""

    async def scenario() -> None:
        client = connect("unix:///nowhere/redis.sock")
        try:
            with pytest.raises(StoreUnavailable):
                await CommandQueue(client, KEYS).add(DEVICE, IDENT, new())
        finally:
            await client.aclose()

    run(scenario())
