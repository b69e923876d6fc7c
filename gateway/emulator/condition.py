"""What a tracker could measure in a vehicle, and what kinds of vehicles there are; all in physical units."""

from __future__ import annotations

import attrs


@attrs.frozen
class Kind:
    """What kind of vehicle: V, liters, liters per 100 km and per idle hour, kg per axle, rpm per km/h in top gear."""

    running_voltage: float
    resting_voltage: float
    tank: float
    per_100_km: float
    per_idle_hour: float
    axles: tuple[int, ...]
    gears: tuple[int, ...]  # the highest speed of each, km/h; the last one's rpm is 2000 there
    idle_rpm: int = 780


VAN = Kind(14.1, 12.5, 80.0, 9.5, 0.9, (1150, 1320), (18, 38, 60, 85, 140))
TRUCK = Kind(28.0, 25.2, 600.0, 29.0, 2.4, (6900, 9800, 7100), (12, 24, 38, 52, 70, 105), 600)


@attrs.define
class Condition:
    """What a tracker could measure at one moment.

    Degrees, meters, km/h, V, A, liters, degrees Celsius; ``acceleration`` in m/s2, ``charge`` and ``fuel_level`` in
    percent, ``fuel_rate`` in liters per hour, ``ignition_seconds`` since it was switched on, ``engine_seconds`` in all.
    """

    latitude: float
    longitude: float
    altitude: float
    direction: float
    speed: float
    acceleration: float
    ignition: bool
    moving: bool
    door: bool
    odometer: float
    trip: float
    ignition_seconds: float
    engine_seconds: float
    supply_voltage: float
    battery_voltage: float
    battery_current: float
    charge: float
    gsm_signal: int
    satellites: int
    hdop: float
    fuel: float
    fuel_level: float
    fuel_used: float
    fuel_rate: float
    rpm: float
    load: float
    coolant: float
    ambient: float
    cargo: float
    kind: Kind
