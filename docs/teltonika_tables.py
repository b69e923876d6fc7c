"""Writes the tables of docs/teltonika.md from the dictionary: ``python docs/teltonika_tables.py``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from gateway.protocols.teltonika.avl_ids import AvlRow, Model, all_rows, known_models, rows_for

PAGE = Path(__file__).parent / "teltonika.md"
_BLOCK = re.compile(r"<!-- table: (\w+) -->\n.*?<!-- end -->", re.S)
_REASON = "no name: "


def with_tables(page: str) -> str:
    """``page`` with its tables as they should be."""
    return _BLOCK.sub(lambda match: f"<!-- table: {match[1]} -->\n\n{_TABLES[match[1]]()}\n<!-- end -->", page)


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def families() -> str:
    """Of each family: its models, and of all AVL ids that any of its tables prints, how many have a name."""
    return _table(("family", "models", "AVL ids", "named", "raw", "named"), [*map(_family, _families()), _everything()])


def _families() -> list[str]:
    return list(dict.fromkeys(model.family for model in known_models().values()))


def _family(family: str) -> tuple[object, ...]:
    models = [model for model in known_models().values() if model.family == family]
    return (family, len(models), *_counts(row for row in all_rows() if family in row.families))


def _everything() -> tuple[object, ...]:
    return ("all", len(known_models()), *_counts(all_rows()))


def _counts(rows: Iterable[AvlRow]) -> tuple[int, int, int, str]:
    """Ids, those with a name in at least one row, the others, and the share of the former."""
    rows = list(rows)
    ids = {row.avl_id for row in rows}
    named = {row.avl_id for row in rows if row.kind}
    return len(ids), len(named), len(ids - named), f"{100 * len(named) / len(ids):.1f} %"


def pages() -> str:
    """Of each table of the vendor's wiki: the models that it is for, and how many of its ids have a name."""
    found: dict[tuple[str, str], list[Model]] = {}
    for model in known_models().values():
        found.setdefault((model.family, model.table), []).append(model)
    return _table(("family", "table", "models", "AVL ids", "named"), [_page(*of) for of in sorted(found.items())])


def _page(of: tuple[str, str], models: list[Model]) -> tuple[object, ...]:
    family, table = of
    rows = rows_for(family, table).values()
    printed = [row for row in rows if table in row.tables] or [row for row in rows if family in row.families]
    count, named, _, _ = _counts(printed)
    return family, table or "(the family's)", " ".join(model.model for model in models), count, named


def reasons() -> str:
    """Why an id has no name, and which."""
    found: dict[str, set[int]] = {}
    for row in all_rows():
        if not row.kind:
            reason = re.sub(r"^the scale of \S+ on the wire", "the scale on the wire", row.ours.removeprefix(_REASON))
            reason = re.sub(r"(which bit is which is not known).*|, AVL id \d+,", r"\1", reason)
            found.setdefault(reason, set()).add(row.avl_id)
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    return _table(("why", "AVL ids", "which"), [(reason, len(ids), _spans(sorted(ids))) for reason, ids in ordered])


def _spans(ids: list[int]) -> str:
    """``1 2 3 7`` as ``1-3, 7``."""
    spans: list[list[int]] = []
    for avl_id in ids:
        if spans and avl_id == spans[-1][1] + 1:
            spans[-1][1] = avl_id
        else:
            spans.append([avl_id, avl_id])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


_TABLES = {"families": families, "pages": pages, "reasons": reasons}

if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
