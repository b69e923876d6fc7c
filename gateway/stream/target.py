"""What a type of stream is: it opens a connection to a target, and delivers batches over it.

A type is one file with one class. It keeps nothing and repeats nothing: a batch is delivered, or an error says why not,
and the sender does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import orjson
from attrs import define, field, frozen
from msgspec import Meta, Struct

Message = dict[str, Any]

BATCH_MOST = 10_000
FIELDS_MOST = 500
Timeout = Annotated[float, Meta(gt=0, le=120, description="seconds that the target may take for a batch")]


class Conversion(Struct, forbid_unknown_fields=True, kw_only=True):
    """What messages look like at the target."""

    fields: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=128)]],
        Meta(max_length=FIELDS_MOST, description="parameters to send, such as position.*; none named: all"),
    ] = []
    dots: Annotated[
        Literal["keep", "underscore", "camelcase"],
        Meta(description="names of parameters: position.speed, position_speed, or positionSpeed"),
    ] = "keep"


class Options(Struct, forbid_unknown_fields=True, kw_only=True):
    """The configuration of a type. Subclasses add their own; each needs a description, which the API shows."""

    limit_messages: Annotated[int, Meta(ge=1, le=BATCH_MOST, description="messages in a batch at most")] = 100
    convert_message: Annotated[Conversion | None, Meta(description="which parameters are sent, and their names")] = None


@frozen
class StreamInfo:
    """What a target may know of its stream."""

    id: int
    name: str


@define(eq=False, slots=False)
class Outgoing:
    """A message on its way. ``text`` is its JSON, as it shall be sent; ``message`` the same as a dict.

    ``device_id`` 0: it is the channel's version; ``channel_id`` 0: it was posted to a device. ``received``: when the
    gateway got it, UNIX seconds.
    """

    text: bytes
    ident: str
    device_id: int = 0
    channel_id: int = 0
    received: float = 0.0
    original: Message | None = field(default=None, repr=False)
    """Before names were converted; None: they were not."""
    is_done: bool = False
    """Set by a target that has delivered a part of a batch before an error: it is not delivered again."""

    @cached_property
    def message(self) -> Message:
        """Decoded. Not to be changed."""
        decoded: Message = orjson.loads(self.text)
        return decoded

    @property
    def source(self) -> Message:
        """With the gateway's own names of parameters, whatever is sent."""
        return self.original if self.original is not None else self.message


@frozen
class Rejection:
    """The target will never take this message of the batch: ``index``, and what it said."""

    index: int
    reason: str


class Target:
    """Base of all types. The docstring of a type's class is its description in the API.

    ``name`` is set where the type is found. ``title`` and ``id`` are for the API: ``id`` differs from those of all
    other types, for ever.
    """

    Config: ClassVar[type[Options]] = Options
    name: ClassVar[str] = ""
    id: ClassVar[int] = 0
    title: ClassVar[str] = ""

    def __init__(self, config: Any, stream: StreamInfo) -> None:
        """``config`` is of the type's ``Config``."""
        self.config = config
        self.stream = stream

    @classmethod
    def check(cls, config: Any) -> None:
        """What the types of ``Config`` do not say. Raises ItemError that names the field."""

    async def open(self) -> None:
        """Connect, as far as the target has connections. Raises RemoteUnavailable, RemoteRefused, ConfigError.

        Called again after an error; :meth:`close` comes before.
        """

    async def deliver(self, batch: Sequence[Outgoing]) -> Sequence[Rejection]:
        """Deliver a batch, in order, and return when the target has confirmed it; what it refused for good is named.

        Raises RemoteUnavailable (the connection is closed and opened again) and RemoteRefused (it is kept): what of the
        batch is not ``is_done`` is delivered again later, half of it where the refusal says that it is too large.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Disconnect. Never raises; harmless where it is not connected."""
