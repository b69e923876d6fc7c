"""The chains of all devices: made of the plugins that are assigned to them, and kept until something of it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from attrs import define, field
from twisted.logger import Logger

from gateway.errors import ExpressionError, GatewayError
from gateway.expressions import Expression, compile_expression
from gateway.plugin.base import Plugin
from gateway.plugin.chain import EXCERPT, Chain, Link, Trouble, Use
from gateway.plugin.types import PluginType
from gateway.store import item
from gateway.store.event_codes import EventCode
from gateway.store.item import Device
from gateway.store.items import Change, Items
from gateway.store.links import Link as ItemLink

Record = Callable[..., object]
OPEN_TIME = 30.0
"""Seconds that a plugin may take to get ready, or to end."""
MOST_TIME = 120.0
"""Seconds that a plugin which is changed or removed may go on with what it was given."""


@define(eq=False)
class Running:
    """A plugin with its configuration; ``reason`` says why it cannot be used."""

    item: item.Plugin
    plugin: Plugin | None
    validate: Expression | None = None
    reason: str = ""
    use: Use = field(factory=Use)


class Chains:
    """``record`` writes to the event log. Follows the items; :meth:`start` once they are loaded."""

    log = Logger()

    def __init__(self, items: Items, types: Mapping[str, PluginType], record: Record = lambda *_, **__: None) -> None:
        self.types = types
        self._items = items
        self._record = record
        self._running: dict[int, Running] = {}
        self._chains: dict[int, Chain | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        items.on_change.append(self._item_changed)
        items.links.on_change.append(self._link_changed)

    async def start(self) -> None:
        """Make ready what there is."""
        for plugin in self._items.plugins.values():
            self._start(plugin)

    async def stop(self) -> None:
        """End all plugins."""
        for running in self._running.values():
            self._end(running)
        self._running.clear()
        self._chains.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def of(self, device: Device) -> Chain | None:
        """The chain of a device; None where it has no plugin."""
        try:
            return self._chains[device.id]
        except KeyError:
            chain = self._chains[device.id] = self._make(device)
            return chain

    def problem(self, plugin_id: int) -> str:
        """Why a plugin cannot be used; empty where it can."""
        running = self._running.get(plugin_id)
        return running.reason if running is not None else ""

    def _make(self, device: Device) -> Chain | None:
        links = []
        for plugin_id, link in self._items.links.to("devices", device.id, "plugins").items():
            running = self._running.get(plugin_id)
            if running is not None and running.plugin is not None and running.item.enabled:
                links.append(Link(running.item, running.plugin, running.validate, link.fields, running.use))
        links.sort(key=lambda link: (link.item.priority, link.item.id))
        return Chain(device, links, self._tell) if links else None

    def _start(self, plugin: item.Plugin) -> None:
        running = self._running[plugin.id] = self._made(plugin)
        if running.plugin is not None:
            self._run(running, self._open(running, running.plugin))
        elif running.reason:
            self.log.error("plugin {id} ({name}): {reason}", id=plugin.id, name=plugin.name, reason=running.reason)
            self._record("plugins", plugin.id, EventCode.CONFIGURATION_INVALID, reason=running.reason)

    def _made(self, plugin: item.Plugin) -> Running:
        kind = self.types.get(plugin.type)
        if kind is None:
            return Running(plugin, None, reason=f"there is no plugin type {plugin.type} any more")
        try:
            config = msgspec.convert(plugin.configuration, kind.cls.Config)
            kind.cls.check(config)
            validate = compile_expression(plugin.validate_message) if plugin.validate_message else None
            return Running(plugin, kind.cls(config), validate)
        except (msgspec.ValidationError, ExpressionError, GatewayError) as error:
            return Running(plugin, None, reason=str(error))
        except Exception as error:  # an operator's own type
            return Running(plugin, None, reason=f"{type(error).__name__}: {error}")

    def _run(self, running: Running, coroutine: Any) -> None:
        task = asyncio.ensure_future(self._in_time(running, coroutine))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _in_time(self, running: Running, coroutine: Any) -> None:
        try:
            await coroutine
        except Exception as error:
            reason = str(error) or type(error).__name__
            self.log.error("plugin {id} ({name}): {reason}", id=running.item.id, name=running.item.name, reason=reason)
            self._record("plugins", running.item.id, EventCode.PLUGIN_ERROR, reason=reason)

    def _end(self, running: Running) -> None:
        if running.plugin is not None:
            self._run(running, self._close(running, running.plugin))

    async def _open(self, running: Running, plugin: Plugin) -> None:
        try:
            async with asyncio.timeout(OPEN_TIME):
                await plugin.open()
        finally:
            running.use.is_ready.set()  # what it cannot do without is said of each message

    async def _close(self, running: Running, plugin: Plugin) -> None:
        try:
            async with asyncio.timeout(MOST_TIME):
                await running.use.ended()
        finally:
            async with asyncio.timeout(OPEN_TIME):
                await plugin.close()

    # -- what changes

    def _item_changed(self, change: Change) -> None:
        if change.kind == "devices":
            self._chains.pop(change.id, None)
        elif change.kind == "plugins":
            self._chains.clear()
            before = self._running.pop(change.id, None)
            if before is not None:
                self._end(before)
            if isinstance(change.new, item.Plugin):
                self._start(change.new)

    def _link_changed(self, old: ItemLink | None, new: ItemLink | None) -> None:
        link = new or old
        if link is None or link.kind != "plugins":
            return
        self._chains.pop(link.to_id, None)
        if old is None or new is None:
            code = EventCode.PLUGIN_ACTIVATED if old is None else EventCode.PLUGIN_DEACTIVATED
            self._record("plugins", link.id, code, device_id=link.to_id)
            if link.to_id in self._items.devices:
                self._record("devices", link.to_id, code, plugin_id=link.id)

    def _tell(self, trouble: Trouble) -> None:
        code = EventCode.PLUGIN_STATUS if trouble.is_drop else EventCode.PLUGIN_ERROR
        about = {called: trouble.message[name] for name, called in EXCERPT.items() if name in trouble.message}
        reason = trouble.reason or ("the message is not registered" if trouble.is_drop else "")
        shown = {} if trouble.is_drop else {"message": trouble.message}
        self._record("plugins", trouble.item.id, code, device_id=trouble.device.id, reason=reason, **about, **shown)
        self._record("devices", trouble.device.id, code, plugin_id=trouble.item.id, reason=reason, **about)
