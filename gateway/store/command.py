"""What a command in a device's queue is, and what became of it.

Fields are flespi's (its articles on commands, its clients): an item of ``commands-queue`` has a name, properties, a
time to live, a priority, a number of attempts and a condition; one of ``commands-result`` says whether it was executed,
and what the device said.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from gateway.errors import ExpressionError, PeerError
from gateway.expressions import compile_expression

KiB = 1024

TTL_LEAST, TTL_MOST, TTL_USUAL = 60, 2_592_000, 86_400
"""Seconds that a command may wait; the bounds are flespi's."""
ATTEMPTS_MOST, ATTEMPTS_USUAL = 100, 3
PRIORITY_MOST = 1000
TIMEOUT_LEAST, TIMEOUT_MOST, TIMEOUT_USUAL = 5, 60, 30
"""Seconds that a client waits for a device's answer; flespi's."""
TEXT_MOST = 8 * KiB
"""Bytes of a command as it is stored."""
REPLY_MOST = 8 * KiB
"""Bytes of a reply that are kept."""

Name = Annotated[str, Meta(min_length=1, max_length=64)]


class CommandRefused(PeerError):
    """A command that the queue does not take; the message says why."""


class NewCommand(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """A command that is to wait until the device takes it."""

    name: Name
    properties: dict[str, Any] = {}
    ttl: Annotated[
        int, Meta(ge=TTL_LEAST, le=TTL_MOST, description=f"Seconds; {TTL_USUAL} if expires is not given")
    ] = 0
    expires: Annotated[float, Meta(ge=0, description="Until when it may wait, UNIX seconds; instead of ttl")] = 0
    priority: Annotated[
        int, Meta(ge=-PRIORITY_MOST, le=PRIORITY_MOST, description="The highest first, then the oldest")
    ] = 0
    max_attempts: Annotated[
        int, Meta(ge=1, le=ATTEMPTS_MOST, description="How often it is sent before it is given up")
    ] = ATTEMPTS_USUAL
    condition: Annotated[
        str, Meta(max_length=4096, description="Expression over the telemetry; it is sent only while that is true")
    ] = ""
    meta: Annotated[dict[str, Any], Meta(description="Anything; it comes back with the result")] = {}
    address: Literal["connection"] = "connection"

    def __post_init__(self) -> None:
        if self.ttl and self.expires:
            raise ValueError("only one of ttl and expires is possible")
        if self.condition:
            try:
                compile_expression(self.condition)
            except ExpressionError as error:
                raise ValueError(f"condition is no expression: {error}") from None

    def expires_at(self, now: float) -> float:
        """Until when it may wait. Raises CommandRefused where that is over, or too far away."""
        if not self.expires:
            return now + (self.ttl or TTL_USUAL)
        if not now < self.expires <= now + TTL_MOST:
            raise CommandRefused(f"expires should be within the next {TTL_MOST} seconds of {now:.0f}")
        return self.expires


class QueuedCommand(Struct, frozen=True, kw_only=True):
    """A command that waits. ``id``: microseconds of when it came, as flespi's ids. Times are UNIX seconds."""

    id: int
    device_id: int
    ident: str
    name: str
    properties: dict[str, Any]
    expires: float
    priority: int = 0
    max_attempts: int = ATTEMPTS_USUAL
    condition: str = ""
    meta: dict[str, Any] = {}
    address: str = "connection"
    timestamp: float = 0
    attempts: int = 0
    """How often it was sent, or was about to be: counted before."""
    attempted: float = 0
    """When it was last sent, while somebody waits for the answer; 0: nobody does."""

    @property
    def order(self) -> tuple[int, int]:
        """Sorts as they are sent."""
        return -self.priority, self.id

    @property
    def is_exhausted(self) -> bool:
        """Whether it was sent as often as it may be."""
        return self.attempts >= self.max_attempts


class CommandResult(Struct, frozen=True, kw_only=True):
    """What became of a command: ``response`` of the device, or the ``error``; ``timestamp``: when it was over."""

    id: int
    command_id: int
    device_id: int
    ident: str
    name: str
    properties: dict[str, Any]
    executed: bool
    response: Any = None
    error: str | None = None
    attempts: int = 1
    meta: dict[str, Any] = {}
    address: str = "connection"
    timestamp: float = 0


def result_of(command: QueuedCommand, *, response: Any = None, error: str | None = None) -> CommandResult:
    """Executed, unless there is an ``error``."""
    return CommandResult(
        id=command.id,
        command_id=command.id,
        device_id=command.device_id,
        ident=command.ident,
        name=command.name,
        properties=command.properties,
        executed=error is None,
        response=shortened(response),
        error=error,
        attempts=command.attempts,
        meta=command.meta,
        address=command.address,
    )


def shortened(response: Any) -> Any:
    """A reply that is longer than any that is known becomes the beginning of its text."""
    text = msgspec.json.encode(response)
    return response if len(text) <= REPLY_MOST else text[: REPLY_MOST // 2].decode(errors="replace") + "..."


def encoded(command: QueuedCommand) -> bytes:
    """As it is stored."""
    return msgspec.json.encode(command)


def decoded(text: bytes) -> QueuedCommand:
    """From what is stored."""
    return msgspec.json.decode(text, type=QueuedCommand)
