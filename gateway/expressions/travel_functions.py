"""Functions of positions: distances in kilometers along the surface of a sphere."""

from __future__ import annotations

from math import asin, cos, radians, sin, sqrt
from typing import Any

from gateway.expressions.context import Context
from gateway.expressions.function import Function, Message, before, of_message
from gateway.expressions.values import bounded, number

EARTH_RADIUS = 6371.0088
"""Kilometers: the mean of the three axes of WGS-84 (IUGG)."""
LATITUDE, LONGITUDE = "position.latitude", "position.longitude"
POSITION = frozenset({LATITUDE, LONGITUDE})


def distance(latitude: Any, longitude: Any, other_latitude: Any, other_longitude: Any) -> float:
    """Kilometers, by the haversine formula: exact enough for near points, and for far ones within 0.5 %."""
    phi, other_phi = _degrees(latitude, 90), _degrees(other_latitude, 90)
    turn = _degrees(other_longitude, 180) - _degrees(longitude, 180)
    half = sin((other_phi - phi) / 2) ** 2 + cos(phi) * cos(other_phi) * sin(turn / 2) ** 2
    return 2 * EARTH_RADIUS * asin(min(1.0, sqrt(half)))


def _degrees(value: Any, most: int) -> float:
    degrees = bounded(number(value))
    if not -most <= degrees <= most:
        name = "latitude" if most == 90 else "longitude"
        raise ValueError(f"{degrees} is no {name}; it can be -{most} to {most}")
    return radians(degrees)


def _distance_to(message: Message, context: Context, latitude: Any, longitude: Any) -> float:
    return distance(*_position(message), latitude, longitude)


def _mileage(message: Message, context: Context) -> float:
    return distance(*_position(before(context)), *_position(message))


def _position(message: Message) -> tuple[Any, Any]:
    return of_message(message, LATITUDE), of_message(message, LONGITUDE)


TRAVEL_FUNCTIONS = [
    Function("distance(lat1, lon1, lat2, lon2)", "kilometers between two positions, in degrees", distance),
    Function(
        "distance_to(lat, lon)",
        "kilometers between the message's position and this one",
        apply_to=_distance_to,
        reads=POSITION,
    ),
    Function(
        "mileage()",
        "kilometers between the previous message's position and this one's",
        apply_to=_mileage,
        reads=POSITION,
        needs_previous=True,
    ),
]
