"""Lists of Bluetooth beacons: AVL ids 385, 548, 585, 10828, 10829 and 10831.

``read_*`` give what stands in the bytes, in the words of Teltonika's documents; ``*_message`` make flespi's
``ble.beacons`` of it, an array of objects with ``id``, ``rssi`` and what else the beacon said. All integers are
big-endian (Teltonika wiki, pages "Bluetooth beacons", "Beacon list", "EYE BEACON")::

    385   part number : total parts (4 bits each) | per beacon: flags 1 | id | [RSSI 1] [battery 2] [temperature 2]
          flags: bit 0 RSSI, 1 battery in mV, 2 temperature in degrees, 5 the id is an iBeacon's (UUID 16, major 2,
          minor 2) and not an Eddystone's (namespace 10, instance 6)
    548   version 1 | per beacon: length 1 | type 1, length 1, value | ...
    585   number of devices 1 | per device: MAC 6 | RSSI 1 | slot 1 | size 1 | data | size 1 | additional data

EYE proximity lists (10828 near, 10829 away, 10831 lost) are laid out as 548, with more types.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from gateway.errors import DecodeError

Beacon = dict[str, Any]

_RSSI, _BATTERY, _TEMPERATURE, _IBEACON = 0x01, 0x02, 0x04, 0x20
_KNOWN_FLAGS = _RSSI | _BATTERY | _TEMPERATURE | _IBEACON


class _Reader:
    """Takes bytes off the front, and says so when there are none."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        taken = self.data[self.at : self.at + size]
        if len(taken) != size:
            raise DecodeError("a beacon list ends too early", self.at)
        self.at += size
        return taken

    def number(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "big", signed=signed)

    @property
    def more(self) -> bool:
        return self.at < len(self.data)


def read_beacons(data: bytes) -> dict[str, Any]:
    """AVL id 385 as ``part``, ``total`` and ``beacons``; an empty list is one byte. Raises DecodeError."""
    reader = _Reader(data)
    parts = reader.number(1)
    beacons = []
    while reader.more:
        beacons.append(_read_beacon(reader))
    return {"part": parts >> 4, "total": parts & 15, "beacons": beacons}


def _read_beacon(reader: _Reader) -> Beacon:
    flags = reader.number(1)
    if flags & ~_KNOWN_FLAGS:
        raise DecodeError(f"unknown beacon flags {flags:#04x}", reader.at)
    beacon: Beacon = {"flags": flags, **(_read_ibeacon(reader) if flags & _IBEACON else _read_eddystone(reader))}
    if flags & _RSSI:
        beacon["rssi"] = reader.number(1, signed=True)
    if flags & _BATTERY:
        beacon["battery_mv"] = reader.number(2)
    if flags & _TEMPERATURE:
        beacon["temperature_raw"] = reader.number(2, signed=True)
    return beacon


def _read_ibeacon(reader: _Reader) -> Beacon:
    data = reader.take(20)
    return {
        "type": "ibeacon",
        "uuid": str(uuid.UUID(bytes=data[:16])),
        "major": int.from_bytes(data[16:18], "big"),
        "minor": int.from_bytes(data[18:], "big"),
        "id_hex": data.hex(),
    }


def _read_eddystone(reader: _Reader) -> Beacon:
    data = reader.take(16)
    return {"type": "eddystone", "namespace": data[:10].hex(), "instance": data[10:].hex(), "id_hex": data.hex()}


def beacons_message(data: bytes) -> dict[str, Any]:
    """AVL id 385 as parameters. A list that is split over records names its part: joining is left to the reader."""
    found = read_beacons(data)
    message: dict[str, Any] = {"ble.beacons": [_named(beacon) for beacon in found["beacons"]]}
    if found["total"] != 1 or found["part"] != 1:
        message["ble.beacons.part.number"] = found["part"]
        message["ble.beacons.part.total"] = found["total"]
    return message


def _named(beacon: Beacon) -> Beacon:
    named: Beacon = {"id": beacon["id_hex"]}
    if "rssi" in beacon:
        named["rssi"] = beacon["rssi"]
    if "battery_mv" in beacon:
        named["battery.voltage"] = beacon["battery_mv"] / 1000
    if "temperature_raw" in beacon:
        named["temperature"] = beacon["temperature_raw"]
    return named


def _text(value: bytes) -> str:
    return value.decode("ascii") if value.isascii() and value.decode("ascii").isprintable() else value.hex()


def _unsigned(value: bytes) -> int:
    return int.from_bytes(value, "big")


def _signed(value: bytes) -> int:
    return int.from_bytes(value, "big", signed=True)


def _flag(value: bytes) -> bool:
    return any(value)


def _thousandth(value: bytes) -> float:
    return _unsigned(value) / 1000


def _hundredth(value: bytes) -> float:
    return _signed(value) / 100


# type: (length or 0 for any, name as Teltonika has it, its value, name in ble.beacons, its value there)
_Conversion = Callable[[bytes], Any]
_TYPES: dict[int, tuple[int, str, _Conversion, str, _Conversion]] = {
    0: (1, "rssi", _signed, "rssi", _signed),
    1: (0, "beacon_id", bytes.hex, "id", bytes.hex),
    2: (0, "additional", bytes.hex, "payload.hex", bytes.hex),
    5: (0, "name", _text, "name", _text),
    6: (2, "temperature", _hundredth, "temperature", _hundredth),
    7: (1, "humidity", _unsigned, "humidity", _unsigned),
    8: (1, "magnet", _unsigned, "magnet.status", _flag),
    9: (1, "movement", _unsigned, "movement.status", _flag),
    10: (2, "movement_count", _unsigned, "movement.count", _unsigned),
    11: (1, "pitch", _signed, "pitch.angle", _signed),
    12: (2, "roll", _signed, "roll.angle", _signed),
    13: (1, "low_battery", _unsigned, "low.battery.status", _flag),
    14: (2, "battery_mv", _unsigned, "battery.voltage", _thousandth),
    15: (6, "mac", bytes.hex, "mac.address", bytes.hex),
    16: (2, "magnet_count", _unsigned, "magnet.count", _unsigned),
}


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    reader = _Reader(data)
    fields = []
    while reader.more:
        kind = reader.number(1)
        fields.append((kind, reader.take(reader.number(1))))
    return fields


def _advanced(data: bytes) -> tuple[int, list[list[tuple[int, bytes]]]]:
    reader = _Reader(data)
    version = reader.number(1)
    beacons = []
    while reader.more:
        beacons.append(_fields(reader.take(reader.number(1))))
    if not all(beacons):
        raise DecodeError("a beacon without anything", 0)  # 64 KiB of these would make a message of megabytes
    return version, beacons


def read_advanced_beacons(data: bytes) -> dict[str, Any]:
    """AVL id 548 and the EYE lists as ``protocol`` and ``beacons``, each with its ``tlv``. Raises DecodeError."""
    version, beacons = _advanced(data)
    return {"protocol": version, "beacons": [_read_fields(fields) for fields in beacons]}


def _read_fields(fields: list[tuple[int, bytes]]) -> Beacon:
    beacon: Beacon = {"tlv": [[kind, value.hex()] for kind, value in fields]}
    for kind, value in fields:
        length, name, convert, _, _ = _TYPES.get(kind, (-1, "", bytes.hex, "", bytes.hex))
        if length in (0, len(value)):
            beacon[name] = convert(value)
    return beacon


def advanced_beacons_message(data: bytes, proximity: str = "") -> dict[str, Any]:
    """The same as ``ble.beacons``; ``proximity`` (near, away, lost) is added to each beacon. Raises DecodeError."""
    version, beacons = _advanced(data)
    if version != 1:
        raise DecodeError(f"unknown version {version} of a beacon list", 0)
    return {"ble.beacons": [_name_fields(fields, proximity) for fields in beacons]}


def _name_fields(fields: list[tuple[int, bytes]], proximity: str) -> Beacon:
    named: Beacon = {"proximity": proximity} if proximity else {}
    for kind, value in fields:
        length, _, _, name, convert = _TYPES.get(kind, (-1, "", bytes.hex, "", bytes.hex))
        if length in (0, len(value)):
            named[name] = convert(value)
        else:
            named[f"tlv.{kind}"] = value.hex()
    if "mac.address" in named:
        named.setdefault("id", named["mac.address"])
    return named


def ble_devices_message(data: bytes) -> dict[str, Any]:
    """AVL id 585 as ``ble.beacons``. Raises DecodeError."""
    reader = _Reader(data)
    beacons = [_read_device(reader) for _ in range(reader.number(1))]
    if reader.more:
        raise DecodeError("bytes after the last Bluetooth device", reader.at)
    return {"ble.beacons": beacons}


def _read_device(reader: _Reader) -> Beacon:
    mac = reader.take(6).hex()
    device: Beacon = {"id": mac, "mac.address": mac, "rssi": reader.number(1, signed=True), "slot": reader.number(1)}
    for name in ("payload.hex", "additional.payload.hex"):
        payload = reader.take(reader.number(1))
        if payload:
            device[name] = payload.hex()
    return device
