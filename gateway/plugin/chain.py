"""The plugins of one device, in the order in which its messages go through them.

An error of a plugin leaves the message as it was before it; whoever runs the chain is told. Plugins get a copy, so that
one that fails halfway has changed nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from time import perf_counter
from typing import Any

import orjson
from attrs import define, field, frozen
from twisted.logger import Logger

from gateway import metrics
from gateway.errors import GatewayError
from gateway.expressions import Context as ExpressionContext
from gateway.expressions import Expression
from gateway.message import apply_position_rules
from gateway.plugin.base import Context, DropMessage, Message, Plugin, PluginError, RemotePlugin
from gateway.store import item
from gateway.store.item import Device
from gateway.store.telemetry import Values, update

log = Logger()

SLOW = 0.05
"""Seconds after which a plugin that should answer at once is told of: all trackers wait for it."""
LOG_EVERY = 1000
MESSAGE_MOST = 1024 * 1024
"""Bytes of a message as JSON, after a plugin: trackers send 64 KiB at most, and what one sends can be named twice."""
TIMES = ("timestamp", "server.timestamp")
EXCERPT = {"ident": "ident", "timestamp": "message_timestamp", "server.timestamp": "server.timestamp"}
"""What tells which message an entry of the log is about, and how it is called there: ``timestamp`` is the entry's."""


class Use:
    """Who has messages for a plugin: none get to it before it is ready, and it is closed when nobody has any."""

    def __init__(self) -> None:
        self.is_ready = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._count = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """It is not closed for as long as the block runs."""
        self._count += 1
        self._is_idle.clear()
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._is_idle.set()

    async def ended(self) -> None:
        """Wait until nobody holds it."""
        await self._is_idle.wait()


@frozen(eq=False)
class Link:
    """A plugin, as it is assigned to the device."""

    item: item.Plugin
    plugin: Plugin
    validate: Expression | None = None
    fields: Mapping[str, Any] = field(factory=dict)
    use: Use | None = None
    """Of a plugin that is opened and closed; None: it is always ready."""

    def wants(self, message: Message, values: Values) -> bool:
        """Whether the message is for it."""
        if self.validate is None:
            return True
        if not self.validate.needs_previous:
            return self.validate.is_true(message)
        previous = {name: value for name, (_, value) in values.items()}
        return self.validate.is_true(message, ExpressionContext(previous=previous))


@frozen
class Trouble:
    """What happened to a message at a plugin: an error, or that it was dropped."""

    item: item.Plugin
    device: Device
    reason: str
    is_drop: bool
    message: Message
    """As it came to the plugin."""


Tell = Callable[[Trouble], None]


@define(eq=False)
class Chain:
    """``links`` in order. ``tell`` hears of trouble."""

    device: Device
    links: Sequence[Link]
    tell: Tell = lambda trouble: None
    is_remote: bool = field(init=False)
    """Whether it must be run by :meth:`process_many`, beside the registrar."""
    needs_telemetry: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.is_remote = any(isinstance(link.plugin, RemotePlugin) for link in self.links)
        self.needs_telemetry = any(
            link.plugin.needs_telemetry or (link.validate is not None and link.validate.needs_previous)
            for link in self.links
        )

    def without_remote(self) -> Chain:
        """The same without the plugins that ask others."""
        return Chain(self.device, [link for link in self.links if not isinstance(link.plugin, RemotePlugin)], self.tell)

    def process(self, message: Message, values: Values, now: float) -> Message | None:
        """The message after all plugins; None where one of them dropped it.

        ``values`` is the device's telemetry before it. Only for chains that are not remote.
        """
        current: Message | None = message
        for link in self.links:
            current, is_stopped = self._at_once(link, message, values, now)
            if current is None or is_stopped:
                return current
            message = current
        return current

    def _at_once(self, link: Link, message: Message, values: Values, now: float) -> tuple[Message | None, bool]:
        """The message after one plugin, and whether the others shall not see it."""
        if not link.wants(message, values):
            return message, False
        started = perf_counter()
        try:
            context = Context(self.device, link.fields, values if link.plugin.needs_telemetry else {}, now)
            return _checked(link.plugin.process(dict(message), context)), False
        except DropMessage as drop:
            self._tell(link, drop.reason, message, is_drop=True)
            return None, True
        except Exception as error:
            self._fail(link, error, message)
            return message, link.plugin.config.on_error == "stop"
        finally:
            if perf_counter() - started > SLOW:
                self._warn(link, perf_counter() - started)

    async def process_many(self, messages: Sequence[Message], values: Values, now: float) -> list[Message | None]:
        """Of each message what is left of it, as :meth:`process` does; ``values`` is the telemetry before the first.

        A plugin that is changed or removed meanwhile is not closed before they got to it.
        """
        with ExitStack() as holding:
            for link in self.links:
                if link.use is not None:
                    holding.enter_context(link.use.held())
            return await self._through_all(messages, values, now)

    async def _through_all(self, messages: Sequence[Message], values: Values, now: float) -> list[Message | None]:
        results: list[Message | None] = list(messages)
        going = list(range(len(messages)))
        for link in self.links:
            if isinstance(link.plugin, RemotePlugin):
                going = await self._remotely(link, link.plugin, results, going, values, now)
            else:
                going = self._singly(link, results, going, dict(values), now)
            if not going:
                break
            await asyncio.sleep(0)
        return results

    def _singly(
        self, link: Link, results: list[Message | None], going: list[int], values: Values, now: float
    ) -> list[int]:
        left = []
        for index in going:
            message = results[index]
            assert message is not None
            results[index], is_stopped = self._at_once(link, message, values, now)
            if not is_stopped:
                left.append(index)
            left_of_it = results[index]
            if self.needs_telemetry and left_of_it is not None:
                update(values, apply_position_rules(dict(left_of_it)))
        return left

    async def _remotely(
        self,
        link: Link,
        plugin: RemotePlugin,
        results: list[Message | None],
        going: list[int],
        values: Values,
        now: float,
    ) -> list[int]:
        wanted = [index for index in going if link.wants(results[index] or {}, values)]
        stopped: set[int] = set()
        context = Context(self.device, link.fields, values if plugin.needs_telemetry else {}, now)
        for start in range(0, len(wanted), plugin.batch_most):
            part = wanted[start : start + plugin.batch_most]
            given: list[Message] = [dict(results[index] or {}) for index in part]
            limit = asyncio.timeout(plugin.time_limit)
            try:
                async with limit:
                    if link.use is not None:
                        await link.use.is_ready.wait()
                    answers = await plugin.process_many(given, context)
                if len(answers) != len(part):
                    raise PluginError(f"{len(answers)} messages came back for {len(part)}")
                changed = [None if answer is None else _checked(answer) for answer in answers]
            except Exception as error:
                for index in part:
                    self._fail(link, _timed(error, limit, plugin.time_limit), results[index] or {})
                stopped.update(part if plugin.config.on_error == "stop" else ())
                continue
            for index, message in zip(part, changed, strict=True):
                if message is None:
                    self._tell(link, "", results[index] or {}, is_drop=True)
                    stopped.add(index)
                results[index] = message
        return [index for index in going if index not in stopped]

    def _fail(self, link: Link, error: Exception, message: Message) -> None:
        if not isinstance(error, GatewayError):
            count = metrics.count("plugin_mistakes", type=link.plugin.name)
            if count == 1 or count % 1000 == 0:
                log.failure("plugin {id} ({type}) has a mistake", id=link.item.id, type=link.plugin.name)
            self._tell(link, f"{type(error).__name__}: {error}", message)
        else:
            self._tell(link, str(error), message)

    def _tell(self, link: Link, reason: str, message: Message, *, is_drop: bool = False) -> None:
        if is_drop:
            metrics.count("plugin_messages_dropped", type=link.plugin.name, plugin=str(link.item.id))
        else:
            count = metrics.count("plugin_errors", type=link.plugin.name, plugin=str(link.item.id))
            if count == 1 or count % LOG_EVERY == 0:
                log.warn(
                    "plugin {id} ({name}): {reason} ({n}. message that it failed on)",
                    id=link.item.id, name=link.item.name, reason=reason, n=count,
                )  # fmt: skip
        self.tell(Trouble(link.item, self.device, reason, is_drop, message))

    def _warn(self, link: Link, seconds: float) -> None:
        count = metrics.count("plugin_slow", type=link.plugin.name)
        if count == 1 or count % 1000 == 0:
            log.warn(
                "plugin {id} ({type}) took {ms:.0f} ms for a message, while all trackers waited: "
                "derive it from RemotePlugin if it waits for something",
                id=link.item.id, type=link.plugin.name, ms=seconds * 1000,
            )  # fmt: skip


def _checked(message: Any) -> Message:
    """What a plugin gave. Raises PluginError where it is no message any more: whatever got through could not be stored,
    and would take the rest of its packet with it."""
    if not isinstance(message, dict):
        raise PluginError(f"the plugin should give a message (a dict), not {type(message).__name__}")
    try:
        size = len(orjson.dumps(message))
    except TypeError as error:
        raise PluginError(f"the message cannot be JSON any more: {error}") from None
    if size > MESSAGE_MOST:
        raise PluginError(f"the message has {size} bytes after the plugin, {MESSAGE_MOST} is the most")
    for name in TIMES:
        if not _is_finite(message.get(name)):
            raise PluginError(f"{name} should stay a number, not {message.get(name)!r:.50}")
    if "timestamp.key" in message and not _is_finite(message["timestamp.key"]):
        raise PluginError(f"timestamp.key should be a number, not {message['timestamp.key']!r:.50}")
    return message


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _timed(error: Exception, limit: asyncio.Timeout, seconds: float) -> Exception:
    """A plugin can run into time limits of its own, too."""
    return PluginError(f"no answer within {seconds:g} s") if limit.expired() else error
