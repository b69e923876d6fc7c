"""A worker's side: channels whose collaborators are in the first process.

Sessions, transports, TLS and normalizing are those of :mod:`gateway.channel`; what is decided and stored elsewhere is
asked for over the pipe. When the pipe breaks, the worker ends: without the first process nothing could be acknowledged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from attrs import define, evolve, field
from twisted.logger import Logger

from gateway.channel.channels import Channels
from gateway.channel.connections import Limits
from gateway.channel.intake import Intake
from gateway.errors import GatewayError
from gateway.store.gate import Gate
from gateway.store.item import Device, decoded
from gateway.store.items import Channel
from gateway.workers import wire
from gateway.workers.asking import Doorkeeper, FrontIntake, FrontWriter, Send
from gateway.workers.ordered import FrontLines
from gateway.workers.sharing import SharingReactor
from gateway.workers.telling import FrontConnections, FrontObserver


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
