"""The catalogue: what normalization can emit is in it, with its unit, and the documentation says the same."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from gateway import parameters
from gateway.protocols.teltonika import rules
from gateway.protocols.teltonika.avl_ids import AvlRow, all_rows
from gateway.protocols.teltonika.normalize import RECORD_PARAMETERS, parameters_of

PAGE = Path(__file__).parent.parent / "docs" / "parameters.md"
TYPES = {"number", "boolean", "string", "array", "object"}

# What Teltonika prints, times the scale of the row, must be the unit of the parameter.
UNITS = {
    ("V", "0.001"): "volts",
    ("V", "0.01"): "volts",
    ("mV", "0.001"): "volts",
    ("mA", "0.001"): "amperes",
    ("A", "0.001"): "amperes",
    ("mG", "0.001"): "g",
    ("G", "0.001"): "g",
    ("m", "0.001"): "km",
    ("km", ""): "km",
    ("ml", "0.001"): "liters",
    ("l", ""): "liters",
    ("l", "0.1"): "liters",
    ("l", "0.001"): "liters",
    ("km/h", ""): "km/h",
    ("rpm", ""): "rpm",
    ("kg", ""): "kg",
    ("%", ""): "percentage",
    ("%RH", "0.1"): "percentage",
    ("°C", ""): "celsius",
    ("°C", "0.1"): "celsius",
    ("°C", "0.01"): "celsius",
    ("min", "60"): "seconds",
    ("Minutes", "60"): "seconds",
    ("minutes", "60"): "seconds",
    ("cm", "0.01"): "meters",
    ("m", "0.1"): "meters",
    ("m/s", "0.0036"): "km/h",
    ("1/min", "0.001"): "rpm",
    ("V", "0.1"): "volts",
    ("T", "0.1"): "tons",
    ("t", "0.1"): "tons",
    ("kg", "10"): "kg",
    ("10*t", "100"): "kg",
    ("10*Bar", "10"): "kPa",
    ("10*°C", "0.1"): "celsius",
    ("N", ""): "N",
    ("dBm", ""): "dBm",
    ("min", "1/60"): "hours",
    ("h", ""): "hours",
    ("s", ""): "seconds",
    ("ms", "0.001"): "seconds",
    ("kPa", ""): "kPa",
    ("kPa", "0.1"): "kPa",
    ("kPa", "10"): "kPa",
}
MEASURED = [row for row in all_rows() if row.kind in ("number", "sensor")]


def test_everything_that_a_record_can_yield_is_in_the_catalogue() -> None:
    assert sorted(name for name in parameters_of(all_rows()) if parameters.find(name) is None) == []


def test_every_parameter_has_a_type_and_a_meaning() -> None:
    for parameter in parameters.catalogue().values():
        assert set(parameter.type.split("|")) <= TYPES, parameter
        assert parameter.meaning, parameter


@pytest.mark.parametrize(("printed", "unit"), UNITS.items(), ids=str)
def test_a_scaled_value_is_in_the_unit_of_its_parameter(printed: tuple[str, str], unit: str) -> None:
    """The table prints a unit, the row scales it, the catalogue names the result: they agree for every row."""
    rows = [row for row in MEASURED if (row.unit, row.scale) == printed]
    assert rows
    assert {(row.parameters[0], _unit(row)) for row in rows if _unit(row) != unit} == set()


def _unit(row: AvlRow) -> str:
    found = parameters.find(row.parameters[0])
    assert found is not None
    return found.unit


def test_a_parameter_has_one_unit_whatever_id_it_comes_from() -> None:
    """Ids that print one physical unit may not reach one parameter with different scales."""
    kinds: dict[str, set[str]] = {}
    for row in MEASURED:
        unit = UNITS.get((row.unit, row.scale))
        if unit:
            kinds.setdefault(row.parameters[0], set()).add(unit)
    assert {name: units for name, units in kinds.items() if len(units) > 1} == {}


def test_the_type_in_the_catalogue_is_that_of_the_values() -> None:
    for row in all_rows():
        if row.kind in ("boolean", "number", "hex", "text", "decimal", "digits"):
            found = parameters.find(row.parameter)
            expected = {"boolean": "boolean", "number": "number"}.get(row.kind, "string")
            assert found is not None
            assert found.type == expected, row


def test_an_id_without_a_name_is_one_parameter_of_the_catalogue() -> None:
    assert parameters.find("custom.param.9999") is parameters.catalogue()["custom.param.<id>"]
    assert parameters.find("no.such.parameter") is None


def test_a_value_of_a_beacon_is_one_parameter_of_the_catalogue() -> None:
    """Those with a name of their own excepted."""
    assert parameters.find("ble.beacon.rssi.freezer") is parameters.catalogue()["ble.beacon.<value>.<n>"]
    assert parameters.find("ble.beacon.lost.event") is parameters.catalogue()["ble.beacon.lost.event"]


def test_the_parameters_of_every_record_are_not_those_of_an_id_by_chance() -> None:
    claimed = {name: row for row in all_rows() for name in rules.parameters_of(row)}
    assert {claimed[name].avl_id for name in RECORD_PARAMETERS if name in claimed} == {24}


def test_the_page_of_the_documentation_is_current() -> None:
    """It is written by ``python -m gateway.parameters > docs/parameters.md``."""
    page = io.StringIO()
    parameters.write_page(page)
    assert PAGE.read_text(encoding="utf-8") == page.getvalue()
