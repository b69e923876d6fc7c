"""The API over stored messages, with the registrar at work, as its tests meet it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gateway.registrar import Registrar
from gateway.store.history import ChannelHistory, DeviceHistory
from gateway.store.messages import DeviceMessages
from gateway.store.polls import Polls
from gateway.store.posted import Posted
from gateway.store.reader import LogReader
from tests.history import KEYS, add_packet, make_channel, make_device
from tests.items_rest import gateway
from tests.rest import Rest

__all__ = ["KEYS", "add_packet", "make_channel", "make_device", "messages_gateway", "pages", "right"]


@asynccontextmanager
async def messages_gateway(redis: Any, registers: bool = True) -> AsyncIterator[Rest]:
    """One channel and the devices 1 and 2, whose idents are 77 and 78. ``registers`` False: nobody registers."""
    async with gateway(redis) as there:
        parts = there.parts
        parts.history = ChannelHistory(redis, KEYS, parts.items)
        parts.device_history = DeviceHistory(redis, KEYS, parts.items, turn=parts.history.turn)
        parts.polls = Polls(redis, KEYS, parts.history)
        parts.posted = Posted(redis, KEYS)
        parts.messages = DeviceMessages(redis, KEYS)
        await make_channel(parts.items, enabled=False)
        await make_device(parts.items)
        await make_device(parts.items, ident="78")
        registering = asyncio.ensure_future(_registrar(there).run() if registers else asyncio.sleep(0))
        try:
            yield there
        finally:
            registering.cancel()
            await asyncio.gather(registering, return_exceptions=True)


def _registrar(there: Rest) -> Registrar:
    streams = {KEYS.channel_log(1): 1, KEYS.posted: 0}
    reader = LogReader(there.parts.redis, KEYS, "registrar", lambda: streams, wait=0.1)
    return Registrar(reader, there.parts.items, there.parts.messages, posted=KEYS.posted)


async def pages(there: Rest, path: str, name: str, count: int, first: float = 0.0) -> list[dict[str, Any]]:
    """All messages, as a client gets them that pages with ``from = last + 0.000001``."""
    found: list[dict[str, Any]] = []
    start = first
    while True:
        page = await there.get(path, data={"from": start, "count": count})
        found += page
        if len(page) < count:
            return found
        start = page[-1][name] + 0.000001


def right(submodule: str, *methods: str, uri: str = "gw/devices", ids: Any = "all") -> dict[str, Any]:
    """The entry of an ACL that permits these methods of a part of items, and nothing else."""
    return {"uri": uri, "ids": ids, "submodules": [{"name": submodule, "methods": list(methods)}]}
