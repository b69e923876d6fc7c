"""What the store has to say to one device: settings that are pending, then commands of its queue."""

from __future__ import annotations

from attrs import define, frozen

from gateway.errors import ExpressionError, PeerError
from gateway.expressions import compile_expression
from gateway.protocols.catalog import PROTOCOLS, TrackerProtocol
from gateway.protocols.teltonika.settings import Setting, SettingError
from gateway.store.command import QueuedCommand
from gateway.store.conversation import Job
from gateway.store.event_codes import EventCode
from gateway.store.items import Items
from gateway.store.outcomes import Books, ForQueue, ForSetting, Origin, finish
from gateway.store.settings import Shadow
from gateway.store.telemetry import Telemetry

ANSWER_TIME = 30.0
"""Seconds that the answer to a queued command, or to a part of a setting, is waited for."""
CUSTOM = "custom"
"""The command that sends any text."""


@frozen
class Sources:
    """Where the jobs of all devices come from."""

    items: Items
    books: Books
    telemetry: Telemetry


@define(eq=False)
class Jobs:
    """The jobs of one connected device."""

    _device_id: int
    _sources: Sources
    _applying: ForSetting | None = None
    """A setting that takes several commands."""

    async def next(self) -> Job | None:
        """The next job, its attempt counted; None: there is none just now. Raises StoreError."""
        device = self._sources.items.devices.get(self._device_id)
        if device is None:
            return None
        protocol = PROTOCOLS[device.protocol_id]
        model = protocol.model_of(device.device_type_id)
        return await self._next_setting(protocol, model) or await self._next_command(protocol, model)

    def rest(self) -> list[Origin]:
        """What is begun and not over; it will not be gone on with here."""
        begun, self._applying = self._applying, None
        return [begun] if begun is not None and not begun.is_over else []

    # -- settings

    async def _next_setting(self, protocol: TrackerProtocol, model: str | None) -> Job | None:
        if self._applying is None or self._applying.is_over:
            self._applying = await self._take_setting(protocol, model)
        if self._applying is None:
            return None
        request = protocol.request_of(CUSTOM, {"text": self._applying.texts[0]}, model)
        return Job(request.payload, request.codec_id, request.is_answered, self._applying, ANSWER_TIME)

    async def _take_setting(self, protocol: TrackerProtocol, model: str | None) -> ForSetting | None:
        """The next one; such as a device of this type does not have, or no longer, are rejected."""
        books = self._sources.books
        while (shadow := await books.settings.take(self._device_id)) is not None:
            setting = protocol.settings_of(model).get(shadow.name)
            try:
                texts = _texts(setting, shadow)
            except PeerError as error:
                await books.settings.failed(self._device_id, shadow, str(error))
                books.record(self._device_id, EventCode.SETTING_REJECTED, name=shadow.name, reason=str(error))
            else:
                assert setting is not None
                return ForSetting(books, self._device_id, shadow, setting, texts)
        return None

    # -- commands

    async def _next_command(self, protocol: TrackerProtocol, model: str | None) -> Job | None:
        """The next one; such as a device of this type does not have, or no longer, get a result that says so."""
        books = self._sources.books
        while (command := await books.queue.take(self._device_id, self._is_ready)) is not None:
            try:
                request = protocol.request_of(command.name, command.properties, model)
            except PeerError as error:
                await finish(books, command, error=str(error))
            else:
                origin = ForQueue(books, command, request)
                return Job(request.payload, request.codec_id, request.is_answered, origin, ANSWER_TIME)
        return None

    async def _is_ready(self, command: QueuedCommand) -> bool:
        """Whether its condition is true for the telemetry as it is now."""
        if not command.condition:
            return True
        try:
            condition = compile_expression(command.condition)
        except ExpressionError:  # of another version
            return False
        values = await self._sources.telemetry.get(self._device_id, sorted(condition.names)) if condition.names else {}
        return condition.is_true({name: value for name, (_, value) in values.items()})


def _texts(setting: Setting | None, shadow: Shadow) -> list[str]:
    if setting is None:
        raise SettingError(f"setting {shadow.name} is not found: devices of this type do not have it")
    return setting.get_texts() if shadow.pending is None else setting.set_texts(shadow.pending)
