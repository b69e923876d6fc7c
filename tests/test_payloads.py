"""Structured values: crash traces, fault codes, coordinates, operators, names; any bytes are read or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import DecodeError
from gateway.protocols.teltonika import beacons, payloads

VECTORS = {
    vector["name"]: vector for vector in json.loads((Path(__file__).parent / "vectors" / "teltonika.json").read_text())
}
READERS = {548: beacons.read_advanced_beacons, 387: payloads.read_iso6709}
VALUES = [vector for vector in VECTORS.values() if vector["transport"] == "value"]


@pytest.mark.parametrize("vector", VALUES, ids=lambda vector: vector["name"])
def test_a_published_value_is_read_as_it_says(vector: dict[str, Any]) -> None:
    read = READERS.get(vector["avl_id"], beacons.read_advanced_beacons)
    assert read(bytes.fromhex(vector["hex"])) == vector["expect"]


def test_an_unknown_version_of_an_advanced_list_is_refused() -> None:
    with pytest.raises(DecodeError):
        beacons.advanced_beacons_message(b"\x02")


def test_a_crash_trace_is_in_g() -> None:
    """Samples of X, Y and Z as signed mg."""
    trace = VECTORS["wiki-crash-trace-udp"]["expect"]["records"][0]["io"][1]["hex"]
    samples = payloads.read_trace(bytes.fromhex(trace))
    assert len(samples) == 20
    assert samples[0] == {"x": 0.029, "y": 0.063, "z": 1.011}
    assert payloads.read_trace(b"\xff\xff\x80\x00\x00\x00") == [{"x": -0.001, "y": -32.768, "z": 0.0}]
    with pytest.raises(DecodeError):
        payloads.read_trace(bytes(7))


def test_three_axes_are_in_g() -> None:
    assert payloads.read_axes(0x0000_03E8_FC18_0001) == (1.0, -1.0, 0.001)
    with pytest.raises(DecodeError):
        payloads.read_axes(0x0001_0000_0000_0000)


def test_the_vector_of_a_crash_is_three_axes_and_their_length_in_g() -> None:
    """The axes have a sign, the length has none."""
    assert payloads.read_vector(0x03E8_FC18_0001_FFFF) == (1.0, -1.0, 0.001, 65.535)


def test_alcohol_in_the_blood_is_14_bits_of_it_and_2_of_the_test() -> None:
    assert payloads.read_alcohol(500 << 2 | 1) == (0.5, 1)
    assert payloads.read_alcohol(0xFFFF) == (16.383, 3)
    assert payloads.read_alcohol(0) == (0.0, 0)


def test_fault_codes_may_have_dots_between_them_where_the_table_says_so() -> None:
    """AVL id 525 of FMX6; elsewhere a dot belongs to a code."""
    assert [code["code"] for code in payloads.read_fault_codes(b"P0101.P0420", ".")] == ["P0101", "P0420"]
    assert payloads.read_fault_codes(b"P0101.P0420") == [{"code": "P0101.P0420"}]


def test_fault_codes_are_objects_with_their_standard() -> None:
    assert payloads.read_fault_codes(b"P0100,P0200, U1000\0") == [
        {"code": "P0100", "standard": "OBDII"},
        {"code": "P0200", "standard": "OBDII"},
        {"code": "U1000", "standard": "OBDII"},
    ]
    assert payloads.read_fault_codes(b"SPN 123 FMI 4") == [{"code": "SPN 123 FMI 4"}]
    assert payloads.read_fault_codes(b"") == []


def test_a_fault_code_on_the_bus_is_hexadecimal() -> None:
    assert payloads.read_fault_number(0x00012304) == [{"code": "00012304", "standard": "J1939"}]
    assert payloads.read_fault_number(0) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [(24602, ("24602", 246, 2)), (310410, ("310410", 310, 410)), (25701, ("25701", 257, 1)), (101, ("00101", 1, 1))],
)
def test_an_operator_is_mcc_and_mnc(value: int, expected: tuple[str, int, int]) -> None:
    """Five digits have an MNC of two, six one of three; the number lost the zeros that a code begins with."""
    assert payloads.read_operator(value) == expected


@pytest.mark.parametrize("value", [0, 1_000_000, 4294967295])
def test_a_number_that_is_no_operator_is_refused(value: int) -> None:
    with pytest.raises(DecodeError):
        payloads.read_operator(value)


def test_a_button_is_half_a_byte_and_so_is_what_was_done_to_it() -> None:
    assert payloads.read_button(b"\x13") == (1, 3)


def test_who_came_too_near_is_a_mac_address_or_an_imei() -> None:
    """Both examples are Teltonika's."""
    assert payloads.read_proximity(b"D5A41B8B1075") == ("mac.address", "D5A41B8B1075")
    assert payloads.read_proximity(b"0147159B82AEFC") == ("ident", str(0x0147159B82AEFC))


def test_fifteen_digits_are_a_number_or_one_digit_a_nibble() -> None:
    assert payloads.read_digits(246020100001234) == "246020100001234"
    assert payloads.read_digits(1_010_000_001_234) == "001010000001234"
    assert payloads.read_digits(0x0352093081452251) == "352093081452251"
    with pytest.raises(DecodeError):
        payloads.read_digits(0xABCDEF0123456789)


def test_a_version_of_fms_is_four_digits() -> None:
    assert payloads.read_fms_version(int.from_bytes(b"0304", "big")) == "03.04"


def test_a_name_is_in_the_part_of_iso_8859_that_its_first_byte_says() -> None:
    assert payloads.read_name(b"\x01J\xfcrgen\0\0") == "Jürgen"
    assert payloads.read_name(b"\x05\xb8\xd2\xd0\xdd") == "Иван"
    assert payloads.read_name(b"Ann") == "Ann"
    assert payloads.read_name(b"") == ""


READ = [
    beacons.beacons_message,
    beacons.advanced_beacons_message,
    beacons.ble_devices_message,
    payloads.read_trace,
    payloads.read_fault_codes,
    payloads.read_iso6709,
    payloads.read_button,
    payloads.read_proximity,
    payloads.read_name,
]


@pytest.mark.parametrize("read", READ, ids=lambda read: read.__name__)
@given(data=st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(read: Any, data: bytes) -> None:
    """What the docstrings promise: DecodeError or a value that JSON can hold, nothing else."""
    try:
        value = read(data)
    except DecodeError:
        return
    assert json.loads(json.dumps(value)) is not None
