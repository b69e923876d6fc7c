"""Commands and settings as a stage: it starts before the trackers come, and ends when they are gone."""

from __future__ import annotations

from typing import Any

from gateway.channel.commanded import CommandedLines
from gateway.stages import Background
from gateway.storage import StoreStage
from gateway.store.dispatcher import Dispatcher
from gateway.store.event_codes import EventCode
from gateway.store.ident_models import IdentModels
from gateway.store.model_questions import ModelQuestions
from gateway.store.orders import Orders
from gateway.store.outcomes import Books
from gateway.store.settings_polling import SettingsPolling


class CommandsStage:
    """``lines`` is for the connections, ``orders`` for clients."""

    name = "commands"

    def __init__(self, store: StoreStage, background: Background) -> None:
        self._background = background
        events = store.observation.events

        def record(device_id: int, code: EventCode, **fields: Any) -> None:
            events.record("devices", device_id, code, **fields)

        books = Books(store.commands, store.device_settings, record)
        self.dispatcher = Dispatcher(store.items, books, store.telemetry)
        self.orders = Orders(books, self.dispatcher)
        self._questions = ModelQuestions(store.redis, store.keys, store.items, self.dispatcher, record)
        self._idents = IdentModels(store.redis, store.keys)
        polling = SettingsPolling(store.device_settings, self.dispatcher)
        self.lines = CommandedLines(self.dispatcher, self._questions, self._idents, polling)

    async def start(self) -> None:
        await self._questions.load()
        await self._idents.load()
        self._background.run("the commands", self.dispatcher.run())

    async def stop(self) -> None:
        await self.lines.stop()
        await self._background.cancel()
        await self.dispatcher.stop()
