"""What lies on a TCP stream: pings, one login, frames. Delimited by hand, a few bytes at a time; built by construct.

::

    ping    FF                                          no answer; before the login, between frames, glued to either
    login   length 2 | IMEI, 1 to 20 ASCII digits       once; the length of a real IMEI is 15
    frame   preamble 00000000 | data field length 4 | body | CRC 4

Bytes that can become none of these are a ProtocolViolation as soon as they are there: whoever speaks HTTP or TLS to
this port is known by the first byte or two.
"""

from __future__ import annotations

from construct import Const, GreedyBytes, Int8ub, Int16ub, Int32ub, Prefixed, Struct

from gateway.errors import ProtocolViolation
from gateway.protocols.teltonika import border
from gateway.protocols.teltonika.checksum import crc16

KIB = 1024

# Documented is 1280 bytes a packet, and frames of 1268 are seen; 255 records of the 255 bytes that the FMB640 family
# allows come to 65,025. What declares more is not a tracker.
MAX_DATA_LENGTH = 64 * KIB

# The documents print 15 digits, old ones 16; nothing seen has more than 20.
MAX_IMEI_LENGTH = 20

PING = b"\xff"
PREAMBLE = bytes(4)

LOGIN = Struct("imei" / Prefixed(Int16ub, GreedyBytes))
FRAME = Struct("preamble" / Const(PREAMBLE), "body" / Prefixed(Int32ub, GreedyBytes), "crc" / Int32ub)
VERDICT = Int8ub
ACKNOWLEDGEMENT = Int32ub

_HEAD = 8  # preamble, data field length
_CRC = 4
_DIGITS = frozenset(b"0123456789")


def build_login(imei: str) -> bytes:
    """What a tracker sends first. Raises EncodeError."""
    return border.build(LOGIN, {"imei": imei.encode("ascii", "replace")})


def build_frame(body: bytes, crc: int | None = None) -> bytes:
    """A frame around ``body``, with its own CRC unless another one is given."""
    return border.build(FRAME, {"body": body, "crc": crc16(body) if crc is None else crc})


def build_verdict(accepted: bool) -> bytes:
    """The one byte that answers a login: 01 or 00."""
    return border.build(VERDICT, int(accepted))


def build_acknowledgement(count: int) -> bytes:
    """The four bytes that answer a frame: how many records were accepted. Raises EncodeError."""
    return border.build(ACKNOWLEDGEMENT, count)


def body_of(frame: bytes) -> bytes:
    """The bytes from codec id to number of data 2 of a complete frame."""
    return frame[_HEAD:-_CRC]


def has_good_crc(frame: bytes) -> bool:
    """Whether the CRC field is that of the body, its upper 16 bits zero."""
    return int.from_bytes(frame[-_CRC:], "big") == crc16(body_of(frame))


class FrameBuffer:
    """The bytes received and not yet taken; hands out logins and frames as they become complete.

    What is declared is checked before it is waited for: when no login or frame is complete, less than one frame of
    the greatest length is held.
    """

    def __init__(self, max_data_length: int = MAX_DATA_LENGTH) -> None:
        self._buffer = bytearray()
        self._max_data_length = max_data_length

    def __len__(self) -> int:
        return len(self._buffer)

    def receive(self, data: bytes) -> None:
        """Append what came from the socket."""
        self._buffer += data

    def peek(self, most: int) -> bytes:
        """The first bytes held, ``most`` of them."""
        return bytes(self._buffer[:most])

    def clear(self) -> None:
        """Forget everything."""
        self._buffer.clear()

    def next_login(self) -> str | None:
        """The IMEI of a complete login, or None. Raises ProtocolViolation."""
        self._skip_pings()
        length = self._login_length()
        if length is None:
            return None
        digits = self._buffer[2 : 2 + length]
        if not _DIGITS.issuperset(digits):
            raise ProtocolViolation("login is not an IMEI", f"begins with {self._beginning()}")
        return self._take(2 + length)[2:].decode("ascii") if len(digits) == length else None

    def next_frame(self) -> bytes | None:
        """A complete frame with preamble and CRC, or None. Its CRC is not checked. Raises ProtocolViolation."""
        self._skip_pings()
        if any(self._buffer[: len(PREAMBLE)]):
            raise ProtocolViolation("preamble is not zero", f"begins with {self._beginning()}")
        if len(self._buffer) < _HEAD:
            return None
        length = int.from_bytes(self._buffer[len(PREAMBLE) : _HEAD], "big")
        if length > self._max_data_length:
            raise ProtocolViolation("data field length above the limit", f"{length} > {self._max_data_length}")
        size = _HEAD + length + _CRC
        return self._take(size) if len(self._buffer) >= size else None

    def _login_length(self) -> int | None:
        """The declared length once both its bytes are there; the first one alone can already be wrong."""
        declared = self._buffer[:2]
        length = int.from_bytes(declared, "big")
        is_complete = len(declared) == 2
        if any(declared[:1]) or (is_complete and not 1 <= length <= MAX_IMEI_LENGTH):
            raise ProtocolViolation("not a login", f"begins with {self._beginning()}")
        return length if is_complete else None

    def _skip_pings(self) -> None:
        buffer = self._buffer
        if buffer.startswith(PING):
            del buffer[: len(buffer) - len(buffer.lstrip(PING))]

    def _take(self, size: int) -> bytes:
        """``del`` moves the start of a bytearray, it copies nothing."""
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _beginning(self) -> str:
        return self._buffer[:16].hex()
