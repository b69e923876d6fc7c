"""A vehicle on a route: what it does as time passes, in physical units.

The values hang together as in a real one: the odometer is the distance driven, the supply voltage rises when the
alternator turns, fuel is burnt by meters and by idling, the cargo warms up while its door is open. Nothing here knows
of AVL ids or of a clock: time passes only when :meth:`Vehicle.advance` says so.

How the route is driven stands in a plan (``plan.py``) that vehicles share; a vehicle is a place in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

from gateway.emulator.condition import VAN, Condition, Kind
from gateway.emulator.plan import Harsh, Plan

STARTER_SECONDS = 5.0  # the engine runs so long before the vehicle leaves and after it has parked
FIRST_SECONDS = 1.0  # and before the very first drive only so long: whoever tries the emulator waits for it
DOOR_SECONDS = 15.0  # at a stop with the engine off, the door opens so long after and closes so long before the engine
CRASH_SECONDS = 600.0  # so long the vehicle stands where it crashed
COLD = 4.0  # degrees: what the cargo is kept at
_REGAIN = 1.2  # m/s2: how it gets under way again between two stops
_ENGINE_WARM = 88.0  # degrees


class Vehicle:
    """Drives a plan for ever. The same ``random`` and the same calls give the same drive.

    :param waits: begin at the first stop, about to leave; otherwise anywhere on the way
    :param harsh, crash: incidents per hour of driving, on average
    """

    __slots__ = (
        "_cargo", "_charge", "_coolant", "_crash", "_engine_seconds", "_fuel", "_fuel_used", "_halt", "_halt_length",
        "_harsh", "_ignition_seconds", "_incidents", "_index", "_kind", "_odometer_before", "_parked", "_random",
        "_second", "_section", "_sections", "_signal", "_speed", "_trip_began", "_unmeasured",
    )  # fmt: skip

    def __init__(
        self, plan: Plan, random: Random, kind: Kind = VAN, waits: bool = True, harsh: float = 0.0, crash: float = 0.0
    ) -> None:
        self._sections, self._random, self._kind = plan.sections, random, kind
        self._harsh, self._crash = harsh, crash
        self._odometer_before = float(random.randrange(8_000_000, 300_000_000))
        self._charge, self._signal = random.uniform(0.7, 1.0), random.uniform(3.0, 5.0)
        self._fuel, self._fuel_used = (
            kind.tank * random.uniform(0.4, 1.0),
            self._odometer_before * kind.per_100_km / 1e5,
        )
        self._coolant, self._cargo = random.uniform(20, 70), COLD
        self._engine_seconds = self._odometer_before / 12.0
        self._ignition_seconds = self._unmeasured = 0.0
        self._incidents: list[Harsh] = []
        self._begin_section(0)
        self._halt, self._halt_length, self._parked = FIRST_SECONDS, math.inf, True
        self._trip_began = self._odometer_before
        if not waits:
            self._begin_anywhere()

    @property
    def ignition(self) -> bool:
        """On while driving and at traffic lights, and a moment before and after; off while parked."""
        if not self._parked or self._halt <= 0 or self._halt <= STARTER_SECONDS:
            return True
        return self._halt > self._halt_length - STARTER_SECONDS

    @property
    def door(self) -> bool:
        """Open for most of a stop with the engine off."""
        margin = STARTER_SECONDS + DOOR_SECONDS
        return self._parked and margin < self._halt <= self._halt_length - margin

    @property
    def speed(self) -> float:
        """Meters per second."""
        if self._halt > 0:
            return 0.0
        return self._speed if self._speed >= 0 else _at(self._section.speed, self._second)

    @property
    def odometer(self) -> float:
        """Meters, since it was new."""
        return self._odometer_before + _at(self._section.distance, self._second)

    @property
    def direction(self) -> float:
        """Degrees; while it waits, that from which it came."""
        if self._halt > 0 and self._second <= 0:
            return self._sections[self._index - 1].direction[-1]
        return self._section.direction[int(self._second)]

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        while seconds > 1e-9:
            step = min(seconds, self.steady_seconds())
            was_on, before = self.ignition, self.odometer
            self._pass(step)
            if was_on != self.ignition:
                self._switch(self.ignition)
            self._age(step, was_on, self.odometer - before)
            seconds -= step

    def steady_seconds(self) -> float:
        """For so long neither ignition, door nor movement changes, and nothing happens."""
        if self._halt > 0:
            return self._halt - max((edge for edge in self._halt_edges() if edge < self._halt), default=0.0)
        if self._speed >= 0:
            return 1.0
        begin = self._second
        if begin < 1:
            return 1 - begin
        ahead = (incident.second for incident in self._incidents if incident.second > begin)
        return min(self._section.duration, *ahead, self._section.duration) - begin

    def seconds_until(self, most: float, meters: float, direction: float, angle: float) -> float:
        """When ``meters`` more are driven or it has turned by ``angle`` from ``direction``; at most ``most``."""
        if self._halt > 0 or self._speed >= 0:
            return most
        second, section = self._second, self._section
        end = min(section.duration, math.ceil(second + most))
        found = section.first_beyond(int(second), end, _at(section.distance, second) + meters, direction, angle)
        return min(most, found - second)

    def take_incident(self) -> Harsh | None:
        """What happens in this second; each incident once. A kind of 0 is a crash: the vehicle stands at once."""
        if not self._incidents or self._halt > 0 or self._incidents[0].second > self._second:
            return None
        incident = self._incidents.pop(0)
        if not incident.kind:
            self._halt = self._halt_length = CRASH_SECONDS
            self._parked = True
            self._speed = 0.0
        return incident

    def condition(self, at: float = 43_200.0) -> Condition:
        """What the sensors show now, a little noise included; ``at``, seconds since 1970, tells day from night."""
        random, kind, on, speed = self._random.random, self._kind, self.ignition, self.speed
        section, second = self._section, self._second
        odometer = self.odometer
        ambient = 12 + 6 * math.sin((at % 86400 / 86400 - 0.375) * math.tau)
        self._settle(ambient, on, speed)
        acceleration = self._acceleration()
        satellites = 9 + int(random() * 6)
        rpm, rate = self._engine(speed * 3.6, acceleration) if on else (0.0, 0.0)
        return Condition(
            latitude=_at(section.latitude, second),
            longitude=_at(section.longitude, second),
            altitude=_at(section.altitude, second),
            direction=self.direction,
            speed=speed * 3.6,
            acceleration=acceleration,
            ignition=on,
            moving=speed > 0,
            door=self.door,
            odometer=odometer,
            trip=odometer - self._trip_began,
            ignition_seconds=self._ignition_seconds,
            engine_seconds=self._engine_seconds,
            supply_voltage=(kind.running_voltage if on else kind.resting_voltage) + random() * 0.16 - 0.08,
            battery_voltage=3.6 + 0.55 * self._charge,
            battery_current=0.08 if on and self._charge < 0.99 else 0.0,
            charge=self._charge * 100,
            gsm_signal=round(self._signal),
            satellites=satellites,
            hdop=9.0 / satellites + random() * 0.2,
            fuel=self._fuel,
            fuel_level=self._fuel / kind.tank * 100,
            fuel_used=self._fuel_used,
            fuel_rate=rate,
            rpm=rpm,
            load=min(100.0, 18 + speed + 30 * max(0.0, acceleration)) if on else 0.0,
            coolant=self._coolant,
            ambient=ambient,
            cargo=self._cargo,
            kind=kind,
        )

    def _begin_anywhere(self) -> None:
        self._index = self._random.randrange(len(self._sections))
        self._begin_section(self._index)
        self._second = float(self._random.randrange(1, max(2, self._section.duration)))
        self._incidents = [incident for incident in self._incidents if incident.second > self._second]
        self._halt, self._parked = 0.0, False
        self._ignition_seconds = self._second + STARTER_SECONDS

    def _begin_section(self, index: int) -> None:
        """Be at the beginning of a section, with what will happen in it."""
        self._index, self._section = index, self._sections[index]
        self._second, self._speed = 0.0, -1.0  # a speed below 0: as planned
        self._incidents = list(self._draw()) if self._harsh or self._crash else []

    def _draw(self) -> list[Harsh]:
        section, chance = self._section, self._random.random
        hours = section.duration / 3600
        drawn = [harsh for harsh in section.harsh if chance() < self._harsh * hours / len(section.harsh)]
        if self._crash and chance() < self._crash * hours and section.duration > 4:
            second = 2 + int(chance() * (section.duration - 3))
            drawn = [harsh for harsh in drawn if harsh.second < second]
            drawn.append(Harsh(second, 0, section.speed[second]))
        return drawn

    def _halt_edges(self) -> tuple[float, ...]:
        """Of the seconds that a halt has left: those at which the engine or the door changes."""
        if not self._parked:
            return ()
        door = STARTER_SECONDS + DOOR_SECONDS
        return self._halt_length - STARTER_SECONDS, self._halt_length - door, door, STARTER_SECONDS

    def _pass(self, step: float) -> None:
        if self._halt > 0:
            self._halt = self._halt - step if self._halt - step > 1e-9 else 0.0
            return
        if self._speed >= 0:
            self._regain(step)
        else:
            self._second = min(self._second + step, float(self._section.duration))
        if self._second >= self._section.duration:
            self._arrive()

    def _regain(self, step: float) -> None:
        """Get faster until the speed is again what the plan has at this place."""
        section = self._section
        meters = _at(section.distance, self._second) + (self._speed + _REGAIN * step / 2) * step
        self._second = section.second_at(min(meters, section.distance[-1]))
        self._speed += _REGAIN * step
        if self._speed >= _at(section.speed, self._second):
            self._speed = -1.0

    def _arrive(self) -> None:
        section = self._section
        self._odometer_before += section.distance[-1]
        self._begin_section((self._index + 1) % len(self._sections))
        self._parked = section.parked
        least = 2 * (STARTER_SECONDS + 2) if section.parked else 1.0
        self._halt = self._halt_length = float(max(least, round(section.stop * self._random.uniform(0.7, 1.3))))

    def _switch(self, on: bool) -> None:
        if on:
            self._trip_began, self._ignition_seconds = self.odometer, 0.0
        elif self._fuel < 0.2 * self._kind.tank:
            self._fuel = self._kind.tank  # filled up at this stop

    def _age(self, seconds: float, on: bool, meters: float) -> None:
        self._unmeasured += seconds
        if on:
            self._ignition_seconds += seconds
            self._engine_seconds += seconds
            self._burn(seconds, meters)

    def _burn(self, seconds: float, meters: float) -> None:
        burnt = self._kind.per_idle_hour / 3600 * seconds + self._kind.per_100_km / 1e5 * 0.9 * meters
        self._fuel = max(1.0, self._fuel - burnt)
        self._fuel_used += burnt

    def _settle(self, ambient: float, on: bool, speed: float) -> None:
        """What changes slowly: battery and temperatures, and the radio as the vehicle moves about."""
        seconds, self._unmeasured = self._unmeasured, 0.0
        if not seconds:
            return
        self._charge = max(0.2, min(1.0, self._charge + seconds / (3600 if on else -72000)))
        self._coolant = _nearer(self._coolant, _ENGINE_WARM if on else ambient, seconds / (240 if on else 5400))
        self._cargo = _nearer(self._cargo, ambient if self.door else COLD, seconds / 2400)
        if speed:
            wander = (self._random.random() - 0.5) * 0.2 * math.sqrt(min(seconds, 60.0))
            self._signal = max(2.0, min(5.0, self._signal + wander))

    def _acceleration(self) -> float:
        if self._halt > 0 or self._speed >= 0:
            return _REGAIN if self._speed > 0 and self._halt <= 0 else 0.0
        at = min(int(self._second), self._section.duration - 1)
        return self._section.speed[at + 1] - self._section.speed[at]

    def _engine(self, speed: float, acceleration: float) -> tuple[float, float]:
        """Revolutions per minute, and liters per hour."""
        kind = self._kind
        if speed < 1:
            return kind.idle_rpm + self._random.random() * 20, kind.per_idle_hour
        highest = next((gear for gear in kind.gears if speed <= gear), kind.gears[-1])
        rpm = max(float(kind.idle_rpm), 2000 * speed / highest)
        return rpm, kind.per_idle_hour + speed * kind.per_100_km / 100 * max(0.1, 0.9 + acceleration)


def _at(values: Sequence[float], second: float) -> float:
    """The value at a second, between those of whole ones."""
    whole = int(second)
    value = values[whole]
    part = second - whole
    return value if not part else value + part * (values[whole + 1] - value)


def _nearer(value: float, target: float, share: float) -> float:
    return target + (value - target) * math.exp(-share)
