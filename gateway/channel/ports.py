"""Ports for channels that are created without endpoints of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from gateway.channel.endpoints import port_of
from gateway.errors import ListenError
from gateway.store.items import Channel, Items


class PortRange:
    """The ports that may be given away."""

    def __init__(self, ports: range, items: Items) -> None:
        self._ports = ports
        self._items = items
        self._one_at_a_time = asyncio.Lock()

    async def create(self, make: Callable[[list[str]], Awaitable[Channel]]) -> Channel:
        """What ``make`` creates with the endpoints of the lowest free port, TCP and UDP.

        Free is a port that no channel names, not even a disabled one, and that can be listened on. Raises ListenError
        where there is none, and whatever else ``make`` raises.
        """
        async with self._one_at_a_time:
            for port in self._free():
                try:
                    return await make([f"tcp:{port}", f"udp:{port}"])
                except ListenError:
                    continue  # some other program has it
        raise ListenError(
            f"no port from {self._ports[0]} to {self._ports[-1]} is free: give listen, or widen api.channel_ports"
        )

    def _free(self) -> Iterator[int]:
        taken = {port_of(spec) for channel in self._items.channels.values() for spec in channel.listen}
        return (port for port in self._ports if not taken & {("tcp", port), ("udp", port)})
