"""Settings that are read when a device connects: ``settings_polling`` of its configuration, ``once``, as flespi has it.

Only a device that says so is asked: a fleet that connects for the first time would otherwise get some dozen commands
for each of its trackers, on links that bill by the byte.
"""

from __future__ import annotations

from attrs import define

from gateway.protocols.catalog import PROTOCOLS
from gateway.store.dispatcher import Dispatcher
from gateway.store.items import Device
from gateway.store.settings import DeviceSettings

ONCE = "once"


@define(eq=False)
class SettingsPolling:
    """Wants what was never read to be read."""

    _settings: DeviceSettings
    _dispatcher: Dispatcher

    @staticmethod
    def is_wanted(device: Device) -> bool:
        """Whether the device's configuration asks for it."""
        return device.configuration.get("settings_polling") == ONCE

    async def begin(self, device: Device) -> None:
        """Have each setting read that nothing is known of. Raises StoreError."""
        protocol = PROTOCOLS[device.protocol_id]
        known = await self._settings.all(device.id)
        unread = [name for name in protocol.settings_of(protocol.model_of(device.device_type_id)) if name not in known]
        for name in unread:
            await self._settings.reread(device.id, name)
        if unread:
            self._dispatcher.poke(device.id)
