"""Messages to RabbitMQ, or another broker for AMQP 0-9-1 that confirms."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from aiormq import spec
from aiormq.abc import AbstractChannel, FieldTable
from msgspec import Meta
from yarl import URL

from gateway.errors import ItemError, RemoteError, RemoteRefused, RemoteUnavailable
from gateway.stream.addresses import check_broker
from gateway.stream.order import Refusals, as_rejections, mark_delivered, progress
from gateway.stream.rabbit import (
    NO_ROUTE,
    PRECONDITION_FAILED,
    Confirmation,
    Publication,
    RabbitLink,
    answers_of,
    border,
)
from gateway.stream.target import Options, Outgoing, Rejection, StreamInfo, Target, Timeout
from gateway.stream.template import SHOWN, Template, check_template
from gateway.stream.tls import CaFile, CertFile, KeyFile, check_files, tls_context

SHORT_TEXT = 255
"""Bytes of a routing key, and of a name, at most (AMQP 0-9-1, 4.2.5.3)."""
OPEN_TIME = 25.0
PERSISTENT, TRANSIENT = 2, 1


class Amqp(Target):
    """Messages to an exchange of RabbitMQ (AMQP 0-9-1), one for each: its JSON, with a routing key.

    A message is delivered when RabbitMQ has confirmed it: with durable queues it is on disk then. What no queue takes,
    or a full one refuses, is sent again, and nothing behind it before that; a message that is too large is rejected.
    """

    class Config(Options):
        """Which exchange, and what is published."""

        uri: Annotated[
            str,
            Meta(min_length=8, max_length=1024, description="amqp://host:port/vhost, or amqps:// for TLS"),
        ]
        username: Annotated[
            str, Meta(max_length=1024, description="RabbitMQ lets guest in from its own machine only")
        ] = "guest"
        password: Annotated[str, Meta(max_length=4096, description="of the user")] = "guest"
        exchange: Annotated[
            str,
            Meta(max_length=SHORT_TEXT, description="empty: the default one, whose routing keys are names of queues"),
        ] = ""
        routing_key: Annotated[
            str,
            Meta(max_length=1024, description=f"of a message; {SHOWN} in it are replaced"),
        ] = "message.gw.streams.%stream.id%.%ident%"
        exchange_type: Annotated[
            Literal["", "topic", "direct", "fanout", "headers", "x-consistent-hash"],
            Meta(description="the exchange is declared so, durable; empty: it is there already"),
        ] = ""
        queue: Annotated[
            str, Meta(max_length=SHORT_TEXT, description="a durable queue that is declared and bound; empty: none")
        ] = ""
        queue_type: Annotated[Literal["classic", "quorum"], Meta(description="of the queue that is declared")] = (
            "classic"
        )
        binding_key: Annotated[
            str, Meta(max_length=SHORT_TEXT, description="with which the queue is bound to the exchange")
        ] = "#"
        mandatory: Annotated[
            bool, Meta(description="false: RabbitMQ confirms and drops what no queue is bound for")
        ] = True
        refused: Annotated[
            Literal["retry", "skip"], Meta(description="a message that no queue is bound for: repeat it, or reject it")
        ] = "retry"
        persistent: Annotated[bool, Meta(description="false: messages do not outlive a restart of RabbitMQ")] = True
        message_expiry: Annotated[
            int, Meta(ge=0, le=31_536_000, description="seconds for which queues keep a message; 0: for ever")
        ] = 0
        window: Annotated[
            int,
            Meta(
                ge=1,
                le=10_000,
                description="messages that are sent before their confirmations are waited for; 1: each is sent when "
                "the one before it is confirmed",
            ),
        ] = 500
        heartbeat: Annotated[
            int, Meta(ge=5, le=600, description="seconds; a connection that is silent for three of them is given up")
        ] = 30
        timeout: Annotated[Timeout, Meta(description="seconds that RabbitMQ may take for a batch")] = 30.0
        ca_file: CaFile = ""
        cert_file: CertFile = ""
        key_file: KeyFile = ""

    id = 4
    title = "AMQP (RabbitMQ)"

    @classmethod
    def check(cls, config: Any) -> None:
        """The address, the routing key, and what belongs together."""
        parts = check_broker(config.uri, "configuration.uri", ("amqp", "amqps"))
        if parts.query or parts.fragment:
            raise ItemError("should be like amqps://host:port/vhost", "configuration.uri")
        check_template(config.routing_key, "configuration.routing_key")
        for option in ("exchange", "queue", "binding_key", "routing_key"):
            if not getattr(config, option).isprintable():
                raise ItemError("should be printable", f"configuration.{option}")
        if config.exchange_type and not config.exchange:
            raise ItemError("needs an exchange with a name: the default one is there", "configuration.exchange_type")
        check_files(
            config.uri.startswith("amqps"), "amqps",
            ca_file=config.ca_file, cert_file=config.cert_file, key_file=config.key_file,
        )  # fmt: skip

    def __init__(self, config: Any, stream: StreamInfo) -> None:
        super().__init__(config, stream)
        self._template = Template(config.routing_key, stream, no_id="0", no_name="-")
        self._expiration = str(config.message_expiry * 1000) if config.message_expiry else None
        self._delivery_mode = PERSISTENT if config.persistent else TRANSIENT
        self._refusals = Refusals()
        self._link: RabbitLink | None = None

    # -- the connection

    async def open(self) -> None:
        await self.close()
        config = self.config
        is_tls = config.uri.startswith("amqps")
        context = await tls_context(config.ca_file, config.cert_file, config.key_file) if is_tls else None
        self._link = link = RabbitLink(self._url(), context)
        try:
            async with asyncio.timeout(min(OPEN_TIME, config.timeout)):
                await self._declare(await link.open())
        except TimeoutError:
            raise RemoteUnavailable("RabbitMQ does not answer") from None

    def _url(self) -> URL:
        name = f"avl-gateway: stream {self.stream.id}, {self.stream.name}"
        url = URL(self.config.uri).with_user(self.config.username).with_password(self.config.password)
        return url.with_query(heartbeat=str(self.config.heartbeat), name=name)

    async def _declare(self, channel: AbstractChannel) -> None:
        config = self.config
        with border():
            if config.exchange_type:
                await channel.exchange_declare(config.exchange, exchange_type=config.exchange_type, durable=True)
            if not config.queue:
                return
            arguments: FieldTable = {"x-queue-type": "quorum"} if config.queue_type == "quorum" else {}
            await channel.queue_declare(config.queue, durable=True, arguments=arguments)
            if config.exchange:
                await channel.queue_bind(config.queue, config.exchange, config.binding_key)

    async def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    # -- a batch

    async def deliver(self, batch: Sequence[Outgoing]) -> Sequence[Rejection]:
        if self._link is None:
            raise RemoteUnavailable("the connection to RabbitMQ is gone")
        with self._refusals.of(batch) as rejections:
            try:
                async with asyncio.timeout(self.config.timeout):
                    for begin in range(0, len(batch), self.config.window):
                        part = range(begin, min(begin + self.config.window, len(batch)))
                        await self._publish(self._link, batch, part, rejections)
            except TimeoutError:
                done = f"{progress(batch)} within {self.config.timeout:g} s"
                raise RemoteUnavailable(f"RabbitMQ confirmed {done}") from None
        return as_rejections(rejections)

    async def _publish(
        self, link: RabbitLink, batch: Sequence[Outgoing], part: range, rejections: dict[int, str]
    ) -> None:
        """A part of the batch. The first error ends it; what was confirmed is done with."""
        ready = self._made_ready(batch, part, rejections)
        if not ready:
            return
        sent: list[Confirmation] = []
        answers: dict[int, RemoteError | None] = {}
        try:
            await link.publish([one for _, one in ready], sent, is_mandatory=self.config.mandatory)
            await answers_of(sent, answers)
        finally:
            for place, error in answers.items():
                if error is not None and self._is_final(error, len(batch)):
                    rejections[ready[place][0]] = str(error)
            confirmed = {ready[place][0] for place, error in answers.items() if error is None}
            mark_delivered(batch[: part.stop], confirmed, rejections)
        for place, error in answers.items():
            if error is not None and ready[place][0] not in rejections:
                raise _for_sender(error)

    def _is_final(self, error: Exception, count: int) -> bool:
        """Whether it will be the same for ever. A channel is closed for all that was sent over it, so one is alone."""
        if not isinstance(error, RemoteRefused):
            return False
        is_skipped = error.status == NO_ROUTE and self.config.refused == "skip"
        return is_skipped or (error.status == PRECONDITION_FAILED and count == 1)

    def _made_ready(
        self, batch: Sequence[Outgoing], part: range, rejections: dict[int, str]
    ) -> list[tuple[int, Publication]]:
        """What can be published; the reasons why others cannot go to ``rejections``."""
        ready = []
        for index in part:
            if index in rejections:
                continue
            outgoing = batch[index]
            key = self._template.of(outgoing)
            if len(key.encode("utf-8", "replace")) > SHORT_TEXT:
                rejections[index] = f"the routing key {key[:80]!r}... has more than {SHORT_TEXT} bytes"
                continue
            ready.append((index, Publication(self.config.exchange, key, outgoing.text, self._properties(outgoing))))
        return ready

    def _properties(self, outgoing: Outgoing) -> spec.Basic.Properties:
        ids = {"device.id": outgoing.device_id, "channel.id": outgoing.channel_id}
        return spec.Basic.Properties(
            content_type="application/json",
            delivery_mode=self._delivery_mode,
            expiration=self._expiration,
            timestamp=datetime.fromtimestamp(int(outgoing.received), UTC),
            app_id="avl-gateway",
            headers={"ident": outgoing.ident, **{name: id for name, id in ids.items() if id}},
        )


def _for_sender(error: Exception) -> Exception:
    """RabbitMQ closes the channel without saying for which message: half of the batch may be without it."""
    if isinstance(error, RemoteRefused) and error.status == PRECONDITION_FAILED:
        return RemoteRefused(error.reason, status=error.status, is_too_large=True)
    return error
