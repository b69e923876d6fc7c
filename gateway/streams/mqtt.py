"""Messages to another MQTT broker, each on its topic, with QoS 1."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from msgspec import Meta
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint

from gateway.aio import from_deferred
from gateway.errors import BrokerUnavailable, ItemError, RemoteRefused, RemoteUnavailable
from gateway.mqtt.certificates import tls_options
from gateway.mqtt.client import CONNECT_TIMEOUT, PORTS, OneConnection
from gateway.mqtt.connection import KEEPALIVE, Credentials, Limits
from gateway.mqtt.flight import (
    FAILURE,
    FORMAT_INVALID,
    NOT_AUTHORIZED,
    TOO_LARGE,
    TOPIC_INVALID,
    Flight,
    TalkingConnection,
)
from gateway.mqtt.packets import PUBLISH_QOS_1, RETAIN
from gateway.mqtt.topics import is_safe_level
from gateway.stream.addresses import check_broker
from gateway.stream.order import Refusals, as_rejections, mark_delivered, progress
from gateway.stream.publications import Placed, Publications
from gateway.stream.target import Options, Outgoing, Rejection, StreamInfo, Target, Timeout
from gateway.stream.template import SHOWN, check_template
from gateway.stream.tls import CaFile, CertFile, KeyFile, check_files

OPEN_TIME = 25.0
GOODBYE_TIME = 1.5
"""Seconds that an orderly end may take; TLS waits for the broker's part of it."""
PERMANENT = (TOPIC_INVALID, TOO_LARGE, FORMAT_INVALID)
"""What a broker would say to the message again, whenever it came."""


class Mqtt(Target):
    """Messages to an MQTT broker (3.1.1 or 5), one PUBLISH with QoS 1 for each: its JSON, on a topic of its own.

    A message is delivered when the broker has acknowledged it (PUBACK). What it refuses because of who sends it, or
    because it has no room, is sent again; what it refuses because of the message itself is rejected.
    """

    class Config(Options):
        """Which broker, and which topics."""

        uri: Annotated[
            str, Meta(min_length=8, max_length=1024, description="mqtt://host:port, or mqtts://host:port for TLS")
        ]
        topic: Annotated[
            str,
            Meta(min_length=1, max_length=1024, description=f"topic of a message; {SHOWN} in it are replaced"),
        ] = "message/gw/streams/%stream.id%/%ident%"
        version: Annotated[Literal[5, 4], Meta(description="of MQTT: 5, or 4 for 3.1.1")] = 5
        username: Annotated[str, Meta(max_length=4096, description="empty: none")] = ""
        password: Annotated[str, Meta(max_length=4096, description="empty: none")] = ""
        client_id: Annotated[
            str, Meta(max_length=256, description="empty: one of this stream's own, new each time it begins")
        ] = ""
        retain: Annotated[bool, Meta(description="whether the broker keeps the last message of each topic")] = False
        message_expiry: Annotated[
            int,
            Meta(ge=0, le=2**32 - 1, description="seconds for which the broker keeps a message; 0: for ever; MQTT 5"),
        ] = 0
        keepalive: Annotated[
            int,
            Meta(ge=5, le=3600, description="seconds of silence after which the broker is asked for a sign of life"),
        ] = KEEPALIVE
        window: Annotated[
            int,
            Meta(
                ge=1,
                le=10_000,
                description="messages that may be unacknowledged, if the broker does not want fewer; "
                "1: each is sent when the one before it is acknowledged",
            ),
        ] = 1000
        maximum_packet_size: Annotated[
            int,
            Meta(
                ge=0,
                le=268_435_455,
                description="bytes; larger messages are rejected; 0: what the broker says, as it does in MQTT 5",
            ),
        ] = 0
        refused: Annotated[
            Literal["retry", "skip"],
            Meta(description="a message that is answered with 'not authorized': repeat it, or reject it; MQTT 5"),
        ] = "retry"
        timeout: Annotated[Timeout, Meta(description="seconds that the broker may take for a batch")] = 30.0
        ca_file: CaFile = ""
        cert_file: CertFile = ""
        key_file: KeyFile = ""

    id = 2
    title = "MQTT"

    @classmethod
    def check(cls, config: Any) -> None:
        """The address, the topic, and what belongs together."""
        _check_address(config.uri)
        check_template(config.topic, "configuration.topic")
        # a whole level that is replaced is as good as any other text
        if not all(is_safe_level(level) for level in config.topic.split("/")):
            raise ItemError("should be levels of a topic, printable, without '#' and '+'", "configuration.topic")
        if config.client_id and not config.client_id.isprintable():
            raise ItemError("should be printable", "configuration.client_id")
        if config.password and not config.username and config.version == 4:
            raise ItemError("needs a username in MQTT 3.1.1", "configuration.password")
        if config.message_expiry and config.version == 4:
            raise ItemError("is of MQTT 5", "configuration.message_expiry")
        check_files(
            config.uri.startswith("mqtts"), "mqtts",
            ca_file=config.ca_file, cert_file=config.cert_file, key_file=config.key_file,
        )  # fmt: skip

    def __init__(self, config: Any, stream: StreamInfo) -> None:
        super().__init__(config, stream)
        self._publications = Publications(config, stream)
        self._client_id = config.client_id or f"avl-gateway-{stream.id}-{secrets.token_hex(4)}"
        self._first_byte = PUBLISH_QOS_1 | RETAIN if config.retain else PUBLISH_QOS_1
        self._goes_on = {*PERMANENT, NOT_AUTHORIZED} if config.refused == "skip" else {*PERMANENT}
        self._refusals = Refusals()
        self._connection: TalkingConnection | None = None
        self._limits = Limits()

    # -- the connection

    async def open(self) -> None:
        await self.close()
        endpoint = await self._endpoint()
        self._connection = connection = TalkingConnection(self._credentials())
        try:
            async with asyncio.timeout(min(OPEN_TIME, self.config.timeout)):
                await _connect(endpoint, connection)
                self._limits = await asyncio.shield(connection.accepted)
        except BrokerUnavailable as error:
            is_version = self.config.version == 5 and "protocol version" in str(error).lower()
            raise RemoteUnavailable(f"{error}{': version should be 4' if is_version else ''}") from None
        except TimeoutError:
            raise RemoteUnavailable("the broker sends no CONNACK") from None
        if not self._limits.takes_qos_1:
            raise RemoteRefused("the broker takes no messages with QoS 1")
        if self.config.retain and not self._limits.takes_retained:
            raise RemoteRefused("the broker takes no retained messages: retain should be false")

    async def _endpoint(self) -> IStreamClientEndpoint:
        from twisted.internet import reactor

        parts = urlsplit(self.config.uri)
        host = parts.hostname or ""
        plain = HostnameEndpoint(reactor, host, parts.port or PORTS[parts.scheme], timeout=CONNECT_TIMEOUT)
        if parts.scheme != "mqtts":
            return plain
        config = self.config
        options = await asyncio.to_thread(tls_options, host, config.ca_file, config.cert_file, config.key_file)
        return wrapClientTLS(options, plain)

    def _credentials(self) -> Credentials:
        return Credentials(
            client_id=self._client_id,
            version=self.config.version,
            username=self.config.username or None,
            password=self.config.password or None,
            keepalive=self.config.keepalive,
        )

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None or connection.transport is None:
            return
        connection.disconnect()
        try:
            await asyncio.wait([connection.ended], timeout=GOODBYE_TIME)
        finally:
            if not connection.ended.done():
                connection.abort("the stream ends")
        await asyncio.wait([connection.ended], timeout=GOODBYE_TIME)

    # -- a batch

    async def deliver(self, batch: Sequence[Outgoing]) -> Sequence[Rejection]:
        with self._refusals.of(batch) as rejections:
            try:
                async with asyncio.timeout(self.config.timeout):
                    left = await self._publications.ready(batch, rejections, self._limits.maximum_packet_size)
                    while left:
                        left = await self._fly(batch, left, rejections)
            except TimeoutError:
                done = f"{progress(batch)} within {self.config.timeout:g} s"
                raise RemoteUnavailable(f"the broker acknowledged {done}") from None
        return as_rejections(rejections)

    async def _fly(self, batch: Sequence[Outgoing], left: list[Placed], rejections: dict[int, str]) -> list[Placed]:
        """Over one connection; gives what is still to be sent over the next one."""
        connection = await self._alive()
        window = min(self.config.window, self._limits.receive_maximum)
        flight = Flight(
            connection, [one for _, one in left], first_byte=self._first_byte, window=window, goes_on=self._goes_on
        )
        # Mosquitto 2.0.11 ends the connection after a refusal, at times before it has said why; then it does over the
        # next one. So a broken connection is no failure while there is progress
        is_expected = bool(connection.words)
        is_broken = False
        try:
            await flight.run()
        except BrokerUnavailable:
            is_broken = True
        finally:
            self._note(batch, left, flight, rejections)
        if flight.refused:
            raise self._refusal(flight, is_broken)
        if is_broken and not is_expected and not flight.answers:
            raise RemoteUnavailable(_why(connection))
        return [(index, one) for index, one in left if not batch[index].is_done and index not in rejections]

    def _note(self, batch: Sequence[Outgoing], left: list[Placed], flight: Flight, rejections: dict[int, str]) -> None:
        """What was answered."""
        for place, code in flight.answers.items():
            if code >= FAILURE and code in self._goes_on:
                rejections[left[place][0]] = f"the broker refuses it: {flight.reason(place)}"
        mark_delivered(batch, {left[place][0] for place, code in flight.answers.items() if code < FAILURE}, rejections)

    @staticmethod
    def _refusal(flight: Flight, is_broken: bool) -> RemoteUnavailable | RemoteRefused:
        place = flight.refused[0]
        reason = f"the broker refuses a message on {flight.topic(place)!r}: {flight.reason(place)}"
        return RemoteUnavailable(reason) if is_broken else RemoteRefused(reason, status=flight.answers[place])

    async def _alive(self) -> TalkingConnection:
        """The connection, a new one if the broker has ended it."""
        if self._connection is None or not self._connection.is_alive:
            await self.open()
        assert self._connection is not None
        return self._connection


def _check_address(uri: str) -> None:
    parts = check_broker(uri, "configuration.uri", tuple(PORTS))
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ItemError("should be like mqtts://host:port", "configuration.uri")


async def _connect(endpoint: IStreamClientEndpoint, connection: TalkingConnection) -> None:
    try:
        await from_deferred(endpoint.connect(OneConnection(connection)))
    except Exception as error:  # DNS, TCP and TLS each have errors of their own
        raise RemoteUnavailable(str(error).rstrip(".") or type(error).__name__) from None


def _why(connection: TalkingConnection) -> str:
    """Why it is gone."""
    reason = f": {connection.ended.result()}" if connection.ended.done() else ""
    return f"the connection is gone{reason}"
