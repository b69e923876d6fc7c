"""What a scenario says about trackers: each key with its default, its meaning and its check, in one place.

A :class:`Group` are devices that are alike: one model, one route, one way of sending, one share of trouble. They differ
in their ident, in where on the route they begin, and in whatever chance decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import attrs

Check = Callable[[Any], str | None]
"""Gives what would be right, or None where the value is fine."""

MODEL_CODES = ("8", "8e", "16")
TRANSPORTS = ("tcp", "udp", "tls")
SORTS = ("newest", "oldest")
PACKET_RECORDS = 255  # number of data is one byte


def option(default: Any, doc: str, check: Check | None = None) -> Any:
    """One key of a scenario file."""
    converter = tuple if isinstance(default, tuple) else None
    return attrs.field(default=default, metadata={"doc": doc, "check": check}, converter=converter)


def between(least: float, most: float = float("inf")) -> Check:
    """The value is a number from ``least`` to ``most``."""
    right = f"a number not below {least:g}" if most == float("inf") else f"a number from {least:g} to {most:g}"
    return lambda value: None if least <= value <= most else right


def one_of(*allowed: str) -> Check:
    """The value is one of these."""
    return lambda value: None if value in allowed else "one of " + ", ".join(map(repr, allowed))


def above_zero(value: float) -> str | None:
    """The value is a positive number; infinity is one."""
    return None if value > 0 else "a number above 0"


def imei(value: str) -> str | None:
    """The value is an IMEI."""
    return None if re.fullmatch(r"[0-9]{15}", value) else 'an IMEI, 15 digits in quotes, such as "352093081452251"'


def address(value: str) -> str | None:
    """The value is HOST:PORT; an IPv6 address stands in brackets."""
    host, _, port = value.rpartition(":")
    if host and re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65536:
        return None
    return 'HOST:PORT, such as "127.0.0.1:5027"'


_probability = between(0, 1)


@attrs.frozen
class Timing:
    """When a device notes something, and when it sends. Seconds are those of the device's clock."""

    period: float = option(10.0, "seconds between two records while the ignition is on", above_zero)
    parked_period: float = option(300.0, "seconds between two records while the ignition is off", above_zero)
    min_distance: float = option(0.0, "meters after which a moving device makes a record; 0: never", between(0))
    min_angle: float = option(0.0, "degrees of turning after which it makes one; 0: never", between(0, 180))
    watch: tuple[int, ...] = option((239, 250), "AVL ids whose change makes a record at once")
    sleep_after: float = option(
        0.0, "seconds parked until the receiver is switched off (AVL 200); 0: never", between(0)
    )
    records_per_packet: int = option(1, "a packet is sent when so many records wait", between(1, PACKET_RECORDS))
    send_period: float = option(0.0, "and at least so often, if any waits; 0: only when there are enough", between(0))
    sort: str = option("oldest", "which of the waiting records are sent first: oldest or newest", one_of(*SORTS))
    response_timeout: float = option(10.0, "real seconds to wait for the verdict or an acknowledgement", above_zero)
    open_link_timeout: float = option(0.0, "real seconds until an idle link is closed; 0: it is kept", between(0))
    ping_interval: float = option(0.0, "real seconds between pings (FF) on an idle link; 0: none", between(0))
    backlog: int = option(10_000, "records that the device's memory holds; then the oldest is dropped", between(1))


@attrs.frozen
class Faults:
    """What goes wrong. A chance is a number from 0 to 1."""

    cut: float = option(0.0, "chance that the link breaks in the middle of a packet", _probability)
    segments: int = option(0, "largest number of bytes that are written at once; 0: no limit", between(0))
    bad_crc: float = option(0.0, "chance that a packet's CRC is wrong (TCP only); it is sent again", _probability)
    duplicate: float = option(0.0, "chance that a packet is sent again although it was acknowledged", _probability)
    clock_offset: float = option(0.0, "seconds that the device's clock is ahead; negative: behind")
    no_fix: float = option(0.0, "chance that with a record a minute or so without satellites begins", _probability)
    zero_coordinates: float = option(0.0, "chance that a record has no position: 0, 0, no satellite", _probability)
    unknown_codec: float = option(0.0, "chance that a packet with an unknown codec is sent before one", _probability)
    silence: float = option(0.0, "chance that the link falls silent after a packet, without being closed", _probability)


@attrs.frozen
class Events:
    """What happens to the vehicles, each so many times per hour of driving, on average."""

    harsh: float = option(0.0, "harsh acceleration, braking and cornering (AVL 253), per hour of driving", between(0))
    crash: float = option(0.0, "crashes (AVL 247) per hour; the vehicle stands for ten minutes after one", between(0))


@attrs.frozen
class Group:
    """Devices that are alike."""

    name: str = option("trackers", "unique in its scenario")
    devices: int = option(1, "how many", between(1, 1_000_000))
    imei: str = option("352093081452251", "the first one's IMEI; the others count up from it", imei)
    model: str = option("FMB120", "decides which AVL ids there are and what they mean")
    codec: str = option("8e", "data protocol: 8, 8e or 16", one_of(*MODEL_CODES))
    transport: str = option("tcp", "how it connects: tcp, udp or tls", one_of(*TRANSPORTS))
    to: str = option("", "HOST:PORT for this group alone; empty: where the scenario goes", lambda v: v and address(v))
    route: str = option("town", "a built-in route, or a file: .gpx .geojson .csv .polyline .polyline6")
    io: tuple[str, ...] = option(("basic",), "IO sets by name, and single AVL ids")
    spread: float = option(0.0, "real seconds over which the devices are switched on", between(0))
    timing: Timing = attrs.field(factory=Timing)
    faults: Faults = attrs.field(factory=Faults)
    events: Events = attrs.field(factory=Events)

    def ident(self, index: int) -> str:
        """The IMEI of device ``index``, counted from 0."""
        return f"{int(self.imei) + index:015d}"
