"""The configured channels and devices: created at the first start, and kept as the API changed them afterwards.

An item's ``configured`` keeps what the file said last. Only what the file says differently since then is applied, so a
change in the file counts, and a change by the API stays: also a deletion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import evolve
from twisted.logger import Logger

from gateway.errors import ConfigError
from gateway.protocols.catalog import TELTONIKA, find_protocol
from gateway.protocols.teltonika.device_types import find_device_type
from gateway.settings import ChannelSection, DeviceSection, Settings
from gateway.store.items import Channel, Device, Items

log = Logger()


async def apply_channels(items: Items, sections: Sequence[ChannelSection]) -> None:
    """Create the configured channels, apply what the file changed, disable those that it no longer names."""
    for section in sections:
        await _apply_channel(items, section)
    names = {section.name for section in sections}
    for channel in list(items.channels.values()):
        said = channel.configured
        if said.get("enabled") and _configured_name(channel) not in names:
            log.warn("channel {name} is no longer configured: disabled, its messages stay", name=channel.name)
            await items.change_channel(channel.id, _channel_as({**said, "enabled": False}))


async def _apply_channel(items: Items, section: ChannelSection) -> None:
    said = {
        "name": section.name,
        "enabled": True,
        "listen": section.listen,
        "unknown_ident": section.unknown_ident,
        "messages_ttl": section.messages_ttl,
    }
    channel = _configured_channel(items, section.name)
    if channel is None and _stays_deleted(items, "channels", section.name, said):
        return
    if channel is None:
        protocol = find_protocol(section.protocol)
        if protocol is None:
            raise ConfigError(f"[[channels]] {section.name} protocol: there is no {section.protocol!r}")
        channel = await items.create_channel(name=section.name, protocol_id=protocol.id)
    await items.change_channel(channel.id, _channel_as(said))


def _configured_channel(items: Items, name: str) -> Channel | None:
    """The one that the file called so, be it renamed since or not; else one of this name that the API made."""
    for channel in items.channels.values():
        if _configured_name(channel) == name:
            return channel
    return next((one for one in items.channels.values() if one.name == name and not one.configured), None)


def _configured_name(channel: Channel) -> str | None:
    """What the file calls it; the first version did not keep that apart from the name."""
    name: str | None = channel.configured.get("name", channel.name if channel.configured else None)
    return name


def _channel_as(said: Mapping[str, Any]) -> Callable[[Channel], Channel]:
    def change(channel: Channel) -> Channel:
        news = _news(channel.configured, said)
        fields = {key: news.pop(key) for key in ("name", "enabled", "messages_ttl") if key in news}
        configuration = {**channel.configuration, **news}
        return evolve(channel, **fields, configuration=configuration, configured=dict(said))

    return change


async def apply_devices(items: Items, settings: Settings) -> None:
    """Create the configured devices, and apply what the file changed. Raises ConfigError, StoreError."""
    for section in settings.devices:
        await _apply_device(items, section, settings.source)
    for device in list(items.devices.values()):
        before = device.configured
        if device.messages_ttl == before.get("messages_ttl"):  # it has the default, nobody said otherwise
            said = {**before, "messages_ttl": settings.limits.device_messages_ttl}
            await items.change_device(device.id, _device_as(said))


async def _apply_device(items: Items, section: DeviceSection, source: str) -> None:
    kind = find_device_type(section.type)
    if kind is None:
        raise ConfigError(
            f"{source}: [[devices]] {section.ident} type: {section.type!r} should be a Teltonika model "
            "such as FMC130, or empty"
        )
    said = {"name": section.name or section.ident, "device_type_id": kind.id}
    device = items.find_device(TELTONIKA.id, section.ident)
    if device is None and _stays_deleted(items, "devices", section.ident, said):
        return
    if device is None:
        device = await items.create_device(ident=section.ident, protocol_id=TELTONIKA.id, **said)
    await items.change_device(device.id, _device_as({**device.configured, **said}))


def _device_as(said: Mapping[str, Any]) -> Callable[[Device], Device]:
    return lambda device: evolve(device, **_news(device.configured, said), configured=dict(said))


def _stays_deleted(items: Items, kind: str, name: str, said: Mapping[str, Any]) -> bool:
    """Whether the API deleted the item, and the file says of it what it said then."""
    before = items.records.deleted.get((kind, name))
    if before is None or _news(before, said):
        return False
    log.warn(
        "{kind}: {name} was deleted and is not made again, unless something in its section changes",
        kind=kind, name=name,
    )  # fmt: skip
    return True


def _news(before: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """What the file says otherwise than the last time it was read."""
    return {key: value for key, value in said.items() if before.get(key) != value}
