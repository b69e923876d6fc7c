"""The settings: three layers, errors that say what would be right, and a commented file that tells the truth."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import attrs
import pytest

from gateway import config
from gateway.config import LISTS, SECTIONS, load
from gateway.errors import ConfigError
from gateway.settings import ChannelSection, Settings

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf" / "gateway.toml"


@pytest.fixture
def write(tmp_path: Path):
    """Writes a file of settings and loads it."""

    def write_and_load(text: str, **environ: str) -> Settings:
        path = tmp_path / "gateway.toml"
        path.write_text(text)
        return load(path, environ)

    return write_and_load


def test_defaults_stand_where_nothing_is_said(write):
    """An empty file is a whole configuration."""
    settings = write("")
    assert attrs.evolve(settings, source="") == attrs.evolve(load(None, {}), source="")
    assert settings.channels == [ChannelSection(name="teltonika", listen=["tcp:5027", "udp:5027"])]
    assert settings.channels[0].unknown_ident == "accept"
    assert settings.mqtt.topic_prefix == "flespi"
    assert settings.devices == []


def test_the_file_wins_over_defaults_and_the_environment_over_the_file(write):
    """Each variable is GATEWAY_<SECTION>_<KEY>."""
    settings = write(
        '[redis]\nurl = "redis://file"\n[mqtt]\nversion = 4\n[limits]\nlogin_time = 5',
        GATEWAY_REDIS_URL="redis://environment",
        GATEWAY_MQTT_TELEMETRY="false",
        GATEWAY_LIMITS_CONNECTIONS="7",
        GATEWAY_MQTT_TELEMETRY_INTERVAL="0.5",
        GATEWAY_CONF="not a key",
        GATEWAY_URL="of gateway.admin",
        GATEWAY_TOKEN="of gateway.admin",
        GATEWAY_SERVICE_HOST="of Kubernetes",
        HOME="/",
    )
    assert settings.redis.url == "redis://environment"
    assert settings.mqtt.version == 4
    assert settings.mqtt.telemetry is False
    assert settings.mqtt.telemetry_interval == 0.5
    assert settings.limits.login_time == 5.0
    assert settings.limits.connections == 7


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[redis]\nurll = 1", r"gateway\.toml: \[redis\] urll: no such key; did you mean url\?"),
        ("[rediss]", r"\[rediss\]: no such section; did you mean redis\?"),
        ("[redis]\nurl = 5", r"\[redis\] url: the value should be a text in quotes"),
        (
            '[redis]\nurl = "http://x"',
            r"url: the value should be \"embedded\" or an address that starts with",
        ),
        ("[mqtt]\nversion = 3", r"\[mqtt\] version: 3 should be one of 4, 5"),
        ("[mqtt]\nversion = true", r"\[mqtt\] version: True should be a whole number"),
        ('[mqtt]\ntopic_prefix = "a/b"', r"topic_prefix: 'a/b' should be one level of a topic"),
        ("[mqtt]\ntelemetry = 1", r"telemetry: 1 should be true or false"),
        ("[limits]\nconnections = 0", r"connections: 0 should be a number not below 1"),
        ('[limits]\nlogin_time = "x"', r"login_time: 'x' should be a number"),
        ("[gateway]\nworkers = 65", r"workers: 65 should be a number from 0 to 64"),
        ("redis = 5", r"redis: should be a section, \[redis\]"),
        ("[channels]\nname = 'x'", r"channels: should be written \[\[channels\]\]"),
        ('[[channels]]\nname = "x"\nlisten = "tcp:1"', r"\[\[channels\]\] number 1 listen: 'tcp:1' should be a list"),
        ('[[channels]]\nname = "x"\nlisten = ["foo:1"]', r"listen: 'foo:1' should be an endpoint such as tcp:5027"),
        ('[[channels]]\nname = "x"\nlisten = ["tcp:x"]', r"listen: 'tcp:x' should be tcp:PORT with a port"),
        (
            '[[channels]]\nname = "x"\nlisten = ["tcp:1:interfase=x"]',
            r"without interfase: the options",
        ),
        ('[auth]\ntoken = "a b"', r"\[auth\] token: the value should be printable ASCII without spaces"),
        (
            '[[channels]]\nname = "x"\nlisten = ["tcp:99999"]',
            r"'tcp:99999' should be tcp:PORT with a port",
        ),
        ('[[channels]]\nname = "x"', r"number 1 listen: missing"),
        ('[[channels]]\nlisten = ["tcp:1"]', r"number 1 name: '' should be a name"),
        ('[[devices]]\nident = "a/b"', r"\[\[devices\]\] number 1 ident: 'a/b' should be an IMEI"),
        ("[redis", r"not valid TOML"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(write, text: str, says: str):
    """File, section, key, value, and the right form: in one line."""
    with pytest.raises(ConfigError, match=says) as caught:
        write(text)
    assert "\n" not in str(caught.value).partition("not valid TOML")[0]


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        (
            "GATEWAY_MQTT_VERSON",
            "5",
            r"GATEWAY_MQTT_VERSON: \[mqtt\] has no key verson; did you mean version",
        ),
        ("GATEWAY_MQTT_VERSION", "five", r"environment: GATEWAY_MQTT_VERSION version: 'five' should be a whole number"),
        ("GATEWAY_REDDIS_URL", "x", r"GATEWAY_REDDIS_URL: no section 'reddis'; did you mean redis"),
        ("GATEWAY_MQTT_TELEMETRY", "perhaps", r"'perhaps' should be true or false"),
    ],
)
def test_a_wrong_variable_is_named_too(write, variable: str, value: str, says: str):
    """The environment is checked as the file is."""
    with pytest.raises(ConfigError, match=says):
        write("", **{variable: value})


def test_a_missing_file_is_said_so(tmp_path: Path):
    """With the way out."""
    with pytest.raises(ConfigError, match="no such file; set GATEWAY_CONF"):
        load(tmp_path / "none.toml", {})


def _uncommented(text: str) -> str:
    """The commented file with every key switched on."""
    return re.sub(r"^#(\w+ = |\[\[)", r"\1", text, flags=re.MULTILINE)


def test_the_commented_file_has_every_key_at_its_default():
    """conf/gateway.toml is the reference that people read."""
    table = tomllib.loads(_uncommented(CONF.read_text()))
    for name, kind in SECTIONS.items():
        defaults = {attribute.name: attribute.default for attribute in attrs.fields(kind)}
        assert table[name] == defaults, name
    for name, kind in LISTS.items():
        assert {key for row in table[name] for key in row} == {attribute.name for attribute in attrs.fields(kind)}, name


def test_the_commented_file_loads_as_it_is():
    """It registers unknown idents, so that a first tracker shows everything; the rest is as by default."""
    settings = load(CONF, {})
    defaults = load(None, {})
    assert settings.channels == [attrs.evolve(defaults.channels[0], unknown_ident="register")]
    assert attrs.evolve(settings, channels=[], source="") == attrs.evolve(defaults, channels=[], source="")


def test_every_key_is_documented():
    """docs/configuration.md names each key with its default and its meaning."""
    page = (ROOT / "docs" / "configuration.md").read_text()
    for name, kind in SECTIONS.items():
        for attribute in attrs.fields(kind):
            assert f"`{name}.{attribute.name}`" in page
            assert attribute.metadata["doc"] in page, f"{name}.{attribute.name}"
    assert config.Settings is Settings
