"""What a worker asks of the first process: who is welcome, and that messages be stored."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define

from gateway import message as msg
from gateway.channel.intake import Done, Intake, Verdict
from gateway.channel.observer import Decision
from gateway.errors import NotCommitted
from gateway.store.event_codes import CloseCode
from gateway.store.gate import Gate
from gateway.store.item import Device, decoded
from gateway.workers import wire

Send = Callable[[wire.Message], None]

MiB = 1024 * 1024
PENDING_BYTES = 64 * MiB
"""What may wait for the first process to store it until trackers are paused."""
KNOWN_MOST = 50_000
"""Idents whose device is remembered; the first process is asked at each login anyway."""


class FrontWriter:
    """As a :class:`gateway.store.log.LogWriter`: the first process gives ``server.timestamp`` and stores."""

    def __init__(self, send: Send, gate: Gate) -> None:
        self._send = send
        self._gate = gate
        self._jobs: dict[int, tuple[Done, int]] = {}
        self._numbers = itertools.count(1)
        self._pending = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def open_channel(self, channel_id: int) -> None:
        """Its clock is the first process' matter."""

    def reserve(self, channel_id: int, count: int) -> int:
        """About when it was received, in microseconds."""
        return int(time.time() * 1e6)

    def append(self, channel_id: int, last_timestamp: int, ident: str, messages: bytes, done: Done) -> None:
        """Have a packet's messages stored."""
        count = messages.count(b"\n") + 1
        self._send(wire.Store(self._job(done, len(messages)), channel_id, ident, count, messages))

    def park(self, channel_id: int, ident: str, frame: bytes, done: Done, reason: str = "") -> None:
        """Have bytes kept that nobody can decode."""
        self._send(wire.Park(self._job(done, len(frame)), channel_id, ident, frame, reason))

    def _job(self, done: Done, size: int) -> int:
        number = next(self._numbers)
        self._jobs[number] = done, size
        self._pending += size
        self._idle.clear()
        if self._pending > PENDING_BYTES:
            self._gate.close("pending", f"more than {PENDING_BYTES // MiB} MiB wait for the first process")
        return number

    def stored(self, answer: wire.Stored) -> None:
        """It is stored, or will never be."""
        done, size = self._jobs.pop(answer.job)
        self._pending -= size
        if self._pending <= PENDING_BYTES // 2:
            self._gate.open("pending")
        if not self._jobs:
            self._idle.set()
        done(NotCommitted(answer.error) if answer.error else None)

    async def drain(self, timeout: float) -> bool:
        """Wait until all is stored; False when ``timeout`` seconds were not enough."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True


@define
class Known:
    """What the first process said of an ident: its device, or the model that it said it is."""

    device: Device | None
    model: str | None = None


class Doorkeeper:
    """Asks the first process who is welcome, and remembers what it said of each."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._numbers = itertools.count(1)
        self._questions: dict[int, tuple[tuple[int, str], Verdict]] = {}
        self._known: dict[tuple[int, str], Known] = {}

    def ask(self, channel_id: int, ident: str, verdict: Verdict) -> None:
        """``verdict`` is called with the answer."""
        number = next(self._numbers)
        self._questions[number] = (channel_id, ident), verdict
        self._send(wire.Ask(number, channel_id, ident))

    def answered(self, answer: wire.Verdict) -> None:
        """It is there."""
        place, verdict = self._questions.pop(answer.question)
        self._known.pop(place, None)
        while len(self._known) >= KNOWN_MOST:
            del self._known[next(iter(self._known))]
        device = decoded(Device, answer.device) if answer.device else None
        self._known[place] = Known(device, answer.model)
        verdict(Decision(answer.is_welcome, answer.reason, CloseCode(answer.code), answer.is_registered))

    def of(self, channel_id: int, ident: str) -> Known:
        """What is known of an ident."""
        return self._known.get((channel_id, ident)) or Known(None)

    def has_model(self, channel_id: int, ident: str, model: str | None) -> None:
        """A tracker without a device has said which model it is."""
        self._known[channel_id, ident] = Known(None, model)


class FrontIntake(Intake):
    """Of one channel. Messages go to the first process without ``server.timestamp``."""

    doorkeeper: Doorkeeper

    def decide(self, ident: str, verdict: Verdict) -> None:
        """Ask the first process."""
        self.doorkeeper.ask(self.channel.id, ident, verdict)

    def device_of(self, ident: str) -> Device | None:
        """As the first process said at the login."""
        return self.doorkeeper.of(self.channel.id, ident).device

    def is_stranger(self, ident: str) -> bool:
        """Whether the first process knows no device of it."""
        return self.device_of(ident) is None

    def _texts(self, ident: str, peer: str, messages: Sequence[dict[str, Any]], first: int) -> list[bytes]:
        channel = self.channel
        identity = {"ident": ident, "peer": peer, "channel.id": channel.id, "protocol.id": channel.protocol_id}
        texts = []
        for message in messages:
            message.update(identity)
            message.pop("server.timestamp", None)
            texts.append(msg.encode(message))
        return texts
