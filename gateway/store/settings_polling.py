"""Settings that are read when a device connects: ``settings_polling`` of its configuration, ``once``, as flespi has it.

A setting is asked for if nothing is known of it: not that the device has it, nor that it was asked for or cannot be
read. So a device is asked at its first connection, and at later ones for what is new: its type has become another one.

Only a device that says so is asked, as those do that are made by the API: a fleet that registers itself would otherwise
get some dozen commands for each of its trackers, on links that bill by the byte. One whose model is not known is not
asked, for the numbers of parameters are its model's: what it answered would be taken for something else.
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
        """Whether the device's configuration asks for it, and what to ask is known."""
        is_unknown = device.device_type_id == PROTOCOLS[device.protocol_id].unknown_device_type
        return device.configuration.get("settings_polling") == ONCE and not is_unknown

    async def begin(self, device: Device) -> None:
        """Have each setting read that nothing is known of. Raises StoreError."""
        protocol = PROTOCOLS[device.protocol_id]
        known = await self._settings.names(device.id)
        unread = [name for name in protocol.settings_of(protocol.model_of(device.device_type_id)) if name not in known]
        for name in unread:
            await self._settings.reread(device.id, name)
        if unread:
            self._dispatcher.poke(device.id)
