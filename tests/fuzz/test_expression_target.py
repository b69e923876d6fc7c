"""The fuzz target of expressions, run by hypothesis: on noise, on the language's words shuffled, on whole sentences."""

from __future__ import annotations

from typing import Any

import pytest
from expression_target import SECONDS_MOST, check, check_bytes
from hypothesis import given
from hypothesis import strategies as st

from gateway.expressions import FUNCTIONS

NAMES = ["a", "b.c", "d.0.e", "timestamp", "position.latitude", "position.longitude"]
OPERATORS = ["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>", "&&", "||", "==", "=", "!=", "<", "<=", ">", ">=", "~"]
ATOMS = ["0", "1", "2.5", "1e300", "63", "0xff", "'t*x'", '"q?"', "'12'", "true", "null", "$a", "#a", "nothing", *NAMES]
WORDS = [*OPERATORS, *ATOMS, "(", ")", ",", "?", ":", "!", "'", *(f"{name}(" for name in FUNCTIONS)]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("x" * 20_000),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text("ce0", max_size=3), children, max_size=3),
    max_leaves=8,
)
messages = st.dictionaries(st.sampled_from(NAMES), json_values, max_size=6)


def _call(name: str, arguments: list[str]) -> str:
    function = FUNCTIONS[name]
    if name in ("exists", "param", "previous"):
        arguments = [f"'{NAMES[len(argument) % len(NAMES)]}'" for argument in arguments]
    return f"{name}({', '.join(arguments[: max(function.least, min(function.most, len(arguments)))])})"


def _larger(smaller: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(smaller, st.sampled_from(OPERATORS), smaller).map(" ".join),
        st.tuples(st.sampled_from("-+!~"), smaller).map(" ".join),
        st.builds("({} ? {} : {})".format, smaller, smaller, smaller),
        st.builds(_call, st.sampled_from(sorted(FUNCTIONS)), st.lists(smaller, max_size=4)),
    )


sentences = st.recursive(st.sampled_from(ATOMS), _larger, max_leaves=20)


@given(st.text(max_size=100), messages)
def test_noise_keeps_the_invariant(text: str, message: dict[str, Any]) -> None:
    """Whatever a client takes for an expression."""
    check(text, message)


@given(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), messages)
def test_shuffled_words_keep_the_invariant(text: str, message: dict[str, Any]) -> None:
    """Nearly expressions."""
    check(text, message)


@given(sentences, messages, st.none() | messages)
def test_sentences_keep_the_invariant(text: str, message: dict[str, Any], previous: dict[str, Any] | None) -> None:
    """Expressions of every shape, on messages of every shape."""
    check(text, message, previous)


@given(st.binary(max_size=100))
def test_bytes_keep_the_invariant(data: bytes) -> None:
    """As atheris gives them."""
    check_bytes(data)


LONGEST = {"a": "x" * 16_384, "b": ["y" * 100] * 150, "c": "*" + "x?" * 126 + "z*"}


@pytest.mark.parametrize(
    "text",
    [
        "||".join(["a ~ '*x?x?x?x?y*'"] * 16),
        "||".join(["a ~ c"] * 16),
        "||".join(["a ~ '*x*x*x*x*y'"] * 190),
        "||".join(["tostring(b) == 'z'"] * 220),
        "||".join(["upper(lower(a)) == 'z'"] * 170),
        "strlen(replace(a, 'x', 'y')) +" * 120 + "1",
        "a == a &&" * 450 + "1",
        "pow(1e300, 1.01) ||" * 200 + "1",
        "distance(1, 2, 3, 4) +" * 180 + "1",
        "-" * 49 + "1",
        "(" * 2000 + "1" + ")" * 2000,
        "\\" * 4096,
        "'" + "\\u0041" * 680 + "'",
        "1" * 4096,
        "a." * 2000 + "b",
    ],
)
def test_the_slowest_that_a_client_can_write_is_bounded(text: str) -> None:
    """In time (the target measures it), on the longest texts that are worked on."""
    assert SECONDS_MOST <= 1
    check(text, LONGEST)
