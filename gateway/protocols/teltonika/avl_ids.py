"""Which row of the AVL dictionary a model's AVL id means: data/avl_ids.csv and data/models.csv.

One AVL id means different things on different models, so a row names the tables (pages of the Teltonika wiki) that
print it, and the families that they belong to. Columns of avl_ids.csv:

    avl_id, name, bytes, signed, min, max, unit, families, tables    from Teltonika's tables
    parameter                                   flespi's names, ``|`` between them; none: custom.param.<id>
    kind, scale, detail                         how the wire value becomes the parameters, see rules.py
    ours                                        what in this row is our own judgement, and why; where there is no
                                                parameter: why there is none

``bytes`` and ``unit`` are what the table prints. They are kept to be read: a width comes from the wire.
"""

from __future__ import annotations

import csv
import functools
import re
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import attrs

DEFAULT_FAMILY = "FMB"
DEFAULT_TABLE = "fmb120"

_SHORTEST_NAME = len("FM36")
_SHORTEST_BEGINNING = 3

# The dictionary of 2019 is an older edition of the tables of these families: it names ids that they no longer print.
_OLDER_EDITION = {"FMX6": "FM64(2019)", "FM63XY": "FM64(2019)"}


def read_table(name: str) -> Iterator[dict[str, str]]:
    """The rows of ``data/<name>``."""
    with files(__package__).joinpath("data", name).open(encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _is_yes(text: str) -> bool:
    return text == "yes"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _families(text: str) -> frozenset[str]:
    """``FMB;FTX[ftc134 ftc305]``: FMB as a whole, FTX in part."""
    return frozenset(family.partition("[")[0] for family in text.split(";") if family)


@attrs.frozen
class AvlRow:
    """One row of the dictionary. ``signed``: two's complement at the width that it has on the wire."""

    avl_id: int = attrs.field(converter=int)
    name: str
    bytes: str
    signed: bool = attrs.field(converter=_is_yes)
    min: str
    max: str
    unit: str
    families: frozenset[str] = attrs.field(converter=_families)
    tables: frozenset[str] = attrs.field(converter=_words)
    parameter: str
    kind: str
    scale: str
    detail: str
    ours: str

    @property
    def parameters(self) -> list[str]:
        """The names in ``parameter``, in their order."""
        return self.parameter.split("|") if self.parameter else []


@attrs.frozen
class Model:
    """A model and the table that is printed for it; a family without tables of its own has an empty ``table``."""

    model: str
    family: str
    table: str


@functools.cache
def all_rows() -> tuple[AvlRow, ...]:
    """Every row of avl_ids.csv, by ascending AVL id."""
    return tuple(AvlRow(**_without_none(row)) for row in read_table("avl_ids.csv"))


def _without_none(row: dict[str, Any]) -> dict[str, Any]:
    return {column: value or "" for column, value in row.items()}


@functools.cache
def known_models() -> dict[str, Model]:
    """Every model of models.csv by its name, in capitals."""
    return {row["model"]: Model(row["model"], row["family"], row["table"]) for row in read_table("models.csv")}


def find_model(name: str | None) -> Model:
    """The model that ``name`` means, as ``FMB120``, ``fmb120`` or an ordering code as ``FMB120-BTZ9FD``.

    A model that is newer than this list is of the family of those whose names begin like it: FMC660 is one as FMC650. A
    name that says nothing to us is taken for one of the FMB family, the most common by far.
    """
    models = known_models()
    code = re.sub(r"[^0-9A-Z]", "", (name or "").upper())
    for length in range(len(code), _SHORTEST_NAME - 1, -1):
        if code[:length] in models:
            return models[code[:length]]
    family = _family_of(code)
    return Model("", family, DEFAULT_TABLE if family == DEFAULT_FAMILY else "")


def _family_of(code: str) -> str:
    """The family that most models have whose names share the longest beginning with ``code``."""
    for length in range(len(code), _SHORTEST_BEGINNING - 1, -1):
        families = Counter(model.family for name, model in known_models().items() if name.startswith(code[:length]))
        if families:
            return families.most_common(1)[0][0]
    return DEFAULT_FAMILY


def _rank(row: AvlRow, family: str, table: str) -> int:
    """How well ``row`` fits: 0 is best, 5 means not at all."""
    if table in row.tables:
        return 0
    if family in row.families:
        return 1 if DEFAULT_TABLE in row.tables else 2
    if _OLDER_EDITION.get(family) in row.families:
        return 3
    return 5 if row.families else 4


@functools.cache
def rows_for(family: str, table: str) -> dict[int, AvlRow]:
    """The row of each AVL id that a model of this family and table can send.

    Best is the row that the model's own table prints, then one of another table of its family (a device that sends an
    id knows it, whatever the page of its model says), then the family's older edition, then an id that only flespi
    names. Rows of other families are never used: their ids mean something else.
    """
    best: dict[int, tuple[int, AvlRow]] = {}
    for row in all_rows():
        rank = _rank(row, family, table)
        if rank < 5 and rank < best.get(row.avl_id, (5, row))[0]:
            best[row.avl_id] = (rank, row)
    return {avl_id: row for avl_id, (_, row) in best.items()}
