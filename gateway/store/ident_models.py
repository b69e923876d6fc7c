"""The models of trackers that no device stands for, as they said themselves: each is asked once, and remembered.

A tracker that does not answer, or names no model, is remembered, too, or it would be asked at each of its connections.
What is kept has a bound and an end: anybody can connect and say any ident.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
from attrs import define, field
from msgspec import Struct
from twisted.logger import Logger

from gateway.errors import StoreError
from gateway.protocols.catalog import PROTOCOLS
from gateway.protocols.teltonika.models import model_from_getver
from gateway.protocols.teltonika.serial_data import text_of
from gateway.store.connection import Client, store_errors
from gateway.store.conversation import Job
from gateway.store.keys import ShardKeys
from gateway.store.model_questions import ANSWER_TIME, COMMAND, SHOWN, TRIES_MOST
from gateway.store.outcomes import Origin

DAY = 86400
EXPIRY = 90 * DAY
"""Seconds after its last connection until a tracker is forgotten."""
RENEWED_AFTER = DAY
"""A tracker that connects again is noted as seen once in so many seconds, not each time."""
IDENTS_MOST = 100_000
"""As many as devices by default; some 300 bytes each here, and 100 in Redis. Beyond it the oldest is forgotten."""
FORGOTTEN_AT_ONCE = 100

Key = tuple[int, str]
"""Protocol and ident."""


class Known(Struct, frozen=True, kw_only=True):
    """What is known of one tracker. ``tries``: how often it was asked. ``at``: when it was asked, or seen."""

    model: str | None = None
    tries: int = 0
    at: float = 0


@define(eq=False)
class IdentModels:
    """The mirror of a hash in Redis, the oldest first."""

    log = Logger()

    _redis: Client
    _keys: ShardKeys
    _now: Callable[[], float] = time.time
    _most: int = IDENTS_MOST
    _known: dict[Key, Known] = field(init=False, factory=dict)

    async def load(self) -> None:
        """Read all from Redis. Raises StoreError."""
        with store_errors():
            texts = await self._redis.hgetall(self._keys.ident_models)
        found = [(_key_of(name), msgspec.json.decode(text, type=Known)) for name, text in texts.items()]
        self._known = dict(sorted(found, key=lambda one: one[1].at))

    def model_of(self, protocol_id: int, ident: str) -> str | None:
        """The model that it said; None: it is not known."""
        known = self._get((protocol_id, ident))
        return known.model if known is not None else None

    def is_open(self, protocol_id: int, ident: str) -> bool:
        """Whether it has to be asked."""
        known = self._get((protocol_id, ident))
        return known is None or known.tries < TRIES_MOST

    def question(self, protocol_id: int, ident: str, told: Callable[[], None]) -> Job:
        """What to send to it; ``told`` is called when its model is known."""
        request = PROTOCOLS[protocol_id].request_of(COMMAND, {}, None)
        origin = ForIdent(self, (protocol_id, ident), told)
        return Job(request.payload, request.codec_id, True, origin, ANSWER_TIME)

    async def asked(self, key: Key) -> None:
        """The question is on its way."""
        known = self._get(key)
        await self._note(key, Known(tries=(known.tries if known is not None else 0) + 1, at=self._now()))

    async def answered(self, key: Key, text: str) -> bool:
        """Whether the answer names a model; either way it is not asked again before it is forgotten."""
        model = model_from_getver(text)
        what = f"that it is a {model}" if model is not None else "no known model"
        self.log.info("{ident}, of no device, says {what}: {text!r}", ident=key[1], what=what, text=text)
        await self._note(key, Known(model=model, tries=TRIES_MOST, at=self._now()))
        return model is not None

    async def seen(self, protocol_id: int, ident: str) -> None:
        """It is here again: one whose model is known is remembered from now on."""
        known = self._get((protocol_id, ident))
        if known is not None and known.model is not None and known.at + RENEWED_AFTER <= self._now():
            await self._note((protocol_id, ident), msgspec.structs.replace(known, at=self._now()))

    # -- the mirror

    def _get(self, key: Key) -> Known | None:
        known = self._known.get(key)
        return known if known is not None and known.at + EXPIRY > self._now() else None

    async def _note(self, key: Key, known: Known) -> None:
        """It holds here even where Redis does not take it; then it is asked again after the next start."""
        self._known.pop(key, None)
        self._known[key] = known
        gone = [_name_of(key) for key in self._forget_oldest()]
        try:
            with store_errors():
                await self._redis.hset(self._keys.ident_models, _name_of(key), msgspec.json.encode(known))
                if gone:
                    await self._redis.hdel(self._keys.ident_models, *gone)
        except StoreError as error:
            self.log.info("the model of {ident} is not stored: {error}", ident=key[1], error=str(error))

    def _forget_oldest(self) -> list[Key]:
        """Those whose time is over, and what is too much; a few at a time."""
        gone: list[Key] = []
        for key, known in self._known.items():
            is_over = known.at + EXPIRY <= self._now() or len(self._known) - len(gone) > self._most
            if not is_over or len(gone) >= FORGOTTEN_AT_ONCE:
                break
            gone.append(key)
        for key in gone:
            del self._known[key]
        return gone


@define(eq=False)
class ForIdent(Origin):
    """The question to one tracker. Without an answer it is asked again when it connects again."""

    models: IdentModels
    key: Key
    told: Callable[[], None]

    async def sent(self) -> None:
        await self.models.asked(self.key)

    async def answered(self, payload: bytes, refusal: str) -> None:
        if await self.models.answered(self.key, (refusal or text_of(payload) or "")[:SHOWN]):
            self.told()

    async def failed(self, reason: str) -> None:
        """Asked again at the next connection, some times."""

    async def dropped(self) -> None:
        """The same."""


def _name_of(key: Key) -> str:
    return f"{key[0]}:{key[1]}"


def _key_of(name: bytes) -> Key:
    protocol_id, _, ident = name.decode().partition(":")
    return int(protocol_id), ident
