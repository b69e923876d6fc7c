"""Retained topics of items: each as a whole, and ``connected``, ``name`` and whatever else the service tells.

Only the latest value of each counts.

Values are kept here and published again over each new connection, for the broker may have forgotten them.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from twisted.logger import Logger

from gateway import metrics
from gateway.mqtt.client import MqttClient
from gateway.mqtt.link import Link
from gateway.mqtt.packets import packed_text
from gateway.mqtt.topics import Topics, is_safe_level
from gateway.store.compact import compact_json

MAX_PROPERTIES = 1_000_000
"""Values kept at most, some 270 bytes each: 100,000 devices. Beyond it the oldest item is forgotten here (a broker
still retains it)."""

REMOVED = b""
"""A retained message without payload makes the broker forget the topic (MQTT 5, 3.3.1.3)."""

WHOLE = ""
"""The name under which an item as a whole is kept; no property has it."""

Key = tuple[str, int]


class PropertyTopics:
    """Call :meth:`publish_property` whenever a property changes; at any time, connected or not."""

    log = Logger()

    def __init__(self, client: MqttClient, topics: Topics, *, maximum: int = MAX_PROPERTIES) -> None:
        self._client = client
        self._topics = topics
        self._maximum = maximum
        self._items: dict[Key, dict[str, bytes]] = {}
        self._size = 0
        self._changed: dict[tuple[Key, str], None] = {}
        self._has_news = asyncio.Event()

    def publish_item(self, kind: str, item_id: int, view: Any) -> None:
        """Retain ``view`` as JSON on ``state/gw/{kind}/{item_id}``."""
        self._set((kind, item_id), WHOLE, compact_json(view))

    def publish_property(self, kind: str, item_id: int, name: str, value: Any) -> None:
        """Retain ``value`` as JSON on ``state/gw/{kind}/{item_id}/{name}``; only the latest value counts."""
        if not is_safe_level(name):
            metrics.count("mqtt_messages_skipped", reason="no topic")
            return
        self._set((kind, item_id), name, compact_json(value))
        self._keep_bound()

    def publish_part(self, kind: str, item_id: int, part: str, part_id: int, value: Any) -> None:
        """Retain ``value`` as JSON on ``state/gw/{kind}/{item_id}/{part}/{part_id}``."""
        self._set((kind, item_id), f"{part}/{part_id}", compact_json(value))
        self._keep_bound()

    def forget_part(self, kind: str, item_id: int, part: str, part_id: int) -> None:
        """There is no such part any more."""
        name = f"{part}/{part_id}"
        if name in self._items.get((kind, item_id), ()):
            self._set((kind, item_id), name, REMOVED)

    def _keep_bound(self) -> None:
        while self._size > self._maximum:
            self._forget_oldest()

    def forget_item(self, kind: str, item_id: int) -> None:
        """The item is deleted: take its retained properties from the broker."""
        for name in self._items.get((kind, item_id), ()):
            self._set((kind, item_id), name, REMOVED)

    def _set(self, key: Key, name: str, payload: bytes) -> None:
        values = self._items.setdefault(key, {})
        known = values.get(name)
        if known == payload:
            return
        self._size += known is None
        values[name] = payload
        self._changed[key, name] = None
        self._has_news.set()

    def _forget_oldest(self) -> None:
        key = next(iter(self._items))
        self._size -= len(self._items.pop(key))
        if metrics.count("mqtt_properties_forgotten") == 1:
            self.log.warn("more than {maximum} properties: the oldest are forgotten", maximum=self._maximum)

    async def run(self) -> None:
        """Publish until cancelled."""
        await self._client.serve(self._publish_over)

    async def _publish_over(self, link: Link) -> None:
        self._changed = {(key, name): None for key, values in self._items.items() for name in values}
        while True:
            while self._changed:
                await link.room()
                self._publish_oldest_change(link)
            self._has_news.clear()
            await link.wait_for(self._has_news)

    def _publish_oldest_change(self, link: Link) -> None:
        key, name = next(iter(self._changed))
        del self._changed[key, name]
        payload = self._items.get(key, {}).get(name)
        if payload is None:
            return

        def acknowledged() -> None:
            if payload == REMOVED:
                self._forget_removed(key, name)

        topic = packed_text(self._topics.item_property(*key, name) if name != WHOLE else self._topics.item(*key))
        link.publish(topic, payload, acknowledged, link.stamp(b"%.6f" % time.time()), retain=True)

    def _forget_removed(self, key: Key, name: str) -> None:
        values = self._items.get(key, {})
        if values.get(name) == REMOVED:
            del values[name]
            self._size -= 1
        if not values:
            self._items.pop(key, None)
