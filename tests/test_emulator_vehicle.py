"""The vehicle: what it does second by second, and that its values tell one story."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.emulator.condition import TRUCK, VAN, Condition
from gateway.emulator.plan import BRISK, CALM, Plan, plan_for
from gateway.emulator.route import Waypoint, distance
from gateway.emulator.route_files import load_route
from gateway.emulator.vehicle import CRASH_SECONDS, Vehicle

TOWN = plan_for("town", BRISK)


def drive(seconds: int, step: float = 1.0, seed: int = 7, vehicle: Vehicle | None = None) -> Iterator[Condition]:
    vehicle = vehicle or Vehicle(TOWN, Random(seed))
    for at in range(seconds):
        yield vehicle.condition(at * step)
        vehicle.advance(step)


def meters(one: Condition, other: Condition) -> float:
    return distance(*(Waypoint(place.latitude, place.longitude, 0, 0) for place in (one, other)))


def test_the_odometer_is_the_distance_driven() -> None:
    """Odometer and positions tell the same story, within two percent."""
    conditions = list(drive(1800))
    straight = sum(meters(before, after) for before, after in pairwise(conditions))
    driven = conditions[-1].odometer - conditions[0].odometer
    assert driven > load_route("town").length
    assert straight == pytest.approx(driven, rel=0.02)
    assert all(after.odometer >= before.odometer for before, after in pairwise(conditions))


def test_the_speed_is_what_the_odometer_says() -> None:
    for before, after in pairwise(drive(1200)):
        mean = (before.speed + after.speed) / 2 / 3.6
        assert after.odometer - before.odometer == pytest.approx(mean, abs=1.2)


@pytest.mark.parametrize("plan", [TOWN, plan_for("motorway", CALM)], ids=["town", "motorway"])
def test_acceleration_stays_below_what_a_tracker_calls_harsh(plan: Plan) -> None:
    conditions = drive(3000, vehicle=Vehicle(plan, Random(7)))
    changes = [(after.speed - before.speed) / 3.6 for before, after in pairwise(conditions)]
    assert max(changes) <= BRISK.acceleration + 1e-6
    assert min(changes) >= -BRISK.braking - 1e-6


def test_it_stands_with_the_engine_on_and_off() -> None:
    conditions = list(drive(2000))
    parked = [condition for condition in conditions if not condition.ignition]
    assert parked
    assert {condition.speed for condition in parked} == {0.0}
    assert any(condition.speed == 0 and condition.ignition for condition in conditions), "no traffic light was red"
    assert all(condition.moving is (condition.speed > 0) for condition in conditions)


def test_the_supply_voltage_tells_whether_the_engine_runs() -> None:
    for condition in drive(1500):
        assert (condition.supply_voltage > 13.3) is condition.ignition
        assert (condition.rpm > 500) is condition.ignition


def test_the_trip_begins_when_the_ignition_is_switched_on() -> None:
    conditions = list(drive(2000))
    for before, after in pairwise(conditions):
        if after.ignition and not before.ignition:
            assert after.trip == pytest.approx(0, abs=20)
            assert after.ignition_seconds <= 1
        else:
            assert after.trip >= before.trip
    assert {condition.ignition for condition in conditions} == {True, False}


def test_fuel_goes_down_as_it_is_used() -> None:
    """Nine or so liters per 100 km for a van; a truck burns three times as much."""
    used = {}
    for kind in (VAN, TRUCK):
        first, *_, last = drive(4000, vehicle=Vehicle(plan_for("motorway", BRISK), Random(1), kind))
        assert first.fuel - last.fuel == pytest.approx(last.fuel_used - first.fuel_used, abs=1e-6)
        used[kind] = (last.fuel_used - first.fuel_used) / (last.odometer - first.odometer) * 1e5
    assert 8 < used[VAN] < 11
    assert 25 < used[TRUCK] < 33


def test_a_tank_is_filled_before_it_is_empty() -> None:
    levels = [condition.fuel_level for condition in drive(4000, 60)]
    assert min(levels) > 5
    assert max(levels) > 90


def test_fuel_does_not_depend_on_how_often_it_is_looked_at() -> None:
    often, seldom = (Vehicle(TOWN, Random(5)) for _ in range(2))
    for _ in range(1200):
        often.advance(1)
    seldom.advance(1200)
    assert often.odometer == pytest.approx(seldom.odometer, abs=0.01)
    assert often.condition().fuel_used == pytest.approx(seldom.condition().fuel_used, abs=1e-6)


def test_the_cargo_warms_up_while_the_door_is_open() -> None:
    conditions = list(drive(1500))
    opened = [(before, after) for before, after in pairwise(conditions) if before.door and after.door]
    assert opened
    assert all(after.cargo > before.cargo for before, after in opened if before.ambient > before.cargo)
    assert not any(condition.door and condition.moving for condition in conditions)


def test_the_engine_gets_warm_and_cold() -> None:
    conditions = list(drive(3000))
    assert max(condition.coolant for condition in conditions) > 80
    for before, after in pairwise(conditions):
        if before.ignition != after.ignition or after.coolant == before.coolant:
            continue
        assert (after.coolant > before.coolant) is after.ignition


def test_a_crash_ends_at_once_and_the_drive_goes_on() -> None:
    """From the speed that it had to standstill; ten minutes later it gets under way without a jump."""
    vehicle = Vehicle(TOWN, Random(2), crash=3600.0)
    before = 0.0
    while (incident := vehicle.take_incident()) is None:
        before = vehicle.speed
        vehicle.advance(1)
    assert (incident.kind, vehicle.speed) == (0, 0)
    assert abs(incident.value - before) < BRISK.braking + 0.1
    place = vehicle.odometer
    vehicle.advance(CRASH_SECONDS - 1)
    assert vehicle.odometer == place
    speeds = []
    for _ in range(30):
        vehicle.advance(1)
        speeds.append(vehicle.speed)
    assert max(speeds) > 3
    assert max(after - before for before, after in pairwise(speeds)) <= BRISK.acceleration + 1e-6
    assert vehicle.odometer > place


def test_harsh_incidents_come_where_the_plan_is_hard() -> None:
    vehicle = Vehicle(TOWN, Random(2), harsh=3600.0)
    kinds = set()
    for _ in range(700):
        vehicle.advance(1)
        incident = vehicle.take_incident()
        if incident is not None:
            kinds.add(incident.kind)
            assert incident.value >= 0.8
    assert kinds == {1, 2, 3}


def test_the_same_seed_is_the_same_drive() -> None:
    assert list(drive(300, seed=3)) == list(drive(300, seed=3))
    assert list(drive(300, seed=3)) != list(drive(300, seed=4))


def test_vehicles_of_one_route_begin_at_different_places() -> None:
    places = {Vehicle(TOWN, Random(seed), waits=False).condition().latitude for seed in range(20)}
    assert len(places) > 15


@settings(deadline=None, max_examples=60)
@given(step=st.floats(0.05, 600), crash=st.sampled_from([0.0, 500.0]), waits=st.booleans())
def test_any_step_keeps_it_on_the_road(step: float, crash: float, waits: bool) -> None:
    """However seldom it is looked at, the values stay in what the wire can hold."""
    vehicle = Vehicle(TOWN, Random(1), crash=crash, waits=waits)
    for condition in drive(40, step, vehicle=vehicle):
        vehicle.take_incident()
        assert 0 <= condition.speed <= 75
        assert 54.67 < condition.latitude < 54.70
        assert 0 <= condition.direction <= 360
        assert math.isfinite(condition.odometer)
        assert 0 < condition.fuel_level <= 100
        assert 0 <= condition.gsm_signal <= 5
        assert vehicle.steady_seconds() > 0
