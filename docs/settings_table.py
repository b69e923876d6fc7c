"""Writes the tables of docs/configuration.md from gateway/settings.py: ``python docs/settings_table.py``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import attrs

from gateway.config import LISTS, SECTIONS

PAGE = Path(__file__).parent / "configuration.md"
BEGIN, END = "<!-- written by settings_table.py -->", "<!-- end -->"


def tables() -> str:
    """A table for each section: every key with its default and its meaning."""
    sections = [_table(name, f"[{name}]", kind) for name, kind in SECTIONS.items()]
    lists = [_table(name, f"[[{name}]]", kind) for name, kind in LISTS.items()]
    return "\n".join([*sections, *lists])


def _table(name: str, written: str, kind: type[Any]) -> str:
    head = [f"### `{written}`", "", kind.__doc__ or "", "", "| key | default | meaning |", "|---|---|---|"]
    rows = [
        f"| `{name}.{attribute.name}` | {_default(attribute.default)} | {attribute.metadata['doc']} |"
        for attribute in attrs.fields(kind)
    ]
    return "\n".join([*head, *rows, ""])


def _default(value: Any) -> str:
    if isinstance(value, attrs.Factory):  # type: ignore[arg-type]
        return "must be given"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{json.dumps(value)}`"


def with_tables(page: str) -> str:
    """``page`` with what stands between the two marks replaced."""
    return re.sub(f"{BEGIN}\n.*?{END}", lambda _: f"{BEGIN}\n\n{tables()}\n{END}", page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
