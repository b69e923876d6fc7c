"""Plugin type item-fields: what does not change, put into each message."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.errors import ItemError
from gateway.plugin import PluginError
from tests.plugin_parts import applied, made


def test_fields_of_the_plugin_and_of_the_device_are_put_into_the_message() -> None:
    """The device's win."""
    plugin = made("item-fields", fields={"fleet": "north", "driver": None})
    assert applied(plugin, {}) == {"fleet": "north", "driver": None}
    assert applied(plugin, {"din": 1}, {"driver": "Bob"}) == {"din": 1, "fleet": "north", "driver": "Bob"}


@pytest.mark.parametrize(("wins", "driver"), [("message", "Eve"), ("field", "Bob")])
def test_which_of_the_two_wins_can_be_chosen(wins: str, driver: str) -> None:
    assert applied(made("item-fields", wins=wins), {"driver": "Eve"}, {"driver": "Bob"}) == {"driver": driver}


def test_what_the_message_has_wins_unless_told_otherwise() -> None:
    assert applied(made("item-fields"), {"driver": None}, {"driver": "Bob"}) == {"driver": None}


def test_a_prefix_is_before_all_of_them() -> None:
    plugin = made("item-fields", fields={"class": "van"}, prefix="vehicle.")
    assert applied(plugin, {}, {"color": "red"}) == {"vehicle.class": "van", "vehicle.color": "red"}


@pytest.mark.parametrize("name", ["ident", "timestamp", "device.name", "peer"])
def test_obligatory_parameters_are_never_overwritten(name: str) -> None:
    """Those of the configuration are refused; those of a device have no effect."""
    with pytest.raises(ItemError, match=f"{name} is obligatory") as caught:
        made("item-fields", fields={name: 1})
    assert caught.value.field == "configuration.fields"
    assert applied(made("item-fields", wins="field"), {}, {name: 1}) == {}


def test_a_prefix_can_make_a_name_obligatory() -> None:
    with pytest.raises(ItemError, match=r"device\.name is obligatory"):
        made("item-fields", fields={"name": 1}, prefix="device.")


def test_lists_and_objects_are_each_message_s_own() -> None:
    """A plugin behind that changes one does not change the configuration."""
    plugin = made("item-fields", fields={"tags": ["a"]})
    applied(plugin, {})["tags"].append("b")
    assert applied(plugin, {}) == {"tags": ["a"]}


@pytest.mark.parametrize(
    "config",
    [
        {"fields": {"": 1}},
        {"fields": {"a/b": 1}},
        {"fields": {"a#": 1}},
        {"fields": {"a\n": 1}},
        {"fields": {"a" * 129: 1}},
        {"fields": {str(n): n for n in range(101)}},
        {"prefix": "a/"},
        {"prefix": "a" * 65},
        {"wins": "nobody"},
    ],
)
def test_what_cannot_be_a_parameter_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        made("item-fields", **config)


@pytest.mark.parametrize("name", ["", "a/b", "a\n", "a" * 129])
def test_a_field_of_a_device_that_cannot_be_one_is_told(name: str) -> None:
    with pytest.raises(PluginError, match="cannot be a parameter"):
        applied(made("item-fields"), {}, {name: 1})


def test_a_name_that_is_too_long_with_its_prefix_is_refused() -> None:
    with pytest.raises(ItemError, match="cannot be a parameter"):
        made("item-fields", fields={"a" * 100: 1}, prefix="p" * 40)
