"""What the benchmarks measure with: a wrong instrument would be believed."""

from __future__ import annotations

import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.rows import Row, median_rate, quantile, table
from bench.subscriber import Tally, publishes
from gateway.emulator.tape import SHAPES, STEP_MS, Tape
from gateway.protocols.teltonika.frame import has_good_crc
from gateway.protocols.teltonika.wire import decode_packet


@pytest.mark.parametrize(("name", "size", "io_elements"), [("pkt1", 81, 10), ("pkt10", 1155, 18), ("pkt20", 2295, 18)])
def test_the_packets_have_the_published_sizes(name: str, size: int, io_elements: int) -> None:
    """They are valid frames, and no two records of a tape have the same time."""
    tape = Tape(SHAPES[name], begin_ms=1_700_000_000_000)
    tape.prepare(5)
    assert [len(frame) for frame in tape.packets] == [size] * 5
    assert all(has_good_crc(frame) for frame in tape.packets)
    records = [record for frame in tape.packets for record in decode_packet(frame[8:-4])["records"]]
    assert [record["timestamp"] for record in records] == [
        1_700_000_000_000 + STEP_MS * at for at in range(len(records))
    ]
    assert {sum(len(record[group]) for group in ("n1", "n2", "n4", "n8")) for record in records} == {io_elements}


def test_a_ratio_is_to_the_baseline() -> None:
    assert Row("p", "w", 30.0, "x/s", 20.0).ratio == 1.5
    assert Row("p", "w", 30.0, "x/s").ratio is None
    assert "1.50" in table([Row("p", "w", 30.0, "x/s", 20.0)])


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_a_quantile_is_one_of_the_values(values: list[float]) -> None:
    assert quantile(values, 1.0) == max(values)
    assert quantile(values, 0.5) in values
    assert quantile([], 0.5) == 0.0


def test_a_rate_counts_what_the_work_says() -> None:
    assert median_rate(lambda: 1000, seconds=0.05) > 100 * median_rate(lambda: 1, seconds=0.05)


def publish(topic: bytes, payload: bytes, packet_id: int | None) -> bytes:
    body = struct.pack(">H", len(topic)) + topic
    body += b"" if packet_id is None else struct.pack(">H", packet_id)
    body += payload
    size, length = bytearray(), len(body)
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    return bytes([0x30 if packet_id is None else 0x32, *size, length]) + body


@given(cut=st.integers(0, 1000))
def test_publishes_are_found_wherever_the_stream_is_cut(cut: int) -> None:
    """Each is found once, and acknowledged once if it has QoS 1; other packets are passed over."""
    stream = publish(b"a", b"x" * 500, 7) + b"\xd0\x00" + publish(b"b/c", b"", None) + publish(b"d", b"y" * 20, 258)
    buffer, acks, found = bytearray(), bytearray(), []
    for part in (stream[:cut], stream[cut:]):
        buffer += part
        found += list(publishes(buffer, acks))
    assert found == [(b"a", b"x" * 500), (b"b/c", b""), (b"d", b"y" * 20)]
    assert bytes(acks) == b"\x40\x02\x00\x07\x40\x02\x01\x02"
    assert not buffer


def test_a_message_that_comes_twice_is_counted_as_one_different() -> None:
    tally = Tally()
    for timestamp in (1, 2, 2):
        tally.count(b"flespi/message/gw/devices/5", b'{"server.timestamp":1.5,"timestamp":%d}' % timestamp)
    tally.count(b"flespi/message/gw/channels/1/352", b'{"server.timestamp":1.5,"timestamp":2}')
    tally.count(b"flespi/state/gw/devices/5/telemetry/ain.1", b"3")
    report = tally.report()
    assert (report["device"], report["different_device"], report["channel"], report["other"]) == (3, 2, 1, 1)


def test_lags_are_told_one_by_one_and_channel_and_device_apart() -> None:
    """One of four is looked at; each is in one report."""
    tally = Tally()
    for timestamp in range(8):
        payload = b'{"server.timestamp":%.3f,"timestamp":%d}' % (time.time() - 5, timestamp)
        tally.count(b"flespi/message/gw/channels/1/352", payload)
    for timestamp in range(4):
        payload = b'{"server.timestamp":%.3f,"timestamp":%d}' % (time.time() - 50, timestamp)
        tally.count(b"flespi/message/gw/devices/5", payload)
    report = tally.report(has_lags=True)
    assert report["channel_lags"] == pytest.approx([5, 5], abs=1)
    assert report["device_lags"] == pytest.approx([50], abs=1)
    assert report["lag_p99"] == report["device_lags"][0]
    again = tally.report(has_lags=True)
    assert (again["channel_lags"], again["device_lags"], again["channel"]) == ([], [], 8)
