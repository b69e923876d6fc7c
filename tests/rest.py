"""The API on a real port, over a real Redis, as its tests meet it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
from twisted.internet import reactor

from gateway.api.parts import Parts
from gateway.api.server import ApiServer

MASTER = "m" * 64
LOCAL = "tcp:0:interface=127.0.0.1"


class Rest:
    """A client with the master token. ``data`` of a request is the parameter ``data``, ``json`` the body."""

    def __init__(self, parts: Parts, server: ApiServer, client: httpx.AsyncClient) -> None:
        self.parts = parts
        self.server = server
        self.client = client

    async def request(
        self, method: str, path: str, *, data: Any = None, key: str | None = MASTER, **options: Any
    ) -> httpx.Response:
        """Any request; ``key`` None: without a token."""
        headers = {**({"Authorization": f"FlespiToken {key}"} if key else {}), **options.pop("headers", {})}
        if data is not None:
            options["params"] = {**options.get("params", {}), "data": orjson.dumps(data).decode()}
        return await self.client.request(method, path, headers=headers, **options)

    async def get(self, path: str, **options: Any) -> list[Any]:
        """The ``result`` of a GET that succeeds."""
        return self.result(await self.request("GET", path, **options))

    async def post(self, path: str, json: Any, **options: Any) -> list[Any]:
        """The same of a POST."""
        return self.result(await self.request("POST", path, json=json, **options))

    async def put(self, path: str, json: Any, **options: Any) -> list[Any]:
        """The same of a PUT."""
        return self.result(await self.request("PUT", path, json=json, **options))

    async def patch(self, path: str, json: Any, **options: Any) -> list[Any]:
        """The same of a PATCH."""
        return self.result(await self.request("PATCH", path, json=json, **options))

    async def delete(self, path: str, **options: Any) -> list[Any]:
        """The same of a DELETE."""
        return self.result(await self.request("DELETE", path, **options))

    async def refused(self, method: str, path: str, status: int, **options: Any) -> dict[str, Any]:
        """The first error of a request that is refused with ``status``."""
        response = await self.request(method, path, **options)
        assert response.status_code == status, response.text
        answer = response.json()
        assert answer["result"] == []
        error: dict[str, Any] = answer["errors"][0]
        assert isinstance(error["code"], int)
        assert error["reason"]
        return error

    @staticmethod
    def result(response: httpx.Response) -> list[Any]:
        """What succeeded; an error fails the test."""
        assert response.status_code == 200, response.text
        answer = response.json()
        assert "errors" not in answer, answer["errors"]
        result: list[Any] = answer["result"]
        return result


@asynccontextmanager
async def serving(parts: Parts, cors_origins: tuple[str, ...] = ()) -> AsyncIterator[Rest]:
    """The API with these parts, on a free port."""
    server = ApiServer(reactor, LOCAL, parts, cors_origins)
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
            yield Rest(parts, server, client)
    finally:
        await server.stop()
