"""Where a virtual vehicle drives: a closed loop of points, with what happens there.

Coordinates are plain degrees here (WGS-84); the wire's integers are made in ``recorder.py``. Geometry is shared by all
vehicles of a route, so nothing here changes once it is made.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

import attrs

EARTH_RADIUS = 6_371_008.8  # m, mean (IUGG)
_SAME_PLACE = 0.1  # m: two points nearer than this are one
_LOOP = 150.0  # m: a way that ends so near its beginning is a loop


@attrs.frozen
class Waypoint:
    """A point of a route, and how to drive from it to the next one.

    ``limit`` is the speed in km/h from here on; ``stop`` seconds are waited here, with the engine off where ``parked``.
    """

    latitude: float
    longitude: float
    altitude: float
    limit: float
    stop: float = 0.0
    parked: bool = False


@attrs.frozen
class Place:
    """Where something on a route is: degrees, meters, and degrees clockwise from north."""

    latitude: float
    longitude: float
    altitude: float
    direction: float


class Route:
    """A closed loop: after the last waypoint comes the first. Distances are in meters from the first waypoint."""

    def __init__(self, waypoints: Sequence[Waypoint]) -> None:
        self.waypoints = tuple(_without_doubles(waypoints))
        if len(self.waypoints) < 2:
            raise ValueError("a route needs two waypoints at different places")
        self.legs = tuple(distance(start, end) for start, end in self._ends())
        self.directions = tuple(bearing(start, end) for start, end in self._ends())
        self.starts = (0.0, *accumulate(self.legs[:-1]))
        self.length = sum(self.legs)

    def leg_at(self, meters: float) -> int:
        """The index of the waypoint that was passed last."""
        return bisect_right(self.starts, meters % self.length) - 1

    def place_at(self, meters: float) -> Place:
        """The point that lies ``meters`` along the loop; round and round if that is more than its length."""
        leg = self.leg_at(meters)
        start, end = self.waypoints[leg], self.waypoints[(leg + 1) % len(self.waypoints)]
        share = (meters % self.length - self.starts[leg]) / self.legs[leg]
        return Place(
            latitude=start.latitude + share * (end.latitude - start.latitude),
            longitude=_around(start.longitude + share * _around(end.longitude - start.longitude)),
            altitude=start.altitude + share * (end.altitude - start.altitude),
            direction=self.directions[leg],
        )

    def _ends(self) -> Iterable[tuple[Waypoint, Waypoint]]:
        return pairwise((*self.waypoints, self.waypoints[0]))


def loop(way: Sequence[Waypoint], halt: float = 600.0) -> Route:
    """The route of a way from one place to another: it is driven there and, unless it is a loop, back again.

    At both ends the vehicle parks for ``halt`` seconds, where the way does not say otherwise.
    """
    points = list(_without_doubles(way))
    if len(points) < 2:
        raise ValueError("a route needs two waypoints at different places")
    if distance(way[0], way[-1]) > _LOOP:
        points[-1] = _parking(points[-1], halt)
        points[-1:] = _way_back(points)
    points[0] = _parking(points[0], halt)
    return Route(points)


def distance(start: Waypoint | Place, end: Waypoint | Place) -> float:
    """Meters between two points that are not far apart: straight, on a plane that is true at their latitude."""
    north, east = _offset(start, end)
    return math.hypot(north, east)


def bearing(start: Waypoint | Place, end: Waypoint | Place) -> float:
    """Degrees clockwise from north, 0 <= bearing < 360."""
    north, east = _offset(start, end)
    return math.degrees(math.atan2(east, north)) % 360


def turn(before: float, after: float) -> float:
    """Degrees between two directions, 0 to 180."""
    return abs(_around(after - before))


def _around(degrees: float) -> float:
    """The same angle, from -180 up to 180: where 180 degrees east meets west, a leg is short all the same."""
    return degrees if -180 <= degrees <= 180 else (degrees + 180) % 360 - 180


def _offset(start: Waypoint | Place, end: Waypoint | Place) -> tuple[float, float]:
    middle = math.radians((start.latitude + end.latitude) / 2)
    north = math.radians(end.latitude - start.latitude) * EARTH_RADIUS
    east = math.radians(_around(end.longitude - start.longitude)) * EARTH_RADIUS * math.cos(middle)
    return north, east


def _without_doubles(points: Sequence[Waypoint]) -> Iterable[Waypoint]:
    """The points without those that repeat the one before; the last one may not repeat the first, which follows it."""
    kept: Waypoint | None = None
    for number, point in enumerate(points):
        closes = 0 < number == len(points) - 1 and distance(points[0], point) < _SAME_PLACE
        if not closes and (kept is None or distance(kept, point) >= _SAME_PLACE):
            kept = point
            yield point


def _parking(point: Waypoint, halt: float) -> Waypoint:
    return point if point.stop else attrs.evolve(point, stop=halt, parked=True)


def _way_back(points: Sequence[Waypoint]) -> list[Waypoint]:
    """From the last point to before the first: a limit holds from its point on, so on the way back it moves by one."""
    return [attrs.evolve(points[index], limit=points[index - 1].limit) for index in range(len(points) - 1, 0, -1)]
