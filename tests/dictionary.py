"""What data/avl_ids.csv says about a single value, read from the file without the gateway's code.

``expected`` knows the kinds that are one value or a few; of the others (``STRUCTURED``) it knows nothing.
"""

from __future__ import annotations

import csv
import functools
from fractions import Fraction
from pathlib import Path
from typing import Any

import gateway.protocols.teltonika

Row = dict[str, str]
Message = dict[str, Any]

DATA = Path(gateway.protocols.teltonika.__file__).parent / "data"
WIDTHS = (1, 2, 4, 8, 0)
"""Of a value on the wire, in bytes; 0: it brings its own length."""

LARGEST = 2**53
STRUCTURED = frozenset(
    {
        "operator",
        "axes",
        "vector",
        "alcohol",
        "button",
        "proximity",
        "trace",
        "dtc",
        "dtc_list",
        "digits",
        "fms_version",
    }
    | {"fms_version", "harsh", "harsh_value", "name_part", "beacons", "advanced_beacons", "eye_beacons", "ble_devices"}
)
_JOINED = frozenset({"part", "iccid"})


def read_rows(name: str = "avl_ids.csv") -> list[Row]:
    """The rows of a file of the dictionary."""
    with (DATA / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def expected(row: Row, width: int, value: int | bytes) -> Message:
    """The parameters of a ``value`` that comes alone."""
    kind, names = row["kind"], row["parameter"].split("|")
    if kind in _JOINED:
        return _raw(row, 0, value)
    if isinstance(value, bytes):
        return _of_bytes(kind, names, value) or _raw(row, width, value)
    if kind == "flags":
        return _of_flags(row, width, value)
    if kind == "zone":
        return {names[0]: value != 0} | (_raw(row, width, value) if value else {})
    return _of_integer(row, names, _signed(row, width, value), value, width) or _raw(row, width, value)


def _signed(row: Row, width: int, value: int) -> int:
    return value - (1 << 8 * width) if row["signed"] == "yes" and value >> (8 * width - 1) else value


def _raw(row: Row, width: int, value: int | bytes) -> Message:
    name = f"custom.param.{row['avl_id']}"
    if isinstance(value, bytes):
        return {name: value.hex()}
    number = _signed(row, width, value) if width else value
    return {name: number if abs(number) <= LARGEST else f"{number:x}"}


def _of_bytes(kind: str, names: list[str], value: bytes) -> Message:
    if kind in ("hex", "number_or_hex"):
        return {names[-1]: value.hex()}
    if kind == "text" and _text(value) is not None:
        return {names[0]: _text(value)}
    return {}


def _text(value: bytes) -> str | None:
    text = value.strip(b"\0 ").decode("latin-1")
    return text if text.isascii() and text.isprintable() else None


def _of_integer(row: Row, names: list[str], number: int, value: int, width: int) -> Message:
    kind, detail = row["kind"], row["detail"]
    wire = value.to_bytes(width, "big")
    if kind in ("hex", "text"):
        return _of_bytes(kind, names, wire)
    if kind == "number_or_hex":
        return {names[0]: number} if width <= 4 else {names[1]: wire.hex()}
    if kind == "number":
        return _number(row, names[0], number)
    if kind == "decimal":
        return {names[0]: str(value)}
    if kind == "boolean":
        return {names[0]: value == 1} if value in (0, 1) else {}
    if kind == "switch":
        stem, index = names[0].split(".")
        return {names[0]: value == 1, stem: value << (int(index) - 1)} if value in (0, 1) else {}
    if kind == "map":
        return _mapped(names, detail.split("|"), value)
    if kind == "sensor":
        if not _is_error(detail, number):
            return _number(row, names[0], number)
        return {names[1]: str(number)} if len(names) > 1 else {}
    if kind == "sensor_status":
        return {names[0]: value == 1} if value in (0, 1) else {names[1]: str(value)}
    return {}


def _of_flags(row: Row, width: int, value: int) -> Message:
    found: Message = {}
    known = 0
    for flag in _flags()[row["detail"]]:
        bit, bits = int(flag["bit"]), int(flag["bits"])
        known |= (2**bits - 1) << bit
        part = value >> bit & 2**bits - 1
        found[flag["parameter"]] = part if bits > 1 else bool(part) != bool(flag["values"])
    if row["detail"] == "doors":
        found["door.open.status"] = bool(value & known)
    return found | (_raw(row, width, value) if value & ~known else {})


@functools.cache
def _flags() -> dict[str, list[Row]]:
    masks: dict[str, list[Row]] = {}
    for flag in read_rows("can_flags.csv"):
        masks.setdefault(flag["flags"], []).append(flag)
    return masks


def _number(row: Row, name: str, number: int) -> Message:
    scale = Fraction(row["scale"] or "1")
    scaled = number * scale
    if abs(scaled) > LARGEST:
        return {}
    return {name: int(scaled) if scale.denominator == 1 else float(scaled)}


def _is_error(detail: str, number: int) -> bool:
    for token in detail.split():
        first, _, last = token[1:].partition("-")
        low = int(token[0] + first)
        if low <= number <= (int(last) if last else low):
            return True
    return False


def _mapped(names: list[str], columns: list[str], value: int) -> Message:
    found: Message = {}
    for name, column in zip(names, columns, strict=True):
        if column == "raw":
            if value > LARGEST:
                return {}
            found[name] = value
            continue
        meanings = dict(entry.split(":", 1) for entry in column.split(","))
        if str(value) in meanings:
            text = meanings[str(value)]
            found[name] = {"true": True, "false": False}.get(text, text)
    return found
