"""What can be configured: each key with its default, its meaning and its check, in one place.

The documentation and ``conf/gateway.toml`` are tested against it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from attrs import field, frozen

from gateway.channel.endpoints import parse_range, problem

Check = Callable[[Any], str | None]
"""Gives what would be right, or None where the value is fine."""

MiB = 1024 * 1024


def option(default: Any, doc: str, check: Check | None = None) -> Any:
    """One key of a section."""
    return field(default=default, metadata={"doc": doc, "check": check})


def one_of(*allowed: object) -> Check:
    """The value is one of these."""
    return lambda value: None if value in allowed else "one of " + ", ".join(map(repr, allowed))


def at_least(least: float) -> Check:
    """The value is a number not below ``least``."""
    return lambda value: None if value >= least else f"a number not below {least}"


def between(least: float, most: float) -> Check:
    """The value is a number within these bounds."""
    return lambda value: None if least <= value <= most else f"a number from {least} to {most}"


def url_of(*schemes: str) -> Check:
    """The word ``embedded``, or an address with one of these schemes."""

    def check(value: str) -> str | None:
        if value == "embedded" or any(re.match(rf"{re.escape(scheme)}://.", value) for scheme in schemes):
            return None
        return '"embedded" or an address that starts with ' + ", ".join(f"{scheme}://" for scheme in schemes)

    return check


def endpoint(*kinds: str) -> Check:
    """A Twisted endpoint string of one of these kinds."""
    return lambda value: problem(value, kinds)


def port_range(value: str) -> str | None:
    """Ports, FIRST-LAST."""
    return None if parse_range(value) is not None else "FIRST-LAST, such as 20000-20099, with ports from 1 to 65535"


def no_spaces(value: str) -> str | None:
    """A token, which stands in headers and user names."""
    return None if re.fullmatch(r"[!-~]*", value) else "printable ASCII without spaces"


def topic_level(value: str) -> str | None:
    """A level of a topic."""
    return None if re.fullmatch(r"[^/#+\s\x00-\x1f]+", value) else "one level of a topic, without / # + and spaces"


@frozen
class GatewaySection:
    """What concerns the process as a whole."""

    data_dir: str = option("var", "embedded Redis' data and the generated token; relative to the working directory")
    workers: int = option(
        1, "processes that share the trackers' connections over TCP and TLS; 0: one for each core", between(0, 64)
    )
    public_host: str = option(
        "", "the host that trackers reach this machine by, shown in a channel's uri; empty: the machine's name"
    )
    log_format: str = option("text", "text, or json: an object a line", one_of("text", "json"))
    log_level: str = option("info", "least level that is logged", one_of("debug", "info", "warn", "error"))
    plugin_folders: str = option(
        "", "folders with plugin types of your own, a file each, with ':' between: /etc/avl-gateway/plugins"
    )
    readers: bool = option(True, "false: take and store packets, but neither register nor publish them")


@frozen
class RedisSection:
    """The store."""

    url: str = option(
        "embedded",
        "embedded: a redis-server of our own in data_dir; or redis://, rediss://, unix://",
        url_of("redis", "rediss", "unix"),
    )
    maxmemory_mb: int = option(
        0, "embedded: memory for data, at which trackers are paused; 0: half of the machine's", at_least(0)
    )
    appendfsync: str = option(
        "always",
        "embedded: when data must be on disk: always (before a tracker is answered) or everysec "
        "(a power cut, or a killed Redis, may take up to two seconds of acknowledged packets)",
        one_of("always", "everysec"),
    )


@frozen
class MqttSection:
    """Where messages are published."""

    url: str = option(
        "embedded",
        "embedded: a broker inside the process; or mqtt://user:password@host:port, mqtts://",
        url_of("mqtt", "mqtts"),
    )
    version: int = option(5, "protocol on an external broker: 5, or 4 for MQTT 3.1.1", one_of(4, 5))
    ca_file: str = option("", "mqtts: certificates to trust (PEM); empty: the system's")
    client_id: str = option("avl-gateway", "client id on the broker; must differ between gateways on one broker")
    listen: str = option("tcp:1883:interface=127.0.0.1", "embedded broker: MQTT", endpoint("tcp"))
    listen_ws: str = option("tcp:9001:interface=127.0.0.1", "embedded broker: MQTT over WebSocket", endpoint("tcp"))
    topic_prefix: str = option("flespi", "first level of every topic", topic_level)
    telemetry: bool = option(True, "publish the retained telemetry topics")
    telemetry_interval: float = option(
        1,
        "seconds: at most one value per parameter and device in this time; the last one always arrives",
        at_least(0.1),
    )


@frozen
class ApiSection:
    """The REST API."""

    listen: str = option(
        "tcp:8080:interface=127.0.0.1",
        "REST and metrics; ssl:8443:privateKey=...:certKey=... for TLS",
        endpoint("tcp", "ssl", "systemd", "unix", "tcp6"),
    )
    channel_ports: str = option(
        "20000-20099",
        "ports for channels that are created without listen: each gets the lowest free one, for TCP and UDP",
        port_range,
    )
    cors_origins: str = option(
        "", "origins whose web pages may use the API, with spaces between, such as https://fleet.example; *: all"
    )


@frozen
class AuthSection:
    """Who may come in."""

    token: str = option(
        "", "the master token; empty: generated at the first start and kept in data_dir/token", no_spaces
    )


@frozen
class LimitsSection:
    """Bounds on what comes from outside."""

    connections: int = option(20000, "connections of trackers in all", at_least(1))
    connections_per_address: int = option(5000, "from one address; carriers hide many trackers behind one", at_least(1))
    devices: int = option(
        100000, "devices in all, at which channels register no more idents by themselves", at_least(0)
    )
    login_time: float = option(30.0, "seconds until a connection must have sent its ident", at_least(1))
    idle_time: float = option(
        262800.0,
        "seconds without a byte until a connection is closed; above the longest Open Link Timeout of Teltonika's "
        "trackers (259200), since many reconnect only when they have a record",
        at_least(1),
    )
    packet_size: int = option(65536, "bytes that a packet may declare (real ones stay below 1300)", at_least(1280))
    pending_packets_udp: int = option(
        1000, "datagrams that may wait for storage; more are dropped unanswered", at_least(1)
    )
    disk_free_mb: int = option(256, "embedded Redis: free disk space below which trackers are paused", at_least(0))
    reader_retention: float = option(
        604800.0, "seconds that the log is kept for a reader that is down, such as the MQTT publisher", at_least(60)
    )
    device_messages_ttl: int = option(
        2592000, "seconds that a device's messages are kept, unless the device says otherwise", at_least(60)
    )
    stop_time: float = option(10.0, "seconds that a stop waits for packets under way", at_least(0))


UNKNOWN_IDENT = one_of("accept", "reject", "register")


@frozen
class ChannelSection:
    """A channel that exists from the first start; matched by name afterwards."""

    name: str = option("", "what it is called; unique")
    protocol: str = option("teltonika", "the trackers' protocol", one_of("teltonika"))
    listen: list[str] = field(factory=list, metadata={"doc": "endpoints: tcp:, ssl:, haproxy:tcp:, systemd:, udp:"})
    unknown_ident: str = option(
        "accept", "an ident without a device: accept its messages, reject it, or register a device", UNKNOWN_IDENT
    )
    messages_ttl: int = option(86400, "seconds that its messages are kept", at_least(0))


@frozen
class DeviceSection:
    """A device that is created at the first start."""

    name: str = option("", "what it is called")
    ident: str = option("", "its ident: the IMEI")
    type: str = option("", "its model, for example FMC130; empty: unknown")


@frozen
class Settings:
    """All settings. ``source`` is the file they came from, for error messages."""

    gateway: GatewaySection = field(factory=GatewaySection)
    redis: RedisSection = field(factory=RedisSection)
    mqtt: MqttSection = field(factory=MqttSection)
    api: ApiSection = field(factory=ApiSection)
    auth: AuthSection = field(factory=AuthSection)
    limits: LimitsSection = field(factory=LimitsSection)
    channels: list[ChannelSection] = field(factory=list)
    devices: list[DeviceSection] = field(factory=list)
    source: str = "defaults"
