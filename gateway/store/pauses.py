"""When a stream was disabled: what came meanwhile is not for it (flespi: it neither queues nor clears)."""

from __future__ import annotations

from attrs import evolve

from gateway.store.item import Stream

PAUSES_MOST = 20
"""The last ones; what waits from before them is older than most queues keep."""


def with_pauses(old: Stream | None, new: Stream, now: float) -> Stream:
    """``new`` with its pauses: a new one where it is disabled now, the last one ended where it is enabled again.

    ``old`` None: the stream is new. ``now`` in UNIX seconds.
    """
    pauses = list(old.pauses) if old is not None else []
    was_enabled = old.enabled if old is not None else True
    if was_enabled and not new.enabled:
        pauses = [*pauses, [now, None]][-PAUSES_MOST:]
    elif new.enabled and not was_enabled and pauses:
        pauses[-1] = [pauses[-1][0], now]
    return evolve(new, pauses=pauses)
