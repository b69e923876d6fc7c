"""Each function: what it gives, what it refuses, how it is described."""

from __future__ import annotations

import math
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gateway.expressions import FUNCTIONS, Context, EvaluationError, compile_expression

VILNIUS = {"position.latitude": 54.6872, "position.longitude": 25.2797, "timestamp": 1700000000.5}
KAUNAS = {"position.latitude": 54.8985, "position.longitude": 23.9036, "timestamp": 1699996400}
MESSAGE = {**VILNIUS, "din": 9, "name": "Tracker", "on": True, "list": [1, 2], "object": {"a": "b"}}

CASES: list[tuple[str, Any]] = [
    ("if(din, 1, 2)", 1),
    ("if($nothing, 1, 2)", 2),
    ("not(din)", False),
    ("not($nothing)", True),
    ("not(0)", True),
    ("exists('din')", True),
    ("exists('din', 'nothing')", False),
    ("exists('din', 'name')", True),
    ("exists('object.a')", True),
    ("exists(din)", True),
    ("param('din') + 1", 10),
    ("previous('timestamp')", 1699996400),
    ("isnull($nothing)", True),
    ("isnull(0)", False),
    ("isnumber(din)", True),
    ("isnumber(1.5)", True),
    ("isnumber(on)", False),
    ("isnumber('1')", False),
    ("isstring(name)", True),
    ("isstring(din)", False),
    ("isboolean(on)", True),
    ("isboolean(1)", False),
    ("isjson(list)", True),
    ("isjson(object)", True),
    ("isjson(name)", False),
    ("tonumber('12.5')", 12.5),
    ("tonumber(' -0x1F ')", -31),
    ("tonumber('1e3')", 1000),
    ("isnull(tonumber('abc'))", True),
    ("isnull(tonumber(''))", True),
    ("isnull(tonumber('1e999'))", True),
    ("isnull(tonumber('12 3'))", True),
    ("tonumber(on)", 1),
    ("tonumber($nothing)", 0),
    ("tonumber(2.5)", 2.5),
    ("tonumber('ff', 16)", 255),
    ("tonumber('0101', 2)", 5),
    ("isnull(tonumber('12', 2))", True),
    ("isnull(tonumber('" + "1" * 300 + "', 10))", True),
    ("toboolean('false')", False),
    ("toboolean('0')", False),
    ("toboolean('')", False),
    ("toboolean('yes')", True),
    ("toboolean(2)", True),
    ("toboolean($nothing)", False),
    ("tostring(12)", "12"),
    ("tostring(12.0)", "12"),
    ("tostring(1/3)", "0.3333333333333333"),
    ("tostring(on)", "true"),
    ("tostring(null)", "null"),
    ("tostring(name)", "Tracker"),
    ("tostring(object)", '{"a":"b"}'),
    ("abs(-5)", 5),
    ("abs($nothing)", 0),
    ("abs(true)", 1),
    ("min(3, 1.5, 2)", 1.5),
    ("min(din)", 9),
    ("max(1, 2, null)", 2),
    ("round(2.5)", 3),
    ("round(-2.5)", -3),
    ("round(2.675, 2)", 2.68),
    ("round(1234.5, -2)", 1200),
    ("round(1e300)", 1e300),
    ("floor(-1.5)", -2),
    ("ceil(1.2)", 2),
    ("trunc(-1.5)", -1),
    ("sqrt(9)", 3),
    ("pow(2, 10)", 1024),
    ("pow(2, 0.5)", math.sqrt(2)),
    ("pow(0, 0)", 1),
    ("exp(0)", 1),
    ("log(exp(2))", 2),
    ("log(8, 2)", 3),
    ("log(1000, 10)", 3),
    ("log10(0.01)", -2),
    ("sin(0)", 0),
    ("cos(0)", 1),
    ("tan(0)", 0),
    ("asin(1)", math.pi / 2),
    ("acos(1)", 0),
    ("atan(1)", math.pi / 4),
    ("atan2(1, -1)", 3 * math.pi / 4),
    ("strlen(name)", 7),
    ("strlen('é😀')", 2),
    ("substr(name, 1, 3)", "rac"),
    ("substr(name, 4)", "ker"),
    ("substr(name, -3)", "ker"),
    ("substr(name, -30, 2)", "Tr"),
    ("substr(name, 30)", ""),
    ("substr(name, 1, -1)", ""),
    ("strpos(name, 'ack')", 2),
    ("strpos(name, 'x')", -1),
    ("replace('a-b-c', '-', '')", "abc"),
    ("replace('aaa', 'a', 'bb')", "bbbbbb"),
    ("concat(name, ' ', 5, true)", "Tracker 5true"),
    ("upper('straße')", "STRASSE"),
    ("lower('ABC')", "abc"),
    ("trim('  a b ')", "a b"),
    ("match(name, 'Tr*')", True),
    ("match(name, 'tr*')", False),
    ("second(1700000000)", 20),
    ("minute(1700000000)", 13),
    ("hour(1700000000)", 22),
    ("hour()", 22),
    ("hour(timestamp) == hour()", True),
    ("day(1700000000)", 14),
    ("weekday(1700000000)", 2),
    ("weekday(1699747200)", 0),
    ("yearday(1700000000)", 318),
    ("month(1700000000)", 11),
    ("year(1700000000)", 2023),
    ("year(-1)", 1969),
    ("now()", 1700000100.25),
    ("duration()", 3600.5),
    ("round(distance(54.6872, 25.2797, 54.8985, 23.9036), 1)", 91.3),
    ("distance(0, 0, 0, 180)", math.pi * 6371.0088),
    ("distance(1, 1, 1, 1)", 0),
    ("round(distance_to(54.8985, 23.9036), 1)", 91.3),
    ("round(mileage(), 1)", 91.3),
]
CONTEXT = Context(previous=KAUNAS, clock=lambda: 1700000100.25)


@pytest.mark.parametrize(("text", "value"), CASES)
def test_functions(text: str, value: Any) -> None:
    """At UTC, with a previous message."""
    result = compile_expression(text).evaluate(MESSAGE, CONTEXT)
    assert result == pytest.approx(value) if isinstance(value, float) else result == value
    assert isinstance(result, bool) is isinstance(value, bool)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "error"])
def test_every_function_has_a_case(name: str) -> None:
    """The list above is complete."""
    assert [text for text, _ in CASES if f"{name}(" in text] != []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("error()", "error()"),
        ("error('no fuel: ' + name)", "no fuel: Tracker"),
        ("error(5)", "5"),
        ("abs('a')", "a text is no number; tonumber() reads one"),
        ("max(1, list)", "an array or object is no number"),
        ("sqrt(-1)", "a negative number has no square root"),
        ("pow(-1, 0.5)", "a negative number has no root"),
        ("pow(0, -1)", "division by zero"),
        ("pow(10, 400)", "the result is too large for a number"),
        ("exp(1000)", "the result is too large for a number"),
        ("log(0)", "a logarithm is of a positive number, to a positive base that is not 1"),
        ("log(2, 1)", "a logarithm is of a positive number, to a positive base that is not 1"),
        ("asin(2)", "the argument should be from -1 to 1"),
        ("round(1, 16)", "round() to 16 digits; it can be -15 to 15"),
        ("tonumber('1', 37)", "the base of tonumber() should be 2 to 36"),
        ("tonumber('1', 2.5)", "the base of tonumber() should be 2 to 36"),
        ("strlen(din)", "a number is no text; tostring() makes one"),
        ("upper($nothing)", "null is no text; tostring() makes one"),
        ("lower(on)", "a boolean is no text; tostring() makes one"),
        ("replace('a', '', 'b')", "replace() has nothing to look for: the second argument is empty"),
        ("substr('a', 1e30)", "a number beyond 64 bits is no integer here"),
        ("hour(1e15)", "1000000000000000.0 is no time in unix seconds"),
        ("distance(91, 0, 0, 0)", "91 is no latitude; it can be -90 to 90"),
        ("distance(0, 0, 0, 180.5)", "180.5 is no longitude; it can be -180 to 180"),
    ],
)
def test_functions_refuse_what_they_cannot_work_on(text: str, reason: str) -> None:
    """With a reason that names the way out, where there is one."""
    with pytest.raises(EvaluationError) as caught:
        compile_expression(text).evaluate(MESSAGE)
    assert (caught.value.column, caught.value.reason) == (1, reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mileage()", "the message has no position.latitude"),
        ("distance_to(1, 2)", "the message has no position.latitude"),
        ("hour()", "the message has no timestamp"),
        ("duration()", "the message has no timestamp"),
    ],
)
def test_functions_say_what_the_message_lacks(text: str, reason: str) -> None:
    """The parameters that they read by themselves."""
    with pytest.raises(EvaluationError, match=reason):
        compile_expression(text).evaluate({"din": 1}, CONTEXT)


@pytest.mark.parametrize("text", ["mileage()", "duration()", "previous('din')", "#din"])
def test_without_a_previous_message_there_is_an_error(text: str) -> None:
    """As for the first message of a device."""
    with pytest.raises(EvaluationError, match="no previous message is known here"):
        compile_expression(text).evaluate(MESSAGE)


def test_times_are_of_the_timezone() -> None:
    """Of the context; with its summer time."""
    vilnius = Context(timezone=ZoneInfo("Europe/Vilnius"))
    assert compile_expression("hour(1700000000)").evaluate({}, vilnius) == 0
    assert compile_expression("day(1700000000)").evaluate({}, vilnius) == 15
    assert compile_expression("hour(1690000000)").evaluate({}, vilnius) == 7
    assert compile_expression("hour(1690000000)").evaluate({}) == 4


@pytest.mark.parametrize(
    "text",
    [
        "text + text",
        "concat(text, 'x')",
        "replace(text, 'a', 'bb')",
        "upper(sharp)",
        "tostring(json)",
        "tostring(nested)",
        "long ~ '*'",
        "strlen(long)",
        "'*' == long",
    ],
)
def test_texts_stay_short(text: str) -> None:
    """No text of more than 16384 characters is made or worked on, so that no evaluation takes long."""
    message = {
        "text": "a" * 16_384,
        "sharp": "ß" * 16_384,
        "long": "a" * 16_385,
        "json": ["a"] * 10_000,
        "nested": {"a": [{"b": "c" * 20_000}]},
    }
    with pytest.raises(EvaluationError, match="characters"):
        compile_expression(text).evaluate(message)
    assert compile_expression("strlen(text)").evaluate(message) == 16_384


def test_large_integers_of_messages() -> None:
    """AVL values have up to 64 bits: they are given on as they are, told as text, and worked on as bits."""
    message = {"ibutton": 2**63 + 1, "beyond": 10**400}
    assert compile_expression("ibutton").evaluate(message) == 2**63 + 1
    assert compile_expression("tostring(ibutton)").evaluate(message) == "9223372036854775809"
    assert compile_expression("ibutton & 0xFF").evaluate(message) == 1
    assert compile_expression("ibutton + 0").evaluate(message) == 2.0**63
    assert compile_expression("ibutton > 5").evaluate(message) is True
    assert not compile_expression("beyond + 1").is_true(message)
    assert not compile_expression("tostring(beyond)").is_true(message)


def test_json_that_cannot_be_written_is_no_text() -> None:
    """Nested deeper than a writer goes; the API refuses such messages, other callers may not."""
    deep: Any = 1
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(EvaluationError, match="an array or object that has no text"):
        compile_expression("tostring(deep)").evaluate({"deep": deep})
    assert compile_expression("deep && isjson(deep)").is_true({"deep": deep})


def test_the_table_tells_what_the_api_answers() -> None:
    """flespi's form of a function."""
    assert FUNCTIONS["abs"].as_dict() == {
        "name": "abs",
        "usage": "abs(x)",
        "description": "the number without its sign",
        "arguments": {"min": 1, "max": 1},
    }
    counts = {name: (FUNCTIONS[name].least, FUNCTIONS[name].most) for name in ("hour", "round", "if", "min", "now")}
    assert counts == {"hour": (0, 1), "round": (1, 2), "if": (3, 3), "min": (1, 32), "now": (0, 0)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_described(name: str) -> None:
    """Its usage begins with its name."""
    function = FUNCTIONS[name]
    assert function.usage.startswith(f"{name}(")
    assert len(function.description) > 5
    assert 0 <= function.least <= function.most
