"""Messages to flespi, or to another gateway of this kind: to an HTTP channel, or to devices over the REST API."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import quote

import orjson
from msgspec import Meta

from gateway.errors import ItemError, RemoteRefused
from gateway.stream.addresses import check_uri
from gateway.stream.arrays import Part, array, done, grouped, halved, post, with_needed
from gateway.stream.lanes import side_by_side
from gateway.stream.target import Options, Outgoing, Rejection, StreamInfo
from gateway.stream.tls import CaFile
from gateway.stream.web_target import AnswerTimeout, WebTarget
from gateway.web import Answer

NEEDED = frozenset({"ident", "timestamp"})
NOT_IN_SELECTOR = frozenset("*?\"'\\{},")
"""Signs of an ident with which a selector would choose other devices, or be none."""
ROUNDS_MOST = 20
"""Times that a part is sent again without the messages that were refused by themselves, before it waits."""


class Flespi(WebTarget):
    """To an HTTP channel of flespi: POST of a JSON array; 200 takes the batch. Or, with a ``token``, to the devices of
    flespi or of another gateway over its REST API: POST to the device of each ident.

    There a batch is delivered when every ident's messages are answered with 200; messages that the answer names as
    wrong are rejected, and so are those of idents that no device there has.
    """

    class Config(Options):
        """Where to; a token makes it the REST API."""

        uri: Annotated[
            str,
            Meta(
                min_length=8,
                max_length=2048,
                description="of an HTTP channel, such as https://gw.flespi.io:27699; or, with a token, of a REST API, "
                "such as https://flespi.io or http://host:8080",
            ),
        ]
        token: Annotated[
            str,
            Meta(
                max_length=256,
                pattern=r"^[!-~]*$",
                description="of the REST API: may POST to messages of the devices there; empty: for an HTTP channel",
            ),
        ] = ""
        refused: Annotated[
            Literal["retry", "skip"],
            Meta(
                description="a batch that is answered 400, 413 or 422 as a whole: repeat it, or find the messages that "
                "are refused by themselves, and reject these"
            ),
        ] = "retry"
        connections: Annotated[int, Meta(ge=1, le=16, description="idents that are posted at a time, over REST")] = 4
        timeout: AnswerTimeout = 30.0
        ca_file: CaFile = ""

    id = 7
    title = "flespi or another gateway"

    @classmethod
    def check(cls, config: Any) -> None:
        """An address; that of a REST API goes on."""
        check_uri(config.uri, "configuration.uri")
        if config.token and ("?" in config.uri or "#" in config.uri):
            raise ItemError("should end before /gw, as in https://flespi.io", "configuration.uri")

    def __init__(self, config: Any, stream: StreamInfo) -> None:
        super().__init__(config, stream, {"authorization": f"FlespiToken {config.token}"} if config.token else None)
        self._skips = config.refused == "skip"

    async def deliver(self, batch: Sequence[Outgoing]) -> Sequence[Rejection]:
        if not self.config.token:
            return await post(partial(self._send, self.config.uri), list(enumerate(batch)), skips=self._skips)
        idents = grouped(batch, lambda outgoing: outgoing.ident)
        return await side_by_side(idents.values(), self._post_ident, self.config.connections)

    async def _send(self, uri: str, messages: Sequence[Outgoing]) -> Answer:
        return await self._post(uri, array(with_needed(outgoing, NEEDED.__contains__) for outgoing in messages))

    # -- over REST

    async def _post_ident(self, part: Part) -> list[Rejection]:
        ident = part[0][1].ident
        if NOT_IN_SELECTOR & set(ident):
            reason = f"ident {ident!r} has signs with which no device can be named: {' '.join(sorted(NOT_IN_SELECTOR))}"
            return [Rejection(index, reason) for index, _ in part]
        selector = quote(f'configuration.ident="{ident}"', safe="=")
        return await self._post_part(f"{self.config.uri.rstrip('/')}/gw/devices/{selector}/messages", part)

    async def _post_part(self, uri: str, part: Part) -> list[Rejection]:
        """What is refused by itself is left out, until the others are taken."""
        rejections: list[Rejection] = []
        for _ in range(ROUNDS_MOST):
            answer = await self._send(uri, [outgoing for _, outgoing in part])
            if answer.status not in (200, 400):
                return rejections + await halved(partial(self._send, uri), part, answer.refusal(), skips=self._skips)
            refused = _refused(answer, part)
            rejections += refused
            indexes = {rejection.index for rejection in refused}
            left = [(index, outgoing) for index, outgoing in part if index not in indexes]
            if answer.status == 200 or not left:
                done(left)
                return rejections
            if not refused:
                return rejections + await halved(partial(self._send, uri), part, answer.refusal(), skips=self._skips)
            part = left
        raise answer.refusal()


def _refused(answer: Answer, part: Part) -> list[Rejection]:
    """The messages that an answer says are wrong. Raises RemoteRefused where it says something else."""
    results, errors = _read(answer)
    by_index = {error["index"]: error for error in errors if _is_of_message(error, part)}
    if answer.status == 200 and len(by_index) < len(errors):
        others = [error for error in errors if not _is_of_message(error, part)]
        raise RemoteRefused(f"the answer has an error: {_reason(others[0])}", status=200, answer=answer.excerpt)
    reasons = {at: _reason(error) for at, error in by_index.items()}
    if answer.status == 200 and not results:
        nobody = f"no device there has the ident {part[0][1].ident!r}, or the token may not see it"
        reasons = {at: reasons.get(at, nobody) for at in range(len(part))}
    return [Rejection(part[at][0], reason) for at, reason in reasons.items()]


def _read(answer: Answer) -> tuple[list[Any], list[dict[str, Any]]]:
    try:
        body = orjson.loads(answer.body)
        results, errors = body.get("result", []), body.get("errors", [])
    except (ValueError, AttributeError):
        results = errors = None
    if not isinstance(results, list) or not isinstance(errors, list):
        if answer.status == 200:
            said = f"the answer should have result, as the REST API's: {answer.excerpt}"
            raise RemoteRefused(said, status=200, answer=answer.excerpt)
        return [], []
    return results, [error for error in errors if isinstance(error, dict)]


def _is_of_message(error: dict[str, Any], part: Part) -> bool:
    index = error.get("index")
    return type(index) is int and 0 <= index < len(part)


def _reason(error: dict[str, Any]) -> str:
    """For people, with the field where there is one."""
    said = " ".join(str(error.get("reason", ""))[:300].split()) or "refused without a reason"
    field = error.get("field")
    return f"{said} (field {field[:128]})" if isinstance(field, str) and field else said
