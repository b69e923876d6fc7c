"""The protocols that a channel can speak, and what a channel needs of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from attrs import frozen

from gateway.protocols.teltonika import datagram, device_types, normalize, session
from gateway.protocols.teltonika.device_types import DeviceType


class Normalizer(Protocol):
    """Turns a record of the wire into a message."""

    def normalize(self, record: Any, codec_id: int) -> dict[str, Any]:
        """The message, without what the channel knows of it (ident, peer, server.timestamp, ...)."""


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
)

PROTOCOLS: dict[int, TrackerProtocol] = {TELTONIKA.id: TELTONIKA}


def find_protocol(name: str) -> TrackerProtocol | None:
    """The protocol of this name."""
    return next((protocol for protocol in PROTOCOLS.values() if protocol.name == name), None)
