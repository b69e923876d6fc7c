"""The retained topics of items: the whole object on ``state/gw/{kind}/{id}``, and properties below it.

Of a plugin also the devices that it is assigned to: ``state/gw/plugins/{id}/devices/{device id}``, as flespi has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gateway.mqtt.properties import PropertyTopics
from gateway.store.items import Change, Device, Item, Link

PROPERTIES = (
    *("name", "enabled", "configuration", "messages_ttl", "protocol_id", "device_type_id", "uri"),
    *("priority", "queue_ttl", "validate_message"),
)
"""With a topic of their own. Each costs a broker a retained message for each item; the others are in the object."""

YIELD_AFTER = 100

View = Callable[[Item], dict[str, Any]]


class ItemTopics:
    """``view`` gives an item as the API shows it."""

    def __init__(self, properties: PropertyTopics, view: View) -> None:
        self._properties = properties
        self._view = view

    def publish(self, kind: str, item: Item) -> None:
        """What it is now."""
        view = self._view(item)
        self._properties.publish_item(kind, item.id, view)
        for name in PROPERTIES:
            if name in view:
                self._properties.publish_property(kind, item.id, name, view[name])

    def changed(self, change: Change) -> None:
        """For ``Items.on_change``."""
        if change.new is not None:
            self.publish(change.kind, change.new)
            if change.old is None or _is_other_tracker(change.old, change.new):
                self._publish_initial(change.kind, change.id)
        else:
            self._properties.forget_item(change.kind, change.id)

    async def publish_all(self, kind: str, items: Sequence[Item]) -> None:
        """At the start; a gateway that was killed left ``connected`` as it was."""
        for count, item in enumerate(items):
            self._publish_initial(kind, item.id)
            self.publish(kind, item)
            if count % YIELD_AFTER == 0:
                await asyncio.sleep(0)

    def _publish_initial(self, kind: str, item_id: int) -> None:
        if kind in ("devices", "streams"):
            self._properties.publish_property(kind, item_id, "connected", False)
        elif kind == "channels":
            self._properties.publish_property(kind, item_id, "connections_count", 0)

    def linked(self, old: Link | None, new: Link | None) -> None:
        """For ``Links.on_change``."""
        link = new or old
        if link is None or link.kind != "plugins":
            return
        place = (link.kind, link.id, link.to, link.to_id)
        if new is not None:
            self._properties.publish_part(*place, {"id": new.to_id, "plugin_id": new.id, "fields": new.fields})
        else:
            self._properties.forget_part(*place)

    async def publish_links(self, links: Iterable[Link]) -> None:
        """At the start."""
        for count, link in enumerate(links):
            self.linked(None, link)
            if count % YIELD_AFTER == 0:
                await asyncio.sleep(0)

    def connected(self, device_id: int, is_connected: bool) -> None:
        """A device's tracker came, or went."""
        self._properties.publish_property("devices", device_id, "connected", is_connected)

    def stream_connected(self, stream_id: int, is_connected: bool) -> None:
        """A stream reached its target, or lost it."""
        self._properties.publish_property("streams", stream_id, "connected", is_connected)

    def connections(self, channel_id: int, count: int) -> None:
        """So many connections of a channel now."""
        self._properties.publish_property("channels", channel_id, "connections_count", count)


def _is_other_tracker(old: Item, new: Item) -> bool:
    """The connection of the old one no longer concerns the device; that of the new one is told when it comes."""
    return isinstance(old, Device) and isinstance(new, Device) and old.key != new.key
