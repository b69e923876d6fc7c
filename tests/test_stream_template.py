"""Places in addresses, topics and keys that messages fill."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from gateway.errors import ItemError
from gateway.stream.target import Outgoing, StreamInfo
from gateway.stream.template import NAMES, PLACES_MOST, SHOWN, Template, check_template, fixed_begin
from gateway.streams.amqp import Amqp
from gateway.streams.http import Http
from gateway.streams.kafka import Kafka
from gateway.streams.mqtt import Mqtt
from gateway.streams.redis import Redis

STREAM = StreamInfo(12, "one")
OF_CHANNEL = Outgoing(b'{"channel.id":3}', "a b", channel_id=3)
OF_DEVICE = Outgoing(b'{"channel.id":3,"device.name":"Van"}', "a b", device_id=7)
POSTED = Outgoing(b"{}", "a b", device_id=7)


@pytest.mark.parametrize(
    ("text", "outgoing", "expected"),
    [
        ("plain", OF_CHANNEL, "plain"),
        ("%ident%/%ident%", OF_CHANNEL, "a b/a b"),
        ("%channel.id%-%device.id%-%device.name%", OF_CHANNEL, "3--"),
        ("%channel.id%-%device.id%-%device.name%", OF_DEVICE, "3-7-Van"),
        ("%channel.id%-%device.id%", POSTED, "-7"),
        ("s%stream.id%", OF_CHANNEL, "s12"),
        ("%20%%ident", OF_CHANNEL, "%20%%ident"),
        ("a%20%ident%", OF_CHANNEL, "a%20a b"),
        ("%ident%20%", OF_CHANNEL, "a b20%"),
    ],
)
def test_places_are_filled_and_nothing_else(text, outgoing, expected):
    check_template(text, "configuration.uri")
    template = Template(text, STREAM)
    assert template.of(outgoing) == expected
    assert template.filled(template.values(outgoing)) == expected


def test_what_is_missing_can_have_a_text_of_its_own():
    template = Template("%device.id%/%channel.id%/%device.name%", STREAM, no_id="0", no_name="-")
    assert template.of(Outgoing(b"{}", "a")) == "0/0/-"
    assert template.of(OF_DEVICE) == "7/3/Van"


def test_what_a_value_has_is_not_replaced_again_and_can_be_quoted():
    strange = Outgoing(b"{}", "%device.id%/x?", device_id=7)
    assert Template("%ident%", STREAM).of(strange) == "%device.id%/x?"
    quoting = Template("/in/%ident%", STREAM, clean=lambda value: quote(value, safe=""))
    assert quoting.of(strange) == "/in/%25device.id%25%2Fx%3F"


def test_with_converted_names_the_gateways_own_count():
    converted = Outgoing(b'{"channelId":3}', "a", device_id=7, original={"channel.id": 3})
    assert Template("%channel.id%", STREAM).of(converted) == "3"


@pytest.mark.parametrize(("text", "is_fixed"), [("plain", True), ("%stream.id%", True), ("a%ident%", False)])
def test_a_text_without_places_is_the_same_for_all_messages_of_a_stream(text, is_fixed):
    assert Template(text, STREAM).is_fixed == is_fixed


@pytest.mark.parametrize(
    ("text", "begin"),
    [("plain", "plain"), ("a:%ident%", "a:"), ("%ident%", ""), ("50%:%device.id%", "50%:"), ("a%stream.id%", "a")],
)
def test_the_fixed_begin_is_what_all_begin_with(text, begin):
    assert fixed_begin(text) == begin


@pytest.mark.parametrize("text", ["/%C3%A9t%C3%A9/%ident%", "/%c3%a9", "%ident%%20%ident%", "50%", "a%%b", "%.%"])
def test_other_percent_signs_are_text(text):
    check_template(text, "configuration.uri")


@pytest.mark.parametrize("unknown", ["%imei%", "%Ident%", "%device.ident%", "%device-id%", "%peer%"])
@pytest.mark.parametrize(
    ("kind", "options", "field"),
    [
        (Amqp, {"uri": "amqp://host"}, "routing_key"),
        (Http, {}, "uri"),
        (Kafka, {"brokers": ["host:9092"]}, "topic"),
        (Mqtt, {"uri": "mqtt://host"}, "topic"),
        (Redis, {"uri": "redis://host"}, "key"),
    ],
)
def test_all_types_know_the_same_names(kind, options, field, unknown):
    begin = "http://host/" if kind is Http else "a"
    known = begin + "".join(f".%{name}%" for name in NAMES)
    kind.check(kind.Config(**options, **{field: known if kind is not Mqtt else known.replace(".%", "/%")}))
    with pytest.raises(ItemError, match=f"has {unknown}; .* {SHOWN}$") as caught:
        kind.check(kind.Config(**options, **{field: f"{begin}.{unknown}"}))
    assert caught.value.field == f"configuration.{field}"


def test_places_are_bounded():
    check_template("%ident%" * PLACES_MOST, "configuration.topic")
    with pytest.raises(ItemError, match=f"at most {PLACES_MOST}"):
        check_template("%ident%" * (PLACES_MOST + 1), "configuration.topic")
