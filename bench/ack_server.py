"""A server that only acknowledges: what Twisted on asyncio can do at most, and what the load generator is tried on.

``python -m bench.ack_server [PORT]`` prints ``ready PORT`` and accepts every login; of a frame it reads the length and
the number of records, nothing else.
"""

from __future__ import annotations

import sys

from gateway import aio

aio.install_reactor()

from twisted.internet import reactor  # noqa: E402
from twisted.internet.protocol import Protocol, ServerFactory  # noqa: E402

_LOGIN_SIZE = 17  # two bytes of length and 15 digits
_AROUND_BODY = 12  # preamble, data field length, CRC


class OnlyAcknowledge(Protocol):
    """The verdict, then the number of records of each frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._logged_in = False

    def dataReceived(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        if not self._logged_in and len(buffer) >= _LOGIN_SIZE:
            del buffer[:_LOGIN_SIZE]
            self._logged_in = True
            self._write(b"\x01")
        while self._logged_in and len(buffer) >= _AROUND_BODY:
            size = int.from_bytes(buffer[4:8], "big") + _AROUND_BODY
            if len(buffer) < size:
                return
            count = buffer[9]
            del buffer[:size]
            self._write(b"\0\0\0%c" % count)

    def _write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


def main() -> None:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    factory = ServerFactory()
    factory.protocol = OnlyAcknowledge
    listening = reactor.listenTCP(port, factory, 1024, "127.0.0.1")
    reactor.callWhenRunning(print, "ready", listening.getHost().port, flush=True)  # type: ignore[attr-defined]
    reactor.run()


if __name__ == "__main__":
    main()
