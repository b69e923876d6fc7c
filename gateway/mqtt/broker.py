"""The embedded broker: amqtt, with a door of our own before it.

amqtt takes a session into its tables before it asks who it is, and knows no bound on what waits for a slow client. So
the listeners are ours: a client comes in only after its token was accepted, through a transport with bounds
(:mod:`gateway.mqtt.visitors`), and amqtt meets it as the connection of an "external" listener.

It speaks MQTT 3.1.1. Retained messages and sessions are in memory and end with the process. A message that a subscriber
has not acknowledged is not sent again: amqtt forgets it when the connection goes, or after five seconds.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import websockets.asyncio.server
from amqtt.contexts import Action, BaseContext
from amqtt.mqtt.connack import NOT_AUTHORIZED, SERVER_UNAVAILABLE, UNACCEPTABLE_PROTOCOL_VERSION, ConnackPacket
from amqtt.mqtt.connect import ConnectPacket
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from amqtt.session import Session
from attrs import frozen
from twisted.logger import Logger

from gateway import metrics
from gateway.errors import ConfigError, ListenError, PeerError
from gateway.mqtt.bounded_broker import QUEUED_MESSAGES, BoundedBroker
from gateway.mqtt.foreign_log import forward_logging
from gateway.mqtt.topics import Topics
from gateway.mqtt.visitors import (
    PACKET_BYTES,
    WAITING_BYTES,
    MiB,
    TcpTransport,
    Transport,
    Visitor,
    WebSocketTransport,
    WrongVersion,
)

MAX_VISITORS = 1000
MAX_CONNECTIONS = 10 * MAX_VISITORS
"""With those that have not shown a token yet; these have ten seconds."""
CONNECT_TIMEOUT = 10.0
"""Seconds that a connection may take to say who it is."""
CHECK_INTERVAL = 5.0
"""Seconds between two looks at every client: is it silent, is its token still good."""
SESSION_EXPIRY = 86400
BEHIND_MESSAGES, BEHIND_BYTES = 1000, 1 * MiB
"""Unacknowledged, or not yet taken by the network: a subscriber with more is waited for, but not longer than this."""
PATIENCE = 2.0
LOG_EVERY = 1000

LISTENER = "default"

MaySubscribe = Callable[[str], bool]
Authorize = Callable[[str], MaySubscribe | None]
"""A token's key -> whether its holder may subscribe to a topic filter; None: no such token."""


@frozen
class ListenAddress:
    """Where to listen, from a Twisted endpoint string: ``tcp:PORT`` or ``tcp:PORT:interface=ADDRESS``."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, key: str) -> ListenAddress:
        """Raises ConfigError that names ``key``."""
        kind, *rest = [part.replace("\\:", ":") for part in re.split(r"(?<!\\):", text)]
        port, options = rest[0] if rest else "", dict(part.partition("=")[::2] for part in rest[1:])
        host = options.pop("interface", "")
        if kind != "tcp" or not port.isdigit() or int(port) > 65535 or options:
            raise ConfigError(f"{key}: {text!r} should be like tcp:1883 or tcp:1883:interface=127.0.0.1")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"{self.host or '*'}:{self.port}"


class EmbeddedBroker:
    """Starts in a coroutine, for amqtt wants a running loop. An empty listen string: no such listener."""

    log = Logger()

    def __init__(
        self, listen_tcp: str, listen_ws: str, authorize: Authorize, topics: Topics, *, gateway_secret: str = ""
    ) -> None:
        self._tcp = ListenAddress.parse(listen_tcp, "mqtt.listen") if listen_tcp else None
        self._ws = ListenAddress.parse(listen_ws, "mqtt.listen_ws") if listen_ws else None
        self._authorize = authorize
        self._own_topics = topics.prefix + "/"
        self.gateway_secret = gateway_secret or secrets.token_urlsafe(32)
        """The password that tells the gateway's own client, which has a token as every client, from the others."""
        self._broker: BoundedBroker | None = None
        self._servers: list[asyncio.Server | websockets.asyncio.server.Server] = []
        self._visitors: dict[str, Visitor] = {}
        self._inside: set[Visitor] = set()
        self._checking: asyncio.Task[None] | None = None

    @property
    def ports(self) -> list[int]:
        """The ports listened on, TCP first."""
        return [socket.getsockname()[1] for server in self._servers for socket in list(server.sockets)[:1]]

    async def start(self) -> None:
        """Listen. Raises ListenError."""
        forward_logging()
        self._broker = BoundedBroker(
            {
                "listeners": {LISTENER: {"type": "external"}},
                "session_expiry_interval": SESSION_EXPIRY,
                "plugins": {"gateway.mqtt.broker.Access": {"door": self}},
            },
            self.wait_for,
        )
        await self._broker.start()
        try:
            await self._listen()
        except ListenError:
            await self.stop()
            raise
        self._checking = asyncio.ensure_future(self._check_visitors())

    async def _listen(self) -> None:
        if self._tcp is not None:
            server = asyncio.start_server(self._tcp_connected, self._tcp.host or None, self._tcp.port)
            self._servers.append(await _listening(server, "mqtt.listen", self._tcp))
        if self._ws is not None:
            ws_server = websockets.asyncio.server.serve(
                self._ws_connected,
                self._ws.host or None,
                self._ws.port,
                subprotocols=[websockets.Subprotocol("mqtt")],
                compression=None,
                max_size=PACKET_BYTES,
                write_limit=2 * WAITING_BYTES,
            )
            self._servers.append(await _listening(ws_server, "mqtt.listen_ws", self._ws))

    async def stop(self) -> None:
        """Close the listeners and all connections."""
        if self._checking is not None:
            self._checking.cancel()
        for server in self._servers:
            server.close()
        for visitor in list(self._inside):
            await visitor.cut()
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()
        if self._broker is not None:
            await self._broker.shutdown()
            self._broker = None

    # from a connection to a client

    async def _tcp_connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._receive(TcpTransport(reader, writer))

    async def _ws_connected(self, connection: websockets.asyncio.server.ServerConnection) -> None:
        await self._receive(WebSocketTransport(connection))

    async def _receive(self, transport: Transport) -> None:
        if len(self._inside) >= MAX_CONNECTIONS:
            transport.abort()
            return
        visitor = Visitor(transport)
        self._inside.add(visitor)
        try:
            if await self._admit(visitor) and self._broker is not None:
                await self._broker.external_connected(visitor.reader, visitor.writer, LISTENER)
        except Exception:
            self.log.failure("amqtt failed at {peer!r}", peer=transport.peer)
        finally:
            self._inside.discard(visitor)
            visitor.close()
            if self._visitors.get(visitor.client_id) is visitor:
                del self._visitors[visitor.client_id]
            visitor.gone.set()

    async def _admit(self, visitor: Visitor) -> bool:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                packet = await visitor.read_connect()
        except WrongVersion:
            return await self._turn_away(visitor, UNACCEPTABLE_PROTOCOL_VERSION, "not MQTT 3.1.1")
        except (PeerError, TimeoutError):
            metrics.count("mqtt_clients_refused", reason="no CONNECT")
            return False
        if not self._is_known(visitor, packet):
            return await self._turn_away(visitor, NOT_AUTHORIZED, "no valid token")
        if len(self._visitors) >= MAX_VISITORS and not visitor.is_gateway:
            return await self._turn_away(visitor, SERVER_UNAVAILABLE, "too many")
        previous = self._visitors.get(visitor.client_id)
        if previous is not None:
            if previous.is_gateway and not visitor.is_gateway:
                return await self._turn_away(visitor, NOT_AUTHORIZED, "client id of the gateway")
            await previous.cut()
        self._visitors[visitor.client_id] = visitor
        visitor.reader.put_back(packet.to_bytes())  # with the client id that amqtt made up, where there was none
        return True

    def _is_known(self, visitor: Visitor, packet: ConnectPacket) -> bool:
        """Whether user name or password is a token, in flespi's ways: ``KEY`` or ``FlespiToken KEY``."""
        payload = packet.payload
        if payload is None:
            return False
        for text in (payload.username, payload.password):
            key = (text or "").removeprefix("FlespiToken ").strip()
            may_subscribe = self._authorize(key) if key else None
            if may_subscribe is not None:
                visitor.key, visitor.may_subscribe = key, may_subscribe
                password = (payload.password or "").encode()
                visitor.is_gateway = hmac.compare_digest(password, self.gateway_secret.encode())
                return True
        return False

    async def _turn_away(self, visitor: Visitor, code: int, reason: str) -> bool:
        n = metrics.count("mqtt_clients_refused", reason=reason)
        if n == 1 or n % LOG_EVERY == 0:
            self.log.info(
                "refused an MQTT client at {peer!r}: {reason} ({n} so far)",
                peer=visitor.transport.peer,
                reason=reason,
                n=n,
            )
        with suppress(OSError):
            await visitor.transport.send(ConnackPacket.build(0, code).to_bytes())
        return False

    async def _check_visitors(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            for visitor in list(self._visitors.values()):
                may_subscribe = self._authorize(visitor.key)
                if visitor.is_silent or may_subscribe is None:
                    visitor.transport.abort()
                else:
                    visitor.may_subscribe = may_subscribe

    # what a client may do

    def may_publish(self, client_id: str, topic: str) -> bool:
        """The gateway anything; others what is not the gateway's (flespi discards it as silently)."""
        visitor = self._visitors.get(client_id)
        return visitor is not None and (visitor.is_gateway or not topic.startswith(self._own_topics))

    def may_subscribe(self, client_id: str, topic_filter: str) -> bool:
        """What its token allows."""
        visitor = self._visitors.get(client_id)
        return visitor is not None and visitor.may_subscribe(topic_filter)

    async def wait_for(self, session: Session) -> None:
        """Wait for a subscriber that is behind, which holds up the publisher; cut it when that takes too long."""
        visitor = self._visitors.get(session.client_id or "")
        if visitor is None:
            return
        for _ in range(int(PATIENCE / 0.01)):
            if visitor.gone.is_set() or not _is_behind(session, visitor):
                return
            await asyncio.sleep(0.01)
        metrics.count("mqtt_clients_cut")
        self.log.info("cut {peer!r}: it does not take what it subscribed to", peer=visitor.transport.peer)
        await visitor.cut()


def _is_behind(session: Session, visitor: Visitor) -> bool:
    return len(session.inflight_out) >= BEHIND_MESSAGES or visitor.transport.waiting_bytes > BEHIND_BYTES


async def _listening(server: Any, key: str, address: ListenAddress) -> Any:
    try:
        return await server
    except OSError as error:
        raise ListenError(f"{key}: cannot listen on {address}: {error.strerror or error}") from error


class Access(BaseAuthPlugin, BaseTopicPlugin):
    """amqtt asks this plugin; who is connected was decided at the door."""

    @dataclass
    class Config:
        """How amqtt gives a plugin its options."""

        door: Any

    def __init__(self, context: BaseContext) -> None:
        super().__init__(context)
        self._door: EmbeddedBroker = self.config.door

    async def authenticate(self, *, session: Session) -> bool | None:
        session.delivered_message_queue = asyncio.Queue(QUEUED_MESSAGES)
        return True

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool | None:
        if session is None or not topic:
            return False
        if action == Action.PUBLISH:
            return self._door.may_publish(session.client_id or "", topic)
        return self._door.may_subscribe(session.client_id or "", topic)
