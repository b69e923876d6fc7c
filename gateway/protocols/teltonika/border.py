"""The one border between construct and the rest: its errors stop here and become ours.

construct raises more than ``ConstructError``: a compiled field raises ``struct.error``, a lambda or an adapter whatever
it likes. Nobody else parses or builds with a grammar.
"""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

from construct import CheckError, Construct, ConstructError, Container, StreamError, TerminatedError

from gateway.errors import DecodeError, EncodeError

PARSE_ERRORS = (ConstructError, struct.error, ValueError, LookupError)
BUILD_ERRORS = (*PARSE_ERRORS, TypeError, AttributeError, OverflowError)

# A reason is counted and shown, so it is one of few: construct's own text names paths and sizes.
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (StreamError, "ends too early"),
    (struct.error, "ends too early"),
    (TerminatedError, "goes on after its end"),
    (CheckError, "counts disagree"),
)


# What ``Construct.parse`` and ``build`` make for each call, made once: it costs a third of what a record does, and it
# refers to itself, work for the garbage collector. Structs nest a context of their own in it and write to that.
_PARSING = Container(_params=None, _parsing=True, _building=False, _sizing=False)
_BUILDING = Container(_params=None, _parsing=False, _building=True, _sizing=False)


def parse(grammar: Construct, data: bytes) -> Any:
    """What ``grammar`` reads from the whole of ``data``.

    Raises DecodeError, whose offset counts from the first byte of ``data``: of the field, or of the record, at fault.
    """
    stream = BytesIO(data)
    try:
        return grammar._parse(stream, _PARSING, "(parsing)")
    except PARSE_ERRORS as error:
        raise DecodeError(_reason(error), _offset(error, stream)) from error


def build(grammar: Construct, value: Any) -> bytes:
    """The bytes of ``value``. Raises EncodeError where the grammar cannot hold it."""
    stream = BytesIO()
    try:
        grammar._build(value, stream, _BUILDING, "(building)")
    except BUILD_ERRORS as error:
        raise EncodeError(f"{type(error).__name__}: {error}") from error
    return stream.getvalue()


def _reason(error: Exception) -> str:
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), "does not follow the grammar")


def _offset(error: Exception, stream: BytesIO) -> int:
    """Terminated tells that something is left by reading it."""
    return stream.tell() - isinstance(error, TerminatedError)
