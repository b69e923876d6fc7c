"""Lists of Bluetooth beacons: what stands in the bytes, and what becomes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.errors import DecodeError
from gateway.protocols.teltonika import beacons

VECTORS = {
    vector["name"]: vector for vector in json.loads((Path(__file__).parent / "vectors" / "teltonika.json").read_text())
}
EIGHT_BEACONS = VECTORS["wiki-beacon385-8-beacons"]["expect"]["records"][0]["io"][0]


def test_a_list_of_beacons_of_every_flag_is_read() -> None:
    """iBeacon and Eddystone, with and without battery and temperature."""
    assert beacons.read_beacons(bytes.fromhex(EIGHT_BEACONS["hex"])) == EIGHT_BEACONS["beacons385"]


def test_beacons_become_objects_with_id_and_rssi() -> None:
    found = beacons.beacons_message(bytes.fromhex(EIGHT_BEACONS["hex"]))
    assert len(found["ble.beacons"]) == 8
    assert found["ble.beacons"][0] == {"id": "4b5c049f515341fca950d2c264414e1000050006", "rssi": -70}
    assert found["ble.beacons"][3] == {
        "id": "00112233445566778899abcde0810047",
        "rssi": -82,
        "battery.voltage": 3.048,
        "temperature": 21,
    }
    assert set(found) == {"ble.beacons"}


def test_an_empty_list_of_beacons_is_a_list() -> None:
    assert beacons.beacons_message(b"\x11") == {"ble.beacons": []}


def test_a_part_of_a_list_of_beacons_says_which() -> None:
    """A list that does not fit into one record is split: 2 of 3 is byte 23."""
    found = beacons.beacons_message(b"\x23\x01" + bytes(16) + b"\xc4")
    assert found["ble.beacons"] == [{"id": "00" * 16, "rssi": -60}]
    assert (found["ble.beacons.part.number"], found["ble.beacons.part.total"]) == (2, 3)


@pytest.mark.parametrize("data", [b"", b"\x11\x21\x00", b"\x11\x01" + bytes(16), b"\x11\x80" + bytes(16)])
def test_a_list_of_beacons_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        beacons.beacons_message(data)


def test_proximity_of_eye_beacons_is_told_per_beacon() -> None:
    value = bytes.fromhex(VECTORS["wiki-value-eye-proximity-near"]["hex"])
    assert beacons.advanced_beacons_message(value, "near") == {
        "ble.beacons": [
            {
                "proximity": "near",
                "rssi": -27,
                "mac.address": "7cd9f401ef77",
                "low.battery.status": False,
                "battery.voltage": 3.07,
                "id": "7cd9f401ef77",
            }
        ]
    }


def test_every_type_of_an_advanced_beacon_has_its_unit() -> None:
    fields = "0001c4 0502 4142 0602ff38 070132 080101 090100 0a02012c 0b01f1 0c02ff4c 100200ff 2001aa"
    data = bytes.fromhex(fields)
    (beacon,) = beacons.advanced_beacons_message(bytes([1, len(data)]) + data)["ble.beacons"]
    assert beacon == {
        "rssi": -60,
        "name": "AB",
        "temperature": -2.0,
        "humidity": 50,
        "magnet.status": True,
        "movement.status": False,
        "movement.count": 300,
        "pitch.angle": -15,
        "roll.angle": -180,
        "magnet.count": 255,
        "tlv.32": "aa",
    }


def test_bluetooth_devices_of_asset_trackers_are_read() -> None:
    """Number, then MAC, RSSI, slot and two payloads with their sizes for each."""
    first = bytes.fromhex("7cd9f401ef77 c4 02 02 0a0b 00")
    second = bytes.fromhex("7cd9f401ef78 a0 03 00 01ff")
    assert beacons.ble_devices_message(b"\x02" + first + second)["ble.beacons"] == [
        {"id": "7cd9f401ef77", "mac.address": "7cd9f401ef77", "rssi": -60, "slot": 2, "payload.hex": "0a0b"},
        {
            "id": "7cd9f401ef78",
            "mac.address": "7cd9f401ef78",
            "rssi": -96,
            "slot": 3,
            "additional.payload.hex": "ff",
        },
    ]
    with pytest.raises(DecodeError):
        beacons.ble_devices_message(b"\x01" + first + b"\0")
