"""How a wire value becomes parameters: one rule for each kind that the dictionary's column ``kind`` can name.

    kind              parameters                     detail
    (none)            custom.param.<id>
    number            one; ``scale`` multiplies
    boolean           one                            0 is false, 1 is true; else custom.param.<id>
    map               any                            see enumerations.py
    switch            one, and the mask of all       the parameter's index is the bit plus 1
    sensor            number and error code          raw values that are error codes: ``850 2000 101-255``;
                                                     without a parameter for them they become custom.param.<id>
    sensor_status     boolean and error code         the same
    number_or_hex     number or text                 up to 4 bytes a number, more are text
    text decimal hex digits                          text, of different readings
    flags             those in can_flags.csv         which mask of can_flags.csv
    dtc_list          one                            what stands between fault codes, besides comma and semicolon
    harsh harsh_value iccid part name_part           values that mean something together: see joins.py
    the rest          structured values: see payloads.py and beacons.py

A rule takes the message and the value, puts its parameters in, and lets nothing out but DecodeError. Rules are made for
one width: 1, 2, 4 or 8 bytes, or 0 for a value that brings its own length.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from gateway.errors import DecodeError
from gateway.protocols.teltonika import beacons, can_flags, payloads
from gateway.protocols.teltonika.avl_ids import AvlRow
from gateway.protocols.teltonika.enumerations import map_value, read_map
from gateway.protocols.teltonika.values import Message, as_bytes, exact, keep_raw, scaler, to_signed

Rule = Callable[[Message, Any], None]
Maker = Callable[[AvlRow, int], Rule]

JOINED = frozenset({"harsh", "harsh_value", "iccid", "part", "name_part"})


def make_rule(row: AvlRow, width: int) -> Rule:
    """The rule of ``row`` for values of ``width`` bytes; a value that does not fit it becomes custom.param.<id>."""
    fits = width in _WIDTHS.get(row.kind, (0, 1, 2, 4, 8))
    make = _MAKERS[row.kind] if fits else _unnamed
    return _or_raw(make(row, width), row, width)


def parameters_of(row: AvlRow) -> set[str]:
    """Every parameter that the rule of ``row`` can put into a message, except custom.param.<id>."""
    names = set(row.parameters)
    if row.kind == "flags":
        names.update(can_flags.parameters(row.detail))
    elif row.kind == "switch":
        names.add(row.parameter.partition(".")[0])
    elif row.kind == "beacons":
        names.update({"ble.beacons.part.number", "ble.beacons.part.total"})
    return names


def _or_raw(rule: Rule, row: AvlRow, width: int) -> Rule:
    raw = _unnamed(row, width)

    def safe(message: Message, value: Any) -> None:
        try:
            rule(message, value)
        except (DecodeError, ValueError, TypeError, OverflowError, ArithmeticError, LookupError):
            raw(message, value)

    return safe


def _unnamed(row: AvlRow, width: int) -> Rule:
    def unnamed(message: Message, value: Any) -> None:
        signed = row.signed and width and isinstance(value, int)
        keep_raw(message, row.avl_id, to_signed(value, width) if signed else value)

    return unnamed


def number_reader(scale: str, signed: bool, width: int) -> Callable[[int], int | float]:
    """What a value of ``width`` bytes is with its sign and its scale."""
    scaled = scaler(scale)
    return (lambda value: scaled(to_signed(value, width))) if signed else scaled


def _number(row: AvlRow, width: int) -> Rule:
    name, read = row.parameter, number_reader(row.scale, row.signed, width)

    def number(message: Message, value: int) -> None:
        message[name] = exact(read(value))

    return number


def _boolean(row: AvlRow, width: int) -> Rule:
    name = row.parameter

    def boolean(message: Message, value: int) -> None:
        if value not in (0, 1):
            raise DecodeError("neither true nor false")
        message[name] = value == 1

    return boolean


def _map(row: AvlRow, width: int) -> Rule:
    columns = read_map(row)

    def mapped(message: Message, value: int) -> None:
        found = map_value(columns, value)
        if not found:
            raise DecodeError("not a value of this enumeration")
        message.update(found)

    return mapped


def switch_bit(parameter: str) -> tuple[str, int]:
    """``din.3`` is bit 2 of ``din``: that parameter, and the bit's value."""
    mask_name, _, index = parameter.partition(".")
    return mask_name, 1 << (int(index) - 1)


def _switch(row: AvlRow, width: int) -> Rule:
    name = row.parameter
    mask_name, bit = switch_bit(name)

    def switch(message: Message, value: int) -> None:
        if value not in (0, 1):
            raise DecodeError("neither on nor off")
        message[name] = value == 1
        message[mask_name] = message.get(mask_name, 0) & ~bit | bit * value

    return switch


def _error_codes(detail: str) -> tuple[range, ...]:
    """``850 101-255 -32768--181`` as ranges."""
    found = (re.fullmatch(r"(-?\d+)(?:-(-?\d+))?", token) for token in detail.split())
    return tuple(range(int(match[1]), int(match[2] or match[1]) + 1) for match in found if match)


def _sensor(row: AvlRow, width: int) -> Rule:
    name, _, error_name = row.parameter.partition("|")
    scale, errors = scaler(row.scale), _error_codes(row.detail)

    def sensor(message: Message, value: int) -> None:
        raw = to_signed(value, width) if row.signed else value
        if not any(raw in codes for codes in errors):
            message[name] = exact(scale(raw))
        elif error_name:
            message[error_name] = str(raw)
        else:
            raise DecodeError("an error code")

    return sensor


def _sensor_status(row: AvlRow, width: int) -> Rule:
    name, error_name = row.parameters

    def sensor_status(message: Message, value: int) -> None:
        if value in (0, 1):
            message[name] = value == 1
        else:
            message[error_name] = str(value)

    return sensor_status


def _number_or_hex(row: AvlRow, width: int) -> Rule:
    number_name, hex_name = row.parameters
    if 0 < width <= 4:
        return _single(number_name, lambda value, width: to_signed(value, width) if row.signed else value, width)
    return _single(hex_name, _as_hex, width)


def _single(name: str, read: Callable[[Any, int], Any], width: int) -> Rule:
    def single(message: Message, value: Any) -> None:
        message[name] = read(value, width)

    return single


def _as_hex(value: int | bytes, width: int) -> str:
    return value.hex() if isinstance(value, bytes) else f"{value:0{2 * width}x}"


def _as_text(value: int | bytes, width: int) -> str:
    return payloads.read_text(as_bytes(value, width))


def _of_value(read: Callable[[Any], Any]) -> Maker:
    """A rule for one parameter whose value ``read`` finds."""
    return lambda row, width: _single(row.parameter, lambda value, _: read(value), width)


def _of_width(read: Callable[[Any, int], Any]) -> Maker:
    return lambda row, width: _single(row.parameter, read, width)


def _of_parts(read: Callable[[Any], tuple[Any, ...]]) -> Maker:
    """A rule for several parameters, whose values ``read`` finds in their order."""

    def make(row: AvlRow, width: int) -> Rule:
        names = row.parameters

        def parts(message: Message, value: Any) -> None:
            message.update(zip(names, read(value), strict=True))

        return parts

    return make


def _fault_codes(row: AvlRow, width: int) -> Rule:
    return _single(row.parameter, lambda value, _: payloads.read_fault_codes(value, row.detail), width)


def _of_message(read: Callable[[bytes], Message]) -> Maker:
    return lambda row, width: lambda message, value: message.update(read(value))


def _operator(row: AvlRow, width: int) -> Rule:
    """Cached: nearly every record of a tracker names its operator, and a fleet knows few."""
    names = row.parameters

    @functools.lru_cache(maxsize=1024)
    def read(value: int) -> Message:
        return dict(zip(names, payloads.read_operator(value), strict=True))

    return lambda message, value: message.update(read(value))


def _eye_beacons(row: AvlRow, width: int) -> Rule:
    return lambda message, value: message.update(beacons.advanced_beacons_message(value, proximity=row.detail))


def _button(row: AvlRow, width: int) -> Rule:
    names = row.parameters
    return lambda message, value: message.update(zip(names, payloads.read_button(as_bytes(value, width)), strict=True))


def _proximity(row: AvlRow, width: int) -> Rule:
    def proximity(message: Message, value: bytes) -> None:
        what, text = payloads.read_proximity(value)
        message[f"proximity.violation.{what}"] = text

    return proximity


def _flags(row: AvlRow, width: int) -> Rule:
    known = can_flags.known_bits(row.detail)

    def flags(message: Message, value: int) -> None:
        can_flags.expand(message, row.detail, value)
        if value & ~known:
            keep_raw(message, row.avl_id, value)

    return flags


def _zone(row: AvlRow, width: int) -> Rule:
    """The number of the zone in which it is too fast: flespi's parameter is a boolean, so the number is kept raw."""

    def zone(message: Message, value: int) -> None:
        message[row.parameter] = value != 0
        if value:
            keep_raw(message, row.avl_id, value)

    return zone


_MAKERS: dict[str, Maker] = {
    "": _unnamed,
    "number": _number,
    "boolean": _boolean,
    "map": _map,
    "switch": _switch,
    "sensor": _sensor,
    "sensor_status": _sensor_status,
    "number_or_hex": _number_or_hex,
    "text": _of_width(_as_text),
    "hex": _of_width(_as_hex),
    "decimal": _of_value(str),
    "digits": _of_value(payloads.read_digits),
    "fms_version": _of_value(payloads.read_fms_version),
    "flags": _flags,
    "zone": _zone,
    "operator": _operator,
    "axes": _of_parts(payloads.read_axes),
    "vector": _of_parts(payloads.read_vector),
    "alcohol": _of_parts(payloads.read_alcohol),
    "button": _button,
    "proximity": _proximity,
    "trace": _of_value(payloads.read_trace),
    "dtc": _of_value(payloads.read_fault_number),
    "dtc_list": _fault_codes,
    "beacons": _of_message(beacons.beacons_message),
    "advanced_beacons": _of_message(beacons.advanced_beacons_message),
    "eye_beacons": _eye_beacons,
    "ble_devices": _of_message(beacons.ble_devices_message),
    **dict.fromkeys(JOINED, _unnamed),
}

# What makes sense only as an integer, only as bytes of any length, or only at one width; the rest at each.
_INTEGERS = ("number", "boolean", "map", "switch", "sensor", "sensor_status", "decimal", "digits", "flags", "zone")
_PAYLOADS = ("proximity", "trace", "dtc_list", "beacons", "advanced_beacons", "eye_beacons", "ble_devices")
_WIDTHS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys((*_INTEGERS, "operator", "dtc"), (1, 2, 4, 8)),
    **dict.fromkeys(_PAYLOADS, (0,)),
    "axes": (8,),
    "vector": (8,),
    "alcohol": (2,),
    "fms_version": (4,),
}
