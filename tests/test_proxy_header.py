"""The header of the PROXY protocol: both versions, whole and in pieces, and what is none."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address

from gateway.channel.proxy_header import V2_BEGIN, V2_MOST, Header, read_header
from gateway.errors import ProtocolViolation

TRACKER, GATEWAY = IPv4Address("TCP", "203.0.113.7", 50123), IPv4Address("TCP", "192.0.2.1", 5027)
TRACKER6, GATEWAY6 = IPv6Address("TCP", "2001:db8::7", 50123), IPv6Address("TCP", "2001:db8::1", 5027)
LOGIN = b"\x00\x0f352093081452251"


def v2(body: bytes, family: int = 0x11, command: int = 0x21) -> bytes:
    return V2_BEGIN + struct.pack("!BBH", command, family, len(body)) + body


def ends(source: str, destination: str, *ports: int) -> bytes:
    return ip_address(source).packed + ip_address(destination).packed + struct.pack("!HH", *ports)


IPV4 = ends("203.0.113.7", "192.0.2.1", 50123, 5027)
IPV6 = ends("2001:db8::7", "2001:db8::1", 50123, 5027)

GOOD = [
    pytest.param(b"PROXY TCP4 203.0.113.7 192.0.2.1 50123 5027\r\n", Header(TRACKER, GATEWAY), id="v1 TCP4"),
    pytest.param(b"PROXY TCP6 2001:db8::7 2001:DB8:0::1 50123 5027\r\n", Header(TRACKER6, GATEWAY6), id="v1 TCP6"),
    pytest.param(
        b"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:192.0.2.1 50123 5027\r\n", Header(TRACKER, GATEWAY), id="mapped"
    ),
    pytest.param(b"PROXY UNKNOWN\r\n", Header(), id="v1 UNKNOWN"),
    pytest.param(
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
        Header(),
        id="v1 UNKNOWN with whatever follows",
    ),
    pytest.param(v2(IPV4), Header(TRACKER, GATEWAY), id="v2 IPv4"),
    pytest.param(v2(IPV4, family=0x12), Header(TRACKER, GATEWAY), id="v2 IPv4 datagram"),
    pytest.param(v2(IPV6, family=0x21), Header(TRACKER6, GATEWAY6), id="v2 IPv6"),
    pytest.param(v2(IPV4 + b"\x04\x00\x03abc" + b"\x03\x00\x04\0\0\0\0"), Header(TRACKER, GATEWAY), id="v2 with TLVs"),
    pytest.param(v2(b"", family=0, command=0x20), Header(), id="v2 LOCAL"),
    pytest.param(v2(IPV4, command=0x20), Header(), id="v2 LOCAL with addresses, which are not to be used"),
    pytest.param(v2(b"whatever", family=0), Header(), id="v2 of no family"),
    pytest.param(v2(b"\0" * 216, family=0x31), Header(), id="v2 unix"),
    pytest.param(v2(IPV4 + b"\0" * (V2_MOST - len(IPV4))), Header(TRACKER, GATEWAY), id="the longest"),
]

BAD = [
    pytest.param(LOGIN, "no PROXY header", id="a tracker without a proxy"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01", "no PROXY header", id="TLS without a proxy"),
    pytest.param(b"PROXY\tTCP4", "no PROXY header", id="no blank"),
    pytest.param(b"PROXY TCP4 203.0.113.7 192.0.2.1 50123 5027\n" + b"x" * 100, "PROXY header too long", id="no CR"),
    pytest.param(b"PROXY " + b"A" * 101, "PROXY header too long", id="107 bytes without an end"),
    pytest.param(b"PROXY TCP4 203.0.113.7 192.0.2.1 50123\r\n", "malformed PROXY header", id="a port is missing"),
    pytest.param(b"PROXY TCP4 203.0.113.7 192.0.2.1 5 6 7\r\n", "malformed PROXY header", id="a port too many"),
    pytest.param(b"PROXY TCP4 203.0.113.7 192.0.2.1 50123 65536\r\n", "malformed PROXY header", id="no such port"),
    pytest.param(b"PROXY TCP4 203.0.113.7 192.0.2.1 +5 5027\r\n", "malformed PROXY header", id="a port with a sign"),
    pytest.param(
        b"PROXY TCP4 203.0.113.7 192.0.2.1 \xd9\xa5 1\r\n", "malformed PROXY header", id="digits of elsewhere"
    ),
    pytest.param(b"PROXY TCP4 evil/# 192.0.2.1 50123 5027\r\n", "malformed PROXY header", id="text for an address"),
    pytest.param(b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n", "malformed PROXY header", id="IPv6 called TCP4"),
    pytest.param(b"PROXY TCP6 fe80::1%x 2001:db8::1 1 2\r\n", "malformed PROXY header", id="a scope"),
    pytest.param(b"PROXY UDP4 203.0.113.7 192.0.2.1 1 2\r\n", "malformed PROXY header", id="UDP4"),
    pytest.param(b"PROXY \r\n", "malformed PROXY header", id="nothing"),
    pytest.param(v2(IPV4, command=0x11), "malformed PROXY header", id="version 1 in version 2"),
    pytest.param(v2(IPV4, command=0x22), "malformed PROXY header", id="no such command"),
    pytest.param(v2(IPV4, family=0x41), "malformed PROXY header", id="no such family"),
    pytest.param(v2(IPV4, family=0x13), "malformed PROXY header", id="no such transport"),
    pytest.param(v2(IPV4[:-1]), "malformed PROXY header", id="addresses cut short"),
    pytest.param(v2(IPV4, family=0x21), "malformed PROXY header", id="IPv4 called IPv6"),
    pytest.param(V2_BEGIN + b"\x21\x11\x10\x01", "PROXY header too long", id="one byte more than the limit"),
]


@pytest.mark.parametrize(("data", "header"), GOOD)
def test_a_header_is_read_and_what_follows_is_left(data: bytes, header: Header):
    """The size tells where the tracker's bytes begin."""
    assert read_header(data) == (header, len(data))
    assert read_header(data + LOGIN) == (header, len(data))


@pytest.mark.parametrize(("data", "_header"), GOOD)
def test_every_beginning_of_a_header_needs_more(data: bytes, _header: Header):
    """One byte may come alone."""
    assert [read_header(data[:size]) for size in range(len(data))] == [None] * len(data)


@pytest.mark.parametrize(("data", "reason"), BAD)
def test_what_is_no_header_says_why(data: bytes, reason: str):
    """At once, whatever would follow; the length before the bytes that it declares."""
    with pytest.raises(ProtocolViolation) as caught:
        read_header(data)
    assert caught.value.reason == reason


beginnings = st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 1::2 ", V2_BEGIN, v2(b"")[:13]])


@given(beginnings, st.binary(max_size=300))
@example(b"PROXY ", b"\r\n")
def test_noise_raises_nothing_else_and_is_bounded(beginning: bytes, noise: bytes):
    """And more bytes never change what was said of the first ones."""
    data = beginning + noise
    try:
        found = read_header(data)
    except ProtocolViolation:
        return
    if found is None:
        assert len(data) < 16 + V2_MOST
        return
    header, size = found
    assert 8 <= size <= len(data)
    assert read_header(data[:size]) == (header, size)
    assert (header.source is None) == (header.destination is None)
