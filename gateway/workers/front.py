"""A worker's side: channels whose collaborators are in the first process.

Sessions, transports, TLS and normalizing are those of :mod:`gateway.channel`; what is decided and stored elsewhere is
asked for over the pipe. When the pipe breaks, the worker ends: without the first process nothing could be acknowledged.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from attrs import define, evolve, field
from twisted.logger import Logger

from gateway import message as msg
from gateway.channel.channels import Channels
from gateway.channel.connection import TrackerConnection
from gateway.channel.connections import Connections, Limits
from gateway.channel.intake import Done, Intake, Verdict
from gateway.channel.lines import Lines, Link, Stranger
from gateway.channel.observer import Counted, Decision, Observer, Party
from gateway.errors import GatewayError, NotCommitted
from gateway.store.event_codes import CloseCode
from gateway.store.gate import Gate
from gateway.store.item import Device, decoded
from gateway.store.items import Channel
from gateway.workers import wire
from gateway.workers.sharing import SharingReactor

Send = Callable[[wire.Message], None]

MiB = 1024 * 1024
PENDING_BYTES = 64 * MiB
"""What may wait for the first process to store it until trackers are paused."""
KNOWN_MOST = 50_000
"""Idents whose device is remembered; the first process is asked at each login anyway."""
LATE_COMMAND = 1.0
"""Seconds after which a command that could not go out yet, and is not waited for any longer, is dropped."""


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


@define(eq=False)
class Pending:
    """A command of the first process on its way to a tracker."""

    payload: bytes
    codec_id: int
    at: float
    is_sent: bool = False
    is_abandoned: bool = False


class FrontLines(Lines):
    """Commands go out when the line is free; answers go to the first process."""

    def __init__(self, send: Send, doorkeeper: Doorkeeper, now: Callable[[], float]) -> None:
        self._send = send
        self._doorkeeper = doorkeeper
        self._now = now
        self._lines: dict[int, Any] = {}
        """By line: the connection."""
        self._pending: dict[Any, Pending] = {}
        self._strangers: dict[Any, Stranger] = {}

    # -- what connections say

    def connected(self, device: Device, channel: Channel, link: Link) -> None:
        self._lines[device.id] = link

    def met(self, stranger: Stranger, channel: Channel, link: Link) -> bool:
        self._lines[stranger.line_id] = link
        self._strangers[link] = stranger
        return True

    def model_of(self, channel: Channel, ident: str) -> str | None:
        return self._doorkeeper.of(channel.id, ident).model

    def disconnected(self, device_id: int, link: Link) -> None:
        if self._lines.get(device_id) is link:
            del self._lines[device_id]
        self._pending.pop(link, None)
        self._strangers.pop(link, None)

    def line_changed(self, device_id: int) -> None:
        link = self._lines.get(device_id)
        if link is not None:
            self._try(link)

    def answered(self, device_id: int, link: Any, payload: bytes, refusal: str) -> bool:
        """What nobody waits for is a message, which the connection makes of it."""
        pending = self._pending.get(link)
        if pending is None or not pending.is_sent:
            return False
        del self._pending[link]
        if pending.is_abandoned:
            return False
        said = {"codec_id": pending.codec_id, "type": 6, "payload": payload}
        self._send(wire.Answered(link.id, payload, refusal, said))
        return True

    # -- what the first process says

    def command(self, link: Any, command: wire.Command) -> None:
        """Send it as soon as that can be."""
        self._pending[link] = Pending(command.payload, command.codec_id, self._now())
        self._try(link)

    def abandon(self, link: Any) -> None:
        """The answer is not waited for; one that was not even sent is dropped if that was long ago."""
        pending = self._pending.get(link)
        if pending is None:
            return
        if pending.is_sent:
            self._abandon(link, pending)
        elif self._now() - pending.at > LATE_COMMAND:
            del self._pending[link]
        else:
            pending.is_abandoned = True

    def model(self, link: Any, model: str | None) -> None:
        """A tracker without a device is of this model."""
        stranger = self._strangers.get(link)
        if stranger is not None:
            self._doorkeeper.has_model(link.channel.id, stranger.ident, model)
            stranger.told()

    def _try(self, link: Any) -> None:
        pending = self._pending.get(link)
        if pending is None or pending.is_sent or not link.may_send_command:
            return
        try:
            link.send_command(pending.payload, pending.codec_id)
        except GatewayError as error:
            del self._pending[link]
            self._send(wire.Answered(link.id, b"", str(error), None))
            return
        pending.is_sent = True
        if pending.is_abandoned:
            self._abandon(link, pending)

    def _abandon(self, link: Any, pending: Pending) -> None:
        pending.is_abandoned = True
        try:
            link.abandon_command()
        except GatewayError:  # its answer has just come
            self._pending.pop(link, None)


class FrontConnections(Connections):
    """The worker's connections; the first process knows of each."""

    def __init__(self, limits: Limits, send: Send, now: Callable[[], float]) -> None:
        super().__init__(limits, lambda protocol_id, ident, is_connected: None, now)
        self._send = send
        self._told: dict[TrackerConnection, tuple[int, int, int]] = {}

    def add(self, connection: TrackerConnection) -> bool:
        if not super().add(connection):
            return False
        self._told[connection] = (0, 0, 0)
        self._send(
            wire.Opened(
                connection.id, connection.channel.id, connection.peer, connection.host, connection.transport_kind
            )
        )
        return True

    def identify(self, connection: TrackerConnection, key: tuple[int, str]) -> None:
        super().identify(connection, key)
        self._send(wire.Identified(connection.id, key[1]))

    def remove(self, connection: TrackerConnection) -> None:
        if connection in self:
            self.report(connection)
        super().remove(connection)
        self._told.pop(connection, None)

    def report(self, connection: TrackerConnection) -> None:
        """Say how it is doing, if something has happened."""
        counts = (connection.msgs, connection.recv, connection.send)
        if self._told.get(connection) != counts:
            self._told[connection] = counts
            self._send(wire.Counted(connection.id, self._now() - connection.seen, *counts))

    def report_all(self) -> None:
        """The same of all."""
        for connection in list(self):
            self.report(connection)


class FrontObserver(Observer):
    """Tells the first process."""

    def __init__(self, send: Send, connections: Callable[[], Connections]) -> None:
        self._send = send
        self._connections = connections

    def _tell(self, party: Party, occasion: str, *details: Any) -> None:
        number = party.id
        if not number and party.ident is not None:  # of a packet, which knows its ident and not its connection
            connection = self._connections().of_ident(party.channel.protocol_id, party.ident)
            number = connection.id if connection is not None else 0
        if number:
            told = [msgspec.to_builtins(one, builtin_types=(bytes,)) for one in details]
            self._send(wire.Told(number, occasion, told))

    def noted(self, party: Party, ident: str, decision: Decision) -> None:
        self._tell(party, "noted", ident, decision)

    def identified(self, party: Party, login: bytes, verdict: bytes) -> None:
        self._tell(party, "identified", login, verdict)

    def refused(self, party: Party, ident: str, login: bytes, verdict: bytes, decision: Decision) -> None:
        self._tell(party, "refused", ident, login, verdict, decision)

    def closed(self, party: Counted, code: CloseCode, why: str) -> None:
        self._send(wire.Ended(party.id, int(code), why))

    def violated(self, party: Party, reason: str, unread: bytes) -> None:
        self._tell(party, "violated", reason, unread)

    def rejected(self, party: Party, reason: str, frame: bytes, is_parked: bool) -> None:
        self._tell(party, "rejected", reason, frame, is_parked)

    def received(self, party: Party, data: bytes) -> None:
        self._tell(party, "received", data)

    def sent(self, party: Party, data: bytes) -> None:
        self._tell(party, "sent", data)

    def answered(self, party: Party, data: bytes) -> None:
        self._tell(party, "answered", data)


@define(eq=False)
class NoItems:
    """What channels need of the items; all else is asked of the first process."""

    channels: dict[int, Channel] = field(factory=dict)
    on_change: list[Callable[[Any], None]] = field(factory=list)
    around_channel: Any = None

    def device_for(self, protocol_id: int, ident: str) -> Device | None:
        """Nobody asks here."""
        return None

    async def settle(self, timeout: float) -> None:
        """Nothing changes here."""


class FrontChannels(Channels):
    """The channels of a worker, as the first process says that they are."""

    log = Logger()
    intake_type = FrontIntake

    def __init__(self, reactor: Any, send: Send, gate: Gate, limits: Limits) -> None:
        self.doorkeeper = Doorkeeper(send)
        self.writer = FrontWriter(send, gate)
        self.lines = FrontLines(send, self.doorkeeper, time.monotonic)
        items: Any = NoItems()
        writer: Any = self.writer
        super().__init__(
            SharingReactor(reactor), items, writer, gate, limits,
            observer=FrontObserver(send, lambda: self.connections), lines=self.lines,
        )  # fmt: skip
        self._send = send
        self.connections = self.fronts = FrontConnections(limits, send, self.now)
        self._changing_one = asyncio.Lock()

    def _intake(self, channel: Channel) -> Intake:
        intake = super()._intake(channel)
        assert isinstance(intake, FrontIntake)
        intake.doorkeeper = self.doorkeeper
        return intake

    async def apply(self, listen: wire.Listen) -> None:
        """Listen as the first process does."""
        async with self._changing_one:
            there = self._listening.get(listen.channel_id)
            old, new = there.channel if there is not None else None, _channel_of(listen)
            if old is None and new is None:
                return
            try:
                async with self.switching(old, new):
                    pass
            except GatewayError as error:
                self._send(wire.NotListening(listen.channel_id, str(error)))


def _channel_of(listen: wire.Listen) -> Channel | None:
    if not listen.channel:
        return None
    channel: Channel = decoded(Channel, listen.channel)
    return evolve(channel, enabled=True, configuration={**channel.configuration, "listen": listen.specs})
