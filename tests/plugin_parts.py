"""Plugins of the tests, and chains of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from gateway.expressions import compile_expression
from gateway.plugin import Config, Context, DropMessage, Message, Plugin, PluginError, RemotePlugin
from gateway.plugin.chain import Chain, Link, Trouble
from gateway.plugin.types import find_types
from gateway.store import item
from gateway.store.item import Device
from gateway.store.telemetry import Values

DEVICE = Device(7, "Van", 14, 303, configuration={"ident": "352093081452251"})
MESSAGE = {"ident": "352093081452251", "timestamp": 100, "server.timestamp": 110.5}
Do = Callable[[Message, Context], Any]


class Does(Plugin):
    """Does with messages what it was told."""

    name = "does"
    open_error: Exception | None = None

    def __init__(self, do: Do, on_error: str = "skip", *, needs_telemetry: bool = False) -> None:
        super().__init__(Config(on_error=on_error))  # type: ignore[arg-type]
        self._do = do
        self.needs_telemetry = needs_telemetry

    def process(self, message: Message, context: Context) -> Message:
        return self._do(message, context)  # type: ignore[no-any-return]


class Asks(RemotePlugin):
    """Answers batches as it was told, and notes them."""

    name = "asks"

    def __init__(self, answer: Callable[[Sequence[Message]], Any], on_error: str = "skip") -> None:
        super().__init__(Config(on_error=on_error))  # type: ignore[arg-type]
        self._answer = answer
        self.batches: list[list[Message]] = []
        self.contexts: list[Context] = []

    async def process_many(self, messages: Sequence[Message], context: Context) -> Any:
        self.batches.append(list(messages))
        self.contexts.append(context)
        answer = self._answer(messages)
        return await answer if asyncio.iscoroutine(answer) else answer


def marks(name: str) -> Do:
    """Adds itself to the list of who has seen the message."""
    return lambda message, context: message | {"seen": [*message.get("seen", []), name]}


def drops(reason: str = "") -> Do:
    def do(message: Message, context: Context) -> Message:
        raise DropMessage(reason)

    return do


def fails(error: Exception | None = None) -> Do:
    """Fails after it has changed the message."""

    def do(message: Message, context: Context) -> Message:
        message["half"] = True
        raise error or PluginError("it does not work")

    return do


def link(plugin: Plugin, id: int = 1, validate: str = "", **fields: Any) -> Link:
    """A plugin as it is assigned."""
    return Link(
        item.Plugin(id, plugin.name, plugin.name), plugin, compile_expression(validate) if validate else None, fields
    )


def chain(*links: Link | Plugin) -> tuple[Chain, list[Trouble]]:
    """A chain of these, and what it tells."""
    trouble: list[Trouble] = []
    made = [each if isinstance(each, Link) else link(each, id) for id, each in enumerate(links, 1)]
    return Chain(DEVICE, made, trouble.append), trouble


def made(type: str, **config: Any) -> Plugin:
    """A plugin of one of our types, as the API makes it. Raises what its options are refused with."""
    cls = find_types()[type].cls
    checked = msgspec.convert(config, cls.Config)
    cls.check(checked)
    return cls(checked)


def applied(
    plugin: Plugin, message: Message, fields: dict[str, Any] | None = None, values: Values | None = None
) -> Message:
    """What the plugin makes of a message, beside what every message has."""
    result = plugin.process(MESSAGE | message, Context(DEVICE, fields or {}, values or {}, 120.0))
    return {name: value for name, value in result.items() if name not in MESSAGE or MESSAGE[name] != value}
