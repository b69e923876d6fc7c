"""Channels and devices as the API's tests meet them: real ports, a real store, tokens with few rights."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from twisted.internet import reactor

from gateway.api.parts import Parts
from gateway.channel.channels import Channels
from gateway.channel.connections import Limits
from gateway.observation import Observation
from gateway.plugin.chains import Chains
from gateway.plugin.types import find_types
from gateway.settings import GatewaySection, Settings
from gateway.store.access import Access
from gateway.store.failures import Failures
from gateway.store.gate import Gate
from gateway.store.history import ChannelHistory
from gateway.store.items import Items
from gateway.store.keys import ShardKeys
from gateway.store.log import LogWriter
from gateway.store.telemetry import Telemetry
from gateway.store.tokens import Tokens
from gateway.stream.protocols import StreamProtocol, find_protocols
from gateway.stream.streams import Streams
from tests.rest import MASTER, Rest, serving

KEYS = ShardKeys()
LISTEN_PORTS = range(15_000, 32_000)
"""Below those that the system gives to outgoing connections."""


def free_ports(count: int) -> range:
    """So many ports in a row on which nobody listens."""
    while True:
        first = random.choice(LISTEN_PORTS)
        ports = range(first, first + count)
        with contextlib.suppress(OSError):
            for port in ports:
                with socket.socket() as one:
                    one.bind(("", port))
            return ports


@asynccontextmanager
async def gateway(
    redis,
    ports: range = range(0),
    plugin_folders: Sequence[Path] = (),
    protocols: Mapping[str, StreamProtocol] | None = None,
) -> AsyncIterator[Rest]:
    """The API over items and channels; ``ports`` are for channels without endpoints.

    ``plugin_folders`` have types of plugins, ``protocols`` are types of streams, beside ours.
    """
    gate, items, tokens = Gate(), Items(redis), Tokens(redis, MASTER)
    writer = LogWriter(redis, KEYS, gate)
    observation = Observation(redis, KEYS, items)
    channels = Channels(reactor, items, writer, gate, Limits(), ports=ports, observer=observation.recorder)
    chains = Chains(items, find_types(plugin_folders), observation.events.record)
    streams = Streams(redis, KEYS, items, {**find_protocols(), **(protocols or {})}, observation.events.record)
    parts = Parts(
        settings=Settings(gateway=GatewaySection(public_host="gps.example")),
        redis=redis, keys=KEYS, items=items, telemetry=Telemetry(redis, KEYS), gate=gate,
        channels=channels, connections=channels.connections, tokens=tokens, failures=Failures(),
        chains=chains, streams=streams, history=ChannelHistory(redis, KEYS, items),
        events=observation.events, traffic=observation.traffic, idents=observation.idents,
    )  # fmt: skip
    writing = asyncio.ensure_future(writer.run())
    await channels.start()
    await chains.start()
    await streams.start()
    try:
        async with serving(parts) as there:
            yield there
    finally:
        await streams.stop()
        await chains.stop()
        await channels.stop(timeout=2)
        await observation.flush()
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


async def key_for(there: Rest, *acl: dict[str, Any]) -> str:
    """The key of a token with these rights only."""
    access = Access.from_json({"type": 2, "acl": list(acl)})
    _token, key = await there.parts.tokens.create(time.time(), access=access)
    return str(key)


async def stored(redis) -> Items:
    """What another process would read."""
    items = Items(redis)
    await items.load()
    return items
