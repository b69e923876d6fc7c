"""Messages to a web server, as flespi's HTTP streams: POST of a JSON array; status 200 takes the batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from msgspec import Meta

from gateway import signature
from gateway.errors import ItemError
from gateway.stream.addresses import check_uri
from gateway.stream.arrays import array, grouped, post
from gateway.stream.target import Options, Outgoing, Rejection, StreamInfo
from gateway.stream.template import SHOWN, Template, check_template, fixed_begin
from gateway.stream.tls import CaFile
from gateway.stream.web_target import AnswerTimeout, WebTarget
from gateway.web import Answer

HEADERS_MOST = 50

Header = Annotated[str, Meta(max_length=8192, pattern=r"^[^\r\n\x00]*$")]
HeaderName = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]


class Http(WebTarget):
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
                description=f"http:// or https://; {SHOWN} in it are replaced, and each request then has the messages "
                "of one of them",
            ),
        ]
        headers: Annotated[
            dict[HeaderName, Header], Meta(max_length=HEADERS_MOST, description="headers of each request")
        ] = {}
        timeout: AnswerTimeout = 30.0
        ca_file: CaFile = ""
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
        """The URI has a scheme and a host, and what is replaced in it is known."""
        check_uri(config.uri, "configuration.uri")
        check_template(config.uri, "configuration.uri")
        host = urlsplit(config.uri).netloc
        if fixed_begin(host) != host:  # what a tracker sends shall not choose the host
            raise ItemError(f"can have {SHOWN} in its path and query only", "configuration.uri")

    def __init__(self, config: Any, stream: StreamInfo) -> None:
        super().__init__(config, stream, config.headers)
        self._template = Template(config.uri, stream, clean=_quoted)

    async def deliver(self, batch: Sequence[Outgoing]) -> Sequence[Rejection]:
        rejections: list[Rejection] = []
        for uri, part in grouped(batch, self._template.of).items():
            rejections += await post(partial(self._request, uri), part, skips=self.config.refused == "skip")
        return rejections

    async def _request(self, uri: str, messages: Sequence[Outgoing]) -> Answer:
        body = array(outgoing.text for outgoing in messages)
        headers = {}
        if self.config.secret:
            headers[signature.HEADER] = signature.sign(self.config.secret, body, time.time())
        return await self._post(uri, body, headers=headers)


def _quoted(value: str) -> str:
    return quote(value, safe="")
