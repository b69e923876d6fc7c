"""A message on its way through the plugins of a device."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from typing import Any

import pytest
from twisted.logger import globalLogPublisher

from gateway import metrics
from gateway.errors import RemoteUnavailable
from gateway.plugin import Context, Message, PluginError
from gateway.plugin import chain as chain_module
from tests.plugin_parts import DEVICE, MESSAGE, Asks, Does, chain, drops, fails, link, marks


def through(*links: Any, message: Message | None = None, values: Any = None) -> tuple[Message | None, list[Any]]:
    """What becomes of a message, and the trouble that it had."""
    made, trouble = chain(*links)
    return made.process(dict(message or MESSAGE), values or {}, 120.0), trouble


@pytest.fixture
def logged():
    """What is logged, as (text, whether it has a traceback)."""
    lines: list[tuple[str, bool]] = []

    def observe(event: dict) -> None:
        lines.append((event["log_format"].format(**event) if event.get("log_format") else "", "log_failure" in event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def test_plugins_see_what_those_before_them_made() -> None:
    result, trouble = through(Does(marks("a")), Does(marks("b")))
    assert result == MESSAGE | {"seen": ["a", "b"]}
    assert trouble == []


def test_a_plugin_knows_its_device_its_fields_and_the_time() -> None:
    seen: list[Context] = []

    def do(message: Message, context: Context) -> Message:
        seen.append(context)
        return message

    through(link(Does(do), driver="Bob"), values={"din": (50.0, 1)})
    [context] = seen
    assert (context.device, context.fields, context.now) == (DEVICE, {"driver": "Bob"}, 120.0)
    assert context.telemetry == {}


def test_telemetry_is_given_to_those_that_need_it() -> None:
    """``last`` has the values without their times."""
    result, _ = through(
        Does(lambda message, context: message | dict(context.last), needs_telemetry=True), values={"din": (50.0, 1)}
    )
    assert result == MESSAGE | {"din": 1}


def test_only_messages_that_validate_are_given_to_it() -> None:
    """One whose expression has no value passes by, too."""
    for message in (MESSAGE, MESSAGE | {"din": 0}):
        assert through(link(Does(drops()), validate="din > 0"), message=message) == (message, [])
    assert through(link(Does(drops()), validate="din > 0"), message=MESSAGE | {"din": 1})[0] is None


def test_a_validator_can_read_the_last_values() -> None:
    """``#name`` is telemetry, which the chain asks for then."""
    validated = link(Does(marks("a")), validate="din != #din")
    made, _ = chain(validated)
    assert made.needs_telemetry
    assert made.process(MESSAGE | {"din": 1}, {"din": (50.0, 1)}, 0.0) == MESSAGE | {"din": 1}
    assert made.process(MESSAGE | {"din": 2}, {"din": (50.0, 1)}, 0.0) == MESSAGE | {"din": 2, "seen": ["a"]}


def test_a_dropped_message_is_seen_by_nobody_further() -> None:
    result, [trouble] = through(Does(marks("a")), Does(drops("private")), Does(fails()))
    assert result is None
    assert (trouble.is_drop, trouble.reason, trouble.item.id) == (True, "private", 2)
    assert trouble.message == MESSAGE | {"seen": ["a"]}


def test_an_error_leaves_the_message_as_it_was() -> None:
    """What the plugin changed before it failed is not there; the others go on."""
    result, [trouble] = through(Does(marks("a")), Does(fails()), Does(marks("c")))
    assert result == MESSAGE | {"seen": ["a", "c"]}
    assert (trouble.is_drop, trouble.reason, trouble.message) == (False, "it does not work", MESSAGE | {"seen": ["a"]})


def test_an_error_of_a_plugin_that_stops_ends_the_way() -> None:
    """The message is registered as it is."""
    result, [trouble] = through(Does(marks("a")), Does(fails(), "stop"), Does(marks("c")))
    assert result == MESSAGE | {"seen": ["a"]}
    assert not trouble.is_drop


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (None, "should give a message (a dict), not NoneType"),
        ([MESSAGE], "not list"),
        ({}, "timestamp should stay a number, not None"),
        ({"timestamp": 1}, "server.timestamp should stay a number, not None"),
        (MESSAGE | {"timestamp": "1"}, "timestamp should stay a number, not '1'"),
        (MESSAGE | {"timestamp": True}, "not True"),
        (MESSAGE | {"timestamp": math.nan}, "not nan"),
        (MESSAGE | {"server.timestamp": math.inf}, "not inf"),
        (MESSAGE | {"timestamp.key": "x"}, "timestamp.key should be a number, not 'x'"),
        (MESSAGE | {"timestamp.key": None}, "timestamp.key should be a number, not None"),
        (MESSAGE | {"a": {1, 2}}, "cannot be JSON any more: Type is not JSON serializable: set"),
        (MESSAGE | {"a": b"bytes"}, "cannot be JSON"),
        (MESSAGE | {"a": 2**64}, "cannot be JSON"),
        (MESSAGE | {"a": "\ud800"}, "cannot be JSON"),
        (MESSAGE | {1: "a"}, "cannot be JSON any more: Dict key must be str"),
        (MESSAGE | {"a": "x" * chain_module.MESSAGE_MOST}, "bytes after the plugin, 1048576 is the most"),
    ],
)
def test_what_is_no_message_is_an_error_of_the_plugin(given: Any, reason: str) -> None:
    """What could not be stored would take the rest of its packet with it."""
    result, [trouble] = through(Does(lambda message, context: given), Does(marks("b")))
    assert result == MESSAGE | {"seen": ["b"]}
    assert reason in trouble.reason


def test_a_mistake_of_a_type_is_logged_with_its_place(logged) -> None:
    """Once, and every thousandth time; the message passes."""
    made, trouble = chain(Does(fails(KeyError("speed"))))
    before = metrics.value("plugin_mistakes", type="does")
    assert [made.process(dict(MESSAGE), {}, 0.0) for _ in range(3)] == [MESSAGE] * 3
    assert [each.reason for each in trouble] == ["KeyError: 'speed'"] * 3
    assert metrics.value("plugin_mistakes", type="does") == before + 3
    assert len([line for line, has_traceback in logged if has_traceback]) == (1 if before == 0 else 0)


def test_an_error_that_was_meant_is_no_mistake(logged) -> None:
    before = metrics.value("plugin_mistakes", type="does")
    through(Does(fails(RemoteUnavailable("away"))))
    assert metrics.value("plugin_mistakes", type="does") == before
    assert not any("has a mistake" in text for text, *_ in logged)


def test_a_slow_plugin_is_warned_of(logged, monkeypatch: pytest.MonkeyPatch) -> None:
    """All trackers waited for it, also where it failed."""
    monkeypatch.setattr(chain_module, "SLOW", 0.001)
    before = metrics.value("plugin_slow", type="does")

    def dawdles(message: Message, context: Context) -> Message:
        began = time.perf_counter()
        while time.perf_counter() - began < 0.003:
            pass
        raise PluginError("and fails")

    through(Does(dawdles))
    through(Does(marks("quick")))
    assert metrics.value("plugin_slow", type="does") == before + 1
    assert before > 0 or any("derive it from RemotePlugin" in text for text, _ in logged)


def test_drops_and_errors_are_counted() -> None:
    """By type and by plugin; the first error of a plugin is logged, too."""
    before = counts_of_plugins()
    through(Does(fails()), Does(drops()))
    assert counts_of_plugins() - before == {("plugin_errors", "1"): 1, ("plugin_messages_dropped", "2"): 1}


def counts_of_plugins() -> Counter[tuple[str, str]]:
    names = ("plugin_errors", "plugin_messages_dropped")
    found = ((name, dict(of), n) for name, of, n in metrics.counters() if name in names)
    return Counter({(name, of["plugin"]): n for name, of, n in found if of["type"] == Does.name})


# -- with those that ask others


def numbered(count: int) -> list[Message]:
    return [MESSAGE | {"timestamp": 100 + n, "n": n} for n in range(count)]


def told(messages: Any) -> list[Any]:
    return [message and message["n"] for message in messages]


def test_a_chain_is_remote_by_one_of_its_plugins() -> None:
    assert chain(Does(marks("a")), Asks(lambda messages: messages))[0].is_remote
    assert not chain(Does(marks("a")))[0].is_remote


def test_messages_are_given_in_batches_and_come_back_in_order(run) -> None:
    asks = Asks(lambda messages: [message | {"asked": True} for message in messages])
    made, trouble = chain(Does(marks("a")), asks, Does(marks("c")))
    results = run(made.process_many(numbered(250), {}, 0.0))
    assert [len(batch) for batch in asks.batches] == [100, 100, 50]
    assert results == [message | {"seen": ["a", "c"], "asked": True} for message in numbered(250)]
    assert trouble == []


def test_some_of_a_batch_can_be_dropped(run) -> None:
    """The others of the batch go on, and nobody sees the dropped ones."""
    after = Asks(lambda messages: messages)
    made, trouble = chain(Asks(lambda messages: [m if m["n"] % 2 else None for m in messages]), after)
    assert told(run(made.process_many(numbered(5), {}, 0.0))) == [None, 1, None, 3, None]
    assert [each.message["n"] for each in trouble if each.is_drop] == [0, 2, 4]
    assert [told(batch) for batch in after.batches] == [[1, 3]]


def test_messages_dropped_before_are_not_asked_for(run) -> None:
    asks = Asks(lambda messages: messages)
    made, _ = chain(link(Does(drops()), validate="n == 1"), link(asks, 2, "n != 2"))
    assert told(run(made.process_many(numbered(4), {}, 0.0))) == [0, None, 2, 3]
    assert [told(batch) for batch in asks.batches] == [[0, 3]]


async def _never() -> None:
    await asyncio.get_running_loop().create_future()


def _raises(error: Exception) -> Any:
    def answer(messages: Any) -> Any:
        messages[0]["half"] = True
        raise error

    return answer


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (_raises(RemoteUnavailable("away")), "away"),
        (_raises(KeyError("answer")), "KeyError: 'answer'"),
        (lambda messages: messages[1:], "2 messages came back for 3"),
        (lambda messages: [*messages[1:], {}], "timestamp should stay a number"),
        (lambda messages: _never(), "no answer within 0.01 s"),
    ],
)
@pytest.mark.parametrize("on_error", ["skip", "stop"])
def test_an_error_leaves_the_whole_batch_as_it_was(run, answer: Any, reason: str, on_error: str) -> None:
    asks = Asks(answer, on_error)
    asks.time_limit = 0.01
    made, trouble = chain(asks, Does(marks("b")))
    results = run(made.process_many(numbered(3), {}, 0.0))
    after = {"seen": ["b"]} if on_error == "skip" else {}
    assert results == [message | after for message in numbered(3)]
    assert [reason in each.reason for each in trouble] == [True] * 3


def test_a_plugin_that_answers_at_once_stops_beside_others_as_well(run) -> None:
    """What it stopped is not asked for."""
    asks = Asks(lambda messages: messages)
    made, _ = chain(link(Does(fails(), "stop"), validate="n == 0"), asks)
    assert told(run(made.process_many(numbered(2), {}, 0.0))) == [0, 1]
    assert [told(batch) for batch in asks.batches] == [[1]]


def test_the_last_values_follow_the_messages(run) -> None:
    """Of plugins that answer at once; those who ask get them as they were before the first message."""
    asks = Asks(lambda messages: messages)
    asks.needs_telemetry = True
    counts = Does(lambda m, context: m | {"before": context.last.get("n")}, needs_telemetry=True)
    made, _ = chain(counts, asks)
    values = {"n": (50.0, "old")}
    results = run(made.process_many(numbered(3), values, 0.0))
    assert [result and result["before"] for result in results] == ["old", 0, 1]
    assert asks.contexts[0].telemetry == {"n": (50.0, "old")} == values


def test_coordinates_that_cannot_be_are_no_last_values_there_either(run) -> None:
    before = Does(lambda m, context: m | {"before": context.last.get("position.latitude")}, needs_telemetry=True)
    made, _ = chain(before, Asks(lambda messages: messages))
    zero = {"position.latitude": 0, "position.longitude": 0}
    messages = [MESSAGE | {"position.latitude": 54.5, "position.longitude": 25.5}, MESSAGE | zero, MESSAGE]
    assert [result and result["before"] for result in run(made.process_many(messages, {}, 0.0))] == [None, 54.5, 54.5]
    assert zero.items() <= messages[1].items()
