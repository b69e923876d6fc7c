"""What a token may do with topics: what its rights on the API say, topic by topic."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.mqtt import rights
from gateway.mqtt.rights import TokenDoor, TopicRights, overlap
from gateway.store.access import MASTER_ACCESS, Access
from gateway.store.tokens import Tokens

NOW = 1_800_000_000.0


def acl(*entries: dict[str, Any], prefix: str = "flespi") -> TopicRights:
    return TopicRights(Access.from_json({"type": 2, "acl": list(entries)}), prefix)


def get(uri: str, *parts: str, **others: Any) -> dict[str, Any]:
    """An entry that permits reading: the item itself if "item" is among the parts."""
    submodules = [{"name": part, "methods": ["GET"]} for part in parts if part != "item"]
    return {"uri": uri, "methods": ["GET"] if "item" in parts else [], "submodules": submodules, **others}


TOPICS = {
    "flespi/message/gw/devices/1": ("gw/devices", "messages"),
    "flespi/message/gw/channels/1/352093081452251": ("gw/channels", "messages"),
    "flespi/state/gw/devices/1": ("gw/devices", "item"),
    "flespi/state/gw/devices/1/name": ("gw/devices", "item"),
    "flespi/state/gw/channels/1/enabled": ("gw/channels", "item"),
    "flespi/state/gw/devices/1/telemetry/position.speed": ("gw/devices", "telemetry"),
    "flespi/state/gw/devices/1/settings/backend_servers": ("gw/devices", "settings"),
    "flespi/state/gw/plugins/1": ("gw/plugins", "item"),
    "flespi/state/gw/streams/1/connected": ("gw/streams", "item"),
    "flespi/log/gw/plugins/1/updated": ("gw/plugins", "logs"),
    "flespi/log/gw/streams/1/sent": ("gw/streams", "logs"),
    "flespi/log/gw/devices/1/updated": ("gw/devices", "logs"),
    "flespi/log/gw/channels/1/connections/5/identified": ("gw/channels", "logs"),
}


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize(("uri", "part"), set(TOPICS.values()))
def test_a_topic_needs_the_right_to_get_what_it_shows(topic: str, uri: str, part: str):
    """That one and no other; for all items, for this one, but not for others."""
    is_it = TOPICS[topic] == (uri, part)
    for ids, may in (("all", is_it), ([1], is_it), ([1, 2], is_it), ([2], False), ([], False)):
        token = acl(get(uri, part, ids=ids))
        assert token.may_receive(topic) is may
        assert token.may_subscribe(topic) is may
        assert token.may_receive(topic) is may, "the second time as the first"


@pytest.mark.parametrize(
    ("entries", "may"),
    [
        ([get("gw/plugins", "devices"), get("gw/devices", "item")], True),
        ([get("gw/plugins", "devices", ids=[1]), get("gw/devices", "item", ids=[7])], True),
        ([get("gw/plugins", "devices", ids=[2]), get("gw/devices", "item")], False),
        ([get("gw/plugins", "devices"), get("gw/devices", "item", ids=[1])], False),
        ([get("gw/plugins", "devices"), get("gw/devices", "telemetry")], False),
        ([get("gw/plugins", "item"), get("gw/devices", "item")], False),
        ([get("gw/plugins", "devices")], False),
    ],
)
def test_a_link_is_for_who_may_see_both_ends(entries: list[dict[str, Any]], may: bool):
    """The devices of a plugin, and each of these devices."""
    token, topic = acl(*entries), "flespi/state/gw/plugins/1/devices/7"
    assert token.may_receive(topic) is may
    assert token.may_subscribe(topic) is may


@pytest.mark.parametrize(
    ("topic", "others"),
    [
        ("flespi/log/gw/plugins/1/plugin_error", "gw/devices"),
        ("flespi/log/gw/plugins/1/plugin_activated", "gw/devices"),
        ("flespi/log/gw/streams/1/device_subscribed", "gw/devices"),
        ("flespi/log/gw/streams/1/channel_unsubscribed", "gw/channels"),
    ],
)
def test_what_happened_to_others_is_for_who_may_see_all_of_them(topic: str, others: str):
    """The topic does not say which device it is about, and the entry may have its message in it."""
    uri = "/".join(topic.split("/")[2:4])
    for entries, may in (
        ([get(uri, "logs"), get(others, "item")], True),
        ([get(uri, "logs"), get(others, "item", ids=[1])], False),
        ([get(uri, "logs")], False),
    ):
        assert acl(*entries).may_receive(topic) is may


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_right_to_change_is_none_to_read(method: str):
    """Only GET counts."""
    entry = {"uri": "gw/devices", "methods": [method], "submodules": [{"name": "messages", "methods": [method]}]}
    for topic in TOPICS:
        assert not acl(entry).may_receive(topic)
        assert not acl(entry).may_subscribe(topic)


EVERYTHING = acl(
    *(get(f"gw/{kind}", "item", "messages", "telemetry", "logs") for kind in ("devices", "channels", "platform"))
)
OTHERS = [
    "flespi/state/gw/status/gateway-1",
    "flespi/log/platform/customer/token_created",
    "flespi/state/platform/customer/counters/x",
    "flespi/message/gw/devices",
    "flespi/message/gw/devices/x",
    "flespi/message/gw/devices/",
    "flespi/message/gw/devices/99999999999999999999999",
    "flespi/gw/devices/1",
    "flespi/interval/gw/devices/1",
    "flespi/",
    "flespi",
    "other",
    "",
]


@pytest.mark.parametrize("topic", OTHERS)
def test_what_no_item_has_is_for_no_list(topic: str):
    """Whatever it names."""
    limited = acl(get("gw/devices", "item", "messages", "telemetry", "logs", ids=[1]))
    assert not limited.may_receive(topic)
    if "gw/devices/" not in topic or topic.startswith("flespi/gw"):
        assert not EVERYTHING.may_receive(topic)


@pytest.mark.parametrize(
    ("topic_filter", "may"),
    [
        ("#", True),
        ("flespi/#", True),
        ("flespi/message/#", True),
        ("+/message/gw/devices/+", True),
        ("+/+/+/+/+", True),
        ("flespi/message/gw/devices/#", True),
        ("flespi/message/gw/devices/1/#", True),
        ("flespi/+/gw/devices/2", True),
        ("flespi/message/gw/devices/3", False),
        ("flespi/+/gw/devices/3", False),
        ("flespi/message/gw/devices/1/x", True),
        ("flespi/message/gw/channels/#", False),
        ("flespi/state/#", False),
        ("flespi/state/gw/devices/1/telemetry/#", False),
        ("flespi/log/gw/devices/+/created", False),
        ("flespi", False),
        ("flespi/+", False),
        ("other/#", False),
        ("+", False),
        ("/flespi/message/gw/devices/1", False),
    ],
)
def test_a_filter_is_accepted_if_there_is_something_in_it(topic_filter: str, may: bool):
    """What else it covers is not delivered."""
    assert acl(get("gw/devices", "messages", ids=[1, 2])).may_subscribe(topic_filter) is may


def test_a_standard_token_gets_all_of_the_gateway():
    """But not what is said of the platform."""
    token = TopicRights(Access(), "flespi")
    assert all(token.may_receive(topic) and token.may_subscribe(topic) for topic in TOPICS)
    assert token.may_receive("flespi/state/gw/status/gateway-1")
    assert not token.may_receive("flespi/log/platform/customer/token_created")
    assert not token.may_subscribe("flespi/state/platform/#")
    for topic in ("own", "own/topic", "flespi", "flespix/y"):
        assert token.may_receive(topic)
        assert token.may_subscribe(topic)
        assert token.may_publish(topic)
    assert token.may_subscribe("#")
    assert not token.may_publish("flespi/message/gw/devices/1")


def test_the_master_gets_everything_but_is_not_the_gateway():
    """Publishing below the prefix is for nobody else."""
    token = TopicRights(MASTER_ACCESS, "flespi")
    assert token.receives_all
    assert all(token.may_receive(topic) and token.may_subscribe(topic) for topic in (*TOPICS, *OTHERS))
    assert not token.may_publish("flespi/x")
    assert token.may_publish("x")


def test_a_list_names_the_topics_of_others():
    """Those below the prefix it cannot give, as with flespi."""
    token = acl(
        {"uri": "mqtt", "topic": "fleet/+/orders", "actions": ["publish"]},
        {"uri": "mqtt", "topic": "news/#", "actions": ["subscribe"]},
        {"uri": "mqtt", "topic": "flespi/#", "actions": ["publish", "subscribe"]},
    )
    assert token.may_publish("fleet/7/orders")
    assert not token.may_publish("fleet/7/orders/x")
    assert not token.may_publish("news/today")
    assert token.may_receive("news/today")
    assert token.may_subscribe("news/+")
    assert token.may_subscribe("#")
    assert not token.may_receive("fleet/7/orders")
    assert not token.may_subscribe("fleet/#")
    for topic in TOPICS:
        assert not token.may_publish(topic)
        assert not token.may_receive(topic)
        assert not token.may_subscribe(topic)


def test_a_prefix_may_have_levels():
    """The operator chose it."""
    token = acl(get("gw/devices", "messages", ids=[1]), prefix="acme/trackers")
    assert token.may_receive("acme/trackers/message/gw/devices/1")
    assert token.may_subscribe("acme/+/message/gw/devices/1")
    for topic in ("acme/trackers/message/gw/devices/2", "acme/message/gw/devices/1", "flespi/message/gw/devices/1"):
        assert not token.may_receive(topic)
        assert not token.may_subscribe(topic)


@pytest.mark.parametrize(
    ("one", "other", "do"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a/b", "a", False),
        ("#", "a/b", True),
        ("a/#", "a", True),
        ("a/#", "b/#", False),
        ("a/+/c", "a/b/+", True),
        ("a/+/c", "a/b/d", False),
        ("+", "+/+", False),
        ("+/#", "a", True),
        ("a/b/#", "a", False),
    ],
)
def test_filters_overlap_if_a_topic_fits_both(one: str, other: str, do: bool):
    """In either order."""
    assert overlap(one.split("/"), other.split("/")) is do
    assert overlap(other.split("/"), one.split("/")) is do


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """A channel has a topic for each ident."""
    monkeypatch.setattr(rights, "REMEMBERED_MOST", 10)
    token = acl(get("gw/channels", "messages", ids=[1]))
    for n in range(100):
        assert token.may_receive(f"flespi/message/gw/channels/1/{n}")
        assert not token.may_receive(f"flespi/message/gw/channels/2/{n}")
    assert len(token._remembered) <= 10


def test_the_door_follows_the_token(run, redis):
    """An admission stays the same until the rights do not; with the token it ends."""

    async def scenario() -> None:
        tokens, clock = Tokens(redis), [NOW]
        door = TokenDoor(tokens, "flespi", lambda: clock[0])
        _, key = await tokens.create(NOW, ttl=10)
        assert door.admit("x", "192.0.2.1") is None
        first, second = door.admit(key, "192.0.2.1"), door.admit(key, "192.0.2.2")
        assert first is not None
        assert second is not None
        assert first.rights is second.rights
        await tokens.update(1, info="x")
        before = first.rights
        clock[0] += 9
        assert door.renew(first, is_connected=True)
        assert first.rights is before
        clock[0] += 9
        assert door.renew(second, is_connected=False), "the first has kept it in use"
        clock[0] += 1
        assert not door.renew(second, is_connected=False)
        await tokens.update(1, ttl=0, access=MASTER_ACCESS, ips=["192.0.2.1"])
        assert door.renew(first, is_connected=True)
        assert first.rights is not before
        assert first.is_master
        assert not door.renew(second, is_connected=True)
        await tokens.update(1, enabled=False)
        assert not door.renew(first, is_connected=True)
        await tokens.update(1, enabled=True)
        assert door.renew(first, is_connected=True)
        await tokens.delete([1])
        assert not door.renew(first, is_connected=True)

    run(scenario())
