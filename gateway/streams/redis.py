"""Messages into the streams of a Redis: XADD, a batch in one transaction."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import orjson
import redis.exceptions
from msgspec import Meta
from redis.asyncio import ConnectionPool
from redis.asyncio import Redis as Client
from redis.asyncio.connection import Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway.errors import ItemError, RemoteError, RemoteRefused, RemoteUnavailable
from gateway.stream.resp import BOUNDED, TlsConnection
from gateway.stream.target import Options, Outgoing, Rejection, StreamInfo, Target, Timeout
from gateway.stream.template import SHOWN, Template, check_template, fixed_begin

OWN_KEYS = "gw:"
"""What all keys of a gateway begin with: two characters too many in a URI, and a stream would write among them."""
REASON_MOST = 300
"""Characters of an answer that are shown."""
CLOSE_TIME = 3.0


class Redis(Target):
    """Entries of Redis streams (XADD): one for each message, in the order in which they came, with ids of that Redis.

    A batch is one transaction, and delivered when Redis has answered; how much a power cut may take then, its
    ``appendfsync`` says.
    """

    class Config(Options):
        """Which Redis, and which streams."""

        uri: Annotated[
            str,
            Meta(
                min_length=8,
                max_length=2048,
                description="redis://user:password@host:6379/0, rediss:// for TLS, or unix:///path?db=0",
            ),
        ]
        key: Annotated[
            str,
            Meta(
                min_length=1,
                max_length=512,
                description=f"of the Redis stream; {SHOWN} in it are replaced. It begins with a fixed text other than "
                "gw:, which is for gateways",
            ),
        ] = "messages"
        format: Annotated[
            Literal["json", "fields"],
            Meta(
                description="an entry has the message as JSON in its field message; or a field for each parameter, "
                "texts as they are and all else as JSON"
            ),
        ] = "json"
        maxlen: Annotated[
            int,
            Meta(ge=0, le=1_000_000_000, description="entries of a Redis stream that are kept, some more; 0: all"),
        ] = 0
        ca_file: Annotated[
            str, Meta(max_length=1024, description="for rediss://: certificates to trust (PEM); empty: the system's")
        ] = ""
        timeout: Annotated[Timeout, Meta(description="seconds that Redis may take for a batch")] = 30.0

    id = 5
    title = "Redis streams"

    @classmethod
    def check(cls, config: Any) -> None:
        """The URI can be used, and the keys are none of a gateway's."""
        if not _is_uri(config.uri):
            raise ItemError(
                "should be like redis://user:password@host:6379/0, rediss://host:6379/0 or "
                "unix:///path/redis.sock?db=0, percent-encoded",
                "configuration.uri",
            )
        check_template(config.key, "configuration.key")
        begin = fixed_begin(config.key)
        if begin.startswith(OWN_KEYS) or (begin != config.key and OWN_KEYS.startswith(begin)):
            raise ItemError(
                f"should begin with a text other than {OWN_KEYS}, which gateways' own keys begin with, such as "
                "messages:%ident%",
                "configuration.key",
            )

    def __init__(self, config: Any, stream: StreamInfo) -> None:
        super().__init__(config, stream)
        self._template = Template(config.key, stream)
        self._client: Any = None
        self._place = _place(config.uri)

    async def open(self) -> None:
        if self._client is None:
            self._client = Client.from_pool(ConnectionPool(max_connections=1, **self._options()))
        with self._errors():
            await self._client.ping()

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            try:
                async with asyncio.timeout(CLOSE_TIME):
                    await client.aclose()
            except (TimeoutError, OSError, redis.exceptions.RedisError):
                pass  # it is gone already

    async def deliver(self, batch: Sequence[Outgoing]) -> Sequence[Rejection]:
        if self._client is None:
            raise RemoteUnavailable(f"{self._place} is not connected")
        with self._errors():
            async with self._client.pipeline(transaction=True) as pipe:
                for outgoing in batch:
                    pipe.execute_command(*self._command(outgoing))
                answers = await pipe.execute(raise_on_error=False)
        return self._understood(batch, answers)

    def _understood(self, batch: Sequence[Outgoing], answers: Sequence[Any]) -> list[Rejection]:
        """A key that is no stream is the matter of the messages that go there, unless all do."""
        failures = [(at, _refusal(answer)) for at, answer in enumerate(answers) if isinstance(answer, Exception)]
        failed = dict(failures)
        for at, outgoing in enumerate(batch):
            outgoing.is_done = at not in failed
        others = [error for _, error in failures if self._template.is_fixed or not _is_of_key(error)]
        if others:
            raise others[0]
        return [Rejection(at, f"key {self._template.of(batch[at])[:REASON_MOST]}: {error}") for at, error in failures]

    def _command(self, outgoing: Outgoing) -> list[Any]:
        limit = ["MAXLEN", "~", self.config.maxlen] if self.config.maxlen else []
        fields = ["message", outgoing.text] if self.config.format == "json" else _flat(outgoing.message)
        return ["XADD", self._template.of(outgoing), *limit, "*", *fields]

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            **parse_url(self.config.uri),
            "socket_timeout": self.config.timeout,
            "socket_connect_timeout": self.config.timeout,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),  # the sender knows whether a batch may be sent twice
        }
        kind = BOUNDED[options.pop("connection_class", Connection)]
        if kind is TlsConnection:
            options["ssl_ca_certs"] = self.config.ca_file
        return {"connection_class": kind, **options}

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except redis.exceptions.RedisError as error:
            raise _refusal(error, self._place) from None
        except (OSError, TimeoutError, EOFError, UnicodeError, ValueError) as error:
            raise RemoteUnavailable(f"{self._place}: {error or type(error).__name__}") from None


NOES = (
    redis.exceptions.ResponseError,
    redis.exceptions.AuthenticationError,
    redis.exceptions.AuthorizationError,
)
LATER = (redis.exceptions.BusyLoadingError, redis.exceptions.ReadOnlyError, redis.exceptions.MasterDownError)


def _refusal(error: Exception, place: str = "") -> RemoteError:
    """What Redis said, in the class that says what can be done about it."""
    said = _said(error)
    text = f"{place}: {said}" if place else said
    if isinstance(error, LATER) or not isinstance(error, NOES):
        return RemoteUnavailable(text)  # also READONLY: another one may be the master after a new look-up
    return RemoteRefused(text, answer=said)


PREFIXES: dict[type[Exception], str] = {
    redis.exceptions.BusyLoadingError: "LOADING",
    redis.exceptions.ReadOnlyError: "READONLY",
    redis.exceptions.NoPermissionError: "NOPERM",
    redis.exceptions.OutOfMemoryError: "OOM",
}
"""What the library takes off an answer, and people look for."""
QUOTED = re.compile(r"Command # .* caused error: \((?P<sign>['\"])(?P<said>.*)(?P=sign),\)", re.DOTALL)


def _said(error: Exception) -> str:
    """The answer. Errors of pipelines quote the command before it, and with it a message."""
    text = str(error) or type(error).__name__
    quoted = QUOTED.fullmatch(text)
    if quoted is not None:
        text = quoted["said"]
    elif text.startswith("Command # "):
        text = text.rpartition("caused error: ")[2]
    prefix = PREFIXES.get(type(error), "")
    return " ".join(f"{prefix} {text}".split())[:REASON_MOST]


def _is_of_key(error: Exception) -> bool:
    return str(error).startswith("WRONGTYPE")


def _flat(message: Mapping[str, Any]) -> list[Any]:
    """Redis knows texts only; an entry without a field cannot be."""
    fields: list[Any] = []
    for name, value in message.items():
        fields += [name, value if isinstance(value, str) else orjson.dumps(value)]
    return fields or ["message", b"{}"]


def _is_uri(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        database = parts.path.strip("/") or "0"
        is_local = parts.scheme == "unix" and len(parts.path) > 1
        is_remote = parts.scheme in ("redis", "rediss") and bool(parts.hostname) and parts.port != 0
        options = parse_url(uri)
    except (ValueError, TypeError):
        return False
    known = {"username", "password", "path", "host", "port", "db", "connection_class"}
    is_plain = uri.isprintable() and " " not in uri and set(options) <= known and not parts.fragment
    return is_plain and (is_local or (is_remote and database.isdecimal() and parts.path.count("/") <= 1))


def _place(uri: str) -> str:
    """For people: without the password."""
    parts = urlsplit(uri)
    return parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"
