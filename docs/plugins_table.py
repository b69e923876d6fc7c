"""Writes the tables of docs/plugins.md from the types in plugins/: ``python docs/plugins_table.py``."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from gateway.plugin import Config
from gateway.plugin.types import PluginType, find_types

PAGE = Path(__file__).parent / "plugins.md"
BEGIN, END = "<!-- written by plugins_table.py -->", "<!-- end -->"
Schema = dict[str, Any]


def tables() -> str:
    """The options of every type, then each type of ours with its own."""
    common = ["### Options of every type", "", *option_table(Config, set()), ""]
    return "\n".join([*common, *(line for type in find_types().values() for line in _section(type))])


def _section(type: PluginType) -> Iterator[str]:
    description = textwrap.fill(in_code(" ".join(type.description.split())), 120, break_on_hyphens=False)
    yield from (f"### {type.name}", "", description, "")
    rows = option_table(type.cls.Config, set(Config.__struct_fields__))
    yield from rows or ["No options of its own."]
    yield ""


def option_table(config: type[Any], known: set[str]) -> list[str]:
    """The options of a ``Config``, but for those that are ``known``, with what they can be."""
    defs = msgspec.json.schema(config)["$defs"]
    options = {name: option for name, option in defs[config.__name__]["properties"].items() if name not in known}
    rows = [
        f"| `{name}` | {_default(option)} | {_values(option, defs)} | {in_code(option['description'])} |"
        for name, option in options.items()
    ]
    return ["| option | default | can be | meaning |", "|---|---|---|---|", *rows] if rows else []


def in_code(text: str) -> str:
    """Names of parameters are code, where the text of the API has no marks."""
    text = re.sub(r"(?<![\w`%./:@-])((?:[a-z]+\.)+[a-z*]+(?:\.\d)?)(?![\w`/:-])", r"`\1`", text)
    return text.replace("|", "\\|")


def _default(option: Schema) -> str:
    return f"`{json.dumps(option['default'])}`" if "default" in option else "must be given"


def _values(option: Schema, defs: Schema) -> str:
    """What the value can be."""
    if "$ref" in option:
        return f"object with {_listed(defs[option['$ref'].rpartition('/')[2]]['properties'])}"
    if "anyOf" in option:
        return " or ".join(_values(each, defs) for each in option["anyOf"])
    if "enum" in option:
        return _listed(json.dumps(value) for value in option["enum"])
    match option.get("type"):
        case "array":
            return f"list of up to {option['maxItems']:,}: {_values(option['items'], defs)}"
        case "object":
            return f"object with up to {option['maxProperties']:,} keys"
        case "string":
            return f"text, up to {option['maxLength']:,} characters"
        case "number" | "integer":
            return f"{'whole number' if option['type'] == 'integer' else 'number'}, {_range(option)}"
        case "boolean":
            return "`true`, `false`"
    return str(option.get("type", "anything"))


def _range(option: Schema) -> str:
    low = f"above {option['exclusiveMinimum']:,}" if "exclusiveMinimum" in option else f"{option['minimum']:,}"
    return f"{low} to {option['maximum']:,}"


def _listed(values: Any) -> str:
    return ", ".join(f"`{value}`" for value in values)


def with_tables(page: str) -> str:
    """``page`` with what stands between the two marks replaced."""
    return re.sub(f"{BEGIN}\n.*?{END}", lambda _: f"{BEGIN}\n\n{tables()}\n{END}", page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
