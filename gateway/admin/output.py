"""What the commands print: tables for people, JSON for programs.

A table that is too wide for the terminal leaves out its least important columns; into a file or a pipe it goes whole.
Whatever came from a tracker or another user is printed without its control characters.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from attrs import frozen
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.admin.client import Item

UNLIMITED = 100_000
"""Columns of what is not a terminal."""
PADDING = 2
TOLD_MOST = 10
"""Cells that stand below a table."""
LIST_MOST = 4
"""Items of a list in one cell."""


@frozen
class Column:
    """``cell`` makes the text of an item. ``drop``: the column with the greatest one goes first, 0 never goes.
    ``shrink``: it may be cut to so many characters before any column goes; 0: it may not. ``is_told``: what had no room
    stands below the table, as a whole. ``is_folded``: it goes on in the next line instead of being cut."""

    title: str
    cell: Callable[[Item], str]
    drop: int = 0
    shrink: int = 0
    is_number: bool = False
    is_told: bool = False
    is_folded: bool = False


def column(
    title: str,
    name: str = "",
    drop: int = 0,
    show: Callable[[Any], str] | None = None,
    shrink: int = 0,
    is_told: bool = False,
    is_folded: bool = False,
) -> Column:
    """The column of a field; dots lead into objects."""
    shown = show or text
    return Column(title, lambda item: shown(part(item, name or title)), drop, shrink, show is count, is_told, is_folded)


class _Console(Console):
    """Leaves it to the command what happens when nobody reads any more."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Output:
    """Prints to standard output. ``is_json``: JSON and nothing else; notes and questions go to standard error."""

    def __init__(self, is_json: bool = False) -> None:
        self.is_json = is_json
        self._is_terminal = sys.stdout.isatty()
        self._console = _Console(
            file=sys.stdout, highlight=False, markup=False, emoji=False, width=None if self._is_terminal else UNLIMITED
        )
        self.width = self._console.width

    def items(self, items: Sequence[Item], columns: Sequence[Column], nothing: str, *, is_chosen: bool = False) -> None:
        """A table, or a JSON array; ``nothing`` is said where there are no items. ``is_chosen``: somebody asked for
        these columns, and learns which of them have no room."""
        if self.is_json:
            self.document(list(items))
        elif items:
            cells = {one: [printable(one.cell(item)) for item in items] for one in columns}
            widths = _fitting(cells, self.width)
            self._print_table(cells, widths)
            for told in _cut(cells, widths)[:TOLD_MOST]:
                self.line(told)
            missing = [one.title for one in columns if one not in widths and any(cells[one])]
            if missing and is_chosen:
                self.note(f"no room for {', '.join(missing)}: take a wider terminal, or | cat")
        else:
            self.note(nothing)

    def details(self, items: Sequence[Item]) -> None:
        """Every field of every item, one below the other; or a JSON array."""
        if self.is_json:
            self.document(list(items))
            return
        for position, item in enumerate(items):
            if position:
                self.line("")
            rows = list(flat(item))
            width = max((cell_len(name) for name, _ in rows), default=0)
            for name, value in rows:
                self._console.print(Text.assemble((f"{name:<{width}}  ", "bold"), value), soft_wrap=True)

    def document(self, value: Any) -> None:
        """One JSON document."""
        print(json.dumps(value, ensure_ascii=False, indent=2))

    def json_line(self, value: Any) -> None:
        """One JSON text in a line of its own, at once."""
        print(json.dumps(value, ensure_ascii=False, separators=(",", ":")), flush=True)

    def line(self, words: str, style: str = "", *, is_cut: bool = False) -> None:
        """A line for people, at once. ``is_cut``: what does not fit into the terminal's line is left out."""
        self._console.print(Text(words, style), no_wrap=is_cut, overflow="ellipsis" if is_cut else "fold")
        sys.stdout.flush()

    def note(self, words: str) -> None:
        """Something beside the result."""
        print(words, file=sys.stderr)

    def _print_table(self, cells: Mapping[Column, Sequence[str]], widths: Mapping[Column, int]) -> None:
        rows = zip(*(cells[one] for one in widths), strict=True)
        if not self._is_terminal:
            for row in ([one.title for one in widths], *rows):
                print((" " * PADDING).join(map(_padded, row, widths, widths.values())).rstrip())
            return
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, PADDING, 0, 0))
        for one, width in widths.items():
            side = "right" if one.is_number else "left"
            table.add_column(
                one.title,
                justify=side,  # type: ignore[arg-type]
                no_wrap=not one.is_folded,
                overflow="fold" if one.is_folded else "ellipsis",
                width=width,
            )
        for row in rows:
            table.add_row(*map(Text, row))
        self._console.print(table)


def _padded(cell: str, column: Column, width: int) -> str:
    space = " " * (width - cell_len(cell))
    return space + cell if column.is_number else cell + space


def _cut(cells: Mapping[Column, Sequence[str]], widths: Mapping[Column, int]) -> list[str]:
    """What had no room, but should be read: each text once, after the first column's of its row."""
    names = next(iter(cells.values()))
    found: dict[str, str] = {}
    for one in cells:
        for name, cell in zip(names, cells[one], strict=True):
            if one.is_told and cell_len(cell) > widths.get(one, 0):
                found.setdefault(cell, name)
    return [f"{name}: {cell}" for cell, name in found.items()]


def _fitting(cells: Mapping[Column, Sequence[str]], width: int) -> dict[Column, int]:
    """The columns that say something and fit, and how wide each is."""
    shown = [one for one in cells if one.drop == 0 or any(cells[one])]
    natural = {one: max(map(cell_len, [one.title, *cells[one]])) for one in shown}
    least = {
        one: min(natural[one], max(one.shrink, cell_len(one.title))) if one.shrink else natural[one] for one in shown
    }
    while _total(least[one] for one in shown) > width:
        first = max(shown, key=lambda one: one.drop)
        if not first.drop:
            break
        shown.remove(first)
    widths = {one: least[one] for one in shown}
    for one in shown:
        widths[one] += min(natural[one] - least[one], max(0, width - _total(widths.values())))
    return widths


def _total(widths: Iterable[int]) -> int:
    return sum(width + PADDING for width in widths) - PADDING


def part(item: Any, path: str) -> Any:
    """What stands at ``path``; keys may have dots in them."""
    if not isinstance(item, dict):
        return None
    if path in item:
        return item[path]
    first, _, rest = path.partition(".")
    return part(item.get(first), rest) if rest else None


def flat(item: Item, prefix: str = "") -> Iterable[tuple[str, str]]:
    """Names and values in lines; objects inside are taken apart."""
    for name, value in item.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            path = prefix + name
            shown = printable(text(value) if not isinstance(value, list) else compact(value))
            yield printable(path), f"{shown}  ({when(value)})" if _is_moment(path, value) else shown


def _is_moment(path: str, value: Any) -> bool:
    names = ("timestamp", "expire", "created", "accessed", "last_active", "established")
    return path.rpartition(".")[2] in names and isinstance(value, int | float) and value > 1e9


def text(value: Any) -> str:
    """A value in a cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        shown = ", ".join(text(one) for one in value[:LIST_MOST])
        return shown + (f", +{len(value) - LIST_MOST}" if len(value) > LIST_MOST else "")
    return value if isinstance(value, str) else compact(value)


def compact(value: Any) -> str:
    """As JSON in a line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def count(value: Any) -> str:
    """A number, with a space between thousands."""
    return (
        f"{value:,}".replace(",", " ")
        if isinstance(value, int | float) and not isinstance(value, bool)
        else text(value)
    )


def when(value: Any) -> str:
    """UNIX seconds as local time."""
    try:
        moment = datetime.fromtimestamp(value)
    except (TypeError, ValueError, OverflowError, OSError):
        return text(value)
    return f"{moment:%Y-%m-%d %H:%M:%S}" + (f".{moment.microsecond // 1000:03}" if moment.microsecond else "")


def ago(value: Any) -> str:
    """How long ago that was."""
    return f"{age(value)} ago" if age(value) else ""


def age(value: Any) -> str:
    """The time since then."""
    return seconds(max(0.0, time.time() - value)) if isinstance(value, int | float) and value else ""


def seconds(value: Any) -> str:
    """A duration in its greatest units: 45s, 12m, 3h 5m, 8d 2h."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return text(value)
    whole = int(value)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 86400:
        return f"{whole // 3600}h" + (f" {whole % 3600 // 60}m" if whole % 3600 >= 60 else "")
    return f"{whole // 86400}d" + (f" {whole % 86400 // 3600}h" if whole % 86400 >= 3600 else "")


def size(value: Any) -> str:
    """Bytes."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return text(value)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def printable(words: str) -> str:
    """Without what could move a terminal's cursor or change its colors."""
    return (
        words if words.isprintable() else "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in words)
    )
