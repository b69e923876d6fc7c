"""Requests to other systems over HTTP: bounded in time and size, with errors of ours.

httpx is the client. Proxies from the environment are not used, redirects are not followed, and cookies are not kept:
data of trackers goes where the configuration says, and nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
import zlib
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import httpx
from attrs import field, frozen

from gateway.errors import ConfigError, RemoteRefused, RemoteUnavailable

ANSWER_MOST = 4 * 1024 * 1024
"""Bytes of an answer that are taken."""
PEM_MOST = 16 * 1024 * 1024
"""Bytes of a file of certificates or keys; the system's has some 200 KiB."""
SHOWN_MOST = 300
"""Characters of an answer that an error shows."""
ENCODINGS = "gzip, deflate"
"""What an answer may be compressed with: what can be decompressed up to a size."""
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


@frozen
class Answer:
    """``status``, headers with lower-case names, and the body, decompressed."""

    status: int
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes = b""

    @property
    def excerpt(self) -> str:
        """The beginning of the body, for people."""
        text = " ".join(self.body[: 4 * SHOWN_MOST].decode("utf-8", "replace").split())
        return "".join(sign if sign.isprintable() else "\ufffd" for sign in text[:SHOWN_MOST])

    def refusal(self) -> RemoteRefused:
        """The error that says what was answered, where it should have been 200."""
        wanted = ", not 200" if 200 < self.status < 400 else ""  # these look like a success
        shown = f": {self.excerpt}" if self.excerpt else ""
        return RemoteRefused(
            f"HTTP {self.status}{wanted}{shown}",
            status=self.status,
            answer=self.excerpt,
            is_too_large=self.status == 413,
        )


class WebClient:
    """One for each target. ``timeout`` in seconds is for the whole of a request; ``ca_file`` (PEM) replaces the
    system's certificates."""

    def __init__(
        self,
        *,
        timeout: float = 30.0,
        headers: Mapping[str, str] | None = None,
        ca_file: str = "",
        answer_most: int = ANSWER_MOST,
    ) -> None:
        self._timeout = timeout
        self._headers = {"accept-encoding": ENCODINGS, **(headers or {})}
        self._ca_file = ca_file
        self._answer_most = answer_most
        self._opening = asyncio.Lock()
        self._client: httpx.AsyncClient | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._under_way = 0

    async def open(self) -> None:
        """Raises ConfigError where ``ca_file`` cannot be used. :meth:`request` does it by itself otherwise."""
        await self._opened()

    async def _opened(self) -> httpx.AsyncClient:
        async with self._opening:
            if self._client is None:
                context = await asyncio.to_thread(tls_context, self._ca_file)  # reading the system's takes some 20 ms
                self._client = httpx.AsyncClient(
                    verify=context,
                    headers=self._headers,
                    cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                    timeout=self._timeout,
                    trust_env=False,
                    follow_redirects=False,
                )
            return self._client

    async def close(self) -> None:
        """Ends its connections, when the requests under way have their answers: within ``timeout``."""
        await self._idle.wait()
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def request(
        self, method: str, uri: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Answer:  # fmt: skip
        """Raises RemoteUnavailable; RemoteRefused where the answer is too large or compressed in an unknown way."""
        self._under_way += 1
        self._idle.clear()
        try:
            async with asyncio.timeout(self._timeout):
                client = await self._opened()
                return await self._answer(client, client.build_request(
                    method, uri, content=content, headers=headers, params=params
                ))  # fmt: skip
        except (TimeoutError, httpx.TimeoutException):
            raise RemoteUnavailable(f"{_host(uri)} did not answer within {self._timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise RemoteUnavailable(f"{_host(uri)}: {_reason(error)}") from None
        finally:
            self._under_way -= 1
            if self._under_way == 0:
                self._idle.set()

    async def _answer(self, client: httpx.AsyncClient, request: httpx.Request) -> Answer:
        answer = await client.send(request, stream=True)
        try:
            return Answer(
                answer.status_code, dict(answer.headers), self._decompressed(answer, await self._body(answer))
            )
        finally:
            await answer.aclose()

    async def _body(self, answer: httpx.Response) -> bytes:
        body = bytearray()
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > self._answer_most:
                raise self._too_large(answer)
        return bytes(body)

    def _decompressed(self, answer: httpx.Response, body: bytes) -> bytes:
        """httpx would decompress whatever comes in one piece, which may be a thousand times as large."""
        encoding = answer.headers.get("content-encoding", "identity").strip().lower()
        if encoding in ("", "identity") or not body:
            return body
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise RemoteRefused(f"the answer is compressed with {encoding!r:.40}", status=answer.status_code)
        inflated = zlib.decompressobj(_GZIP_OR_ZLIB)
        try:
            text = inflated.decompress(body, self._answer_most + 1)
        except zlib.error:
            raise RemoteRefused(f"the answer should be compressed with {encoding}", status=answer.status_code) from None
        if len(text) > self._answer_most:
            raise self._too_large(answer)
        return text

    def _too_large(self, answer: httpx.Response) -> RemoteRefused:
        return RemoteRefused(
            f"the answer has more than {self._answer_most} bytes, which is the most that is taken",
            status=answer.status_code,
        )


def check_pem(*paths: str) -> None:
    """Whether these are files that can be read: a pipe keeps the thread that does it, and a device never ends.

    Empty ones are left out. Raises OSError.
    """
    for path in filter(None, paths):
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size > PEM_MOST:
            raise OSError(f"it is not a regular file of {PEM_MOST} bytes at most")


def tls_context(ca_file: str) -> ssl.SSLContext:
    """Reads files: for threads. Raises ConfigError where ``ca_file`` cannot be used."""
    try:
        check_pem(ca_file)
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ValueError, ssl.SSLError) as error:
        raise ConfigError(f"ca_file {ca_file!r} should be a file of certificates (PEM): {error}") from None


def _host(uri: str) -> str:
    """Of a URI what an error may show: neither a password nor a key in its path or query."""
    try:
        parts = urlsplit(uri)
        port = f":{parts.port}" if parts.port else ""
        host = parts.hostname or ""
    except ValueError:  # a password with a slash makes it look like a port
        return "the address"
    return f"[{host}]{port}" if ":" in host else f"{host}{port}" or "the address"


def _reason(error: Exception) -> str:
    """Why there is no answer. What h11 and httpx say of a wrong header or address quotes it, with its secrets."""
    if isinstance(error, httpx.LocalProtocolError | UnicodeError):
        return "a header has characters that it cannot have"
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol) or not isinstance(
        error, httpx.HTTPError | OSError
    ):
        return "that is no address, such as https://host/path"
    system = _system_error(error) if isinstance(error, httpx.ConnectError) else ""
    return system or str(error) or type(error).__name__


def _system_error(error: BaseException | None) -> str:
    """Why there is no connection, which httpx hides below "All connection attempts failed"; empty: something else."""
    while error is not None and not (isinstance(error, OSError) and error.errno):
        inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else None
        error = inner or error.__cause__ or error.__context__
    if error is None or isinstance(error, ssl.SSLError | socket.gaierror):  # these say more, and by themselves
        return ""
    return os.strerror(error.errno or 0)
