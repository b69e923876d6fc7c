"""The protocols that a channel can speak, and what a channel needs of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from attrs import frozen

from gateway.protocols.teltonika import (
    command_list,
    datagram,
    device_types,
    normalize,
    serial_data,
    session,
    settings,
)
from gateway.protocols.teltonika.command_list import Request
from gateway.protocols.teltonika.device_types import DeviceType
from gateway.protocols.teltonika.settings import Setting


class Normalizer(Protocol):
    """Turns the records of a packet into messages."""

    def normalize_all(self, records: Any, codec_id: int) -> list[dict[str, Any]]:
        """A message of each, in their order, without what the channel knows of it (ident, peer, server.timestamp)."""


@frozen
class TrackerProtocol:
    """A vendor's language."""

    id: int
    name: str
    session: Callable[[int], session.Session]
    """Makes the state machine of a connection; its argument is the greatest packet in bytes."""
    receive_datagram: Callable[[bytes], datagram.DatagramEvent]
    acknowledge_datagram: Callable[[datagram.DatagramEvent, int], bytes]
    normalizer_for: Callable[[str | None], Normalizer]
    """The normalizer of a model; None: not known."""
    device_types: Callable[[], dict[int, DeviceType]]
    """What a device of this protocol can be, by id."""
    model_of: Callable[[int], str | None]
    """The model of a device type's id."""
    unknown_device_type: int
    """The device type's id of trackers whose model is not known."""
    unasked: Callable[[Mapping[str, Any], str, float], dict[str, Any]]
    """The message of what a tracker said unasked: what it said, its ident, ``server.timestamp``."""
    request_of: Callable[[str, Mapping[str, Any], str | None], Request]
    """A command by name, with its properties, for a model. Raises CommandError."""
    describe_commands: Callable[[str | None], tuple[dict[str, Any], ...]]
    """The commands of a model, as clients are told of them."""
    settings_of: Callable[[str | None], dict[str, Setting]]
    """The settings of a model, by name."""
    find_setting: Callable[[str, str | None], Setting]
    """The one of this name. Raises SettingError."""


TELTONIKA = TrackerProtocol(
    id=14,  # flespi's
    name="teltonika",
    session=session.Session,
    receive_datagram=datagram.receive_datagram,
    acknowledge_datagram=datagram.acknowledge_datagram,
    normalizer_for=normalize.normalizer_for,
    device_types=device_types.device_types,
    model_of=device_types.model_of,
    unknown_device_type=device_types.UNKNOWN_TYPE,
    unasked=serial_data.message_of,
    request_of=command_list.request_of,
    describe_commands=command_list.describe_commands,
    settings_of=settings.settings_of,
    find_setting=settings.find_setting,
)

PROTOCOLS: dict[int, TrackerProtocol] = {TELTONIKA.id: TELTONIKA}


def find_protocol(name: str) -> TrackerProtocol | None:
    """The protocol of this name."""
    return next((protocol for protocol in PROTOCOLS.values() if protocol.name == name), None)
