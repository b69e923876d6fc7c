"""The client: connects to the broker, and again, for as long as the gateway runs.

The name is resolved, the connection made and TLS begun by a Twisted endpoint, so nothing here blocks the reactor. After
each CONNACK the birth message goes out on the status topic (retained); the will on the same topic tells the end of it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
from attrs import evolve, field, frozen
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger

import gateway
from gateway import metrics
from gateway.aio import from_deferred, heed_cancellation
from gateway.errors import BrokerUnavailable, ConfigError
from gateway.mqtt.certificates import tls_options
from gateway.mqtt.connection import Connection, Credentials
from gateway.mqtt.link import WINDOW, Link
from gateway.mqtt.packets import MAX_REMAINING_LENGTH, packed_text
from gateway.mqtt.topics import Topics, is_safe_level

BACKOFF_FIRST, BACKOFF_MOST = 1.0, 60.0
"""Seconds between attempts: doubled each time, half of it random, so that a broker's clients do not return as one."""
STABLE = 30.0
"""Seconds that a connection must have stood for the next wait to be the first one again."""
CONNECT_TIMEOUT = 15.0
CONNACK_TIMEOUT = 15.0
"""From the connection to the CONNACK; TLS' handshake is in it."""
GOODBYE_TIMEOUT = 3.0
LOG_EVERY = 60

PORTS = {"mqtt": 1883, "mqtts": 8883}


@frozen
class BrokerAddress:
    """Where the broker is, and who we are for it."""

    host: str
    port: int
    is_tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str = ""
    """Certificates (PEM) to trust in place of the system's."""
    maximum_packet_size: int = MAX_REMAINING_LENGTH
    """What it takes, where that is known without asking; MQTT 3.1.1 has no way to ask."""

    @classmethod
    def from_url(cls, url: str, ca_file: str = "") -> BrokerAddress:
        """``mqtt://user:password@host:port`` or ``mqtts://``; user and password percent-encoded. Raises ConfigError."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"mqtt.url: {error}; it should be like mqtt://user:password@host:1883") from None
        if parts.scheme not in PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
            raise ConfigError('mqtt.url should be "embedded", or like mqtt://user:password@host:1883 or mqtts://host')
        return cls(
            host=parts.hostname,
            port=port or PORTS[parts.scheme],
            is_tls=parts.scheme == "mqtts",
            username=None if parts.username is None else unquote(parts.username),
            password=None if parts.password is None else unquote(parts.password),
            ca_file=ca_file,
        )

    def __str__(self) -> str:
        """For the log: without user and password, for a user name may be a token."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.is_tls else 'mqtt'}://{host}:{self.port}"

    def endpoint(self, reactor: Any) -> IStreamClientEndpoint:
        """What connects to it. Raises ConfigError where ``ca_file`` cannot be used."""
        plain = HostnameEndpoint(reactor, self.host, self.port, timeout=CONNECT_TIMEOUT)
        if not self.is_tls:
            return plain
        return wrapClientTLS(tls_options(self.host, self.ca_file, prefix="mqtt."), plain)


class OneConnection(Factory):
    """Of Twisted, for a connection that is made already."""

    noisy = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: object) -> Connection:
        return self._connection


class MqttClient:
    """Keeps one connection; :meth:`serve` runs work over it, and again over the next one."""

    log = Logger()

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        topics: Topics,
        *,
        reactor: Any,
        version: int = 5,
        window: int = WINDOW,
        backoff_first: float = BACKOFF_FIRST,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        if version not in (4, 5):
            raise ConfigError(f"mqtt.version: {version} should be 5, or 4 for MQTT 3.1.1")
        if not is_safe_level(client_id):
            raise ConfigError(f"mqtt.client_id: {client_id!r} should be printable, without '#', '+' and '/'")
        self.address = address
        self.client_id = client_id
        self.version = version
        self.status_topic = topics.status(client_id)
        self.link: Link | None = None
        self.last_error = ""
        self._window = window
        self._endpoint = address.endpoint(reactor)
        self._backoff_first = backoff_first
        self._jitter = jitter
        self._attempts = 0
        self._connection: Connection | None = None
        self._stop_asked = asyncio.Event()
        self._waiters: list[asyncio.Future[Link]] = []

    @property
    def is_connected(self) -> bool:
        """Whether there is an accepted connection now."""
        return self.link is not None and self.link.is_alive

    async def run(self) -> None:
        """Connect, and connect again, until :meth:`stop` or cancelled."""
        with metrics.showing(
            mqtt_connected=lambda: self.is_connected, mqtt_in_flight=lambda: self.link.in_flight if self.link else 0
        ):
            await self._keep_connected()

    async def _keep_connected(self) -> None:
        wait = self._backoff_first
        try:
            while not self._stop_asked.is_set():
                started = time.monotonic()
                reason = await self._connect_once()
                if self._stop_asked.is_set():
                    break
                wait = self._backoff_first if time.monotonic() - started > STABLE else wait
                delay = wait * (0.5 + 0.5 * self._jitter())
                self._tell_failure(reason, delay)
                with suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._stop_asked.wait()
                wait = min(wait * 2, BACKOFF_MOST)
        finally:
            if self._connection is not None:
                self._connection.abort("the gateway stops")

    def _tell_failure(self, reason: str, delay: float) -> None:
        metrics.count("mqtt_connection_failures")
        self._attempts = 1 if reason != self.last_error else self._attempts + 1
        self.last_error = reason
        if self._attempts == 1 or self._attempts % LOG_EVERY == 0:
            self.log.warn(
                "{url}: {reason}; next try in {delay:.1f} s", url=str(self.address), reason=reason, delay=delay
            )

    async def _connect_once(self) -> str:
        """From the attempt to the end of the connection; why it ended."""
        connection = Connection(self._credentials())
        try:
            await from_deferred(self._endpoint.connect(OneConnection(connection)))
        except Exception as error:  # DNS, TCP and TLS each have errors of their own
            return f"cannot connect: {error or type(error).__name__}"
        self._connection = connection
        try:
            await self._use(connection)
        except BrokerUnavailable as error:
            connection.close()
            await connection.ended
            return str(error)
        finally:
            self.link = None
        return await connection.ended

    async def _use(self, connection: Connection) -> None:
        try:
            async with asyncio.timeout(CONNACK_TIMEOUT):
                limits = await asyncio.shield(connection.accepted)
        except TimeoutError:
            connection.abort("no CONNACK")
            raise BrokerUnavailable(f"the broker sent no CONNACK within {CONNACK_TIMEOUT:.0f} seconds") from None
        limits = evolve(limits, maximum_packet_size=min(limits.maximum_packet_size, self.address.maximum_packet_size))
        if not limits.takes_qos_1:
            raise BrokerUnavailable("the broker takes no messages with QoS 1")
        link = Link(connection, limits, self._window)
        self._publish_status(link, True, lambda: None)
        self._tell_connected(link)
        self.link = link
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(link)
        while not connection.ended.done():
            await asyncio.wait([connection.ended], timeout=1.0)
            link.check_progress()

    def _tell_connected(self, link: Link) -> None:
        metrics.count("mqtt_connections")
        self.last_error = ""
        self.log.info(
            "connected to {url} as {client_id}, MQTT {version}, at most {window} messages in flight",
            url=str(self.address),
            client_id=self.client_id,
            version="5" if self.version == 5 else "3.1.1",
            window=link.window,
        )

    async def next_link(self, after: Link | None = None) -> Link:
        """The link, or the next one as soon as there is one; ``after``: not this one."""
        if self.link is not None and self.link.is_alive and self.link is not after:
            return self.link
        waiter: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return await waiter

    async def serve(self, work: Callable[[Link], Coroutine[Any, Any, None]]) -> None:
        """Run ``work`` over each link in turn, until it returns without BrokerUnavailable."""
        link: Link | None = None
        while True:
            heed_cancellation()
            link = await self.next_link(after=link)
            try:
                await work(link)
            except BrokerUnavailable:
                continue
            return

    def publish_unconfirmed(self, topic: str, payload: bytes, timestamp: bytes) -> bool:
        """QoS 0, for what may be missed: sent if that is possible at once; whether it was. ``timestamp`` in seconds."""
        link = self.link
        is_sent = link is not None and link.publish_unconfirmed(packed_text(topic), payload, link.stamp(timestamp))
        if not is_sent:
            metrics.count("mqtt_unconfirmed_dropped")
        return is_sent

    async def stop(self) -> None:
        """Say on the status topic that this was on purpose, and disconnect; takes a few seconds at most."""
        self._stop_asked.set()
        link, connection = self.link, self._connection
        if connection is None or not connection.is_alive:
            return
        if link is not None:
            told = asyncio.Event()
            self._publish_status(link, False, told.set)
            with suppress(TimeoutError, BrokerUnavailable):
                async with asyncio.timeout(GOODBYE_TIMEOUT):
                    await link.wait_for(told)
        connection.disconnect()
        await asyncio.wait([connection.ended], timeout=GOODBYE_TIMEOUT)

    def _publish_status(self, link: Link, is_connected: bool, on_ack: Callable[[], None]) -> None:
        now = time.time()
        payload = self._status(is_connected, timestamp=round(now, 6))
        link.publish(packed_text(self.status_topic), payload, on_ack, link.stamp(b"%.6f" % now), retain=True)

    def _status(self, is_connected: bool, **more: float) -> bytes:
        return orjson.dumps({"connected": is_connected, "version": gateway.__version__, **more})

    def _credentials(self) -> Credentials:
        return Credentials(
            client_id=self.client_id,
            version=self.version,
            username=self.address.username,
            password=self.address.password,
            will_topic=self.status_topic,
            will_payload=self._status(False),
        )
