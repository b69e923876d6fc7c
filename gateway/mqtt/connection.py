"""One connection to the broker: paho's protocol engine over a Twisted transport.

paho believes that it has a non-blocking socket. What it sends is gathered and written once per turn of the reactor; it
is given the packets that arrive, all but PUBACKs. There is a new paho client for each connection, so it never holds a
message of an earlier one: the log's cursor is the only memory.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from attrs import field, frozen
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, LogLevel
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from gateway.errors import BrokerUnavailable, PeerError
from gateway.mqtt.packets import MAX_REMAINING_LENGTH, PUBACK, PacketCutter, read_puback

KEEPALIVE = 30
"""Seconds of silence before paho pings; after as many without an answer the connection is given up."""
QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
CLOSE_TIMEOUT = 2.0
"""Seconds that an orderly end may take before the connection is cut."""


@frozen
class Credentials:
    """Who we are for the broker, and what it says of us when we are gone."""

    client_id: str
    version: int
    """4: MQTT 3.1.1; 5: MQTT 5."""
    username: str | None
    password: str | None = field(repr=False)
    will_topic: str = ""
    """Empty: nothing is said."""
    will_payload: bytes = b""
    keepalive: int = 0
    """Seconds; 0: :data:`KEEPALIVE`."""


@frozen
class Limits:
    """What the broker allows (MQTT 5, 3.2.2.3); MQTT 3.1.1 has no way to say it."""

    receive_maximum: int = 65535
    maximum_packet_size: int = MAX_REMAINING_LENGTH
    takes_retained: bool = True
    takes_qos_1: bool = True

    @classmethod
    def of(cls, properties: Properties | None) -> Limits:
        """From a CONNACK's properties."""
        return cls(
            receive_maximum=getattr(properties, "ReceiveMaximum", 65535),
            maximum_packet_size=getattr(properties, "MaximumPacketSize", MAX_REMAINING_LENGTH),
            takes_retained=bool(getattr(properties, "RetainAvailable", 1)),
            takes_qos_1=getattr(properties, "MaximumQoS", 1) >= 1,
        )


class _PahoSocket:
    """As much of a socket as paho uses (its ``SocketLike``)."""

    def __init__(self, send: Callable[[bytes], None], close: Callable[[], None]) -> None:
        self._send = send
        self._close = close
        self.received = b""

    def recv(self, size: int) -> bytes:
        if not self.received:
            raise BlockingIOError
        data, self.received = self.received[:size], self.received[size:]
        return data

    def send(self, data: bytes | bytearray) -> int:
        self._send(bytes(data))
        return len(data)

    def close(self) -> None:
        self._close()

    def fileno(self) -> int:
        return -1

    def setblocking(self, flag: bool) -> None:
        """It never blocks."""


class _Paho(paho.Client):
    """paho with its socket given to it, where it would make one and block while it connects."""

    given_socket: _PahoSocket

    def _create_socket(self) -> Any:
        return self.given_socket


def _new_paho(credentials: Credentials) -> _Paho:
    is_v5 = credentials.version == 5
    client = _Paho(
        CallbackAPIVersion.VERSION2,
        client_id=credentials.client_id,
        clean_session=None if is_v5 else True,
        protocol=paho.MQTTv5 if is_v5 else paho.MQTTv311,
        reconnect_on_failure=False,
    )
    client.suppress_exceptions = True
    client.username_pw_set(credentials.username, credentials.password)
    if credentials.will_topic:
        client.will_set(credentials.will_topic, credentials.will_payload, qos=1, retain=True)
    # paho wants a name of the broker for its own connecting, which does not happen
    client.connect_async("broker", keepalive=credentials.keepalive or KEEPALIVE, clean_start=True)
    return client


def _kernel_socket(transport: Any) -> socket.socket | None:
    """What is below TLS, if there is any."""
    while (below := getattr(transport, "transport", None)) is not None:
        transport = below
    handle = transport.getHandle()
    return handle if isinstance(handle, socket.socket) else None


@implementer(IPushProducer)
class Connection(Protocol):
    """``accepted`` gives the broker's limits or BrokerUnavailable; ``ended`` why the connection is gone, as text."""

    log = Logger()

    def __init__(self, credentials: Credentials) -> None:
        loop = asyncio.get_running_loop()
        self.is_v5 = credentials.version == 5
        self.accepted: asyncio.Future[Limits] = loop.create_future()
        self.ended: asyncio.Future[str] = loop.create_future()
        self.is_paused = False
        self.on_pubacks: Callable[[list[tuple[int, int]]], None] = lambda pubacks: None
        self.on_room: Callable[[], None] = lambda: None
        self._loop = loop
        self._out: list[bytes] = []
        self._is_flush_due = False
        self._kernel_socket: socket.socket | None = None
        self._is_up = False
        self._is_closing = False
        self._is_aborted = False
        self._reason = ""
        self._cutter = PacketCutter()
        self._socket = _PahoSocket(self._out.append, self.close)
        self._paho = self._with_callbacks(_new_paho(credentials))
        self._misc = LoopingCall(self._paho.loop_misc)

    def _with_callbacks(self, client: _Paho) -> _Paho:
        client.given_socket = self._socket
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_log = self._on_log
        client.on_socket_register_write = lambda client, userdata, socket: self._flush_soon()
        return client

    # Twisted's side

    def connectionMade(self) -> None:
        self._is_up = True
        self._kernel_socket = _kernel_socket(self.transport)
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]  # one write a turn is coalescing enough
        self.transport.registerProducer(self, True)  # type: ignore[union-attr]
        self._paho.reconnect()
        self._misc.start(1.0, now=False).addErrback(self._on_misc_failure)

    def dataReceived(self, data: bytes) -> None:
        if self._is_aborted:
            return
        self._acknowledge_at_once()
        try:
            packets = self._cutter.cut(data)
            read = self.read_puback
            pubacks = [read(packet) for packet in packets if packet[0] == PUBACK]
        except PeerError as error:
            self.abort(str(error))
            return
        if len(pubacks) != len(packets):
            self._give_to_paho([packet for packet in packets if packet[0] != PUBACK])
        if pubacks:
            self.on_pubacks(pubacks)

    def _acknowledge_at_once(self) -> None:
        """Let the kernel acknowledge what it received, instead of waiting 40 ms for data of ours to carry that.

        A broker that has not turned Nagle's algorithm off (Mosquitto by default) holds back all PUBACKs but the first
        until then. Linux forgets the option with each segment.
        """
        if self._kernel_socket is not None and QUICK_ACK is not None:
            self._kernel_socket.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)

    def read_puback(self, packet: bytes) -> tuple[int, int]:
        """Packet id and reason code. Raises PeerError."""
        return read_puback(packet)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._is_up = False
        self._kernel_socket = None
        if self._misc.running:
            self._misc.stop()
        text = self._reason or reason.getErrorMessage()
        if not self.accepted.done():
            self.accepted.set_exception(BrokerUnavailable(text))
            self.accepted.exception()  # whoever waited may be gone: asyncio is not to complain
        if not self.ended.done():
            self.ended.set_result(text)
        self.on_room()

    def pauseProducing(self) -> None:
        self.is_paused = True

    def resumeProducing(self) -> None:
        self.is_paused = False
        self.on_room()

    def stopProducing(self) -> None:
        self.is_paused = True

    # our side

    @property
    def is_alive(self) -> bool:
        """Whether what is sent has a chance to arrive."""
        return self._is_up and not self._is_closing

    def send(self, *parts: bytes) -> None:
        """Send them with this turn's one write."""
        self._out += parts
        self._flush_soon()

    def disconnect(self) -> None:
        """Say goodbye (no will is published) and close."""
        if self.is_alive:
            self._paho.disconnect()
            self._flush_soon()

    def close(self) -> None:
        """Close after what was sent; cut the connection if that takes long."""
        if self._is_closing:
            return
        self._is_closing = True
        self._flush_soon()
        self._loop.call_later(CLOSE_TIMEOUT, self._cut)

    def abort(self, reason: str) -> None:
        """Cut the connection; the broker publishes our will."""
        self._reason = self._reason or reason
        self._is_closing = self._is_aborted = True
        self._cut()

    def _cut(self) -> None:
        if self._is_up and self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]

    def _flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        if self._paho.want_write():
            self._paho.loop_write()
        if not self._is_up or self.transport is None:
            return
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self.transport.write(data)
        if self._is_closing:
            # a registered producer would be waited for
            self.transport.unregisterProducer()  # type: ignore[attr-defined]
            self.transport.loseConnection()

    # paho's side

    def _give_to_paho(self, packets: list[bytes]) -> None:
        for packet in packets:
            self._socket.received += packet
            while self._socket.received and self._paho.loop_read() == paho.MQTT_ERR_SUCCESS:
                pass
            self._socket.received = b""

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if self.accepted.done():
            return
        if reason.is_failure:
            self._reason = f"the broker refused the connection: {reason}"
            return
        self.accepted.set_result(Limits.of(properties))

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self._reason = self._reason or f"the broker disconnected: {reason}"
        elif reason.is_failure:
            self._reason = self._reason or f"the connection failed: {reason}"
        self.close()

    def _on_log(self, client: Any, userdata: Any, level: int, text: str) -> None:
        if level in (LogLevel.MQTT_LOG_ERR, LogLevel.MQTT_LOG_WARNING):
            self.log.warn("paho: {text}", text=text)

    def _on_misc_failure(self, failure: Failure) -> None:
        self.log.failure("paho's clock failed", failure)
        self.abort("paho's clock failed")
