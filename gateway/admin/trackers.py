"""Who is connected, which idents were seen, what they sent, and what happened to an item."""

from __future__ import annotations

from argparse import Namespace
from base64 import b64decode
from binascii import Error as Base64Error

from gateway.admin.client import AdminError, Client, Item
from gateway.admin.output import Column, Output, age, ago, column, compact, size, text, when
from gateway.admin.selectors import CHANNELS, DEVICES, ID_DIGITS, KINDS, ids, selector

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
    column("reason", drop=2, shrink=30, is_told=True),
    column("device", "device_id", drop=4),
    column("last seen", "last", drop=3, show=ago),
    column("connected", drop=6),
    column("from", "source", drop=5),
    column("times", "count", drop=7),
    column("traffic", "size", drop=8, show=size),
)
UDP = 128
TYPES = {0: "connect", 1: "disconnect", 2: "received", 3: "sent"}
RECEIVED = 2
CODES = "toolbox/codes"
SHOWN_FIRST = ("reason", "close_code", "duration", "msgs", "recv", "send")
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
    """``packets IDENT [--channel CHANNEL]``: the raw traffic of an ident."""
    ident = _ident(client, options.ident)
    path = (*CHANNELS.path, ids(client, CHANNELS, options.channel), "idents", ident, "packets")
    answer = client.get(*path, data=_data(options))
    packets = _in_order(answer.result, options)
    for packet in packets:
        packet["hex"] = _hex(packet)
    output.items(packets, PACKETS, f"nothing of {ident} is kept")
    last = next((packet["hex"] for packet in reversed(packets) if packet["hex"] and _kind(packet) == RECEIVED), None)
    if last and not output.is_json:
        output.note(f"\nwhat the last one received says: python -m gateway.decode {last}")
    return answer.failures


def _ident(client: Client, text: str) -> str:
    """That of a device, if ``text`` means one; else it is an ident that no device has."""
    if text.isdigit() and len(text) > ID_DIGITS:
        return text
    found = client.get(*DEVICES.path, selector(DEVICES, text), fields="configuration.ident").result
    if len(found) > 1:
        raise AdminError(f"{len(found)} devices are {text!r}: name one")
    return str(found[0]["configuration.ident"]) if found else text


def _data(options: Namespace) -> Item:
    """The last ones, unless it is said from when on."""
    data = {"count": options.count or None, "reverse": options.start is None or None}
    data |= {"from": options.start, "to": options.to}
    return {name: value for name, value in data.items() if value is not None}


def _in_order(found: list[Item], options: Namespace) -> list[Item]:
    """The latest last; what has the same time in the order in which it happened."""
    return found if options.start is not None else found[::-1]


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
    data = {**_data(options), **({"filter": options.filter} if options.filter else {})}
    answer = client.get(*kind.path, ids(client, kind, options.selector), "logs", data=data)
    entries = _in_order(answer.result, options)
    codes = {} if output.is_json else _codes(client)
    columns = (
        column("time", "timestamp", show=when),
        column("item", "origin_id", drop=3),
        Column("event", lambda entry: _event(entry, codes)),
        column("ident", drop=2),
        Column("details", lambda entry: _details(entry, codes), drop=1, shrink=30, is_folded=True),
    )
    output.items(entries, columns, "nothing is logged")
    return answer.failures


def _codes(client: Client) -> Item:
    """What the numbers of events mean, by number."""
    known = client.get("const", "values").result
    codes = known[0].get(CODES, {}).get("codes") if known else None
    return codes if isinstance(codes, dict) else {}


def _event(entry: Item, codes: Item) -> str:
    code = str(entry.get("event_code", ""))
    return str(codes.get(code, {}).get("name", code)).replace("_", " ")


def _details(entry: Item, codes: Item) -> str:
    closes = codes.get(str(entry.get("event_code")), {}).get("extra_codes", {})
    first = {name: entry[name] for name in SHOWN_FIRST if name in entry}
    shown = {name: value for name, value in {**first, **entry}.items() if name not in SHOWN_APART}
    if "close_code" in shown:
        shown["close_code"] = closes.get(str(shown["close_code"]), shown["close_code"])
        if shown["close_code"] == shown.get("reason"):
            del shown["close_code"]
    return " ".join(f"{name}={value if isinstance(value, str) else compact(value)}" for name, value in shown.items())
