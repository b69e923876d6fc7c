"""What a plugin is: a message goes in, and a message comes out, or :class:`DropMessage` says that there is none.

A type is one file with one class. What it does at once is a :class:`Plugin`; what asks another system is a
:class:`RemotePlugin`, which may take its time: the messages of its devices wait for it beside those of all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from attrs import field, frozen
from msgspec import Meta, Struct

from gateway.errors import GatewayError
from gateway.store.item import Device
from gateway.store.telemetry import Values

Message = dict[str, Any]

NAME_MOST = 128
"""Characters of a parameter's name."""
NAME = r"^[^\x00-\x1f\x7f/#+]+(?![\s\S])"
"""Printable, and safe in a topic; the end is spelled so because ``$`` would allow a line feed, in Python alone."""
ParameterName = Annotated[
    str, Meta(min_length=1, max_length=NAME_MOST, pattern=NAME, description="name of a parameter, without / # +")
]
Mask = Annotated[
    str, Meta(min_length=1, max_length=NAME_MOST, description="name of a parameter, or a mask of * and ? for several")
]
Timeout = Annotated[float, Meta(gt=0, le=60, description="seconds that an answer may take")]


OBLIGATORY = frozenset(
    {
        "ident",
        "timestamp",
        "server.timestamp",
        "channel.id",
        "peer",
        "protocol.id",
        "device.id",
        "device.name",
        "device.type.id",
    }
)
"""What every message of a device has; no type of ours takes it away."""


class PluginError(GatewayError):
    """A plugin could not do its work on a message. The message says why."""


class DropMessage(Exception):
    """The message shall not be registered for the device; the channel's message stays. ``reason`` is logged."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class Config(Struct, forbid_unknown_fields=True, kw_only=True):
    """The options of a type. Subclasses add their own; each needs a description, which the API shows."""

    on_error: Annotated[
        Literal["skip", "stop"],
        Meta(
            description="what a message goes through after an error of this plugin: the other plugins (skip), "
            "or none of them (stop)"
        ),
    ] = "skip"


class _LastValues(Mapping[str, Any]):
    """Telemetry as a message: the last value of each parameter."""

    def __init__(self, values: Values) -> None:
        self._values = values

    def __getitem__(self, name: str) -> Any:
        return self._values[name][1]

    def __iter__(self) -> Any:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@frozen
class Context:
    """What a plugin may know besides the message.

    ``fields`` are those of the plugin for this device. ``telemetry`` has the last value of each parameter of the
    device before this message, with its time: name -> (unix seconds, value). ``now`` is in unix seconds.
    """

    device: Device
    fields: Mapping[str, Any] = field(factory=dict)
    telemetry: Values = field(factory=dict)
    now: float = 0.0

    @property
    def last(self) -> Mapping[str, Any]:
        """The last value of each parameter."""
        return _LastValues(self.telemetry)


class Plugin:
    """Base of all types. The docstring of a type's class is its description in the API.

    ``name`` is set where the type is found: that of the file, with hyphens. One object works on the messages of all
    devices that a plugin is assigned to, so it keeps nothing of them. ``needs_telemetry``: whether
    ``context.telemetry`` is to be filled; of a type, or of one object of it by its configuration.
    """

    Config: ClassVar[type[Config]] = Config
    name: ClassVar[str] = ""
    needs_telemetry: bool = False

    def __init__(self, config: Any) -> None:
        """``config`` is of the type's ``Config``. Raises PluginError where it cannot be used."""
        self.config = config

    @classmethod
    def check(cls, config: Any) -> None:
        """What the types of ``Config`` do not say. Raises ItemError that names the field."""

    def process(self, message: Message, context: Context) -> Message:
        """The message as it shall be registered: ``message`` itself, changed, or another one.

        Lists and objects in it are shared with the message before: put another one in the place of one that changes.
        Raises DropMessage, PluginError. Whatever else it raises is logged as a mistake of the type.
        """
        raise NotImplementedError

    async def open(self) -> None:
        """Get ready, before the first message. Raises PluginError."""

    async def close(self) -> None:
        """There will be no more messages."""


class RemotePlugin(Plugin):
    """A type that asks other systems. It gets several messages of a device at once, in order.

    ``batch_most``: messages of a device at once. ``time_limit``: seconds that they may take; what has not come by then
    is an error. Both are of a type, or of one object of it by its configuration.
    """

    batch_most: int = 100
    time_limit: float = 60.0

    async def process_many(self, messages: Sequence[Message], context: Context) -> Sequence[Message | None]:
        """As many messages as came, None for those that shall not be registered.

        ``context.telemetry`` is that before the first of them. Raises PluginError, RemoteError.
        """
        raise NotImplementedError
