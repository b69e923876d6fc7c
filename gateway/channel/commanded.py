"""The lines of devices that are commanded: what waits for a device is delivered when it connects.

Beside the queue and the settings that are pending, that is the question for the model (the channel's ``ask_model``),
and the settings that were never read (the device's ``settings_polling``). A tracker that no device stands for is asked
for its model, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from twisted.logger import Logger

from gateway.channel.lines import Lines, Link, Stranger
from gateway.errors import GatewayError
from gateway.store.dispatcher import Dispatcher
from gateway.store.ident_models import IdentModels
from gateway.store.items import Channel, Device
from gateway.store.model_questions import ModelQuestions
from gateway.store.settings_polling import SettingsPolling


class CommandedLines(Lines):
    """One for all channels."""

    log = Logger()

    def __init__(
        self, dispatcher: Dispatcher, questions: ModelQuestions, idents: IdentModels, polling: SettingsPolling
    ) -> None:
        self._dispatcher = dispatcher
        self._questions = questions
        self._idents = idents
        self._polling = polling
        self._tasks: set[asyncio.Task[None]] = set()

    def connected(self, device: Device, channel: Channel, link: Link) -> None:
        self._dispatcher.connected(device.id, link)
        if _asks(channel) and self._questions.is_open(device):
            self._questions.ask(device)
        elif self._polling.is_wanted(device):
            self._run(self._polling.begin(device), f"the settings of device {device.id} are not read")

    def met(self, stranger: Stranger, channel: Channel, link: Link) -> bool:
        key = (channel.protocol_id, stranger.ident)
        if not _asks(channel):
            return False
        if not self._idents.is_open(*key):
            self._run(self._idents.seen(*key), f"{stranger.ident} is not noted")
            return False
        self._dispatcher.connected(stranger.line_id, link)
        self._dispatcher.ask(stranger.line_id, self._idents.question(*key, stranger.told))
        return True

    def model_of(self, channel: Channel, ident: str) -> str | None:
        return self._idents.model_of(channel.protocol_id, ident) if _asks(channel) else None

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

    def _run(self, what: Coroutine[Any, Any, None], failing: str) -> None:
        task = asyncio.ensure_future(self._logged(what, failing))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _logged(self, what: Coroutine[Any, Any, None], failing: str) -> None:
        try:
            await what
        except GatewayError as error:  # it is tried at the next connection
            self.log.info("{failing}: {error}", failing=failing, error=str(error))
        except Exception:
            self.log.failure("{failing}", failing=failing)


def _asks(channel: Channel) -> bool:
    """Whether trackers of unknown model are asked for it."""
    return channel.configuration.get("ask_model") is True
