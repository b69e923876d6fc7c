"""What clients want of devices: commands at once or from the queue, settings. All is checked before it is stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import define

from gateway.protocols.catalog import PROTOCOLS
from gateway.protocols.teltonika.command_list import Request
from gateway.protocols.teltonika.settings import Setting
from gateway.store.command import CommandResult, NewCommand, QueuedCommand, result_of
from gateway.store.conversation import Job
from gateway.store.dispatcher import Dispatcher
from gateway.store.event_codes import EventCode
from gateway.store.hiding import without_secrets
from gateway.store.items import Device
from gateway.store.outcomes import Books, ForClient, record_of
from gateway.store.settings import Shadow

MARGIN = 5.0
"""Seconds that a client waits longer than its command: Redis may be slow to say that it is over."""


@define(eq=False)
class Orders:
    """For one process. Errors that name a command or a setting are worded for who asked for it."""

    _books: Books
    _dispatcher: Dispatcher
    _clock: Callable[[], float] = time.monotonic
    """The dispatcher's."""

    # -- commands

    async def send(self, device: Device, name: str, properties: Mapping[str, Any], timeout: float) -> CommandResult:
        """Send a command and wait for its answer, ``timeout`` seconds at most; the result says why there is none.

        Raises CommandError where devices of this type have no such command.
        """
        request = _request(device, name, properties)
        command = self._command_of(device, name, properties)
        if not self._dispatcher.is_connected(device.id):
            return result_of(
                command,
                error=f"failed to deliver command {name} with timeout pending, "
                f"device with id {device.id} is not connected",
            )
        origin = ForClient(self._books, command, request, asyncio.get_running_loop().create_future())
        deadline = self._clock() + timeout
        job = Job(request.payload, request.codec_id, request.is_answered, origin, timeout, deadline)
        if not self._dispatcher.ask(device.id, job):
            return result_of(command, error=f"failed to deliver command {name}: too many wait for device {device.id}")
        try:
            async with asyncio.timeout(timeout + MARGIN):
                return await origin.done
        except TimeoutError:
            return result_of(command, error=f"failed to deliver command {name}: no answer within {timeout:g} s")

    def reaches(self, device: Device) -> bool:
        """Whether the device is connected here."""
        return self._dispatcher.is_connected(device.id)

    def _command_of(self, device: Device, name: str, properties: Mapping[str, Any]) -> QueuedCommand:
        """One that is in no queue."""
        return QueuedCommand(
            id=self._books.queue.new_id(),
            device_id=device.id,
            ident=device.ident,
            name=name,
            properties=dict(properties),
            expires=0,
            max_attempts=1,
            attempts=1,
        )

    async def enqueue(self, device: Device, new: NewCommand) -> QueuedCommand:
        """Have a command wait until the device takes it. Raises CommandError, CommandRefused, StoreError."""
        _request(device, new.name, new.properties)
        command = await self._books.queue.add(device.id, device.ident, new)
        record_of(self._books, command, EventCode.COMMAND_QUEUED)
        self._dispatcher.poke(device.id)
        return command

    async def remove(self, device_id: int, ids: Iterable[int] | None = None) -> list[QueuedCommand]:
        """Take commands out of a device's queue; None: all. Gives those that were there. Raises StoreError."""
        removed = await self._books.queue.remove(device_id, ids)
        for command in removed:
            record_of(self._books, command, EventCode.COMMAND_REMOVED)
        return removed

    # -- settings

    async def request_setting(self, device: Device, name: str, values: dict[str, Any]) -> Shadow:
        """Have a setting changed as soon as possible. Raises SettingError, StoreError."""
        _setting(device, name).encode(values)
        shadow = await self._books.settings.request(device.id, name, values)
        self._books.record(device.id, EventCode.SETTING_PENDING, name=name, pending=without_secrets(values))
        self._dispatcher.poke(device.id)
        return shadow

    async def reread_setting(self, device: Device, name: str) -> Shadow:
        """Forget what a setting is, and ask the device as soon as possible. Raises SettingError, StoreError."""
        _setting(device, name)
        shadow = await self._books.settings.reread(device.id, name)
        self._books.record(device.id, EventCode.SETTING_CLEARED, name=name)
        self._dispatcher.poke(device.id)
        return shadow

    async def cancel_setting(self, device: Device, name: str) -> Shadow | None:
        """Change nothing after all; None: nothing was pending. Raises SettingError, StoreError."""
        _setting(device, name)
        shadow = await self._books.settings.cancel(device.id, name)
        if shadow is not None:
            self._books.record(device.id, EventCode.SETTING_CANCELLED, name=name)
        return shadow


def _request(device: Device, name: str, properties: Mapping[str, Any]) -> Request:
    protocol = PROTOCOLS[device.protocol_id]
    return protocol.request_of(name, properties, protocol.model_of(device.device_type_id))


def _setting(device: Device, name: str) -> Setting:
    protocol = PROTOCOLS[device.protocol_id]
    return protocol.find_setting(name, protocol.model_of(device.device_type_id))
