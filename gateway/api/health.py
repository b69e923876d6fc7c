"""``/health``: whether trackers' data can be taken and stored, for load balancers, containers and people."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import msgspec
from twisted.logger import Logger

import gateway
from gateway.api.answers import Answer
from gateway.api.call import Call
from gateway.api.operations import Operation
from gateway.channel.channels import Channels
from gateway.mqtt.client import MqttClient
from gateway.store.gate import Gate
from gateway.store.items import Items
from gateway.store.lag import StoreState, StoreWatch

LAG_MOST = 60.0
"""Seconds that a reader may be behind without a warning: the longest that a broker's restart should take."""
MEMORY_MOST = 0.8
"""Part of Redis' maxmemory that may be used without a warning; trackers are paused at 0.9."""

Warnings = Callable[[], Iterable[str]]
"""Says what is wrong in one part of the gateway, without keeping it from taking data; nothing where all is well."""


class HealthReport(msgspec.Struct):
    """``reasons``: why trackers' data cannot be taken; ``warnings``: what else is wrong. ``uptime`` in seconds."""

    status: str
    reasons: list[str]
    warnings: list[str]
    version: str
    uptime: float


class Health:
    """``others`` tell of the parts that Redis and the gate know nothing of, such as the broker."""

    log = Logger()

    def __init__(self, watch: StoreWatch, gate: Gate, others: Iterable[Warnings] = ()) -> None:
        self._watch = watch
        self._gate = gate
        self._others = list(others)
        self._started = time.monotonic()

    async def report(self) -> HealthReport:
        """How it is now, or was a second ago."""
        state = await self._watch.read()
        reasons = list(self._gate.reasons)
        if not state.is_up and not reasons:
            reasons.append(state.reason)
        return HealthReport(
            status="unavailable" if reasons else "ok",
            reasons=reasons,
            warnings=[*_of_store(state), *self._of_others()],
            version=gateway.__version__,
            uptime=round(time.monotonic() - self._started, 1),
        )

    def _of_others(self) -> Iterator[str]:
        for warnings in self._others:
            try:
                yield from warnings()
            except Exception:  # who cannot tell how it is must not take the answer along
                self.log.failure("a part of the gateway cannot say how it is")


def of_broker(client: MqttClient) -> Iterator[str]:
    """Whether subscribers get anything."""
    if not client.is_connected:
        yield f"the broker at {client.address} is away: {client.last_error or 'not connected yet'}"


def of_channels(items: Items, channels: Channels) -> Iterator[str]:
    """Whether what should listen does."""
    listening = {channel.id for channel, _ in channels.addresses()}
    for channel in items.channels.values():
        if channel.enabled and channel.id not in listening:
            yield f"channel {channel.id} ({channel.name}) does not listen: the log says why"


def _of_store(state: StoreState) -> Iterator[str]:
    if state.memory_limit and state.memory > MEMORY_MOST * state.memory_limit:
        part = 100 * state.memory / state.memory_limit
        yield f"Redis uses {part:.0f} % of its maxmemory; trackers are paused at 90 %"
    slowest: dict[tuple[str, str], float] = {}
    for log in state.logs:
        for lag in log.lags:
            slowest[lag.reader, log.log] = max(lag.seconds, slowest.get((lag.reader, log.log), 0.0))
    for (reader, name), seconds in slowest.items():
        if seconds > LAG_MOST:
            yield f"the reader {reader} is {seconds:.0f} s behind in the log of {name}"


async def show_health(call: Call) -> Answer:
    """200, or 503 where trackers are paused."""
    report = await call.parts.health.report()
    return Answer(body=msgspec.json.encode(report), status=503 if report.reasons else 200)


OPERATIONS = [
    Operation("GET", "/health", show_health, "Whether trackers' data can be taken", is_bare=True, result=HealthReport)
]
