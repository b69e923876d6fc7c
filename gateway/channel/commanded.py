"""The lines of devices that are commanded: what waits for a device is delivered when it connects.

Beside the queue and the settings that are pending, that is the question for the model (the channel's ``ask_model``),
and the settings that were never read (the device's ``settings_polling``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from twisted.logger import Logger

from gateway.channel.lines import Lines, Link
from gateway.errors import GatewayError
from gateway.store.dispatcher import Dispatcher
from gateway.store.items import Channel, Device
from gateway.store.model_questions import ModelQuestions
from gateway.store.settings_polling import SettingsPolling


class CommandedLines(Lines):
    """One for all channels."""

    log = Logger()

    def __init__(self, dispatcher: Dispatcher, questions: ModelQuestions, polling: SettingsPolling) -> None:
        self._dispatcher = dispatcher
        self._questions = questions
        self._polling = polling
        self._tasks: set[asyncio.Task[None]] = set()

    def connected(self, device: Device, channel: Channel, link: Link) -> None:
        self._dispatcher.connected(device.id, link)
        if channel.configuration.get("ask_model") is True and self._questions.is_open(device):
            self._questions.ask(device)
        elif self._polling.is_wanted(device):
            self._run(self._polling.begin(device), device)

    def disconnected(self, device_id: int, link: Link) -> None:
        self._dispatcher.disconnected(device_id, link)

    def line_changed(self, device_id: int) -> None:
        self._dispatcher.line_changed(device_id)

    def answered(self, device_id: int, link: Link, payload: bytes, refusal: str) -> bool:
        return self._dispatcher.answered(device_id, link, payload, refusal)

    async def stop(self) -> None:
        """What is begun is not brought to an end: it is begun again at the next connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _run(self, what: Coroutine[Any, Any, None], device: Device) -> None:
        task = asyncio.ensure_future(self._logged(what, device))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _logged(self, what: Coroutine[Any, Any, None], device: Device) -> None:
        try:
            await what
        except GatewayError as error:  # it is tried at the next connection
            self.log.info("the settings of device {id} are not read: {error}", id=device.id, error=str(error))
        except Exception:
            self.log.failure("the beginning of device {id}", id=device.id)
