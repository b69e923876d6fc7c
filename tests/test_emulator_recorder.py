"""What a tracker records and when: its rules, its IO sets, and that the gateway reads in it what the vehicle did."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import attrs
import pytest

from gateway.emulator.group import Events, Faults, Group, Timing
from gateway.emulator.io import FIELDS, SETS, family_of, io_set
from gateway.emulator.recorder import HIGH_PRIORITY, IGNITION, LOW_PRIORITY, PANIC_PRIORITY, TRIP, Burst, Record
from gateway.emulator.route import Waypoint, distance
from gateway.emulator.scenario import make_recorder
from gateway.errors import ConfigError
from gateway.protocols.teltonika.avl_ids import find_model, rows_for
from gateway.protocols.teltonika.normalize import normalizer_for
from gateway.protocols.teltonika.wire import decode_packet, encode_packet

START = 1_795_248_000.0
CODECS = {"8": 0x08, "8e": 0x8E, "16": 0x10}
MODELS = {"FMB": "FMB120", "FMX6": "FMC650", "FTX": "FTC134"}


def a_group(timing: Timing | None = None, **options: Any) -> Group:
    return Group(timing=timing or Timing(), **options)


def bursts(group: Group, count: int, index: int = 0, seed: int = 1) -> list[Burst]:
    recorder = make_recorder(group, index, seed, START)
    return [recorder.next_burst() for _ in range(count)]


def records(group: Group, count: int, index: int = 0, seed: int = 1) -> list[Record]:
    return [record for burst in bursts(group, count, index, seed) for record in burst.records]


def messages(group: Group, count: int, index: int = 0) -> list[dict[str, Any]]:
    """The records as the gateway sees them: over the wire, decoded, normalized for the model."""
    normalizer = normalizer_for(group.model)
    return [
        normalizer.normalize(decode_packet(encoded(group, record))["records"][0], CODECS[group.codec])
        for record in records(group, count, index)
    ]


def encoded(group: Group, *made: Record) -> bytes:
    return encode_packet({"codec_id": CODECS[group.codec], "records": list(made)})


def element(record: Record, avl_id: int) -> Any:
    return next((value for name in ("n1", "n2", "n4", "n8", "nx") for at, value in record[name] if at == avl_id), None)


# When


def test_records_come_every_period() -> None:
    moments = [burst.at - START for burst in bursts(a_group(Timing(period=7, watch=())), 20)]
    assert moments == [7.0 * number for number in range(20)]


def test_a_period_may_be_shorter_than_a_second() -> None:
    made = records(a_group(Timing(period=0.1, watch=())), 50)
    assert [record["timestamp"] - round(START * 1000) for record in made] == [100 * number for number in range(50)]
    assert len({record["longitude"] for record in made[-10:]}) == 1 or made[-1]["speed"] > 0


def test_a_parked_vehicle_records_less_often() -> None:
    group = a_group(Timing(period=5, parked_period=40, watch=()), route="delivery")
    made = bursts(group, 400)
    gaps = {
        round(after.at - before.at)
        for before, after in pairwise(made)
        if not element(before.records[0], IGNITION) and not element(after.records[0], IGNITION)
    }
    assert gaps == {40}
    assert {round(after.at - before.at) for before, after in pairwise(made)} >= {5, 40}


def test_distance_makes_records() -> None:
    """No two records of a moving vehicle are farther apart than the distance and a second more."""
    made = records(a_group(Timing(period=600, min_distance=100), io=("basic",)), 200)
    for before, after in pairwise(made):
        assert element(after, 16) - element(before, 16) <= 100 + 20
    assert len([record for record in made if record["event_io_id"] == 0]) > 150


def test_turning_makes_records() -> None:
    group = a_group(Timing(period=600, min_angle=20, watch=()))
    made = [record for record in records(group, 60)[1:] if record["speed"]]
    turns = [abs((after["angle"] - before["angle"] + 180) % 360 - 180) for before, after in pairwise(made)]
    assert sum(turn >= 19 for turn in turns) >= 0.8 * len(turns)
    assert len(made) > 30


def test_a_switched_ignition_is_an_event_of_high_priority() -> None:
    """It and the trip that begins with it come in one burst, a millisecond apart."""
    burst = next(burst for burst in bursts(a_group(route="delivery"), 300) if len(burst.records) > 1)
    first, second = burst.records
    assert (first["event_io_id"], first["priority"], first["generation_type"]) == (IGNITION, HIGH_PRIORITY, 5)
    assert (second["event_io_id"], second["priority"]) == (TRIP, LOW_PRIORITY)
    assert second["timestamp"] - first["timestamp"] == 1
    assert element(first, IGNITION) == element(second, TRIP) == 0


def test_every_change_of_a_watched_value_is_an_event() -> None:
    made = records(a_group(Timing(watch=(IGNITION, 240, 2)), io=("basic", "temperature")), 400)
    for avl_id in (IGNITION, 240, 2):
        values = [element(record, avl_id) for record in made]
        changes = sum(before != after for before, after in pairwise(values))
        assert changes == sum(record["event_io_id"] == avl_id for record in made) > 0


def test_timestamps_rise() -> None:
    made = records(a_group(Timing(period=1, watch=(239, 240, 250)), events=Events(harsh=60, crash=3)), 3000)
    assert all(after["timestamp"] > before["timestamp"] for before, after in pairwise(made))


def test_harsh_driving_is_reported_while_driving_hard() -> None:
    group = a_group(Timing(period=1), events=Events(harsh=500))
    found = [message for message in messages(group, 1500) if message.get("event.enum") == 253]
    kinds = {"harsh.acceleration.event", "harsh.braking.event", "harsh.cornering.event"}
    assert {kind for message in found for kind in kinds if message.get(kind)} == kinds
    assert all(message["movement.status"] and message["event.priority.enum"] == HIGH_PRIORITY for message in found)
    assert all(0.1 < message["absolute.acceleration"] < 1 for message in found if "absolute.acceleration" in message)


def test_a_crash_is_a_panic_with_its_trace_and_the_vehicle_stands() -> None:
    group = a_group(Timing(period=60), events=Events(crash=200))
    made = messages(group, 60)
    at = next(number for number, message in enumerate(made) if message.get("crash.event"))
    crash, trace = made[at], made[at + 1]
    assert (crash["event.enum"], crash["event.priority.enum"]) == (247, PANIC_PRIORITY)
    assert trace["event.enum"] == 257
    assert len(trace["acceleration.array"]) == 25
    assert not crash["movement.status"]
    after = [message for message in made[at:] if message["timestamp"] < crash["timestamp"] + 590]
    assert {message["vehicle.mileage"] for message in after} == {crash["vehicle.mileage"]}
    assert {message["position.speed"] for message in after} == {0}


# What


@pytest.mark.parametrize("family", FIELDS)
def test_widths_are_those_of_the_dictionary(family: str) -> None:
    """Each field stands in the table of its family, and is as wide as printed there (0: any width)."""
    found = find_model(MODELS[family])
    rows = rows_for(found.family, found.table)
    for field in FIELDS[family].values():
        row = rows[field.avl_id]
        assert row.parameter or row.kind, field.avl_id
        if field.width and row.bytes.isdecimal():
            assert field.width == int(row.bytes), f"{family} {field.avl_id}"


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("model", MODELS.values())
def test_every_record_survives_the_wire(model: str, codec: str) -> None:
    """All sets of a family, in each codec; what a codec has no room for is left out."""
    group = a_group(Timing(period=3), model=model, codec=codec, io=tuple(SETS[family_of(model)]), events=Events(50, 2))
    made = records(group, 250)
    packet = decode_packet(encoded(group, *made[:250]))
    for sent, received in zip(made, packet["records"], strict=False):
        assert {name: received[name] for name in received} == {name: sent[name] for name in received}
    assert (codec == "8e") is any(record["nx"] for record in made) or model != "FMB120"


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("model", MODELS.values())
def test_the_gateway_reads_what_the_vehicle_did(model: str, codec: str) -> None:
    """Voltages, odometer, trip, network and speed: the same story in every family and codec."""
    sets = tuple(name for name in SETS[family_of(model)] if name in ("basic", "can", "driver", "temperature"))
    made = messages(a_group(Timing(period=5), model=model, codec=codec, io=sets, route="delivery"), 600)
    truck = model == MODELS["FMX6"]
    for message in made:
        ignition = message["engine.ignition.status"]
        if (model, codec) != (MODELS["FTX"], "8"):  # there it has an id above 255
            assert (message["external.powersource.voltage"] > (26.6 if truck else 13.3)) is ignition
        assert 3.6 < message["battery.voltage"] < 4.3
        assert (message["gsm.mcc"], message["gsm.mnc"]) == (246, 2)
        assert message["gsm.signal.level"] in (40, 60, 80, 100)
        assert message["gnss.status"] is True
        assert message["position.valid"] is True
        assert message["movement.status"] is (message["position.speed"] > 0) or message["position.speed"] == 0
        assert (int(message["ibutton.code"], 16) != 0) is ignition
        assert 3 < message["sensor.temperature.1"] < 19
        assert 0.5 < message["position.hdop"] < message["position.pdop"] + 0.2 < 3
        if "can" in sets:
            assert abs(message["can.vehicle.speed"] - message["position.speed"]) <= 1
            assert (message["can.engine.rpm"] > 0) is ignition
            assert 0 < message["can.fuel.level"] <= 100
    assert not any(name.startswith("custom.param") for message in made for name in message)
    assert made[-1]["vehicle.mileage"] - made[0]["vehicle.mileage"] > 8


def test_a_trip_and_a_parked_car_are_told_apart_by_messages_alone() -> None:
    made = messages(a_group(Timing(period=5), route="delivery"), 1500)
    parked = [message for message in made if not message["engine.ignition.status"]]
    driven = [message for message in made if message["movement.status"]]
    assert len(parked) > 20
    assert len(driven) > 200
    assert {message["position.speed"] for message in parked} == {0}
    assert min(message["external.powersource.voltage"] for message in driven) > max(
        message["external.powersource.voltage"] for message in parked
    )
    trips = [message["trip.status"] for message in made if message.get("event.enum") == TRIP]
    assert len(trips) > 6
    assert all(before is not after for before, after in pairwise(trips)), "a trip begins after one has ended"


def test_the_odometer_agrees_with_the_positions() -> None:
    """Within two percent, where a record is made at every bend."""
    made = messages(a_group(Timing(period=2, min_angle=8), route="mixed"), 2000)
    places = [Waypoint(message["position.latitude"], message["position.longitude"], 0, 0) for message in made]
    straight = sum(distance(*ends) for ends in pairwise(places)) / 1000
    driven = made[-1]["vehicle.mileage"] - made[0]["vehicle.mileage"]
    assert driven > 20
    assert straight == pytest.approx(driven, rel=0.02)


def test_beacons_and_eye_sensors_are_read() -> None:
    made = messages(a_group(io=("basic", "beacons", "eye", "vin", "network"), route="delivery"), 200)
    both = next(message for message in made if len(message["ble.beacons"]) == 2)
    assert both["ble.beacons"][1]["battery.voltage"] == 2.98
    assert any(len(message["ble.beacons"]) == 1 for message in made), "the tool case stays when the door opens"
    assert both["ble.sensor.temperature.1"] == pytest.approx(4, abs=0.5)
    assert both["ble.sensor.roll.angle.1"] == -12
    assert len(both["vehicle.vin"]) == 17
    assert both["gsm.sim.iccid"].startswith("8937002")


def test_fms_values_of_a_truck_are_read() -> None:
    made = messages(a_group(Timing(period=30), model="FMC650", io=("basic", "fms", "tacho"), route="motorway"), 100)
    assert {message["total.vehicle.weight"] for message in made} == {23800}
    assert {message["tacho.driver.card.code.1"][:2] for message in made} == {"LT"}
    driving = [message for message in made if message["position.speed"] > 60]
    assert all(message["can.wheel.speed"] == message["tacho.position.speed"] for message in driving)
    assert all(1200 < message["can.engine.rpm"] <= 2600 for message in driving)


@pytest.mark.parametrize(
    ("io", "model", "complaint"),
    [
        (("basics",), "FMB120", "no such set; of FMB there are basic, can, driver"),
        (("99",), "FMB120", "no such AVL id; of FMB there are 1, 2, 16"),
        (("eye",), "FTC134", "no such set; of FTX there are"),
        (("basic",), "TAT100", "should be one of the families FMB, FMX6, FTX, ATX"),
        (("basic",), "GT06", "should be one of the families"),
    ],
)
def test_what_a_family_has_not_is_refused(io: tuple[str, ...], model: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        io_set(io, model, "8e")


def test_single_ids_can_be_chosen() -> None:
    made = records(a_group(io=("16", "239")), 3)
    assert all((len(record["n1"]), len(record["n4"]), record["total"]) == (1, 1, 2) for record in made)


# Faults of the receiver and the clock


def test_without_satellites_the_last_position_is_repeated() -> None:
    group = a_group(Timing(period=5, watch=()), faults=Faults(no_fix=0.05))
    made = records(group, 400)
    lost = [(before, after) for before, after in pairwise(made) if after["satellites"] == 0]
    assert 20 < len(lost) < 380
    for before, after in lost:
        assert (after["latitude"], after["longitude"]) == (before["latitude"], before["longitude"])
        assert (after["speed"], after["angle"], element(after, 69), element(after, 24)) == (0, 0, 2, 0)
    invalid = [message for message in messages(group, 400) if not message["position.valid"]]
    assert len(invalid) == len(lost)


def test_zero_coordinates_are_skipped_by_the_gateway() -> None:
    made = messages(a_group(faults=Faults(zero_coordinates=0.2)), 300)
    skipped = [message for message in made if message.get("position.skipped")]
    assert 30 < len(skipped) < 90
    assert not any("position.latitude" in message for message in skipped)


def test_a_clock_that_is_off_shifts_timestamps_but_not_when_they_are_made() -> None:
    right, wrong = (bursts(a_group(faults=Faults(clock_offset=offset)), 50) for offset in (0.0, -3600.5))
    for one, other in zip(right, wrong, strict=True):
        assert one.at == other.at
        assert one.records[0]["timestamp"] - other.records[0]["timestamp"] == 3_600_500


def test_a_receiver_sleeps_in_a_parked_vehicle_when_told_to() -> None:
    group = a_group(Timing(period=5, parked_period=20, sleep_after=60), route="delivery")
    sleeping = [message for message in messages(group, 300) if message["sleep.mode.enum"]]
    assert sleeping
    assert not any(message["engine.ignition.status"] or message["gnss.status"] for message in sleeping)


# Repeatable


@pytest.mark.parametrize("codec", CODECS)
def test_the_same_seed_gives_the_same_bytes(codec: str) -> None:
    group = a_group(codec=codec, events=Events(harsh=20, crash=1), faults=Faults(no_fix=0.1), io=("basic", "driver"))
    first, again, other = (encoded(group, *records(group, 200, 3, seed)[:200]) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_devices_of_a_group_differ() -> None:
    group = a_group(devices=10, io=("basic", "driver"))
    firsts = [records(group, 1, index)[0] for index in range(10)]
    assert len({record["latitude"] for record in firsts}) > 5
    assert len({element(record, 16) for record in firsts}) == 10


def test_what_happens_does_not_depend_on_how_often_it_is_recorded() -> None:
    """The ignition is switched at the same moments, whatever the period."""
    switched = []
    for period in (3, 40):
        made = records(attrs.evolve(a_group(Timing(period=period, parked_period=period))), 2000 // period)
        switched.append([record["timestamp"] for record in made if record["event_io_id"] == IGNITION][:1])
    assert switched[0]
    assert math.isclose(switched[0][0], switched[1][0], abs_tol=120_000)
