"""Topic names: flespi's, below a prefix, and never broken by what a tracker calls itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.mqtt.topics import Topics, is_safe_level


def test_topics_are_those_of_flespi():
    """Programs subscribe to these names, to the letter."""
    topics = Topics()
    assert topics.channel_message(7, "352093081452251") == "flespi/message/gw/channels/7/352093081452251"
    assert topics.device_message(12) == "flespi/message/gw/devices/12"
    assert topics.telemetry(12, "position.latitude") == "flespi/state/gw/devices/12/telemetry/position.latitude"
    assert topics.item_property("channels", 7, "name") == "flespi/state/gw/channels/7/name"
    assert topics.log("devices", 12, "connected") == "flespi/log/gw/devices/12/connected"
    assert topics.status("gateway-1") == "flespi/state/gw/status/gateway-1"


@pytest.mark.parametrize("prefix", ["fleet", "company/fleet", "Flotte Süd"])
def test_the_prefix_is_the_operators_choice(prefix: str):
    """It stands before everything, and may have several levels."""
    assert Topics(prefix).device_message(1) == f"{prefix}/message/gw/devices/1"


@pytest.mark.parametrize("prefix", ["", "/", "a/", "/a", "a//b", "a/#", "+", "$SYS", "a\nb"])
def test_a_prefix_that_breaks_topics_is_refused(prefix: str):
    """The operator is told the key and what would be right."""
    with pytest.raises(ConfigError, match=r"mqtt\.topic_prefix"):
        Topics(prefix)


@pytest.mark.parametrize("text", ["", "a/b", "a+", "#", "a\x00", "a\n", "\x7f", "\x85", "\u2028", "\ud800", "x" * 2000])
def test_unsafe_levels_are_known(text: str):
    """``#``, ``+``, ``/``, unprintable characters, nothing at all, and what is far too long."""
    assert not is_safe_level(text)


@given(st.text(max_size=30))
def test_a_safe_level_is_one_level_of_a_topic(text: str):
    """Whatever passes can be encoded, and leaves the number of levels as it was."""
    if is_safe_level(text):
        topic = Topics().channel_message(1, text)
        assert topic.count("/") == 5
        assert not set("+#\x00") & set(topic)
        assert topic.encode().decode() == topic
