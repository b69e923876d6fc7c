"""All operations of the API, noun by noun; a new noun is a module with a list OPERATIONS, and a line here."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import msgspec

from gateway.api import (
    auth,
    channels,
    commands,
    connections,
    device_messages,
    devices,
    exposition,
    expressions,
    health,
    idents,
    item_types,
    logs,
    messages,
    packets,
    parameters,
    plugin_devices,
    plugins,
    protocols,
    settings,
    stream_links,
    streams,
    telemetry,
    tokens,
)
from gateway.api.answers import Answer
from gateway.api.call import Call
from gateway.api.openapi import describe
from gateway.api.operations import Operation

NOUNS: tuple[ModuleType, ...] = (
    channels,
    messages,
    devices,
    device_messages,
    telemetry,
    commands,
    settings,
    connections,
    idents,
    packets,
    plugins,
    plugin_devices,
    streams,
    stream_links,
    item_types,
    logs,
    protocols,
    parameters,
    health,
    exposition,
    expressions,
    tokens,
    auth,
)


async def _describe(call: Call) -> Answer:
    return Answer(body=_description())


@cache
def _description() -> bytes:
    return msgspec.json.encode(describe(operations()))


@cache
def operations() -> list[Operation]:
    """The table, in the order of the nouns."""
    description = Operation("GET", "/gw/api.json", _describe, "This description", is_bare=True, result=dict[str, Any])
    return [*(operation for noun in NOUNS for operation in noun.OPERATIONS), description]
