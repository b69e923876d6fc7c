"""Sends commands to the devices that are connected here, and brings their answers to where they belong.

A connection (:class:`Link`) says when it comes and goes, when it may have become free, and what the device answers.
What clients want is in :mod:`gateway.store.orders`. What waits in the store, and became possible elsewhere or with
time, is looked for every :data:`REFRESH_EVERY` seconds.

Each connected device has a conversation, and a task at a time that does what the conversation says.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Protocol

from attrs import define, field
from twisted.logger import Logger

from gateway.aio import heed_cancellation
from gateway.errors import GatewayError, StoreError
from gateway.store.command import QueuedCommand
from gateway.store.conversation import NEVER, QUIET_TIME, Conversation, Fetch, GiveUp, Job, Send, Step
from gateway.store.event_codes import EventCode
from gateway.store.items import Change, Items
from gateway.store.jobs import Jobs, Sources
from gateway.store.outcomes import Books, Origin, record_of
from gateway.store.telemetry import Telemetry

TICK = 0.5
"""Seconds between looks at what has waited for too long."""
REFRESH_EVERY = 15.0
"""Seconds between looks for what waits in the store."""
BREATH = 100
"""Devices that are stirred before others have their turn."""


class Link(Protocol):
    """A device's connection."""

    @property
    def may_send_command(self) -> bool:
        """Whether a command can go out just now."""

    def send_command(self, payload: bytes, codec_id: int) -> None:
        """Send it. Raises GatewayError where that cannot be."""

    def abandon_command(self) -> None:
        """Its answer is not waited for any longer, or none is due. Raises GatewayError."""


@define(eq=False)
class _Talk:
    """What is going on with one connection. Lists, for they are mostly empty, and an empty deque takes 600 bytes."""

    device_id: int
    link: Link
    jobs: Jobs
    conversation: Conversation
    answers: list[tuple[Origin, bytes, str]] = field(factory=list)
    undone: list[Origin] = field(factory=list)
    is_stirred: bool = False
    """Something happened since its task last asked what to do."""
    has_task: bool = False


class Dispatcher:
    """The commands of one process. What is no coroutine waits for nothing, and may be called at any time."""

    log = Logger()

    def __init__(
        self,
        items: Items,
        books: Books,
        telemetry: Telemetry,
        clock: Callable[[], float] = time.monotonic,
        *,
        quiet_time: float = QUIET_TIME,
    ) -> None:
        """``quiet_time``: seconds after a login in which nothing is sent."""
        self._books = books
        self._sources = Sources(items, books, telemetry)
        self._clock = clock
        self._quiet_time = quiet_time
        self._talks: dict[int, _Talk] = {}
        self._timed: set[_Talk] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._with_work: set[int] = set()
        self._deleted: list[int] = []
        books.queue.on_give_up = self._gave_up
        items.on_change.append(self._item_changed)

    # -- what connections say

    def connected(self, device_id: int, link: Link) -> None:
        """The device was let in on this connection just now; one that it had before is gone."""
        self.disconnected(device_id)
        conversation = Conversation.begun(self._clock(), self._quiet_time)
        self._talks[device_id] = talk = _Talk(device_id, link, Jobs(device_id, self._sources), conversation)
        if device_id in self._with_work:
            talk.conversation.wake()
            self._stir(talk)

    def disconnected(self, device_id: int, link: Link | None = None) -> None:
        """The connection is gone; ``link`` None: whichever the device has."""
        talk = self._talks.get(device_id)
        if talk is not None and link in (None, talk.link):
            del self._talks[device_id]
            self._timed.discard(talk)
            talk.undone += [job.origin for job in talk.conversation.close()]
            talk.undone += talk.jobs.rest()
            self._stir(talk)

    def line_changed(self, device_id: int) -> None:
        """The connection may have become free: a packet was acknowledged, say. That happens often, so it is cheap."""
        talk = self._talks.get(device_id)
        if talk is not None and talk.conversation.is_eager:
            self._stir(talk)

    def answered(self, device_id: int, link: Link, payload: bytes, refusal: str = "") -> bool:
        """The device's response to the last command; False: nobody waits for it any longer, as if said unasked."""
        talk = self._talks.get(device_id)
        if talk is None or talk.link is not link:
            return False
        job = talk.conversation.answered()
        self._stir(talk)
        if job is None or not job.origin.is_open:
            return False
        talk.answers.append((job.origin, payload, refusal))
        return True

    def is_connected(self, device_id: int) -> bool:
        """Whether the device can be reached from here."""
        return device_id in self._talks

    @property
    def is_busy(self) -> bool:
        """Whether anything is being done just now."""
        return bool(self._tasks)

    # -- what clients want

    def ask(self, device_id: int, job: Job) -> bool:
        """Have a command sent before all that waits in the store; False: the device is away, or too many wait."""
        talk = self._talks.get(device_id)
        is_taken = talk is not None and talk.conversation.ask(job)
        if talk is not None:
            self._stir(talk)
        return is_taken

    def poke(self, device_id: int) -> None:
        """The store has something for the device."""
        self._with_work.add(device_id)
        talk = self._talks.get(device_id)
        if talk is not None:
            talk.conversation.wake()
            self._stir(talk)

    # -- in the background

    async def run(self) -> None:
        """Until cancelled."""
        refreshed = -REFRESH_EVERY
        while True:
            heed_cancellation()
            self.tick()
            if self._clock() >= refreshed + REFRESH_EVERY:
                refreshed = self._clock()
                try:
                    await self.refresh()
                except StoreError as error:
                    self.log.warn("commands wait until Redis answers: {error}", error=str(error))
            await asyncio.sleep(TICK)

    def tick(self) -> None:
        """Give up what has waited for too long."""
        now = self._clock()
        for talk in [talk for talk in self._timed if talk.conversation.deadline <= now]:
            self._stir(talk)

    async def refresh(self) -> None:
        """Look for what waits in the store, and for what has waited for too long. Raises StoreError."""
        for command in await self._books.queue.expire():
            record_of(self._books, command, EventCode.COMMAND_EXPIRED)
        while self._deleted:
            await self._books.settings.forget(self._deleted[-1])
            self._deleted.pop()
        self._with_work = await self._books.queue.devices() | await self._books.settings.devices()
        for n, device_id in enumerate(self._with_work & self._talks.keys()):
            if device_id in self._talks:
                self._talks[device_id].conversation.wake()
                self._stir(self._talks[device_id])
            if n % BREATH == 0:
                await asyncio.sleep(0)

    async def stop(self, timeout: float = 5.0) -> None:
        """All connections are as good as gone; what was under way is put back."""
        for device_id in list(self._talks):
            self.disconnected(device_id)
        await self.drain(timeout)
        for task in list(self._tasks):
            task.cancel()

    async def drain(self, timeout: float) -> None:
        """Wait until nothing is being done just now, ``timeout`` seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._tasks:
                    await asyncio.wait(self._tasks)

    # -- one device after the other

    def _stir(self, talk: _Talk) -> None:
        talk.is_stirred = True
        if not talk.has_task:
            talk.has_task = True
            task = asyncio.ensure_future(self._attend(talk))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _attend(self, talk: _Talk) -> None:
        try:
            while talk.is_stirred:
                talk.is_stirred = False
                while await self._is_busy(talk):
                    heed_cancellation()
        except StoreError as error:
            self.log.warn("a command of device {id} has to wait: {error}", id=talk.device_id, error=str(error))
        except Exception:
            self.log.failure("the commands of device {id}", id=talk.device_id)
        finally:
            talk.has_task = False
            if talk.conversation.deadline < NEVER:
                self._timed.add(talk)
            else:
                self._timed.discard(talk)

    async def _is_busy(self, talk: _Talk) -> bool:
        """Do one thing; whether there was any."""
        if talk.answers:
            origin, payload, refusal = talk.answers.pop(0)
            await origin.answered(payload, refusal)
        elif talk.undone:
            await talk.undone.pop(0).dropped()
        else:
            step = talk.conversation.next_step(self._clock(), talk.link.may_send_command)
            if step is None:
                return False
            await self._do(talk, step)
        return True

    async def _do(self, talk: _Talk, step: Step) -> None:
        if isinstance(step, Fetch):
            await self._fetch(talk)
        elif isinstance(step, Send):
            await self._send(talk, step.job)
        else:
            await self._give_up(talk, step)

    async def _fetch(self, talk: _Talk) -> None:
        job = None
        try:
            job = await talk.jobs.next()
        finally:
            late = talk.conversation.fetched(job)
            if late is not None:
                talk.undone.append(late.origin)

    async def _send(self, talk: _Talk, job: Job) -> None:
        try:
            talk.link.send_command(job.payload, job.codec_id)
            if not job.is_answered:
                talk.link.abandon_command()
        except GatewayError as error:
            talk.conversation.answered()
            await job.origin.failed(str(error))
            return
        await job.origin.sent()

    async def _give_up(self, talk: _Talk, step: GiveUp) -> None:
        if step.was_sent:
            with contextlib.suppress(GatewayError):
                talk.link.abandon_command()
            reason = f"no answer within {step.job.answer_time:g} s from device with id {talk.device_id}"
        else:
            reason = f"device with id {talk.device_id} was busy for {step.job.answer_time:g} s"
        await step.job.origin.failed(reason)

    # -- what is written

    def _gave_up(self, command: QueuedCommand, error: str) -> None:
        record_of(self._books, command, EventCode.COMMAND_REMOVED, reason=error)

    def _item_changed(self, change: Change) -> None:
        if change.kind == "devices" and change.new is None:
            self._with_work.discard(change.id)
            self._deleted.append(change.id)
