"""The line of a connection's device: when a command can go out, and what becomes of what the tracker says."""

from __future__ import annotations

import pytest
from attrs import evolve

from gateway.channel.commandable import UNASKED_MOST
from gateway.channel.lines import Lines
from gateway.errors import OutOfTurn
from gateway.protocols.teltonika.datagram import build_datagram
from gateway.protocols.teltonika.frame import body_of
from gateway.protocols.teltonika.wire_commands import CODEC_12, CODEC_13
from gateway.store.event_codes import CloseCode
from gateway.store.items import Device
from tests.builders import FrameFactory
from tests.shell import IMEI, Shell, datagrams


class Heard(Lines):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple] = []
        self.is_awaited = True

    def connected(self, device, channel, link) -> None:
        self.told.append(("connected", device.id, channel.id))

    def disconnected(self, device_id, link) -> None:
        self.told.append(("disconnected", device_id))

    def line_changed(self, device_id) -> None:
        self.told.append(("line changed", device_id))

    def answered(self, device_id, link, payload, refusal) -> bool:
        self.told.append(("answered", device_id, payload, refusal))
        return self.is_awaited


class There(Shell):
    """A channel with a device, on whose line the test listens."""

    def __init__(self, redis) -> None:
        super().__init__(redis)
        self.intake.lines = self.heard = Heard()

    async def with_device(self) -> Device:
        return await self.items.create_device(ident=IMEI, name="x", protocol_id=14, device_type_id=303)


@pytest.fixture
def there(run, redis) -> There:
    there = There(redis)
    run(there.open())
    run(there.with_device())
    return there


def test_the_line_is_that_of_the_device_from_login_to_the_end(there):
    _, transport = there.log_in()
    assert there.heard.told == [("connected", 1, 1)]
    transport.loseConnection()
    assert there.heard.told[1:] == [("disconnected", 1)]


def test_the_line_ends_when_the_gateway_begins_to_close(there):
    """Not when the tracker has taken what it was sent; and once."""
    connection, _ = there.log_in()
    connection.close("why", CloseCode.USER_REQUEST)
    assert there.heard.told[1:] == [("disconnected", 1)]
    assert not connection.may_send_command
    with pytest.raises(OutOfTurn):
        connection.send_command(b"getver", CODEC_12)


def test_a_newer_connection_takes_the_line_after_the_older_has_left_it(there):
    there.log_in()
    there.log_in(port=40001)
    assert there.heard.told == [("connected", 1, 1), ("disconnected", 1), ("connected", 1, 1)]


def test_an_ident_without_a_device_has_no_line(there):
    frames = FrameFactory("352093081450000")
    connection, _ = there.log_in(frames)
    connection.dataReceived(frames.command())
    assert there.heard.told == []


class Asking(Heard):
    """Asks whoever has no device."""

    def met(self, stranger, channel, link) -> bool:
        self.told.append(("met", stranger.ident, stranger.line_id))
        return True


def test_a_stranger_that_is_asked_has_a_line_of_its_own(there):
    """Its number is no device's."""
    there.intake.lines = there.heard = Asking()
    frames = FrameFactory("352093081450000")
    connection, transport = there.log_in(frames)
    assert there.heard.told == [("met", frames.imei, -connection.id)]
    connection.send_command(b"getver", CODEC_12)
    connection.dataReceived(frames.command(b"Ver:1"))
    assert there.heard.told[1:] == [("answered", -connection.id, b"Ver:1", "")]
    transport.loseConnection()
    assert there.heard.told[2:] == [("disconnected", -connection.id)]


def test_a_device_that_is_disabled_just_then_is_no_stranger(run, there):
    """It was let in, and is disabled before it has its line."""
    there.intake.lines = there.heard = Asking()
    frames = FrameFactory("352093081450000")
    connection, _ = there.log_in(frames)
    run(there.items.change_device(1, lambda device: evolve(device, enabled=False)))
    connection._take_line(IMEI)
    assert there.heard.told == [("met", frames.imei, -connection.id)]


def test_a_command_goes_out_and_its_answer_comes_in(run, there):
    frames = FrameFactory()
    connection, transport = there.log_in(frames)
    assert connection.may_send_command
    connection.send_command(b"getver", CODEC_12)
    assert b"getver" in transport.value()
    assert connection.send == 1 + len(transport.value())
    assert not connection.may_send_command
    connection.dataReceived(frames.command(b"Ver:1"))
    assert there.heard.told[1:] == [("answered", 1, b"Ver:1", ""), ("line changed", 1)]
    run(there.commit())
    assert run(there.messages()) == []


def test_the_line_is_offered_again_when_the_packet_is_acknowledged(run, there):
    """Only to those who wanted it before."""
    frames = FrameFactory()
    connection, _ = there.log_in(frames)
    connection.dataReceived(frames.packet())
    run(there.commit())
    assert there.heard.told[1:] == []
    connection.dataReceived(frames.packet())
    assert not connection.may_send_command
    run(there.commit())
    assert there.heard.told[1:] == [("line changed", 1)]
    assert connection.may_send_command


def test_the_line_is_offered_again_when_a_packet_was_not_acknowledged(there):
    frames = FrameFactory()
    connection, _ = there.log_in(frames)
    whole = frames.packet(bad_crc=True)
    connection.dataReceived(whole[:10])
    assert not connection.may_send_command
    connection.dataReceived(whole[10:])
    assert there.heard.told[1:] == [("line changed", 1)]


def test_the_line_is_not_free_while_nothing_can_be_taken(there):
    connection, _ = there.log_in()
    there.gate.close("test", "because")
    assert not connection.may_send_command
    there.gate.open("test")
    assert there.heard.told[1:] == [("line changed", 1)]
    assert connection.may_send_command


def test_what_is_said_unasked_is_a_message_in_its_place_among_the_records(run, there):
    frames = FrameFactory()
    connection, transport = there.log_in(frames)
    connection.dataReceived(frames.packet() + frames.command(b"one") + frames.command(b"\x00\xff") + frames.packet())
    while len(transport.value()) < 8:
        run(there.commit())
    assert transport.value() == b"\0\0\0\1" * 2
    messages = run(there.messages())
    said = [message.get("payload.text", message.get("payload.hex")) for message in messages]
    assert said == [None, "one", "00ff", None]
    assert [message["server.timestamp"] for message in messages] == sorted(m["server.timestamp"] for m in messages)
    assert connection.msgs == 4


def test_an_answer_for_which_nobody_waits_is_a_message(run, there):
    frames = FrameFactory()
    connection, _ = there.log_in(frames)
    connection.send_command(b"getver", CODEC_12)
    there.heard.is_awaited = False
    connection.dataReceived(frames.command(b"Ver:1"))
    run(there.commit())
    [message] = run(there.messages())
    assert (message["payload.text"], message["codec.id"], message["ident"]) == ("Ver:1", 12, IMEI)


def test_a_tracker_that_talks_faster_than_can_be_stored_is_not_read(run, there):
    frames = FrameFactory()
    connection, transport = there.log_in(frames)
    connection.dataReceived(frames.command(b"x") * (UNASKED_MOST + 50))
    while there.turns:
        there.turns.pop()()
    assert transport.producerState == "paused"
    run(there.commit())
    while there.turns:
        there.turns.pop()()
    run(there.commit())
    assert transport.producerState == "producing"
    assert len(run(there.messages())) == UNASKED_MOST + 50


def test_what_is_said_unasked_on_udp_is_a_message_and_not_answered(run, there):
    taker, transport = datagrams(there)
    body = body_of(FrameFactory().command(b"hi"))
    taker.datagramReceived(build_datagram(IMEI, body, 1, 1), ("10.0.0.1", 5000))
    run(there.commit())
    [message] = run(there.messages())
    assert (message["payload.text"], message["peer"]) == ("hi", "10.0.0.1:5000")
    assert transport.written == []


def test_serial_data_of_codec_13_is_a_message_at_its_own_time(run, there):
    frames = FrameFactory()
    connection, transport = there.log_in(frames)
    connection.dataReceived(frames.command(b"serial", codec=CODEC_13, timestamp=1_763_709_000, timestamp_size=4))
    run(there.commit())
    [message] = run(there.messages())
    assert (message["payload.text"], message["timestamp"]) == ("serial", 1_763_709_000)
    assert transport.value() == b""
