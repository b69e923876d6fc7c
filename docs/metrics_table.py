"""Writes the tables of docs/metrics.md from gateway/metrics.py: ``python docs/metrics_table.py``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gateway.metrics import CATALOG

PAGE = Path(__file__).parent / "metrics.md"
BEGIN, END = "<!-- written by metrics_table.py -->", "<!-- end -->"
TITLES = {"counter": "Counters", "histogram": "Histograms", "gauge": "Gauges"}


def tables() -> str:
    """A table for each kind of metric."""
    return "\n".join(line for kind, title in TITLES.items() for line in _table(kind, title))


def _table(kind: str, title: str) -> Iterator[str]:
    yield from (f"### {title}", "", "| name | labels | what |", "|---|---|---|")
    for metric in CATALOG.values():
        if metric.kind == kind:
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            yield f"| `{metric.exposed}` | {labels} | {metric.help} |"
    yield ""


def with_tables(page: str) -> str:
    """``page`` with what stands between the two marks replaced."""
    return re.sub(f"{BEGIN}\n.*?{END}", lambda _: f"{BEGIN}\n\n{tables()}\n{END}", page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
