"""What a bad neighbor costs the others: streams whose targets hang or are slow, plugins that hang or have a mistake.

100 trackers send at a steady rate, while the neighbors are enabled and while they are not, in turns. Looked at: how
long trackers wait for acknowledgements, and how late the channel's messages and those of the devices without a plugin
come to a subscriber of Mosquitto. What counts is the ratio, and it should be near 1.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from bench.load import FIRST_IMEI, Trackers
from bench.processes import (
    CpuMeter,
    Gateway,
    Watched,
    free_port,
    running,
    running_gateway,
    running_mosquitto,
    running_subscriber,
)
from bench.rows import Row, quantile
from gateway.emulator.tape import SHAPES, Tape

PART = "neighbors"
RATE = 1_500  # records/s, a fifth of what the gateway sustains up to MQTT
CONNECTIONS = 100
HANGING, MISTAKEN = 10, 10  # devices
HEALTHY = 5  # streams
SECONDS = 0.8  # short rounds, many of them: others' bursts on a shared machine last longer
ROUNDS = 6
STORM_ROUNDS = 2
STORM_SECONDS = 1.0
SETTLE = 0.25  # s after a change of items, and until the subscriber has reported
IDLE_SECONDS = 60.0
MISTAKE = '''\
"""Plugin type ``mistaken``."""

from gateway.plugin import Plugin


class Mistaken(Plugin):
    """Reads what no message has."""

    def process(self, message, context):
        message["speed.doubled"] = message["speed"] * 2
        return message
'''


@attrs.define
class Seen:
    """Seconds: how long trackers waited, how late messages of the channel and of devices without a plugin came, and the
    CPU time of the gateway for each record."""

    acks: list[float] = attrs.field(factory=list)
    channel: list[float] = attrs.field(factory=list)
    device: list[float] = attrs.field(factory=list)
    cpu: float = 0.0


@attrs.define
class Neighborhood:
    """A gateway with trackers and a subscriber. ``reported`` has the lags of messages since it was made anew."""

    gateway: Gateway
    servers: dict[str, Watched]
    trackers: Trackers = attrs.field(init=False)
    tape: Tape = attrs.field(factory=lambda: Tape(SHAPES["pkt10"]))
    reported: Seen = attrs.field(factory=Seen)

    def take(self, report: dict[str, Any]) -> None:
        """For ``Reports.on_report``."""
        self.reported.channel += report["channel_lags"]
        self.reported.device += report["device_lags"]

    def call(self, method: str, path: str, body: object) -> list[dict[str, Any]]:
        """The result of a REST request."""
        request = urllib.request.Request(
            f"{self.gateway.api_url}/gw/{path}",
            json.dumps(body).encode(),
            {"Authorization": f"FlespiToken {self.gateway.token}", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            result: list[dict[str, Any]] = json.load(answer)["result"]
        return result

    def make(self, kind: str, type: str, to: str, selector: str, configuration: dict[str, Any]) -> int:
        """A stream or a plugin that is linked, and not enabled yet."""
        new = {"name": type, "type": type, "enabled": False, "configuration": configuration}
        [item] = self.call("POST", kind, [new])
        self.call("POST", f"{kind}/{item['id']}/{to}/{selector}", {})
        return int(item["id"])

    def switch(self, kind: str, ids: Sequence[int], enabled: bool) -> None:
        """Enable or disable items, and wait until what that brings is done."""
        self.call("PUT", f"{kind}/{','.join(map(str, ids))}", {"enabled": enabled})
        self.gateway.process.until_idle(IDLE_SECONDS, SETTLE)

    def look(self) -> Seen:
        """A while of steady load."""
        self.trackers.run(self.tape, SETTLE, rate=RATE)
        self.reported = Seen()
        used = self.gateway.process.cpu_seconds
        records = self.trackers.run(self.tape, SECONDS, rate=RATE).records
        time.sleep(SETTLE)
        self.reported.cpu = (self.gateway.process.cpu_seconds - used) / records
        self.reported.acks += self.trackers.latencies
        return self.reported

    def storm(self) -> float:
        """Records a second that are taken when trackers send as fast as they are acknowledged."""
        rate = self.trackers.run(self.tape, STORM_SECONDS).records_per_second
        self.gateway.process.until_idle(IDLE_SECONDS, SETTLE)
        return rate


def run() -> list[Row]:
    with _neighborhood() as here, _web("hang") as hanging, _web("slow") as slow, _web("answer") as healthy:
        streams = [here.make("streams", "http", "channels", "1", {"uri": uri}) for uri in (hanging, slow)]
        first, last = HANGING + 1, HANGING + MISTAKEN
        plugins = [
            here.make("plugins", "msg-webhook", "devices", _ids(1, HANGING), {"uri": hanging}),
            here.make("plugins", "mistaken", "devices", _ids(first, last), {}),
        ]
        beside = [here.make("streams", "http", "channels", "1", {"uri": healthy}) for _ in range(HEALTHY)]
        bad_plugins = f"{HANGING} devices with a webhook that hangs, {MISTAKEN} with a plugin that fails"
        return [
            *_compare(here, "streams", streams, "a stream that hangs, and a slow one"),
            *_compare(here, "plugins", plugins, bad_plugins),
            *_compare(here, "streams", beside, f"{HEALTHY} healthy streams"),
            _storms(here, beside),
        ]


@contextlib.contextmanager
def _neighborhood() -> Iterator[Neighborhood]:
    devices = range(HANGING + MISTAKEN + 1, CONNECTIONS + 1)
    topics = ["flespi/message/gw/channels/#", *(f"flespi/message/gw/devices/{id}" for id in devices)]
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        running_mosquitto() as (mosquitto, port),
        running_subscriber(port, topics, has_lags=True) as (subscriber, reports),
    ):
        (Path(folder) / "mistaken.py").write_text(MISTAKE)
        with running_gateway(mqtt_port=port, plugin_folder=Path(folder)) as gateway:
            servers = {**gateway.watched(), "mosquitto": mosquitto, "subscriber": subscriber}
            idents = [f"{FIRST_IMEI + n:015d}" for n in range(CONNECTIONS)]
            here = Neighborhood(gateway, servers)
            here.call("POST", "devices", [{"configuration": {"ident": ident}} for ident in idents])
            here.trackers = Trackers(gateway.tracker_address, CONNECTIONS)
            reports.on_report.append(here.take)
            here.look()
            yield here
            here.trackers.close()


@contextlib.contextmanager
def _web(how: str) -> Iterator[str]:
    port = free_port()
    with running([sys.executable, "-m", "bench.web_server", str(port), how], "ready"):
        yield f"http://127.0.0.1:{port}"


def _ids(first: int, last: int) -> str:
    return ",".join(map(str, range(first, last + 1)))


def _compare(here: Neighborhood, kind: str, ids: Sequence[int], what: str) -> Iterator[Row]:
    """With and without these neighbors, in turns; each figure is the median of the rounds."""
    looks: dict[bool, list[Seen]] = {False: [], True: []}
    meter = CpuMeter(here.servers)
    for number in range(ROUNDS):
        for enabled in (False, True) if number % 2 else (True, False):
            here.switch(kind, ids, enabled)
            looks[enabled].append(here.look())
    here.switch(kind, ids, False)
    note = f"{ROUNDS} times {SECONDS:g} s each, in turns; {meter.note(int(2 * ROUNDS * RATE * (SECONDS + SETTLE)))}"
    for name, unit, figure in FIGURES:
        beside, alone = (statistics.median(map(figure, looks[enabled])) for enabled in (True, False))
        yield Row(PART, f"{what}: {name}", beside, unit, alone, "without them", note)
        note = ""


def _milliseconds(values: str, fraction: float) -> Callable[[Seen], float]:
    return lambda seen: quantile(getattr(seen, values), fraction) * 1e3


FIGURES = (
    ("ack p50", "ms", _milliseconds("acks", 0.5)),
    ("ack p99", "ms", _milliseconds("acks", 0.99)),
    ("MQTT lag of the channel p50", "ms", _milliseconds("channel", 0.5)),
    ("MQTT lag of the channel p99", "ms", _milliseconds("channel", 0.99)),
    ("MQTT lag of other devices p50", "ms", _milliseconds("device", 0.5)),
    ("MQTT lag of other devices p99", "ms", _milliseconds("device", 0.99)),
    ("the gateway's CPU time a record", "us", lambda seen: seen.cpu * 1e6),
)


def _storms(here: Neighborhood, streams: Sequence[int]) -> Row:
    alone, beside = [], []
    for _ in range(STORM_ROUNDS):
        alone.append(here.storm())
        here.switch("streams", streams, True)
        beside.append(here.storm())
        here.switch("streams", streams, False)
    rates = statistics.median(beside), statistics.median(alone)
    note = f"{STORM_ROUNDS} times {STORM_SECONDS:g} s each, in turns"
    return Row(
        PART, f"{HEALTHY} healthy streams: taken in a storm", rates[0], "records/s", rates[1], "without them", note
    )
