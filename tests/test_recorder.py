"""What is kept of connections: each way in which one can fail leaves its reason where somebody looks for it."""

from __future__ import annotations

import asyncio
from base64 import b64decode

import orjson
import pytest
from attrs import evolve
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from gateway import metrics
from gateway.channel.connections import Limits
from gateway.observation import Observation
from gateway.store.event_codes import CloseCode, EventCode
from gateway.store.sources import Span
from tests.builders import FrameFactory
from tests.shell import IMEI, KEYS, Shell, datagrams

ADDRESS = ("10.0.0.9", 777)


class Observed(Shell):
    """A shell whose connections are observed."""

    observation: Observation

    def __init__(self, redis, limits: Limits | None = None, **configuration) -> None:
        def observe(items):
            self.observation = Observation(redis, KEYS, items)
            return self.observation.recorder

        super().__init__(redis, limits, observe, **configuration)

    async def log(self, kind: str = "channels") -> list[dict]:
        chunks = self.observation.events.read(kind, [1], Span())
        return [orjson.loads(text) async for texts in chunks for text in texts]

    async def codes(self, kind: str = "channels") -> list[int]:
        return [entry["event_code"] for entry in await self.log(kind)]

    async def closed(self) -> dict:
        """The only entry of a connection's end."""
        [entry] = [entry for entry in await self.log() if entry["event_code"] == EventCode.CONNECTION_CLOSED]
        return entry

    async def traffic(self, ident: str = IMEI) -> list[tuple[int, bytes]]:
        chunks = self.observation.traffic.read([(1, ident)], Span())
        packets = [orjson.loads(text) async for texts in chunks for text in texts]
        return [(packet["type"], b64decode(packet["data"])) for packet in packets]

    def seen(self, ident: str = IMEI):
        return self.observation.idents.find(1, ident)

    async def device(self, **values):
        return await self.items.create_device(ident=IMEI, name="car", protocol_id=14, device_type_id=303, **values)


@pytest.fixture
def observed(run, redis):
    """Makes one; arguments are limits and the channel's configuration."""

    def make(limits: Limits | None = None, **configuration) -> Observed:
        made = Observed(redis, limits, **configuration)
        run(made.open())
        return made

    return make


def test_a_connection_from_its_beginning_to_its_end(run, observed):
    """100, 101, 102 on the channel; 300, 301 on the device; login and end in its traffic."""
    there = observed()
    run(there.device())
    frames = FrameFactory()
    connection, transport = there.log_in(frames)
    connection.dataReceived(frames.packet(2))
    run(there.commit())
    there.time = 61.5
    transport.loseConnection()
    accepted, identified, closed = run(there.log())
    assert [accepted["event_code"], identified["event_code"], closed["event_code"]] == [100, 101, 102]
    assert accepted["source"] == "10.0.0.1:40000"
    assert accepted["transport"] == "tcp"
    assert {entry["connection_id"] for entry in (accepted, identified, closed)} == {connection.id}
    assert identified["ident"] == IMEI
    assert closed["close_code"] == CloseCode.BY_DEVICE
    assert (closed["duration"], closed["msgs"], closed["recv"], closed["send"]) == (
        61, 2, connection.recv, connection.send,
    )  # fmt: skip
    created, connected, disconnected = run(there.log("devices"))
    assert (created["event_code"], connected["event_code"], disconnected["event_code"]) == (1, 300, 301)
    assert (disconnected["close_code"], disconnected["msgs"], disconnected["channel_id"]) == (2, 2, 1)
    assert run(there.traffic()) == [(0, b""), (2, frames.login()), (3, b"\x01"), (1, b"")]


def test_a_connection_that_breaks_ends_unexpectedly(run, observed):
    """The network is gone."""
    there = observed()
    connection, _transport = there.log_in()
    connection.connectionLost(Failure(ConnectionLost()))
    assert run(there.closed())["close_code"] == CloseCode.UNEXPECTED


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"\x00\x0fabcdefghijklmno"])
def test_what_is_no_tracker_leaves_its_first_bytes(run, observed, noise: bytes):
    """ "My tracker does not appear" may be a tracker of another protocol."""
    there = observed()
    connection, _transport = there.connect()
    connection.dataReceived(noise)
    _accepted, error, closed = run(there.log())
    assert error["event_code"] == EventCode.DATA_ERROR
    assert bytes.fromhex(error["data"]) == noise
    assert error["reason"]
    assert closed["close_code"] == CloseCode.PROTOCOL_VIOLATION


def test_long_noise_is_cut(run, observed):
    """256 bytes say enough."""
    there = observed()
    there.connect()[0].dataReceived(b"GET " + b"x" * 5000)
    assert len(run(there.log())[1]["data"]) == 512


def test_a_violation_of_a_known_tracker_is_in_its_traffic_too(run, observed):
    """And in its device's log."""
    there = observed()
    run(there.device())
    connection, _transport = there.log_in()
    connection.dataReceived(b"\x01\x02\x03\x04")
    assert (2, b"\x01\x02\x03\x04") in run(there.traffic())
    assert EventCode.PROCESSING_ERROR in run(there.codes("devices"))
    assert there.presence[-1] == (IMEI, False)


def test_an_ident_that_is_rejected_is_listed_with_the_reason(run, observed):
    """And what can be done."""
    there = observed(unknown_ident="reject")
    connection, _transport = there.connect()
    connection.dataReceived(FrameFactory().login())
    closed = run(there.closed())
    assert (closed["close_code"], closed["ident"]) == (CloseCode.NOT_AUTHENTICATED, IMEI)
    assert "no device has this ident" in closed["reason"]
    seen = there.seen()
    assert (seen.verdict, seen.count, seen.peer) == ("refused", 1, "10.0.0.1:40000")
    assert "unknown_ident" in seen.reason
    assert run(there.traffic()) == [(0, b""), (2, FrameFactory().login()), (3, b"\x00"), (1, b"")]


def test_a_disabled_device_says_so(run, observed):
    """By name and number, also in its own log."""
    there = observed()
    run(there.device(enabled=False))
    there.connect()[0].dataReceived(FrameFactory().login())
    assert run(there.closed())["close_code"] == CloseCode.DEVICE_DISABLED
    assert there.seen().reason == "device 1 (car) is disabled: set its enabled to true"
    [_created, refused] = run(there.log("devices"))
    assert (refused["event_code"], refused["close_code"]) == (301, CloseCode.DEVICE_DISABLED)


def test_a_full_gateway_says_so(run, observed):
    """Where devices would be made by themselves."""
    there = observed(Limits(devices=0), unknown_ident="register")
    connection, transport = there.connect()

    async def scenario() -> None:
        connection.dataReceived(FrameFactory().login())
        async with asyncio.timeout(5):
            while transport.connected:
                await asyncio.sleep(0.01)

    run(scenario())
    assert transport.value() == b"\x00"
    assert "limits.devices (0) is reached" in there.seen().reason
    assert there.seen().verdict == "refused"


def test_an_accepted_ident_without_a_device_is_known_as_such(run, observed):
    """Its messages are in the channel only."""
    there = observed()
    there.log_in()
    assert there.seen().verdict == "accepted"
    assert there.seen().reason.startswith("no device has this ident")
    assert not there.seen().is_registered


def test_the_older_connection_of_a_tracker_ends_by_collision(run, observed):
    """flespi's 12."""
    there = observed()
    there.log_in()
    there.log_in(port=40001)
    assert run(there.closed())["close_code"] == CloseCode.IDENT_COLLISION
    assert there.presence == [(IMEI, True)]


def test_silence_before_the_login_shows_what_was_said(run, observed):
    """A tracker that is set to another protocol may wait for an answer."""
    there = observed(Limits(login_time=30))
    connection, _transport = there.connect()
    connection.dataReceived(b"\x00")
    there.time = 31
    there.connections.sweep()
    closed = run(there.closed())
    assert closed["close_code"] == CloseCode.INACTIVITY
    assert closed["reason"] == "no ident within 30 s: it said only 00"


def test_too_many_connections_are_in_the_log(run, observed):
    """There is no other trace of them."""
    there = observed(Limits(connections=1))
    there.connect(port=1)
    there.connect(port=2)
    closed = run(there.closed())
    assert closed["close_code"] == CloseCode.CHANNEL_BLOCKED
    assert "limits.connections" in closed["reason"]


def test_a_packet_that_cannot_be_stored_ends_by_an_internal_error(run, observed, redis):
    """The tracker sends it again."""
    there = observed()
    frames = FrameFactory()
    connection, _transport = there.log_in(frames)
    run(redis.xadd(KEYS.channel_log(1), {"ident": "x", "messages": "{}"}, id="99999999999999999-0"))
    connection.dataReceived(frames.packet(1))
    run(there.commit())
    assert run(there.closed())["close_code"] == CloseCode.INTERNAL_ERROR


def test_a_wrong_crc_is_kept(run, observed):
    """With the frame, and that it was not acknowledged."""
    there = observed()
    frames = FrameFactory()
    connection, _transport = there.log_in(frames)
    bad = frames.packet(1, bad_crc=True)
    connection.dataReceived(bad)
    assert (2, bad) in run(there.traffic())
    error = run(there.log())[-1]
    assert (error["event_code"], error["reason"]) == (103, "wrong CRC: not acknowledged")


def test_a_poison_packet_is_visible_with_its_answer(run, observed):
    """On TCP and on UDP."""
    there = observed()
    frames = FrameFactory()
    connection, _transport = there.log_in(frames)
    poison = frames.packet(2, count_again=9)
    connection.dataReceived(poison)
    run(there.commit())
    taker, _datagrams = datagrams(there)
    datagram = frames.datagram(records=2)[:-1] + b"\x09"
    taker.datagramReceived(datagram, ADDRESS)
    run(there.commit())
    packets = run(there.traffic())
    assert packets[3:] == [(2, poison), (3, b"\0\0\0\2"), (2, datagram), (131, bytes.fromhex("0005cafe010502"))]
    assert [entry["reason"] for entry in run(there.log()) if entry["event_code"] == 103] == [
        "counts disagree: parked and acknowledged",
    ] * 2


def test_all_traffic_is_kept_where_the_channel_says_so_and_nothing_more_than_that_where_not(run, observed):
    """Also after the channel was changed while a tracker is connected."""
    there = observed()
    frames = FrameFactory()
    connection, _transport = there.log_in(frames)
    connection.dataReceived(frames.packet(1))
    run(there.commit())
    assert len(run(there.traffic())) == 3
    there.intake.channel = evolve(there.intake.channel, configuration={"packets_ttl": 3600})
    packet = frames.packet(2)
    connection.dataReceived(packet[:10])
    connection.dataReceived(packet[10:])
    run(there.commit())
    assert run(there.traffic())[3:] == [(2, packet[:10]), (2, packet[10:]), (3, b"\0\0\0\2")]


def test_what_came_with_the_login_is_kept_too(run, observed):
    """One segment can bring both."""
    there = observed(packets_ttl=3600)
    frames = FrameFactory()
    connection, _transport = there.connect()
    packet = frames.packet(1)
    connection.dataReceived(frames.login() + packet)
    run(there.commit())
    assert run(there.traffic()) == [
        (0, b""), (2, frames.login()), (3, b"\x01"), (2, packet), (3, b"\0\0\0\1"),
    ]  # fmt: skip


def test_all_datagrams_are_kept_where_the_channel_says_so(run, observed):
    """With the types of UDP."""
    there = observed(packets_ttl=3600)
    taker, transport = datagrams(there)
    datagram = FrameFactory().datagram(records=1)
    taker.datagramReceived(datagram, ADDRESS)
    run(there.commit())
    assert run(there.traffic()) == [(130, datagram), (131, transport.written[0][0])]


def test_datagrams_are_seen_refused_and_junk(run, observed):
    """Nobody connects on UDP; the ident says who it was."""
    there = observed(unknown_ident="reject")
    taker, _transport = datagrams(there)
    for _ in range(3):
        taker.datagramReceived(FrameFactory().datagram(), ADDRESS)
    taker.datagramReceived(b"noise", ADDRESS)
    seen = there.seen()
    assert (seen.verdict, seen.count, seen.transport, seen.peer) == ("refused", 3, "udp", "10.0.0.9:777")
    [error] = run(there.log())
    assert (error["event_code"], error["data"], error["transport"]) == (103, b"noise".hex(), "udp")


def test_items_that_change_are_in_their_logs_and_what_they_leave_goes_with_them(run, observed, redis):
    """1, 2, 3 with what they were and are."""
    there = observed()
    told: list[dict] = []
    there.observation.events.on_entry.append(lambda kind, id, entry: told.append(entry))

    async def scenario() -> list[dict]:
        device = await there.device()
        await there.items.change_device(device.id, lambda old: evolve(old, name="bus"))
        log = await there.log("devices")
        await there.items.delete_device(device.id)
        await there.observation.flush()
        return log

    created, updated = run(scenario())
    assert (created["event_code"], created["new"]["name"], "old" in created) == (1, "car", False)
    assert (updated["old"]["name"], updated["new"]["name"]) == ("car", "bus")
    assert (told[-1]["event_code"], told[-1]["old"]["name"], "new" in told[-1]) == (3, "bus", False)
    assert run(redis.exists(KEYS.log("devices", 1))) == 0


def test_a_deleted_channel_leaves_no_traces_but_its_messages(run, observed, redis):
    """The readers of those may not be done."""
    there = observed()

    async def scenario() -> list[bytes]:
        channel = await there.items.create_channel(name="other", protocol_id=14)
        there.intake.channel = channel
        there.log_in()
        await there.observation.flush()
        await there.items.delete_channel(channel.id)
        await there.observation.flush()
        return await redis.keys(f"gw:{{s0}}:*channel*{channel.id}*")

    assert run(scenario()) == []


def test_the_time_to_an_acknowledgement_is_observed(run, observed):
    """From the last byte to the answer."""
    there = observed()
    before = sum(sum(histogram.buckets) for name, _, histogram in metrics.histograms() if name == "ack_seconds")
    frames = FrameFactory()
    connection, _transport = there.log_in(frames)
    connection.dataReceived(frames.packet(1))
    there.time = 0.3
    run(there.commit())
    [histogram] = [histogram for name, _, histogram in metrics.histograms() if name == "ack_seconds"]
    assert sum(histogram.buckets) == before + 1


def test_a_packet_that_breaks_the_normalizer_is_told_of(run, observed, monkeypatch):
    """A bug of ours, but somebody misses the records."""
    there = observed()
    run(there.device())
    frames = FrameFactory()
    connection, _transport = there.log_in(frames)
    monkeypatch.setattr(connection._normalizer, "normalize_all", lambda records, codec_id: 1 / 0, raising=False)
    connection.dataReceived(frames.packet(2))
    run(there.commit())
    [error] = [entry for entry in run(there.log("devices")) if entry["event_code"] == 304]
    assert error["reason"] == "cannot be normalized: parked and acknowledged"
    assert error["source"] == "10.0.0.1:40000"
    assert run(there.traffic())[3][1][:1] == b"\x08"


def test_what_cannot_be_written_harms_no_connection(observed):
    """Whatever somebody puts into an entry."""
    there = observed()
    there.observation.events.record("channels", 1, EventCode.DATA_ERROR, reason="\ud800", source=5)
    there.log_in()
