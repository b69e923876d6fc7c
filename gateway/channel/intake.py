"""From a decoded packet to the log: what TCP and UDP have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway import aio, metrics
from gateway import message as msg
from gateway.errors import GatewayError, StoreError
from gateway.protocols.catalog import Normalizer, TrackerProtocol
from gateway.store.gate import Gate
from gateway.store.items import Channel, Device, Items
from gateway.store.log import LogWriter

MICROSECONDS = 1_000_000
LOG_FIRST, LOG_EVERY = 100, 1000

Done = Callable[[StoreError | None], None]
Verdict = Callable[[bool | None], None]
"""Whether an ident is welcome; None: that cannot be said just now, and the tracker must come again."""


class Intake:
    """Takes what the trackers of one channel send. ``gate`` says whether it may be taken just now."""

    log = Logger()

    def __init__(
        self,
        channel: Channel,
        protocol: TrackerProtocol,
        items: Items,
        writer: LogWriter,
        gate: Gate,
        max_devices: int = 100000,
    ) -> None:
        self.channel = channel
        self.protocol = protocol
        self.gate = gate
        self._items = items
        self._writer = writer
        self._max_devices = max_devices

    def decide(self, ident: str, verdict: Verdict) -> None:
        """Call ``verdict`` with whether ``ident`` is welcome: at once, or when its new device is stored."""
        known = self._items.find_device(self.channel.protocol_id, ident)
        rule = self.channel.unknown_ident
        if known is not None:
            verdict(known.enabled)
        elif rule == "register":
            aio.as_deferred(self._register(ident)).addCallback(verdict).addErrback(self._is_bug)
        else:
            verdict(rule == "accept")

    def device_of(self, ident: str) -> Device | None:
        """The device that this ident is registered as."""
        return self._items.device_for(self.channel.protocol_id, ident)

    def normalizer_for(self, ident: str) -> Normalizer:
        """The one of the device's model."""
        device = self.device_of(ident)
        model = self.protocol.model_of(device.device_type_id) if device is not None else None
        return self.protocol.normalizer_for(model)

    def submit(
        self, ident: str, peer: str, normalizer: Normalizer, packet: Mapping[str, Any], body: bytes, done: Done
    ) -> None:
        """Normalize a packet and commit its messages; ``done`` when they are in the log, or will never be.

        ``body`` are the packet's bytes, kept when its records cannot be normalized.
        """
        records = packet["records"]
        if not records:
            done(None)
            return
        first = self._writer.reserve(self.channel.id, len(records))
        try:
            texts = self._texts(ident, peer, normalizer, packet, first)
        except Exception:
            # A record that this code cannot take would be sent again for ever: keep the bytes, say so, go on.
            self.log.failure("a packet of {ident} on {channel}", ident=ident, channel=self.channel.name)
            self.park(ident, body, "cannot be normalized", done)
            return
        self._writer.append(self.channel.id, first + len(records) - 1, ident, b"\n".join(texts), done)
        metrics.count("packets", channel=self.channel.name)
        metrics.count("records", len(records), channel=self.channel.name)

    def _texts(
        self, ident: str, peer: str, normalizer: Normalizer, packet: Mapping[str, Any], first: int
    ) -> list[bytes]:
        codec_id = packet["codec_id"]
        identity = {
            "ident": ident,
            "peer": peer,
            "channel.id": self.channel.id,
            "protocol.id": self.channel.protocol_id,
        }
        texts = []
        for position, record in enumerate(packet["records"], first):
            message = normalizer.normalize(record, codec_id)
            message.update(identity)
            message["server.timestamp"] = position / MICROSECONDS
            texts.append(msg.encode(message))
        return texts

    def park(self, ident: str, frame: bytes, reason: str, done: Done) -> None:
        """Keep a packet that nobody can decode; sending it again would not help, so it is acknowledged after this."""
        n = metrics.count("packets_parked", channel=self.channel.name, reason=reason)
        if n <= LOG_FIRST or n % LOG_EVERY == 0:
            self.log.warn(
                "parked a packet of {ident} on {channel}: {reason} ({size} bytes, {n}. of this kind)",
                ident=ident, channel=self.channel.name, reason=reason, size=len(frame), n=n,
            )  # fmt: skip
        self._writer.park(self.channel.id, ident, frame, done)

    def _is_bug(self, failure: Failure) -> None:
        self.log.failure("a verdict on {channel}", failure, channel=self.channel.name)

    async def _register(self, ident: str) -> bool | None:
        """Make a device of ``ident``; None, and a line in the log, where the store does not take it."""
        protocol_id = self.channel.protocol_id
        if len(self._items.devices) >= self._max_devices:
            n = metrics.count("idents_not_registered", channel=self.channel.name)
            if n % LOG_EVERY == 1:
                self.log.warn("{ident} is not registered ({n}.): limits.devices is reached", ident=ident, n=n)
            return False
        try:
            device = await self._items.register_device(
                ident=ident, name=ident, protocol_id=protocol_id, device_type_id=self.protocol.unknown_device_type
            )
        except GatewayError as error:
            self.log.warn("{ident} could not be registered: {error}", ident=ident, error=str(error))
            return None
        self.log.info("registered {ident} as device {id}", ident=ident, id=device.id)
        return True
