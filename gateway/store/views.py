"""Items as flespi's default objects: in the event log, on MQTT, and what the API adds to."""

from __future__ import annotations

from typing import Any

from gateway.store.hiding import without_secrets
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
