"""Messages to Traccar: to its receiver of flespi's streams, or to its OsmAnd port.

What Traccar reads, and what makes it break a request off, was learned from its source:

- flespi (port 5149): POST of a JSON array. It answers 200 with nothing, also for devices that it does not know. A known
  parameter of another type than it expects ends the connection without an answer, and nothing of the array is taken.
- OsmAnd (port 5055): a position in each request, as a query or, where there is none, as a form in the body, of 16 KiB
  at most. 200: taken; 400: the device is unknown. Names that are not its own become attributes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlencode, urlsplit

import orjson
from msgspec import Meta

from gateway.errors import ItemError
from gateway.stream.addresses import check_uri
from gateway.stream.arrays import Part, array, grouped, post, with_needed
from gateway.stream.lanes import side_by_side
from gateway.stream.target import Message, Options, Outgoing, Rejection
from gateway.stream.tls import CaFile
from gateway.stream.web_target import AnswerTimeout, WebTarget

KMH_PER_KNOT = 1.852
FORM_MOST = 16 * 1024
"""Bytes of a request that the OsmAnd port takes."""
MILLISECONDS_FROM = 2**31 - 1
"""OsmAnd: a timestamp from here on counts milliseconds."""

NUMBERS = frozenset(
    {
        "timestamp",
        "position.latitude",
        "position.longitude",
        "position.speed",
        "position.direction",
        "position.altitude",
        "position.satellites",
        "position.hdop",
        "position.pdop",
        "din",
        "dout",
        "report.reason",
        "gps.vehicle.mileage",
        "external.powersource.voltage",
        "battery.voltage",
        "battery.level",
        "fuel.level",
        "can.fuel.level",
        "engine.rpm",
        "can.engine.rpm",
        "can.engine.temperature",
        "device.temperature",
        "custom.wln_accel_max",
        "custom.wln_brk_max",
        "custom.wln_crn_max",
    }
)
TEXTS = frozenset({"ibutton.code", "vehicle.vin"})
BOUNDS = {"position.latitude": 90.0, "position.longitude": 180.0}

POSITION = {
    "position.altitude": "altitude",
    "position.direction": "bearing",
    "position.hdop": "hdop",
    "position.accuracy": "accuracy",
    "battery.level": "batt",
}
"""Numbers that OsmAnd has names for."""
ATTRIBUTES = {
    "position.satellites": "sat",
    "engine.ignition.status": "ignition",
    "movement.status": "motion",
    "external.powersource.voltage": "power",
    "battery.voltage": "battery",
}
"""What Traccar works with under names of its own."""
TAKEN = frozenset({"ident", "timestamp", "position.latitude", "position.longitude", "position.speed", "position.valid"})
RESERVED = frozenset(
    {
        "id",
        "deviceid",
        "valid",
        "timestamp",
        "lat",
        "lon",
        "location",
        "cell",
        "wifi",
        "speed",
        "bearing",
        "heading",
        "altitude",
        "accuracy",
        "hdop",
        "batt",
        "driverUniqueId",
        "charge",
    }
)
"""Names that mean something else there: a parameter of this name is sent as ``custom.NAME``."""


class Traccar(WebTarget):
    """To a Traccar server: messages as they are to its receiver of flespi's streams, a batch a request; or positions
    to its OsmAnd port, one a request.

    A batch is delivered when all is answered with 200. The flespi receiver answers so also for devices that Traccar
    does not know; the OsmAnd port says so, and these messages are rejected.
    """

    class Config(Options):
        """Where to, and which of both."""

        uri: Annotated[
            str,
            Meta(
                min_length=8,
                max_length=1024,
                description="of the port, such as http://traccar:5149 (flespi) or http://traccar:5055 (OsmAnd)",
            ),
        ]
        receiver: Annotated[
            Literal["flespi", "osmand"], Meta(description="which of Traccar's receivers listens there")
        ] = "flespi"
        without_position: Annotated[
            Literal["reject", "send"],
            Meta(
                description="OsmAnd: a message without a position: reject it, or send it, and Traccar takes the last "
                "position for it"
            ),
        ] = "reject"
        connections: Annotated[int, Meta(ge=1, le=16, description="OsmAnd: idents that are posted at a time")] = 4
        timeout: AnswerTimeout = 30.0
        ca_file: CaFile = ""

    id = 8
    title = "Traccar"

    @classmethod
    def check(cls, config: Any) -> None:
        """An address; a query would be read instead of the position."""
        check_uri(config.uri, "configuration.uri")
        parts = urlsplit(config.uri)
        if parts.query or parts.fragment:
            raise ItemError("should have no query, as in http://traccar:5055", "configuration.uri")

    async def deliver(self, batch: Sequence[Outgoing]) -> Sequence[Rejection]:
        if self.config.receiver == "osmand":
            idents = grouped(batch, lambda outgoing: outgoing.ident)
            return await side_by_side(idents.values(), self._post_positions, self.config.connections)
        texts = [_fit(outgoing) for outgoing in batch]
        rejections = [Rejection(at, text) for at, text in enumerate(texts) if isinstance(text, str)]
        part = [(at, batch[at]) for at, text in enumerate(texts) if isinstance(text, bytes)]
        if part:
            body = array(text for text in texts if isinstance(text, bytes))
            await post(lambda _: self._post(self.config.uri, body), part, skips=False)
        return rejections

    async def _post_positions(self, part: Part) -> list[Rejection]:
        rejections = []
        for index, outgoing in part:
            reason = await self._post_position(outgoing)
            if reason:
                rejections.append(Rejection(index, reason))
            else:
                outgoing.is_done = True
        return rejections

    async def _post_position(self, outgoing: Outgoing) -> str:
        """Why it is rejected; empty: it is taken. Raises RemoteUnavailable, RemoteRefused."""
        source = outgoing.source
        if not has_position(source) and self.config.without_position == "reject":
            return "it has no position, and without_position is reject; validate_message can leave it out beforehand"
        body = urlencode(form(outgoing)).encode()
        if len(body) > FORM_MOST:
            return f"it has {len(body)} bytes as a form, and Traccar's OsmAnd port takes {FORM_MOST}"
        answer = await self._post(self.config.uri, body, "application/x-www-form-urlencoded")
        if answer.status == 400:
            return f"Traccar does not know the device {outgoing.ident!r}: {answer.refusal().reason}"
        if answer.status != 200:
            raise answer.refusal()
        return ""


def _fit(outgoing: Outgoing) -> bytes | str:
    """A message as the flespi receiver can read it, or a text that says why it cannot."""
    sent = outgoing.message
    message = {**sent, **{name: value for name, value in outgoing.source.items() if _is_needed(name)}}
    for name, value in message.items():
        if name in NUMBERS and value is not None and not _is_number(value):
            return f"Traccar would take nothing of the batch: {name} should be a number"
        if name in BOUNDS and _is_number(value) and abs(value) > BOUNDS[name]:
            return f"Traccar would take nothing of the batch: {name} should be within {BOUNDS[name]:g}"
        if "#" in name and not name.partition("#")[2].isdecimal():
            return f"Traccar would take nothing of the batch: after # in {name[:128]} should be a number"
    nulls_or_texts = {
        name: value for name, value in message.items()
        if value is None or (name in TEXTS and not isinstance(value, str))
    }  # fmt: skip
    if not nulls_or_texts:
        return with_needed(outgoing, _is_needed)
    texts = {name: str(value) for name, value in nulls_or_texts.items() if value is not None}
    return orjson.dumps({name: value for name, value in message.items() if value is not None} | texts)


def _is_needed(name: str) -> bool:
    return name in ("ident", "timestamp") or name.startswith("position.")


def has_position(message: Mapping[str, Any]) -> bool:
    """Whether it has one that is on Earth."""
    return all(_is_number(message.get(name)) and abs(message[name]) <= bound for name, bound in BOUNDS.items())


def form(outgoing: Outgoing) -> dict[str, str]:
    """What the OsmAnd port reads: the position from the gateway's own names, attributes as they are to be sent."""
    source = outgoing.source
    fields = {"id": outgoing.ident, "timestamp": _timestamp(source.get("timestamp"))}
    if has_position(source):
        fields["lat"], fields["lon"] = str(source["position.latitude"]), str(source["position.longitude"])
    fields["valid"] = "true" if source.get("position.valid", has_position(source)) is True else "false"
    speed: Any = source.get("position.speed")
    if _is_number(speed):
        fields["speed"] = f"{speed / KMH_PER_KNOT:.4f}".rstrip("0").rstrip(".")
    fields |= {there: str(source[here]) for here, there in POSITION.items() if _is_number(source.get(here))}
    return fields | _attributes(outgoing.message)


def _attributes(message: Message) -> dict[str, str]:
    attributes = {}
    for name, value in message.items():
        if name in TAKEN or value is None or (name in POSITION and _is_number(value)):
            continue
        there = ATTRIBUTES.get(name, f"custom.{name}" if name in RESERVED else name)
        attributes[there] = value if isinstance(value, str) else orjson.dumps(value).decode()
    return attributes


def _timestamp(value: Any) -> str:
    """Milliseconds where they can be told from seconds."""
    if not _is_number(value):
        return "0"
    milliseconds = round(value * 1000)
    return str(milliseconds if milliseconds >= MILLISECONDS_FROM else int(value))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
