"""The connection to Redis, and the border where its errors become ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import redis.exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway.errors import ConfigError, StoreError, StoreFull, StoreUnavailable

CALL_TIMEOUT = 5.0
"""Seconds that one call may take. A frozen Redis is noticed after so long; a slow disk must not be taken for one."""
CONNECT_TIMEOUT = 3.0
MAX_CONNECTIONS = 64
"""Readers block on a connection each; the rest is for what comes at once. More callers wait for one of these."""

SCHEMES = ("redis://", "rediss://", "unix://")


Client: TypeAlias = Any
"""A ``redis.asyncio.Redis`` that answers in bytes, which its own annotations cannot say."""


def connect(url: str) -> Client:
    """A client for ``url``; it connects at its first call.

    Calls are never repeated behind our back: whoever calls knows whether a second attempt could do something twice.
    """
    if not url.startswith(SCHEMES):
        raise ConfigError(f'redis.url: {url!r} should start with one of {", ".join(SCHEMES)} or be "embedded"')
    if not re.fullmatch(r"unix://.*|rediss?://[^/]*(/\d*)?(\?.*)?", url):
        raise ConfigError("redis.url should end in a database number, as in redis://host:6379/0, or in nothing")
    options: dict[str, Any] = {} if url.startswith("unix:") else {"socket_keepalive": True}
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=CALL_TIMEOUT,  # a hundred callers at once wait for a connection; they do not fail for want of one
            socket_timeout=CALL_TIMEOUT,
            socket_connect_timeout=CONNECT_TIMEOUT,
            protocol=2,  # its answers are the same with every server version and library version that we support
            retry=Retry(NoBackoff(), 0),
            **options,
        )
    except ValueError as error:
        # its text can hold a piece of a password that has a / or @ in it
        raise ConfigError("redis.url should be like redis://user:password@host:6379/0, percent-encoded") from error
    return Redis.from_pool(pool)


def without_password(url: str) -> str:
    """``url`` for people and the log."""
    scheme, separator, rest = url.partition("://")
    return scheme + separator + rest.rpartition("@")[2].partition("?")[0]


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn what ``redis`` raises into :class:`StoreUnavailable`, :class:`StoreFull` or :class:`StoreError`."""
    try:
        yield
    except (redis.exceptions.OutOfMemoryError, redis.exceptions.ResponseError) as error:
        raise _refusal(error) from error
    except (redis.exceptions.RedisError, OSError, TimeoutError, EOFError) as error:
        raise StoreUnavailable(f"{type(error).__name__}: {error}") from error


def _refusal(error: Exception) -> StoreError:
    """Redis answered, but with a no: tell "no room" and "not ready" from a command that is wrong."""
    text = str(error)
    cause = str(error.__cause__ or "")
    if isinstance(error, redis.exceptions.OutOfMemoryError) or "OOM" in text or "MISCONF" in text or "OOM" in cause:
        return StoreFull(text)
    if isinstance(error, redis.exceptions.BusyLoadingError | redis.exceptions.ReadOnlyError) or "LOADING" in text:
        return StoreUnavailable(text)
    return StoreError(text)


def is_refusal(result: Any) -> bool:
    """Whether one result of a pipeline run with ``raise_on_error=False`` is an error."""
    return isinstance(result, Exception)
