"""The API of a running gateway, as its operator uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import orjson

from integration.processes import POLL, Gateway


class Rest:
    """With the master token. Use as ``async with``."""

    def __init__(self, gateway: Gateway) -> None:
        headers = {"Authorization": f"FlespiToken {gateway.token}"}
        self._client = httpx.AsyncClient(base_url=gateway.api_url, headers=headers, timeout=20)

    async def __aenter__(self) -> Rest:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._client.aclose()

    async def call(self, method: str, path: str, json: Any = None, **data: Any) -> list[Any]:
        """The ``result`` of a request that succeeds; ``data`` is the parameter of this name."""
        params = {"data": orjson.dumps(data).decode()} if data else None
        answer = await self._client.request(method, f"/gw/{path}", json=json, params=params)
        assert answer.status_code == 200, answer.text
        assert "errors" not in answer.json(), answer.text
        result: list[Any] = answer.json()["result"]
        return result

    async def get(self, path: str, **data: Any) -> list[Any]:
        return await self.call("GET", path, **data)

    async def make(self, kind: str, **values: Any) -> int:
        """Create an item; its id."""
        [item] = await self.call("POST", kind, [values])
        return int(item["id"])

    async def make_devices(self, *idents: str) -> None:
        """Devices 1, 2, ... of these idents, in a gateway that has none."""
        made = await self.call("POST", "devices", [{"configuration": {"ident": ident}} for ident in idents])
        assert [device["id"] for device in made] == list(range(1, len(idents) + 1))

    async def link(self, kind: str, id: int, to: str, selector: str | int, **fields: Any) -> None:
        """A stream with channels or devices, or a plugin with devices."""
        await self.call("POST", f"{kind}/{id}/{to}/{selector}", {"fields": fields} if fields else None)

    async def until(
        self, path: str, is_done: Callable[[list[Any]], Any], timeout: float = 20, **data: Any
    ) -> list[Any]:
        """The result of a GET, as soon as ``is_done`` holds for it."""
        found: list[Any] = []
        try:
            async with asyncio.timeout(timeout):
                while not is_done(found := await self.get(path, **data)):
                    await asyncio.sleep(POLL)
        except TimeoutError:
            raise AssertionError(f"not within {timeout:g} s: {path} has {len(found)}, at last {found[-3:]}") from None
        return found

    async def metrics(self) -> str:
        """The page for Prometheus."""
        answer = await self._client.get("/metrics")
        assert answer.status_code == 200
        return answer.text
