"""Writes the table of functions of docs/expressions.md: ``python docs/expressions_table.py``."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.expressions import FUNCTIONS

PAGE = Path(__file__).parent / "expressions.md"
BEGIN, END = "<!-- written by expressions_table.py -->", "<!-- end -->"


def table() -> str:
    """Each function with what it is."""
    rows = [f"| `{function.usage}` | {function.description} |" for function in FUNCTIONS.values()]
    return "\n".join(["| function | value |", "|---|---|", *rows, ""])


def with_table(page: str) -> str:
    """``page`` with what stands between the two marks replaced."""
    return re.sub(f"{BEGIN}\n.*?{END}", lambda _: f"{BEGIN}\n\n{table()}\n{END}", page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
