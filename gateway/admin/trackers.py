"""Who is connected, which idents were seen, what they sent, and what happened to an item."""

from __future__ import annotations

from argparse import Namespace
from base64 import b64decode
from binascii import Error as Base64Error

from gateway.admin.client import Client, Item
from gateway.admin.output import Column, Output, age, ago, column, compact, size, text, when
from gateway.admin.selectors import CHANNELS, KINDS, ids

CONNECTIONS = (
    column("ident"),
    column("device", "device_id", drop=3),
    column("channel", "channel_id", drop=4),
    column("from", "source", drop=1),
    column("transport", drop=5),
    column("connected for", "established", drop=2, show=age),
    column("silent for", "last_active", drop=6, show=age),
    column("messages", "msgs", drop=7),
    column("received", "recv", drop=8, show=size),
)
IDENTS = (
    column("ident"),
    column("verdict", drop=1),
    column("reason", drop=2, shrink=30),
    column("device", "device_id", drop=4),
    column("last seen", drop=3, show=ago),
    column("from", "peer", drop=5),
    column("times", "count", drop=6),
    column("traffic", "size", drop=7, show=size),
)
UDP = 128
TYPES = {0: "connect", 1: "disconnect", 2: "received", 3: "sent"}
RECEIVED = 2
EVENTS = {
    1: "created", 2: "updated", 3: "deleted", 20: "blocked", 21: "unblocked", 100: "connection accepted",
    101: "identified", 102: "connection closed", 103: "data error", 114: "configuration invalid", 300: "connected",
    301: "disconnected", 304: "processing error", 305: "processing warning", 320: "plugin activated",
    321: "plugin deactivated", 330: "command queued", 331: "command removed", 332: "command processed",
    333: "command expired", 334: "command sent", 401: "stream connected", 402: "stream lost", 403: "delivery failed",
    404: "delivered", 600: "token expired", 1000: "REST request",
}  # fmt: skip
"""flespi's event codes (its page "Logs")."""
SHOWN_APART = frozenset({"event_code", "timestamp", "origin_id", "origin_type", "ident"})


def run_connections(client: Client, options: Namespace, output: Output) -> list[str]:
    """``connections [CHANNEL]``."""
    answer = client.get(*CHANNELS.path, ids(client, CHANNELS, options.selector), "connections", "all")
    output.items(answer.result, CONNECTIONS, "nobody is connected")
    return answer.failures


def run_idents(client: Client, options: Namespace, output: Output) -> list[str]:
    """``idents [CHANNEL] [--ident MASK]``: seen, and let in or not."""
    answer = client.get(*CHANNELS.path, ids(client, CHANNELS, options.selector), "idents", options.ident)
    output.items(answer.result, IDENTS, "no ident was seen")
    return answer.failures


def run_packets(client: Client, options: Namespace, output: Output) -> list[str]:
    """``packets CHANNEL IDENT``: the raw traffic of an ident."""
    data: Item = {"count": options.count or None, "reverse": options.start is None or None}
    data |= {"from": options.start, "to": options.to}
    path = (*CHANNELS.path, ids(client, CHANNELS, options.selector), "idents", options.ident, "packets")
    answer = client.get(*path, data={name: value for name, value in data.items() if value is not None})
    packets = sorted(answer.result, key=lambda packet: float(packet.get("timestamp", 0)))
    for packet in packets:
        packet["hex"] = _hex(packet)
    output.items(packets, PACKETS, f"nothing of {options.ident} was recorded: a channel keeps packets for packets_ttl")
    last = next((packet["hex"] for packet in reversed(packets) if packet["hex"] and _kind(packet) == RECEIVED), None)
    if last and not output.is_json:
        output.note(f"\nwhat the last one received says: python -m gateway.decode {last}")
    return answer.failures


def _kind(packet: Item) -> int:
    return int(packet.get("type", -1)) & 31


def _direction(packet: Item) -> str:
    number = int(packet.get("type", -1))
    return TYPES.get(_kind(packet), str(number)) + (" (UDP)" if number & UDP else "")


def _hex(packet: Item) -> str:
    try:
        return b64decode(packet.get("data") or "").hex()
    except (Base64Error, ValueError, TypeError):
        return ""


PACKETS = (
    column("time", "timestamp", show=when),
    Column("what", _direction),
    Column("bytes", lambda packet: text(packet.get("size") or len(packet["hex"]) // 2 or None), drop=2, is_number=True),
    column("from", "source", drop=4),
    column("reason", drop=1, shrink=30),
    column("data", "hex", drop=3, shrink=16),
)


def run_logs(client: Client, options: Namespace, output: Output) -> list[str]:
    """``logs KIND SELECTOR``: what happened to the item."""
    kind = KINDS[f"{options.kind}s"]
    data: Item = {"count": options.count or None, "reverse": options.start is None or None}
    data |= {"from": options.start, "to": options.to, "filter": options.filter}
    path = (*kind.path, ids(client, kind, options.selector), "logs")
    answer = client.get(*path, data={name: value for name, value in data.items() if value is not None})
    entries = sorted(answer.result, key=lambda entry: float(entry.get("timestamp", 0)))
    output.items(entries, LOGS, "nothing is logged")
    return answer.failures


def _event(entry: Item) -> str:
    code = entry.get("event_code")
    return EVENTS.get(code, text(code)) if isinstance(code, int) else text(code)


def _details(entry: Item) -> str:
    given = (
        f"{name}={value if isinstance(value, str) else compact(value)}"
        for name, value in entry.items()
        if name not in SHOWN_APART
    )
    return " ".join(given)


LOGS = (
    column("time", "timestamp", show=when),
    column("item", "origin_id", drop=3),
    Column("event", _event),
    column("ident", drop=2),
    Column("details", _details, drop=1, shrink=30),
)
