"""What becomes of what is said to a device: for the queue, for a client that waits, for a setting.

Each is the ``origin`` of a :class:`~gateway.store.conversation.Job`. It is told once that the command was sent, and
once what came of it: an answer, none, or that the connection broke. It writes the event log, the results and the
shadows of the settings.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen

from gateway.protocols.teltonika.command_list import Request
from gateway.protocols.teltonika.settings import Setting
from gateway.store.command import CommandResult, QueuedCommand, result_of
from gateway.store.commands import CommandQueue
from gateway.store.event_codes import EventCode
from gateway.store.hiding import without_secrets
from gateway.store.settings import ATTEMPTS_MOST, DeviceSettings, Shadow

REPLY_SHOWN = 256
"""Characters of a reply that says nothing of the setting."""

Record = Callable[..., None]
"""Writes the event log: (device id, event code, **fields)."""


@frozen
class Books:
    """Where all of it is written."""

    queue: CommandQueue
    settings: DeviceSettings
    record: Record


class Origin(ABC):
    """Whose command it is. All methods raise StoreError."""

    @property
    def is_open(self) -> bool:
        """Whether an answer is of interest, even a late one."""
        return True

    @abstractmethod
    async def sent(self) -> None:
        """The command is on its way."""

    @abstractmethod
    async def answered(self, payload: bytes, refusal: str) -> None:
        """The device's response; ``refusal``: why it does not obey."""

    @abstractmethod
    async def failed(self, reason: str) -> None:
        """No answer came in time, or the command could not be sent."""

    @abstractmethod
    async def dropped(self) -> None:
        """The connection is gone."""


@define(eq=False)
class ForQueue(Origin):
    """A command of the device's queue; one that gets no answer is sent again, as often as it may be."""

    books: Books
    command: QueuedCommand
    request: Request

    async def sent(self) -> None:
        record_of(self.books, self.command, EventCode.COMMAND_SENT, attempt=self.command.attempts)
        if not self.request.is_answered:
            await finish(self.books, self.command)

    async def answered(self, payload: bytes, refusal: str) -> None:
        if refusal:
            await finish(self.books, self.command, error=refusal)
        else:
            await finish(self.books, self.command, response=self.request.reply(payload))

    async def failed(self, reason: str) -> None:
        """It stays taken until it can be sent again: a device that is slow may answer yet."""
        if self.command.is_exhausted:
            await self.books.queue.give_up(self.command)

    async def dropped(self) -> None:
        if self.command.is_exhausted:
            await self.books.queue.give_up(self.command)
        else:
            await self.books.queue.release(self.command)


@define(eq=False)
class ForClient(Origin):
    """A command whose sender waits: ``done`` gets its result."""

    books: Books
    command: QueuedCommand
    request: Request
    done: asyncio.Future[CommandResult]

    @property
    def is_open(self) -> bool:
        return not self.done.done()

    async def sent(self) -> None:
        record_of(self.books, self.command, EventCode.COMMAND_SENT, attempt=self.command.attempts)
        if not self.request.is_answered:
            await self._end(result_of(self.command))

    async def answered(self, payload: bytes, refusal: str) -> None:
        response = None if refusal else self.request.reply(payload)
        await self._end(result_of(self.command, response=response, error=refusal or None))

    async def failed(self, reason: str) -> None:
        await self._end(result_of(self.command, error=f"failed to deliver command {self.command.name}: {reason}"))

    async def dropped(self) -> None:
        await self.failed("the connection was lost before the answer came")

    async def _end(self, result: CommandResult) -> None:
        """The client has its result even where it cannot be stored."""
        if not self.done.done():
            self.done.set_result(result)
            record_result(self.books, result)
            await self.books.queue.record(result)


@define(eq=False)
class ForSetting(Origin):
    """A setting that is applied or read; it may take several commands, one after the other."""

    books: Books
    device_id: int
    shadow: Shadow
    setting: Setting
    texts: list[str]
    """The commands that are still to be sent."""
    told: dict[str, str] = field(factory=dict)
    """What the device said so far: parameter -> value."""
    reply: str = ""
    """What it said instead."""
    is_over: bool = False

    @property
    def is_open(self) -> bool:
        return not self.is_over

    async def sent(self) -> None:
        self.texts.pop(0)
        self._record(EventCode.SETTING_REQUESTED, attempt=self.shadow.attempts)

    async def answered(self, payload: bytes, refusal: str) -> None:
        told = self.setting.parameters_in(payload)
        self.told |= told
        if not told:
            self.reply = refusal or payload.decode(errors="replace")[:REPLY_SHOWN]
        if not self.texts:
            await self._end()

    async def _end(self) -> None:
        values = self.setting.decode(self.told)
        pending = self.shadow.pending
        if values and (pending is None or self.setting.is_confirmed(pending, self.told)):
            self.is_over = True
            await self.books.settings.told(self.device_id, self.shadow, values)
            code = EventCode.SETTING_RECEIVED if pending is None else EventCode.SETTING_APPLIED
            self._record(code, current=without_secrets(values))
        else:
            await self._fail(self.reply or f"the device answers {values}")

    async def failed(self, reason: str) -> None:
        """It stays taken until it can be tried again."""
        await self._give_up(reason, may_try_again=False)

    async def dropped(self) -> None:
        await self._give_up("the connection was lost before the answer came", may_try_again=True)

    async def _give_up(self, reason: str, *, may_try_again: bool) -> None:
        if self.is_over:
            return
        self.is_over = True
        if self.shadow.attempts >= ATTEMPTS_MOST:
            await self._fail(reason)
        elif may_try_again:
            await self.books.settings.release(self.device_id, self.shadow)

    async def _fail(self, reason: str) -> None:
        self.is_over = True
        if await self.books.settings.failed(self.device_id, self.shadow, reason) is not None:
            is_read = self.shadow.pending is None
            self._record(EventCode.SETTING_UNREADABLE if is_read else EventCode.SETTING_REJECTED, reason=reason)

    def _record(self, code: EventCode, **fields: Any) -> None:
        self.books.record(self.device_id, code, name=self.setting.name, **fields)


async def finish(books: Books, command: QueuedCommand, **outcome: Any) -> bool:
    """A command of a queue is over, with a ``response`` or an ``error``; False: it was over already."""
    result = await books.queue.finish(command, **outcome)
    if result is not None:
        record_result(books, result)
    return result is not None


def record_of(books: Books, command: QueuedCommand, code: EventCode, **fields: Any) -> None:
    """Write that this happened to a command."""
    about = {"ident": command.ident, "name": command.name, "command_id": command.id}
    books.record(command.device_id, code, **about, **fields)


def record_result(books: Books, result: CommandResult) -> None:
    """Write what became of a command."""
    about = {"ident": result.ident, "name": result.name, "command_id": result.id, "executed": result.executed}
    outcome = {"response": result.response, "reason": result.error}
    books.record(result.device_id, EventCode.COMMAND_PROCESSED, **about, **outcome)
