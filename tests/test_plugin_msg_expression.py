"""Plugin type msg-expression: parameters that are computed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.errors import ItemError
from gateway.expressions.parse import LENGTH_MOST
from gateway.plugin import Plugin, PluginError
from tests.plugin_parts import applied, made


def computing(*pairs: tuple[str, str], **config: Any) -> Plugin:
    expressions = [{"name": name, "expression": expression} for name, expression in pairs]
    return made("msg-expression", expressions=expressions, **config)


def test_each_expression_finds_what_those_before_it_computed() -> None:
    plugin = computing(("a", "din + 1"), ("b", "a * 10"), ("a", "b + 1"))
    assert applied(plugin, {"din": 1}) == {"din": 1, "a": 21, "b": 20}


def test_where_a_parameter_is_missing_nothing_is_set() -> None:
    """The others are; what the message has stays."""
    plugin = computing(("a", "nothing + 1"), ("b", "din"), ("din", "#nothing"), ("c", "mileage()"), ("d", "hour(x)"))
    assert applied(plugin, {"din": 1}) == {"din": 1, "b": 1}
    assert applied(computing(("a", "x > 1 || y > 1")), {}) == {}


def test_null_is_a_value() -> None:
    assert applied(computing(("a", "$nothing")), {}) == {"a": None}


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("din / 0", "a: column 5: division by zero: din / 0"),
        ('1 + ("x" * 2)', 'a: column 10: a text is no number; tonumber() reads one: 1 + ("x" * 2)'),
        ('error("not now")', 'a: column 1: not now: error("not now")'),
        ("din / 0 || x", "a: column 5: division by zero: din / 0 || x"),
    ],
)
def test_another_error_names_the_expression_and_the_column(expression: str, reason: str) -> None:
    with pytest.raises(PluginError) as caught:
        applied(computing(("a", expression)), {"din": 1})
    assert str(caught.value) == reason


def test_the_previous_message_is_the_last_value_of_each_parameter() -> None:
    """It is asked for only where an expression reads it."""
    plugin = computing(("more", "din - #din"), ("idle", "duration()"))
    assert plugin.needs_telemetry
    assert applied(plugin, {"din": 3}, values={"din": (50.0, 1), "timestamp": (90.0, 90)}) == {
        "din": 3,
        "more": 2,
        "idle": 10,
    }
    assert not computing(("a", "din")).needs_telemetry


def test_hours_are_those_of_the_timezone() -> None:
    """Second 100 of 1970; ``now()`` is the time of the registration."""
    assert applied(computing(("at", "hour()")), {}) == {"at": 0}
    assert applied(computing(("at", "hour()"), timezone="Asia/Tokyo"), {}) == {"at": 9}
    assert applied(computing(("at", "now()")), {}) == {"at": 120}


def test_the_time_of_the_message_can_be_computed() -> None:
    """A tracker whose clock has local time."""
    assert applied(computing(("timestamp", "timestamp - 7200")), {"timestamp": 9000}) == {"timestamp": 1800}


@pytest.mark.parametrize("name", ["ident", "server.timestamp", "channel.id", "peer", "protocol.id", "device.id"])
def test_the_identity_of_a_message_cannot_be_computed(name: str) -> None:
    with pytest.raises(ItemError, match=f"{name} cannot be overwritten") as caught:
        computing(("a", "1"), (name, "1"))
    assert caught.value.field == "configuration.expressions[1].name"


def test_what_is_no_expression_is_refused_with_its_column() -> None:
    with pytest.raises(ItemError, match="column 4") as caught:
        computing(("a", "1"), ("b", "1 +"))
    assert caught.value.field == "configuration.expressions[1].expression"


def test_an_unknown_timezone_is_refused() -> None:
    for name in ("Mars/Base", "../etc/passwd"):
        with pytest.raises(ItemError, match="such as Europe/Vilnius") as caught:
            computing(("a", "1"), timezone=name)
        assert caught.value.field == "configuration.timezone"


@pytest.mark.parametrize(
    "expressions",
    [
        [],
        [{"name": "a"}],
        [{"name": "a", "expression": ""}],
        [{"name": "a", "expression": "1", "more": 1}],
        [{"name": "a/b", "expression": "1"}],
        [{"name": "", "expression": "1"}],
        [{"name": "a", "expression": "1" * (LENGTH_MOST + 1)}],
        [{"name": "a", "expression": "1"}] * 101,
    ],
)
def test_what_cannot_be_computed_is_refused(expressions: list[Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        made("msg-expression", expressions=expressions)
