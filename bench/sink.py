"""A server that reads nothing: every ``SIZE`` bytes of a connection are acknowledged as ``RECORDS`` records.

``python -m bench.sink PORT SIZE RECORDS`` prints ``ready PORT``. It is no gateway, and nothing that a gateway could be:
it costs so little that what limits a load on it is whoever sends the load.
"""

from __future__ import annotations

import select
import socket
import sys

from gateway.protocols.teltonika.frame import build_acknowledgement, build_verdict

_LOGIN_SIZE = 17  # two bytes of length and 15 digits


class Sink:
    """All connections of a listening socket, in one loop."""

    def __init__(self, listening: socket.socket, size: int, records: int) -> None:
        self._listening = listening
        self._size = size
        self._ack = build_acknowledgement(records)
        self._sockets: dict[int, socket.socket] = {}
        self._missing: dict[int, int] = {}  # bytes until the next answer
        self._poll = select.epoll()
        self._poll.register(listening.fileno(), select.EPOLLIN)

    def serve(self) -> None:
        """For ever."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor in self._sockets:
                    self._take(descriptor)
                else:
                    self._accept()

    def _accept(self) -> None:
        connection, _ = self._listening.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if connection.recv(_LOGIN_SIZE, socket.MSG_WAITALL):
            connection.send(build_verdict(True))
        self._sockets[connection.fileno()] = connection
        self._missing[connection.fileno()] = self._size
        self._poll.register(connection.fileno(), select.EPOLLIN)

    def _take(self, descriptor: int) -> None:
        """A tracker waits for the answer before it sends more, so never more than one packet is here."""
        connection = self._sockets[descriptor]
        try:
            missing = self._missing[descriptor]
            data = connection.recv(missing)
            if len(data) == missing:
                connection.send(self._ack)
                missing += self._size
        except ConnectionError:
            data = b""
        if data:
            self._missing[descriptor] = missing - len(data)
        else:
            self._drop(descriptor)

    def _drop(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        self._sockets.pop(descriptor).close()
        del self._missing[descriptor]


def main() -> None:
    port, size, records = map(int, sys.argv[1:4])
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listening:
        print("ready", listening.getsockname()[1], flush=True)
        Sink(listening, size, records).serve()


if __name__ == "__main__":
    main()
