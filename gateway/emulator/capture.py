"""What was sent, as a file, and back: ``--record`` writes it, ``--replay`` sends it through real sessions.

A line for each write::

    2026-11-21T08:00:00.123Z 352093081452251 000f333532303933303831343532323531

The time and the IMEI may be left out: a plain line of hexadecimal is a frame, a login, a datagram or a ping, and which
of these shows in its bytes. Frames belong to the login before them (of the same IMEI where the line has one), and
before any login to the tracker that the command line names. White space inside the hexadecimal, empty lines and what
follows a ``#`` are ignored.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import attrs

from gateway.emulator.packets import Packet
from gateway.emulator.tally import Tally
from gateway.errors import ConfigError, ProtocolViolation
from gateway.protocols.teltonika.datagram import receive_datagram
from gateway.protocols.teltonika.frame import MAX_IMEI_LENGTH, FrameBuffer, body_of, has_good_crc
from gateway.protocols.teltonika.wire import declared_count
from gateway.protocols.teltonika.wire_commands import BODIES as COMMAND_BODIES

TCP, UDP = "tcp", "udp"
_LINE = re.compile(r"(?:(?P<at>\d{4}-\d\d-\d\dT\S+)\s+)?(?:(?P<imei>\d{15})\s+)?(?P<data>[0-9A-Fa-f\s]+)")


class Recording:
    """A file that is written line by line; several processes may write to the same one."""

    def __init__(self, path: Path, is_first: bool = True) -> None:
        """The first who opens it empties it. Raises ConfigError."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | (os.O_TRUNC if is_first else 0)
        try:
            self._file = os.open(path, flags, 0o644)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._file)

    def __call__(self, imei: str, data: bytes) -> None:
        """Note what is sent now. One write each: with O_APPEND lines of several processes do not mix."""
        now = time.time()
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        os.write(self._file, f"{at}.{int(now * 1000) % 1000:03}Z {imei} {data.hex()}\n".encode())


@attrs.frozen
class Captured:
    """One tracker's packets, in order, and how they travelled."""

    imei: str
    transport: str
    packets: tuple[Packet, ...]


class Replay:
    """Packets of a capture, as a device's source of packets."""

    __slots__ = ("_left", "_tally", "pending")

    def __init__(self, packets: Iterable[Packet], tally: Tally) -> None:
        self.pending: Packet | None = None
        self._left = deque(packets)
        self._tally = tally
        tally.recorded += sum(packet.count or 0 for packet in self._left)

    @property
    def is_done(self) -> bool:
        return self.pending is None and not self._left

    @property
    def is_due(self) -> bool:
        return not self.is_done

    def take(self) -> Packet | None:
        if self.pending is None and self._left:
            self.pending = self._left.popleft()
            self._tally.packets += 1
        return self.pending

    def finish(self) -> None:
        """Send no more of it; what was not sent stays unacknowledged."""
        self._left.clear()

    def settle(self) -> None:
        assert self.pending is not None
        self._tally.acknowledged += self.pending.count or 0
        self.pending = None


def read_capture(path: Path, imei: str) -> list[Captured]:
    """The sessions in a file; ``imei`` is whose the frames before any login are. Raises ConfigError with the line."""
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    reader = _Reader(imei)
    for number, line in enumerate(text.splitlines(), 1):
        try:
            reader.read(line.partition("#")[0].strip())
        except (ValueError, ProtocolViolation) as error:
            raise ConfigError(f"{path}, line {number}: {error}") from None
    try:
        return reader.captured()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


class _Reader:
    def __init__(self, imei: str) -> None:
        self._imei = imei
        self._streams: dict[str, FrameBuffer] = {}
        self._packets: dict[tuple[str, str], list[Packet]] = {}

    def read(self, line: str) -> None:
        if not line:
            return
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError("not hexadecimal, with a time and an IMEI before it at most")
        data = bytes.fromhex(match["data"])
        if self._is_datagram(data):
            self._take_datagram(data)
        else:
            self._take_stream(data, match["imei"])

    def captured(self) -> list[Captured]:
        """Raises ConfigError where there is nothing, or a frame is not complete."""
        for imei, stream in self._streams.items():
            if len(stream):
                raise ConfigError(f"the last frame of {imei} is not complete")
        if not self._packets:
            raise ConfigError("there is nothing in it")
        return [Captured(imei, transport, tuple(packets)) for (imei, transport), packets in self._packets.items()]

    def _is_datagram(self, data: bytes) -> bool:
        try:
            receive_datagram(data)
        except ProtocolViolation:
            return False
        return True

    def _take_datagram(self, data: bytes) -> None:
        event = receive_datagram(data)
        self._packets.setdefault((event.ident, UDP), []).append(_packet(data, event.body))

    def _take_stream(self, data: bytes, imei: str | None) -> None:
        """A login begins a stream anew, and so ends one that was cut; all else are pieces of frames, and pings."""
        login = _login_of(data)
        if login is not None:
            self._imei = login
            self._streams[login] = FrameBuffer()
            self._packets.setdefault((login, TCP), [])
            return
        owner = imei or self._imei
        stream = self._streams.setdefault(owner, FrameBuffer())
        stream.receive(data)
        while (frame := stream.next_frame()) is not None:
            self._packets.setdefault((owner, TCP), []).append(_packet(frame, body_of(frame), has_good_crc(frame)))


def _login_of(data: bytes) -> str | None:
    """The IMEI, where ``data`` is a whole login and nothing else."""
    digits = data[2:]
    is_login = data[:2] == len(digits).to_bytes(2, "big") and digits.isdigit() and len(digits) <= MAX_IMEI_LENGTH
    return digits.decode("ascii") if is_login else None


def _packet(data: bytes, body: bytes, is_whole: bool = True) -> Packet:
    """A body of Codec 12 to 15 is never acknowledged, nor an empty one, nor one whose CRC is wrong."""
    is_answered = is_whole and body[:1] != b"" and body[0] not in COMMAND_BODIES
    return Packet(data, body, declared_count(body) if is_answered else None)
