"""How a stream is doing: what the API, MQTT and the metrics say of it."""

from __future__ import annotations

from attrs import define, field


@define
class Counters:
    """Messages since the gateway started."""

    delivered: int = 0
    rejected: int = 0
    """The target will never take them, and said why."""
    skipped: int = 0
    """``validate_message`` was not true."""
    given_up: int = 0
    """They waited for longer than ``queue_ttl``."""
    failures: int = 0
    """Attempts to connect or to deliver that failed, and were repeated."""


@define
class StreamState:
    """``state``: disabled, blocked (the configuration cannot be used), connecting, connected, failing (the target does
    not take messages). ``error`` is the last one, with when it came; empty once a batch was delivered."""

    state: str = "disabled"
    error: str = ""
    error_at: float | None = None
    since: float = 0.0
    """When the state began, UNIX seconds."""
    next_attempt_at: float | None = None
    """While it fails: when it is tried again."""
    delivered_at: float | None = None
    counters: Counters = field(factory=Counters)

    @property
    def is_connected(self) -> bool:
        """Whether the target can be reached, as far as is known."""
        return self.state == "connected"
