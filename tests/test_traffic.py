"""Raw traffic: what is rare is always kept, the rest where the channel says so; what was parked is shown with it."""

from __future__ import annotations

from base64 import b64decode

import orjson
import pytest

from gateway.store.keys import ShardKeys
from gateway.store.sources import Span
from gateway.store.traffic import (
    CONNECT,
    DATA_MOST,
    DISCONNECT,
    IDENTS_MOST,
    OF_IDENT,
    RECEIVED,
    SENT,
    UDP,
    WINDOW,
    Traffic,
    Whose,
)

KEYS = ShardKeys()
NOW = 1_700_000_000.0
WHOSE = Whose(1, "123", 77)


class There:
    """Traffic whose clock the test moves."""

    def __init__(self, redis) -> None:
        self.time = NOW
        self.redis = redis
        self.traffic = Traffic(redis, KEYS, now=lambda: self.time)

    async def packets(self, ident: str = "123", span: Span | None = None) -> list[dict]:
        chunks = self.traffic.read([(1, ident)], span or Span())
        return [orjson.loads(text) async for texts in chunks for text in texts]


@pytest.fixture
def there(redis) -> There:
    return There(redis)


def brief(packets: list[dict]) -> list[tuple[int, bytes]]:
    return [(packet["type"], b64decode(packet["data"])) for packet in packets]


def test_a_login_is_three_packets(run, there):
    """Connect, what came, what was answered."""
    there.traffic.connected(WHOSE, "10.0.0.1:7", b"\x00\x03123", b"\x01")
    packets = run(there.packets())
    assert brief(packets) == [(CONNECT, b""), (RECEIVED, b"\x00\x03123"), (SENT, b"\x01")]
    assert packets[0] == {
        "timestamp": NOW, "type": 0, "data": "", "conn": 77, "ident": "123", "channel_id": 1, "source": "10.0.0.1:7",
    }  # fmt: skip
    assert brief(run(there.packets(span=Span(is_reverse=True)))) == brief(packets)[::-1]


def test_what_was_refused_has_its_reason(run, there):
    """And the beginning of its bytes; real packets are shorter than that."""
    there.traffic.record(WHOSE, RECEIVED, b"x" * 5000, reason="wrong CRC: not acknowledged")
    there.traffic.disconnected(WHOSE, "silent")
    first, second = run(there.packets())
    assert first["reason"] == "wrong CRC: not acknowledged"
    assert (len(b64decode(first["data"])), first["size"]) == (DATA_MOST, 5000)
    assert (second["type"], second["reason"]) == (DISCONNECT, "silent")


def test_where_everything_is_kept_it_is_kept_whole(run, there):
    """For as long as the channel says."""
    whose = Whose(1, "123", 77, ttl=1000)
    there.traffic.record(whose, RECEIVED + UDP, b"x" * 5000)
    [packet] = run(there.packets())
    assert packet["type"] == 130
    assert b64decode(packet["data"]) == b"x" * 5000
    assert 1000 < run(there.redis.ttl(KEYS.traffic_of(1, "123"))) <= 4600


def test_one_ident_cannot_make_us_write_without_end(run, there):
    """A minute later there is room again."""
    for _ in range(1000):
        there.traffic.record(WHOSE, RECEIVED, b"x", reason="wrong CRC")
    there.traffic.record(Whose(1, "124"), RECEIVED, b"x", reason="wrong CRC")
    assert len(run(there.packets())) == OF_IDENT
    assert len(run(there.packets("124"))) == 1
    there.time += WINDOW
    there.traffic.record(WHOSE, RECEIVED, b"y", reason="wrong CRC")
    assert brief(run(there.packets()))[-1] == (RECEIVED, b"y")


def test_what_is_rare_is_bounded_in_number_and_bytes(run, there):
    """A tracker that is wrong all the time. Redis frees a stream by nodes, of 64 KiB as we set it."""
    for _ in range(30):
        there.time += WINDOW
        for _ in range(20):
            there.traffic.record(WHOSE, RECEIVED, b"x" * 2000, reason="wrong CRC")
        run(there.traffic.flush())
    assert run(there.redis.memory_usage(KEYS.traffic_of(1, "123"))) < 16_384 + 65_536


def test_what_was_parked_is_shown_with_its_reason_at_its_time(run, there, redis):
    """Only to whom it belongs."""
    there.traffic.connected(WHOSE, "10.0.0.1:7", b"login", b"\x01")
    run(there.traffic.flush())
    parked = {"ident": "123", "frame": b"poison", "reason": "counts disagree"}
    run(redis.xadd(KEYS.parked(1), parked, id=f"{int((NOW + 1) * 1e6)}-0"))
    run(redis.xadd(KEYS.parked(1), {"ident": "999", "frame": b"other"}, id=f"{int((NOW + 2) * 1e6)}-0"))
    there.time += 3
    there.traffic.disconnected(WHOSE, "")
    packets = run(there.packets())
    assert brief(packets)[3:] == [(RECEIVED, b"poison"), (DISCONNECT, b"")]
    assert packets[3]["reason"].startswith("counts disagree")
    assert packets[3]["timestamp"] == NOW + 1
    assert brief(run(there.packets("999"))) == [(RECEIVED, b"other")]


def test_a_channel_knows_the_size_of_each(run, there):
    """Bytes in Redis; 0 of whom nothing is kept."""
    there.traffic.record(WHOSE, RECEIVED, b"x" * 1000, reason="bad")
    run(there.traffic.flush())
    sizes = run(there.traffic.sizes(1, ["123", "124"]))
    assert sizes["123"] > 1000
    assert sizes["124"] == 0
    assert run(there.traffic.sizes(1, [])) == {}


def test_a_deleted_channel_leaves_nothing(run, there, redis):
    """Neither the index nor what it names."""
    for ident in ("123", "124"):
        there.traffic.record(Whose(1, ident), RECEIVED, b"x", reason="bad")
    run(there.traffic.flush())
    assert run(redis.zcard(KEYS.traffic(1))) == 2
    run(there.traffic.forget_channel(1))
    assert run(redis.keys("*")) == []


def test_the_number_of_idents_is_bounded(run, there, redis, monkeypatch):
    """The longest silent go."""
    assert IDENTS_MOST == 10_000
    monkeypatch.setattr("gateway.store.traffic.IDENTS_MOST", 3)
    for n in range(6):
        there.time += 10
        there.traffic.record(Whose(1, str(n)), RECEIVED, b"x", reason="bad")
        run(there.traffic.flush())
    assert sorted(run(redis.keys("*:traffic:*"))) == [KEYS.traffic_of(1, str(n)).encode() for n in (3, 4, 5)]
