"""What a token may do: flespi's levels and lists, and what is not named is forbidden."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.store.access import IDS_MOST, MASTER_ACCESS, Access, AccessError, Rules

STANDARD = Access()


def acl(*entries: dict[str, Any]) -> Access:
    """An access of these entries."""
    return Access.from_json({"type": 2, "acl": list(entries)})


READER = acl(
    {
        "uri": "gw/devices",
        "methods": ["GET"],
        "ids": [1, 2],
        "submodules": [{"name": "messages", "methods": ["GET", "POST"]}],
    }
)


@pytest.mark.parametrize("uri", ["gw/channels", "gw/devices", "storage/expressions", "mqtt", "platform/tokens", "auth"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_the_master_may_do_everything(method: str, uri: str):
    """Type 1."""
    assert MASTER_ACCESS.permits(method, uri)
    assert MASTER_ACCESS.ids(method, uri, "messages") is None
    assert MASTER_ACCESS.may_create(uri)


@pytest.mark.parametrize(
    ("uri", "permitted"),
    [("gw/devices", True), ("storage/expressions", True), ("mqtt", True), ("platform/tokens", False), ("gwx", False)],
)
def test_a_standard_token_has_the_telematics_and_not_the_platform(uri: str, permitted: bool):
    """Type 0, which is what no rules at all mean."""
    assert STANDARD.permits("GET", uri) is permitted
    assert STANDARD.permits("DELETE", uri, "messages") is permitted
    assert STANDARD.may_create(uri) is permitted


@pytest.mark.parametrize("access", [MASTER_ACCESS, STANDARD, READER, acl()], ids=["master", "standard", "acl", "none"])
def test_every_token_may_ask_who_it_is(access: Access):
    """``/auth/info``, and nothing else there."""
    assert access.permits("GET", "auth/info")
    assert access is MASTER_ACCESS or not access.permits("POST", "auth/info")


def test_an_entry_permits_its_methods_on_its_ids():
    """On the items themselves; parts of items have methods of their own."""
    assert READER.ids("GET", "gw/devices") == {1, 2}
    assert READER.ids("GET", "gw/devices", "messages") == {1, 2}
    assert READER.permits("POST", "gw/devices", "messages")
    for method, uri, submodule in (
        ("POST", "gw/devices", None),
        ("GET", "gw/devices", "telemetry"),
        ("DELETE", "gw/devices", "messages"),
        ("GET", "gw/channels", None),
        ("GET", "gw", None),
        ("GET", "platform/tokens", None),
        ("GET", "storage/expressions", None),
    ):
        assert not READER.permits(method, uri, submodule)
        assert READER.ids(method, uri, submodule) == frozenset()


def test_entries_add_up():
    """What one of them gives, no other takes away; for each right of its own."""
    access = acl(
        {"uri": "gw/devices", "methods": ["GET", "PUT"], "ids": [1]},
        {"uri": "gw/devices", "methods": ["GET"], "ids": [2, 3]},
        {"uri": "gw/channels", "methods": ["GET"], "ids": [7]},
        {"uri": "gw/channels", "methods": ["GET"]},
        {"uri": "gw/channels", "methods": ["GET"], "ids": [8]},
    )
    assert access.ids("GET", "gw/devices") == {1, 2, 3}
    assert access.ids("PUT", "gw/devices") == {1}
    assert access.ids("GET", "gw/channels") is None


def test_no_ids_are_none_and_not_all():
    """An empty list, as a program writes that removes one id after the other."""
    access = acl({"uri": "gw/devices", "methods": ["GET"], "ids": []})
    assert access.ids("GET", "gw/devices") == frozenset()
    assert not access.permits("GET", "gw/devices")


def test_who_may_put_may_patch():
    """flespi's lists have no PATCH; but PATCH alone is not PUT."""
    assert acl({"uri": "gw/devices", "methods": ["PUT"], "ids": [4]}).ids("PATCH", "gw/devices") == {4}
    assert not acl({"uri": "gw/devices", "methods": ["PATCH"]}).permits("PUT", "gw/devices")


def test_only_who_may_reach_all_items_may_create_one():
    """A token for two devices could not even read a third that it made."""
    assert acl({"uri": "gw/devices", "methods": ["POST"]}).may_create("gw/devices")
    assert acl({"uri": "gw/devices", "methods": ["POST"], "ids": "all"}).may_create("gw/devices")
    assert not acl({"uri": "gw/devices", "methods": ["POST"], "ids": [1]}).may_create("gw/devices")
    assert not acl({"uri": "gw/devices", "methods": ["GET"]}).may_create("gw/devices")


def test_topics_of_others_are_named_by_entries_with_the_uri_mqtt():
    """For each action; without an ACL all topics are open."""
    access = acl(
        {"uri": "mqtt", "topic": "fleet/+/orders", "actions": ["publish", "subscribe"]},
        {"uri": "mqtt", "topic": "news/#", "actions": ["subscribe"], "methods": ["GET"]},
    )
    assert access.topic_filters("publish") == ["fleet/+/orders"]
    assert access.topic_filters("subscribe") == ["fleet/+/orders", "news/#"]
    assert READER.topic_filters("subscribe") == []
    assert STANDARD.topic_filters("publish") == MASTER_ACCESS.topic_filters("subscribe") == ["#"]


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ([], "object"),
        ({"type": 3}, "$.type"),
        ({"type": True}, "$.type"),
        ({"typ": 1}, "typ"),
        ({"type": 1, "acl": [{"uri": "gw/devices"}]}, "only with type 2"),
        ({"type": 2, "acl": {}}, "$.acl"),
        ({"type": 2, "acl": [{}]}, "uri"),
        ({"type": 2, "acl": [{"uri": "platform/tokens"}]}, "$.acl[0].uri"),
        ({"type": 2, "acl": [{"uri": "gw/devices/messages"}]}, "$.acl[0].uri"),
        ({"type": 2, "acl": [{"uri": "gw/devices", "methods": ["get"]}]}, "$.acl[0].methods[0]"),
        ({"type": 2, "acl": [{"uri": "gw/devices", "ids": "1,2"}]}, "$.acl[0].ids"),
        ({"type": 2, "acl": [{"uri": "gw/devices", "ids": [1, "2"]}]}, "$.acl[0].ids[1]"),
        ({"type": 2, "acl": [{"uri": "gw/devices", "ids": [-1]}]}, "$.acl[0].ids[0]"),
        ({"type": 2, "acl": [{"uri": "gw/devices", "id": [1]}]}, "unknown field `id`"),
        ({"type": 2, "acl": [{"uri": "gw/devices", "submodules": [{"name": "messages"}]}]}, "methods"),
        ({"type": 2, "acl": [{"uri": "gw/devices", "topic": "a"}]}, "belong to the uri mqtt"),
        ({"type": 2, "acl": [{"uri": "mqtt", "actions": ["read"]}]}, "$.acl[0].actions[0]"),
        ({"type": 2, "acl": [{"uri": "gw/devices"}] * 101}, "$.acl"),
        ({"type": 2, "acl": [{"uri": "gw/devices", "ids": [1] * (IDS_MOST + 1)}]}, "$.acl[0].ids"),
        ({"type": 2, "acl": [{"uri": "gw/devices", "ids": [1] * IDS_MOST}] * 2}, "20000 ids"),
    ],
)
def test_wrong_rules_are_refused_with_their_place(value: Any, place: str):
    """So that who wrote them finds it."""
    with pytest.raises(AccessError) as raised:
        Access.from_json(value)
    assert place in str(raised.value)


def test_rules_are_given_back_as_they_came():
    """A client reads a token, changes a thing, and writes it back."""
    value = {"type": 2, "acl": [{"uri": "gw/devices", "methods": ["GET"], "ids": [2, 1]}, {"uri": "gw/channels"}]}
    rules = Access.from_json(value).rules
    assert msgspec.to_builtins(rules) == value
    assert msgspec.json.decode(msgspec.json.encode(rules), type=Rules) == rules
    assert Access.from_json(value) == Access(rules)
    assert Access.from_json(value) != READER
