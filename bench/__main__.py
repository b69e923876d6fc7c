"""``python -m bench [part ...]``: run the benchmarks, print a table, write ``bench/results.json``."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from bench.processes import NotStarted
from bench.rows import Row, table, write

PARTS = (
    *("decode", "normalize", "mqtt", "ingest", "end_to_end", "idle", "load", "history"),
    *("workers", "streams", "neighbors"),
)
RESULTS = Path(__file__).parent / "results.json"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the gateway.")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"which ones (default: all): {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON goes (default: %(default)s)")
    options = parser.parse_args(arguments)
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)} (there are: {', '.join(PARTS)})")
    measured = {part: _run(part) for part in options.parts or PARTS}
    rows = [row for part in measured.values() for row in part or ()]
    print(table(rows))
    write(rows, options.out)
    return 1 if None in measured.values() else 0


def _run(part: str) -> list[Row] | None:
    """The rows of a part; None when something that it needs did not start, so that the others are measured still."""
    print(f"measuring {part} ...", file=sys.stderr, flush=True)
    try:
        rows: list[Row] = importlib.import_module(f"bench.{part}").run()
    except NotStarted as error:
        print(f"{part}: {error}", file=sys.stderr)
        return None
    return rows


if __name__ == "__main__":
    sys.exit(main())
