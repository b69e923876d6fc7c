"""The admin command against a running gateway: every command, as a person and as a program would use it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.admin.__main__ import main
from integration.processes import Gateway, Process, free_port, until
from integration.trackers import Connection, Packets, imei, send_packet

Run = Callable[..., Any]
ADMIN = [sys.executable, "-m", "gateway.admin"]
VAN, CAR = imei(1), imei(2)


class Shell:
    """Runs the command; ``errors`` is what the last one wrote to standard error."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.errors = ""

    def __call__(self, *arguments: str, status: int = 0) -> str:
        """Its output."""
        self._capsys.readouterr()
        found = main(arguments)
        captured = self._capsys.readouterr()
        self.errors = captured.err
        assert found == status, captured.err
        assert "Traceback" not in captured.err
        return captured.out

    def json(self, *arguments: str) -> Any:
        """Its one document."""
        return json.loads(self("--json", *arguments))

    def lines(self, *arguments: str) -> list[Any]:
        """Its JSON lines."""
        return [json.loads(line) for line in self("--json", *arguments).splitlines()]


@pytest.fixture
def admin(gateway: Gateway, capsys, monkeypatch) -> Shell:
    """The command for the module's gateway, which knows address and token from the environment."""
    monkeypatch.setenv("GATEWAY_URL", gateway.api_url)
    monkeypatch.setenv("GATEWAY_TOKEN", gateway.token)
    return Shell(capsys)


@pytest.fixture
def van(admin: Shell, gateway: Gateway, run: Run) -> Iterator[str]:
    """A device that has sent two packets of two records; its id."""
    created = admin.json("devices", "create", "name=Van", f"ident={VAN}", "type=FMC130", "messages_ttl=3650d")
    packets = Packets(VAN)
    for _ in range(2):
        run(send_packet(gateway.port, packets))
    run(until(lambda: len(admin.lines("messages", "device", "Van")) == 4, "the messages are registered"))
    yield str(created[0]["id"])
    admin("devices", "delete", VAN, "--yes")


def test_status_is_readable_and_can_be_read(admin: Shell, van: str) -> None:
    """Health, and the figures that matter."""
    shown = admin("status")
    assert shown.startswith("ok, version ")
    assert "connections" in shown
    status = admin.json("status")
    assert (status["status"], status["reasons"], status["devices"], status["channels"]) == ("ok", [], 1, 1)
    assert status["packets_total"] >= 2
    assert status["records_total"] >= 4
    assert status["ack_p99"] > 0
    assert status["commit_p99"] > 0
    assert {reader["reader"] for reader in status["readers"]} == {"registrar", "mqtt", "telemetry"}


def test_status_needs_no_token(admin: Shell, monkeypatch, tmp_path) -> None:
    """It is asked when something is wrong."""
    monkeypatch.delenv("GATEWAY_TOKEN")
    monkeypatch.chdir(tmp_path)
    assert admin("status").startswith("ok")
    admin("devices", "list", status=1)
    assert "no token" in admin.errors


def test_devices_are_made_listed_changed_and_deleted(admin: Shell) -> None:
    """By id, by name, by ident, by mask."""
    [made] = admin.json("devices", "create", "name=Lorry", f"ident={CAR}", "type=fmc130", "messages_ttl=90d")
    assert (made["name"], made["configuration"]["ident"], made["messages_ttl"]) == ("Lorry", CAR, 7776000)
    for known_by in (str(made["id"]), "Lorry", CAR, "Lor*", f"{CAR[:-1]}?", f'configuration.ident="{CAR}"'):
        [item] = admin.json("devices", "show", known_by)
        assert (item["id"], item["device_type_name"]) == (made["id"], "fmc130")
    admin("devices", "set", "Lorry", "metadata.plate=AB-123", "metadata.seats=2")
    [changed] = admin.json("devices", "set", CAR, "name=Truck", "enabled=false", "metadata.seats=null")
    assert (changed["name"], changed["enabled"], changed["configuration"]) == ("Truck", False, made["configuration"])
    assert admin.json("devices", "list", "Truck", "--fields", "metadata.plate,metadata") == [
        {"metadata.plate": "AB-123", "metadata": {"plate": "AB-123"}}
    ]
    table = admin("devices", "list").splitlines()
    assert table[0].split()[:3] == ["id", "name", "ident"]
    assert table[1].split()[:5] == [str(made["id"]), "Truck", CAR, "fmc130", "no"]
    assert admin.json("devices", "delete", "Truck", "--yes")[0]["id"] == made["id"]
    assert admin.json("devices", "list") == []
    assert admin("devices", "list") == ""
    assert admin.errors == "no devices\n"


def test_channels_are_made_changed_and_deleted(admin: Shell) -> None:
    """Parts of the configuration are changed without touching the others."""
    listen = f"tcp:{free_port()}:interface=127.0.0.1"
    [made] = admin.json("channels", "create", "name=second", f"listen={listen}")
    admin("channels", "set", "second", "unknown_ident=reject", "messages_ttl=1h")
    [item] = admin.json("channels", "show", str(made["id"]))
    assert item["configuration"] == {"listen": [listen], "unknown_ident": "reject"}
    assert (item["messages_ttl"], item["protocol_name"], item["connections_count"]) == (3600, "teltonika", 0)
    assert "second" in admin("channels", "list")
    admin("channels", "delete", "second", "--yes")
    assert [item["name"] for item in admin.json("channels", "list")] == ["trackers"]


def test_plugins_are_made_linked_and_deleted(admin: Shell, van: str) -> None:
    """What they work on, and with which fields; the log tells of it."""
    [made] = admin.json("plugins", "create", "name=no CAN", "type=msg-erase", 'configuration.parameters=["can.*"]')
    assert (made["type_name"], made["configuration"]["parameters"]) == ("msg-erase", ["can.*"])
    [link] = admin.json("link", "plugin", "no CAN", "device", "Van", "driver=Bob", "van.seats=2")
    assert (link["id"], link["fields"]) == (int(van), {"driver": "Bob", "van": {"seats": 2}})
    table = admin("links", "plugin", "all", "device").splitlines()
    assert table[0].split() == ["plugin", "plugin", "name", "id", "name", "fields", "since"]
    assert "Bob" in table[1]
    assert admin.json("plugins", "list")[0]["devices_count"] == 1
    admin("plugins", "set", "no CAN", "priority=5", "validate_message=din == 1", "configuration.on_error=stop")
    [shown] = admin.json("plugins", "show", str(made["id"]))
    assert (shown["priority"], shown["validate_message"]) == (5, "din == 1")
    assert shown["configuration"] == {"parameters": ["can.*"], "on_error": "stop"}
    assert "activated" in admin("logs", "plugin", "no CAN")
    assert admin.json("unlink", "plugin", "no CAN", "device", "all")[0]["id"] == int(van)
    assert admin("links", "plugin", "no CAN", "device") == ""
    assert admin.errors == "nothing is linked\n"
    admin("link", "plugin", "no CAN", "channel", "1", status=1)
    assert "plugins work on the messages of devices" in admin.errors
    admin("plugins", "delete", "no CAN", "--yes")


def test_streams_are_made_linked_and_deleted(admin: Shell, van: str) -> None:
    """How they are doing is in the list."""
    uri = f"http://127.0.0.1:{free_port()}/"
    [made] = admin.json("streams", "create", "name=out", "type=http", f"uri={uri}", "queue_ttl=2h", "enabled=false")
    assert (made["configuration"]["uri"], made["queue_ttl"], made["enabled"]) == (uri, 7200, False)
    assert admin.json("link", "stream", "out", "device", VAN)[0]["id"] == int(van)
    assert admin.json("link", "stream", "out", "channel", "all")[0]["name"] == "trackers"
    [listed] = admin.json("streams", "list")
    assert (listed["state"], listed["devices_count"], listed["channels_count"]) == ("disabled", 1, 1)
    assert "disabled" in admin("streams", "list")
    [shown] = admin.json("streams", "show", "out")
    assert shown["counters"]["delivered"] == 0
    assert "device subscribed" in admin("logs", "stream", "out")
    admin("link", "stream", "out", "device", VAN, "driver=Bob", status=1)
    assert "only plugins have fields" in admin.errors
    admin("unlink", "stream", "out", "channel", "trackers")
    assert admin.json("links", "stream", "out", "channel") == []
    admin("streams", "delete", "out", "--yes")


def test_types_of_plugins_and_streams_tell_their_options(admin: Shell) -> None:
    """What each is, its default, and what must be given."""
    assert {"msg-erase", "item-fields"} <= {one["name"] for one in admin.json("plugins", "types")}
    assert "http" in admin("streams", "types")
    table = admin("plugins", "types", "msg-erase")
    assert "Removes parameters" in admin.errors
    assert re.search(r"^parameters +array +\(needed\) +what is removed", table, re.M)
    assert re.search(r"^on_error +skip, stop +skip ", table, re.M)
    [http] = admin.json("streams", "types", "http")
    assert "uri" in http["schema"]["$defs"]["Config"]["properties"]
    admin("plugins", "types", "msg-erode", status=1)
    assert "there is no type 'msg-erode'" in admin.errors


def test_tokens_are_made_used_changed_and_deleted(admin: Shell) -> None:
    """The key is shown once; what it may not do is said."""
    acl = '{"type": 2, "acl": [{"uri": "gw/devices", "methods": ["GET"]}]}'
    [made] = admin.json("tokens", "create", "info=reader", "ttl=30d", f"access={acl}")
    assert admin.json("--token", made["key"], "devices", "list") == []
    admin("--token", made["key"], "devices", "create", "name=x", "ident=123", status=1)
    assert "action is not permitted by ACL" in admin.errors
    [shown] = admin.json("tokens", "show", "reader")
    assert "key" not in shown
    assert "ACL" in admin("tokens", "list")
    assert admin.json("tokens", "set", "reader", "access=master", "info=boss")[0]["access"] == {"type": 1}
    admin("tokens", "create", "info=text", "expire=1d")
    assert admin.errors == "keep the key: it cannot be shown again\n"
    assert len(admin.json("tokens", "delete", "all", "--yes")) == 2
    admin("--token", made["key"], "devices", "list", status=1)
    assert "the token is not known" in admin.errors


def test_what_the_gateway_refuses_is_said_with_its_field(admin: Shell, van: str) -> None:
    """Each time one sentence and status 1."""
    for arguments, complaint in (
        (["devices", "create", "name=x", f"ident={VAN}"], "has the ident"),
        (["devices", "create", "name=x"], "ident"),
        (["devices", "create", "name=x", "ident=1", "type=nonsense"], "there is no device type 'nonsense'"),
        (["devices", "create", "name=x", "ident=1", "color=red"], "color"),
        (["devices", "set", "Van", "messages_ttl=-1"], "messages_ttl"),
        (["channels", "create", "name=x", "listen=nonsense"], "listen"),
        (["devices", "list", "--fields", "id,nonsense"], "nonsense"),
        (["devices", "show", "nobody"], "no device is 'nobody'"),
        (["devices", "set", "nobody", "name=x"], "no device is 'nobody'"),
        (["devices", "delete", "no*", "--yes"], "no device is 'no*'"),
        (["telemetry", "4242"], "there is no item 4242"),
        (["messages", "device", "Van", "--filter", "position.speed >"], "column"),
    ):
        assert admin(*arguments, status=1) == ""
        assert admin.errors.startswith("error: ")
        assert complaint in admin.errors


def test_a_part_that_fails_is_said_and_the_rest_is_shown(admin: Shell, van: str) -> None:
    """With status 1, so that a script notices."""
    shown = admin("--json", "devices", "list", f"{van},4242", status=1)
    assert [item["id"] for item in json.loads(shown)] == [int(van)]
    assert "there is no item 4242" in admin.errors


def test_nothing_is_deleted_without_a_yes(admin: Shell, van: str, monkeypatch) -> None:
    """A script must say --yes, a person is asked."""
    admin("devices", "delete", "Van", status=1)
    assert f"this would delete devices {van} (Van): add --yes" in admin.errors
    for answer in ("\n", "no\n", ""):
        monkeypatch.setattr("sys.stdin", _Person(answer))
        admin("devices", "delete", "Van", status=1)
        assert "delete 1 device? [y/N]" in admin.errors
        assert "nothing was deleted" in admin.errors
    assert len(admin.json("devices", "list", "Van")) == 1


class _Person:
    """Standard input with somebody at it."""

    def __init__(self, answer: str) -> None:
        self._answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self._answer


def test_telemetry_is_a_table_of_parameters(admin: Shell, van: str) -> None:
    """By device and by name or mask of the parameter."""
    shown = admin("telemetry", "Van", "position.speed", "device.*").splitlines()
    assert shown[0].split() == ["parameter", "age", "time", "value"]
    assert [line.split()[0] for line in shown[1:]] == ["device.id", "device.name", "device.type.id", "position.speed"]
    [whole] = admin.json("telemetry", VAN)
    assert whole["id"] == int(van)
    assert whole["telemetry"]["ident"]["value"] == VAN
    assert admin("telemetry", "Van", "nothing.such") == ""
    assert "has no such telemetry" in admin.errors


def test_messages_are_the_last_ones_in_their_order(admin: Shell, van: str) -> None:
    """Of devices and channels; a range of time, a filter, chosen parameters."""
    messages = admin.lines("messages", "device", "Van")
    times = [message["timestamp"] for message in messages]
    assert times == sorted(times)
    assert len(times) == 4
    assert [message["timestamp"] for message in admin.lines("messages", "device", "Van", "--count", "2")] == times[2:]
    assert [
        message["timestamp"]
        for message in admin.lines("messages", "device", "Van", "--from", str(times[1]), "--to", str(times[2]))
    ] == times[1:3]
    backwards = admin.lines("messages", "device", "Van", "--reverse", "--count", "3")
    assert [message["timestamp"] for message in backwards] == times[:0:-1]
    assert admin.lines("messages", "device", "Van", "--filter", f"timestamp > {times[2]}")[0]["timestamp"] == times[3]
    assert (
        admin.lines("messages", "device", "Van", "--fields", "ident,device.n*")
        == [{"ident": VAN, "device.name": "Van"}] * 4
    )
    assert [message["ident"] for message in admin.lines("messages", "channel", "trackers", "--count", "3")] == [VAN] * 3
    assert len(admin.lines("messages", "channel", "trackers", "--count", "0")) >= 4


def test_messages_are_a_table_for_people(admin: Shell, van: str) -> None:
    """With what matters most, or with the parameters that were asked for, in that order."""
    head, *rows = admin("messages", "device", "Van").splitlines()
    assert head.split()[:3] == ["time", "ident", "position"]
    assert len(rows) == 4
    assert admin.errors == ""
    head, *_ = admin("messages", "device", "Van", "--fields", "timestamp,ident,position.*", "--count", "1").splitlines()
    assert head.split()[:2] == ["timestamp", "ident"]
    assert head.split()[2].startswith("position.")
    assert "there may be more" in admin.errors
    assert admin("messages", "device", "Van", "--from", "1000", "--to", "2000") == ""
    assert admin.errors == "no messages\n"


def test_connections_idents_packets_and_logs_answer_where_a_tracker_is(
    admin: Shell, van: str, gateway: Gateway, run: Run
) -> None:
    """Who is there, who was, what was sent, and what happened."""

    async def scenario() -> None:
        connection = await Connection.open(gateway.port)
        await connection.log_in(Packets(VAN).login)
        try:
            [there] = admin.json("connections")
            assert (there["ident"], there["device_id"], there["source"]) == (VAN, int(van), connection.address)
            assert VAN in admin("connections", "trackers")
        finally:
            connection.vanish()

    run(scenario())
    run(until(lambda: admin.json("connections") == [], "the connection is gone"))
    seen = {item["ident"]: item for item in admin.json("idents", "trackers")}
    assert seen[VAN]["ident"] == VAN
    assert VAN in admin("idents", "--ident", f"{VAN[:-1]}*")
    packets = admin.json("packets", "Van")
    assert Packets(VAN).login.hex() in [packet["hex"] for packet in packets]
    assert [packet["timestamp"] for packet in packets] == sorted(packet["timestamp"] for packet in packets)
    assert "connect" in admin("packets", VAN, "--channel", "trackers")
    assert "python -m gateway.decode " in admin.errors
    events = [entry["event_code"] for entry in admin.json("logs", "device", "Van")]
    assert {300, 301} <= set(events)
    assert "disconnected" in admin("logs", "device", "Van")
    assert "connection" in admin("logs", "channel", "trackers", "--count", "5")


def test_types_are_found_by_a_part_of_their_name(admin: Shell) -> None:
    """In any case."""
    names = [item["name"] for item in admin.json("types", "FMC13")]
    assert "fmc130" in names
    assert all("fmc13" in name for name in names)
    assert admin("types", "nonsense") == ""


def test_a_wrong_token_is_said(admin: Shell) -> None:
    """No traceback."""
    admin("--token", "x" * 64, "devices", "list", status=1)
    assert admin.errors == "error: the token is not known, expired or disabled\n"


def _environment(gateway: Gateway) -> dict[str, str]:
    return {**os.environ, "GATEWAY_URL": gateway.api_url, "GATEWAY_TOKEN": gateway.token}


def _program(gateway: Gateway, *arguments: str) -> Process:
    return Process(f"admin-{free_port()}", [*ADMIN, *arguments], gateway.directory, _environment(gateway))


@pytest.mark.parametrize("kind", ["channel", "device"])
def test_tail_shows_messages_as_they_come_until_interrupted(
    admin: Shell, van: str, gateway: Gateway, run: Run, kind: str
) -> None:
    """The last ones first, each new one once, and a quiet end at Ctrl-C."""
    selector = "trackers" if kind == "channel" else "Van"
    tail = _program(gateway, "tail", kind, selector, "-n", "1", "--json", "--fields", "timestamp")

    def times() -> list[float]:
        return [json.loads(line)["timestamp"] for line in tail.stdout.splitlines() if line.endswith("}")]

    async def scenario() -> None:
        before = admin.lines("messages", "device", "Van")[-1]["timestamp"]
        tail.start()
        try:
            await until(lambda: times() == [before], "the last message")
            packets = Packets(VAN)
            for _ in range(2):
                packets.make()  # those of the device until now
            expected = [before]
            for _ in range(3):
                sent = await send_packet(gateway.port, packets)
                expected += [timestamp / 1000 for timestamp in sent]
                await until(lambda: times() == expected, f"messages of {expected}")  # noqa: B023
            tail.send(signal.SIGINT)
            assert await tail.ended() == 128 + signal.SIGINT
        finally:
            tail.kill()
        assert tail.stderr == ""

    run(scenario(), timeout=60)


def test_output_that_nobody_reads_any_more_ends_it_quietly(admin: Shell, van: str, gateway: Gateway) -> None:
    """As ``| head -1`` does, for tables, details and JSON."""
    for arguments in (["types"], ["types", "--json"], ["tail", "channel", "all"], ["devices", "show", "Van"]):
        theirs, ours = os.pipe()
        os.close(theirs)
        done = subprocess.run(
            [*ADMIN, *arguments],
            env=_environment(gateway),
            stdout=ours,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
        os.close(ours)
        assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_what_the_terminal_cannot_show_is_escaped(admin: Shell, gateway: Gateway) -> None:
    """A terminal of another age, and a name of another script."""
    admin("devices", "create", "name=Фургон", f"ident={CAR}")
    environment = {**_environment(gateway), "PYTHONIOENCODING": "ascii"}
    for arguments in (["devices", "list"], ["devices", "list", "--json"], ["devices", "show", CAR]):
        done = subprocess.run(
            [*ADMIN, *arguments], env=environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "\\u0424\\u0443" in done.stdout
    admin("devices", "delete", "Фургон", "--yes")


def test_a_terminal_gets_colors_and_no_line_too_long(admin: Shell, van: str, gateway: Gateway) -> None:
    """A real terminal of 60 columns."""
    ours, theirs = pty.openpty()
    environment = {**_environment(gateway), "COLUMNS": "60", "TERM": "xterm-256color"}
    for arguments in (["devices", "list"], ["messages", "device", "Van"], ["telemetry", "Van"], ["status"]):
        subprocess.run([*ADMIN, *arguments], env=environment, stdout=theirs, timeout=30, check=True)
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 65536):
            shown += data
    except OSError:  # all is read and nobody writes any more
        pass
    os.close(ours)
    assert b"\x1b[1m" in shown
    plain = re.sub(rb"\x1b\[[\d;]*m", b"", shown).decode()
    assert VAN in plain
    assert max(map(len, plain.splitlines())) <= 60


def test_a_command_is_sent_to_a_device_or_left_for_it(admin: Shell, van: str) -> None:
    """One that is away is told of; a wrong property too."""
    admin("command", "Van", "getver", status=1)
    assert f"device with id {van} is not connected" in admin.errors
    admin("command", "Van", "getver", "param", status=1)
    assert "'param' should be like KEY=VALUE" in admin.errors
    admin("command", "Van", "getparam", "param=x", status=1)
    assert "properties validation failed" in admin.errors
    [queued] = admin.json("command", VAN, "setdigout", "states=1", "--queue")
    assert (queued["name"], queued["properties"], queued["device_id"]) == ("setdigout", {"states": "1"}, int(van))
    assert "setdigout" in admin("command", VAN, "setdigout", "states=1", "--queue")
