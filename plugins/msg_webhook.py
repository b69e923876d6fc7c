"""Plugin type ``msg-webhook``."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote

import orjson
from msgspec import Meta

from gateway import message as msg
from gateway import plugin, signature
from gateway.errors import RemoteRefused
from gateway.plugin import Context, Message, PluginError, RemotePlugin
from gateway.plugin.base import OBLIGATORY, Mask
from gateway.plugin.web_options import CaFile, Headers, Uri, check_headers, check_uri
from gateway.store.item import Device
from gateway.store.masks import Masks
from gateway.web import Answer, WebClient

KEPT = OBLIGATORY - {"timestamp"}
"""What an answer cannot change; a time that is wrong can be set right."""
HOLE = re.compile(r"%(ident|device\.id|device\.name)%")


class MsgWebhook(RemotePlugin):
    """Sends messages to an address of yours (POST, a JSON array of the messages of one device) and merges its answer
    into them: status 200 and an array of as many objects, in order. null or {} leaves a message as it is. The
    obligatory parameters, timestamp excepted, cannot be changed. Any other answer is an error."""

    class Config(plugin.Config):
        """The options."""

        uri: Annotated[
            Uri,
            Meta(
                description="where messages are sent to; %ident%, %device.id% and %device.name% in its path and query "
                "stand for those of the device"
            ),
        ]
        headers: Headers = {}
        secret: Annotated[
            str,
            Meta(
                max_length=256,
                description="requests are signed with it: header X-Signature is t=<UNIX seconds>,sha256=<hex>, "
                "the HMAC-SHA256 with this key of the seconds, a full stop and the body; empty: they are not",
            ),
        ] = ""
        batch: Annotated[int, Meta(ge=1, le=100, description="messages of a device in one request, at most")] = 100
        timeout: Annotated[float, Meta(ge=0.1, le=50, description="seconds that an answer may take")] = 10.0
        ca_file: CaFile = ""
        fields: Annotated[
            list[Mask],
            Meta(max_length=500, description="parameters that are sent: names, or masks such as can.*; none: all are"),
        ] = []
        drop: Annotated[
            bool, Meta(description="whether false instead of an object keeps the message from being registered")
        ] = False

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.batch_most = config.batch
        self._masks = Masks(config.fields) if config.fields else None
        self._client = WebClient(timeout=config.timeout, ca_file=config.ca_file)

    @classmethod
    def check(cls, config: Config) -> None:
        """Address and headers."""
        check_uri(config.uri, holes=HOLE)
        check_headers(config.headers)

    async def open(self) -> None:
        """The certificates are there."""
        await self._client.open()

    async def close(self) -> None:
        """What is under way has its answer first."""
        await self._client.close()

    async def process_many(self, messages: Sequence[Message], context: Context) -> Sequence[Message | None]:
        """As the answer says."""
        body = b"[" + b",".join(msg.encode(self._sent(message)) for message in messages) + b"]"
        uri = _filled(self.config.uri, context.device)
        answer = await self._client.request("POST", uri, content=body, headers=self._headers(body))
        changes = _changes(answer, len(messages))
        return [
            self._merged(message, change, number)
            for number, (message, change) in enumerate(zip(messages, changes, strict=True))
        ]

    def _sent(self, message: Message) -> Message:
        if self._masks is None:
            return message
        return {name: value for name, value in message.items() if self._masks.choose(name)}

    def _headers(self, body: bytes) -> dict[str, str]:
        headers = {"content-type": "application/json", **{k.lower(): v for k, v in self.config.headers.items()}}
        if self.config.secret:
            headers[signature.HEADER.lower()] = signature.sign(self.config.secret, body, time.time())
        return headers

    def _merged(self, message: Message, change: Any, number: int) -> Message | None:
        if change is None:
            return message
        if change is False:
            if self.config.drop:
                return None
            raise PluginError(f"false was answered for message {number}, and the option drop is off")
        if not isinstance(change, dict):
            shown = "an array" if isinstance(change, list) else f"{change!r:.50}"  # a deep one has no repr
            raise PluginError(f"an object should be answered for message {number}, not {shown}")
        merged = msg.merge(message, {name: value for name, value in change.items() if name not in KEPT})
        try:
            msg.check_bounds(merged)
        except msg.MessageError as error:
            raise PluginError(f"what was answered for message {number} cannot be taken: {error.reason}") from None
        return merged


def _filled(uri: str, device: Device) -> str:
    values = {"ident": device.ident, "device.id": str(device.id), "device.name": device.name}
    return HOLE.sub(lambda hole: quote(values[hole[1]], safe=""), uri)


def _changes(answer: Answer, count: int) -> list[Any]:
    """The array. Raises RemoteError, which shows what was answered instead."""
    if answer.status != 200:
        raise answer.refusal()
    try:
        changes = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        raise _refused("a JSON array should be answered", answer) from None
    if not isinstance(changes, list) or len(changes) != count:
        what = f"not {len(changes)}" if isinstance(changes, list) else "in an array"
        raise _refused(f"{count} objects should be answered, {what}", answer)
    return changes


def _refused(reason: str, answer: Answer) -> RemoteRefused:
    return RemoteRefused(f"{reason}: {answer.excerpt}", status=answer.status, answer=answer.excerpt)
