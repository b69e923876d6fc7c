"""From an AVL record to a message: names, units, scales and what they depend on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import message as msg
from gateway.protocols.teltonika import wire
from gateway.protocols.teltonika.avl_ids import all_rows
from gateway.protocols.teltonika.normalize import Normalizer, begin_message, normalizer_for
from gateway.protocols.teltonika.wire import CODEC_8, CODEC_8_EXTENDED, CODEC_16
from tests.builders import FrameFactory

Message = dict[str, Any]
MODELS = ["FMB120", "FMC650", "FMB630", "TMT250", "TFT100", "FTC134", "ATC700", "FM3612", "FM1100", None]


def normalize(model: str | None = "FMB120", codec: int = CODEC_8_EXTENDED, **fields: Any) -> Message:
    """The message of a record that has only ``fields`` in its IO element."""
    record = FrameFactory().record(codec, **({"n1": [], "n2": [], "n4": [], "n8": []} | fields))
    return normalizer_for(model).normalize(record, codec)


def io(model: str | None = "FMB120", **groups: Any) -> Message:
    """What the IO element alone gave."""
    base = normalize(model)
    return {name: value for name, value in normalize(model, **groups).items() if base.get(name) != value}


def test_the_record_itself_is_position_time_and_priority() -> None:
    message = normalize(
        codec=CODEC_8,
        timestamp=1_678_346_071_000,
        priority=2,
        longitude=376619180,
        latitude=439552180,
        altitude=244,
        angle=281,
        satellites=15,
        speed=7,
        event_io_id=240,
    )
    assert message == {
        "codec.id": 8,
        "timestamp": 1678346071,
        "event.enum": 240,
        "event.priority.enum": 2,
        "position.latitude": 43.955218,
        "position.longitude": 37.661918,
        "position.altitude": 244,
        "position.direction": 281,
        "position.speed": 7,
        "position.satellites": 15,
        "position.valid": True,
    }


def test_a_time_of_whole_seconds_is_an_integer_and_another_one_has_its_milliseconds() -> None:
    assert msg.encode({"t": normalize(timestamp=1_678_346_071_000)["timestamp"]}) == b'{"t":1678346071}'
    assert msg.encode({"t": normalize(timestamp=1_678_346_071_001)["timestamp"]}) == b'{"t":1678346071.001}'


def test_a_periodic_record_has_no_event() -> None:
    assert "event.enum" not in normalize(event_io_id=0)


def test_an_event_need_not_be_among_the_elements() -> None:
    assert normalize(event_io_id=253)["event.enum"] == 253


def test_the_generation_type_of_codec_16_is_kept() -> None:
    assert normalize(codec=CODEC_16, generation_type=5)["generation.type.enum"] == 5
    assert "generation.type.enum" not in normalize()


def test_without_satellites_the_last_fix_is_kept_and_marked() -> None:
    message = normalize(satellites=0, longitude=252_797_000, latitude=546_872_000)
    assert message["position.latitude"] == 54.6872
    assert message["position.valid"] is False
    assert "position.skipped" not in message


@pytest.mark.parametrize(
    "position", [{"latitude": 0}, {"longitude": 0}, {"latitude": 900_000_001}, {"longitude": -1_800_000_001}]
)
def test_coordinates_that_cannot_be_are_removed(position: dict[str, int]) -> None:
    """The same rules as for every message: what they leave, they leave."""
    message = normalize(**position)
    assert "position.latitude" not in message
    assert "position.longitude" not in message
    assert message["position.valid"] is False
    assert message["position.skipped"] is True


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1))
def test_the_position_rules_change_nothing_any_more(latitude: int, longitude: int) -> None:
    record = FrameFactory().record(latitude=latitude, longitude=longitude)
    message = begin_message(record, CODEC_8)
    assert msg.apply_position_rules(dict(message)) == message


def test_south_west_and_below_the_sea_are_negative() -> None:
    message = normalize(longitude=-712345678, latitude=-411234567, altitude=-5)
    assert (message["position.longitude"], message["position.latitude"]) == (-71.2345678, -41.1234567)
    assert message["position.altitude"] == -5


# Model, group, AVL id and wire value; what the message must say.
CASES: list[tuple[str, str, int, int, Message]] = [
    ("FMB120", "n2", 66, 12640, {"external.powersource.voltage": 12.64}),
    ("FMB930", "n2", 66, 1264, {"external.powersource.voltage": 12.64}),
    ("FTC134", "n4", 800, 70_640, {"external.powersource.voltage": 70.64}),
    ("FMB120", "n2", 67, 3938, {"battery.voltage": 3.938}),
    ("FMB120", "n2", 68, 150, {"battery.current": 0.15}),
    ("FMB120", "n1", 113, 97, {"battery.level": 97}),
    ("FMB120", "n1", 152, 64, {"can.vehicle.battery.level": 64}),
    ("FMB120", "n4", 16, 36_713_703, {"vehicle.mileage": 36713.703}),
    ("FMC650", "n4", 216, 36_713_703, {"vehicle.mileage": 36713.703}),
    ("FMB120", "n4", 199, 1500, {"segment.vehicle.mileage": 1.5}),
    ("FMB120", "n1", 21, 4, {"gsm.signal.level": 80}),
    ("FMB120", "n1", 239, 1, {"engine.ignition.status": True}),
    ("FMB120", "n1", 240, 0, {"movement.status": False}),
    ("FMB120", "n1", 252, 1, {"external.powersource.status": False}),
    ("FMC650", "n1", 252, 1, {"ibutton.authorized.status": True, "ibutton.authorized.state.enum": 1}),
    ("FMB120", "n2", 181, 13, {"position.pdop": 1.3}),
    ("FMB120", "n2", 182, 8, {"position.hdop": 0.8}),
    ("FMB120", "n2", 17, 0xFFDC, {"x.acceleration": -0.036}),
    ("FMB120", "n2", 25, 0xFF38, {"ble.sensor.temperature.1": -2.0}),
    ("FTC134", "n2", 25, 0xFF38, {"ble.sensor.temperature.1": -20.0}),
    ("FMB120", "n4", 72, 0xFFFFFF9C, {"sensor.temperature.1": -10.0}),
    ("FMC650", "n2", 72, 0xFF9C, {"sensor.temperature.1": -10.0}),
    ("FMB120", "n1", 32, 0xF6, {"can.engine.coolant.temperature": -10}),
    ("FMB120", "n2", 115, 900, {"can.engine.temperature": 90.0}),
    ("FMB120", "n2", 85, 1850, {"can.engine.rpm": 1850}),
    ("FMB120", "n4", 103, 9609, {"can.counted.engine.motorhours": 160.15}),
    ("FMB120", "n4", 105, 6_108_660, {"can.tracker.counted.mileage": 6108.66}),
    ("FMB120", "n4", 107, 1234, {"can.tracker.counted.fuel.consumed": 123.4}),
    ("FMB120", "n2", 110, 85, {"can.fuel.consumption": 8.5}),
    ("FMB120", "n2", 13, 723, {"gps.fuel.rate": 7.23}),
    ("FMB120", "n2", 45, 12000, {"can.direct.fuel.rail.pressure": 120000}),
    ("FMB120", "n2", 139, 90, {"tacho.driver.continuous_driving.duration.1": 5400}),
    ("FMC650", "n2", 10507, 90, {"tacho.driver.daily.driving.duration.1": 5400}),
    ("FMB150", "n2", 10507, 90, {"tacho.driver.daily.driving.duration.1": 5400}),
    ("FMB120", "n2", 243, 1500, {"eco.driving.event.duration": 1.5}),
    ("FMB120", "n2", 86, 455, {"ble.sensor.humidity.1": 45.5}),
    ("FTC134", "n1", 22, 200, {"ble.sensor.battery.voltage.3": 0.2}),
    ("FMB120", "n1", 200, 2, {"sleep.mode.enum": 2}),
    ("FMB120", "n1", 255, 97, {"overspeeding.speed": 97}),
    ("FMB120", "n8", 78, 0x0123456789ABCDEF, {"ibutton.code": "0123456789abcdef"}),
    ("FMC650", "n8", 218, 246020100001234, {"gsm.sim.imsi": "246020100001234"}),
    ("FMB120", "n8", 258, 0x0000_03E8_FC18_0001, dict(zip(
        ("max.x.acceleration", "max.y.acceleration", "max.z.acceleration"), (1.0, -1.0, 0.001), strict=True
    ))),
    ("FMB120", "n1", 69, 1, {"gnss.state.enum": 1, "gnss.status": True}),
    ("FMB120", "n1", 69, 2, {"gnss.state.enum": 2, "gnss.status": True}),
    ("FMB120", "n1", 69, 3, {"gnss.state.enum": 3, "gnss.status": False}),
    ("FMC650", "n1", 71, 3, {"gnss.state.enum": 3, "gnss.status": True}),
    ("FMB120", "n1", 80, 3, {"gsm.network.mode.enum": 3, "gsm.network.roaming.status": True}),
    ("FMC650", "n1", 22, 5, {"gsm.network.mode.enum": 5}),
    ("FMB120", "n1", 237, 2, {"gsm.network.type": "4G"}),
    ("FMB120", "n1", 155, 1, {"geofence.status.1": True}),
    ("FMB120", "n1", 156, 3, {"overspeeding.status": True}),
    ("FTC134", "n1", 156, 1, {"geofence.status": True}),
    ("FMB120", "n1", 250, 1, {"trip.status": True, "trip.state.enum": 1}),
    ("FMB120", "n1", 250, 3, {"trip.state.enum": 3, "private.status": True}),
    ("FMB120", "n1", 247, 4, {"crash.event": True, "crash.event.enum": 4}),
    ("FMB120", "n1", 251, 1, {"idle.status": True}),
    ("FM3612", "n1", 248, 2, {"custom.param.248": 2}),
    ("FMB120", "n1", 248, 2, {
        "immobilizer.state.enum": 2, "immobilizer.state": "iButton connected (authorized driving)"
    }),
    ("FMC650", "n1", 248, 7, {"geofence.overspeeding.status": True, "custom.param.248": 7}),
    ("FMC650", "n4", 145, 0xFFFFFFFF, {"manual.can.0": 4294967295}),
    ("FMC650", "n8", 145, 0xFFFFFFFF, {"manual.can.hex.0": "00000000ffffffff"}),
    ("FMC650", "n4", 109, int.from_bytes(b"0304", "big"), {"fms.software.version": "03.04"}),
]  # fmt: skip


@pytest.mark.parametrize(("model", "group", "avl_id", "value", "expected"), CASES, ids=str)
def test_a_value_has_flespis_name_unit_and_scale(
    model: str, group: str, avl_id: int, value: int, expected: Message
) -> None:
    found = io(model, **{group: [(avl_id, value)]})
    assert found == expected
    assert json.loads(msg.encode(found)) == expected


def test_scaled_values_are_clean_decimals() -> None:
    """12640 * 0.001 would be 12.64, but 12641 * 0.001 is 12.641000000000002."""
    for value in range(0, 65536, 7):
        assert msg.encode(io(n2=[(66, value)])).decode().count("0000000") == 0


@pytest.mark.parametrize(("group", "value"), [("n1", 0xF6), ("n2", 0xFFF6), ("n4", 0xFFFFFFF6)])
def test_the_sign_is_that_of_the_width_on_the_wire(group: str, value: int) -> None:
    """The table prints one byte for id 32; a device that sends two or four means minus ten all the same."""
    assert io(**{group: [(32, value)]}) == {"can.engine.coolant.temperature": -10}


def test_digital_inputs_and_outputs_are_bits_and_a_mask() -> None:
    assert io(n1=[(1, 1), (2, 0), (3, 1)]) == {"din.1": True, "din.2": False, "din.3": True, "din": 5}
    assert io(n1=[(179, 0), (180, 1)]) == {"dout.1": False, "dout.2": True, "dout": 2}
    assert io("FMC650", n1=[(4, 1)]) == {"din.4": True, "din": 8}


@pytest.mark.parametrize(("value", "mcc", "mnc"), [(24602, 246, 2), (310410, 310, 410)])
def test_the_operator_is_text_and_two_numbers(value: int, mcc: int, mnc: int) -> None:
    assert io(n4=[(241, value)]) == {"gsm.operator.code": str(value), "gsm.mcc": mcc, "gsm.mnc": mnc}


def test_no_operator_is_not_one() -> None:
    assert io(n4=[(241, 0)]) == {"custom.param.241": 0}


@pytest.mark.parametrize(
    ("model", "group", "avl_id", "raw", "name"),
    [
        ("FMB120", "n4", 72, 850, "sensor.temperature.error.code.1"),
        ("FMB120", "n4", 75, 3000, "sensor.temperature.error.code.4"),
        ("FMC650", "n2", 73, 5000, "sensor.temperature.error.code.2"),
        ("FM3612", "n2", 74, 3000, "sensor.temperature.error.code.3"),
        ("FMC650", "n2", 8, 2000, "sensor.temperature.error.code.6"),
        ("FMB120", "n2", 25, 32767, "ble.sensor.temperature.error.code.1"),
        ("FMB120", "n2", 28, 4000, "ble.sensor.temperature.error.code.4"),
        ("FTC134", "n2", 26, 3000, "ble.sensor.temperature.error.code.2"),
        ("FMB120", "n2", 86, 65535, "ble.sensor.humidity.error.code.1"),
        ("FMB120", "n1", 10804, 255, "ble.sensor.humidity.error.code.1"),
    ],
)
def test_an_error_of_a_sensor_is_no_value(model: str, group: str, avl_id: int, raw: int, name: str) -> None:
    assert io(model, **{group: [(avl_id, raw)]}) == {name: str(raw)}


def test_850_is_an_error_only_where_the_table_says_so() -> None:
    assert io("FM3612", n2=[(72, 850)]) == {"sensor.temperature.1": 85.0}


def test_beacons_fault_codes_traces_and_coordinates_are_structured() -> None:
    assert io(nx=[(385, b"\x11\x01" + bytes(16) + b"\xc4")]) == {"ble.beacons": [{"id": "00" * 16, "rssi": -60}]}
    assert io(nx=[(281, b"P0100,P0200")])["can.dtc"][1] == {"code": "P0200", "standard": "OBDII"}
    assert io(nx=[(257, b"\x03\xe8\xfc\x18\x00\x01")]) == {"acceleration.array": [{"x": 1.0, "y": -1.0, "z": 0.001}]}
    iso = "+545013.2164+0251506.0000+120.000/"
    assert io(nx=[(387, iso.encode())]) == {"iso6709.coordinates": iso}
    assert io("TMT250", nx=[(389, b"\x12")]) == {"button.id": 1, "button.action.type": 2}
    assert io(nx=[(331, b"\x01\x02")]) == {"ble.1.custom.payload.hex.1": "0102"}
    assert io(nx=[(331, b"")]) == {"ble.1.custom.payload.hex.1": ""}


@pytest.mark.parametrize("avl_id", [10500, 11317])
def test_a_payload_whose_layout_is_not_known_stays_hexadecimal(avl_id: int) -> None:
    model = {10500: "FMC650", 11317: "TMT250"}[avl_id]
    assert io(model, nx=[(avl_id, b"\x01\xab")]) == {f"custom.param.{avl_id}": "01ab"}


@pytest.mark.parametrize(
    ("group", "value", "expected"),
    [
        ("n1", 255, 255),
        ("n4", 2**32 - 1, 2**32 - 1),
        ("n8", 2**53, 2**53),
        ("n8", 2**53 + 1, "20000000000001"),
        ("n8", 2**64 - 1, "ffffffffffffffff"),
        ("nx", b"", ""),
        ("nx", b"\x00\xab", "00ab"),
    ],
)
def test_an_id_without_a_name_is_kept_as_it_was(group: str, value: Any, expected: Any) -> None:
    """A number where JSON holds it exactly, else lower-case hexadecimal text without prefix."""
    assert io(**{group: [(60000, value)]}) == {"custom.param.60000": expected}


def test_a_number_that_json_would_round_is_not_one() -> None:
    assert io("FMC650", n8=[(13, 2**64 - 1)]) == {"custom.param.13": "ffffffffffffffff"}


def test_a_value_of_another_form_than_expected_is_kept() -> None:
    assert io(nx=[(66, b"\x31\x60")]) == {"custom.param.66": "3160"}
    assert io(nx=[(385, b"\x11\x99")]) == {"custom.param.385": "1199"}
    assert io(n4=[(257, 7)]) == {"custom.param.257": 7}
    assert io(n1=[(239, 2)]) == {"custom.param.239": 2}
    assert io(n1=[(1, 2)]) == {"custom.param.1": 2}
    assert io(n1=[(237, 77)]) == {"custom.param.237": 77}


def test_of_two_elements_with_one_id_the_last_wins() -> None:
    assert io(n1=[(239, 1), (239, 0)]) == {"engine.ignition.status": False}
    assert io(n2=[(66, 1), (66, 12000)]) == {"external.powersource.voltage": 12.0}
    assert io(n1=[(253, 1), (253, 2)]) == {"harsh.braking.event": True}
    assert io(n1=[(1, 1), (1, 0)]) == {"din.1": False, "din": 0}
    assert io(n4=[(72, 850), (72, 215)]) == {"sensor.temperature.1": 21.5}


def test_speed_is_that_of_the_gps_element() -> None:
    assert normalize(speed=50, n2=[(24, 50)])["position.speed"] == 50
    found = normalize(speed=50, n2=[(24, 49)])
    assert (found["position.speed"], found["custom.param.24"]) == (50, 49)


def test_a_negative_number_without_a_name_has_its_sign() -> None:
    row = next(row for row in all_rows() if row.signed and not row.kind and "fmc650" in row.tables and row.bytes == "2")
    assert io("FMC650", n2=[(row.avl_id, 0xFFFF)]) == {f"custom.param.{row.avl_id}": -1}


def test_a_value_that_says_not_available_is_no_measurement() -> None:
    """AVL id 113 of FMX6: the least number of its range."""
    assert io("FMC650", n4=[(113, 2**32 - 160_635)]) == {"custom.param.113": -160_635}
    assert io("FMC650", n4=[(113, 2**32 - 160_634)]) == {"can.service.mileage": -160_634}


def test_the_messages_of_a_packet_are_in_the_order_of_its_records() -> None:
    records = decode_records(3)
    messages = normalizer_for("FMB120").normalize_all(records, CODEC_8)
    assert [message["timestamp"] for message in messages] == [record["timestamp"] // 1000 for record in records]
    assert messages == [normalizer_for("FMB120").normalize(record, CODEC_8) for record in records]
    assert normalizer_for("FMB120").normalize_all([], CODEC_8) == []


def decode_records(count: int) -> list[Any]:
    return list(wire.decode_packet(FrameFactory(codec=CODEC_8).body(records=count))["records"])


def test_records_as_the_wire_gives_them_are_normalized() -> None:
    """From bytes: construct's containers are dicts, its lists are lists."""
    body = FrameFactory(codec=CODEC_8).body(records=2)
    packet = wire.decode_packet(body)
    messages = [normalizer_for("FMB120").normalize(record, packet["codec_id"]) for record in packet["records"]]
    assert [message["timestamp"] for message in messages] == [1_700_000_000, 1_700_000_001]
    assert messages[0]["engine.ignition.status"] is True
    assert messages[0]["external.powersource.voltage"] == 12.43


def test_models_of_one_table_share_a_normalizer() -> None:
    assert normalizer_for("FMB120") is normalizer_for("FMB130")
    assert isinstance(normalizer_for("FMC650"), Normalizer)
