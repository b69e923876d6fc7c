"""Streams: messages a second to each type of target, and what one costs in CPU time of the gateway.

A process that does nothing else reads a log of 700 B messages, 10 in a packet, and delivers them to a real server on
this machine, which shares its cores. Beside each figure: the same log read and thrown away, moments before.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.mqtt import messages
from bench.processes import ROOT, NotStarted
from bench.rows import Row
from bench.stream_targets import TARGETS, Setup
from gateway.stream.target import Outgoing, Rejection, Target

PART = "streams"
PER_ENTRY = 10
IDENTS = 100
COUNT = 20_000
LIMIT = 500
"""Messages in a batch."""
SECONDS = 90.0


def run() -> list[Row]:
    """The rows of this part."""
    read = _measure("nothing")
    rows = [Row(PART, "the log read, and nothing delivered", read["rate"], "messages/s", note=_note(read))]
    for name in TARGETS:
        result = _measure(name)
        what = f"{name}, batches of {result['limit']:.0f}"
        rows.append(Row(PART, what, result["rate"], "messages/s", read["rate"], "nothing delivered", _note(result)))
    return rows


def _note(result: dict[str, float]) -> str:
    return f"{result['cpu_us']:.0f} us CPU a message"


def _measure(name: str) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.streams", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS + 60, check=False)
    if done.returncode:
        raise NotStarted(f"{name}: {done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


# -- in a process of its own


class Nothing(Target):
    """Takes everything, and throws it away."""

    async def deliver(self, batch: Sequence[Outgoing]) -> Sequence[Rejection]:
        return []


@contextlib.contextmanager
def _nothing(directory: Path) -> Iterator[Setup]:
    yield Setup("nothing", {})


async def _deliver(name: str, setup: Setup, directory: Path, count: int) -> dict[str, float]:
    from gateway.store.connection import connect
    from gateway.store.embedded import EmbeddedRedis
    from gateway.store.items import Items, Link
    from gateway.store.keys import ShardKeys
    from gateway.stream.protocols import StreamProtocol, find_protocols
    from gateway.stream.streams import Streams

    server = EmbeddedRedis(directory / "store", appendfsync="no")
    await server.start()
    redis, keys = connect(server.url), ShardKeys()
    items = Items(redis)
    await items.load()
    await items.create_channel(name="bench", protocol_id=14)
    protocols = {**find_protocols(), "nothing": StreamProtocol("nothing", Nothing)}
    streams = Streams(redis, keys, items, protocols)
    limit = setup.limit or LIMIT
    configuration = {**setup.configuration, "limit_messages": limit}
    stream = await items.create_stream(name=name, protocol=setup.protocol, configuration=configuration, enabled=False)
    await items.links.put([Link("streams", stream.id, "channels", 1)])
    await items.change_stream(stream.id, lambda old: type(old)(**{**_fields(old), "enabled": True, "pauses": []}))
    await _fill(redis, keys.channel_log(1), setup.count or count)
    counters = streams.status(stream.id).counters
    began, cpu = time.perf_counter(), time.process_time()
    await streams.start()
    async with asyncio.timeout(SECONDS):
        while counters.delivered < (setup.count or count):
            await asyncio.sleep(0.01)
            state = streams.status(stream.id)
            if state.error:
                raise NotStarted(state.error)
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    await streams.stop()
    await redis.aclose()
    await server.stop()
    return {"rate": counters.delivered / seconds, "cpu_us": used / counters.delivered * 1e6, "limit": limit}


def _fields(stream: Any) -> dict[str, Any]:
    import attrs

    return attrs.asdict(stream, recurse=False)


async def _fill(redis: Any, log: str, count: int) -> None:
    texts = messages(count)
    begin = int(time.time() * 1e6) + 1_000_000
    for start in range(0, count, 1000):
        async with redis.pipeline(transaction=False) as pipe:
            for n in range(start, min(count, start + 1000), PER_ENTRY):
                ident = f"{n // PER_ENTRY % IDENTS:015d}"
                part = [_of(ident, text) for text in texts[n : n + PER_ENTRY]]
                pipe.xadd(log, {"ident": ident, "messages": b"\n".join(part)}, id=f"{begin + n + PER_ENTRY - 1}-0")
            await pipe.execute()


def _of(ident: str, text: bytes) -> bytes:
    position = b'"position.latitude":54.68,"position.longitude":25.27,"position.speed":50,"position.valid":true'
    return b'{"ident":"%b",%b,' % (ident.encode(), position) + text[1:]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=["nothing", *TARGETS])
    parser.add_argument("--count", type=int, default=COUNT)
    options = parser.parse_args()
    from gateway import aio

    aio.install_reactor()
    from twisted.internet import reactor

    start = TARGETS.get(options.name, _nothing)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, start(Path(directory)) as setup:
        loop: asyncio.AbstractEventLoop = reactor._asyncioEventloop  # type: ignore[attr-defined]
        asyncio.set_event_loop(loop)
        reactor.startRunning(installSignalHandlers=False)  # type: ignore[attr-defined]
        result = loop.run_until_complete(_deliver(options.name, setup, Path(directory), options.count))
    print(json.dumps(result), flush=True)
    os._exit(0)  # threads of the reactor would keep the process


if __name__ == "__main__":
    main()
