"""Plugin type ble-beacons: plain parameters of an array."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.errors import ItemError
from gateway.plugin import PluginError
from gateway.protocols.teltonika.beacons import advanced_beacons_message, beacons_message
from tests.plugin_parts import applied, made

A, B, C = ({"id": f"c0ffee00000{n}", "rssi": -60 - n} for n in (1, 2, 3))


def flat(array: Any, fields: dict[str, Any] | None = None, **config: Any) -> dict[str, Any]:
    """What the plugin adds, without what is before all of their names."""
    result = applied(made("ble-beacons", **config), {"ble.beacons": array}, fields)
    return {name.removeprefix("ble.beacon."): value for name, value in result.items() if name != "ble.beacons"}


def test_beacons_are_numbered_as_they_stand_in_the_array() -> None:
    assert flat([A, B | {"temperature": 4.5}]) == {
        "id.1": "c0ffee000001",
        "rssi.1": -61,
        "id.2": "c0ffee000002",
        "rssi.2": -62,
        "temperature.2": 4.5,
    }


def test_what_our_decoder_gives_is_understood() -> None:
    """AVL id 385, an Eddystone beacon with RSSI; and 548, with a name and a temperature."""
    data = bytes([0x11, 0x01]) + bytes(range(16)) + bytes([0xC4])
    message = beacons_message(data)
    assert flat(message["ble.beacons"]) == {"id.1": bytes(range(16)).hex(), "rssi.1": -60}
    fields = bytes([0, 1, 0xC4, 1, 2, 0xAB, 0xCD, 5, 3]) + b"cab" + bytes([6, 2, 0x01, 0xF4])
    message = advanced_beacons_message(bytes([1, len(fields)]) + fields)
    assert flat(message["ble.beacons"]) == {"rssi.1": -60, "id.1": "abcd", "name.1": "cab", "temperature.1": 5.0}


def test_a_beacon_with_a_name_has_it_in_the_place_of_the_number() -> None:
    """However the id is written; the others are numbered without it."""
    for id in ("c0ffee000002", "C0:FF:EE:00:00:02", "C0-FF-EE-00-00-02"):
        assert flat([A, B, C], names={id: "freezer"}) == {
            "id.freezer": "c0ffee000002",
            "rssi.freezer": -62,
            "id.1": "c0ffee000001",
            "rssi.1": -61,
            "id.2": "c0ffee000003",
            "rssi.2": -63,
        }


def test_a_beacon_is_found_by_its_mac_address_too() -> None:
    beacon = {"id": "uuid", "mac.address": "c0ffee000001"}
    assert flat([beacon], names={"c0ffee000001": "door"}) == {"id.door": "uuid", "mac.address.door": "c0ffee000001"}


def test_names_of_a_device_win_over_those_of_the_plugin() -> None:
    names = {"c0ffee000001": "plugin's", "c0ffee000002": "other"}
    assert flat([A, B], {"C0FFEE000001": "device's"}, names=names, others="skip") == {
        "id.device's": "c0ffee000001",
        "rssi.device's": -61,
        "id.other": "c0ffee000002",
        "rssi.other": -62,
    }


def test_beacons_without_a_name_can_be_left_out() -> None:
    assert flat([A, B], others="skip") == {}


def test_there_is_a_bound_and_those_with_a_name_come_first() -> None:
    array = [{"id": f"{n:04}"} for n in range(100)]
    assert len(flat(array)) == 10
    assert flat(array, names={"0099": "last"}, most=2) == {"id.last": "0099", "id.1": "0000"}


def test_the_array_stays_unless_told_otherwise() -> None:
    message = {"ble.beacons": [A]}
    assert applied(made("ble-beacons"), message)["ble.beacons"] == [A]
    assert "ble.beacons" not in applied(made("ble-beacons", erase=True), message)


@pytest.mark.parametrize("array", [None, "text", {"id": "a"}, [], [None, 1, "a", []]])
def test_what_is_no_list_of_beacons_is_left_alone(array: Any) -> None:
    assert flat(array) == {}


def test_what_cannot_be_a_parameter_is_left_in_the_array() -> None:
    beacon = {"id": "a", "list": [1], "object": {}, "a/b": 1, "": 1, "x" * 65: 1}
    assert flat([beacon]) == {"id.1": "a"}
    assert len(flat([{f"v{n}": n for n in range(100)}])) == 32


@pytest.mark.parametrize("label", ["", "a/b", "x" * 49, 5, None, ["a"]])
def test_a_field_of_a_device_that_is_no_name_is_told(label: Any) -> None:
    with pytest.raises(PluginError, match="field 'c0ffee'"):
        flat([A], {"c0ffee": label})


def test_too_many_fields_of_a_device_are_told() -> None:
    with pytest.raises(PluginError, match="1001 fields; 1000 are the most"):
        flat([A], {str(n): "a" for n in range(1001)})


def test_one_beacon_has_one_name() -> None:
    with pytest.raises(ItemError, match="the same beacon") as caught:
        made("ble-beacons", names={"C0:FF": "a", "c0ff": "b"})
    assert caught.value.field == "configuration.names"


@pytest.mark.parametrize("config", [{"names": {"a": "b/c"}}, {"names": {"": "a"}}, {"most": 0}, {"most": 51}])
def test_options_that_mean_nothing_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        made("ble-beacons", **config)
