"""Retained topics of devices' settings: what a device has, and what it shall have, as the API shows it.

The truth is in Redis; here only is kept which settings have changed since they were published. After each new
connection all are published, for the broker may have forgotten them; changes go first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import islice

from twisted.logger import Logger

from gateway.aio import heed_cancellation
from gateway.errors import StoreError
from gateway.mqtt.client import MqttClient
from gateway.mqtt.link import Link
from gateway.mqtt.packets import packed_text
from gateway.mqtt.properties import REMOVED
from gateway.mqtt.publisher import RETRY_INTERVAL
from gateway.mqtt.topics import Topics
from gateway.protocols.catalog import PROTOCOLS
from gateway.store.compact import compact_json
from gateway.store.items import Change, Device, Items
from gateway.store.settings import DeviceSettings, Shadow, view_of_setting

DEVICES_AT_ONCE = 100
"""Devices whose settings are read in one round trip: a dozen settings of 400 bytes each, so 500 kB."""
REMOVALS_MOST = 100_000
"""Topics to be emptied, while the broker is away: those of 8000 deleted devices. What is more stays on the broker."""

Key = tuple[int, str]
"""Device id, and the name of a setting."""


class SettingTopics:
    """Publishes each setting of which anything is known, on ``state/gw/devices/{id}/settings/{name}``."""

    log = Logger()

    def __init__(self, client: MqttClient, topics: Topics, settings: DeviceSettings, items: Items) -> None:
        self._client = client
        self._topics = topics
        self._settings = settings
        self._items = items
        self._is_serving = False
        self._changed: dict[Key, None] = {}
        self._stale: dict[int, None] = {}
        self._told: set[int] = set()
        """Devices of which something was published over this connection."""
        self._removals: dict[Key, None] = {}
        """What may have to be taken from the broker, until it says that it did."""
        self._has_news = asyncio.Event()
        settings.on_change.append(self._setting_changed)
        items.on_change.append(self._item_changed)

    # -- what changes

    def _setting_changed(self, device_id: int, shadow: Shadow) -> None:
        """Without a connection nothing is noted: the next one begins with all."""
        if self._is_serving:
            self._changed[device_id, shadow.name] = None
            self._has_news.set()

    def _item_changed(self, change: Change) -> None:
        """A device is deleted, or of another type, which may have other settings."""
        old, new = change.old, change.new
        if not isinstance(old, Device) or (isinstance(new, Device) and new.device_type_id == old.device_type_id):
            return
        is_untold = self._is_serving and change.id not in self._told and change.id not in self._stale
        if not is_untold:
            self._remove(change.id, {*_names_of(old), *(_names_of(new) if isinstance(new, Device) else ())})

    def _remove(self, device_id: int, names: Iterable[str]) -> None:
        for name in names:
            if len(self._removals) >= REMOVALS_MOST:
                return
            self._removals[device_id, name] = None
            if self._is_serving:
                self._changed[device_id, name] = None
        self._has_news.set()

    # -- what is published

    async def run(self) -> None:
        """Publish until cancelled."""
        await self._client.serve(self._publish_over)

    async def _publish_over(self, link: Link) -> None:
        self._told.clear()
        self._stale = dict.fromkeys(self._items.devices)
        self._changed = dict(self._removals)
        self._is_serving = True
        try:
            while True:
                while self._changed or self._stale:
                    heed_cancellation()
                    await self._publish_some(link)
                self._has_news.clear()
                await link.wait_for(self._has_news)
        finally:
            self._is_serving = False

    async def _publish_some(self, link: Link) -> None:
        """Some of what changed; if nothing did, some devices that the broker was not told of."""
        changed = list(islice(self._changed, DEVICES_AT_ONCE))
        stale = [] if changed else list(islice(self._stale, DEVICES_AT_ONCE))
        for key in changed:
            del self._changed[key]
        ids = [id for id in {*(id for id, _ in changed), *stale} if id in self._items.devices]
        try:
            known = await self._settings.get_many(ids)
        except StoreError as error:
            self.log.warn("settings cannot be read: {error}", error=str(error))
            self._changed = dict.fromkeys(changed) | self._changed
            await asyncio.sleep(RETRY_INTERVAL)
            return
        for device_id, name in changed:
            await self._publish(link, device_id, name, known.get(device_id, {}))
        for device_id in stale:
            for name in known.get(device_id, {}):
                await self._publish(link, device_id, name, known[device_id])
            self._stale.pop(device_id, None)

    async def _publish(self, link: Link, device_id: int, name: str, known: Mapping[str, Shadow]) -> None:
        await link.room()
        device = self._items.devices.get(device_id)
        shadow = known.get(name) if device is not None and name in _names_of(device) else None
        removed = partial(self._removals.pop, (device_id, name), None)
        topic, stamp = packed_text(self._topics.setting(device_id, name)), link.stamp(b"%.6f" % time.time())
        if shadow is None:
            link.publish(topic, REMOVED, removed, stamp, retain=True)
            return
        self._told.add(device_id)
        removed()  # it is not to be taken away any more
        link.publish(topic, compact_json(view_of_setting(device_id, shadow)), lambda: None, stamp, retain=True)


def _names_of(device: Device) -> Mapping[str, object]:
    protocol = PROTOCOLS[device.protocol_id]
    return protocol.settings_of(protocol.model_of(device.device_type_id))
