"""Places in addresses and keys that messages fill."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from gateway.stream.masks import filled, fixed_part, has_masks
from gateway.stream.target import Outgoing

OF_CHANNEL = Outgoing(b'{"channel.id":3}', "a b", channel_id=3)
OF_DEVICE = Outgoing(b'{"channel.id":3}', "a b", device_id=7)
POSTED = Outgoing(b"{}", "a b", device_id=7)


@pytest.mark.parametrize(
    ("template", "outgoing", "expected"),
    [
        ("plain", OF_CHANNEL, "plain"),
        ("%ident%/%ident%", OF_CHANNEL, "a b/a b"),
        ("%channel.id%-%device.id%", OF_CHANNEL, "3-"),
        ("%channel.id%-%device.id%", OF_DEVICE, "3-7"),
        ("%channel.id%-%device.id%", POSTED, "-7"),
        ("%20%idents%%ident", OF_CHANNEL, "%20%idents%%ident"),
        ("a%20%ident%", OF_CHANNEL, "a%20a b"),
    ],
)
def test_masks_are_replaced_and_nothing_else(template, outgoing, expected):
    assert filled(template, outgoing) == expected


def test_what_a_value_has_is_not_replaced_again_and_can_be_quoted():
    strange = Outgoing(b"{}", "%device.id%/x?", device_id=7)
    assert filled("%ident%", strange) == "%device.id%/x?"
    assert filled("/in/%ident%", strange, lambda value: quote(value, safe="")) == "/in/%25device.id%25%2Fx%3F"


def test_with_converted_names_the_gateways_own_count():
    converted = Outgoing(b'{"channelId":3}', "a", device_id=7, original={"channel.id": 3})
    assert filled("%channel.id%", converted) == "3"


@pytest.mark.parametrize(
    ("template", "begin"), [("plain", "plain"), ("a:%ident%", "a:"), ("%ident%", ""), ("50%:%device.id%", "50%:")]
)
def test_the_fixed_part_is_what_all_begin_with(template, begin):
    assert fixed_part(template) == begin
    assert has_masks(template) == (template != begin)
