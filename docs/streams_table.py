"""Writes what the types of streams say of themselves into docs/streams.md: ``python -m docs.streams_table``."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from docs.plugins_table import in_code, option_table
from gateway.stream.protocols import find_protocols
from gateway.stream.target import Options

PAGE = Path(__file__).parent / "streams.md"
BLOCK = re.compile(r"<!-- options of (\w+) -->\n.*?<!-- end -->", re.DOTALL)
ALL = "all"


def options_of(name: str) -> str:
    """The options of a type after its description, or those that all types have."""
    if name == ALL:
        return "\n".join(option_table(Options, set()))
    protocol = find_protocols()[name]
    assert protocol.cls is not None, protocol.reason
    paragraphs = [textwrap.fill(" ".join(text.split()), 120) for text in protocol.description.split("\n\n")]
    title = f"`{name}`, `protocol_id` {protocol.id}"
    known = set(Options.__struct_fields__)
    return "\n".join(
        [title, "", in_code("\n\n".join(paragraphs).replace("``", "`")), "", *option_table(protocol.config, known)]
    )


def with_tables(page: str) -> str:
    """``page`` with what stands between the marks replaced."""
    return BLOCK.sub(lambda match: f"<!-- options of {match[1]} -->\n\n{options_of(match[1])}\n\n<!-- end -->", page)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
