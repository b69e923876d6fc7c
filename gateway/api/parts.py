"""The running gateway as the API's handlers know it."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from gateway.store.ordered import Turn


@define
class Parts:
    """Whatever handlers read and change. ``others`` are what belongs to a single noun, by name."""

    items: Any = None
    channels: Any = None
    connections: Any = None
    history: Any = None
    device_history: Any = None
    polls: Any = None
    posted: Any = None
    messages: Any = None
    telemetry: Any = None
    events: Any = None
    traffic: Any = None
    idents: Any = None
    tokens: Any = None
    failures: Any = None
    gate: Any = None
    exposition: Any = None
    health: Any = None
    orders: Any = None
    commands: Any = None
    chains: Any = None
    streams: Any = None
    device_settings: Any = None
    settings: Any = None
    redis: Any = None
    keys: Any = None
    turn: Turn = field(factory=Turn)
    """Of all who work on much, be it messages or items."""
    others: dict[str, Any] = field(factory=dict)
