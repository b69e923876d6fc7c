"""The dictionary: one row for an id and a table, a rule for every row, and the right row for a model."""

from __future__ import annotations

from collections import Counter

import pytest

from gateway import message as msg
from gateway.protocols.teltonika import rules
from gateway.protocols.teltonika.avl_ids import AvlRow, all_rows, find_model, known_models, rows_for
from gateway.protocols.teltonika.joins import find_joins
from gateway.protocols.teltonika.normalize import normalizer_for

WIDTHS = (1, 2, 4, 8)
NAMED = [row for row in all_rows() if row.kind]


def parameter_of(model: str | None, avl_id: int) -> str:
    found = find_model(model)
    return rows_for(found.family, found.table)[avl_id].parameter


def test_an_id_has_one_row_in_each_table() -> None:
    """Otherwise the order of the file would decide what a value means."""
    places = Counter((row.avl_id, table) for row in all_rows() for table in row.tables)
    assert [place for place, count in places.items() if count > 1] == []


def test_every_table_of_a_model_prints_rows() -> None:
    printed = {table for row in all_rows() for table in row.tables}
    assert {model.table for model in known_models().values()} - {""} <= printed


def test_every_row_has_a_rule_and_a_name_for_it() -> None:
    for row in NAMED:
        assert row.kind == "flags" or row.parameters, row
        for width in (*WIDTHS, 0):
            rules.make_rule(row, width)


def test_whatever_is_our_own_judgement_is_marked() -> None:
    """A rule that flespi's documents do not give says so: maps, error codes by analogy, changed names and scales."""
    inverted = [row for row in NAMED if row.kind == "map" and row.detail == "0:true,1:false"]
    assert inverted
    assert all(row.ours for row in inverted)


def _values(row: AvlRow, width: int) -> set[int]:
    """The least and the greatest that the table documents, and what the width can hold at its ends."""
    whole = 1 << (8 * width)
    documented = {int(text, 0) % whole for text in (row.min, row.max) if text.removeprefix("-").isdigit()}
    return {0, 1, whole // 2 - 1, whole // 2, whole - 1} | documented


@pytest.mark.parametrize("width", WIDTHS)
def test_every_row_makes_a_parameter_of_any_value_at_any_width(width: int) -> None:
    """Width comes from the wire, never from the dictionary; no value may raise, none may vanish."""
    joined = rules.JOINED
    for row in all_rows():
        rule = rules.make_rule(row, width)
        for value in _values(row, width):
            message: msg.Message = {}
            rule(message, value)
            assert message, (row.avl_id, row.kind, width, value)
            raw = {f"custom.param.{row.avl_id}"}
            assert set(message) <= raw | rules.parameters_of(row) or row.kind in joined
            assert msg.decode(msg.encode(message)) == message


@pytest.mark.parametrize("data", [b"", b"\0", b"1", b"\xff" * 3, bytes(range(256))], ids=len)
def test_every_row_makes_a_parameter_of_any_bytes(data: bytes) -> None:
    for row in all_rows():
        message: msg.Message = {}
        rules.make_rule(row, 0)(message, data)
        assert message, (row.avl_id, row.kind)
        assert msg.decode(msg.encode(message)) == message


def test_the_tables_of_a_model_decide_what_an_id_means() -> None:
    """AVL id 71 is the serial of a temperature sensor on an FMB and the state of the GNSS receiver on an FMX6."""
    assert parameter_of("FMB120", 71) == "onewire.sensor.serial.4"
    assert parameter_of("FMC650", 71) == "gnss.state.enum|gnss.status"
    assert parameter_of("FMB120", 385) == "ble.beacons"
    assert parameter_of("FMC650", 385) == "manual.can.15|manual.can.hex.15"
    assert parameter_of("FMB120", 251) == "idle.status"
    assert parameter_of("FM3612", 251).startswith("immobilizer.state.enum")


def test_an_id_that_the_page_of_a_model_leaves_out_is_that_of_its_family() -> None:
    """FMB010's page does not print CAN adapters; a device that sends their ids has one all the same."""
    row = rows_for("FMB", "fmb010")[85]
    assert "fmb010" not in row.tables
    assert row.parameter == "can.engine.rpm"


def test_an_id_of_another_family_has_no_name() -> None:
    assert 10504 not in rows_for("FTX", "ftc134")


@pytest.mark.parametrize("name", [None, "", "FMZ999", "lorry"])
def test_an_unknown_model_is_one_of_the_most_common_family(name: str | None) -> None:
    assert find_model(name).table == "fmb120"
    assert normalizer_for(name) is normalizer_for("FMB120")


@pytest.mark.parametrize(
    ("name", "model"),
    [("fmb120", "FMB120"), ("FMB120-BTZ9FD", "FMB120"), (" FMC 650 ", "FMC650"), ("tat141", "TAT141")],
)
def test_a_model_is_found_however_it_is_written(name: str, model: str) -> None:
    assert find_model(name).model == model


def test_a_family_without_tables_of_its_own_has_its_ids() -> None:
    assert parameter_of("FM1100", 69) == "gnss.state.enum|gnss.status"
    assert parameter_of("FM1100", 240) == "movement.status"


@pytest.mark.parametrize("model", sorted(known_models()))
def test_the_parts_of_what_is_joined_are_all_there(model: str) -> None:
    """A join of which a part is missing in the dictionary would never be complete."""
    found = known_models()[model]
    rows = rows_for(found.family, found.table)
    for join in set(find_joins(rows.values()).values()):
        kinds = [rows[avl_id].kind for avl_id in join.ids]
        parts = [rows[avl_id].detail.partition("/")[0] for avl_id in join.ids]
        if "part" in kinds or "name_part" in kinds:
            assert parts == [str(number + 1) for number in range(len(parts))]
            assert rows[join.ids[0]].detail == f"1/{len(parts)}"
        else:
            assert len(join.ids) == 2
