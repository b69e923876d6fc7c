"""The shell around the session: verdicts, acknowledgements after the commit, back-pressure, limits, an orderly end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from twisted.internet.address import IPv4Address, IPv6Address

from gateway import metrics
from gateway.channel.channels import Channels
from gateway.channel.connections import Limits
from gateway.channel.transport import peer_of
from gateway.errors import ConfigError, ListenError, StoreError
from gateway.store.gate import Gate
from gateway.store.items import Channel, Device, Items
from gateway.store.log import LogWriter
from tests.builders import FrameFactory
from tests.shell import IMEI, KEYS, Shell, datagrams


@pytest.fixture
def shell(run, redis) -> Callable[..., Shell]:
    """Makes a shell; arguments are limits and the channel's configuration."""

    def make(limits: Limits | None = None, **configuration) -> Shell:
        made = Shell(redis, limits, **configuration)
        run(made.open())
        return made

    return make


def test_an_acknowledgement_follows_the_commit_and_not_the_packet(run, shell):
    """The first promise: not before Redis has answered."""
    there = shell()
    frames = FrameFactory()
    connection, transport = there.log_in(frames)
    connection.dataReceived(frames.packet(records=3))
    assert transport.value() == b""
    run(there.commit())
    assert transport.value() == b"\x00\x00\x00\x03"
    messages = run(there.messages())
    assert [message["ident"] for message in messages] == [IMEI] * 3
    stamps = [message["server.timestamp"] for message in messages]
    assert len(set(stamps)) == 3
    assert stamps == sorted(stamps)
    assert messages[0]["peer"] == "10.0.0.1:40000"
    assert messages[0]["channel.id"] == 1
    assert messages[0]["protocol.id"] == 14
    assert messages[0]["codec.id"] == 8


def test_packets_glued_together_are_acknowledged_one_by_one(run, shell):
    """A tracker that does not wait loses nothing; while its packet is stored, nobody reads from its socket."""
    there = shell()
    frames = FrameFactory()
    connection, transport = there.log_in(frames)
    connection.dataReceived(frames.packet(1) + frames.packet(2))
    connection.dataReceived(frames.ping + frames.packet(3))
    assert transport.producerState == "paused"
    for _ in range(3):
        run(there.commit())
    assert transport.value() == b"\0\0\0\1" + b"\0\0\0\2" + b"\0\0\0\3"
    assert transport.producerState == "producing"


def test_a_wrong_crc_is_not_acknowledged_and_the_next_packet_is(run, shell):
    """The tracker sends it again."""
    there = shell()
    frames = FrameFactory()
    connection, transport = there.log_in(frames)
    connection.dataReceived(frames.packet(1, bad_crc=True))
    run(there.commit())
    assert transport.value() == b""
    connection.dataReceived(frames.packet(2))
    run(there.commit())
    assert transport.value() == b"\0\0\0\2"


def test_a_poison_packet_is_kept_and_acknowledged(run, shell):
    """Right CRC, wrong content: sending it again would not help."""
    there = shell()
    frames = FrameFactory()
    connection, transport = there.log_in(frames)
    poison = frames.packet(2, count_again=9)
    connection.dataReceived(poison)
    run(there.commit())
    assert transport.value() == b"\0\0\0\2"
    [(_id, fields)] = run(there.redis.xrange(KEYS.parked(1)))
    assert fields == {b"ident": IMEI.encode(), b"frame": poison, b"reason": b"counts disagree"}
    assert run(there.messages()) == []


def test_commands_and_pings_get_no_answer(run, shell):
    """An answer would desynchronize the tracker."""
    there = shell()
    frames = FrameFactory()
    connection, transport = there.log_in(frames)
    connection.dataReceived(frames.ping + frames.command() + frames.ping)
    run(there.commit())
    assert transport.value() == b""
    assert transport.connected


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"\x00\x0fabcdefghijklmno"])
def test_noise_is_closed_and_counted(shell, noise: bytes):
    """Port scanners come with the internet."""
    there = shell()
    connection, transport = there.connect()
    connection.dataReceived(noise)
    assert not transport.connected
    assert transport.value() == b""
    assert len(there.connections) == 0


def test_an_unknown_ident_is_rejected_where_the_channel_says_so(run, shell):
    """One byte, 00, and the connection ends."""
    there = shell(unknown_ident="reject")
    connection, transport = there.connect()
    connection.dataReceived(FrameFactory().login())
    assert transport.value() == b"\x00"
    assert not transport.connected


def test_an_unknown_ident_is_registered_where_the_channel_says_so(run, shell):
    """A device of its own, before the verdict; the second connection finds it."""
    there = shell(unknown_ident="register")

    async def scenario() -> None:
        connection, transport = there.connect()
        connection.dataReceived(FrameFactory().login())
        async with asyncio.timeout(5):
            while transport.value() != b"\x01":
                await asyncio.sleep(0.01)

    run(scenario())
    device = there.items.device_for(14, IMEI)
    assert device is not None
    assert device.name == IMEI
    there.log_in(port=40001)
    assert list(there.items.devices.values()) == [device]


def test_a_disabled_device_is_rejected_even_where_unknown_ones_are_accepted(run, shell):
    """flespi: a disabled device closes its connections and rejects new ones."""
    there = shell()
    run(there.items.create_device(ident=IMEI, name="x", protocol_id=14, device_type_id=303, enabled=False))
    connection, transport = there.connect()
    connection.dataReceived(FrameFactory().login())
    assert transport.value() == b"\x00"


def test_the_newest_connection_of_a_tracker_wins_and_nothing_in_flight_is_lost(run, shell):
    """The tracker knows first that its old connection is dead."""
    there = shell()
    frames = FrameFactory()
    old, old_transport = there.log_in(frames)
    old.dataReceived(frames.packet(2))
    _new, new_transport = there.log_in(frames, port=40001)
    assert not old_transport.connected
    assert new_transport.connected
    run(there.commit())
    assert len(run(there.messages())) == 2
    assert there.presence == [(IMEI, True)]


def test_a_closed_gate_pauses_reading_and_an_open_one_goes_on(run, shell):
    """Back-pressure ends at the tracker."""
    there = shell()
    frames = FrameFactory()
    connection, transport = there.log_in(frames)
    there.gate.close("redis", "away")
    assert transport.producerState == "paused"
    _other, other_transport = there.connect(port=40001)
    assert other_transport.producerState == "paused"
    connection.dataReceived(frames.packet(1))
    there.gate.open("redis")
    assert transport.producerState == "producing"
    run(there.commit())
    assert transport.value() == b"\0\0\0\1"


def test_a_packet_that_cannot_be_stored_closes_its_connection_unacknowledged(run, shell, redis):
    """The tracker connects again and sends it again."""
    there = shell()
    frames = FrameFactory()
    connection, transport = there.log_in(frames)
    run(redis.xadd(KEYS.channel_log(1), {"ident": "x", "messages": "{}"}, id="99999999999999999-0"))
    connection.dataReceived(frames.packet(1))
    run(there.commit())
    assert transport.value() == b""
    assert not transport.connected


def test_connections_are_limited_in_all_and_by_address(shell):
    """One more is closed at once; when one ends there is room again."""
    there = shell(Limits(connections=3, connections_per_address=2))
    _first, first = there.connect(port=1)
    there.connect(port=2)
    assert not there.connect(port=3)[1].connected
    assert there.connect(port=4, host="10.0.0.2")[1].connected
    assert not there.connect(port=5, host="10.0.0.3")[1].connected
    first.loseConnection()
    assert there.connect(port=6)[1].connected


def test_the_silent_are_closed(shell):
    """Without an ident after login_time, with one after idle_time."""
    there = shell(Limits(login_time=30, idle_time=100))
    _connection, nameless = there.connect(port=1)
    _connection, named = there.log_in(port=2)
    there.time = 31
    there.connections.sweep()
    assert not nameless.connected
    assert named.connected
    there.time = 101
    there.connections.sweep()
    assert not named.connected
    assert there.presence == [(IMEI, True), (IMEI, False)]


def test_a_record_that_breaks_the_normalizer_is_kept_raw(run, shell, monkeypatch):
    """A bug of ours must not make a tracker send the same packet for ever."""
    there = shell()
    frames = FrameFactory()
    connection, transport = there.log_in(frames)
    monkeypatch.setattr(connection._normalizer, "normalize", lambda record, codec_id: 1 / 0, raising=False)
    connection.dataReceived(frames.packet(2))
    run(there.commit())
    assert transport.value() == b"\0\0\0\2"
    [(_id, fields)] = run(there.redis.xrange(KEYS.parked(1)))
    assert fields[b"frame"][0] == 8


ADDRESS = ("10.0.0.9", 777)


def test_a_datagram_is_answered_after_the_commit(run, shell):
    """With both ids and the count."""
    there = shell()
    taker, transport = datagrams(there)
    taker.datagramReceived(FrameFactory().datagram(records=2), ADDRESS)
    assert transport.written == []
    run(there.commit())
    assert transport.written == [(bytes.fromhex("0005cafe010502"), ADDRESS)]
    assert run(there.messages())[0]["peer"] == "10.0.0.9:777"


def test_datagrams_that_cannot_be_taken_are_dropped_unanswered(run, shell):
    """UDP has no back-pressure: noise, a full queue, a closed gate, an ident that is not welcome, an end."""
    there = shell(unknown_ident="reject")
    run(there.items.create_device(ident=IMEI, name="x", protocol_id=14, device_type_id=303))
    taker, transport = datagrams(there, max_waiting=1)
    taker.datagramReceived(b"noise", ADDRESS)
    taker.datagramReceived(FrameFactory(imei="356307042441999").datagram(), ADDRESS)
    there.gate.close("redis", "away")
    taker.datagramReceived(FrameFactory().datagram(), ADDRESS)
    there.gate.open("redis")
    taker.datagramReceived(FrameFactory().datagram(avl_packet_id=1), ADDRESS)
    taker.datagramReceived(FrameFactory().datagram(avl_packet_id=2), ADDRESS)
    taker.stop_taking()
    taker.datagramReceived(FrameFactory().datagram(avl_packet_id=3), ADDRESS)
    run(there.commit())
    assert transport.written == [(bytes.fromhex("0005cafe010101"), ADDRESS)]
    assert len(run(there.messages())) == 1


def test_a_poison_datagram_is_kept_and_answered(run, shell):
    """As on TCP."""
    there = shell()
    taker, transport = datagrams(there)
    poison = FrameFactory().datagram(records=2)[:-1] + b"\x09"
    taker.datagramReceived(poison, ADDRESS)
    run(there.commit())
    assert transport.written == [(bytes.fromhex("0005cafe010502"), ADDRESS)]
    assert run(there.redis.xlen(KEYS.parked(1))) == 1


def _channels(redis, writer: LogWriter, gate: Gate) -> Channels:
    from twisted.internet import reactor

    return Channels(reactor, Items(redis), writer, gate, Limits())


def _channel(*listen: str) -> Channel:
    return Channel(id=1, name="test", protocol_id=14, configuration={"listen": list(listen)})


# Twisted before 26.10 leaves the socket of a failed bind to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_busy_port_is_an_error_that_names_it_and_nothing_stays_open(run, redis):
    """A gateway that runs on, deaf, would be worse."""

    async def scenario() -> None:
        gate = Gate()
        channels = _channels(redis, LogWriter(redis, KEYS, gate), gate)
        blocker = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        port = blocker.sockets[0].getsockname()[1]
        with pytest.raises(ListenError, match=rf"channel test: tcp:{port}:interface=127\.0\.0\.1: cannot listen"):
            await channels.start_channel(_channel("tcp:0:interface=127.0.0.1", f"tcp:{port}:interface=127.0.0.1"))
        assert channels.addresses() == []
        blocker.close()
        await blocker.wait_closed()

    run(scenario())


@pytest.mark.parametrize("spec", ["tcp:abc", "udp:x", "ssl:0:privateKey=/nowhere.pem"])
def test_an_endpoint_that_is_none_is_a_matter_of_configuration(run, redis, spec: str):
    """Whatever Twisted raises for it."""

    async def scenario() -> None:
        gate = Gate()
        channels = _channels(redis, LogWriter(redis, KEYS, gate), gate)
        with pytest.raises((ConfigError, ListenError), match=f"channel test: {spec}"):
            await channels.start_channel(_channel(spec))

    run(scenario())


def test_stopping_stores_and_acknowledges_what_was_taken(run, redis):
    """Then every connection is closed, and the port is free."""

    async def scenario() -> None:
        gate = Gate()
        writer = LogWriter(redis, KEYS, gate)
        channels = _channels(redis, writer, gate)
        await channels.start_channel(_channel("tcp:0:interface=127.0.0.1", "udp:0:interface=127.0.0.1"))
        (_, address), _udp = channels.addresses()
        port = int(address.rpartition(":")[2])
        frames = FrameFactory()
        reader, tracker = await asyncio.open_connection("127.0.0.1", port)
        tracker.write(frames.login())
        assert await reader.readexactly(1) == b"\x01"
        tracker.write(frames.packet(4))
        while not writer._queue:
            await asyncio.sleep(0.01)
        task = asyncio.ensure_future(writer.run())
        await channels.stop(timeout=5)
        assert await reader.read() == b"\0\0\0\4"
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncio.open_connection("127.0.0.1", port)
        assert await redis.xlen(KEYS.channel_log(1)) == 1
        task.cancel()
        tracker.close()

    run(scenario())


def test_a_tracker_that_hangs_up_while_nobody_reads_is_noticed(run, redis):
    """Otherwise every reconnect during an outage of Redis would leave a dead connection."""

    async def scenario() -> None:
        gate = Gate()
        writer = LogWriter(redis, KEYS, gate)
        channels = _channels(redis, writer, gate)
        await channels.start_channel(_channel("tcp:0:interface=127.0.0.1"))
        [(_, address)] = channels.addresses()
        gate.close("redis", "away")
        _reader, tracker = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
        tracker.write(FrameFactory().login())
        while not len(channels.connections):
            await asyncio.sleep(0.01)
        channels.connections.sweep()
        assert len(channels.connections) == 1
        tracker.close()
        await tracker.wait_closed()
        async with asyncio.timeout(5):
            while len(channels.connections):
                channels.connections.sweep()
                await asyncio.sleep(0.02)
        gate.open("redis")
        await channels.stop(timeout=1)

    run(scenario())


def test_peers_are_written_as_ip_and_port():
    """The address of version 6 in brackets."""
    assert peer_of(IPv4Address("TCP", "10.0.0.1", 5)) == "10.0.0.1:5"
    assert peer_of(IPv6Address("TCP", "::1", 5)) == "[::1]:5"


def test_a_device_that_cannot_be_registered_hears_no_verdict(run, shell, monkeypatch):
    """The store is the reason and not the tracker: it is not rejected, it comes again."""
    there = shell(unknown_ident="register")

    async def refuse(**_values) -> Device:
        raise StoreError("no")

    monkeypatch.setattr(there.items, "create_device", refuse)

    async def scenario() -> None:
        connection, transport = there.connect()
        connection.dataReceived(FrameFactory().login())
        async with asyncio.timeout(5):
            while transport.connected:
                await asyncio.sleep(0.01)
        assert transport.value() == b""

    run(scenario())


def test_a_thousand_new_trackers_at_once_are_all_registered(run, shell):
    """A fleet that comes back after an outage: nobody is turned away for want of a connection to Redis."""
    there = shell(unknown_ident="register")

    async def scenario() -> None:
        transports = []
        for number in range(1000):
            connection, transport = there.connect(port=number + 1)
            connection.dataReceived(FrameFactory(imei=str(356307042440000 + number)).login())
            transports.append(transport)
        async with asyncio.timeout(20):
            while not all(transport.value() for transport in transports):
                await asyncio.sleep(0.01)
        assert {transport.value() for transport in transports} == {b"\x01"}
        assert len(there.items.devices) == 1000

    run(scenario())


def test_pipelined_packets_without_records_are_all_acknowledged(run, shell):
    """Each is answered within the turn that reads it: no depth grows with their number."""
    there = shell()
    frames = FrameFactory()
    connection, transport = there.log_in(frames)
    connection.dataReceived(frames.packet(0) * 1000 + frames.packet(3))
    while there.turns:
        there.turns.pop()()
    run(there.commit())
    assert transport.value() == b"\0\0\0\0" * 1000 + b"\0\0\0\3"


def test_frames_without_an_answer_are_read_a_few_at_a_time(shell):
    """Others have their turn in between, and nobody reads on from this connection meanwhile."""
    there = shell()
    frames = FrameFactory()
    connection, transport = there.log_in(frames)
    before = metrics.value("command_responses", channel="test")
    connection.dataReceived(frames.command() * 100)
    assert metrics.value("command_responses", channel="test") - before < 20
    assert transport.producerState == "paused"
    turns = 0
    while there.turns:
        there.turns.pop()()
        turns += 1
    assert turns >= 10
    assert metrics.value("command_responses", channel="test") - before == 100
    assert transport.producerState == "producing"


def test_pings_do_not_lengthen_the_time_to_log_in(shell):
    """Or a few addresses could hold all connections without ever saying who they are."""
    there = shell(Limits(login_time=30))
    connection, transport = there.connect()
    for _ in range(4):
        there.time += 10
        connection.dataReceived(b"\xff")
    there.connections.sweep()
    assert not transport.connected
