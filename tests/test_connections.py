"""The connections of all channels: how they are described, found, counted and closed."""

from __future__ import annotations

import pytest

from gateway.channel.connections import Limits
from gateway.store.event_codes import CloseCode
from tests.builders import FrameFactory
from tests.shell import IMEI, Shell


@pytest.fixture
def there(run, redis) -> Shell:
    made = Shell(redis)
    run(made.open())
    return made


def test_a_connection_is_described_as_flespi_does(run, there):
    """With what passed over it; a device is named once there is one."""
    frames = FrameFactory()
    connection, _transport = there.log_in(frames)
    packet = frames.packet(3)
    connection.dataReceived(packet)
    run(there.commit())
    description = there.connections.describe(connection)
    assert description == {
        "id": connection.id,
        "channel_id": 1,
        "device_id": None,
        "ident": IMEI,
        "source": "10.0.0.1:40000",
        "transport": "tcp",
        "established": connection.id / 1_000_000,
        "last_active": description["last_active"],
        "msgs": 3,
        "recv": len(frames.login()) + len(packet),
        "send": 1 + 4,
        "meta": None,
        "secondary": False,
    }
    assert abs(description["last_active"] - description["established"]) < 30
    run(there.items.create_device(ident=IMEI, name="x", protocol_id=14, device_type_id=303))
    assert there.connections.describe(connection)["device_id"] == 1


def test_whoever_did_not_say_who_it_is_has_no_ident(there):
    """And is listed nevertheless."""
    connection, _transport = there.connect()
    assert there.connections.describe(connection)["ident"] is None
    assert there.connections.of_channel(1) == [connection]
    assert there.connections.of_channel(2) == []


def test_ids_are_unique_and_connections_are_found_by_them(there):
    """Even of those that are made in the same microsecond."""
    connections = [there.connect(port=port)[0] for port in range(1, 20)]
    ids = [connection.id for connection in connections]
    assert sorted(set(ids)) == ids
    assert [there.connections.find(id) for id in ids] == connections
    assert there.connections.find(1) is None


def test_connections_are_counted_and_each_change_is_told(there):
    """By channel."""
    told: list[int] = []
    there.connections.on_count.append(told.append)
    _connection, transport = there.connect(port=1)
    there.connect(port=2)
    assert there.connections.count(1) == 2
    transport.loseConnection()
    assert there.connections.count(1) == 1
    assert dict(there.connections.counts()) == {1: 1}
    assert told == [1, 1, 1]


def test_one_is_closed_by_its_id(there):
    """A second time there is none."""
    connection, transport = there.log_in()
    assert there.connections.close_by_id(connection.id)
    assert not transport.connected
    assert not there.connections.close_by_id(connection.id)


def test_one_is_closed_by_whose_it_is(there):
    """The ident of another protocol is another tracker."""
    _connection, transport = there.log_in()
    there.connections.close_ident(15, IMEI, CloseCode.DEVICE_CHANGED)
    assert transport.connected
    assert there.connections.is_connected(14, IMEI)
    there.connections.close_ident(14, IMEI, CloseCode.DEVICE_CHANGED)
    assert not transport.connected
    assert not there.connections.is_connected(14, IMEI)
    assert there.connections.of_ident(14, IMEI) is None


def test_counters_count_what_was_stored_and_every_byte(run, there):
    """A wrong CRC and what was parked bring bytes, but no message."""
    frames = FrameFactory()
    connection, transport = there.log_in(frames)
    sent = [frames.packet(1, bad_crc=True), frames.packet(2, count_again=9), frames.packet(2)]
    for data in sent:
        connection.dataReceived(data)
        run(there.commit())
    assert connection.msgs == 2
    assert connection.recv == len(frames.login()) + sum(map(len, sent))
    assert connection.send == 1 + len(transport.value())


@pytest.mark.parametrize("limit", ["connections", "connections_per_address"])
def test_whoever_has_no_room_is_in_no_list(run, redis, limit: str):
    """And takes no room when it goes."""
    there = Shell(redis, Limits(**{limit: 1}))
    run(there.open())
    first, _ = there.connect(port=1)
    there.connect(port=2)
    assert there.connections.of_channel(1) == [first]
    assert there.connections.count(1) == 1
