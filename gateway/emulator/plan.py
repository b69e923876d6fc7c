"""How a route is driven: second by second, computed once and shared by every vehicle that drives it in the same style.

A plan is cut at the stops. Between two of them lies a :class:`Section`: arrays with one value per second, from
standstill to standstill. The speed is the highest that the limits, the bends, the style's acceleration and its braking
allow: along the way in small steps, backward for the braking and forward for the acceleration.
"""

from __future__ import annotations

import functools
import math
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise

import attrs

from gateway.emulator.route import Place, Route, bearing, turn
from gateway.emulator.route_files import load_route

HARSH_ACCELERATION, HARSH_BRAKING, HARSH_CORNERING = 1, 2, 3  # as AVL 253 numbers them
_STEP = 10.0  # m: the longest step of the computation
_SLOWEST_BEND = 2.0  # m/s
_SMOOTH = 7.0  # m: a heading is that from so far behind to so far ahead, as no car turns on the spot,
_SMOOTH_SECONDS = 2.0  # or, at speed, from where it was so long ago to where it will be
_NOTABLE = {HARSH_ACCELERATION: 0.8, HARSH_BRAKING: 1.2, HARSH_CORNERING: 1.0}  # m/s2: less is nothing to call harsh


@attrs.frozen
class Style:
    """A driver: the share of the limit that is driven, and the most of acceleration, braking and cornering in m/s2."""

    pace: float
    acceleration: float
    braking: float
    cornering: float


CALM = Style(0.90, 1.1, 1.6, 1.8)
USUAL = Style(0.95, 1.4, 1.9, 2.2)
BRISK = Style(1.00, 1.6, 2.2, 2.6)
STYLES = (CALM, USUAL, BRISK)


@attrs.frozen
class Harsh:
    """Where a section is driven hardest: in which second, in which way (as AVL 253), and how much in m/s2."""

    second: int
    kind: int
    value: float


@attrs.frozen(eq=False)
class Section:
    """From one stop to the next: the values of each second, and what happens at its end.

    ``distance`` in meters from its beginning, ``speed`` in m/s, ``direction`` in degrees. It lasts ``duration`` whole
    seconds, after which it is waited ``stop`` seconds, ``parked`` or not.
    """

    distance: array[float]
    speed: array[float]
    latitude: array[float]
    longitude: array[float]
    altitude: array[float]
    direction: array[float]
    stop: float
    parked: bool
    harsh: tuple[Harsh, ...]

    @property
    def duration(self) -> int:
        return len(self.distance) - 1

    def second_at(self, meters: float) -> float:
        """When so much is driven, with a fraction."""
        after = bisect_left(self.distance, meters, 1, self.duration)
        before = self.distance[after - 1]
        return after - 1 + min(1.0, (meters - before) / max(1e-6, self.distance[after] - before))

    def first_beyond(self, begin: int, end: int, meters: float, direction: float, angle: float) -> int:
        """The first second after ``begin`` in which so many meters are driven or it was turned by so much; or ``end``.

        An ``angle`` of 0 is no turn to look for. Turns while crawling are the receiver's noise and do not count.
        """
        end = min(end, bisect_left(self.distance, meters, begin + 1, self.duration))
        if angle:
            for second, heading in enumerate(self.direction[begin + 1 : end], begin + 1):
                if angle <= abs((heading - direction + 180) % 360 - 180) and self.speed[second] > 1:
                    return second
        return end


@attrs.frozen(eq=False)
class Plan:
    """All sections of a loop, in their order; a vehicle goes round and round."""

    route: Route
    sections: tuple[Section, ...]


@functools.cache
def plan_for(route: str, style: Style = USUAL) -> Plan:
    """The plan of a route by name or file, made once. Raises ConfigError as ``load_route``."""
    return make_plan(load_route(route), style)


def make_plan(route: Route, style: Style = USUAL) -> Plan:
    """Work out how ``route`` is driven in a style. A route without stops has one of no length at its beginning."""
    count = len(route.waypoints)
    stops = [index for index, point in enumerate(route.waypoints) if point.stop] or [0]
    ends = [*stops[1:], stops[0] + count]
    return Plan(route, tuple(_section(route, style, first, last) for first, last in zip(stops, ends, strict=True)))


def _section(route: Route, style: Style, first: int, last: int) -> Section:
    meters, caps = _caps(route, style, first, last)
    speeds = _speeds(meters, caps, style)
    distances, second_speeds = _by_second(meters, speeds)
    begin = route.starts[first]
    places = [_place(route, begin, *moment, meters[-1]) for moment in zip(distances, second_speeds, strict=True)]
    directions = array("d", [place.direction for place in places])
    end = route.waypoints[last % len(route.waypoints)]
    return Section(
        distance=array("d", distances),
        speed=array("d", second_speeds),
        latitude=array("d", [place.latitude for place in places]),
        longitude=array("d", [place.longitude for place in places]),
        altitude=array("f", [place.altitude for place in places]),
        direction=directions,
        stop=end.stop,
        parked=end.parked,
        harsh=tuple(_hardest(second_speeds, directions)),
    )


def _caps(route: Route, style: Style, first: int, last: int) -> tuple[list[float], list[float]]:
    """Points along the legs from ``first`` to ``last``, and the speed that is allowed at each: m, m/s."""
    count = len(route.waypoints)
    meters, caps = [0.0], [0.0]
    for index in range(first, last):
        leg = index % count
        allowed = route.waypoints[leg].limit * style.pace / 3.6
        if index > first:
            caps[-1] = min(caps[-1], allowed, _bend(route, style, leg))
        steps = max(2, math.ceil(route.legs[leg] / _STEP))
        begin = meters[-1]
        meters += [begin + route.legs[leg] * step / steps for step in range(1, steps + 1)]
        caps += [allowed] * steps
    caps[-1] = 0.0
    return meters, caps


def _bend(route: Route, style: Style, leg: int) -> float:
    """The speed through the corner at the beginning of ``leg``, as if it were rounded off by an arc."""
    angle = turn(route.directions[leg - 1], route.directions[leg])
    reach = min(route.legs[leg - 1], route.legs[leg], route.waypoints[leg].limit) / 2
    radius = reach / max(1e-6, math.tan(math.radians(min(angle, 179.0)) / 2))
    return max(_SLOWEST_BEND, math.sqrt(style.cornering * radius))


def _speeds(meters: Sequence[float], caps: Sequence[float], style: Style) -> list[float]:
    speeds = list(caps)
    for at in range(len(speeds) - 2, -1, -1):
        reach = meters[at + 1] - meters[at]
        speeds[at] = min(speeds[at], math.sqrt(speeds[at + 1] ** 2 + 2 * style.braking * reach))
    for at in range(1, len(speeds)):
        reach = meters[at] - meters[at - 1]
        speeds[at] = min(speeds[at], math.sqrt(speeds[at - 1] ** 2 + 2 * style.acceleration * reach))
    return speeds


def _by_second(meters: Sequence[float], speeds: Sequence[float]) -> tuple[list[float], list[float]]:
    """Meters and speed at each whole second; between two points the acceleration is constant."""
    distances, second_speeds = [], []
    clock, second = 0.0, 0
    for at in range(len(meters) - 1):
        reach, begin, end = meters[at + 1] - meters[at], speeds[at], speeds[at + 1]
        lasts = 2 * reach / (begin + end)
        change = (end - begin) / lasts
        while second < clock + lasts:
            since = second - clock
            distances.append(meters[at] + begin * since + change * since * since / 2)
            second_speeds.append(begin + change * since)
            second += 1
        clock += lasts
    return [*distances, meters[-1]], [*second_speeds, 0.0]


def _place(route: Route, begin: float, meters: float, speed: float, length: float) -> Place:
    around, last = max(_SMOOTH, speed * _SMOOTH_SECONDS), length - 1e-6
    behind = route.place_at(begin + max(0.0, meters - around))
    ahead = route.place_at(begin + min(last, meters + around))
    return attrs.evolve(route.place_at(begin + min(meters, last)), direction=bearing(behind, ahead))


def _hardest(speeds: Sequence[float], directions: Sequence[float]) -> Iterator[Harsh]:
    """The seconds of the strongest acceleration, braking and cornering, as far as they are worth a mention."""
    changes = [after - before for before, after in pairwise(speeds)]
    sideways = [
        math.radians(turn(directions[at], directions[at + 1])) * speeds[at + 1] for at in range(len(speeds) - 1)
    ]
    found = []
    for kind, values in (
        (HARSH_ACCELERATION, changes),
        (HARSH_BRAKING, [-change for change in changes]),
        (HARSH_CORNERING, sideways),
    ):
        value = max(values)
        if value >= _NOTABLE[kind]:
            found.append(Harsh(values.index(value) + 1, kind, value))
    return iter(sorted(found, key=lambda harsh: harsh.second))
