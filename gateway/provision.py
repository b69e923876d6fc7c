"""The configured channels and devices: created at the first start, and kept as the API changed them afterwards.

An item's metadata keeps what the file said last. Only what the file says differently since then is applied, so a
change in the file counts, and a change by the API stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve
from twisted.logger import Logger

from gateway.errors import ConfigError
from gateway.protocols.catalog import TELTONIKA, find_protocol
from gateway.protocols.teltonika.device_types import find_device_type
from gateway.settings import ChannelSection, DeviceSection, Settings
from gateway.store.items import CONFIGURED, Channel, Device, Items

log = Logger()


async def apply_channels(items: Items, sections: Sequence[ChannelSection]) -> None:
    """Create the configured channels, apply what the file changed, disable those that it no longer names."""
    for section in sections:
        await _apply_channel(items, section)
    names = {section.name for section in sections}
    for channel in list(items.channels.values()):
        said = channel.metadata.get(CONFIGURED)
        if said is not None and said.get("enabled") and channel.name not in names:
            log.warn("channel {name} is no longer configured: disabled, its messages stay", name=channel.name)
            await items.update_channel(_changed_channel(channel, {**said, "enabled": False}))


async def _apply_channel(items: Items, section: ChannelSection) -> None:
    channel = items.find_channel(section.name)
    if channel is None:
        protocol = find_protocol(section.protocol)
        if protocol is None:
            raise ConfigError(f"[[channels]] {section.name} protocol: there is no {section.protocol!r}")
        channel = await items.create_channel(name=section.name, protocol_id=protocol.id)
    said = {
        "enabled": True,
        "listen": section.listen,
        "unknown_ident": section.unknown_ident,
        "messages_ttl": section.messages_ttl,
    }
    changed = _changed_channel(channel, said)
    if changed != channel:
        await items.update_channel(changed)


def _changed_channel(channel: Channel, said: Mapping[str, Any]) -> Channel:
    news = _news(channel.metadata, said)
    fields = {key: news.pop(key) for key in ("enabled", "messages_ttl") if key in news}
    return evolve(
        channel,
        **fields,
        configuration={**channel.configuration, **news},
        metadata={**channel.metadata, CONFIGURED: dict(said)},
    )


async def apply_devices(items: Items, settings: Settings) -> None:
    """Create the configured devices, and apply what the file changed. Raises ConfigError, StoreError."""
    for section in settings.devices:
        await _apply_device(items, section, settings.source)
    for device in list(items.devices.values()):
        before = device.metadata.get(CONFIGURED, {})
        if device.messages_ttl == before.get("messages_ttl"):  # it has the default, nobody said otherwise
            await _update_device(items, device, {**before, "messages_ttl": settings.limits.device_messages_ttl})


async def _apply_device(items: Items, section: DeviceSection, source: str) -> None:
    kind = find_device_type(section.type)
    if kind is None:
        raise ConfigError(
            f"{source}: [[devices]] {section.ident} type: {section.type!r} should be a Teltonika model "
            "such as FMC130, or empty"
        )
    said = {"name": section.name or section.ident, "device_type_id": kind.id}
    device = items.find_device(TELTONIKA.id, section.ident)
    if device is None:
        device = await items.create_device(ident=section.ident, protocol_id=TELTONIKA.id, **said)
    await _update_device(items, device, {**device.metadata.get(CONFIGURED, {}), **said})


async def _update_device(items: Items, device: Device, said: Mapping[str, Any]) -> None:
    news = _news(device.metadata, said)
    changed = evolve(device, **news, metadata={**device.metadata, CONFIGURED: dict(said)})
    if changed != device:
        await items.update_device(changed)


def _news(metadata: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """What the file says otherwise than the last time it was read."""
    before = metadata.get(CONFIGURED, {})
    return {key: value for key, value in said.items() if before.get(key) != value}
