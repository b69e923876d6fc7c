"""A connection to RabbitMQ with a channel that confirms what is published. aiormq, below aio-pika, speaks AMQP.

aio-pika's own connections restore themselves, and its exchanges publish one message at a time; a stream does the one
itself and needs the other in batches. All errors of the library end here.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import aiormq
from aiormq import spec
from aiormq.channel import Channel
from aiormq.connection import TransportFactory
from aiormq.exceptions import (
    AMQPError,
    ChannelAccessRefused,
    ChannelClosed,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionClosed,
    DeliveryError,
    InvalidFrameError,
    PublishError,
)
from yarl import URL

from gateway.errors import RemoteError, RemoteRefused, RemoteUnavailable

CLOSE_TIME = 3.0
PRECONDITION_FAILED = 406
"""What RabbitMQ closes the channel with when a message is too large, or its properties cannot be."""
NO_ROUTE = 312
CODES = {
    ChannelAccessRefused: 403,
    ChannelNotFoundEntity: 404,
    ChannelLockedResource: 405,
    ChannelPreconditionFailed: PRECONDITION_FAILED,
}
"""The library has classes for them, and drops the numbers."""

Publishing = asyncio.Future[Any]


class Publication(NamedTuple):
    """A message; ``properties`` are its own."""

    exchange: str
    routing_key: str
    body: bytes
    properties: spec.Basic.Properties


class _Transport(TransportFactory):
    """Keeps the socket, to cut it when its other side answers nothing."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.writer: asyncio.StreamWriter | None = None
        self._context = context

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, self.writer = await asyncio.open_connection(url.host, url.port, ssl=self._context)
        return reader, self.writer


class RabbitLink:
    """``url`` has credentials, virtual host, heartbeat and name; ``context`` is for TLS."""

    def __init__(self, url: URL, context: ssl.SSLContext | None) -> None:
        self._transport = _Transport(context)
        self._connection = aiormq.Connection(url, transport_factory=self._transport)
        self._channel: Channel | None = None

    async def open(self) -> Channel:
        """The channel, for declarations. Raises RemoteUnavailable."""
        with border():
            try:
                await self._connection.connect()
            except InvalidFrameError as error:
                if "Connection.OpenOk" not in str(error):
                    raise
                # the library does not keep the words with which RabbitMQ closed it
                raise RemoteUnavailable(
                    f"RabbitMQ closed the connection to virtual host {self._connection.vhost!r}: "
                    "it is not there, or the user may not use it"
                ) from None
            return await self.channel()

    async def channel(self) -> Channel:
        """The channel, a new one where RabbitMQ has closed it."""
        if self._channel is None or self._channel.is_closed:
            with border():
                channel = await self._connection.channel()
                assert isinstance(channel, Channel)
                self._channel = channel
        return self._channel

    async def close(self) -> None:
        """Say goodbye; cut the connection where that takes long. Never raises."""
        writer = self._transport.writer
        if writer is None:
            return
        closing = asyncio.ensure_future(self._connection.close())
        try:
            await asyncio.wait([closing], timeout=CLOSE_TIME)
        finally:
            writer.transport.abort()
            closing.cancel()
        await asyncio.wait([closing], timeout=CLOSE_TIME)

    def publish(self, channel: Channel, publications: Sequence[Publication], *, is_mandatory: bool) -> list[Publishing]:
        """Send them in order; each ends when it is confirmed. :func:`answers_of` says how."""
        return [
            asyncio.ensure_future(
                channel.basic_publish(
                    one.body,
                    exchange=one.exchange,
                    routing_key=one.routing_key,
                    properties=one.properties,
                    mandatory=is_mandatory,
                    wait=False,
                )
            )
            for one in publications
        ]


async def answers_of(publishing: Sequence[Publishing], found: dict[int, RemoteError | None]) -> None:
    """Wait for all confirmations; ``found`` has them by place, also when this is cancelled. None: it was confirmed.

    RemoteRefused with status 406 or 312 speaks of the message. Where the channel or the connection ended, all that
    was not confirmed has that error.
    """
    try:
        await asyncio.wait(publishing)
    finally:
        for place, one in enumerate(publishing):
            if not one.done():
                one.cancel()
            elif one.cancelled():
                found[place] = error_of(asyncio.CancelledError())
            else:
                error = one.exception()
                found[place] = error_of(error) if error is not None else None


@contextmanager
def border() -> Iterator[None]:
    """The library's errors become ours."""
    try:
        yield
    except (AMQPError, OSError, EOFError, RuntimeError) as error:
        raise error_of(error) from None


def error_of(error: BaseException) -> RemoteError:
    """What went wrong, with RabbitMQ's words."""
    if isinstance(error, PublishError):
        return RemoteRefused(_returned(error), status=NO_ROUTE)
    if isinstance(error, DeliveryError):
        return RemoteRefused("RabbitMQ does not take a message (basic.nack): a queue is full, or cannot store it")
    if isinstance(error, ChannelClosed):
        return RemoteRefused(f"RabbitMQ closed the channel: {_words(error)}", status=CODES.get(type(error), 0))
    if isinstance(error, ConnectionClosed):
        return RemoteUnavailable(f"RabbitMQ closed the connection: {_words(error)}")
    if isinstance(error, AMQPError | OSError):
        return RemoteUnavailable(_words(error))
    # the library ends what waits for a connection that is gone with CancelledError, RuntimeError, or a bare Exception
    return RemoteUnavailable("the connection to RabbitMQ is gone")


def _returned(error: PublishError) -> str:
    frame = error.frame
    assert isinstance(frame, spec.Basic.Return)
    return (
        f"RabbitMQ returned a message: {frame.reply_code} {frame.reply_text}: "
        f"no queue is bound to exchange {frame.exchange!r} for the routing key {frame.routing_key!r}"
    )


def _words(error: BaseException) -> str:
    return " ".join(str(one) for one in error.args if one is not None) or type(error).__name__
