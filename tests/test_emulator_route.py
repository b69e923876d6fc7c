"""Routes: their geometry, the formats of their files, and how fast they are driven."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import polyline
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.emulator.plan import BRISK, CALM, STYLES, Style, make_plan, plan_for
from gateway.emulator.route import Route, Waypoint, bearing, distance, loop, turn
from gateway.emulator.route_files import LIMIT, load_route, route_names
from gateway.errors import ConfigError

WAY = [(54.70, 25.20), (54.71, 25.20), (54.71, 25.23)]
GPX = (
    """<gpx version="1.1" creator="t" xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>{}</trkseg></trk></gpx>"""
)
POINT = '<trkpt lat="{}" lon="{}"><ele>90</ele>{}</trkpt>'


def waypoints(*places: tuple[float, float], limit: float = 50) -> list[Waypoint]:
    return [Waypoint(latitude, longitude, 0, limit) for latitude, longitude in places]


def written(tmp_path: Path, name: str, text: str) -> str:
    path = tmp_path / name
    path.write_text(text)
    return str(path)


# Geometry


def test_a_route_is_a_closed_loop() -> None:
    """After its length a route is where it began, and nothing on it jumps."""
    town = load_route("town")
    begin, end = town.place_at(0), town.place_at(town.length)
    assert (end.latitude, end.longitude) == pytest.approx((begin.latitude, begin.longitude), abs=1e-9)
    places = [town.place_at(meters) for meters in range(0, int(town.length) + 10, 10)]
    assert max(distance(one, next_) for one, next_ in pairwise(places)) < 10.1


def test_a_bearing_is_clockwise_from_north() -> None:
    east = Route(waypoints((54.0, 25.0), (54.0, 25.1)))
    assert east.place_at(1).direction == pytest.approx(90)
    assert east.place_at(east.length - 1).direction == pytest.approx(270)


def test_a_leg_over_the_antimeridian_is_short() -> None:
    fiji = Route(waypoints((-17.0, 179.99), (-17.0, -179.99)))
    assert fiji.length == pytest.approx(2 * 2127, rel=0.01)
    assert abs(fiji.place_at(fiji.length / 4).longitude) == pytest.approx(180, abs=1e-6)


def test_a_way_is_driven_there_and_back() -> None:
    """Its ends become stops, and a limit holds on the same leg in both directions."""
    first, second, third = waypoints(*WAY)
    route = loop([first, Waypoint(second.latitude, second.longitude, 0, 90), third])
    assert [point.limit for point in route.waypoints] == [50, 90, 90, 50]
    assert [bool(point.stop) for point in route.waypoints] == [True, False, True, False]
    assert route.length == pytest.approx(2 * (distance(first, second) + distance(second, third)))


def test_a_way_that_ends_where_it_begins_is_a_loop() -> None:
    route = loop(waypoints(*WAY, WAY[0]))
    assert len(route.waypoints) == 3


def test_points_at_one_place_are_no_route() -> None:
    with pytest.raises(ValueError, match="two waypoints at different places"):
        Route(waypoints(WAY[0], WAY[0]))


@given(before=st.floats(0, 360), after=st.floats(0, 360))
def test_a_turn_is_at_most_half_a_circle(before: float, after: float) -> None:
    assert 0 <= turn(before, after) <= 180
    assert turn(before, after) == pytest.approx(turn(after, before), abs=1e-9)


# Files


@pytest.mark.parametrize("name", ["delivery", "mixed", "motorway", "town"])
def test_built_in_routes_have_stops_and_realistic_legs(name: str) -> None:
    route = load_route(name)
    assert name in route_names()
    assert sum(point.parked for point in route.waypoints) >= 2
    assert max(route.legs) < 6000
    assert min(point.limit for point in route.waypoints) >= 30
    assert max(point.limit for point in route.waypoints) <= 130


def test_a_route_is_loaded_once_for_all() -> None:
    assert load_route("town") is load_route("town")
    assert plan_for("town", CALM) is plan_for("town", CALM)


CSV = "lat,lng,elevation\n" + "".join(f"{latitude},{longitude},90\n" for latitude, longitude in WAY)
LINE = {"type": "LineString", "coordinates": [[longitude, latitude, 90] for latitude, longitude in WAY]}
FORMATS = {
    "a.gpx": GPX.format("".join(POINT.format(*place, "") for place in WAY)),
    "b.geojson": json.dumps(LINE),
    "c.json": json.dumps(
        {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": LINE, "properties": None}]}
    ),
    "d.csv": CSV,
    "e.polyline": polyline.encode(WAY),
    "f.polyline6": polyline.encode(WAY, 6) + "\n",
    "g.GPX": '<gpx><rte><rtept lat="54.7" lon="25.2"/><rtept lat="54.71" lon="25.2"/>'
    '<rtept lat="54.71" lon="25.23"/></rte></gpx>',
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_way(name: str, tmp_path: Path) -> None:
    route = load_route(written(tmp_path, name, FORMATS[name]))
    assert [(point.latitude, point.longitude) for point in route.waypoints] == [*WAY, WAY[1]]
    assert {point.limit for point in route.waypoints} == {LIMIT}
    if name[0] in "abcd":
        assert route.waypoints[0].altitude == 90


def test_recorded_times_tell_speed_and_stops(tmp_path: Path) -> None:
    """A kilometer in forty seconds is 100 km/h; who needs five minutes for ten meters has parked."""
    moments = [("54.7000", 0), ("54.7090", 40), ("54.7091", 340), ("54.7181", 400)]
    points = [
        POINT.format(latitude, 25.2, f"<time>2026-11-21T08:{seconds // 60:02}:{seconds % 60:02}Z</time>")
        for latitude, seconds in moments
    ]
    route = load_route(written(tmp_path, "track.gpx", GPX.format("".join(points))))
    assert route.waypoints[0].limit == pytest.approx(90, rel=0.01)
    assert (route.waypoints[1].stop, route.waypoints[1].parked) == (300, True)
    assert route.waypoints[2].limit == pytest.approx(60, rel=0.01)


@pytest.mark.parametrize(
    "moments", [("0", "36"), ("1700000000000", "1700000036000"), ("2026-01-01", "2026-01-01 00:00:36")]
)
def test_times_in_a_csv_may_be_seconds_milliseconds_or_iso(moments: tuple[str, str], tmp_path: Path) -> None:
    text = f"time,lat,lon\n{moments[0]},54.70,25.2\n{moments[1]},54.71,25.2\n"
    route = load_route(written(tmp_path, "track.csv", text))
    assert route.waypoints[0].limit == pytest.approx(111.2, rel=0.01)


def test_noise_of_a_receiver_that_stands_is_one_point(tmp_path: Path) -> None:
    text = "lat,lon\n54.70,25.2\n54.70001,25.2\n54.70002,25.20001\n54.71,25.2\n"
    assert len(load_route(written(tmp_path, "noise.csv", text)).waypoints) == 2


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("no-such-route", None, "should be one of delivery, mixed, motorway, town, or a file that ends in .gpx"),
        ("nothing.gpx", None, "no such file"),
        ("bad.gpx", "<gpx><trk>", "bad.gpx"),
        ("bad.geojson", "{", "bad.geojson"),
        ("point.geojson", '{"type": "Point", "coordinates": [1, 2]}', "two waypoints"),
        ("list.json", "[]", "list.json"),
        ("empty.csv", "", "columns latitude and longitude"),
        ("one.csv", "lat,lon\n54.7,25.2\n", "two waypoints"),
        ("word.csv", "lat,lon\n54.7,east\n", "'east'"),
        ("far.csv", "lat,lon\n254.7,25.2\n", "no place in degrees"),
        ("fast.csv", "lat,lon,limit\n54.7,25.2,900\n", "from 1 to 300 km/h"),
        ("wait.csv", "lat,lon,stop\n54.7,25.2,-1\n", "number of seconds"),
        ("bad.polyline", "\x01", "bad.polyline"),
        ("short.polyline", "_", "short.polyline"),
    ],
)
def test_a_wrong_route_says_which_and_what_would_be_right(
    name: str, text: str | None, complaint: str, tmp_path: Path
) -> None:
    path = written(tmp_path, name, text) if text is not None else name
    with pytest.raises(ConfigError, match=r"^route '") as error:
        load_route(path)
    assert complaint in str(error.value)


# How it is driven


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", ["delivery", "mixed", "motorway", "town"])
def test_limits_of_speed_and_acceleration_are_kept(name: str, style: Style) -> None:
    plan = plan_for(name, style)
    fastest = max(point.limit for point in plan.route.waypoints) * style.pace
    for section in plan.sections:
        assert max(section.speed) * 3.6 <= fastest + 1e-6
        changes = [after - before for before, after in pairwise(section.speed)]
        assert max(changes) <= style.acceleration + 1e-6
        assert min(changes) >= -style.braking - 1e-6


def test_the_sections_of_a_plan_cover_the_route() -> None:
    plan = plan_for("mixed", BRISK)
    assert sum(section.distance[-1] for section in plan.sections) == pytest.approx(plan.route.length)
    for section, following in pairwise((*plan.sections, plan.sections[0])):
        assert section.latitude[-1] == pytest.approx(following.latitude[0], abs=1e-6)
        assert (section.speed[0], section.speed[-1]) == (0, 0)


def test_a_bend_is_driven_slower_than_a_straight() -> None:
    straight = make_plan(loop(waypoints((54.70, 25.20), (54.71, 25.20), (54.72, 25.20), limit=90)), BRISK)
    bent = make_plan(loop(waypoints((54.70, 25.20), (54.71, 25.20), (54.71, 25.2173), limit=90)), BRISK)
    corner = bent.route.legs[0]
    assert bent.sections[0].speed[round(bent.sections[0].second_at(corner))] < 12
    assert straight.sections[0].speed[round(straight.sections[0].second_at(corner))] > 24


def test_a_route_without_stops_is_still_driven() -> None:
    plan = make_plan(Route(waypoints(*WAY)))
    assert len(plan.sections) == 1
    assert plan.sections[0].distance[-1] == pytest.approx(plan.route.length)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(54.6, 54.65), st.floats(25.1, 25.2)), min_size=2, max_size=5), st.floats(20, 200))
def test_any_way_can_be_driven(places: list[tuple[float, float]], limit: float) -> None:
    """Whatever the shape: it ends where it should, never goes back, and keeps the limit."""
    try:
        route = loop(waypoints(*places, limit=limit))
    except ValueError:
        return
    plan = make_plan(route, BRISK)
    driven = sum(section.distance[-1] for section in plan.sections)
    assert driven == pytest.approx(route.length, rel=1e-6)
    for section in plan.sections:
        assert all(after >= before for before, after in pairwise(section.distance))
        assert max(section.speed) <= limit / 3.6 + 1e-6


def test_a_place_on_the_way_is_found_again_by_its_distance() -> None:
    section = plan_for("town", CALM).sections[0]
    for second in (0, 7, section.duration):
        assert section.second_at(section.distance[second]) == pytest.approx(second, abs=1e-6)


def test_a_heading_is_that_of_the_leg() -> None:
    section = plan_for("motorway", BRISK).sections[0]
    middle = section.duration // 2
    ends = [Waypoint(section.latitude[at], section.longitude[at], 0, 0) for at in (middle, middle + 1)]
    assert turn(bearing(*ends), section.direction[middle]) < 20
