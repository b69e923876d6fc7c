"""Requests to other systems over HTTP: bounded in time and size, with errors of ours.

httpx is the client. Proxies from the environment are not used, and redirects are not followed: data of trackers goes
where the configuration says, and nowhere else.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any

import httpx
from attrs import field, frozen

from gateway.errors import ConfigError, RemoteRefused, RemoteUnavailable

ANSWER_MOST = 4 * 1024 * 1024
"""Bytes of an answer that are taken."""
SHOWN_MOST = 300
"""Characters of an answer that an error shows."""


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
        return text[:SHOWN_MOST]

    def refusal(self) -> RemoteRefused:
        """The error that says what was answered."""
        shown = f": {self.excerpt}" if self.excerpt else ""
        return RemoteRefused(
            f"HTTP {self.status}{shown}", status=self.status, answer=self.excerpt, is_too_large=self.status == 413
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
        self._headers = dict(headers or {})
        self._ca_file = ca_file
        self._answer_most = answer_most
        self._client: httpx.AsyncClient | None = None

    async def open(self) -> None:
        """Raises ConfigError where ``ca_file`` cannot be used. :meth:`request` does it by itself otherwise."""
        if self._client is None:
            context = await asyncio.to_thread(_tls_context, self._ca_file)  # reading the system's takes some 20 ms
            self._client = httpx.AsyncClient(
                verify=context, headers=self._headers, timeout=self._timeout, trust_env=False, follow_redirects=False
            )

    async def close(self) -> None:
        """Ends its connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def request(
        self, method: str, uri: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Answer:  # fmt: skip
        """Raises RemoteUnavailable; RemoteRefused where the answer is too large."""
        await self.open()
        assert self._client is not None
        try:
            async with asyncio.timeout(self._timeout):
                request = self._client.build_request(method, uri, content=content, headers=headers, params=params)
                answer = await self._client.send(request, stream=True)
                try:
                    return Answer(answer.status_code, dict(answer.headers), await self._body(answer))
                finally:
                    await answer.aclose()
        except TimeoutError:
            raise RemoteUnavailable(f"{_host(uri)} did not answer within {self._timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
            raise RemoteUnavailable(f"{_host(uri)}: {_reason(error)}") from error

    async def _body(self, answer: httpx.Response) -> bytes:
        body = bytearray()
        async for chunk in answer.aiter_bytes():
            body += chunk
            if len(body) > self._answer_most:
                raise RemoteRefused(
                    f"the answer has more than {self._answer_most} bytes, which is the most that is taken",
                    status=answer.status_code,
                )
        return bytes(body)


def _tls_context(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"ca_file {ca_file!r} should be a file of certificates (PEM): {error}") from None


def _host(uri: str) -> str:
    """Of a URI what an error may show: neither a password nor a key in its query."""
    rest = uri.partition("://")[2].partition("/")[0].partition("?")[0]
    return rest.rpartition("@")[2] or "the address"


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
