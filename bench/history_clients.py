"""Clients that read a device's messages again and again, as fast as they get them.

``python -m bench.history_clients URL TOKEN CLIENTS FILE`` prints ``reading`` when each has got its first bytes, and
writes into FILE, some times a second, how many bytes all have read.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from bench.processes import NotStarted

MESSAGES_OF_FIRST = "/gw/devices/1/messages"
CHUNK = 256 * 1024
REPORT_EVERY = 0.2


class Client:
    """One connection to the REST API, kept alive."""

    def __init__(self, api_url: str, token: str) -> None:
        url = urllib.parse.urlsplit(api_url)
        self._connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=60)
        self._headers = {"Authorization": f"FlespiToken {token}"}

    def get(self, path: str, data: dict[str, object]) -> Iterator[bytes]:
        """The answer, as it comes; ``data`` is flespi's parameter. Raises NotStarted where it is an error."""
        query = f"?data={urllib.parse.quote(json.dumps(data))}" if data else ""
        self._connection.request("GET", path + query, headers=self._headers)
        response = self._connection.getresponse()
        if response.status != 200:
            raise NotStarted(f"the API answered {response.status}: {response.read(1000)!r}")
        while chunk := response.read1(CHUNK):
            yield chunk

    def size(self, path: str, data: dict[str, object]) -> int:
        """Bytes of the answer."""
        return sum(map(len, self.get(path, data)))


class Reading(threading.Thread):
    """A client that reads for ever; ``bytes`` so far."""

    def __init__(self, client: Client) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self._client = client

    def run(self) -> None:
        while True:
            for chunk in self._client.get(MESSAGES_OF_FIRST, {}):
                self.bytes += len(chunk)


def main() -> None:
    api_url, token, count, file = sys.argv[1:]
    readers = [Reading(Client(api_url, token)) for _ in range(int(count))]
    for reader in readers:
        reader.start()
    is_ready = False
    while all(reader.is_alive() for reader in readers):
        written = Path(file + ".new")
        written.write_text(str(sum(reader.bytes for reader in readers)))
        written.rename(file)  # whoever reads it finds a number
        if not is_ready and all(reader.bytes for reader in readers):
            is_ready = True
            print("reading", flush=True)
        time.sleep(REPORT_EVERY)
    sys.exit("a client could not read")


if __name__ == "__main__":
    main()
