"""From a decoded packet to the log: what TCP and UDP have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from gateway import aio, metrics
from gateway import message as msg
from gateway.channel.lines import Lines, Link, Stranger
from gateway.channel.observer import Decision, Observer, Sender, packets_ttl
from gateway.errors import GatewayError, StoreError
from gateway.protocols.catalog import PROTOCOLS, Normalizer, TrackerProtocol
from gateway.store.compact import compact
from gateway.store.event_codes import CloseCode
from gateway.store.gate import Gate
from gateway.store.items import Channel, Device, Items
from gateway.store.log import LogWriter

MICROSECONDS = 1_000_000
LOG_FIRST, LOG_EVERY = 100, 1000

Done = Callable[[StoreError | None], None]
Verdict = Callable[[Decision], None]

NOT_NORMALIZED = "cannot be normalized"
WELCOME = Decision(True, is_registered=True)
NO_DEVICE = Decision(True, "no device has this ident: its messages are in the channel only")
REJECTED = Decision(
    False,
    "no device has this ident, and the channel's unknown_ident is reject: create a device with configuration.ident, "
    "or set unknown_ident to accept or register",
)


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
        observer: Observer | None = None,
        lines: Lines | None = None,
    ) -> None:
        self.channel = channel
        self.protocol = protocol
        self.gate = gate
        self._items = items
        self._writer = writer
        self._max_devices = max_devices
        self.observer = observer or Observer()
        self.lines = lines or Lines()

    @property
    def channel(self) -> Channel:
        """As it was stored last."""
        return self._channel

    @channel.setter
    def channel(self, channel: Channel) -> None:
        self._channel = channel
        self.packets_ttl = packets_ttl(channel)

    def decide(self, ident: str, verdict: Verdict) -> None:
        """Call ``verdict`` with whether ``ident`` is welcome: at once, or when its new device is stored."""
        known = self._items.find_device(self._channel.protocol_id, ident)
        if known is not None:
            verdict(WELCOME if known.enabled else _disabled(known))
        elif self._channel.unknown_ident == "register":
            aio.as_deferred(self._register(ident)).addCallback(verdict).addErrback(self._is_bug)
        else:
            verdict(self._of_unknown(ident))

    def _of_unknown(self, ident: str) -> Decision:
        decision = NO_DEVICE if self._channel.unknown_ident == "accept" else REJECTED
        if len(PROTOCOLS) == 1:
            return decision
        others = (self._items.find_device(other, ident) for other in PROTOCOLS if other != self._channel.protocol_id)
        other = next((device for device in others if device is not None), None)
        if other is None:
            return decision
        name = PROTOCOLS[other.protocol_id].name
        why = f"device {other.id} has this ident, but its type is of the protocol {name}, not of {self.protocol.name}"
        return Decision(decision.is_welcome, why)

    def device_of(self, ident: str) -> Device | None:
        """The device that this ident is registered as."""
        return self._items.device_for(self._channel.protocol_id, ident)

    def line_of(self, ident: str, link: Link, stranger: Stranger) -> int | None:
        """The id of the line that this connection is from now on: its device's, or ``stranger``'s.

        None: it is no line, because its device is disabled, or because strangers are asked nothing.
        """
        device = self.device_of(ident)
        if device is not None:
            self.lines.connected(device, self._channel, link)
            return device.id
        is_stranger = self._items.find_device(self._channel.protocol_id, ident) is None
        return stranger.line_id if is_stranger and self.lines.met(stranger, self._channel, link) else None

    def normalizer_for(self, ident: str) -> Normalizer:
        """The one of the device's model; where there is no device, of the model that the tracker said it is."""
        device = self.device_of(ident)
        if device is not None:
            return self.protocol.normalizer_for(self.protocol.model_of(device.device_type_id))
        return self.protocol.normalizer_for(self.lines.model_of(self._channel, ident))

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
        first = self._writer.reserve(self._channel.id, len(records))
        try:
            messages = normalizer.normalize_all(records, packet["codec_id"])
            texts = self._texts(ident, peer, messages, first)
        except Exception:
            # A record that this code cannot take would be sent again for ever: keep the bytes, say so, go on.
            self.log.failure("a packet of {ident} on {channel}", ident=ident, channel=self._channel.name)
            sender = Sender(self._channel, ident, peer, transport_kind="")
            self.observer.rejected(sender, NOT_NORMALIZED, body, is_parked=True)
            self.park(ident, body, NOT_NORMALIZED, done)
            return
        data = b"\n".join(texts) if len(texts) > 1 else compact(texts[0])  # many may wait for Redis
        self._writer.append(self._channel.id, first + len(records) - 1, ident, data, done)
        metrics.count("packets", channel=self._channel.name)
        metrics.count("records", len(records), channel=self._channel.name)

    def say(self, ident: str, peer: str, said: Sequence[Mapping[str, Any]], done: Done) -> None:
        """Commit what a tracker said unasked, as messages; ``done`` as in :meth:`submit`."""
        first = self._writer.reserve(self._channel.id, len(said))
        try:
            unasked = self.protocol.unasked
            messages = [unasked(one, ident, at / MICROSECONDS) for at, one in enumerate(said, first)]
            texts = self._texts(ident, peer, messages, first)
        except Exception:
            self.log.failure("what {ident} said on {channel}", ident=ident, channel=self._channel.name)
            self.park(ident, b"".join(one["payload"] for one in said), NOT_NORMALIZED, done)
            return
        data = b"\n".join(texts) if len(texts) > 1 else compact(texts[0])
        self._writer.append(self._channel.id, first + len(said) - 1, ident, data, done)

    def _texts(self, ident: str, peer: str, messages: Sequence[dict[str, Any]], first: int) -> list[bytes]:
        identity = {
            "ident": ident,
            "peer": peer,
            "channel.id": self._channel.id,
            "protocol.id": self._channel.protocol_id,
        }
        texts = []
        for position, message in enumerate(messages, first):
            message.update(identity)
            message["server.timestamp"] = position / MICROSECONDS
            texts.append(msg.encode(message))
        return texts

    def park(self, ident: str, frame: bytes, reason: str, done: Done) -> None:
        """Keep a packet that nobody can decode; sending it again would not help, so it is acknowledged after this."""
        n = metrics.count("packets_parked", channel=self._channel.name, reason=reason)
        if n <= LOG_FIRST or n % LOG_EVERY == 0:
            self.log.warn(
                "parked a packet of {ident} on {channel}: {reason} ({size} bytes, {n}. of this kind)",
                ident=ident, channel=self._channel.name, reason=reason, size=len(frame), n=n,
            )  # fmt: skip
        self._writer.park(self._channel.id, ident, frame, done, reason)

    def _is_bug(self, failure: Failure) -> None:
        self.log.failure("a verdict on {channel}", failure, channel=self._channel.name)

    async def _register(self, ident: str) -> Decision:
        """Make a device of ``ident``; undecided, and a line in the log, where the store does not take it."""
        if len(self._items.devices) >= self._max_devices:
            n = metrics.count("idents_not_registered", channel=self._channel.name)
            if n % LOG_EVERY == 1:
                self.log.warn("{ident} is not registered ({n}.): limits.devices is reached", ident=ident, n=n)
            return Decision(False, f"no device was made of it: limits.devices ({self._max_devices}) is reached")
        try:
            device = await self._items.register_device(
                ident=ident,
                name=ident,
                protocol_id=self._channel.protocol_id,
                device_type_id=self.protocol.unknown_device_type,
            )
        except GatewayError as error:
            self.log.warn("{ident} could not be registered: {error}", ident=ident, error=str(error))
            return Decision(None, f"no device could be made of it: {error}", CloseCode.INTERNAL_ERROR)
        self.log.info("registered {ident} as device {id}", ident=ident, id=device.id)
        return WELCOME if device.enabled else _disabled(device)


def _disabled(device: Device) -> Decision:
    why = f"device {device.id} ({device.name}) is disabled: set its enabled to true"
    return Decision(False, why, CloseCode.DEVICE_DISABLED, is_registered=True)
