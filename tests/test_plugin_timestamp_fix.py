"""Plugin type timestamp-fix: clocks that are wrong, and those that only seem to be."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.plugin import DropMessage
from tests.plugin_parts import applied, made

DAY = 86400
WEEK = 7 * DAY
TURN = 1024 * WEEK
NOW = 1_795_000_000
"""When the messages are received: November 2026."""


def fixed(timestamp: float, *, now: float = NOW + 0.5, key: float | None = None, **config: Any) -> dict[str, Any]:
    """What the plugin makes of a message of this time."""
    message = {"timestamp": timestamp, "server.timestamp": now, **({"timestamp.key": key} if key is not None else {})}
    result = applied(made("timestamp-fix", **config), message)
    return {name: value for name, value in result.items() if name != "server.timestamp"}


@pytest.mark.parametrize("turns", [1, 2])
@pytest.mark.parametrize("age", [0, 5, -3, 20 * DAY, 29.9 * DAY])
def test_a_clock_that_is_whole_turns_behind_is_mended(turns: int, age: float) -> None:
    """Also for records that the tracker kept; what it sent stays."""
    sent = NOW - age - turns * TURN
    assert fixed(sent) == {"timestamp": NOW - age, "timestamp.original": sent}


@pytest.mark.parametrize("age", [0, -3600, 1, DAY, 31 * DAY, 365 * DAY, 10 * 365 * DAY, TURN - 2 * DAY])
def test_what_is_merely_old_stays(age: float) -> None:
    """Black box data of any age below a turn."""
    assert fixed(NOW - age) == {"timestamp": NOW - age}


@pytest.mark.parametrize(
    "sent",
    [
        0,
        1,
        315964799,  # a second before GPS time begins
        946684800,  # 2000
        1104537600,  # 2005
        NOW - TURN - 31 * DAY,
    ],
)
def test_a_clock_that_was_never_set_stays(sent: float) -> None:
    """It is old, but not by whole turns from anything recent."""
    assert fixed(sent) == {"timestamp": sent}


def test_how_old_a_mended_record_may_be_is_an_option() -> None:
    sent = NOW - 40 * DAY - TURN
    assert fixed(sent) == {"timestamp": sent}
    assert fixed(sent, oldest=50 * DAY)["timestamp"] == NOW - 40 * DAY


def test_mending_can_be_left_out() -> None:
    assert fixed(NOW - TURN, rollover=False) == {"timestamp": NOW - TURN}


@pytest.mark.parametrize("ahead", [3602, 2 * 3600, 365 * DAY, TURN, 1e15])
def test_what_is_ahead_gets_the_time_of_its_reception(ahead: float) -> None:
    assert fixed(NOW + ahead) == {"timestamp": NOW + 0.5, "timestamp.original": NOW + ahead}


def test_what_is_ahead_can_be_dropped_or_kept() -> None:
    with pytest.raises(DropMessage) as caught:
        fixed(NOW + 7200, future="drop")
    assert caught.value.reason == f"timestamp {NOW + 7200} is 7200 s ahead of its reception"
    assert fixed(NOW + 7200, future="keep") == {"timestamp": NOW + 7200}


def test_how_far_ahead_is_an_option() -> None:
    assert fixed(NOW + 30, tolerance=10)["timestamp"] == NOW + 0.5
    assert fixed(NOW + 3 * DAY, tolerance=4 * DAY) == {"timestamp": NOW + 3 * DAY}


@pytest.mark.parametrize("weeks", [1, 5, 1024])
def test_whole_weeks_ahead_can_be_taken_away(weeks: int) -> None:
    """As few as bring the message back; only where that is wanted."""
    sent = NOW - 2 * DAY + weeks * WEEK
    assert fixed(sent, whole_weeks=True) == {"timestamp": NOW - 2 * DAY, "timestamp.original": sent}
    assert fixed(sent)["timestamp"] == NOW + 0.5


def test_the_key_moves_along() -> None:
    """It is the timestamp with a number in its fraction, and tells messages of one timestamp apart."""
    sent = NOW - TURN
    assert fixed(sent, key=sent + 0.002753)["timestamp.key"] == NOW + 0.002753
    assert fixed(NOW, key=NOW + 0.000001)["timestamp.key"] == NOW + 0.000001


def test_milliseconds_stay() -> None:
    assert fixed(NOW - TURN + 0.125)["timestamp"] == NOW + 0.125


def test_what_the_tracker_sent_is_kept_once() -> None:
    """Of two such plugins the second does not overwrite it."""
    message = {"timestamp": NOW + 7200, "server.timestamp": NOW + 0.5, "timestamp.original": 5}
    assert applied(made("timestamp-fix"), message)["timestamp.original"] == 5
