"""The only bridge between Twisted's Deferreds and asyncio's coroutines.

``Deferred.fromCoroutine`` cannot run asyncio code ("no running event loop"), and a reactor that was given a loop of its
own would leave asyncio's default loop without anybody who runs it: so the reactor is installed here, and coroutines go
through :func:`as_deferred`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


def install_reactor() -> None:
    """Make Twisted run on asyncio's default loop. Harmless where ``twistd --reactor=asyncio`` did it already."""
    if "twisted.internet.reactor" in sys.modules:
        return
    from twisted.internet import asyncioreactor

    asyncioreactor.install()


def as_deferred(coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
    """Start ``coroutine`` on the reactor's loop; cancelling the Deferred cancels it."""
    return Deferred.fromFuture(asyncio.ensure_future(coroutine))


async def from_deferred(deferred: Deferred[T]) -> T:
    """Wait for ``deferred`` inside a coroutine."""
    return await deferred.asFuture(asyncio.get_running_loop())


def heed_cancellation() -> None:
    """Raise CancelledError if this task was asked to end and went on; for loops that await other people's code.

    redis-py sends with ``asyncio.wait_for``, which on Python 3.11 swallows a cancellation that comes as the send ends.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
