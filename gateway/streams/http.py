"""Messages to a web server, as flespi's HTTP streams: POST of a JSON array; status 200 takes the batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import quote

from msgspec import Meta

from gateway import signature
from gateway.errors import RemoteRefused
from gateway.stream.addresses import check_uri
from gateway.stream.masks import filled, has_masks
from gateway.stream.target import Options, Outgoing, Rejection, StreamInfo, Target, Timeout
from gateway.web import Answer, WebClient

HEADERS_MOST = 50
OF_THE_BATCH = (400, 413, 422)
"""Statuses that speak of what was sent, not of the server or of who sent it."""

Header = Annotated[str, Meta(max_length=8192, pattern=r"^[^\r\n\x00]*$")]
HeaderName = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]


class Http(Target):
    """POST to a web server: the body is a JSON array of messages, in the order in which they came.

    A batch is delivered when the server answers 200, whatever the answer says; after anything else, and no answer, it
    is sent again. The next request is sent when the one before it is answered.
    """

    class Config(Options):
        """Where to, and with what."""

        uri: Annotated[
            str,
            Meta(
                min_length=8,
                max_length=2048,
                description="http:// or https://; %ident%, %device.id% and %channel.id% in it are replaced, "
                "and each request then has the messages of one of them",
            ),
        ]
        headers: Annotated[
            dict[HeaderName, Header], Meta(max_length=HEADERS_MOST, description="headers of each request")
        ] = {}
        timeout: Annotated[Timeout, Meta(description="seconds that an answer may take")] = 30.0
        ca_file: Annotated[
            str, Meta(max_length=1024, description="certificates to trust (PEM); empty: the system's")
        ] = ""
        secret: Annotated[
            str,
            Meta(max_length=256, description="requests are signed with it, in the header X-Signature; empty: not"),
        ] = ""
        refused: Annotated[
            Literal["retry", "skip"],
            Meta(
                description="a batch that is answered 400, 413 or 422: repeat it, or find the messages that are "
                "refused by themselves, and reject these"
            ),
        ] = "retry"

    id = 1
    title = "HTTP"

    @classmethod
    def check(cls, config: Any) -> None:
        """The URI has a scheme and a host."""
        check_uri(config.uri, "configuration.uri")

    def __init__(self, config: Any, stream: StreamInfo) -> None:
        super().__init__(config, stream)
        self._client = WebClient(timeout=config.timeout, headers=config.headers, ca_file=config.ca_file)
        self._is_grouped = has_masks(config.uri)

    async def open(self) -> None:
        await self._client.open()

    async def close(self) -> None:
        await self._client.close()

    async def deliver(self, batch: Sequence[Outgoing]) -> Sequence[Rejection]:
        if not self._is_grouped:
            return await self._post(self.config.uri, list(enumerate(batch)))
        groups: dict[str, list[tuple[int, Outgoing]]] = {}
        for index, outgoing in enumerate(batch):
            groups.setdefault(filled(self.config.uri, outgoing, _quoted), []).append((index, outgoing))
        rejections: list[Rejection] = []
        for uri, part in groups.items():
            rejections += await self._post(uri, part)
        return rejections

    async def _post(self, uri: str, part: list[tuple[int, Outgoing]]) -> list[Rejection]:
        answer = await self._request(uri, part)
        if answer.status == 200:
            for _, outgoing in part:
                outgoing.is_done = True
            return []
        refusal = answer.refusal()
        if self.config.refused == "retry" or answer.status not in OF_THE_BATCH:
            raise refusal
        return await self._find_refused(uri, part, refusal)

    async def _find_refused(
        self, uri: str, part: list[tuple[int, Outgoing]], refusal: RemoteRefused
    ) -> list[Rejection]:
        """Halves, until what is refused is a single message."""
        if len(part) == 1:
            return [Rejection(part[0][0], refusal.reason)]
        middle = len(part) // 2
        return [*await self._post(uri, part[:middle]), *await self._post(uri, part[middle:])]

    async def _request(self, uri: str, part: list[tuple[int, Outgoing]]) -> Answer:
        body = b"[%b]" % b",".join(outgoing.text for _, outgoing in part)
        headers = {"content-type": "application/json"}
        if self.config.secret:
            headers[signature.HEADER] = signature.sign(self.config.secret, body, time.time())
        return await self._client.request("POST", uri, content=body, headers=headers)


def _quoted(value: str) -> str:
    return quote(value, safe="")
