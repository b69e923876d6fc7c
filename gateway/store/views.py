"""Items as flespi's default objects: in the event log, on MQTT, and what the API adds to."""

from __future__ import annotations

import re
from typing import Any

from gateway.store.item import Channel, Item, Plugin, Stream

CID = 1
"""flespi's account id: a gateway of one's own has one account."""


def view_of(item: Item) -> dict[str, Any]:
    """The object without what depends on the running gateway, such as a channel's ``uri``."""
    if isinstance(item, Plugin | Stream):
        return _view_of_other(item)
    common = {
        "id": item.id,
        "name": item.name,
        "enabled": item.enabled,
        "protocol_id": item.protocol_id,
        "messages_ttl": item.messages_ttl,
        "configuration": item.configuration,
        "cid": CID,
    }
    if isinstance(item, Channel):
        return common
    own = {"device_type_id": item.device_type_id, "messages_rotate": item.messages_rotate}
    return {**common, **own, "media_ttl": 0, "media_rotate": 0}


SECRET = re.compile(r"pass(word|phrase)?$|secret|token|private_key|api_?key|authorization", re.IGNORECASE)
"""Names of values that the log and MQTT do not show."""
HIDDEN = "***"
PASSWORD_IN_URL = re.compile(r"(?P<user>\w://[^/@:\s]*:)(?P<password>[^@/\s]+)@")


def without_secrets(value: Any, name: str = "") -> Any:
    """A configuration for those who may not know its passwords; the form stays."""
    if isinstance(value, dict):
        return {key: without_secrets(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [without_secrets(item, name) for item in value]
    if isinstance(value, str) and value and SECRET.search(name):
        return HIDDEN
    return PASSWORD_IN_URL.sub(rf"\g<user>{HIDDEN}@", value) if isinstance(value, str) else value


class NothingHidden(ValueError):
    """Somebody sent :data:`HIDDEN` where no value is kept. The message is the name of the place."""


def with_secrets(value: Any, known: Any, place: str = "") -> Any:
    """What :func:`without_secrets` hid put back from ``known``, the value as it was. Raises NothingHidden.

    So who changes what they were shown keeps the passwords that they were not shown.
    """
    if isinstance(value, dict):
        of = known if isinstance(known, dict) else {}
        return {key: with_secrets(item, of.get(key), f"{place}.{key}" if place else key) for key, item in value.items()}
    if isinstance(value, list):
        before = known if isinstance(known, list) else []
        before = before + [None] * (len(value) - len(before))
        return [with_secrets(item, old, place) for item, old in zip(value, before, strict=False)]
    return _with_secret(value, known if isinstance(known, str) else "", place) if isinstance(value, str) else value


def _with_secret(text: str, known: str, place: str) -> str:
    if text == HIDDEN and SECRET.search(place.rpartition(".")[2]):
        if not known:
            raise NothingHidden(place)
        return known
    hidden = PASSWORD_IN_URL.search(text)
    if hidden is None or hidden["password"] != HIDDEN:
        return text
    password = PASSWORD_IN_URL.search(known)
    if password is None:
        raise NothingHidden(place)
    return PASSWORD_IN_URL.sub(lambda found: f"{found['user']}{password['password']}@", text)


def _view_of_other(item: Plugin | Stream) -> dict[str, Any]:
    own: dict[str, Any] = (
        {"type_name": item.type, "priority": item.priority}
        if isinstance(item, Plugin)
        else {"protocol_name": item.protocol, "queue_ttl": item.queue_ttl}
    )
    return {
        "id": item.id,
        "name": item.name,
        "enabled": item.enabled,
        **own,
        "validate_message": item.validate_message,
        "configuration": without_secrets(item.configuration),
        "cid": CID,
    }
