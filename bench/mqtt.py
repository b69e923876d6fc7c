"""Publishing: messages a second from the gateway's publisher to a broker, and what one costs in CPU time.

The publisher runs in a process that does nothing else, on entries that are in memory; the broker is Mosquitto, with a
subscriber that only counts, or the gateway's embedded one. The baseline is paho as it comes, its loop driven by hand.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any

from bench.processes import ROOT, NotStarted, running_mosquitto, running_subscriber
from bench.rows import Row

PART = "mqtt"
MESSAGE_BYTES = 700
PER_ENTRY = 10
IDENTS = 100
COUNT, COUNT_PAHO, COUNT_EMBEDDED = 200_000, 50_000, 20_000
ROUNDS = 3


def run() -> list[Row]:
    """The rows of this part."""
    paho = _median("paho", 4, COUNT_PAHO)
    beside = "paho as it comes, MQTT 3.1.1"
    rows = [_row("QoS 1 to Mosquitto, paho as it comes, MQTT 3.1.1", paho)]
    for version, name in ((5, "MQTT 5 with user properties"), (4, "MQTT 3.1.1")):
        result = _median("publisher", version, COUNT)
        rows.append(_row(f"QoS 1 to Mosquitto, {name}", result, paho["rate"], beside))
    result = _publish("embedded", 4, COUNT_EMBEDDED, 0)
    rows.append(_row("QoS 1 to the embedded broker, in the same process, no subscriber", result, paho["rate"], beside))
    return rows


def _row(what: str, result: dict[str, float], baseline: float | None = None, beside: str = "") -> Row:
    note = f"{result['cpu_us']:.1f} us CPU a message"
    return Row(PART, what, result["rate"], "messages/s", baseline, beside, note)


def _median(how: str, version: int, count: int) -> dict[str, float]:
    """The round in the middle, each with a Mosquitto and a subscriber of its own."""
    results = sorted((_to_mosquitto(how, version, count) for _ in range(ROUNDS)), key=lambda result: result["rate"])
    return results[len(results) // 2]


def _to_mosquitto(how: str, version: int, count: int) -> dict[str, float]:
    with (
        running_mosquitto() as (_, port),
        running_subscriber(port, ["flespi/message/#"]) as (_, reports),
    ):
        result = _publish(how, version, count, port)
        if not reports.wait_for(lambda last: last["channel"] >= count, 60):
            raise NotStarted(f"the subscriber got {reports.last['channel']} of {count} messages")
    return result


def _publish(how: str, version: int, count: int, port: int) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.mqtt", how, str(version), str(count), str(port)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise NotStarted(done.stderr)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def messages(count: int) -> list[bytes]:
    """So many JSON texts of :data:`MESSAGE_BYTES`, each with a timestamp of its own."""
    texts = []
    for n in range(count):
        head = b'{"channel.id":1,"server.timestamp":%.6f,"timestamp":%d,"rest":"' % (time.time(), 1_700_000_000 + n)
        texts.append(head.ljust(MESSAGE_BYTES - 2, b"x") + b'"}')
    return texts


class MemoryReader:
    """A log's reader without a log."""

    def __init__(self, count: int) -> None:
        from gateway.store.reader import LogEntry

        texts = messages(count)
        self._entries = [
            LogEntry("log", f"{n}-0", f"{n // PER_ENTRY % IDENTS:015d}", 1, texts[n : n + PER_ENTRY])
            for n in range(0, count, PER_ENTRY)
        ]
        self._last = self._entries[-1].id
        self._at = 0
        self.done = asyncio.Event()

    async def read(self, count: int) -> list[Any]:
        if self._at >= len(self._entries):
            await self.done.wait()
        self._at += count
        return self._entries[self._at - count : self._at]

    async def confirm_all(self, entries: Iterable[Any]) -> None:
        if any(entry.id == self._last for entry in entries):
            self.done.set()

    def rewind(self) -> None:
        self._at = 0


async def _publisher(version: int, count: int, port: int, password: str = "") -> dict[str, float]:
    from twisted.internet import reactor

    from gateway.mqtt.client import BrokerAddress, MqttClient
    from gateway.mqtt.publisher import Publisher, channel_topic
    from gateway.mqtt.topics import Topics

    reader = MemoryReader(count)
    address = BrokerAddress("127.0.0.1", port, username="bench", password=password)
    client = MqttClient(address, "bench-publisher", Topics(), reactor=reactor, version=version)
    publisher = Publisher(client, reader, channel_topic(Topics()), "channels")
    tasks = [asyncio.ensure_future(client.run())]
    await client.next_link()
    began, cpu = time.perf_counter(), time.process_time()
    tasks.append(asyncio.ensure_future(publisher.run()))
    await reader.done.wait()
    result = _result(count, began, cpu)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return result


async def _embedded(version: int, count: int, port: int) -> dict[str, float]:
    from gateway.mqtt.broker import EmbeddedBroker
    from gateway.mqtt.rights import TokenDoor
    from gateway.mqtt.topics import Topics
    from gateway.store.tokens import Tokens

    tokens = Tokens(None, "bench")
    broker = EmbeddedBroker("tcp:0:interface=127.0.0.1", "", TokenDoor(tokens, "flespi"), Topics())
    await broker.start()
    try:
        return await _publisher(version, count, broker.ports[0], broker.gateway_secret)
    finally:
        await broker.stop()


def _paho(version: int, count: int, port: int) -> dict[str, float]:
    """paho's ``publish`` and ``loop``, with a window of 1000."""
    from paho.mqtt import client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="bench-paho")
    client.max_inflight_messages_set(1000)
    client.connect("127.0.0.1", port)
    while not client.is_connected():
        client.loop(0.1)
    acknowledged = 0

    def on_publish(*_: Any) -> None:
        nonlocal acknowledged
        acknowledged += 1

    client.on_publish = on_publish
    texts = messages(count)
    began, cpu = time.perf_counter(), time.process_time()
    for n, text in enumerate(texts):
        client.publish(f"flespi/message/gw/channels/1/{n // PER_ENTRY % IDENTS:015d}", text, qos=1)
        while n - acknowledged > 900:
            client.loop(0.1)
    while acknowledged < count:
        client.loop(0.1)
    return _result(count, began, cpu)


def _result(count: int, began: float, cpu: float) -> dict[str, float]:
    seconds = time.perf_counter() - began
    return {"rate": count / seconds, "cpu_us": (time.process_time() - cpu) / count * 1e6}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.mqtt", description="Publish once, print the rate as JSON.")
    parser.add_argument("how", choices=("publisher", "embedded", "paho"))
    parser.add_argument("version", type=int, choices=(4, 5))
    parser.add_argument("count", type=int)
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    if options.how == "paho":
        print(json.dumps(_paho(options.version, options.count, options.port)))
        return 0
    from gateway import aio

    aio.install_reactor()
    from twisted.internet import reactor

    work = _publisher if options.how == "publisher" else _embedded
    loop = asyncio.get_event_loop()
    reactor.startRunning(installSignalHandlers=False)  # type: ignore[attr-defined]
    print(json.dumps(loop.run_until_complete(work(options.version, options.count, options.port))), flush=True)
    os._exit(0)  # the reactor's threads, which resolved the broker's name, would be waited for


if __name__ == "__main__":
    sys.exit(main())
