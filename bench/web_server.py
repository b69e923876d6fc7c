"""A web server for the benchmarks: ``python -m bench.web_server PORT [answer|hang|refuse|slow]``.

Answers 200 to every request, or never, or 500, or 200 after half a second. On bare asyncio: a framework would be what
is measured.
"""

from __future__ import annotations

import asyncio
import sys

TAKEN = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
ANSWERS = {
    "answer": TAKEN,
    "slow": TAKEN,
    "refuse": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
}


SLOW = 0.5
"""Seconds."""


class Server(asyncio.Protocol):
    """One connection; requests follow one another."""

    def __init__(self, answer: bytes | None, delay: float = 0.0) -> None:
        self._answer = answer
        self._delay = delay
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end]).lower()
            at = head.find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + size:
                return
            del self._buffer[: end + 4 + size]
            if self._answer is not None and self._delay:
                asyncio.get_running_loop().call_later(self._delay, self._transport.write, self._answer)
            elif self._answer is not None:
                self._transport.write(self._answer)


async def main() -> None:
    loop = asyncio.get_running_loop()
    how = sys.argv[2] if len(sys.argv) > 2 else "answer"
    answer, delay = ANSWERS.get(how), SLOW if how == "slow" else 0.0
    server = await loop.create_server(lambda: Server(answer, delay), "127.0.0.1", int(sys.argv[1]))
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
