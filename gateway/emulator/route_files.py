"""Routes from files: GPX, GeoJSON, CSV and encoded polylines, and those that come with the package.

A file is a way from one place to another. Where it was recorded with times, as by a tracker or a telephone, they tell
how fast it was driven and where it was waited; otherwise every leg may be driven at ``LIMIT``. What is nearer together
than ``_NEAR`` is taken for one point: that is the noise of a receiver that stands still.
"""

from __future__ import annotations

import csv
import functools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from importlib.resources.abc import Traversable
from io import StringIO
from pathlib import Path
from typing import Any

import attrs
import gpxpy
import polyline

from gateway.emulator.route import Route, Waypoint, distance, loop
from gateway.errors import ConfigError

LIMIT = 50.0  # km/h, where a file says nothing
_NEAR = 5.0  # m
_WALK = 4.0  # km/h: slower than this over a leg is waiting, not driving
_WAIT = 20.0  # s: and shorter than this is not worth it
_PARKED = 180.0  # s: who waits longer switches the engine off
_COLUMNS = {
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon", "lng", "long"),
    "altitude": ("altitude", "elevation", "ele", "alt"),
    "limit": ("limit", "speed"),
    "stop": ("stop",),
    "parked": ("parked",),
    "time": ("time", "timestamp"),
}


@attrs.frozen
class _Point:
    """One point as a file has it; None is what it does not say. ``time`` in seconds."""

    latitude: float
    longitude: float
    altitude: float = 0.0
    time: float | None = None
    limit: float | None = None
    stop: float = 0.0
    parked: bool = False

    def waypoint(self) -> Waypoint:
        return Waypoint(self.latitude, self.longitude, self.altitude, self.limit or LIMIT, self.stop, self.parked)


def route_names() -> list[str]:
    """The routes that come with the package."""
    return sorted(path.name.removesuffix(".csv") for path in _built_in().iterdir() if path.name.endswith(".csv"))


@functools.cache
def load_route(name: str) -> Route:
    """A built-in route by its name, or one from a file; the same object each time, as many vehicles share it.

    Raises ConfigError, whose text names the file and what would be right.
    """
    suffix = Path(name).suffix.lower()
    if name in route_names():
        return _route(name, _read_csv((_built_in() / f"{name}.csv").read_text(encoding="utf-8")))
    if suffix not in _READERS:
        known = ", ".join(route_names())
        raise ConfigError(f"route {name!r}: should be one of {known}, or a file that ends in {', '.join(_READERS)}")
    return _route(name, _READERS[suffix](_text(Path(name))))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"route {str(path)!r}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"route {str(path)!r}: cannot be read: {error}") from None


def _route(name: str, points: Iterable[_Point]) -> Route:
    try:
        kept = [_checked(point) for point in points]
        return loop([point.waypoint() for point in _driven(kept)])
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, gpxpy.gpx.GPXException) as error:
        raise ConfigError(f"route {name!r}: {error}") from None


def _checked(point: _Point) -> _Point:
    if not (-90 < point.latitude < 90 and -180 <= point.longitude <= 180):
        raise ValueError(f"{point.latitude}, {point.longitude} is no place in degrees of latitude and longitude")
    if not math.isfinite(point.altitude) or not (point.limit is None or 1 <= point.limit <= 300):
        raise ValueError(f"at {point.latitude}, {point.longitude}: the limit should be from 1 to 300 km/h")
    if not 0 <= point.stop < 1e6:
        raise ValueError(f"at {point.latitude}, {point.longitude}: the stop should be a number of seconds")
    return point


def _driven(points: list[_Point]) -> Iterator[_Point]:
    """The points that are far enough from each other, with the limits and stops that their times tell."""
    last = points[0] if points else None
    for point in points[1:]:
        assert last is not None
        meters = distance(last.waypoint(), point.waypoint())
        if meters < _NEAR and not point.stop:
            continue
        yield _timed(last, point, meters)
        last = point
    if last is not None:
        yield last


def _timed(point: _Point, following: _Point, meters: float) -> _Point:
    if point.time is None or following.time is None or following.time <= point.time or point.limit or point.stop:
        return point
    seconds = following.time - point.time
    speed = meters / seconds * 3.6
    if speed >= _WALK:
        return attrs.evolve(point, limit=min(speed, 300.0))
    if seconds < _WAIT:
        return attrs.evolve(point, limit=_WALK)
    return attrs.evolve(point, stop=seconds, parked=seconds >= _PARKED)


def _read_gpx(text: str) -> Iterator[_Point]:
    gpx = gpxpy.parse(text)
    points: list[Any] = [point for track in gpx.tracks for segment in track.segments for point in segment.points]
    points = points or [point for route in gpx.routes for point in route.points] or gpx.waypoints
    for point in points:
        time = point.time.timestamp() if point.time else None
        yield _Point(point.latitude, point.longitude, point.elevation or 0.0, time)


def _read_geojson(text: str) -> Iterator[_Point]:
    for geometry, properties in _geometries(json.loads(text)):
        lines = geometry["coordinates"] if geometry["type"] == "MultiLineString" else [geometry["coordinates"]]
        limit = properties.get("limit")
        for longitude, latitude, *altitude in (point for line in lines for point in line):
            yield _Point(float(latitude), float(longitude), float(altitude[0]) if altitude else 0.0, None, limit)


def _geometries(thing: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The lines in a GeoJSON object, each with the properties of its feature."""
    if thing["type"] == "FeatureCollection":
        for feature in thing["features"]:
            yield from _geometries(feature)
    elif thing["type"] == "Feature":
        yield from ((geometry, thing.get("properties") or {}) for geometry, _ in _geometries(thing["geometry"]))
    elif thing["type"] in ("LineString", "MultiLineString"):
        yield thing, {}


def _read_csv(text: str) -> Iterator[_Point]:
    rows = csv.DictReader(StringIO(text))
    names = {name.strip().lower(): name for name in rows.fieldnames or ()}
    columns = {ours: names[name] for ours, known in _COLUMNS.items() for name in known if name in names}
    if "latitude" not in columns or "longitude" not in columns:
        raise ValueError("the first line should name the columns latitude and longitude")
    for row in rows:
        yield _csv_point({ours: (row[column] or "").strip() for ours, column in columns.items()})


def _csv_point(row: Mapping[str, str]) -> _Point:
    return _Point(
        latitude=float(row["latitude"]),
        longitude=float(row["longitude"]),
        altitude=float(row.get("altitude") or 0),
        time=_seconds(row.get("time")),
        limit=float(row["limit"]) if row.get("limit") else None,
        stop=float(row.get("stop") or 0),
        parked=row.get("parked", "").lower() in ("yes", "true", "1"),
    )


def _seconds(text: str | None) -> float | None:
    """A moment as seconds or milliseconds since 1970, or as ISO 8601 (UTC where it names no zone)."""
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return number / 1000 if number > 1e11 else number


def _read_polyline(text: str) -> Iterator[_Point]:
    """Google's encoded polyline of five decimals; six, as of OSRM's ``polyline6``, give places ten times off."""
    for latitude, longitude in polyline.decode(text.strip()):
        yield _Point(latitude, longitude)


def _read_polyline6(text: str) -> Iterator[_Point]:
    for latitude, longitude in polyline.decode(text.strip(), 6):
        yield _Point(latitude, longitude)


_READERS: dict[str, Callable[[str], Iterator[_Point]]] = {
    ".gpx": _read_gpx,
    ".geojson": _read_geojson,
    ".json": _read_geojson,
    ".csv": _read_csv,
    ".polyline": _read_polyline,
    ".polyline6": _read_polyline6,
}
ENDINGS = tuple(_READERS)
"""Of the files that are routes."""


def _built_in() -> Traversable:
    return files("gateway.emulator") / "routes"
