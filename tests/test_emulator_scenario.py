"""Scenario files: what they say, what is wrong in them, and those that come with the package."""

from __future__ import annotations

import math
import tomllib
from importlib.resources import files
from itertools import islice
from pathlib import Path

import attrs
import pytest

from docs.emulator_tables import PAGE, with_tables
from gateway.emulator.group import Events, Faults, Group, Timing
from gateway.emulator.recorder import Record
from gateway.emulator.route_files import route_names
from gateway.emulator.scenario import Scenario, load_scenario, make_recorder, scenario_names
from gateway.errors import ConfigError
from gateway.protocols.teltonika.wire import CODEC_8, CODEC_8_EXTENDED, CODEC_16, encode_packet

CODECS = {"8": CODEC_8, "8e": CODEC_8_EXTENDED, "16": CODEC_16}
FULL = """
seed = 42
to = "[::1]:5027"
start = 2026-11-21T08:00:00Z
speed_up = inf
count = 100

[[groups]]
name = "vans"
devices = 3
imei = "352093081452200"
model = "FMC130"
codec = "8"
transport = "udp"
to = "127.0.0.1:5028"
route = "mixed"
io = ["basic", 78]
spread = 2.5

[groups.timing]
period = 5
sort = "newest"
watch = [239, 240]

[groups.faults]
cut = 0.5
segments = 3
clock_offset = -60

[groups.events]
harsh = 2

[[groups]]
name = "one"
imei = "352093081452203"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "a.toml"
    path.write_text(text)
    return path


def test_every_key_is_understood(tmp_path: Path) -> None:
    scenario = load_scenario(written(tmp_path, FULL))
    vans, one = scenario.groups
    assert (scenario.seed, scenario.to, scenario.start, scenario.count) == (42, "[::1]:5027", 1_795_248_000.0, 100)
    assert math.isinf(scenario.speed_up)
    assert vans == Group(
        name="vans",
        devices=3,
        imei="352093081452200",
        model="FMC130",
        codec="8",
        transport="udp",
        to="127.0.0.1:5028",
        route="mixed",
        io=("basic", "78"),
        spread=2.5,
        timing=Timing(period=5.0, sort="newest", watch=(239, 240)),
        faults=Faults(cut=0.5, segments=3, clock_offset=-60.0),
        events=Events(harsh=2.0),
    )
    assert one == Group(name="one", imei="352093081452203")


def test_the_example_uses_every_section() -> None:
    """The table of groups in the file and the classes have the same names."""
    row = tomllib.loads(FULL)["groups"][0]
    assert {"timing", "faults", "events"} <= set(row)
    assert set(row) == {field.name for field in attrs.fields(Group)}


def test_idents_count_up(tmp_path: Path) -> None:
    scenario = load_scenario(written(tmp_path, FULL))
    idents = [group.ident(index) for group, index in scenario.devices()]
    assert idents == ["352093081452200", "352093081452201", "352093081452202", "352093081452203"]
    assert Group(imei="000000000000001").ident(1) == "000000000000002"


def test_a_route_file_is_looked_for_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "way.csv").write_text("lat,lon\n54.7,25.2\n54.71,25.2\n")
    scenario = load_scenario(written(tmp_path, '[[groups]]\nroute = "way.csv"'))
    assert scenario.groups[0].route == str(tmp_path / "way.csv")
    record = scenario.recorder(scenario.groups[0], 0, now=0.0).next_burst().records[0]
    assert record["latitude"] == 547_000_000


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "groups: there should be [[groups]], once for each group of devices"),
        ("groups = 3", "groups: there should be [[groups]]"),
        ("[groups]\nname = 'a'", "groups: there should be [[groups]]"),
        ("sed = 1\n[[groups]]", "sed: no such key; did you mean seed?"),
        ("seed = 'x'\n[[groups]]", "seed: 'x' should be a whole number"),
        ("seed = true\n[[groups]]", "seed: True should be a whole number"),
        ("to = '5027'\n[[groups]]", "to: '5027' should be HOST:PORT"),
        ("start = '2026'\n[[groups]]", "start: '2026' should be a time such as 2026-11-21T08:00:00Z, without quotes"),
        ("speed_up = 0\n[[groups]]", "speed_up: 0.0 should be a number above 0"),
        ("speed_up = nan\n[[groups]]", "speed_up: nan should be a number"),
        ("count = 0\n[[groups]]", "count: 0 should be a number not below 1"),
        ("[[groups]]\ndevice = 3", "[[groups]] number 1 device: no such key; did you mean devices?"),
        ("[[groups]]\nname = ''", "[[groups]] number 1 name: '' should be a name that no other group has"),
        ("[[groups]]\n[[groups]]", "[[groups]] number 2 name: 'trackers' should be a name that no other group has"),
        ("[[groups]]\nimei = '12'", "imei: '12' should be an IMEI, 15 digits in quotes"),
        ("[[groups]]\nimei = 352093081452251", "imei: 352093081452251 should be a text in quotes"),
        ("[[groups]]\ncodec = '12'", "codec: '12' should be one of '8', '8e', '16'"),
        ("[[groups]]\ntransport = 'sms'", "transport: 'sms' should be one of 'tcp', 'udp', 'tls'"),
        ("[[groups]]\nmodel = 'FMB'", "number 1 model 'FMB': should be one of the families FMB, FMX6, FTX, ATX"),
        ("[[groups]]\nroute = 'twon'", "number 1 route 'twon': should be one of delivery, mixed, motorway, town"),
        ("[[groups]]\nroute = 'way.gpx'", "way.gpx': no such file"),
        ("[[groups]]\nio = ['bsic']", "number 1 io 'bsic': no such set; of FMB there are basic"),
        ("[[groups]]\nio = [1.5]", "io: [1.5] should be a text in quotes, or a list of them"),
        ("[[groups]]\ntiming = 3", "number 1 timing: should be a section, [groups.timing]"),
        ("[[groups]]\n[groups.timing]\nperoid = 3", "number 1 timing.peroid: no such key; did you mean period?"),
        ("[[groups]]\n[groups.timing]\nperiod = 0", "timing.period: 0.0 should be a number above 0"),
        ("[[groups]]\n[groups.timing]\nsort = 'new'", "timing.sort: 'new' should be one of 'newest', 'oldest'"),
        ("[[groups]]\n[groups.timing]\nrecords_per_packet = 256", "256 should be a number from 1 to 255"),
        ("[[groups]]\n[groups.timing]\nwatch = ['239']", "timing.watch: ['239'] should be a list of AVL ids"),
        ("[[groups]]\n[groups.timing]\nwatch = [9999]", "timing.watch: 9999 is no AVL id of FMB120 here; there are 1"),
        ("[[groups]]\n[groups.faults]\ncut = 2", "faults.cut: 2.0 should be a number from 0 to 1"),
        ("[[groups]]\n[groups.faults]\nsegments = 1.5", "faults.segments: 1.5 should be a whole number"),
        ("[[groups]]\n[groups.events]\nharsh = -1", "events.harsh: -1.0 should be a number not below 0"),
        (
            "[[groups]]\nname = 'a'\ndevices = 9\n[[groups]]\nname = 'b'\nimei = '352093081452259'",
            "number 2 imei: '352093081452259' should leave its 1 to no other group",
        ),
        ("[[groups", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_said_with_what_would_be_right(text: str, complaint: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load_scenario(path)
    assert str(error.value).startswith(f"{path}: ")
    assert complaint in str(error.value)


def test_a_scenario_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(ConfigError, match="no scenario of that name; there are bad-network, city-fleet, motorway"):
        load_scenario("suburbs")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_scenario(path)


# Those that come with the package


def test_there_are_three() -> None:
    assert scenario_names() == ["bad-network", "city-fleet", "motorway-trucks"]
    folder = files("gateway.emulator") / "scenarios"
    assert all((folder / f"{name}.toml").is_file() for name in scenario_names())


@pytest.mark.parametrize("name", ["bad-network", "city-fleet", "motorway-trucks"])
def test_built_in_scenarios_make_records(name: str) -> None:
    """Every device of each group records, and its codec can carry it."""
    scenario = load_scenario(name)
    for group in scenario.groups:
        for index in range(min(group.devices, 4)):
            body = encode_packet({"codec_id": CODECS[group.codec], "records": some(scenario, group, index)})
            assert body[1] >= 20


def test_the_same_file_gives_the_same_records_for_everybody() -> None:
    """With a start of its own a scenario is the same on every machine and at any time."""
    scenario = attrs.evolve(load_scenario("city-fleet"), start=1_795_248_000.0)
    again = attrs.evolve(load_scenario("city-fleet"), start=1_795_248_000.0)
    group = scenario.groups[0]
    assert some(scenario, group, 7, now=1.0) == some(again, again.groups[0], 7, now=2.0)
    assert some(scenario, group, 7) != some(attrs.evolve(scenario, seed=9), group, 7)


def test_a_device_does_not_depend_on_how_many_there_are() -> None:
    group = load_scenario("city-fleet").groups[0]
    fewer = attrs.evolve(group, devices=20)
    one, other = (make_recorder(each, 5, 1, 0.0).next_burst() for each in (group, fewer))
    assert one == other


def some(scenario: Scenario, group: Group, index: int, now: float = 1_795_248_000.0) -> list[Record]:
    recorder = scenario.recorder(group, index, now)
    bursts = iter(recorder.next_burst, None)
    return [record for burst in islice(bursts, 20) for record in burst.records]


# The documentation


def test_the_tables_of_the_documentation_are_current() -> None:
    """``python docs/emulator_tables.py`` writes them."""
    page = PAGE.read_text()
    assert page == with_tables(page)
    assert page.count("<!-- table: ") == 6


def test_the_example_of_the_documentation_can_be_loaded(tmp_path: Path) -> None:
    example = PAGE.read_text().partition("<!-- scenario -->\n```\n")[2].partition("```")[0]
    scenario = load_scenario(written(tmp_path, example))
    assert [group.name for group in scenario.groups] == ["vans", "trucks"]


@pytest.mark.parametrize("name", [*scenario_names(), *route_names()])
def test_what_is_built_in_is_documented(name: str) -> None:
    assert f"| `{name}` |" in PAGE.read_text()
