"""What an expression may know besides the message."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, tzinfo
from typing import Any

from attrs import frozen


@frozen
class Context:
    """``previous`` is the message before this one, for ``#name``, ``previous()``, ``mileage()`` and ``duration()``.

    ``timezone`` is that of ``hour()`` and its kind; ``clock`` tells ``now()`` the time, in unix seconds.
    """

    previous: Mapping[str, Any] | None = None
    timezone: tzinfo = UTC
    clock: Callable[[], float] = time.time


EMPTY = Context()
