"""Plugin type msg-erase: parameters that nobody shall see."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.errors import ItemError
from gateway.plugin.base import OBLIGATORY
from tests.plugin_parts import MESSAGE, applied, made


@pytest.mark.parametrize(
    ("parameters", "left"),
    [
        (["din"], ["din.1", "can.rpm", "device.imei"]),
        (["din*"], ["can.rpm", "device.imei"]),
        (["din.?", "can.*"], ["din", "device.imei"]),
        (["nothing"], ["din", "din.1", "can.rpm", "device.imei"]),
        (["device.*"], ["din", "din.1", "can.rpm"]),
        (["*"], []),
        (["all"], []),
    ],
)
def test_names_and_masks_say_what_is_removed(parameters: list[str], left: list[str]) -> None:
    message = {"din": 1, "din.1": True, "can.rpm": 900, "device.imei": "123"}
    assert list(applied(made("msg-erase", parameters=parameters), message)) == left


@pytest.mark.parametrize("mask", ["*", "all", "device.*", "*t*", "????*"])
def test_no_mask_takes_what_every_message_has(mask: str) -> None:
    """Nor what tells messages of one timestamp apart."""
    message = {name: 1 for name in OBLIGATORY | {"timestamp.key"} if name not in MESSAGE}
    assert applied(made("msg-erase", parameters=[mask]), message) == message


@pytest.mark.parametrize("name", [*sorted(OBLIGATORY), "timestamp.key"])
def test_naming_what_every_message_has_is_refused(name: str) -> None:
    with pytest.raises(ItemError, match=f"{name} cannot be removed") as caught:
        made("msg-erase", parameters=["din", name])
    assert caught.value.field == "configuration.parameters"


@pytest.mark.parametrize("config", [{}, {"parameters": []}, {"parameters": [""]}, {"parameters": ["a"] * 501}])
def test_options_that_mean_nothing_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        made("msg-erase", **config)
