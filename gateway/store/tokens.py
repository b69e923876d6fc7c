"""Tokens: who may use the API and the embedded broker, kept in Redis and mirrored in memory.

Fields and their meaning are flespi's (its articles on tokens). A key is told once, to who creates the token; what is
kept is its SHA-256. That is enough without salt or stretching: a key is 64 random characters, not a word that a person
chose. The master token is configured, or stands in a file; it is none of Redis' business.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import string
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

import msgspec
from attrs import define, evolve, field
from twisted.logger import Logger

from gateway.aio import heed_cancellation
from gateway.errors import ItemError, StoreError
from gateway.store import keys
from gateway.store.access import MASTER_ACCESS, Access, Rules
from gateway.store.connection import Client, store_errors

KEY_LENGTH = 64
"""As flespi's: clients check it."""
ALPHABET = string.ascii_letters + string.digits
KEY_MOST = 1024
"""Characters that are looked at; a configured master token may be longer than ours, but not any length."""
TOKENS_MOST = 10_000
IDS_MOST_OF_ALL = 1_000_000
"""In the ACLs of all tokens: they are kept in memory."""
SAVE_EVERY = 30.0
"""Seconds between two writes of when tokens were used: not one for each request."""
PURGE_AFTER = 86400.0
"""Seconds that an expired token is kept, so that it can be given a new time, and a wrong clock destroys nothing."""

MASTER_ID = 0


@define(eq=False)
class Token:
    """A change makes a new object; only ``accessed`` moves. ``expire``, ``created``, ``accessed``: unix seconds."""

    id: int
    digest: bytes = field(repr=False)
    info: str = ""
    enabled: bool = True
    ttl: int = 0
    """Seconds that it is good for since it was made or last used; 0: that is no reason to be good."""
    expire: int = 0
    """Until when it is good in any case; with neither, it is good for ever."""
    access: Access = field(factory=Access)
    ips: list[str] = field(factory=list)
    """Addresses or networks that it may be used from; none: from everywhere."""
    metadata: dict[str, Any] = field(factory=dict)
    created: int = 0
    accessed: float = 0.0
    networks: list[IPv4Network | IPv6Network] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.networks = [ip_network(text, strict=False) for text in self.ips]

    def is_valid(self, now: float) -> bool:
        """Whether it is enabled and not expired: flespi's rule is that one of both times is enough."""
        return self.enabled and not self.is_expired(now)

    def is_expired(self, now: float) -> bool:
        """Whether all that it is good for is over."""
        return bool(self.ttl or self.expire) and now >= self.expires_at

    @property
    def expires_at(self) -> float:
        """Only of one with ``ttl`` or ``expire``."""
        return max(self.expire, max(self.created, self.accessed) + self.ttl if self.ttl else 0)

    def is_for(self, address: str) -> bool:
        """Whether it may be used from there; ``local``, of a socket in the file system, is the machine itself."""
        if not self.networks:
            return True
        try:
            client = ip_address("127.0.0.1" if address == "local" else address.partition("%")[0])
        except ValueError:
            return False
        client = getattr(client, "ipv4_mapped", None) or client
        return any(client in network for network in self.networks)


class _Stored(msgspec.Struct):
    """A token as it stands in Redis."""

    id: int
    digest: str
    info: str = ""
    enabled: bool = True
    ttl: int = 0
    expire: int = 0
    access: Rules = msgspec.field(default_factory=Rules)
    ips: list[str] = []
    metadata: dict[str, Any] = {}
    created: int = 0


def _encode(token: Token) -> bytes:
    values = {name: getattr(token, name) for name in _Stored.__struct_fields__}
    return msgspec.json.encode(_Stored(**{**values, "digest": token.digest.hex(), "access": token.access.rules}))


def _decode(text: bytes, accessed: float) -> Token:
    """Raises ValueError, MsgspecError."""
    stored = msgspec.json.decode(text, type=_Stored)
    values = {name: getattr(stored, name) for name in _Stored.__struct_fields__}
    return Token(
        **{**values, "digest": bytes.fromhex(stored.digest), "access": Access(stored.access)}, accessed=accessed
    )


def digest_of(key: str) -> bytes:
    """What is kept of a key."""
    return sha256(key.encode(errors="surrogatepass")).digest()


class Tokens:
    """The mirror. ``on_change`` is called with the id of a token that was created, changed or deleted."""

    log = Logger()

    def __init__(self, redis: Client, master_key: str = "") -> None:
        self._redis = redis
        self._tokens: dict[int, Token] = {}
        self._by_digest: dict[bytes, Token] = {}
        self._used: set[int] = set()
        self._ids = 0
        self._changing = asyncio.Lock()
        self.on_change: list[Callable[[int], None]] = []
        self.master: Token | None = None
        if master_key:
            self.master = Token(MASTER_ID, digest_of(master_key), info="master", access=MASTER_ACCESS)
            self._by_digest[self.master.digest] = self.master

    async def load(self) -> None:
        """Read everything from Redis. Raises StoreError."""
        with store_errors():
            texts = await self._redis.hgetall(keys.TOKENS)
            accessed = await self._redis.hgetall(keys.TOKENS_ACCESSED)
        for token_id, text in texts.items():
            try:
                self._remember(_decode(text, float(accessed.get(token_id, 0))))
            except (ValueError, msgspec.MsgspecError) as error:
                self.log.error("token {id} cannot be read and is refused: {error}", id=int(token_id), error=str(error))

    def get(self, token_id: int) -> Token | None:
        """The token, be it valid or not; 0 is the master."""
        return self.master if token_id == MASTER_ID else self._tokens.get(token_id)

    @property
    def all(self) -> dict[int, Token]:
        """Every stored token by its id; not the master. Not to be changed."""
        return self._tokens

    def authenticate(self, key: str, now: float, address: str) -> Token | None:
        """The token of ``key``, if it is valid and may be used from ``address``; that it was used is noted."""
        token = self._find(key)
        if token is None or not token.is_valid(now) or not token.is_for(address):
            return None
        self.touch(token, now)
        return token

    def _find(self, key: str) -> Token | None:
        """The way to a token leads over its key's digest, whose bytes nobody can choose: time tells nothing of it."""
        if len(key) > KEY_MOST:
            return None
        digest = digest_of(key)
        token = self._by_digest.get(digest)
        return token if token is not None and hmac.compare_digest(token.digest, digest) else None

    def touch(self, token: Token, now: float) -> None:
        """Note that the token is in use."""
        if now > token.accessed:
            token.accessed = now
            if token.id != MASTER_ID:
                self._used.add(token.id)

    # changes, one after the other

    async def create(self, now: float, **values: Any) -> tuple[Token, str]:
        """Store a new token; with it comes its key, which nobody can tell later. Raises ItemError, StoreError."""
        async with self._changing:
            if len(self._tokens) >= TOKENS_MOST:
                raise ItemError(f"there are {TOKENS_MOST} tokens, which is the limit: delete one")
            key = "".join(secrets.choice(ALPHABET) for _ in range(KEY_LENGTH))
            token = _made(None, id=-1, digest=digest_of(key), created=int(now), **values)
            self._check_ids(token)
            with store_errors():
                token.id = int(await self._redis.hincrby(keys.NEXT_IDS, "tokens", 1))
            await self._write(token)
            return token, key

    async def change(self, token_id: int, change: Callable[[Token], Mapping[str, Any]]) -> Token | None:
        """Store other values of some fields; None if there is no such token.

        ``change`` is given the token as it is when its turn has come. Raises ItemError, StoreError, and what it raises.
        """
        async with self._changing:
            old = self._tokens.get(token_id)
            if old is None:
                return None
            token = _made(old, **change(old))
            self._check_ids(token)
            await self._write(token)
            return token

    async def update(self, token_id: int, **values: Any) -> Token | None:
        """The same with values that are known."""
        return await self.change(token_id, lambda old: values)

    async def delete(self, token_ids: Sequence[int]) -> None:
        """Forget tokens, for good. Raises StoreError."""
        async with self._changing:
            names = [str(token_id) for token_id in token_ids]
            if not names:
                return
            with store_errors():
                await self._redis.hdel(keys.TOKENS, *names)
            for token_id in token_ids:
                self._forget(token_id)
            with suppress(StoreError), store_errors():  # what is left of them there is never read
                await self._redis.hdel(keys.TOKENS_ACCESSED, *names)

    def _check_ids(self, token: Token) -> None:
        known = self._tokens.get(token.id)
        others = self._ids - (known.access.rules.number_of_ids if known is not None else 0)
        if others + token.access.rules.number_of_ids > IDS_MOST_OF_ALL:
            raise ItemError(f"the ACLs of all tokens have room for {IDS_MOST_OF_ALL} ids", "access.acl")

    async def _write(self, token: Token) -> None:
        with store_errors():
            await self._redis.hset(keys.TOKENS, str(token.id), _encode(token))
        self._remember(token)
        self._tell(token.id)

    def _remember(self, token: Token) -> None:
        known = self._tokens.get(token.id)
        if known is not None:
            token.accessed = known.accessed
            self._ids -= known.access.rules.number_of_ids
        self._ids += token.access.rules.number_of_ids
        self._tokens[token.id] = self._by_digest[token.digest] = token

    def _forget(self, token_id: int) -> None:
        token = self._tokens.pop(token_id, None)
        if token is not None:
            del self._by_digest[token.digest]
            self._ids -= token.access.rules.number_of_ids
        self._used.discard(token_id)
        self._tell(token_id)

    def _tell(self, token_id: int) -> None:
        for changed in self.on_change:
            changed(token_id)

    # in the background

    async def run(self) -> None:
        """Now and then: write when tokens were used, and delete what has expired."""
        while True:
            heed_cancellation()
            await asyncio.sleep(SAVE_EVERY)
            try:
                await self.save()
                await self.purge(time.time())
            except StoreError as error:
                self.log.warn("when tokens were used cannot be stored: {error}", error=str(error))

    async def save(self) -> None:
        """Write when tokens were used, of those used since the last time. Raises StoreError."""
        async with self._changing:
            used, self._used = self._used, set()
            if not used:
                return
            try:
                with store_errors():
                    accessed = {str(token_id): self._tokens[token_id].accessed for token_id in used}
                    await self._redis.hset(keys.TOKENS_ACCESSED, mapping=accessed)
            except BaseException:
                self._used |= used
                raise

    async def purge(self, now: float) -> None:
        """Delete what expired long ago. Raises StoreError."""
        expired = [token for token in self._tokens.values() if token.is_expired(now)]
        await self.delete([token.id for token in expired if now >= token.expires_at + PURGE_AFTER])


def _made(old: Token | None, **values: Any) -> Token:
    """Raises ItemError."""
    try:
        return evolve(old, **values) if old is not None else Token(**values)
    except ValueError as error:
        raise ItemError(str(error), "ips") from None
