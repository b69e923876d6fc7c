"""Devices whose model is not known are asked for it, once: ``getver``, and the type changes to what they answer."""

from __future__ import annotations

from collections import Counter

from attrs import define, evolve, field
from twisted.logger import Logger

from gateway.errors import ItemError
from gateway.protocols.catalog import PROTOCOLS
from gateway.protocols.teltonika.device_types import find_device_type
from gateway.protocols.teltonika.models import model_from_getver
from gateway.protocols.teltonika.serial_data import text_of
from gateway.store.connection import Client, store_errors
from gateway.store.conversation import Job
from gateway.store.dispatcher import Dispatcher
from gateway.store.event_codes import EventCode
from gateway.store.items import Device, Items
from gateway.store.keys import ShardKeys
from gateway.store.outcomes import Origin, Record

COMMAND = "getver"
ANSWER_TIME = 30.0
TRIES_MOST = 3
"""Questions to a device that does not answer, until the gateway starts again."""
SHOWN = 256
"""Characters of an answer that are kept."""


@define(eq=False)
class ModelQuestions:
    """Which devices were asked is kept in Redis: one whose answer names no model is not asked again."""

    log = Logger()

    _redis: Client
    _keys: ShardKeys
    _items: Items
    _dispatcher: Dispatcher
    _record: Record
    _tries: Counter[int] = field(factory=Counter)

    def is_open(self, device: Device) -> bool:
        """Whether it has to be asked."""
        is_unknown = device.device_type_id == PROTOCOLS[device.protocol_id].unknown_device_type
        return is_unknown and self._tries[device.id] < TRIES_MOST

    async def load(self) -> None:
        """Learn from Redis which devices were asked. Raises StoreError."""
        with store_errors():
            known = await self._redis.hkeys(self._keys.models_asked)
        self._tries.update({int(device_id): TRIES_MOST for device_id in known})

    def ask(self, device: Device) -> None:
        """Ask it just now, before all that waits for it: what is sent to it may depend on its model."""
        self._tries[device.id] += 1
        request = PROTOCOLS[device.protocol_id].request_of(COMMAND, {}, None)
        origin = ForModel(self, device)
        self._dispatcher.ask(device.id, Job(request.payload, request.codec_id, True, origin, ANSWER_TIME))

    def asked(self, device: Device) -> None:
        """The question is on its way."""
        self._record(device.id, EventCode.COMMAND_SENT, ident=device.ident, name=COMMAND, reason="ask_model")

    async def answered(self, device: Device, text: str) -> None:
        """Take the model from the answer. Raises StoreError."""
        with store_errors():
            await self._redis.hset(self._keys.models_asked, str(device.id), text[:SHOWN])
        self._tries[device.id] = TRIES_MOST
        told = {"ident": device.ident, "name": COMMAND, "response": text[:SHOWN], "reason": "ask_model"}
        self._record(device.id, EventCode.COMMAND_PROCESSED, executed=True, **told)
        model = model_from_getver(text)
        kind = find_device_type(model) if model is not None else None
        if kind is None:
            self.log.info("device {id} names no known model: {text!r}", id=device.id, text=text[:SHOWN])
            return
        self.log.info("device {id} says that it is a {model}", id=device.id, model=kind.title)
        await self._become(device, kind.id)

    async def _become(self, device: Device, device_type_id: int) -> None:
        """Unless somebody has said meanwhile what it is."""

        def change(now: Device) -> Device:
            is_same = now.device_type_id == device.device_type_id
            return evolve(now, device_type_id=device_type_id) if is_same else now

        try:
            await self._items.change_device(device.id, change)
        except ItemError as error:
            self.log.info("device {id} stays what it was: {error}", id=device.id, error=str(error))


@define(eq=False)
class ForModel(Origin):
    """The question to one device. Without an answer it is asked again when it connects again."""

    questions: ModelQuestions
    device: Device

    async def sent(self) -> None:
        self.questions.asked(self.device)

    async def answered(self, payload: bytes, refusal: str) -> None:
        await self.questions.answered(self.device, refusal or text_of(payload) or "")

    async def failed(self, reason: str) -> None:
        """Asked again at the next connection, some times."""

    async def dropped(self) -> None:
        """The same."""
