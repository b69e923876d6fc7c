"""Passwords in the configurations of plugins and streams: hidden from who may not know them, and put back."""

from __future__ import annotations

import re
from typing import Any

SECRET = re.compile(
    r"pass(word|phrase)?$|secret|token|credential|cookie|authorization|(private|api|access|auth|shared|account)[_-]?key"
    r"|[a-z]-key$",
    re.IGNORECASE,
)
"""Names of values that the log and MQTT do not show: options, headers, parameters of an address."""
OF_QUERY = re.compile(r"key|sig|signature|code", re.IGNORECASE)
"""More names of an address' parameters, that are something else as an option's."""
HIDDEN = "***"
IN_URL = re.compile(r"(?P<before>\w://[^/@:\s?#]*:)(?P<value>[^@/\s]+)(?=@)")
"""The password of an address."""
IN_QUERY = re.compile(r"(?P<before>[?&](?P<name>[^=&#\s]+)=)(?P<value>[^&#\s]+)")


class NothingHidden(ValueError):
    """Somebody sent :data:`HIDDEN` where no value is kept. The message is the name of the place."""


def without_secrets(value: Any, name: str = "") -> Any:
    """A configuration for those who may not know its passwords; the form stays."""
    if isinstance(value, dict):
        return {key: without_secrets(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [without_secrets(item, name) for item in value]
    if not isinstance(value, str) or not value:
        return value
    if SECRET.search(name):
        return HIDDEN
    return _replaced(value, lambda found, key: HIDDEN) if "://" in value else value


def with_secrets(value: Any, known: Any, place: str = "", name: str = "") -> Any:
    """What :func:`without_secrets` hid put back from ``known``, the value as it was. Raises NothingHidden.

    So who changes what they were shown keeps the passwords that they were not shown.
    """
    if isinstance(value, dict):
        of = known if isinstance(known, dict) else {}
        places = {key: f"{place}.{key}" if place else key for key in value}
        return {key: with_secrets(item, of.get(key), places[key], key) for key, item in value.items()}
    if isinstance(value, list):
        before = known if isinstance(known, list) else []
        before = before + [None] * (len(value) - len(before))
        return [with_secrets(item, old, place, name) for item, old in zip(value, before, strict=False)]
    if not isinstance(value, str) or HIDDEN not in value:
        return value
    return _with_secret(value, known if isinstance(known, str) else "", place, name)


def _with_secret(text: str, known: str, place: str, name: str) -> str:
    if text == HIDDEN and SECRET.search(name):
        if not known:
            raise NothingHidden(place)
        return known
    if "://" not in text:
        return text
    kept: dict[str, str] = {}
    _replaced(known, lambda found, key: kept.setdefault(key, found))

    def put_back(found: str, key: str) -> str:
        if found != HIDDEN:
            return found
        if key not in kept:
            raise NothingHidden(place)
        return kept[key]

    return _replaced(text, put_back)


def _replaced(url: str, change: Any) -> str:
    """The address with what ``change`` makes of its password and its secret parameters, given each with its name."""
    url = IN_URL.sub(lambda found: found["before"] + change(found["value"], ""), url)
    return IN_QUERY.sub(
        lambda found: (
            found["before"] + change(found["value"], found["name"]) if _is_secret(found["name"]) else found[0]
        ),
        url,
    )


def _is_secret(name: str) -> bool:
    return bool(SECRET.search(name) or OF_QUERY.fullmatch(name))
