"""What PostgreSQL says of what it does not take, and what can be done about it.

Classes of SQLSTATE, the first two characters, and single codes:
https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

from typing import Any

from gateway.errors import GatewayError, RemoteRefused, RemoteUnavailable

OF_THE_MESSAGE = ("22", "54")
"""Data exception, such as \\u0000 in a text; limits of the program, such as a JSON that is too deep."""
OF_THE_RULES = ("23", "P0")
"""Constraints and triggers that the operator has added to the table."""
OF_THE_CONNECTION = ("08", "25", "26", "57P", "42P01", "42703", "42P05", "42P10")
"""Lost; read-only, as after a failover; a prepared statement is gone or taken; shutdown. And the table, a column or the
key are gone, which are made at the opening."""
OF_A_POOLER = ("08P01", "26000", "42P05")
"""A setting that it does not know; a prepared statement is gone or taken."""
REASON_MOST = 500
"""Characters of what the server says that an error shows."""


class MessageRefused(GatewayError):
    """A message of the statement, or several, will never be taken."""


def as_ours(error: Any, *, skips: bool) -> GatewayError:
    """asyncpg's error in the class that says what can be done. ``skips``: what breaks a rule will always do so."""
    state, reason = error.sqlstate or "", _reason(error)
    if state in OF_A_POOLER:
        reason += "; behind pgbouncer or another pooler set statement_cache_size to 0"
    if state.startswith(OF_THE_MESSAGE) or (state.startswith(OF_THE_RULES) and skips):
        return MessageRefused(reason)
    if not state or state.startswith(OF_THE_CONNECTION):
        return RemoteUnavailable(reason)
    return RemoteRefused(reason, answer=reason)


def _reason(error: Any) -> str:
    """In the server's words, with its code."""
    words = ": ".join(part for part in (error.message or str(error), error.detail) if part)
    code = f" ({error.sqlstate})" if error.sqlstate else ""
    return f"{' '.join(words.split())[:REASON_MOST]}{code}"
