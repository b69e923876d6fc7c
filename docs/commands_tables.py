"""Writes the tables of docs/commands.md: ``python docs/commands_tables.py``."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from gateway.protocols.teltonika.avl_ids import known_models
from gateway.protocols.teltonika.command_list import COMMANDS, schema_of
from gateway.protocols.teltonika.commands import ALL_FAMILIES
from gateway.protocols.teltonika.settings import Field, settings_of

PAGE = Path(__file__).parent / "commands.md"
MODELS = {model.family: model.model for model in known_models().values()}
FAMILIES = sorted(family for family, model in MODELS.items() if settings_of(model))


def commands() -> list[str]:
    """Each command with its properties."""
    rows = ["| command | does | properties | example | answered |", "| --- | --- | --- | --- | --- |"]
    for kind in COMMANDS:
        properties = ", ".join(f"`{name}`" for name in schema_of(kind)["properties"] if name != "codec")
        silent = "no" if ALL_FAMILIES in kind.silent_in else f"not by {', '.join(sorted(kind.silent_in))}"
        example = "`" + repr(kind.examples[0]).replace("'", '"').replace("None", "null") + "`"
        cells = (f"`{kind.name}`", str(kind.__doc__), properties, example, silent if kind.silent_in else "yes")
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def settings() -> list[str]:
    """Each field of each setting with the parameter of each family; ``?``: from memory."""
    rows = [
        f"| setting | field | means | can be | {' | '.join(FAMILIES)} |",
        f"| --- | --- | --- | --- |{' --- |' * len(FAMILIES)}",
    ]
    by_family = {family: settings_of(MODELS[family]) for family in FAMILIES}
    names = list(dict.fromkeys(name for of_family in by_family.values() for name in of_family))
    for name in names:
        here = {family: of[name].fields for family, of in by_family.items() if name in of}
        for field in dict.fromkeys(field for fields in here.values() for field in fields):
            fields = {family: known[field] for family, known in here.items() if field in known}
            numbers = [_number(fields.get(family)) for family in FAMILIES]
            about = next(iter(fields.values()))
            values = f"{about.expected}{', in ' + about.unit if about.unit else ''}"
            rows.append(f"| `{name}` | `{field}` | {about.title} | {values} | {' | '.join(numbers)} |")
    return rows


def _number(field: Field | None) -> str:
    return "" if field is None else f"{field.parameter}{' ?' if field.from_memory else ''}"


TABLES: dict[str, Callable[[], list[str]]] = {"commands": commands, "settings": settings}
BLOCK = re.compile(r"<!-- table: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def with_tables(page: str) -> str:
    """``page`` with what stands between the marks replaced."""
    return BLOCK.sub(lambda match: f"<!-- table: {match[1]} -->\n\n{_text(match[1])}\n\n<!-- end -->", page)


def _text(name: str) -> str:
    return "\n".join(TABLES[name]())


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
