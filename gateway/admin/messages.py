"""Messages as they are stored, messages as they come, and telemetry."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from gateway.admin.client import AdminError, Client, Item
from gateway.admin.output import Column, Output, age, column, compact, count, printable, text, when
from gateway.admin.selectors import DEVICES, KINDS, Kind, ids

LAST = 20
"""Messages shown where nobody says how many."""
COLUMNS_MOST = 40
POLL = 20
"""Seconds that the gateway waits for the next message of a channel."""
LOOK_AGAIN = 1.0
"""Seconds between two looks at the messages of devices, which cannot be waited for."""
BATCH = 1000
MICROSECOND = 0.000001

OF_EVERYBODY = frozenset({
    "ident", "timestamp", "server.timestamp", "channel.id", "protocol.id", "peer", "codec.id", "device.id",
    "device.name", "device.type.id", "position.latitude", "position.longitude", "position.speed", "position.valid",
})  # fmt: skip
"""What a message's line says at its beginning, or leaves out."""
TIMES = ("timestamp", "server.timestamp", "timestamp.key")


def _show(name: str, value: Any) -> str:
    return when(value) if name in TIMES else text(value)


def _position(message: Item) -> str:
    latitude, longitude = message.get("position.latitude"), message.get("position.longitude")
    return "" if latitude is None or longitude is None else f"{latitude}, {longitude}"


def _others(message: Item) -> str:
    return f"+{len(message.keys() - OF_EVERYBODY)}"


COLUMNS = (
    column("time", "timestamp", show=when),
    column("ident", drop=4),
    Column("position", _position, drop=1),
    column("km/h", "position.speed", drop=2, show=count),
    column("valid", "position.valid", drop=5),
    column("satellites", "position.satellites", drop=6, show=count),
    column("event", "event.enum", drop=3, show=count),
    column("received", "server.timestamp", drop=7, show=when),
    Column("others", _others, drop=8, is_number=True),
)


def run_messages(client: Client, options: Namespace, output: Output) -> list[str]:
    """``messages KIND SELECTOR``: a range of time, or the last ones."""
    kind = KINDS[f"{options.kind}s"]
    wanted = ids(client, kind, options.selector)
    is_last = options.start is None and not options.reverse
    data = {"from": options.start, "to": options.to, "filter": options.filter, "fields": options.fields}
    if options.count:
        data |= {"count": options.count, "reverse": is_last or options.reverse}
    elif options.reverse:
        data["reverse"] = True
    answer = client.get(*kind.path, wanted, "messages", data={name: value for name, value in data.items() if value})
    messages = answer.result[::-1] if data.get("reverse") and not options.reverse else answer.result
    if output.is_json:
        for message in messages:
            output.json_line(message)
        return answer.failures
    columns = _columns(messages, options.fields) if options.fields else COLUMNS
    output.items(messages, columns, "no messages", is_chosen=bool(options.fields))
    if options.count and len(messages) == options.count:
        output.note(f"{'the last ' if is_last else ''}{count(options.count)}; there may be more: --count 0 shows all")
    return answer.failures


def _columns(messages: Sequence[Item], fields: str) -> list[Column]:
    """One for each parameter that occurs, in the order of ``fields``."""
    masks = [mask.strip() for mask in fields.split(",")]
    names = dict.fromkeys(name for message in messages for name in message)
    places = {name: next((n for n, mask in enumerate(masks) if fnmatchcase(name, mask)), len(masks)) for name in names}
    return [_column(name, place) for place, name in enumerate(sorted(names, key=places.__getitem__)[:COLUMNS_MOST])]


def _column(name: str, place: int) -> Column:
    return Column(name, lambda message: _show(name, message.get(name)), drop=place, shrink=0 if name in TIMES else 20)


def run_tail(client: Client, options: Namespace, output: Output) -> list[str]:
    """``tail KIND SELECTOR``: until Ctrl-C."""
    kind = KINDS[f"{options.kind}s"]
    wanted = ids(client, kind, options.selector)
    follow = _follow_devices if kind is DEVICES else _follow_channels
    for message in follow(client, kind, wanted, options):
        if output.is_json:
            output.json_line(message)
        else:
            output.line(_line(message, bool(options.fields)), is_cut=True)
    return []


def _last(client: Client, kind: Kind, wanted: str, options: Namespace) -> list[Item]:
    """The messages to begin with, the latest last; one at least, if there is one."""
    data = {"count": max(1, options.lines), "reverse": True}
    return client.get(*kind.path, wanted, "messages", data=data).result[::-1]


def _follow_channels(client: Client, kind: Kind, wanted: str, options: Namespace) -> Iterator[Item]:
    """By the cursor: the gateway answers when there is something new."""
    last = _last(client, kind, wanted, options)
    yield from _some(last, options)
    newest = max((message["server.timestamp"] for message in last), default=time.time() - LOOK_AGAIN)
    cursor = round(newest / MICROSECOND) + 1
    while True:
        data = {"curr_key": cursor, "timeout": POLL, "limit_count": BATCH}
        answer = client.get(*kind.path, wanted, "messages", data=data, wait=POLL)
        following = answer.extra.get("next_key")
        if not isinstance(following, int):
            raise AdminError("this gateway gives no next_key: messages of channels cannot be followed")
        yield from _wanted(answer.result, options)
        cursor = following


def _follow_devices(client: Client, kind: Kind, wanted: str, options: Namespace) -> Iterator[Item]:
    """By the tracker's clock: what a tracker sends late, of an earlier time, is not seen here."""
    last = _last(client, kind, wanted, options)
    yield from _some(last, options)
    newest = max((_key(message) for message in last), default=time.time() - LOOK_AGAIN)
    while True:
        data = {"from": round(newest + MICROSECOND, 6), "count": BATCH}
        messages = client.get(*kind.path, wanted, "messages", data=data).result
        yield from _wanted(messages, options)
        newest = max([newest, *(_key(message) for message in messages)])
        if len(messages) < BATCH:
            time.sleep(LOOK_AGAIN)


def _key(message: Item) -> float:
    """What orders the messages of a device."""
    return float(message["timestamp.key"] if "timestamp.key" in message else message["timestamp"])


def _some(messages: Sequence[Item], options: Namespace) -> list[Item]:
    return _wanted(messages[-options.lines :] if options.lines else [], options)


def _wanted(messages: Sequence[Item], options: Namespace) -> list[Item]:
    """With the parameters that were asked for; the API is asked for whole messages, whose times lead further."""
    if not options.fields:
        return list(messages)
    names = [*dict.fromkeys(name.strip() for name in options.fields.split(","))]
    return [{name: message[name] for name in names if name in message} for message in messages]


def _line(message: Item, is_chosen: bool) -> str:
    """A message in a line, what matters most first."""
    if is_chosen:
        return printable("  ".join(f"{name}={_show(name, value)}" for name, value in message.items()))
    parts = [when(message.get("timestamp")), text(message.get("device.name") or message.get("ident"))]
    if _position(message):
        parts.append(_position(message))
    if "position.speed" in message:
        parts.append(f"{message['position.speed']} km/h")
    rest = (f"{name}={compact(value)}" for name, value in message.items() if name not in OF_EVERYBODY)
    return printable("  ".join([*parts, *rest]))


TELEMETRY = (
    column("parameter"),
    Column("age", lambda row: age(row["ts"]), drop=1),
    column("time", "ts", drop=2, show=when),
    column("value", shrink=20),
)


def run_telemetry(client: Client, options: Namespace, output: Output) -> list[str]:
    """``telemetry DEVICE [PARAMETER ...]``: the last value of each."""
    wanted = ids(client, DEVICES, options.selector)
    answer = client.get(*DEVICES.path, wanted, "telemetry", ",".join(options.parameters) or "all")
    if output.is_json:
        output.document(answer.result)
        return answer.failures
    for item in answer.result:
        if len(answer.result) > 1:
            output.line(f"device {item['id']}", "bold")
        values = item.get("telemetry") or {}
        rows = [{"parameter": name, **values[name]} for name in sorted(values)]
        output.items(rows, TELEMETRY, f"device {item['id']} has no such telemetry")
    return answer.failures
