"""Plugin type item-telemetry: what a message lacks, from the last values. Messages are of second 100."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.plugin import Plugin
from gateway.store.telemetry import Values, update
from tests.plugin_parts import MESSAGE, applied, made

TIMES = "item.telemetry.timestamps"


def filling(*parameters: str, **config: Any) -> Plugin:
    return made("item-telemetry", parameters=list(parameters), **config)


def test_what_is_missing_is_filled_in() -> None:
    """Names and masks; what the message has stays, also null."""
    values: Values = {"din": (50.0, 1), "can.fuel.level": (60.0, 40), "can.rpm": (60.0, 900), "ain": (50.0, 5)}
    assert applied(filling("din", "can.*", "none"), {}, values=values) == {
        "din": 1,
        "can.fuel.level": 40,
        "can.rpm": 900,
    }
    assert applied(filling("din", "can.*"), {"din": None, "can.rpm": 0}, values=values) == {
        "din": None,
        "can.rpm": 0,
        "can.fuel.level": 40,
    }


def test_a_record_is_not_filled_from_its_future() -> None:
    """A tracker that sends what it kept is not said to have had then what it has now."""
    values: Values = {"before": (99.0, 1), "same": (100.0, 2), "after": (100.001, 3)}
    assert applied(filling("*"), {}, values=values) == {"before": 1, "same": 2}


def test_a_clock_that_is_far_ahead_counts_as_the_time_of_reception() -> None:
    """As it does for telemetry, or one such message would find everything old."""
    far = {"timestamp": 1e9, "server.timestamp": 1000.0}
    assert applied(filling("din", max_age=50), far, values={"din": (960.0, 1)})["din"] == 1
    assert "din" not in applied(filling("din", max_age=50), far, values={"din": (940.0, 1)})
    assert "din" not in applied(filling("din"), far, values={"din": (1001.0, 1)})


@pytest.mark.parametrize(("at", "is_filled"), [(90.0, True), (89.9, False)])
def test_what_is_too_old_is_not_filled_in(at: float, is_filled: bool) -> None:
    assert applied(filling("din", max_age=10), {}, values={"din": (at, 1)}) == (
        {"din": 1, TIMES: {"din": at}} if is_filled else {}
    )


def test_a_filled_value_gets_old_as_if_it_had_not_been_filled_in() -> None:
    """What is filled in becomes telemetry, and is filled in again from there: its age is that of what came."""
    plugin = filling("din", "ain", max_age=25)
    values: Values = {}
    filled = {}
    for second in range(100, 200, 10):
        sent = {100: {"din": 1, "ain": 5}, 140: {"din": 2}}.get(second, {})
        message = applied(plugin, {"timestamp": second, "server.timestamp": second + 1, **sent}, values=values)
        update(values, {**MESSAGE, **message})
        filled[second] = {name: message[name] for name in ("din", "ain") if name in message and name not in sent}
    both, new = {"din": 1, "ain": 5}, {"din": 2}
    assert filled == {
        100: {}, 110: both, 120: both, 130: {}, 140: {}, 150: new, 160: new, 170: {}, 180: {}, 190: {},
    }  # fmt: skip


def test_without_a_greatest_age_nothing_is_added() -> None:
    """Who wants to know from when values are has a message with them."""
    assert applied(filling("din"), {}, values={"din": (1.0, 1)}) == {"din": 1}


def test_two_of_them_tell_the_times_of_both() -> None:
    first = applied(filling("din", max_age=60), {}, values={"din": (90.0, 1)})
    assert applied(filling("ain", max_age=60), first, values={"ain": (80.0, 5)})[TIMES] == {"din": 90.0, "ain": 80.0}


POSITION: Values = {
    "position": (90.0, {"latitude": 54.5, "longitude": 25.5}),
    "position.latitude": (90.0, 54.5),
    "position.longitude": (90.0, 25.5),
    "position.altitude": (80.0, 120),
}


def test_a_position_is_filled_in_by_its_parts() -> None:
    """And not as the object that telemetry also has."""
    filled = {"position.latitude": 54.5, "position.longitude": 25.5, "position.altitude": 120}
    assert applied(filling("position.*"), {}, values=POSITION) == filled
    assert applied(filling("position"), {}, values=POSITION) == {}


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ({"position.latitude": 54.0}, {}),
        ({"position.longitude": 25.0}, {}),
        ({}, {"position.latitude": (70.0, 54.0)}),
        ({}, {"position.latitude": (101.0, 54.0)}),
    ],
)
def test_coordinates_are_those_of_one_place(message: dict[str, Any], change: Values) -> None:
    """Half a position is none, and two halves of two positions are a place where the tracker never was."""
    result = applied(filling("position.*"), message, values=POSITION | change)
    assert result == message | {"position.altitude": 120}


def test_what_belongs_to_one_message_is_not_filled_in() -> None:
    """A posted message has no peer; one with the key of another would merge into it."""
    names = ("peer", "channel.id", "timestamp.key", "timestamp.original", TIMES)
    assert applied(filling("*"), {}, values={name: (50.0, {}) for name in names}) == {}


@pytest.mark.parametrize("config", [{}, {"parameters": []}, {"parameters": [""]}, {"parameters": ["a"], "max_age": 0}])
def test_options_that_mean_nothing_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        made("item-telemetry", **config)
