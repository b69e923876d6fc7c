"""An MQTT subscriber that does nothing but count: what arrives, how late, and whether anything is missing.

``python -m bench.subscriber --to HOST:PORT TOPIC ...`` subscribes with QoS 1 and prints a JSON line about every fifth
of a second: how many channel messages, device messages and other ones came, how many of the messages were different
ones (by topic and timestamp), the bytes, and the seconds between a message's ``server.timestamp`` and its arrival since
the line before; with ``--lags`` each of these by itself, those of channel and device messages apart. MQTT 3.1.1 on a
bare socket, read and acknowledged in batches: a client library would take the processor from the gateway that is to be
measured.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import sys
import time
from array import array
from collections.abc import Iterator
from typing import Any

from bench.rows import quantile

REPORT_EVERY = 0.2
COLLECT = 0.002  # s: Mosquitto writes each message by itself; reading each by itself would cost 10 us
SAMPLE = 4  # of every so many messages one is looked at for its time
_PUBLISH, _QOS = 0x30, 0x06
_CHANNEL, _DEVICE = b"/message/gw/channels/", b"/message/gw/devices/"


class Tally:
    """What came so far."""

    def __init__(self) -> None:
        self.channel = self.device = self.other = self.bytes = 0
        self._seen_channel: set[int] = set()
        self._seen_device: set[int] = set()
        self._channel_lags, self._device_lags = array("d"), array("d")

    def count(self, topic: bytes, payload: bytes) -> None:
        """One message. A 64-bit hash stands for topic and timestamp: among a million, hardly ever are two alike."""
        self.bytes += len(payload)
        if _CHANNEL in topic:
            self.channel += 1
            seen, number, lags = self._seen_channel, self.channel, self._channel_lags
        elif _DEVICE in topic:
            self.device += 1
            seen, number, lags = self._seen_device, self.device, self._device_lags
        else:
            self.other += 1
            return
        at = payload.find(b'"timestamp":') + 12
        seen.add(hash((topic, payload[at : at + 14])))
        if number % SAMPLE == 0:
            lags.append(time.time() - _number_after(payload, b'"server.timestamp":'))

    def report(self, has_lags: bool = False) -> dict[str, Any]:
        """The counts, and the lags since the last report: also one by one where it ``has_lags``."""
        channel, device = self._channel_lags, self._device_lags
        self._channel_lags, self._device_lags = array("d"), array("d")
        lags = channel + device
        each = {"channel_lags": channel.tolist(), "device_lags": device.tolist()} if has_lags else {}
        return {
            **each,
            "channel": self.channel,
            "device": self.device,
            "other": self.other,
            "bytes": self.bytes,
            "different_channel": len(self._seen_channel),
            "different_device": len(self._seen_device),
            "lag_p50": quantile(lags, 0.5),
            "lag_p99": quantile(lags, 0.99),
            "at": time.time(),
        }


def publishes(buffer: bytearray, acks: bytearray) -> Iterator[tuple[bytes, bytes]]:
    """Topic and payload of each complete PUBLISH in ``buffer``, which loses them; PUBACKs go to ``acks``."""
    at, end = 0, len(buffer)
    data = bytes(buffer)
    while at + 2 <= end:
        size, body = data[at + 1], at + 2
        if size & 0x80:
            size, body = _long_size(data, at + 1)
        if body < 0 or body + size > end:
            break
        kind = data[at]
        if kind & 0xF0 == _PUBLISH:
            topic_end = body + 2 + (data[body] << 8 | data[body + 1])
            payload = topic_end
            if kind & _QOS:
                payload += 2
                acks += b"\x40\x02"
                acks += data[topic_end:payload]
            yield data[body + 2 : topic_end], data[payload : body + size]
        at = body + size
    del buffer[:at]


def _long_size(data: bytes, at: int) -> tuple[int, int]:
    """A remaining length of more than one byte, and where the body begins; -1 when it is not all here."""
    size = shift = 0
    for place in range(at, min(at + 4, len(data))):
        size |= (data[place] & 0x7F) << shift
        shift += 7
        if not data[place] & 0x80:
            return size, place + 1
    return 0, -1


def subscribe(address: tuple[str, int], topics: list[str]) -> socket.socket:
    """A connection to the broker, subscribed to ``topics`` with QoS 1."""
    connection = socket.create_connection(address, timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    client = b"bench-subscriber"
    connection.sendall(_packet(0x10, b"\0\x04MQTT\x04\x02\0\0" + _text(client)))
    _expect(connection, 4, b"\x20\x02\0\0")
    wanted = b"".join(_text(topic.encode()) + b"\x01" for topic in topics)
    connection.sendall(_packet(0x82, b"\0\x01" + wanted))
    _expect(connection, 4 + len(topics), b"\x90")
    return connection


def _packet(kind: int, body: bytes) -> bytes:
    size, left = bytearray(), len(body)
    while left > 127:
        size.append(left & 127 | 128)
        left >>= 7
    return bytes([kind, *size, left]) + body


def _text(text: bytes) -> bytes:
    return struct.pack(">H", len(text)) + text


def _expect(connection: socket.socket, size: int, beginning: bytes) -> None:
    answer = connection.recv(size, socket.MSG_WAITALL)
    if not answer.startswith(beginning):
        raise ConnectionError(f"the broker answered {answer.hex()} instead of {beginning.hex()}...")


def _number_after(payload: bytes, name: bytes) -> float:
    at = payload.find(name)
    if at < 0:
        return time.time()
    at += len(name)
    end = at
    while payload[end] in b"0123456789.":
        end += 1
    return float(payload[at:end])


def listen(connection: socket.socket, tally: Tally, has_lags: bool = False) -> None:
    """Count until the broker closes the connection."""
    connection.setblocking(False)
    buffer, due = bytearray(), 0.0
    while True:
        time.sleep(COLLECT)
        try:
            data = connection.recv(1 << 20)
            if not data:
                return
        except BlockingIOError:
            data = b""
        buffer += data
        acks = bytearray()
        for topic, payload in publishes(buffer, acks):
            tally.count(topic, payload)
        _send_all(connection, bytes(acks))
        if (now := time.monotonic()) >= due:
            due = now + REPORT_EVERY
            print(json.dumps(tally.report(has_lags)), flush=True)


def _send_all(connection: socket.socket, data: bytes) -> None:
    if data:
        connection.setblocking(True)
        connection.sendall(data)
        connection.setblocking(False)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.subscriber", description=__doc__.partition("\n")[0])
    parser.add_argument("--to", default="127.0.0.1:1883", metavar="HOST:PORT")
    parser.add_argument("--lags", action="store_true", help="print each lag")
    parser.add_argument("topics", nargs="+", metavar="TOPIC")
    options = parser.parse_args()
    host, _, port = options.to.rpartition(":")
    listen(subscribe((host, int(port)), options.topics), Tally(), options.lags)
    return 0


if __name__ == "__main__":
    sys.exit(main())
