"""Configurations of every plugin type, for the conformance suite: a new type needs a row here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import field, frozen

from tests.targets.process import free_port

IDENT = "352093081452251"
RECEIVED = 1_790_000_000.5
BASE = {
    "ident": IDENT,
    "timestamp": 1_789_999_990,
    "server.timestamp": RECEIVED,
    "channel.id": 1,
    "peer": "10.0.0.1:5000",
    "protocol.id": 14,
    "device.id": 7,
    "device.name": "Van",
    "device.type.id": 303,
}
"""What every message of a device has."""
BEACON = "c0ffee000001"
NOBODY = f"http://127.0.0.1:{free_port()}/"
"""Where nobody listens: a type that asks others gets an error there."""

CELL = {"gsm.mcc": 246, "gsm.mnc": 1, "gsm.lac": 20, "gsm.cellid": 4001}
CELLS = Path(__file__).parent / "data" / "cells.csv"


@frozen
class Example:
    """``config`` as the API takes it, ``fields`` of the assignment, and a message that the plugin does something to.

    ``telemetry``: the device's last values, before the message. ``is_remote``: it asks others, who do not answer here.
    """

    config: dict[str, Any] = field(factory=dict)
    message: dict[str, Any] = field(factory=dict)
    fields: dict[str, Any] = field(factory=dict)
    telemetry: dict[str, Any] = field(factory=dict)
    is_remote: bool = False


EXAMPLES: dict[str, list[Example]] = {
    "item-fields": [
        Example({"fields": {"vehicle.class": "van", "tags": ["a", {"b": [1]}]}, "prefix": "own."}),
        Example({"wins": "field"}, {"driver": "nobody"}, {"driver": "Bob", "ident": "stays"}),
    ],
    "item-telemetry": [
        Example({"parameters": ["can.*", "din"]}, telemetry={"can.fuel.level": 40, "din": [1, {"a": 2}]}),
        Example({"parameters": ["*"], "max_age": 3600}, telemetry={"din": 1, "position.latitude": 54.5}),
    ],
    "msg-expression": [
        Example(
            {
                "expressions": [
                    {"name": "speed.ms", "expression": "position.speed / 3.6"},
                    {"name": "is.fast", "expression": "speed.ms > 20"},
                ]
            },
            {"position.speed": 90},
        ),
        Example(
            {"expressions": [{"name": "din.before", "expression": "#din"}, {"name": "at", "expression": "hour()"}]},
            {"din": 2},
            telemetry={"din": [1]},
        ),
    ],
    "msg-erase": [
        Example({"parameters": ["din", "can.*"]}, {"din": 1, "can.fuel.level": 2}),
        Example({"parameters": ["*"]}, {"din": 1}),
    ],
    "msg-cancel": [Example()],
    "timestamp-fix": [
        Example(message={"timestamp": 1_789_999_990 - 1024 * 7 * 86400, "timestamp.key": 1_170_675_190.001}),
        Example({"future": "drop"}, {"timestamp": RECEIVED + 7200}),
        Example({"whole_weeks": True}, {"timestamp": RECEIVED + 86400}),
    ],
    "ble-beacons": [
        Example(message={"ble.beacons": [{"id": BEACON, "rssi": -60}, {"id": "other", "temperature": 4.5}]}),
        Example(
            {"names": {"C0:FF:EE:00:00:01": "freezer"}, "others": "skip", "erase": True},
            {"ble.beacons": [{"id": BEACON, "rssi": -60}]},
            {"c0-ff-ee-00-00-02": "door"},
        ),
    ],
    "msg-webhook": [
        Example({"uri": NOBODY}, is_remote=True),
        Example(
            {"uri": f"{NOBODY}%ident%?id=%device.id%", "secret": "s", "fields": ["din"], "batch": 7}, is_remote=True
        ),
    ],
    "position-lookup": [
        Example({"provider": "unwiredlabs", "token": "t", "uri": NOBODY}, CELL, is_remote=True),
        Example({"provider": "csv", "file": str(CELLS)}, CELL),
    ],
    "geocoding": [
        Example({"uri": NOBODY, "rate": 0}, {"position.latitude": 54.5, "position.longitude": 25.5}, is_remote=True),
    ],
}
