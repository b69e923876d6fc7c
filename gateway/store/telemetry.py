"""Telemetry: the last value of each parameter of a device, with the time of the message that brought it.

flespi's rules (its documentation of telemetry): a value is replaced only by one whose ``timestamp`` is not older;
``position`` is a virtual parameter, the object of the last message's ``position.*`` without the prefix.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from gateway import metrics
from gateway.message import position_of
from gateway.store.connection import Client, store_errors
from gateway.store.keys import ShardKeys
from gateway.store.masks import Masks

POSITION = "position"
CLOCK_AHEAD = 86400.0
MOST_PARAMETERS = 1024
"""Of a device; flespi keeps as many. A tracker can send 65,536 AVL ids, and each would be a field and a topic."""
LONGEST_TEXT = 4096
"""Longer ones stay in the messages: 1024 of 64 KiB would be a device of 64 MiB."""

Values = dict[str, tuple[float, Any]]
"""Parameter -> (timestamp in seconds, value)."""


def decode_values(fields: dict[bytes, bytes]) -> Values:
    """A telemetry hash as Redis gives it."""
    decoded = ((name.decode(), orjson.loads(text)) for name, text in fields.items())
    return {name: (entry["ts"], entry["value"]) for name, entry in decoded}


def encode_value(ts: float, value: Any) -> bytes:
    """One field of a telemetry hash."""
    return orjson.dumps({"ts": ts, "value": value})


def update(values: Values, message: dict[str, Any], whole: dict[str, Any] | None = None) -> set[str]:
    """Let ``message`` replace what is not newer than it; gives the names of the parameters that it set.

    ``whole``: the message after merging into that of the same time; the position is that of all of it.
    """
    ts = time_of(message)
    changed = set()
    for name, value in message.items():
        known = values.get(name)
        if known is None:
            if len(values) >= MOST_PARAMETERS:
                metrics.count("telemetry_parameters_refused")
                continue
        elif known[0] > ts:
            continue
        if type(value) is str and len(value) > LONGEST_TEXT:
            metrics.count("telemetry_texts_refused")
            continue
        values[name] = (ts, value)
        changed.add(name)
    _update_position(values, whole or message, ts, changed)
    return changed


def time_of(message: dict[str, Any]) -> float:
    """From when the values of a message are: ``timestamp``, or when it was received, where the device's clock is ahead
    by more than a day: such a value would otherwise keep out all that come after it."""
    ts: float = message["timestamp"]
    received: float = message.get("server.timestamp", ts)
    return received if ts > received + CLOCK_AHEAD else ts


def _update_position(values: Values, message: dict[str, Any], ts: float, changed: set[str]) -> None:
    position = position_of(message)
    known = values.get(POSITION)
    if position and (known is None or known[0] <= ts):
        values[POSITION] = (ts, position)
        changed.add(POSITION)


class Telemetry:
    """Reads telemetry from Redis. The registrar alone writes it."""

    def __init__(self, redis: Client, keys: ShardKeys) -> None:
        self._redis = redis
        self._keys = keys

    async def get(self, device_id: int, parameters: Sequence[str] | None = None) -> Values:
        """All telemetry of a device, or the named parameters that it has. Raises StoreError."""
        return (await self.get_many([device_id], parameters))[device_id]

    async def texts(self, device_ids: Iterable[int], masks: Masks) -> dict[int, dict[str, bytes]]:
        """Of each device the parameters that ``masks`` choose, by name: ``{"ts": ..., "value": ...}`` as JSON.

        Raises StoreError.
        """
        ids, names = list(device_ids), masks.plain
        if not ids or names == []:
            return {device_id: {} for device_id in ids}
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for device_id in ids:
                    key = self._keys.telemetry(device_id)
                    pipe.hgetall(key) if names is None else pipe.hmget(key, names)
                answers = await pipe.execute()
        if names is not None:
            answers = [_present(names, answer) for answer in answers]
        return {id: _chosen(answer, masks) for id, answer in zip(ids, answers, strict=True)}

    async def get_many(self, device_ids: Iterable[int], parameters: Sequence[str] | None = None) -> dict[int, Values]:
        """The same for several devices, in one round trip."""
        ids = list(device_ids)
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for device_id in ids:
                    if parameters is None:
                        pipe.hgetall(self._keys.telemetry(device_id))
                    else:
                        pipe.hmget(self._keys.telemetry(device_id), list(parameters))
                answers = await pipe.execute()
        if parameters is not None:
            answers = [_present(parameters, answer) for answer in answers]
        return {id: decode_values(answer) for id, answer in zip(ids, answers, strict=True)}


def _chosen(fields: dict[bytes, bytes], masks: Masks) -> dict[str, bytes]:
    named = sorted((name.decode(), text) for name, text in fields.items())
    return {name: text for name, text in named if masks.choose(name)}


def _present(parameters: Sequence[str], values: Sequence[bytes | None]) -> dict[bytes, bytes]:
    return {name.encode(): value for name, value in zip(parameters, values, strict=True) if value is not None}
