"""Settings of trackers: the table, values to commands, replies to values."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.emulator.commands import Commands
from gateway.emulator.group import Group
from gateway.protocols.teltonika import settings as table
from gateway.protocols.teltonika.avl_ids import known_models
from gateway.protocols.teltonika.command_replies import parameters_of
from gateway.protocols.teltonika.settings import (
    COMMAND_MOST,
    FIELD_COLUMNS,
    Field,
    Setting,
    SettingError,
    find_setting,
    settings_of,
)

FAMILIES = sorted({model.family for model in known_models().values()})
MODELS = {family: next(m.model for m in known_models().values() if m.family == family) for family in FAMILIES}
ALL = [setting for model in MODELS.values() for setting in settings_of(model).values()]
ROWS = list(csv.DictReader((Path(table.__file__).parent / "data" / "settings.csv").read_text().splitlines()))


def values_of(field: Field) -> st.SearchStrategy[Any]:
    """All values that a field can have."""
    if field.kind == "choice":
        return st.sampled_from(list(field.choices))
    if field.kind == "number":
        return st.integers(field.least, field.most)
    return st.text("abcXYZ019.:/_- ", max_size=field.most)


def some_values(setting: Setting) -> st.SearchStrategy[dict[str, Any]]:
    every = st.fixed_dictionaries({}, optional={name: values_of(field) for name, field in setting.fields.items()})
    return every.filter(bool)


any_setting = st.sampled_from(ALL).flatmap(lambda setting: st.tuples(st.just(setting), some_values(setting)))


def test_the_table_names_only_families_that_there_are() -> None:
    """A column with another name would be a setting for nobody."""
    families = set(ROWS[0]) - set(FIELD_COLUMNS)
    assert families <= set(FAMILIES)
    assert {family for row in ROWS for family in row["memory"].split()} <= families


def test_what_is_remembered_is_marked_where_there_is_a_number() -> None:
    for row in ROWS:
        assert all(row[family] for family in row["memory"].split()), row


@pytest.mark.parametrize("family", FAMILIES)
def test_a_parameter_belongs_to_one_field(family: str) -> None:
    """And a family without any has no settings."""
    numbers = [field.parameter for setting in settings_of(MODELS[family]).values() for field in setting.fields.values()]
    assert len(numbers) == len(set(numbers))
    assert bool(numbers) is (family != "ATX")


def test_what_documents_say_of_the_parameters_is_what_the_table_has() -> None:
    """The numbers that the vendor prints for FMB, FM36 and FM63XY, and which of them are not remembered only."""
    fmb, fm36, fm63 = settings_of("FMB120"), settings_of("FM3612"), settings_of("FM6300")
    assert [fmb["server"].fields[name].parameter for name in ("domain", "port", "protocol")] == [2004, 2005, 2006]
    assert [field.parameter for field in fmb["link"].fields.values()] == [1000, 1001, 1003]
    assert [field.parameter for field in fm36["link"].fields.values()] == [1011, 1012]
    assert [field.parameter for field in fm63["link"].fields.values()] == [109]
    assert fm36["records"].fields["sorting"].parameter == 1010
    assert not any(field.from_memory for setting in fmb.values() for field in setting.fields.values())
    assert fm36["server"].fields["port"].from_memory


@pytest.mark.parametrize(
    ("model", "name", "values", "texts"),
    [
        ("FMB120", "server", {"domain": "gw.example.com", "port": 5027}, ["setparam 2004:gw.example.com;2005:5027"]),
        ("FMB120", "server", {"protocol": "udp"}, ["setparam 2006:1"]),
        ("FMB120", "apn", {"name": ""}, ["setparam 2001:"]),
        ("FM3612", "server", {"domain": "gw.example.com", "port": 5027},
         ["setparam 1245 gw.example.com", "setparam 1246 5027"]),
        (None, "tracking_home_moving", {"min_period": 60, "min_angle": 15}, ["setparam 10050:60;10052:15"]),
        (None, "tracking_unknown_stop", {"send_period": 0}, ["setparam 10205:0"]),
    ],
)  # fmt: skip
def test_a_setting_is_set_by_setparam(model: str | None, name: str, values: dict[str, Any], texts: list[str]) -> None:
    assert find_setting(name, model).set_texts(values) == texts


def test_all_fields_are_asked_for_at_once_where_that_is_possible() -> None:
    assert find_setting("server", "FMB120").get_texts() == ["getparam 2004;2005;2006;2020"]
    assert find_setting("link", "FM3612").get_texts() == ["getparam 1011", "getparam 1012"]


def test_a_command_that_would_be_too_long_is_split() -> None:
    """Between parameters, nothing gets lost."""
    fields = {f"f{n}": Field(f"f{n}", "text", n, "", 0, 60) for n in range(1000, 1006)}
    setting = Setting("long", "FMB", fields)
    values = dict.fromkeys(fields, "x" * 60)
    texts = setting.set_texts(values)
    assert [len(text) <= COMMAND_MOST for text in texts] == [True] * 3
    read = {
        key: value for text in texts for key, value in (parameters_of(text.removeprefix("setparam ")) or {}).items()
    }
    assert setting.is_confirmed(values, read)


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("server", {}, "setting server should be an object with some of domain, port, protocol, encryption"),
        ("server", None, "should be an object"),
        ("server", ["domain"], "should be an object"),
        ("server", {"host": "x"}, "has no field host; it has domain, port"),
        ("server", {"port": 65536}, "port should be a whole number from 0 to 65535, not '65536'"),
        ("server", {"port": "5027"}, "whole number"),
        ("server", {"port": True}, "whole number"),
        ("server", {"port": 5027.5}, "whole number"),
        ("server", {"domain": "x" * 56}, "domain should be text of at most 55 characters"),
        ("server", {"domain": "a;2005:1"}, "without semicolons"),
        ("server", {"domain": "a\n"}, "text of at most"),
        ("server", {"protocol": "http"}, "protocol should be one of tcp, udp, mqtt, not 'http'"),
        ("server", {"protocol": ["tcp"]}, "one of tcp"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_what_would_be_right(name: str, values: Any, reason: str) -> None:
    with pytest.raises(SettingError) as caught:
        find_setting(name, "FMB120").set_texts(values)
    assert reason in str(caught.value)


@pytest.mark.parametrize(("name", "model"), [("engine", "FMB120"), ("server", "ATC700"), ("", None)])
def test_a_setting_that_a_model_does_not_have_is_refused(name: str, model: str | None) -> None:
    with pytest.raises(SettingError, match=f"setting {name} is not found; devices of this type have"):
        find_setting(name, model)


@given(any_setting)
def test_every_value_reaches_a_virtual_tracker_and_is_read_from_it(of: tuple[Setting, dict[str, Any]]) -> None:
    """Its answers to setparam confirm, its answers to getparam tell the same values."""
    setting, values = of
    tracker = Commands("352093081452251", Group(model="FMC130"), lambda: None)
    replies: dict[str, str] = {}
    for text in setting.set_texts(values):
        replies |= parameters_of(tracker.obey(_as_new(text))) or {}
    squeezed = {name: " ".join(v.split()) if isinstance(v, str) else v for name, v in values.items()}
    assert setting.is_confirmed(squeezed, replies)
    told: dict[str, str] = {}
    for text in setting.get_texts():
        told |= parameters_of(tracker.obey(text)) or {}
    assert {name: setting.decode(told)[name] for name in values} == squeezed


def _as_new(text: str) -> str:
    """The emulator is of the FMB family."""
    name, _, rest = text.partition(" ")
    number, _, value = rest.partition(" ")
    return f"{name} {number}:{value}" if ":" not in number else text


@given(any_setting)
def test_every_value_follows_the_schema(of: tuple[Setting, dict[str, Any]]) -> None:
    setting, values = of
    jsonschema_rs.validate(setting.schema, values)


@pytest.mark.parametrize(
    ("replies", "is_confirmed"),
    [({"2005": "5027"}, True), ({"2005": "5028"}, False), ({"2004": "x"}, False), ({}, False)],
)
def test_only_the_value_itself_confirms(replies: dict[str, str], is_confirmed: bool) -> None:
    assert find_setting("server", None).is_confirmed({"port": 5027}, replies) is is_confirmed


@given(st.sampled_from(ALL), st.text(max_size=30))
def test_whatever_a_device_has_can_be_shown(setting: Setting, text: str) -> None:
    """A value of another form stays text."""
    parameters = {str(field.parameter): text for field in setting.fields.values()}
    shown = setting.decode(parameters)
    assert shown.keys() == setting.fields.keys()
    assert all(type(value) in (str, int) for value in shown.values())
