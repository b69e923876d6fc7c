"""The header of the PROXY protocol: from whom a connection comes that a proxy passes on. No I/O.

proxy -> gateway, before anything else, also before TLS::

    version 1   "PROXY TCP4 203.0.113.7 192.0.2.1 50123 5027" CR LF      at most 107 bytes; TCP6; UNKNOWN ...
    version 2   12 bytes of signature
                1 byte   version 2 in the high half; command in the low one: 0 LOCAL, 1 PROXY
                1 byte   family in the high half: 1 IPv4, 2 IPv6, 3 unix; transport in the low one: 1 stream, 2 datagram
                2 bytes  length of what follows
                         source address, destination address, source port, destination port; then TLVs, ignored here

The source is HAProxy's ``doc/proxy-protocol.txt``, sections 2.1 and 2.2. Twisted's own parser closes connections whose
first segment is shorter than 16 bytes, and takes any text for an address.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import IPv4Address as IPv4
from ipaddress import IPv6Address as IPv6

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address

from gateway.errors import ProtocolViolation

Address = IPv4Address | IPv6Address

V1_BEGIN = b"PROXY "
V1_MOST = 107
"""Bytes of version 1 with CR LF: what the longest addresses take, says the document."""
V2_BEGIN = b"\r\n\r\n\x00\r\nQUIT\n"
V2_FIXED = struct.Struct("!12sBBH")
V2_MOST = 4096
"""Bytes that version 2 may declare. Addresses take 216 at most; TLVs of load balancers stay far below 1 KiB."""
LOCAL, PROXY = 0, 1
IP_SIZES = {1: 4, 2: 16}
"""Bytes of an address, by family."""
UNIX_FAMILY, DATAGRAM = 3, 2
"""The highest family and transport that there are."""


@frozen
class Header:
    """Both ends of the connection as the proxy saw it; None: it does not say, or speaks for itself (a health check)."""

    source: Address | None = None
    destination: Address | None = None


def read_header(data: bytes | bytearray) -> tuple[Header, int] | None:
    """The header that ``data`` begins with, and its size in bytes; None: more bytes are needed.

    Raises ProtocolViolation as soon as the bytes can become no header, or declare too long a one.
    """
    for begin, read in ((V1_BEGIN, _read_v1), (V2_BEGIN, _read_v2)):
        if data.startswith(begin):
            return read(data)
        if begin.startswith(bytes(data)):
            return None
    raise ProtocolViolation("no PROXY header", f"begins with {bytes(data[:12]).hex()}")


def unmapped(ip: IPv4 | IPv6) -> IPv4 | IPv6:
    """An IPv4 address in IPv6's clothes (::ffff:192.0.2.1) as itself: the same host is always the same text."""
    return getattr(ip, "ipv4_mapped", None) or ip


def _read_v1(data: bytes | bytearray) -> tuple[Header, int] | None:
    end = data.find(b"\r\n", 0, V1_MOST)
    if end >= 0:
        return _parse_line(bytes(data[:end])), end + 2
    if len(data) >= V1_MOST:
        raise ProtocolViolation("PROXY header too long", f"{V1_MOST} bytes and no end of the line")
    return None


def _parse_line(line: bytes) -> Header:
    _proxy, kind, *rest = line.split(b" ")
    if kind == b"UNKNOWN":
        return Header()
    if kind not in (b"TCP4", b"TCP6") or len(rest) != 4:
        raise _malformed(line)
    parse = IPv4 if kind == b"TCP4" else IPv6
    source, destination, *ports = (part.decode("ascii", "replace") for part in rest)
    try:
        ends = zip((source, destination), ports, strict=True)
        return Header(*(_address(_ip(parse, host), _port(port)) for host, port in ends))
    except ValueError as error:
        raise _malformed(line) from error


def _ip(parse: Callable[[str], IPv4 | IPv6], text: str) -> IPv4 | IPv6:
    if "%" in text:  # a scope id, which means nothing on another machine
        raise ValueError(text)
    return parse(text)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 5 or int(text) > 65535:
        raise ValueError(text)
    return int(text)


def _read_v2(data: bytes | bytearray) -> tuple[Header, int] | None:
    if len(data) < V2_FIXED.size:
        return None
    _signature, version_command, family_transport, length = V2_FIXED.unpack_from(data)
    if length > V2_MOST:
        raise ProtocolViolation("PROXY header too long", f"declares {length} bytes, the limit is {V2_MOST}")
    command, family, transport = version_command & 15, family_transport >> 4, family_transport & 15
    if version_command >> 4 != 2 or command > PROXY or family > UNIX_FAMILY or transport > DATAGRAM:
        raise _malformed(data[: V2_FIXED.size])
    size = V2_FIXED.size + length
    if len(data) < size:
        return None
    if command == LOCAL or family not in IP_SIZES or transport == 0:
        return Header(), size
    return _parse_ends(bytes(data[V2_FIXED.size : size]), IP_SIZES[family]), size


def _parse_ends(body: bytes, ip_size: int) -> Header:
    layout = struct.Struct(f"!{ip_size}s{ip_size}sHH")
    if len(body) < layout.size:
        raise ProtocolViolation("malformed PROXY header", f"{len(body)} bytes of addresses instead of {layout.size}")
    source, destination, *ports = layout.unpack_from(body)
    parse = IPv4 if ip_size == 4 else IPv6
    return Header(_address(parse(source), ports[0]), _address(parse(destination), ports[1]))


def _address(ip: IPv4 | IPv6, port: int) -> Address:
    ip = unmapped(ip)
    return IPv4Address("TCP", str(ip), port) if ip.version == 4 else IPv6Address("TCP", str(ip), port)


def _malformed(data: bytes | bytearray) -> ProtocolViolation:
    return ProtocolViolation("malformed PROXY header", repr(bytes(data)))
