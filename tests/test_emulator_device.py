"""A tracker's memory and its session, without a socket; also against the gateway's own session."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.emulator.device import AckReceived, CommandReceived, DatagramDevice, Device, State, VerdictReceived
from gateway.emulator.memory import Memory
from gateway.emulator.packets import CODECS, Datagrams, Packet, body_limit, encode_record, join_records
from gateway.emulator.tally import Latencies, Tally, merged
from gateway.errors import ProtocolViolation
from gateway.protocols.teltonika import session as server_side
from gateway.protocols.teltonika.datagram import acknowledge_datagram, receive_datagram
from gateway.protocols.teltonika.frame import build_frame
from gateway.protocols.teltonika.wire import decode_packet, encode_packet
from tests.builders import FrameFactory, any_packet

IMEI = "352093081452251"
LOGIN = b"\x00\x0f" + IMEI.encode()
ACK_1 = b"\0\0\0\x01"
COMMAND = build_frame(b"\x0c\x01\x05\0\0\0\x07getinfo\x01")


def some_record(timestamp: int = 1_700_000_000_000, priority: int = 0) -> dict[str, Any]:
    return FrameFactory().record(CODECS["8e"], timestamp=timestamp, priority=priority)


def a_memory(**options: Any) -> Memory:
    return Memory(CODECS["8e"], Tally(), **options)


def a_device(**options: Any) -> Device:
    return Device(IMEI, a_memory(**options))


def memory_of(device: Device) -> Memory:
    assert isinstance(device.source, Memory)
    return device.source


def tally_of(device: Device) -> Tally:
    return memory_of(device)._tally


def store(device: Device, *timestamps: int, priority: int = 0) -> None:
    for timestamp in timestamps:
        memory_of(device).store(some_record(timestamp, priority))


def logged_in(device: Device) -> Device:
    device.connect()
    device.receive_data(b"\x01")
    assert device.next_event() == VerdictReceived(accepted=True)
    return device


def taken(packet: Packet | None) -> list[int]:
    assert packet is not None
    return [record["timestamp"] for record in decode_packet(packet.body)["records"]]


def acknowledge(device: Device) -> None:
    pending = device.source.pending
    assert pending is not None
    device.receive_data((pending.count or 0).to_bytes(4, "big"))
    event = device.next_event()
    assert isinstance(event, AckReceived)
    assert event.is_right


@given(any_packet())
def test_a_packet_of_encoded_records_is_the_grammar_s(packet: dict[str, Any]) -> None:
    """Records are encoded one by one and joined; that is what encoding them together gives."""
    codec_id = packet["codec_id"]
    records = [encode_record(codec_id, record) for record in packet["records"]]
    assert join_records(codec_id, records) == encode_packet(packet)


def test_the_login_is_the_length_and_the_imei() -> None:
    assert a_device().connect() == LOGIN


def test_nothing_is_sent_before_the_verdict() -> None:
    device = a_device()
    store(device, 1)
    assert device.next_packet() is None
    device.connect()
    assert device.next_packet() is None


def test_the_next_packet_waits_for_the_acknowledgement() -> None:
    """Stop-and-wait, and the records go out in the order in which they were made."""
    device = logged_in(a_device())
    store(device, 1)
    first = device.next_packet()
    store(device, 2)
    assert taken(first) == [1]
    assert device.next_packet() is None
    device.receive_data(ACK_1)
    assert device.next_event() == AckReceived(first, 1)
    assert taken(device.next_packet()) == [2]


def test_an_unacknowledged_packet_is_sent_again_byte_for_byte() -> None:
    device = logged_in(a_device())
    store(device, 1, 2)
    sent = device.next_packet()
    assert sent is not None
    device.was_sent(sent)
    device.disconnect()
    store(device, 3)
    again = logged_in(device).next_packet()
    assert again is sent
    assert device.sent_before is again


def test_a_disregarded_acknowledgement_settles_nothing_once() -> None:
    device = logged_in(a_device())
    store(device, 1)
    sent = device.next_packet()
    device.disregard_ack()
    acknowledge(device)
    assert device.next_packet() is sent
    acknowledge(device)
    assert device.next_packet() is None
    assert tally_of(device).acknowledged == 1


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_count_acknowledges_nothing(count: int) -> None:
    device = logged_in(a_device(least=2))
    store(device, 1, 2)
    sent = device.next_packet()
    device.receive_data(count.to_bytes(4, "big"))
    assert device.next_event() == AckReceived(sent, count)
    assert tally_of(device).acknowledged == 0
    assert device.next_packet() == sent


def test_a_packet_is_sent_when_there_are_enough_or_an_urgent_one_or_no_more() -> None:
    device = logged_in(a_device(least=3))
    store(device, 1)
    assert device.next_packet() is None
    store(device, 2, priority=1)
    assert taken(device.next_packet()) == [2, 1], "high priority first"
    acknowledge(device)
    store(device, 3)
    assert device.next_packet() is None
    memory_of(device).flush()
    assert taken(device.next_packet()) == [3]
    acknowledge(device)
    store(device, 4)
    assert device.next_packet() is None
    memory_of(device).finish()
    assert taken(device.next_packet()) == [4]


def test_the_newest_go_first_where_the_device_is_set_up_so() -> None:
    device = logged_in(a_device(newest_first=True))
    store(device, 1, 2, 3)
    assert taken(device.next_packet()) == [3, 2, 1]


@pytest.mark.parametrize(("model", "limit"), [("FMC130", 1280), ("FMB640", 512), ("FM6320", 512)])
def test_a_backlog_fills_packets_up_to_the_model_s_limit(model: str, limit: int) -> None:
    """After an outage a packet holds what the model's packet can, and not a byte more."""
    device = logged_in(a_device(most=body_limit(model)))
    store(device, *range(100))
    packet = device.next_packet()
    assert packet is not None
    size = len(encode_record(CODECS["8e"], some_record()))
    assert limit - size < len(packet.data) + 11 <= limit


def test_a_record_that_is_too_long_for_the_limit_goes_alone() -> None:
    device = logged_in(a_device(most=10))
    store(device, 1, 2)
    assert taken(device.next_packet()) == [1]


def test_a_packet_never_holds_more_records_than_its_count_can_say() -> None:
    device = logged_in(a_device(most=1_000_000))
    store(device, *range(300))
    assert len(taken(device.next_packet())) == 255
    with pytest.raises(ValueError, match="1 to 255"):
        a_device(least=256)


def test_a_full_memory_drops_the_oldest_record_of_low_priority() -> None:
    device = a_device(backlog=3)
    store(device, 1, priority=1)
    store(device, 2, 3, 4)
    assert (len(memory_of(device)), tally_of(device).dropped) == (3, 1)
    assert taken(logged_in(device).next_packet()) == [1, 3, 4]


def test_a_device_is_done_when_everything_is_acknowledged() -> None:
    device = logged_in(a_device())
    store(device, 1)
    memory_of(device).finish()
    device.next_packet()
    assert not device.is_done
    acknowledge(device)
    assert device.is_done


def test_a_command_is_not_taken_for_an_acknowledgement() -> None:
    """A frame begins with four zero bytes, as an acknowledgement of nothing does; what follows tells them apart."""
    device = logged_in(a_device())
    store(device, 1)
    sent = device.next_packet()
    device.receive_data(COMMAND + ACK_1)
    assert device.next_event() == CommandReceived(COMMAND)
    assert device.next_event() == AckReceived(sent, 1)
    assert device.next_event() is None


@pytest.mark.parametrize("cut", range(1, 30))
def test_what_the_server_says_does_not_depend_on_how_it_arrives(cut: int) -> None:
    """While no acknowledgement is awaited, any cut of a command gives the same event."""
    device = logged_in(a_device())
    device.receive_data(COMMAND[:cut])
    early = device.next_event()
    device.receive_data(COMMAND[cut:])
    events = [event for event in (early, device.next_event()) if event is not None]
    assert events == [CommandReceived(COMMAND)]


@pytest.mark.parametrize(
    ("connected", "data"),
    [(False, b"\x02"), (True, b"\x01\x01\x01\x01"), (True, b"\0\0\0\0\xff\xff\xff\xff")],
    ids=["verdict", "stray acknowledgement", "endless frame"],
)
def test_bytes_that_make_no_sense_are_a_violation(connected: bool, data: bytes) -> None:
    device = a_device()
    device.connect()
    if connected:
        logged_in(device)
    device.receive_data(data)
    with pytest.raises(ProtocolViolation):
        device.next_event()


def test_after_a_rejection_nothing_is_sent() -> None:
    device = a_device()
    store(device, 1)
    device.connect()
    device.receive_data(b"\x00")
    assert device.next_event() == VerdictReceived(accepted=False)
    assert device.state is State.OFFLINE
    assert device.next_packet() is None


# UDP


def a_datagram_device() -> DatagramDevice:
    device = DatagramDevice(IMEI, a_memory(wrap=Datagrams(IMEI)))
    assert device.connect() == b""
    store(device, 1)
    return device


def answer(packet: Packet | None, count: int = 1) -> bytes:
    assert packet is not None
    return acknowledge_datagram(receive_datagram(packet.data), count)


def test_a_datagram_names_its_tracker_and_is_acknowledged_by_its_ids() -> None:
    device = a_datagram_device()
    packet = device.next_packet()
    assert packet is not None
    assert receive_datagram(packet.data).ident == IMEI
    device.receive_data(answer(packet))
    assert device.next_event() == AckReceived(packet, 1)
    assert tally_of(device).acknowledged == 1


def test_an_acknowledgement_of_another_datagram_is_passed_over() -> None:
    """One that comes late, one that comes twice, and noise."""
    device = a_datagram_device()
    first = device.next_packet()
    device.receive_data(answer(first))
    device.next_event()
    store(device, 2)
    second = device.next_packet()
    for data in (answer(first), b"", b"\xff", answer(second)[:-1]):
        device.receive_data(data)
        assert device.next_event() is None
    device.receive_data(answer(second))
    assert device.next_event() == AckReceived(second, 1)


def test_a_datagram_that_is_sent_again_has_the_same_ids() -> None:
    device = a_datagram_device()
    first = device.next_packet()
    device.connect()
    assert device.next_packet() is first


# Both ends in memory


@given(
    timestamps=st.lists(st.integers(0, 2**41), min_size=1, max_size=40, unique=True),
    least=st.integers(1, 20),
    cuts=st.integers(1, 60),
)
def test_the_gateway_s_session_gets_every_record_once(timestamps: list[int], least: int, cuts: int) -> None:
    """Whatever the pieces in which the bytes travel, both ways."""
    device, server = a_device(least=least), server_side.Session()
    store(device, *timestamps)
    memory_of(device).finish()
    received: list[int] = []
    outgoing = device.connect()
    while outgoing:
        answers = b""
        for begin in range(0, len(outgoing), cuts):
            server.receive_data(outgoing[begin : begin + cuts])
            answers += _served(server, received)
        outgoing = b""
        for byte in answers:
            device.receive_data(bytes([byte]))
            device.next_event()
            packet = device.next_packet()
            outgoing += packet.data if packet else b""
    assert received == timestamps
    assert device.is_done
    assert tally_of(device).acknowledged == len(timestamps)


def _served(server: server_side.Session, received: list[int]) -> bytes:
    event = server.next_event()
    if isinstance(event, server_side.IdentReceived):
        return server.accept_ident()
    if isinstance(event, server_side.PacketReceived):
        received += [record["timestamp"] for record in event.packet["records"]]
        return server.acknowledge(event.packet["count"])
    return b""


# Numbers


@given(st.lists(st.floats(1e-5, 100), min_size=1))
def test_a_quantile_is_right_to_five_percent(seconds: list[float]) -> None:
    latencies = Latencies()
    for one in seconds:
        latencies.add(one)
    for fraction in (0.5, 0.99, 1.0):
        right = sorted(seconds)[max(0, -int(-fraction * len(seconds) // 1) - 1)]
        assert latencies.quantile(fraction) == pytest.approx(right, rel=0.05)


def test_tallies_add_up() -> None:
    """Of several processes: counts, faults and latencies."""
    one, other = Tally("vans", devices=2, recorded=5), Tally("vans", devices=3, recorded=7, acknowledged=1)
    other.latencies.add(0.5)
    other.faults["cut"] += 2
    total = merged([one, other], "vans")
    assert (total.devices, total.recorded, total.waiting) == (5, 12, 11)
    assert total.as_dict()["faults"] == {"cut": 2}
    assert total.as_dict()["ack_seconds"]["longest"] == 0.5
    assert not total.is_all_acknowledged
