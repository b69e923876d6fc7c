"""Types that deliver with requests over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from gateway.stream.target import StreamInfo, Target, Timeout
from gateway.web import Answer, WebClient

AnswerTimeout = Annotated[Timeout, Meta(description="seconds that an answer may take")]


class WebTarget(Target):
    """Their base. The ``Config`` of each has ``timeout`` and ``ca_file``."""

    def __init__(self, config: Any, stream: StreamInfo, headers: Mapping[str, str] | None = None) -> None:
        """``headers``: of each request."""
        super().__init__(config, stream)
        self._client = WebClient(timeout=config.timeout, headers=headers, ca_file=config.ca_file)

    async def open(self) -> None:
        await self._client.open()

    async def close(self) -> None:
        await self._client.close()

    async def _post(
        self, uri: str, body: bytes, content_type: str = "application/json", headers: Mapping[str, str] | None = None
    ) -> Answer:
        all_headers = {"content-type": content_type, **(headers or {})}
        return await self._client.request("POST", uri, content=body, headers=all_headers)
