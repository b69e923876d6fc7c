"""Wakes all streams when something came to a log, so that none of them needs a connection to Redis to wait on."""

from __future__ import annotations

import asyncio


class News:
    """Whoever writes to a log calls :meth:`ring`; streams look by themselves, too, once a second."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Something came."""
        if not self._event.is_set():
            self._event.set()

    async def wait(self, timeout: float) -> None:
        """Until something came since the last wait of any stream, ``timeout`` seconds at most."""
        event = self._event
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            return
        if self._event is event:
            self._event = asyncio.Event()
