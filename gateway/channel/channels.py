"""What listens where: the channels' endpoints, their connections, and an orderly end.

A channel starts, stops and changes while the others run on: :meth:`Channels.switching` surrounds the storing of the
change. New endpoints are open before it, and serve after it; where either fails, all is as before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

from twisted.logger import Logger

from gateway.channel.connection import TrackerConnection
from gateway.channel.connections import Connections, Limits, OnPresence
from gateway.channel.datagrams import TrackerDatagrams
from gateway.channel.endpoints import port_of
from gateway.channel.intake import Intake
from gateway.channel.lines import Lines
from gateway.channel.listening import Listening
from gateway.channel.observer import Observer
from gateway.channel.ports import PortRange
from gateway.errors import ListenError
from gateway.protocols.catalog import PROTOCOLS
from gateway.store.event_codes import CloseCode
from gateway.store.gate import Gate
from gateway.store.items import Change, Channel, Device, Items
from gateway.store.log import LogWriter

SWEEP_EVERY = 10.0
"""Seconds between looks for connections that are silent or gone."""
CLOSE_TIME = 2.0
"""Seconds that connections have to take their last acknowledgement at a stop."""
PORTS = range(20000, 20100)
"""What channels get that are created without endpoints."""


class Channels:
    """Starts, changes and stops channels; stopping finishes what was taken."""

    log = Logger()
    intake_type = Intake

    def __init__(
        self,
        reactor: Any,
        items: Items,
        writer: LogWriter,
        gate: Gate,
        limits: Limits,
        *,
        on_presence: OnPresence = lambda protocol_id, ident, is_connected: None,
        ports: range = PORTS,
        now: Callable[[], float] = time.monotonic,
        observer: Observer | None = None,
        lines: Lines | None = None,
    ) -> None:
        """``ports`` are for channels that are created without endpoints of their own."""
        self._reactor = reactor
        self._items = items
        self._writer = writer
        self._gate = gate
        self._limits = limits
        self.now = now
        self._listening: dict[int, Listening] = {}
        self.on_listening: list[Callable[[int], None]] = []
        """Each is called with the id of a channel whose endpoints, or whose configuration, are others now."""
        self._is_stopping = False
        self.ports = PortRange(ports, items)
        self._observer = observer
        self._lines = lines
        self.connections = Connections(limits, on_presence, now, device_for=items.device_for)
        gate.subscribe(self, self._gate_changed)

    async def start(self) -> None:
        """Start all channels that are enabled, and follow the items from now on.

        Raises ListenError, ConfigError, StoreError.
        """
        for channel in list(self._items.channels.values()):
            if channel.enabled:
                await self.start_channel(channel)
        self._items.around_channel = self.switching
        self._items.on_change.append(self._item_changed)

    async def start_channel(self, channel: Channel) -> None:
        """Listen on all endpoints of ``channel``, or on none. Raises ListenError, ConfigError, StoreError."""
        there = await self._opened(channel)
        self._listening[channel.id] = there
        there.serve()
        self._tell(channel.id)

    @asynccontextmanager
    async def switching(self, old: Channel | None, new: Channel | None) -> AsyncIterator[None]:
        """Around the storing of a channel's change (``old`` None: it is new; ``new`` None: it is deleted).

        Raises ListenError, ConfigError, StoreError before anything is stored.
        """
        there = self._listening.get(old.id) if old is not None else None
        if new is None or not new.enabled:
            yield
            if there is not None:
                await self._to_its_end(self._stop_channel(there, "is deleted" if new is None else "is disabled"))
            return
        if self._is_stopping:
            raise ListenError("the gateway is stopping")
        around = self._starting(new) if there is None else self._changing(there, new)
        async with around:
            yield

    def addresses(self) -> list[tuple[Channel, str]]:
        """What listens where, for people: (channel, "tcp 0.0.0.0:5027")."""
        return [
            (listening.channel, str(endpoint))
            for listening in self._listening.values()
            for endpoint in listening.endpoints.values()
        ]

    def intake_of(self, channel_id: int) -> Intake | None:
        """That of a channel that listens."""
        there = self._listening.get(channel_id)
        return there.intake if there is not None else None

    def listening(self) -> dict[int, tuple[Channel, dict[str, int | None]]]:
        """The channels that listen, by id, with the port of each of their endpoints that has one."""
        return {
            id: (there.channel, {spec: there.ports().get(spec) for spec in there.endpoints})
            for id, there in self._listening.items()
        }

    def _tell(self, channel_id: int) -> None:
        for changed in self.on_listening:
            changed(channel_id)

    def port_of(self, channel: Channel) -> int | None:
        """The first port of a channel, TCP before UDP; None where it has none."""
        there = self._listening.get(channel.id)
        actual = there.ports() if there is not None else {}
        ports = [(*port, spec) for spec in channel.listen if (port := port_of(spec)) is not None]
        ports.sort(key=lambda port: port[0] == "udp")
        return next((actual.get(spec, port) for _kind, port, spec in ports), None)

    async def stop(self, timeout: float) -> None:
        """Stop listening, store and acknowledge what was taken (``timeout`` seconds at most), close all connections."""
        self._is_stopping = True
        self._gate.unsubscribe(self)
        await self._items.settle(timeout)
        for listening in self._listening.values():
            await listening.stop_taking()
        for connection in list(self.connections):
            connection.stop_taking()
        if not await self._writer.drain(timeout):
            self.log.warn("stopped before all packets were stored: the trackers will send them again")
        for listening in self._listening.values():
            await listening.close_all()
        await self._close_all()
        self._listening.clear()

    async def sweep_forever(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            self.connections.sweep()

    # -- one channel

    @asynccontextmanager
    async def _starting(self, new: Channel) -> AsyncIterator[None]:
        there = await self._opened(new)
        try:
            yield
        except BaseException:
            await self._to_its_end(there.close_all())
            raise
        self._listening[new.id] = there
        there.serve()
        self._tell(new.id)

    @asynccontextmanager
    async def _changing(self, there: Listening, new: Channel) -> AsyncIterator[None]:
        leaving = [spec for spec in there.endpoints if spec not in new.listen]
        coming = [spec for spec in new.listen if spec not in there.endpoints]
        gone = await there.replace(leaving, coming)
        try:
            yield
        except BaseException:
            await self._to_its_end(self._restore(there, coming, gone))
            raise
        is_other = bool(leaving or coming) or new.protocol_id != there.channel.protocol_id
        there.intake.channel = new
        there.intake.protocol = PROTOCOLS[new.protocol_id]
        if is_other:
            await self._to_its_end(self._finish_change(there, leaving))
        self._tell(new.id)

    async def _opened(self, channel: Channel) -> Listening:
        """All its endpoints are open, and serve nobody yet."""
        await self._writer.open_channel(channel.id)
        there = Listening(self._reactor, self._intake(channel), self._connection, self._datagrams)
        await there.open(channel.listen)
        return there

    async def _restore(self, there: Listening, coming: list[str], leaving: list[str]) -> None:
        await there.close(coming)
        await there.restore(leaving)

    async def _finish_change(self, there: Listening, leaving: list[str]) -> None:
        await there.close(leaving)
        await self._close_connections(there, "its channel is changed", CloseCode.CHANNEL_CHANGED)
        there.serve()

    async def _stop_channel(self, there: Listening, why: str) -> None:
        self._listening.pop(there.channel.id, None)
        self._tell(there.channel.id)
        await there.stop_taking()
        await self._close_connections(there, f"its channel {why}", CloseCode.CHANNEL_BLOCKED)
        await there.close_all()

    async def _close_connections(self, there: Listening, why: str, code: CloseCode) -> None:
        """Acknowledge what is stored in the next moments, then close."""
        closing = [one for one in self.connections if one.channel.id == there.channel.id]
        for connection in closing:
            connection.stop_taking()
        await self._writer.drain(CLOSE_TIME)
        for connection in closing:
            connection.close(why, code, is_routine=True)
        await self._end(closing, why, code)

    async def _to_its_end(self, ending: Coroutine[Any, Any, None]) -> None:
        """What is stored already is not taken back for an error here."""
        try:
            await ending
        except Exception:
            self.log.failure("a change of a channel did not end in order")

    # -- what a channel is made of

    def _intake(self, channel: Channel) -> Intake:
        protocol = PROTOCOLS[channel.protocol_id]
        return self.intake_type(
            channel,
            protocol,
            self._items,
            self._writer,
            self._gate,
            self._limits.devices,
            self._observer,
            self._lines,
        )

    def _datagrams(self, intake: Intake) -> TrackerDatagrams:
        return TrackerDatagrams(intake, self._limits.pending_packets_udp)

    def _connection(self, intake: Intake) -> TrackerConnection:
        return TrackerConnection(
            intake,
            self.connections,
            self._limits.packet_size,
            self.now,
            lambda function: self._reactor.callLater(0, function),
        )

    # -- what happens elsewhere

    def _gate_changed(self, is_open: bool) -> None:
        for connection in list(self.connections):
            connection.gate_changed(is_open)

    def _item_changed(self, change: Change) -> None:
        """A device that is not what it was: its tracker logs in again, and is taken as what it is now."""
        if change.kind != "devices":
            return
        old, new = cast("tuple[Device | None, Device | None]", (change.old, change.new))
        if old is not None and new is not None and _is_same_tracker(old, new):
            if old.enabled and not new.enabled:
                self.connections.close_ident(*old.key, CloseCode.DEVICE_DISABLED)
            return
        for key in {device.key for device in (old, new) if device is not None}:
            self.connections.close_ident(*key, CloseCode.DEVICE_CHANGED)

    async def _close_all(self) -> None:
        connections = list(self.connections)
        for connection in connections:
            connection.close("the gateway stops", CloseCode.SERVER_RESTART, is_routine=True)
        await self._end(connections, "the gateway stops", CloseCode.SERVER_RESTART)

    async def _end(self, closing: list[TrackerConnection], why: str, code: CloseCode) -> None:
        """Wait until they are closed; those that do not take what they were sent are cut."""
        deadline = self.now() + CLOSE_TIME
        while (left := [one for one in closing if one in self.connections]) and self.now() < deadline:
            await asyncio.sleep(0.02)
        for connection in left:
            connection.abort(why, code, is_routine=True)


def _is_same_tracker(old: Device, new: Device) -> bool:
    return old.key == new.key and old.device_type_id == new.device_type_id
