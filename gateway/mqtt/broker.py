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
import secrets
import time
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol

import websockets.asyncio.server
from amqtt.mqtt.connack import NOT_AUTHORIZED, SERVER_UNAVAILABLE, UNACCEPTABLE_PROTOCOL_VERSION, ConnackPacket
from amqtt.mqtt.connect import ConnectPacket
from twisted.logger import Logger

from gateway import metrics
from gateway.errors import ListenError, PeerError
from gateway.mqtt.bounded_broker import BoundedBroker
from gateway.mqtt.foreign_log import forward_logging
from gateway.mqtt.listen import ListenAddress
from gateway.mqtt.rights import Admission
from gateway.mqtt.session_rules import SessionRules, admission_of
from gateway.mqtt.topics import Topics
from gateway.mqtt.visitors import (
    PACKET_BYTES,
    WAITING_BYTES,
    TcpTransport,
    Transport,
    Visitor,
    WebSocketTransport,
    WrongVersion,
)
from gateway.store.failures import Failures

MAX_VISITORS = 1000
MAX_CONNECTIONS = 10 * MAX_VISITORS
"""With those that have not shown a token yet; these have ten seconds."""
CONNECT_TIMEOUT = 10.0
"""Seconds that a connection may take to say who it is."""
CHECK_INTERVAL = 5.0
"""Seconds between two looks at every client: is it silent, is its token still good."""
MAX_SESSIONS = 2 * MAX_VISITORS
"""With persistent ones whose client is away."""
SESSION_EXPIRY = 86400
LOG_EVERY = 1000

LISTENER = "default"


class Door(Protocol):
    """Who may come in."""

    def admit(self, key: str, address: str) -> Admission | None:
        """The holder of a token's key, and what they may do; None: no such token, or not from this address."""

    def renew(self, admission: Admission, *, is_connected: bool) -> bool:
        """Whether it still holds; what has changed is written into it."""


class EmbeddedBroker:
    """Starts in a coroutine, for amqtt wants a running loop. An empty listen string: no such listener."""

    log = Logger()

    def __init__(
        self,
        listen_tcp: str,
        listen_ws: str,
        door: Door,
        topics: Topics,
        *,
        failures: Failures | None = None,
        gateway_secret: str = "",
    ) -> None:
        self._tcp = ListenAddress.parse(listen_tcp, "mqtt.listen") if listen_tcp else None
        self._ws = ListenAddress.parse(listen_ws, "mqtt.listen_ws") if listen_ws else None
        self._door = door
        self._failures = failures if failures is not None else Failures()
        self.gateway_secret = gateway_secret or secrets.token_urlsafe(32)
        """The password that tells the gateway's own client, which has a token as every client, from the others."""
        self._broker: BoundedBroker | None = None
        self._servers: list[asyncio.Server | websockets.asyncio.server.Server] = []
        self._visitors: dict[str, Visitor] = {}
        self._rules = SessionRules(self._visitors, topics)
        self._inside: set[Visitor] = set()
        self._checking: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._changed: set[int] = set()

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
                "plugins": {"gateway.mqtt.session_rules.Entrance": {"rules": self._rules}},
            },
            self._rules,
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
        await asyncio.sleep(0)  # in which a transport that was closed just now ends

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
        refusal = self._refusal(visitor, packet)
        if refusal is not None:
            return await self._turn_away(visitor, *refusal)
        previous = self._visitors.get(visitor.client_id)
        if previous is not None:
            await previous.cut()
        self._visitors[visitor.client_id] = visitor
        visitor.reader.put_back(packet.to_bytes())  # with the client id that amqtt made up, where there was none
        return True

    def _refusal(self, visitor: Visitor, packet: ConnectPacket) -> tuple[int, str] | None:
        """Return code and reason; None: the visitor is welcome."""
        address, now = str(visitor.transport.peer[0]), time.time()
        password = (packet.payload.password or "") if packet.payload is not None else ""
        visitor.is_gateway = hmac.compare_digest(password.encode(), self.gateway_secret.encode())
        if self._failures.is_blocked(address, now) and not visitor.is_gateway:
            return SERVER_UNAVAILABLE, "too many wrong tokens"
        keys = _keys(packet)
        if not self._admit_holder(visitor, keys, address):
            if keys:
                self._failures.failed(address, now, "\0".join(keys))
            return NOT_AUTHORIZED, "no valid token"
        if self._is_taken(visitor):
            return NOT_AUTHORIZED, "client id of another"
        return self._lack_of_room(visitor, packet)

    def _admit_holder(self, visitor: Visitor, keys: list[str], address: str) -> bool:
        visitor.admission = next(filter(None, (self._door.admit(key, address) for key in keys)), None)
        return visitor.admission is not None

    def _is_taken(self, visitor: Visitor) -> bool:
        """Nobody takes the gateway's client id, nor that of another token's client or session: what is kept for it is
        not theirs. The master token may."""
        previous = self._visitors.get(visitor.client_id)
        if previous is not None and previous.is_gateway:
            return not visitor.is_gateway
        owner = previous.admission if previous is not None else self._owner_of_session(visitor.client_id)
        mine = visitor.admission
        return owner is not None and mine is not None and owner.token.id != mine.token.id and not mine.is_master

    def _owner_of_session(self, client_id: str) -> Admission | None:
        """Of a persistent one."""
        session = self._broker.sessions[client_id][0] if self._broker and client_id in self._broker.sessions else None
        return None if session is None or session.clean_session else admission_of(session)

    def _lack_of_room(self, visitor: Visitor, packet: ConnectPacket) -> tuple[int, str] | None:
        if visitor.is_gateway or self._broker is None:
            return None
        is_new = visitor.client_id not in self._broker.sessions and not packet.clean_session_flag
        if len(self._visitors) >= MAX_VISITORS or (is_new and len(self._broker.sessions) >= MAX_SESSIONS):
            return SERVER_UNAVAILABLE, "too many"
        return None

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

    # what a token may do can change, and a token can end

    def check(self, token_id: int) -> None:
        """Look at the clients of a token soon: it has changed."""
        self._changed.add(token_id)
        self._woken.set()

    async def _check_visitors(self) -> None:
        """All of them now and then, those whose token has changed at once."""
        next_look = monotonic() + CHECK_INTERVAL
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, next_look - monotonic())):
                    await self._woken.wait()
            self._woken.clear()
            changed: set[int] | None = self._changed
            self._changed = set()
            if monotonic() >= next_look:
                changed, next_look = None, monotonic() + CHECK_INTERVAL
            for visitor in list(self._visitors.values()):
                if _is_of(visitor.admission, changed):
                    self._check_visitor(visitor)
            await self._check_sessions(changed)

    def _check_visitor(self, visitor: Visitor) -> None:
        """One with other rights than before is cut, too: it comes again and subscribes to what it may have now."""
        admission = visitor.admission
        assert admission is not None, "nobody comes in without"
        rights = admission.rights
        if visitor.is_silent or not self._door.renew(admission, is_connected=True) or admission.rights is not rights:
            visitor.transport.abort()

    async def _check_sessions(self, changed: set[int] | None) -> None:
        """What is kept for an absent client goes with its token."""
        assert self._broker is not None
        for client_id, (session, _) in list(self._broker.sessions.items()):
            admission = admission_of(session)
            if client_id in self._visitors or not _is_of(admission, changed):
                continue
            if admission is None or not self._door.renew(admission, is_connected=False):
                await self._broker.end_session(client_id)


def _is_of(admission: Admission | None, token_ids: set[int] | None) -> bool:
    """Whether it is to be looked at; None: all are."""
    return token_ids is None or (admission is not None and admission.token.id in token_ids)


def _keys(packet: ConnectPacket) -> list[str]:
    """What may be a token's key, in flespi's ways: user name or password, ``KEY`` or ``FlespiToken KEY``."""
    texts = (packet.payload.username, packet.payload.password) if packet.payload is not None else ()
    return [key for key in ((text or "").removeprefix("FlespiToken ").strip() for text in texts) if key]


async def _listening(server: Any, key: str, address: ListenAddress) -> Any:
    try:
        return await server
    except OSError as error:
        raise ListenError(f"{key}: cannot listen on {address}: {error.strerror or error}") from error
