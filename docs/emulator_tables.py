"""Writes the tables of docs/emulator.md from the code: ``python docs/emulator_tables.py``; the tests check them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs

from gateway.emulator.group import Events, Faults, Group, Timing
from gateway.emulator.io import SETS
from gateway.emulator.scenario import Scenario

PAGE = Path(__file__).parent / "emulator.md"
_BLOCK = re.compile(r"<!-- table: (\w+) -->\n.*?<!-- end -->", re.S)
_KEYS = {kind.__name__: kind for kind in (Scenario, Group, Timing, Faults, Events)}


def with_tables(page: str) -> str:
    """The page with its tables as they should be."""
    return _BLOCK.sub(lambda match: f"<!-- table: {match[1]} -->\n\n{_table(match[1])}\n<!-- end -->", page)


def _table(name: str) -> str:
    return _sets() if name == "sets" else _keys(_KEYS[name])


def _keys(kind: type[Any]) -> str:
    rows = [
        f"| `{field.name}` | {_shown(field.default)} | {field.metadata['doc']} |"
        for field in attrs.fields(kind)
        if field.metadata
    ]
    return "\n".join(["| key | default | |", "|---|---|---|", *rows, ""])


def _sets() -> str:
    names = list(dict.fromkeys(name for sets in SETS.values() for name in sets))
    rows = [f"| `{name}` | {' | '.join(_ids(sets.get(name, ())) for sets in SETS.values())} |" for name in names]
    return "\n".join([f"| set | {' | '.join(SETS)} |", "|---|" + "---|" * len(SETS), *rows, ""])


def _ids(ids: tuple[int, ...]) -> str:
    return ", ".join(map(str, ids)) or "-"


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, tuple):
        return "`[" + ", ".join(_plain(item) for item in value) + "]`"
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
