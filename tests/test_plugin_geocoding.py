"""The plugin type geocoding: from a position to an address, not more often than needed and allowed."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import parse_qs

import pytest
from attrs import evolve

from gateway import metrics
from gateway.errors import ItemError, RemoteError, RemoteRefused, RemoteUnavailable
from gateway.parameters import catalogue
from tests.authority import Authority
from tests.plugin_run import DEVICE, asked, made, message
from tests.targets.http import CLOSE, NEVER, Answer, Asked

OTHER = evolve(DEVICE, id=8)
METER = 1 / 111_195
"""In degrees of latitude."""
SAID = {
    "display_name": "2, Gedimino pr., Senamiestis, Vilnius, 01103, Lietuva",
    "address": {
        "house_number": "2", "road": "Gedimino pr.", "suburb": "Senamiestis", "town": "Vilnius",
        "county": "Vilniaus m. sav.", "state": "Vilniaus apskritis", "postcode": "01103", "country": "Lietuva",
        "country_code": "lt", "ISO3166-2-lvl4": "LT-VL",
    },
}  # fmt: skip
ADDRESS = {
    "address": "2, Gedimino pr., Senamiestis, Vilnius, 01103, Lietuva",
    "address.country": "Lietuva",
    "address.country.code": "LT",
    "address.state": "Vilniaus apskritis",
    "address.county": "Vilniaus m. sav.",
    "address.city": "Vilnius",
    "address.district": "Senamiestis",
    "address.postcode": "01103",
    "address.street": "Gedimino pr.",
    "address.house.number": "2",
}


def says(answer: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(answer).encode())


def at(latitude: float = 54.687157, longitude: float = 25.279651, **values) -> dict:
    """A message with this position."""
    return message(position_latitude=latitude, position_longitude=longitude, **values)


def its_place(request: Asked) -> Answer:
    """An address that tells what was asked."""
    query = parse_qs(request.query)
    return says({"display_name": f"{query['lat'][0]} {query['lon'][0]}", "address": {}})


@pytest.fixture
def geocoding(http_target, make_plugin):
    """The plugin with a server on this machine, without a rate."""
    http_target.default = says(SAID)

    def make(**config):
        return make_plugin("geocoding", **{"uri": http_target.url, "rate": 0, **config})

    return make


def test_the_address_is_added(run, http_target, geocoding):
    """As the server knows it, under names that the catalogue has."""
    [result] = run(asked(geocoding(language="lt,en", zoom=16), at(din=1)))
    assert result == at(din=1) | ADDRESS
    assert ADDRESS.keys() <= catalogue().keys()
    [request] = http_target.requests
    assert (request.method, request.path) == ("GET", "/reverse")
    assert parse_qs(request.query) == {
        "format": ["jsonv2"], "lat": ["54.6872"], "lon": ["25.2797"], "zoom": ["16"], "accept-language": ["lt,en"]
    }  # fmt: skip
    assert request.headers["user-agent"].startswith("avl-gateway")


def test_headers_and_the_user_agent_are_those_of_the_configuration(run, http_target, geocoding):
    plugin = geocoding(uri=http_target.url + "/nominatim/", user_agent="fleet/1 (me@x.org)", headers={"X-Key": "k"})
    run(asked(plugin, at()))
    [request] = http_target.requests
    assert request.path == "/nominatim/reverse"
    assert (request.headers["user-agent"], request.headers["x-key"]) == ("fleet/1 (me@x.org)", "k")
    assert "accept-language" not in parse_qs(request.query)


def test_only_the_chosen_fields_are_added(run, geocoding):
    [result] = run(asked(geocoding(fields=["address", "address.c*"]), at()))
    chosen = ("address", "address.country", "address.country.code", "address.county", "address.city")
    assert result == at() | {name: ADDRESS[name] for name in chosen}


@pytest.mark.parametrize(
    "position",
    [
        {},
        {"position.latitude": 54.5},
        {"position.latitude": 0, "position.longitude": 0},
        {"position.latitude": 91, "position.longitude": 1},
        {"position.latitude": "54.5", "position.longitude": 25.5},
        {"position.latitude": 54.5, "position.longitude": 25.5, "position.valid": False},
    ],
)
def test_messages_without_a_valid_position_pass(run, http_target, geocoding, position):
    """Nothing is asked."""
    given = message() | position
    assert run(asked(geocoding(), given)) == [given]
    assert http_target.requests == []


def test_near_positions_share_the_answer_of_the_cache(run, http_target, geocoding):
    """By their digits, over all devices."""
    http_target.default = its_place
    plugin = geocoding(digits=3, min_distance=0)
    results = run(asked(plugin, at(54.5001, 25.5001), at(54.5004, 25.4996), at(54.5006, 25.5)))
    results += run(asked(plugin, at(54.5, 25.5), device=OTHER))
    assert [result["address"] for result in results] == ["54.5 25.5", "54.5 25.5", "54.501 25.5", "54.5 25.5"]
    assert len(http_target.requests) == 2


def test_a_device_that_has_hardly_moved_keeps_its_address(run, http_target, geocoding):
    """Measured from where it was asked for, so that slow ones arrive as well; another device has its own."""
    http_target.default = its_place
    plugin = geocoding(digits=6, min_distance=50)
    steps = [at(54.5 + n * 20 * METER, 25.5) for n in range(6)]
    addresses = [result["address"] for result in run(asked(plugin, *steps))]
    assert addresses == ["54.5 25.5"] * 3 + ["54.50054 25.5"] * 3
    [other] = run(asked(plugin, at(54.5 + 21 * METER, 25.5), device=OTHER))
    assert other["address"] == "54.500189 25.5"


def test_where_there_is_nothing_there_is_no_address(run, http_target, geocoding):
    """At sea; and it is remembered."""
    http_target.default = says({"error": "Unable to geocode"})
    plugin = geocoding()
    assert run(asked(plugin, at(), at())) == [at(), at()]
    assert len(http_target.requests) == 1


def test_requests_come_at_the_rate_and_what_has_no_turn_in_time_passes(run, http_target, geocoding):
    """Counted; what is in the cache has its address all the same."""
    http_target.default = its_place
    before = metrics.value("plugin_messages_passed_by", type="geocoding")
    places = [at(54.5 + n, 25.5) for n in (0, 1, 2, 3, 0)]
    results = run(asked(geocoding(rate=10, wait=0.15), *places))
    assert ["address" in result for result in results] == [True, True, False, False, True]
    assert len(http_target.requests) == 2
    assert metrics.value("plugin_messages_passed_by", type="geocoding") == before + 2


def test_many_devices_wait_no_longer_than_allowed(run, http_target, geocoding):
    """The bound holds for all that share the plugin, not for each."""
    http_target.default = its_place
    plugin = geocoding(rate=10, wait=0.25)

    async def scenario() -> list:
        devices = [evolve(DEVICE, id=n) for n in range(1, 31)]
        async with asyncio.timeout(5):
            return await asyncio.gather(*(asked(plugin, at(54 + d.id / 100, 25.5), device=d) for d in devices))

    with_address = [result for [result] in run(scenario()) if "address" in result]
    assert len(with_address) == len(http_target.requests) == 3


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        (Answer(500, b"oops"), RemoteRefused, "HTTP 500: oops"),
        (Answer(404), RemoteRefused, "HTTP 404"),
        (Answer(429, b"slow down"), RemoteRefused, "HTTP 429: slow down"),
        (Answer(301, b"", {"Location": "/x"}), RemoteRefused, "HTTP 301"),
        (Answer(200, b"<html>"), RemoteRefused, "an object with address should be answered: <html>"),
        (Answer(200, b'{"display_name": "\xff"}'), RemoteRefused, "an object with address"),
        (says([]), RemoteRefused, "an object with address"),
        (says({"display_name": "x"}), RemoteRefused, "an object with address"),
        (Answer(200, b" " * 70_000), RemoteRefused, "more than 65536 bytes"),
        (CLOSE, RemoteUnavailable, "127.0.0.1"),
        (NEVER, RemoteUnavailable, "did not answer"),
    ],
)
def test_any_other_answer_is_an_error_and_asked_no_more_for_a_while(run, http_target, geocoding, answer, error, reason):
    """The server may have enough to do."""
    http_target.next(answer)
    plugin = geocoding(timeout=0.5)
    with pytest.raises(error, match=reason):
        run(asked(plugin, at()))
    with pytest.raises(RemoteUnavailable, match="not asked again"):
        run(asked(plugin, at()))
    assert len(http_target.requests) == 1


def test_what_was_found_before_an_error_stays(run, http_target, geocoding):
    """The others of the batch pass without."""
    http_target.next(says(SAID), Answer(500))
    results = run(asked(geocoding(), at(54.5, 25.5), at(55.5, 25.5), at(56.5, 25.5)))
    assert ["address" in result for result in results] == [True, False, False]


def test_strange_parts_of_an_address_are_left_out(run, http_target, geocoding):
    """Numbers, objects, empty texts; long ones are cut."""
    parts = {"city": 5, "town": "", "village": "x" * 5000, "road": {"a": 1}, "country_code": None}
    http_target.default = says({"display_name": ["no"], "address": parts})
    [result] = run(asked(geocoding(), at()))
    assert result == at() | {"address.city": "x" * 1024}


def test_nobody_listens(run, http_target, geocoding):
    run(http_target.stop())
    with pytest.raises(RemoteUnavailable):
        run(asked(geocoding(), at()))


def test_the_server_is_known_by_the_own_authority(run, make_http_target, geocoding, tmp_path):
    """And is not trusted without it."""
    authority = Authority("ours")
    target = make_http_target(authority.sign("server"))
    target.default = says(SAID)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    assert run(asked(geocoding(uri=target.url, ca_file=str(tmp_path / "ca.pem")), at())) == [at() | ADDRESS]
    with pytest.raises(RemoteError, match="certificate"):
        run(asked(geocoding(uri=target.url), at()))


def test_a_device_that_waits_does_not_hold_up_another(run, http_target, geocoding):
    plugin = geocoding(timeout=20)
    http_target.default = lambda request: NEVER if "lat=54.5&" in request.query else says(SAID)

    async def scenario() -> None:
        waiting = asyncio.ensure_future(asked(plugin, at(54.5, 25.5)))
        await http_target.until(1)
        [result] = await asked(plugin, at(), device=OTHER)
        assert result["address.city"] == "Vilnius"
        assert not waiting.done()
        waiting.cancel()

    run(scenario())


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"rate": 2}, "rate"),
        ({"rate": 0}, "rate"),
        ({"uri": "http://Nominatim.openstreetmap.org:80/x", "rate": 2}, "rate"),
        ({"uri": "http://host/?key=1"}, "uri"),
        ({"uri": "host.example.com"}, "uri"),
        ({"user_agent": "ä"}, "user_agent"),
        ({"uri": "http://host/", "headers": {"a": "\n"}}, "headers"),
    ],
)
def test_what_is_wrong_with_a_configuration_is_said_before(config, field):
    """Among it what the policy of the public server forbids."""
    with pytest.raises(ItemError) as raised:
        made("geocoding", **{"uri": "https://nominatim.openstreetmap.org", **config})
    assert raised.value.field == f"configuration.{field}"
