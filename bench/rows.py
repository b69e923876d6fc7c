"""What a benchmark returns, and how it is printed and kept.

A figure alone says little on a machine that is shared: a row therefore names the baseline that was measured in the same
run (or, where that is impossible, published), and the ratio to it is what a later run is compared by.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs


@attrs.frozen
class Row:
    """One measured figure: ``value`` in ``unit``, beside ``baseline`` in the same unit, which ``beside`` explains."""

    part: str
    what: str
    value: float
    unit: str
    baseline: float | None = None
    beside: str = ""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The value as a multiple of its baseline; None without a baseline."""
        return self.value / self.baseline if self.baseline else None

    def as_json(self) -> dict[str, Any]:
        """All fields and the ratio, as ``results.json`` holds them."""
        return {**attrs.asdict(self), "ratio": self.ratio}


def median_rate(work: Callable[[], int], seconds: float = 1.0, rounds: int = 5) -> float:
    """Call ``work`` again and again; it returns how many things it did. The median of ``rounds`` rates, per second.

    The median, not the best: on a shared machine the best round is luck, and the mean follows the worst.
    """
    work()
    return statistics.median(_rate(work, seconds / rounds) for _ in range(rounds))


def _rate(work: Callable[[], int], seconds: float) -> float:
    done, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        done += work()
    return done / elapsed


def quantile(values: Sequence[float], fraction: float) -> float:
    """The value below which ``fraction`` of ``values`` lie; 0.0 when there are none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


def table(rows: Iterable[Row]) -> str:
    """The rows as text, in columns, one line each."""
    lines = [_cells(row) for row in rows]
    head = ("part", "what", "value", "unit", "ratio", "beside", "note")
    widths = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head))]
    return "\n".join(_line(cells, widths) for cells in [head, *lines])


def write(rows: Iterable[Row], path: Path) -> None:
    """Write the rows to ``path`` as JSON, with what is needed to judge them: machine, Python, time."""
    text = json.dumps({"machine": machine(), "rows": [row.as_json() for row in rows]}, indent=1)
    path.write_text(text + "\n")


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _cells(row: Row) -> tuple[str, ...]:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    beside = "" if row.baseline is None else f"{_number(row.baseline)} {row.beside}"
    return row.part, row.what, _number(row.value), row.unit, ratio, beside, row.note


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    right = (2, 4)
    padded = (
        cell.rjust(width) if at in right else cell.ljust(width)
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(padded).rstrip()
