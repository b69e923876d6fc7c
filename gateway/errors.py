"""Every error that this package raises on purpose.

One root, and a branch for whoever must act: the peer (a tracker or a client sent something wrong), the operator
(configuration, a port, a full disk), the store (Redis is away or refuses). Anything else that escapes is a bug of ours.
"""

from __future__ import annotations


class GatewayError(Exception):
    """The root: catch it at a border, never in the middle."""


class PeerError(GatewayError):
    """The other side of a connection is at fault."""


class ProtocolViolation(PeerError):
    """Framing is lost: nothing that follows on this connection can be understood, so it is closed.

    ``reason`` is a fixed short text that can be counted; the numbers that prove it stand in ``detail``.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class DecodeError(PeerError):
    """Delimited bytes that do not follow the grammar. ``offset`` is the byte, counted from the first one given."""

    def __init__(self, reason: str, offset: int | None = None) -> None:
        super().__init__(reason if offset is None else f"{reason} (at byte {offset})")
        self.reason = reason
        self.offset = offset


class ExpressionError(PeerError):
    """Text that is no expression. ``column`` counts from 1, from the beginning of the text."""

    def __init__(self, column: int, reason: str) -> None:
        super().__init__(f"column {column}: {reason}")
        self.column = column
        self.reason = reason


class EvaluationError(PeerError):
    """An expression that has no value for this message: a parameter is missing, a division by zero, a wrong type.

    ``column`` is where in the expression, counted from 1.
    """

    def __init__(self, column: int, reason: str) -> None:
        super().__init__(f"column {column}: {reason}")
        self.column = column
        self.reason = reason


class MissingParameter(EvaluationError):
    """The expression reads a parameter that the message, or the one before it, does not have."""


class EncodeError(GatewayError):
    """A value that the wire has no room for: our own code, or who asked it to, wanted the impossible."""


class OutOfTurn(GatewayError):
    """A session was told something that its state does not allow: a bug of whoever drives it."""


class OperatorError(GatewayError):
    """The operator can mend it: the message says where and what would be right."""


class ConfigError(OperatorError):
    """A setting is wrong; the message names file, section and key."""


class ListenError(OperatorError):
    """A port cannot be listened on."""


class ItemError(OperatorError):
    """A channel or a device cannot be as it was asked to be. ``field`` names what is wrong with it, where one does."""

    def __init__(self, reason: str, field: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field


class IdentTaken(ItemError):
    """Another device of the same protocol has this ident."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, "configuration.ident")


class NoSuchItem(ItemError):
    """It was never made, or is deleted."""


class StoreError(GatewayError):
    """Redis did not do what was asked of it."""


class StoreUnavailable(StoreError):
    """Redis is away, loading or too slow: the same call may succeed later."""


class StoreFull(StoreError):
    """A bound on memory or disk is reached: the same call may succeed when there is room again."""


class NotCommitted(StoreError):
    """These records are not in the log and will not get there: the tracker must send them again."""


class BrokerUnavailable(GatewayError):
    """The MQTT broker is away, refuses us, or the connection to it is gone: the same may succeed later."""


class RemoteError(GatewayError):
    """Another system, such as a stream's target or a service that a plugin asks, did not do what was asked of it."""


class RemoteUnavailable(RemoteError):
    """It cannot be reached, broke the connection off, or took too long: the same may succeed later."""


class RemoteRefused(RemoteError):
    """It answered with a no. ``status`` is its number for that, where it has one; ``answer`` the beginning of its text.

    ``is_too_large``: less at once may be taken.
    """

    def __init__(self, reason: str, *, status: int = 0, answer: str = "", is_too_large: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.answer = answer
        self.is_too_large = is_too_large
