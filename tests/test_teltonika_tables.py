"""The tables of docs/teltonika.md are those of the dictionary, and what they count is right."""

from __future__ import annotations

from docs.teltonika_tables import PAGE, families, pages, reasons, with_tables
from gateway.protocols.teltonika.avl_ids import all_rows, known_models


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_tables_of_the_page_are_current() -> None:
    """``python docs/teltonika_tables.py`` writes them."""
    page = PAGE.read_text(encoding="utf-8")
    assert with_tables(page) == page
    assert page.count("<!-- table: ") == 3


def test_named_and_raw_are_all_ids_of_a_family() -> None:
    for family, models, ids, named, raw, _ in cells(families()):
        assert int(named) + int(raw) == int(ids), family
        assert int(models) > 0, family
    assert cells(families())[-1][:3] == ["all", str(len(known_models())), str(len({row.avl_id for row in all_rows()}))]


def test_every_family_has_names_for_most_of_its_ids() -> None:
    """A table that lost its names would show here first."""
    shares = {family: float(share.removesuffix(" %")) for family, _, _, _, _, share in cells(families())}
    assert min(shares.values()) > 70
    assert shares["all"] > 90


def test_every_model_is_in_one_line() -> None:
    assert sorted(model for line in cells(pages()) for model in line[2].split()) == sorted(known_models())


def test_a_reason_is_given_for_every_row_without_a_name() -> None:
    told = {int(end) for line in cells(reasons()) for span in line[2].split(", ") for end in span.split("-")}
    raw = {row.avl_id for row in all_rows() if not row.kind}
    assert told <= raw
    assert {min(raw), max(raw)} <= told
