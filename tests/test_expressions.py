"""The language: values, operators and their priorities, parameters, masks, filters."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gateway.expressions import (
    Context,
    EvaluationError,
    ExpressionError,
    compile_expression,
    compile_filter,
)

MESSAGE = {
    "ident": "352625333222111",
    "timestamp": 1700000000.5,
    "device.name": "123456789012345",
    "position.speed": 50,
    "position.latitude": 54.6872,
    "position.longitude": 25.2797,
    "position.valid": True,
    "engine.ignition.status": False,
    "din": 9,
    "din.1": True,
    "custom.param.12": 7,
    "battery.level": 0,
    "vehicle.vin": "",
    "user.comment": None,
    "long": "x" * 300,
    "can.dtc": [{"code": "P0100", "standard": "OBDII"}],
    "plugin": {"driver": {"name": "Bob"}, "a.b": 1},
}


def evaluate(text: str, message: dict[str, Any] = MESSAGE, **context: Any) -> Any:
    return compile_expression(text).evaluate(message, Context(**context))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("1.5", 1.5),
        (".5", 0.5),
        ("2.", 2.0),
        ("1e3", 1000.0),
        ("1.5E-3", 0.0015),
        ("0x1F", 31),
        ("0XfF", 255),
        ("007", 7),
        ("9007199254740992", 2**53),
        ("9007199254740993", 2.0**53),
        ("true", True),
        ("false", False),
        ("null", None),
        ('"a b"', "a b"),
        ("'a b'", "a b"),
        ("'it\"s'", 'it"s'),
        ('"it\'s"', "it's"),
        (r'"say \"hi\""', 'say "hi"'),
        (r"'\n\t\\\''", "\n\t\\'"),
        (r"'\u00e9\x41\ud83d\ude00'", "éA😀"),
        (r"'\d'", r"\d"),
        ("'a\nb'", "a\nb"),
        (" \n\t 1 \r\n", 1),
    ],
)
def test_values_as_they_are_written(text: str, value: Any) -> None:
    """Numbers as in C, texts in either quote; an integer beyond 2^53 is a double."""
    result = evaluate(text)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("10 - 4 - 3", 3),
        ("100 / 10 / 5", 2),
        ("2 + 3 << 1", 10),
        ("1 << 2 < 5", True),
        ("1 < 2 == true", True),
        ("5 & 1 == 1", 1),
        ("(5 & 3) == 1", True),
        ("6 ^ 5 & 4", 2),
        ("8 | 6 ^ 2", 12),
        ("1 | 0 && 0", False),
        ("1 || 0 && 0", True),
        ("(1 || 0) && 0", False),
        ("0 || 1 ? 'a' : 'b'", "a"),
        ("0 ? 1 : 0 ? 2 : 3", 3),
        ("1 ? 0 ? 1 : 2 : 3", 2),
        ("-2 * -3", 6),
        ("- - 2", 2),
        ("!0 + 1", 2),
        ("!(1 > 2)", True),
        ("~0", -1),
        ("~5 & 0xFF", 250),
        ("+true", 1),
        ("7 % 4 * 2", 6),
        ("1 + 2 == 3 && 'a' == 'a'", True),
        ("3 > 2 > 1", False),
        ("1 != 2 == true", True),
        ("16 >> 2 << 1", 8),
        ("2 * 3 % 4", 2),
    ],
)
def test_operators_have_the_priorities_of_c(text: str, value: Any) -> None:
    """The same text in C has the same value (where C would have 1, we have true)."""
    result = evaluate(text)
    assert result == value
    assert isinstance(result, bool) is isinstance(value, bool)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5 / 2", 2.5),
        ("4 / 2", 2),
        ("-7 % 3", -1),
        ("7 % -3", 1),
        ("5.5 % 2", 1.5),
        ("5.9 & 3", 1),
        ("1 << 53", 2**53),
        ("1 << 60", 2.0**60),
        ("-8 >> 1", -4),
        ("0.1 + 0.2", 0.1 + 0.2),
        ("9007199254740992 + 1", 2.0**53),
        ("'a' + 'b' + 'c'", "abc"),
        ("null + 1", 1),
        ("true + true", 2),
        ("-null", 0),
        ("-false", 0),
    ],
)
def test_arithmetic(text: str, value: Any) -> None:
    """Division keeps its fraction; null and booleans are numbers; integers stay integers up to 2^53."""
    result = evaluate(text)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 == 1.0", True),
        ("1 = 1", True),
        ("1 == true", True),
        ("2 == true", False),
        ("0 == false", True),
        ("$nothing == 0", True),
        ("$nothing == false", True),
        ("$nothing == null", True),
        ("null == $nothing", True),
        ("$nothing != null", False),
        ("battery.level == null", False),
        ("battery.level != null", True),
        ("null != battery.level", True),
        ("'' == null", False),
        ("'1' == 1", False),
        ("'1' != 1", True),
        ("1 == '1'", False),
        ("'a' == 'A'", False),
        ("'a' < 'b'", True),
        ("'B' < 'a'", True),
        ("'10' < '9'", True),
        ("'a' >= 'a'", True),
        ("$nothing < 1", True),
        ("false < true", True),
        ("can.dtc == 1", False),
        ("can.dtc == null", False),
        ("'' && true", True),
        ("can.dtc && true", True),
        ("0.0 || null || false", False),
    ],
)
def test_comparisons(text: str, value: bool) -> None:
    """null and booleans compare as numbers, but a written null is only null; a text equals only a text."""
    assert evaluate(text) is value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("position.speed", 50),
        ("din.1", True),
        ("din", 9),
        ("custom.param.12", 7),
        ("$position.speed", 50),
        ("$nothing", None),
        ("$nothing.at.all", None),
        ("user.comment", None),
        ("#position.speed", 40),
        ("previous('position.speed')", 40),
        ("position.speed - #position.speed", 10),
        ("param('position.speed')", 50),
        ("plugin.driver.name", "Bob"),
        ("plugin.a.b", 1),
        ("can.dtc.0.code", "P0100"),
        ("$can.dtc.1.code", None),
        ("$can.dtc.x", None),
        ("$ident.x", None),
        ("#din.1", False),
    ],
)
def test_parameters(text: str, value: Any) -> None:
    """Of this message and of the one before; inside of objects and arrays where there is no such parameter."""
    assert evaluate(text, previous={"position.speed": 40, "din.1": False}) == value


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("nothing > 1", 1, "the message has no nothing"),
        ("1 + nothing.at.all", 5, "the message has no nothing.at.all"),
        ("#position.speed", 1, "no previous message is known here"),
        ("1 / 0", 3, "division by zero"),
        ("1 % (din - 9)", 3, "division by zero"),
        ("'a' * 2", 5, "a text is no number; tonumber() reads one"),
        ("1 + 'a'", 3, "a text is no number; tonumber() reads one"),
        ("-'a'", 1, "a text is no number; tonumber() reads one"),
        ("ident > 5", 7, "a text and a number have no order; tonumber() reads a number from a text"),
        ("can.dtc + 1", 9, "an array or object is no number"),
        ("can.dtc == plugin", 9, "arrays and objects cannot be compared; tostring() makes texts of them"),
        ("can.dtc ~ '*'", 9, "an array or object has no mask; tostring() makes a text of it"),
        ("ident ~ 'x' + long", 7, "a mask of 301 characters; one that is computed can have 256"),
        ("ident ~ 1", 7, "a number is no text; tostring() makes one"),
        ("1e308 * 10", 7, "the result is too large for a number"),
        ("1e308 + 1e308", 7, "the result is too large for a number"),
        ("1 << 65", 3, "a shift by 65 bits; it can be by 0 to 64"),
        ("1 << -1", 3, "a shift by -1 bits; it can be by 0 to 64"),
        ("1e20 & 1", 6, "a number beyond 64 bits is no integer here"),
        ("error('no fuel')", 1, "no fuel"),
        ("1 + 2 - 'a' + 3", 7, "a text is no number; tonumber() reads one"),
        ("false || nothing || 0", 10, "the message has no nothing"),
        ("!nothing", 2, "the message has no nothing"),
        ("nothing ? 1 : 2", 1, "the message has no nothing"),
    ],
)
def test_without_a_value_there_is_an_error_at_its_column(text: str, column: int, reason: str) -> None:
    """The column is that of the parameter, operator or function at fault; in a condition, the error is not true."""
    expression = compile_expression(text)
    with pytest.raises(EvaluationError) as caught:
        expression.evaluate(MESSAGE)
    assert (caught.value.column, caught.value.reason) == (column, reason)
    assert not expression.is_true(MESSAGE)


def test_a_missing_parameter_of_the_previous_message_is_told() -> None:
    """Not confused with one of this message."""
    with pytest.raises(EvaluationError, match="column 3: the previous message has no din"):
        evaluate("1+#din", previous={"ident": "1"})


def test_an_operand_of_or_without_a_value_makes_way_for_the_next() -> None:
    """Trackers differ in what they send: one alternative that cannot be told does not decide."""
    assert evaluate("nothing > 1 || position.speed > 1") is True
    assert evaluate("position.speed > 1 || nothing > 1") is True
    assert not compile_expression("nothing > 1 || position.speed < 1").is_true(MESSAGE)


def test_what_is_not_needed_is_not_evaluated() -> None:
    """Of ``&&``, ``||``, ``?:`` and ``if()``."""
    assert evaluate("false && error()") is False
    assert evaluate("true || error()") is True
    assert evaluate("true ? 1 : error()") == 1
    assert evaluate("if(false, error(), 2)") == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("ident ~ '3526*'", True),
        ("ident ~ '*22*111'", True),
        ("ident ~ '35262533322211?'", True),
        ("ident ~ '352'", False),
        ("ident ~ ident", True),
        ("ident ~ '35' + '*'", True),
        ("device.name == '12*45'", True),
        ('"12*45" = device.name', True),
        ("device.name != '12*45'", False),
        ("device.name == '12*46'", False),
        ("device.name == '12' + '*45'", False),
        (r"'a*b' == 'a\*b'", True),
        (r"'axb' == 'a\*b'", False),
        ("'Car' ~ 'car'", False),
        ("lower('Car') ~ 'car'", True),
        ("din ~ '9'", True),
        ("position.valid ~ 't*'", True),
        ("$nothing ~ '*'", False),
        ("din == '9*'", False),
        ("match(ident, '35*')", True),
        ("tostring(can.dtc) ~ '*P0100*'", True),
        ("'abc' ~ '*b*' == true", True),
        ("true == 'abc' ~ '*b*'", False),
    ],
)
def test_masks(text: str, value: bool) -> None:
    """``~`` matches; ``==`` with a written text that has ``*`` or ``?`` in it does too, a computed text is compared."""
    assert evaluate(text) is value


@pytest.mark.parametrize(
    ("text", "names", "needs_previous"),
    [
        ("a + $b.c - #d", {"a", "b.c", "d"}, True),
        ("exists('e', 'f.g') && param('h-i')", {"e", "f.g", "h-i"}, False),
        ("exists(position.latitude)", {"position.latitude"}, False),
        ("previous('j')", {"j"}, True),
        ("hour()", {"timestamp"}, False),
        ("hour(k)", {"k"}, False),
        ("mileage() > 1", {"position.latitude", "position.longitude"}, True),
        ("duration()", {"timestamp"}, True),
        ("distance_to(1, 2)", {"position.latitude", "position.longitude"}, False),
        ("if(l, m, 1) ? n ~ '*' : not(o)", {"l", "m", "n", "o"}, False),
        ("true || 'p'", set(), False),
    ],
)
def test_an_expression_knows_what_it_reads(text: str, names: set[str], needs_previous: bool) -> None:
    """So that whoever evaluates it fetches no more."""
    expression = compile_expression(text)
    assert expression.names == names
    assert expression.needs_previous is needs_previous


def test_an_expression_is_compiled_once() -> None:
    """The same text is the same object."""
    assert compile_expression("1 + 41") is compile_expression("1 + 41")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("position.speed,position.valid", True),
        (" din , din.1 ,ident ", True),
        ("position.speed,nothing", False),
        ("battery.level,user.comment", True),
        ("battery.level", False),
        ("position.speed", True),
        ("position.speed > 0 && exists('position.latitude')", True),
        ("din=9||din=100", True),
        ("external.powersource.voltage<1", False),
    ],
)
def test_a_filter_may_be_a_list_of_names(text: str, value: bool) -> None:
    """Two names or more: all must be there. One is an expression, and so is everything else."""
    assert compile_filter(text).is_true(MESSAGE) is value


def test_a_wrong_filter_is_refused() -> None:
    """Also one that only looks like a list."""
    for text in ("din,", ",din", "din,,din", "din, 1", "", "din," * 2000 + "din"):
        with pytest.raises(ExpressionError):
            compile_filter(text)


def test_is_true_of_every_kind_of_value() -> None:
    """Only 0, false and null are not true."""
    values = {"a": 0, "b": 0.0, "c": False, "d": None, "e": "", "f": [], "g": {}, "h": -1, "i": "0", "j": math.nan}
    true = {name for name in values if compile_expression(name).is_true(values)}
    assert true == {"e", "f", "g", "h", "i", "j"}


def test_long_chains_are_not_deep() -> None:
    """Several hundred operands, as programs write them; no recursion."""
    assert evaluate("+".join(["1"] * 490)) == 490
    assert evaluate("||".join(["din==1"] * 300 + ["din==9"])) is True
    assert evaluate("&&".join(["din"] * 490)) is True
    assert evaluate("(" * 1000 + "1" + ")" * 1000) == 1


def test_flespis_examples() -> None:
    """Of its page about expressions, as far as they fit the message there."""
    message = {
        "device.name": "123456789012345",
        "timestamp": 1490347944.893743,
        "din": 9,
        "altitude": 568.49,
        "hdop": 0.9,
        "speed": 10,
    }
    assert evaluate('device.name == "12*45"', message) is True
    assert evaluate("timestamp > 1490347940 && timestamp < 1490347950", message) is True
    assert evaluate("(hdop < 1 && (din & 0x1)) || speed == 0", message) is True
    assert evaluate("abs($nothing) >= 0", message) is True
    with pytest.raises(EvaluationError):
        evaluate("if(altitude > -500 && altitude < 500, altitude, error())", message)
