"""Fewer messages: one for each interval and device."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.generalize import Generalizer


def generalized(messages: list[dict], seconds: int = 10, method: str | None = None, is_reverse: bool = False) -> list:
    """What is given of messages in order of time."""
    generalizer = Generalizer(seconds, method, is_reverse)
    ordered = messages[::-1] if is_reverse else messages
    return [out for message in ordered for out in generalizer.add(message)] + generalizer.end()


ROUTE = [
    {"timestamp": 10.5, "server.timestamp": 11, "speed": 10, "ignition": False, "device.id": 1, "vin": "A"},
    {"timestamp": 12, "server.timestamp": 13, "speed": 20.5, "ignition": True, "device.id": 1, "din": 1},
    {"timestamp": 19.999, "server.timestamp": 20, "speed": 0, "device.id": 1, "vin": "B", "event.enum": 7},
    {"timestamp": 20, "server.timestamp": 21, "speed": 5, "device.id": 1},
    {"timestamp": 45, "server.timestamp": 46, "device.id": 1},
]


@pytest.mark.parametrize("is_reverse", [False, True])
@pytest.mark.parametrize(("method", "speed"), [("average", 30.5 / 3), ("minimum", 0), ("maximum", 20.5)])
def test_numbers_are_combined_and_the_rest_is_the_first(method, speed, is_reverse):
    """Names in numbers, such as an event's, are no quantities; times are those of the first message."""
    messages = generalized(ROUTE, method=method, is_reverse=is_reverse)
    first, second, third = messages[::-1] if is_reverse else messages
    assert first == {
        "timestamp": 10.5, "server.timestamp": 11, "device.id": 1,
        "speed": pytest.approx(speed), "ignition": False, "vin": "A", "din": 1, "event.enum": 7,
    }  # fmt: skip
    assert second["speed"] == 5
    assert third == ROUTE[4]


@pytest.mark.parametrize("is_reverse", [False, True])
def test_without_a_method_the_first_message_stands_for_all(is_reverse):
    """As it is, whichever end the list begins with."""
    expected = [ROUTE[0], ROUTE[3], ROUTE[4]]
    assert generalized(ROUTE, is_reverse=is_reverse) == (expected[::-1] if is_reverse else expected)


@pytest.mark.parametrize("is_reverse", [False, True])
def test_each_device_has_intervals_of_its_own(is_reverse):
    """Several devices in one list, in order of time."""
    messages = [{"timestamp": at, "device.id": 1 + at % 2, "n": at} for at in range(10, 40)]
    found = generalized(messages, method="maximum", is_reverse=is_reverse)
    expected = [(10, 18), (11, 19), (20, 28), (21, 29), (30, 38), (31, 39)]
    assert [(message["timestamp"], message["n"]) for message in found] == (expected[::-1] if is_reverse else expected)


def test_messages_of_one_time_are_told_apart_by_their_key():
    """``timestamp.key`` orders device messages, so intervals go by it."""
    messages = [{"timestamp": 9, "timestamp.key": 9.000001 + at * 10, "n": at} for at in range(3)]
    assert generalized(messages) == messages


@given(
    times=st.lists(st.integers(0, 500), unique=True, min_size=1, max_size=50).map(sorted),
    seconds=st.integers(10, 100),
    method=st.sampled_from([None, "average", "minimum", "maximum"]),
    is_reverse=st.booleans(),
)
def test_there_is_one_message_for_each_interval_that_has_any(times, seconds, method, is_reverse):
    """In order of time, with numbers between the least and the greatest."""
    found = generalized([{"timestamp": at, "n": at} for at in times], seconds, method, is_reverse)
    if is_reverse:
        found.reverse()
    intervals: dict[int, list[int]] = {}
    for at in times:
        intervals.setdefault(at // seconds, []).append(at)
    assert [message["timestamp"] for message in found] == [min(group) for group in intervals.values()]
    for message, group in zip(found, intervals.values(), strict=True):
        wanted = {
            None: min(group),
            "average": math.fsum(group) / len(group),
            "minimum": min(group),
            "maximum": max(group),
        }
        assert message["n"] == pytest.approx(wanted[method])
