"""Passwords of configurations: hidden from those who may not know them, and put back when they come back hidden."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.store.hiding import NothingHidden, with_secrets, without_secrets

CONFIGURATION = {
    "uri": "amqps://user:pa%20ss@rabbit.example/v",
    "uris": ["redis://:secret@one", "redis://two"],
    "password": "carrot",
    "ssl": {"private_key": "PEM", "key_password": "x", "ca": "PEM"},
    "headers": {"Authorization": "Basic abc", "X-Api-Key": "k", "Accept": "*/*"},
    "hook": "https://h/p?token=TTT&a=1&api_key=KKK",
    "note": "***",
    "count": 5,
    "secret": "",
    "nothing": None,
}
HIDDEN = {
    "uri": "amqps://user:***@rabbit.example/v",
    "uris": ["redis://:***@one", "redis://two"],
    "password": "***",
    "ssl": {"private_key": "***", "key_password": "***", "ca": "PEM"},
    "headers": {"Authorization": "***", "X-Api-Key": "***", "Accept": "*/*"},
    "hook": "https://h/p?token=***&a=1&api_key=***",
    "note": "***",
    "count": 5,
    "secret": "",
    "nothing": None,
}


def test_secrets_are_hidden_wherever_they_stand():
    """By the name of the option or the header, and in addresses; what is empty stays empty."""
    assert without_secrets(CONFIGURATION) == HIDDEN


@pytest.mark.parametrize(
    "name",
    [
        *("password", "sasl_password", "passphrase", "secret", "client_secret", "token", "bearer_token", "private_key"),
        *("Authorization", "Proxy-Authorization", "X-Api-Key", "api_key", "apikey", "Cookie", "X-Auth-Key"),
        *("SharedAccessKey", "account_key", "secret_access_key", "credentials"),
        *("Ocp-Apim-Subscription-Key", "x-functions-key"),
    ],
)
def test_names_of_secrets(name: str):
    """Of options, and of what others call theirs in headers and addresses."""
    assert without_secrets({name: "x"}) == {name: "***"}
    assert without_secrets({"uri": f"https://h/?a=1&{name}=x#y"}) == {"uri": f"https://h/?a=1&{name}=***#y"}


@pytest.mark.parametrize("name", ["key", "KEY", "sig", "signature", "code"])
def test_more_names_are_those_of_secrets_in_an_address(name: str):
    """As map services and web hooks have them."""
    shown = f"https://h/?{name}=***&language=de&{name}word=x"
    assert without_secrets({"uri": f"https://h/?{name}=S3&language=de&{name}word=x"}) == {"uri": shown}
    assert with_secrets({"uri": shown}, {"uri": f"https://h/?{name}=S3"}) == {"uri": shown.replace("***", "S3")}


@pytest.mark.parametrize("name", ["uri", "topic", "key", "routing_key", "partition_key", "passenger", "author", "user"])
def test_names_that_are_none(name: str):
    """Whoever looks for a mistake needs to see them."""
    assert without_secrets({name: "x"}) == {name: "x"}


def test_what_was_hidden_comes_back_as_it_was():
    """Beside what was changed meanwhile."""
    shown = without_secrets(CONFIGURATION)
    assert with_secrets(shown, CONFIGURATION) == CONFIGURATION
    shown["uri"] = "amqps://user:***@other.example/v"
    shown["password"] = "new"
    restored = with_secrets(shown, CONFIGURATION)
    assert restored["uri"] == "amqps://user:pa%20ss@other.example/v"
    assert restored["password"] == "new"


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"password": "***"}, "password"),
        ({"ssl": {"private_key": "***"}}, "ssl.private_key"),
        ({"uri": "amqp://u:***@h"}, "uri"),
        ({"uri": "amqp://h?token=***"}, "uri"),
        ({"uris": ["redis://two", "redis://:***@three"]}, "uris"),
    ],
)
def test_there_must_be_something_to_come_back(value: Any, place: str):
    """Three stars are no password."""
    known = {"uri": "amqp://h", "uris": ["redis://:secret@one"], "ssl": None, "password": ""}
    with pytest.raises(NothingHidden, match=f"^{place}$"):
        with_secrets(value, known)


@pytest.mark.parametrize("value", ["***", {"note": "***"}, ["***"], {"fields": {"driver": "***"}}, 5, None])
def test_stars_elsewhere_are_what_they_are(value: Any):
    """Only what has the name of a secret stands for one."""
    assert with_secrets(value, {}) == value
