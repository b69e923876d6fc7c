"""Masks: every one against the same matching done by Python's regular expressions, and the time that it takes."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.expressions import wildcard


def as_pattern(mask: str) -> re.Pattern[str]:
    """The mask as a regular expression: slow on some, but right."""
    pattern, at = "", 0
    while at < len(mask):
        if mask[at] == "\\" and mask[at + 1 : at + 2] in ("*", "?", "\\"):
            at += 1
            pattern += re.escape(mask[at])
        else:
            pattern += {"*": ".*", "?": "."}.get(mask[at], re.escape(mask[at]))
        at += 1
    return re.compile(pattern, re.DOTALL)


@pytest.mark.parametrize(
    ("mask", "matching", "others"),
    [
        ("car", ["car"], ["", "Car", "cars", "scar"]),
        ("", [""], ["a"]),
        ("*", ["", "a", "a\nb"], []),
        ("**", ["", "a"], []),
        ("?", ["a", "é", "\n"], ["", "ab"]),
        ("car*", ["car", "cars"], ["ca", "scar"]),
        ("*car", ["car", "scar"], ["cars"]),
        ("*car*", ["car", "scars"], ["cra"]),
        ("a*a", ["aa", "aba"], ["a", "ab"]),
        ("12*45", ["1245", "12345"], ["1234", "12 456"]),
        ("?ar*", ["car", "bars"], ["ar"]),
        ("*c?r*", ["car", "a cor b"], ["cr", "cxxr"]),
        ("*a?c*a?d", ["abcabd", "abcaabd"], ["abcbd", "abcad"]),
        (r"a\*b", ["a*b"], ["axb", r"a\*b"]),
        (r"\?\\*", [r"?\x"], ["a", "?x"]),
        ("a\\b", ["a\\b"], ["ab"]),
        ("[a-z].+", ["[a-z].+"], ["a.+", "bxx"]),
        ("position.*", ["position.speed", "position."], ["position", "positions.speed"]),
    ],
)
def test_masks(mask: str, matching: list[str], others: list[str]) -> None:
    """As a whole, case by case."""
    assert [text for text in matching if not wildcard(mask)(text)] == []
    assert [text for text in others if wildcard(mask)(text)] == []


SIGNS = st.text("ab*?\\", max_size=12)


@given(SIGNS, st.text("ab*?\\", max_size=16))
def test_masks_match_what_regular_expressions_match(mask: str, text: str) -> None:
    """With few different characters, so that parts overlap."""
    assert wildcard(mask)(text) is bool(as_pattern(mask).fullmatch(text))


@pytest.mark.parametrize("mask", ["*a" * 200 + "b", "*a?" * 100 + "*b", "*" + "a?" * 100 + "b*", "*?" * 200 + "b*"])
def test_the_time_is_linear(mask: str) -> None:
    """These take a backtracking matcher longer than anybody waits."""
    matches = wildcard(mask)
    began = time.process_time()
    assert not matches("a" * 16_000)
    assert time.process_time() - began < 1
