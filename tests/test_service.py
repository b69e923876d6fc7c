"""The ordered container, the log's forms, the token, and the configured channels and devices."""

from __future__ import annotations

import asyncio
import io
import logging
from pathlib import Path

import attrs
import orjson
import pytest
from twisted.logger import Logger, LogLevel, globalLogPublisher
from twisted.python.failure import Failure

from gateway import provision, stages
from gateway.errors import ConfigError, OperatorError
from gateway.log import Observer, StandardLibrary, open_log
from gateway.protocols.teltonika.device_types import UNKNOWN_TYPE, find_device_type
from gateway.settings import ChannelSection, DeviceSection, LimitsSection, Settings
from gateway.stages import Background, Stages
from gateway.store.items import Items
from gateway.tokens import KEY_LENGTH, master_token


class Reactor:
    """Counts what a stage container asks of a reactor."""

    def __init__(self) -> None:
        self.stops = 0

    def callWhenRunning(self, function) -> None:
        function()

    def stop(self) -> None:
        self.stops += 1


@attrs.define
class Part:
    """A stage that writes down what happens to it."""

    name: str
    diary: list[str]
    error: Exception | None = None

    async def start(self) -> None:
        self.diary.append(f"start {self.name}")
        if self.error is not None:
            raise self.error

    async def stop(self) -> None:
        self.diary.append(f"stop {self.name}")


@pytest.fixture(autouse=True)
def _no_signals_no_exit(monkeypatch):
    """The tests' own process keeps its signal handlers and its exit status."""
    monkeypatch.setattr(stages, "stop_on_signals", lambda reactor: None)
    monkeypatch.setattr(stages, "exit_with", lambda status: None)


@pytest.fixture
def logged():
    """What the gateway's own code logged."""
    events: list[dict] = []

    def observe(event: dict) -> None:
        if event["log_namespace"].startswith("gateway."):
            events.append(event)

    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


def _container(diary: list[str], *parts: Part, reactor: Reactor | None = None) -> Stages:
    return Stages(lambda: (parts, lambda: diary.append("ready")), reactor or Reactor())


async def _until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def test_stages_start_in_order_and_stop_in_reverse(run):
    """The store is the last to go."""
    diary: list[str] = []

    async def scenario() -> None:
        container = _container(diary, Part("a", diary), Part("b", diary))
        container.startService()
        await _until(lambda: "ready" in diary)
        await container.stopService().asFuture(asyncio.get_running_loop())

    run(scenario())
    assert diary == ["start a", "start b", "ready", "stop b", "stop a"]


def test_a_stage_that_cannot_start_ends_the_process_and_says_why(run, logged):
    """What was started is stopped in order; the status is 1."""
    diary: list[str] = []
    statuses: list[int] = []

    async def scenario() -> None:
        reactor = Reactor()
        parts = [Part("a", diary), Part("b", diary, OperatorError("port 5027 is taken")), Part("c", diary)]
        container = _container(diary, *parts, reactor=reactor)
        stages.exit_with = statuses.append
        container.startService()
        await _until(lambda: reactor.stops)
        await container.stopService().asFuture(asyncio.get_running_loop())

    run(scenario())
    assert diary == ["start a", "start b", "stop b", "stop a"]
    assert statuses == [1]
    critical = [event for event in logged if event["log_level"].name == "critical"]
    assert [event["reason"] for event in critical] == ["port 5027 is taken"]


def test_a_stage_that_fails_to_stop_does_not_keep_the_others(run):
    """The failure is logged."""
    diary: list[str] = []

    class Stubborn(Part):
        async def stop(self) -> None:
            raise RuntimeError("no")

    async def scenario() -> None:
        container = _container(diary, Part("a", diary), Stubborn("b", diary))
        container.startService()
        await _until(lambda: "ready" in diary)
        await container.stopService().asFuture(asyncio.get_running_loop())

    run(scenario())
    assert diary[-1] == "stop a"


def test_background_work_that_ends_by_itself_is_reported(run):
    """A dead registrar must not go unnoticed; one that may end is not reported, nor one that is cancelled."""
    failures: list[tuple[str, BaseException | None]] = []

    async def breaks() -> None:
        raise RuntimeError("bug")

    async def scenario() -> None:
        background = Background(lambda what, error: failures.append((what, error)))
        background.run("a", breaks())
        await _until(lambda: failures)
        background.run("b", asyncio.sleep(3600))
        await background.cancel()
        background.let_end()
        background.run("c", breaks())
        await asyncio.sleep(0.02)

    run(scenario())
    [(what, error)] = failures
    assert what == "a"
    assert isinstance(error, RuntimeError)


def _logged(log_format: str, level: str, emit) -> str:
    out = io.StringIO()
    emit(Logger(namespace="gateway.test", observer=Observer(out, log_format, level)))
    return out.getvalue()


def test_text_lines_have_time_level_source_and_text():
    """And a traceback below, where there is one."""
    line = _logged("text", "info", lambda log: log.info("hello {name!r}", name="x\ny"))
    assert line.endswith("Z info test: hello 'x\\ny'\n")
    assert line.count("\n") == 1
    failure = Failure(ValueError("no"))
    assert "ValueError: no" in _logged("text", "info", lambda log: log.failure("broken", failure))


def test_json_lines_have_the_events_fields():
    """One object a line, that other programs can read."""
    line = _logged("json", "info", lambda log: log.warn("seen {ident}", ident="123", other=object()))
    entry = orjson.loads(line)
    assert entry["level"] == "warn"
    assert entry["source"] == "gateway.test"
    assert entry["text"] == "seen 123"
    assert entry["fields"] == {"ident": "123"}
    failed = orjson.loads(_logged("json", "info", lambda log: log.failure("broken", Failure(ValueError("no")))))
    assert "ValueError: no" in failed["traceback"]


def test_events_below_the_level_and_chatter_are_left_out():
    """Twisted's "Starting factory" is only shown to those who debug."""
    assert _logged("text", "warn", lambda log: log.info("hello")) == ""
    out = io.StringIO()
    Logger(namespace="log_legacy", observer=Observer(out, "text", "info")).info("Starting factory")
    assert out.getvalue() == ""
    Logger(namespace="log_legacy", observer=Observer(out, "text", "debug")).info("Starting factory")
    assert "Starting factory" in out.getvalue()
    Logger(namespace="log_legacy", observer=Observer(out, "text", "info")).emit(LogLevel.error, "bad")
    assert "bad" in out.getvalue()


def test_the_log_goes_where_twistd_was_told(tmp_path: Path, monkeypatch):
    """--logfile, else twistd.log of a daemon, else standard error."""
    import sys

    monkeypatch.chdir(tmp_path)
    assert open_log(["-n", "-y", "twistd.tac"]) is sys.stderr
    assert open_log(["--not-twistd"]) is sys.stderr
    for arguments, name in ((["--logfile=x.log", "-y", "a.tac"], "x.log"), (["-y", "a.tac"], "twistd.log")):
        log = open_log(arguments)
        log.write("ü\n")
        log.flush()
        assert (tmp_path / name).read_text() == "ü\n"
        log.close()


def test_what_libraries_log_comes_into_ours():
    """paho, amqtt and redis use logging."""
    events: list[dict] = []
    globalLogPublisher.addObserver(events.append)
    StandardLibrary().emit(logging.LogRecord("some.library", logging.ERROR, "", 1, "gone %s", ("wrong",), None))
    globalLogPublisher.removeObserver(events.append)
    assert [(event["log_namespace"], event["text"], event["log_level"].name) for event in events] == [
        ("some.library", "gone wrong", "error")
    ]


def test_the_token_is_generated_once_and_readable_by_its_owner_only(tmp_path: Path):
    """64 characters, as flespi's keys."""
    token, path = master_token("", tmp_path / "var")
    assert path == tmp_path / "var" / "token"
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(token) == KEY_LENGTH
    assert token.isalnum()
    assert master_token("", tmp_path / "var") == (token, path)
    assert master_token("mine", tmp_path / "var") == ("mine", None)


def test_an_empty_or_impossible_token_file_is_said_so(tmp_path: Path):
    """With the way out."""
    (tmp_path / "token").write_text("\n")
    with pytest.raises(OperatorError, match="empty; delete it"):
        master_token("", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError, match=r"set gateway\.data_dir or auth\.token"):
        master_token("", tmp_path / "file")


@pytest.mark.parametrize("token", ["two words", "tab\t", "ünïcode", "x" * 1025, " "])
def test_a_token_that_no_client_could_send_is_refused(tmp_path: Path, token: str):
    """It would be a gateway that nobody can ask."""
    with pytest.raises(OperatorError, match=r"auth\.token: a token has up to 1024 printable ASCII characters"):
        master_token(token, tmp_path)
    (tmp_path / "token").write_text(f"a{token}a")
    with pytest.raises(OperatorError, match="token: a token has up to"):
        master_token("", tmp_path)


SECTION = ChannelSection(name="a", listen=["tcp:1"])


def test_a_configured_channel_is_created_once_and_keeps_what_the_api_changed(run, redis):
    """Only what changed in the file since it was last read is applied."""

    async def scenario() -> None:
        items = Items(redis)
        await provision.apply_channels(items, [SECTION])
        [channel] = items.channels.values()
        assert (channel.listen, channel.unknown_ident, channel.messages_ttl) == (["tcp:1"], "accept", 86400)
        await items.change_channel(1, lambda channel: attrs.evolve(channel, messages_ttl=5))
        await provision.apply_channels(items, [SECTION])
        assert items.channels[1].messages_ttl == 5
        await provision.apply_channels(items, [attrs.evolve(SECTION, listen=["tcp:2"])])
        assert items.channels[1].listen == ["tcp:2"]
        assert items.channels[1].messages_ttl == 5
        again = Items(redis)
        await again.load()
        assert again.channels == items.channels

    run(scenario())


def test_a_channel_that_the_file_no_longer_names_is_disabled_until_it_does(run, redis):
    """Its ports are free for its successor; one that the API made is left alone."""

    async def scenario() -> None:
        items = Items(redis)
        await items.create_channel(name="made by the API", protocol_id=14)
        await provision.apply_channels(items, [SECTION])
        await provision.apply_channels(items, [attrs.evolve(SECTION, name="b")])
        states = {channel.name: channel.enabled for channel in items.channels.values()}
        assert states == {"made by the API": True, "a": False, "b": True}
        await provision.apply_channels(items, [SECTION])
        states = {channel.name: channel.enabled for channel in items.channels.values()}
        assert states == {"made by the API": True, "a": True, "b": False}

    run(scenario())


def test_configured_devices_are_created_once_with_the_type_of_their_model(run, redis):
    """Without a name it is the ident's; an ident that registered itself before becomes what the file says."""

    async def scenario() -> None:
        items = Items(redis)
        await items.create_device(ident="2", name="2", protocol_id=14, device_type_id=10000)
        settings = Settings(
            devices=[DeviceSection(ident="1", type="fmb204"), DeviceSection(ident="2", name="Van", type="FMB204")]
        )
        for _ in range(2):
            await provision.apply_devices(items, settings)
        names = {device.ident: (device.name, device.device_type_id) for device in items.devices.values()}
        assert names == {"1": ("1", 303), "2": ("Van", 303)}
        assert items.device_for(14, "2").name == "Van"
        await items.change_device(1, lambda device: attrs.evolve(device, name="renamed by the API"))
        await provision.apply_devices(items, settings)
        assert items.device_for(14, "2").name == "renamed by the API"

    run(scenario())


def test_the_configured_ttl_of_device_messages_counts_where_the_api_said_nothing_else(run, redis):
    """For devices that registered themselves too."""

    async def scenario() -> None:
        items = Items(redis, device_messages_ttl=1000)
        for ident in ("1", "2"):
            await items.create_device(ident=ident, name=ident, protocol_id=14, device_type_id=10000)
        await items.change_device(2, lambda device: attrs.evolve(device, messages_ttl=7))
        await provision.apply_devices(items, Settings(limits=LimitsSection(device_messages_ttl=2000)))
        assert [device.messages_ttl for device in items.devices.values()] == [2000, 7]

    run(scenario())


def test_the_type_of_unknown_models_is_in_the_table():
    """The id that trackers get which register themselves."""
    kind = find_device_type("")
    assert kind is not None
    assert kind.id == UNKNOWN_TYPE
    assert kind.model is None


def test_a_model_that_is_none_is_named(run, redis):
    """The file, the device, the value."""

    async def scenario() -> None:
        settings = Settings(devices=[DeviceSection(ident="1", type="FMB99999")], source="gateway.toml")
        with pytest.raises(ConfigError, match=r"\[\[devices\]\] 1 type: 'FMB99999' should be a Teltonika"):
            await provision.apply_devices(Items(redis), settings)

    run(scenario())
