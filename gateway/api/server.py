"""The API's listener, from its endpoint string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort

from gateway import aio
from gateway.api.nouns import operations
from gateway.api.parts import Parts
from gateway.api.site import ApiResource, make_site
from gateway.channel.server import server_from_string
from gateway.errors import ConfigError, GatewayError, ListenError

ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
STOP_TIME = 3.0
"""Seconds that requests under way may take at a stop."""


class ApiServer:
    """Listens on ``listen``, a Twisted endpoint string."""

    def __init__(self, reactor: Any, listen: str, parts: Parts, cors_origins: Sequence[str] = ()) -> None:
        self._reactor = reactor
        self._listen = listen
        self._resource = ApiResource(parts, operations(), cors_origins)
        self._site = make_site(self._resource, parts)
        self._port: IListeningPort | None = None

    @property
    def url(self) -> str:
        """For people: where to reach it."""
        address: Any = self._port.getHost() if self._port is not None else None
        if not isinstance(address, IPv4Address | IPv6Address):
            return self._listen
        scheme = "https" if self._listen.startswith("ssl:") else "http"
        host = ANYWHERE.get(address.host, f"[{address.host}]" if ":" in address.host else address.host)
        return f"{scheme}://{host}:{address.port}"

    @property
    def port(self) -> int:
        """The TCP port."""
        address: Any = self._port.getHost() if self._port is not None else None
        return int(address.port)

    async def start(self) -> None:
        """Raises ListenError, ConfigError."""
        try:
            server = server_from_string(self._reactor, self._listen, close_time=None)
            self._port = await aio.from_deferred(server.listen(self._site))
        except CannotListenError as error:
            raise ListenError(f"api.listen: {self._listen}: cannot listen: {error.socketError}") from error
        except GatewayError as error:
            raise ConfigError(f"api.listen: {self._listen}: {error}") from error
        except Exception as error:  # whatever Twisted has for a wrong syntax
            raise ConfigError(f"api.listen: {self._listen}: cannot be listened on: {error}") from error

    async def stop(self) -> None:
        """Answer what is under way, then close."""
        if self._port is not None:
            stopping = self._port.stopListening()
            if stopping is not None:
                await aio.from_deferred(stopping)
        await self._resource.stop(STOP_TIME)
