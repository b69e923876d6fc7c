"""docs/expressions.md tells the truth: each of its examples is evaluated, its tables are those of the code."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from docs.expressions_table import PAGE, with_table
from gateway.expressions import Context, EvaluationError, compile_expression
from gateway.expressions.compiler import SLOW_MASKS_MOST
from gateway.expressions.operators import MASK_MOST
from gateway.expressions.parse import DEPTH_MOST, LENGTH_MOST, NODES_MOST
from gateway.expressions.values import TEXT_MOST

TEXT = PAGE.read_text()
MESSAGE, PREVIOUS = (json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", TEXT, re.M | re.S)[:2])
EXAMPLES = [
    (expression.replace("\\|", "|"), value)
    for table in re.findall(r"^\| expression \| value \|\n\|---\|---\|\n((?:\|.*\n)+)", TEXT, re.M)
    for expression, value in re.findall(r"^\| `(.*)` \| (.*) \|$", table, re.M)
]


def test_there_are_examples() -> None:
    """Otherwise nothing below would be tested."""
    assert len(EXAMPLES) > 30


@pytest.mark.parametrize(("text", "shown"), EXAMPLES)
def test_examples_have_the_values_shown(text: str, shown: str) -> None:
    """A value in JSON, or an error's reason."""
    assert evaluated(text) == (shown if shown.startswith("error: ") else json.loads(shown.strip("`")))


def evaluated(text: str) -> Any:
    try:
        return compile_expression(text).evaluate(MESSAGE, Context(previous=PREVIOUS))
    except EvaluationError as error:
        return f"error: {error.reason}"


def test_the_table_of_functions_is_current() -> None:
    """``python docs/expressions_table.py`` writes it."""
    assert with_table(TEXT) == TEXT


def test_the_limits_are_those_of_the_code() -> None:
    """In the order of the page."""
    limits = re.findall(r"^\| .* \| (\d+) \|$", TEXT[TEXT.index("## Limits") :], re.M)
    expected = [LENGTH_MOST, NODES_MOST, DEPTH_MOST, TEXT_MOST, SLOW_MASKS_MOST, MASK_MOST]
    assert [int(limit) for limit in limits] == expected
