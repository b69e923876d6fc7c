"""What is no expression: the error names the column, what was found and what should be there."""

from __future__ import annotations

import pytest

from gateway.errors import PeerError
from gateway.expressions import ExpressionError, compile_expression
from gateway.expressions.compiler import SLOW_MASKS_MOST
from gateway.expressions.parse import DEPTH_MOST, LENGTH_MOST, NODES_MOST

VALUE = "expected a value: a number, a text in quotes, a parameter, a function or ("


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("", 1, f"the expression is empty, {VALUE}"),
        ("  ", 3, f"the expression is empty, {VALUE}"),
        ("a b", 3, "found 'b', expected an operator or the end"),
        ("a +", 4, f"the expression ends here, {VALUE}"),
        ("a && && b", 6, f"found '&&', {VALUE}"),
        ("a === b", 5, f"found '=', {VALUE}"),
        ("(a", 3, "the expression ends here, expected )"),
        ("a)", 2, "found ')', expected an operator or the end"),
        ("max(a b)", 7, "found 'b', expected an operator"),
        ("max(a", 6, "the expression ends here, expected ) or ,"),
        ("max(a,)", 7, f"found ')', {VALUE}"),
        ("a ? b", 6, "the expression ends here, expected :"),
        ("a : b", 3, "found ':', expected an operator or the end"),
        ("1 @ 2", 3, "found '@', expected an operator"),
        ("a.", 2, "found '.', expected an operator"),
        ("$", 1, f"found '$', {VALUE}"),
        ("x == 'abc", 6, "the text that begins here has no closing '"),
        ('x == "abc\\"', 6, 'the text that begins here has no closing "'),
        ("a and b", 3, "found 'and', expected an operator or the end; write && for and"),
        ("a\n+ +\n)", 7, f"found ')', {VALUE}"),
        ("1e999", 1, "'1e999' is too large for a number"),
        ("é", 1, f"found 'é', {VALUE}"),
        (r"1 + '\ud800'", 5, "half of a character: a surrogate without its other half"),
        ("'\ud800'", 2, "half of a character: a surrogate without its other half"),
        ("1 + foo(1)", 5, "a function 'foo' does not exist; /storage/expressions/functions lists those that do"),
        ("absx(1)", 1, "a function 'absx' does not exist; did you mean abs(x)?"),
        ("ABS(1)", 1, "a function 'ABS' does not exist; did you mean abs(x)?"),
        (
            "geofence('home')",
            1,
            "geofence(): there are no geofences here; distance_to(lat, lon) tells how far a place is",
        ),
        ("if(1, 2)", 1, "if() has 2 arguments here; it is if(condition, yes, no)"),
        ("1 + abs()", 5, "abs() has 0 arguments here; it is abs(x)"),
        ("mileage(1)", 1, "mileage() has 1 argument here; it is mileage()"),
        ("exists(5)", 8, "exists(name[, ...]) takes the name of a parameter in quotes here"),
        ("exists('')", 8, "exists(name[, ...]) takes the name of a parameter in quotes here"),
        ("previous(1 + 1)", 12, "previous(name) takes the name of a parameter in quotes here"),
    ],
)
def test_the_error_says_where_and_what(text: str, column: int, reason: str) -> None:
    """Columns count from 1 and from the beginning of the text, over all its lines."""
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text)
    assert (caught.value.column, caught.value.reason) == (column, reason)
    assert isinstance(caught.value, PeerError)


def _refused(text: str) -> str:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text)
    return caught.value.reason


def test_length_is_limited() -> None:
    """At the documented number of characters."""
    assert LENGTH_MOST == 4096
    assert compile_expression("1" + " " * 4095).evaluate({}) == 1
    assert _refused("1" + " " * 4096) == "the expression has 4097 characters; 4096 are possible"


@pytest.mark.parametrize(
    ("begin", "end"), [("-", ""), ("!", ""), ("abs(", ")"), ("1+(2*", ")"), ("1?", ":1"), ("1?1:", "")]
)
def test_depth_is_limited(begin: str, end: str) -> None:
    """However the operations are put into each other."""
    levels = DEPTH_MOST - 1 if "(2*" not in begin else DEPTH_MOST // 2 - 1
    assert compile_expression(begin * levels + "1" + end * levels).evaluate({}) is not None
    assert "operations stand within each other here" in _refused(begin * 60 + "1" + end * 60)


def test_the_number_of_operands_is_limited() -> None:
    """All operands, and the chain that they are in."""
    assert compile_expression("+".join("1" * (NODES_MOST - 1))).evaluate({}) == NODES_MOST - 1
    assert _refused("+".join("1" * NODES_MOST)) == "the expression has more than 1000 operands and operators"


@pytest.mark.parametrize("slow", ["a ~ '*b?c*'", "a == '*?*'", "a ~ b", "match(a, b)"])
def test_the_number_of_slow_masks_is_limited(slow: str) -> None:
    """Those that are matched character by character; others are as many as one likes."""
    compile_expression("||".join([slow] * SLOW_MASKS_MOST))
    assert "masks that have a ?" in _refused("||".join([slow] * (SLOW_MASKS_MOST + 1)))
    compile_expression("||".join(["a ~ '*b*c?'"] * (SLOW_MASKS_MOST + 1)))
