"""What a tracker writes down, and when: the device's own rules over a vehicle that drives.

A record is the dict that the structs of ``protocols/teltonika/wire.py`` build and parse. One is made every ``period``
(``parked_period`` with the ignition off), after so many meters or degrees of turning, when one of the watched IO values
changes, and when something happens. What belongs to one second comes as one burst, a millisecond apart, as trackers do
it: that is what tells such records apart.

Nothing is computed between two moments that matter: the vehicle says how long nothing can change.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any, NamedTuple

from gateway.emulator.condition import TRUCK, VAN, Condition
from gateway.emulator.group import Faults, Group, Timing
from gateway.emulator.io import IoSet, can_carry, io_set
from gateway.emulator.plan import STYLES, USUAL, Harsh, Plan, plan_for
from gateway.emulator.sample import FIX, NO_FIX, SLEEPS, Identity, Sample, operator_at
from gateway.emulator.vehicle import Vehicle
from gateway.protocols.teltonika.avl_ids import find_model

Record = dict[str, Any]

IGNITION, MOVEMENT, TRIP, IBUTTON, DOOR = 239, 240, 250, 78, 2
CRASH, GREEN_DRIVING_TYPE, GREEN_DRIVING_VALUE, CRASH_TRACE = 247, 253, 254, 257
LOW_PRIORITY, HIGH_PRIORITY, PANIC_PRIORITY = 0, 1, 2
ON_CHANGE, EVENTUAL, PERIODICAL = 5, 6, 7  # Codec 16's generation types

_HIGH = frozenset({IGNITION})
_PEAK = 1.8  # an accelerometer sees more than the change of speed over a whole second
_GRAVITY = 9.81  # m/s2
_TRACE_POINTS = 25  # 6 bytes each
_CRASH_KIND = 1  # a real crash, the device is calibrated


class Burst(NamedTuple):
    """What is recorded in one second: ``at`` is that second, since 1970 and by a clock that goes right."""

    at: float
    records: list[Record]


class Recorder:
    """The records of one device, one burst after the other, without end."""

    __slots__ = (
        "_began", "_codec", "_direction", "_faults", "_fix", "_identity", "_io", "_last_at", "_odometer",
        "_outage_until", "_parked_since", "_random", "_tick", "_ticks", "_timing", "_vehicle", "_watched",
        "_watched_values",
    )  # fmt: skip

    def __init__(
        self, vehicle: Vehicle, io: IoSet, random: Random, start: float, timing: Timing, faults: Faults, codec: str
    ) -> None:
        self._vehicle, self._io, self._random, self._codec = vehicle, io, random, codec
        self._timing, self._faults = timing, faults
        self._identity = Identity.draw(random)
        self._tick = min(1.0, timing.period)
        self._began, self._ticks = start, 0
        self._last_at = self._odometer = -math.inf  # of the last record
        self._direction = 0.0
        self._outage_until = -math.inf
        self._parked_since = math.inf
        self._fix: dict[str, int] = {}
        self._watched = tuple(io.known[avl_id] for avl_id in timing.watch if avl_id in io.known)
        self._watched_values: list[int] = []

    @classmethod
    def of_group(cls, group: Group, index: int, random: Random, start: float) -> Recorder:
        """Device ``index`` of a group: the first one waits where the route begins, the others are somewhere on it."""
        kind = TRUCK if find_model(group.model).family == "FMX6" else VAN
        plan = plan_of(group, random)
        vehicle = Vehicle(plan, random, kind, index == 0, group.events.harsh, group.events.crash)
        io = io_set(group.io, group.model, group.codec)
        return cls(vehicle, io, random, start, group.timing, group.faults, group.codec)

    @property
    def at(self) -> float:
        """The moment that the vehicle is at, in seconds since 1970."""
        return self._began + self._ticks * self._tick

    def next_burst(self) -> Burst:
        """Drive on to the next moment at which the device notes something. Time never goes back."""
        if not self._watched_values:
            return Burst(self.at, self._first())
        while True:
            self._drive_on()
            records = self._notes()
            if records:
                return Burst(self.at, records)

    def _drive_on(self) -> None:
        """To the next moment at which there may be something to write down: a whole number of ticks."""
        vehicle, timing = self._vehicle, self._timing
        seconds = min(self._last_at + self._period() - self.at, vehicle.steady_seconds())
        if timing.min_distance or timing.min_angle:
            meters = self._meters_left()
            seconds = vehicle.seconds_until(seconds, meters, self._direction, timing.min_angle)
        ticks = max(1, math.ceil(seconds / self._tick - 1e-6))
        vehicle.advance(ticks * self._tick)
        self._ticks += ticks

    def _period(self) -> float:
        return self._timing.period if self._vehicle.ignition else self._timing.parked_period

    def _meters_left(self) -> float:
        if not self._timing.min_distance:
            return math.inf
        return max(0.0, self._odometer + self._timing.min_distance - self._vehicle.odometer)

    def _is_due(self) -> bool:
        timing, vehicle = self._timing, self._vehicle
        if self.at >= self._last_at + self._period() - 1e-6:
            return True
        if not vehicle.speed:
            return False
        if timing.min_distance and vehicle.odometer - self._odometer >= timing.min_distance - 1e-6:
            return True
        turned = abs((vehicle.direction - self._direction + 180) % 360 - 180)
        return 0 < timing.min_angle <= turned

    def _first(self) -> list[Record]:
        sample = self._sample()
        self._watched_values = [field.read(sample) for field in self._watched] or [0]
        return [self._record(sample, 0)]

    def _notes(self) -> list[Record]:
        """The records of this moment; none, if there is nothing to say."""
        incident = self._vehicle.take_incident()
        sample = self._sample()
        events = self._changed(sample)
        if not (incident or events or self._is_due()):
            return []
        records = [self._event(sample, number, avl_id) for number, avl_id in enumerate(events)]
        if incident is not None:
            records += self._incident(sample, incident, len(records))
        return records or [self._record(sample, 0)]

    def _changed(self, sample: Sample) -> list[int]:
        values = [field.read(sample) for field in self._watched] or [0]
        before, self._watched_values = self._watched_values, values
        if values == before:
            return []
        return [field.avl_id for field, old, new in zip(self._watched, before, values, strict=True) if old != new]

    def _event(self, sample: Sample, number: int, avl_id: int) -> Record:
        record = self._record(sample, number, avl_id, HIGH_PRIORITY if avl_id in _HIGH else LOW_PRIORITY, ON_CHANGE)
        field = self._io.known[avl_id]
        group = record[field.group]
        if all(avl_id != known for known, _ in group) and can_carry(self._codec, field):
            _add(record, field.group, (avl_id, field.read(sample)))
        return record

    def _incident(self, sample: Sample, incident: Harsh, number: int) -> list[Record]:
        if incident.kind:
            record = self._record(sample, number, GREEN_DRIVING_TYPE, HIGH_PRIORITY, EVENTUAL)
            value = min(255, round(incident.value * _PEAK / _GRAVITY * 100))
            return [_add(record, "n1", (GREEN_DRIVING_TYPE, incident.kind), (GREEN_DRIVING_VALUE, value))]
        crash = self._record(sample, number, CRASH, PANIC_PRIORITY, EVENTUAL)
        _add(crash, "n1", (CRASH, _CRASH_KIND))
        if self._codec != "8e":
            return [crash]
        trace = self._record(sample, number + 1, CRASH_TRACE, PANIC_PRIORITY, EVENTUAL)
        return [crash, _add(trace, "nx", (CRASH_TRACE, self._trace(incident.value)))]

    def _trace(self, speed: float) -> bytes:
        """The acceleration in mg on three axes, oldest first: of a vehicle that loses ``speed`` m/s at once."""
        peak = min(16_000, round(speed / 0.1 / _GRAVITY * 1000))
        points = []
        for point in range(_TRACE_POINTS):
            share = math.exp(-((point - 15) ** 2) / 6)
            points += [round(-peak * share), round(self._random.uniform(-40, 40)), 1000 + round(peak * share / 5)]
        return b"".join(value.to_bytes(2, "big", signed=True) for value in points)

    def _sample(self) -> Sample:
        condition = self._vehicle.condition(self.at)
        gnss = self._gnss(condition)
        operator = operator_at(condition.latitude, condition.longitude)
        speed = round(condition.speed) if gnss == FIX else 0
        hdop = condition.hdop if gnss == FIX else 0.0
        area = 100 + round(condition.latitude * 4) % 100 * 10 + round(condition.longitude * 2) % 10
        return Sample(condition, gnss, speed, hdop, operator, area, self._identity, self._random)

    def _gnss(self, condition: Condition) -> int:
        """What the receiver does: it may sleep in a parked vehicle, and now and then it finds no satellites."""
        if self._faults.no_fix and self._random.random() < self._faults.no_fix:
            self._outage_until = self.at + self._random.uniform(20, 120)
        if condition.ignition:
            self._parked_since = math.inf
        else:
            self._parked_since = min(self._parked_since, self.at)
        if 0 < self._timing.sleep_after <= self.at - self._parked_since:
            return SLEEPS
        return NO_FIX if self.at < self._outage_until else FIX

    def _record(
        self, sample: Sample, number: int, event: int = 0, priority: int = LOW_PRIORITY, generation: int = PERIODICAL
    ) -> Record:
        """A record of this moment, so many milliseconds after its second; the device's rules count from it on."""
        self._last_at, self._odometer = self.at, sample.c.odometer
        self._direction = sample.c.direction
        groups = self._io.groups(sample)
        return {
            "timestamp": round((self.at + self._faults.clock_offset) * 1000) + number,
            "priority": priority,
            **self._position(sample),
            "event_io_id": event,
            "generation_type": generation,
            "total": sum(map(len, groups.values())),
            **groups,
        }

    def _position(self, sample: Sample) -> dict[str, int]:
        """The GPS element. Without a fix it repeats the last one, with neither satellites nor speed."""
        c = sample.c
        if sample.gnss != FIX:
            return {**self._fix, "angle": 0, "satellites": 0, "speed": 0} if self._fix else dict(_NOWHERE)
        if self._faults.zero_coordinates and self._random.random() < self._faults.zero_coordinates:
            return dict(_NOWHERE)
        self._fix = {
            "longitude": round(c.longitude * 1e7),
            "latitude": round(c.latitude * 1e7),
            "altitude": round(c.altitude),
            "angle": round(c.direction) % 360,
            "satellites": c.satellites,
            "speed": sample.speed,
        }
        return self._fix


def _add(record: Record, group: str, *elements: tuple[int, Any]) -> Record:
    record[group].extend(elements)
    record["total"] += len(elements)
    return record


_NOWHERE = {"longitude": 0, "latitude": 0, "altitude": 0, "angle": 0, "satellites": 0, "speed": 0}


def plan_of(group: Group, random: Random) -> Plan:
    """The route of a group, in the style of one of its drivers."""
    return plan_for(group.route, random.choice(STYLES) if group.devices > 1 else USUAL)
