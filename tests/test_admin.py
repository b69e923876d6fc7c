"""The admin command without a gateway: what people write, what they are shown, what they are told."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from gateway.admin.__main__ import main
from gateway.admin.client import AdminError
from gateway.admin.output import Column, Output, column, count, flat, part, printable, seconds, size, text, when
from gateway.admin.selectors import CHANNELS, DEVICES, TOKENS, selector
from gateway.admin.values import assigned, moment
from tests.integration.processes import free_port

ALIASES = {"ident": "configuration.ident", "listen": "configuration.listen"}


# -- what people write


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-11-21T02:50", datetime(2026, 11, 21, 2, 50).timestamp()),
        ("2026-11-21 02:50:30.5", datetime(2026, 11, 21, 2, 50, 30, 500000).timestamp()),
        ("2026-11-21T02:50:00+00:00", 1795229400.0),
        ("2026-11-21T02:50:00Z", 1795229400.0),
        ("2026-11-21", datetime(2026, 11, 21).timestamp()),
        ("1795229400.25", 1795229400.25),
        ("0", 0.0),
    ],
)
def test_moments_are_taken_in_many_forms(written, meant):
    """Local time where no offset is given."""
    assert moment(written) == meant


@pytest.mark.parametrize(
    ("written", "ago"), [("45s", 45), ("30m", 1800), ("1.5h", 5400), ("2d", 172800), ("1w", 604800)]
)
def test_a_duration_is_so_long_ago(written, ago):
    """As ``--from`` wants it."""
    assert moment(written) == pytest.approx(time.time() - ago, abs=5)


@pytest.mark.parametrize("written", ["2:50", "02:50", "02:50:10"])
def test_a_time_of_day_is_of_today(written):
    """An hour of one digit is enough."""
    assert datetime.fromtimestamp(moment(written)).strftime("%Y-%m-%d %H:%M") == f"{datetime.now():%Y-%m-%d} 02:50"


@pytest.mark.parametrize("written", ["", "yesterday", "25:61", "2026-13-01", "-5", "1e9", "99999-01-01", "٣h"])
def test_what_is_no_moment_is_refused_with_an_example(written):
    """Also digits of other scripts, which Python would take."""
    with pytest.raises(ValueError, match="should be like"):
        moment(written)


def test_values_are_json_where_they_can_be():
    """Numbers, booleans and objects as the API wants them; the rest is text."""
    assert assigned(["enabled=false", "messages_ttl=60", 'metadata={"a": [1]}', "note=hello, world"], {}) == {
        "enabled": False,
        "messages_ttl": 60,
        "metadata": {"a": [1]},
        "note": "hello, world",
    }


def test_dots_lead_into_objects_and_aliases_are_replaced():
    """Several parts of one object come together."""
    made = assigned(["ident=352093081452251", "configuration.phone=+370", "metadata.plate=AB=12"], ALIASES)
    assert made == {"configuration": {"ident": "352093081452251", "phone": "+370"}, "metadata": {"plate": "AB=12"}}


def test_names_and_idents_are_texts_whatever_they_look_like():
    """15 digits are no number."""
    assert assigned(["name=42", "ident=007", "info=true"], ALIASES) == {
        "name": "42",
        "configuration": {"ident": "007"},
        "info": "true",
    }


def test_lists_are_written_with_commas():
    """An endpoint has colons and equal signs of its own."""
    made = assigned(["listen=tcp:5028:interface=127.0.0.1, udp:5028"], ALIASES)
    assert made == {"configuration": {"listen": ["tcp:5028:interface=127.0.0.1", "udp:5028"]}}


def test_durations_and_moments_are_numbers():
    """A ttl is a number of seconds; what expires does so in the future."""
    made = assigned(["messages_ttl=90d", "ttl=1.5h", "expire=2027-01-01"], {})
    assert made == {"messages_ttl": 7776000, "ttl": 5400, "expire": int(datetime(2027, 1, 1).timestamp())}
    assert assigned(["expire=30d"], {})["expire"] == pytest.approx(time.time() + 30 * 86400, abs=5)
    assert assigned(["expire=0"], {}) == {"expire": 0}


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        (["name"], "'name' should be like FIELD=VALUE"),
        (["=x"], "'=x' should be like FIELD=VALUE"),
        (["metadata=1", "metadata.a=2"], "metadata was given a value of its own before"),
        (["expire=soon"], "expire: 'soon' should be like"),
        ([], "nothing to do"),
    ],
)
def test_what_is_no_assignment_is_refused(written, complaint):
    """With the argument in the message."""
    with pytest.raises(AdminError, match=complaint):
        assigned(written, {})


@pytest.mark.parametrize(
    "written",
    ["all", "5", "1,2,3", "1, 2", "name=car*", 'configuration.ident="35*"', "{enabled && messages_ttl < 5}"],
)
def test_selectors_of_the_api_stay_as_they_are(written):
    """So everything that the API can select can be selected."""
    assert selector(DEVICES, written) == written


def test_names_and_idents_become_selectors():
    """A long number is an ident; masks are possible; quotes in a name do no harm."""
    assert selector(CHANNELS, "trackers") == '{name == "trackers"}'
    assert selector(TOKENS, "42nd") == '{info == "42nd"}'
    assert selector(DEVICES, "352093081452251") == (
        '{name == "352093081452251" || configuration.ident == "352093081452251"}'
    )
    assert selector(DEVICES, "35209*") == '{name ~ "35209*" || configuration.ident ~ "35209*"}'
    assert selector(CHANNELS, 'a "b", {c}') == '{name == "a \\"b\\", {c}"}'


# -- what people are shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        (1.5, "1.5"),
        ("x", "x"),
        ({"a": 1}, '{"a":1}'),
        ([1, "b", 3, 4, 5, 6], "1, b, 3, 4, +2"),
    ],
)
def test_values_in_cells(value, shown):
    """Short, and without quotes."""
    assert text(value) == shown


def test_durations_sizes_and_counts_are_readable():
    """Two units at most."""
    assert [seconds(value) for value in (0, 59.9, 60, 3599, 3600, 5400, 86400, 90000, 31536000)] == [
        "0s", "59s", "1m", "59m", "1h", "1h 30m", "1d", "1d 1h", "365d",
    ]  # fmt: skip
    assert [size(value) for value in (0, 999, 1500, 123456, 10**9)] == ["0 B", "999 B", "1.5 kB", "123 kB", "1.0 GB"]
    assert count(1234567) == "1 234 567"
    assert [show(None) for show in (seconds, size, count, when)] == ["", "", "", ""]


def test_a_moment_that_cannot_be_is_shown_as_it_is():
    """A tracker with a wrong clock must not break the table."""
    assert when(1e300) == "1e+300"
    assert when(float("nan")) == "NaN"
    assert when("x") == "x"
    assert when(1795229400.5).endswith(".500")


def test_control_characters_are_shown_and_not_obeyed():
    """A name, or what a tracker sends, could clear the screen or change its title."""
    assert printable("Ünïcode 車") == "Ünïcode 車"
    assert printable("\x1b[2J\r\n\u202e") == "\\x1b[2J\\x0d\\x0a\\x202e"


def test_parts_of_objects_are_found_nested_and_dotted():
    """The API gives ``fields=configuration.ident`` under the dotted name."""
    assert part({"configuration": {"ident": "1"}}, "configuration.ident") == "1"
    assert part({"configuration.ident": "2"}, "configuration.ident") == "2"
    assert part({"configuration": None}, "configuration.ident") is None


def test_details_take_objects_apart_and_explain_times():
    """One line for each value."""
    item = {"a": {"b": {"c": [1]}, "d": {}}, "created": 1795229400}
    assert dict(flat(item)) == {"a.b.c": "[1]", "a.d": "{}", "created": f"1795229400  ({when(1795229400)})"}


COLUMNS = (column("name"), column("middle", drop=2), column("last", drop=1), column("long", shrink=8))
ITEM = {"name": "n" * 10, "middle": "m" * 10, "last": "l" * 10, "long": "x" * 50}


def _table(capsys, monkeypatch, width: int, items=(ITEM,), columns=COLUMNS) -> list[str]:
    """As a terminal of this width shows it."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "vt100")
    Output().items(list(items), columns, "nothing")
    lines = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= width
    return [line.rstrip() for line in lines]


def test_a_wide_terminal_shows_everything(capsys, monkeypatch):
    """With two spaces between columns."""
    head, row = _table(capsys, monkeypatch, 120)
    assert head.split() == ["name", "middle", "last", "long"]
    assert row == "  ".join(ITEM.values())


def test_a_narrower_one_first_cuts_what_can_be_cut(capsys, monkeypatch):
    """And says so with an ellipsis."""
    _, row = _table(capsys, monkeypatch, 60)
    assert row == f"{'n' * 10}  {'m' * 10}  {'l' * 10}  {'x' * 23}…"


def test_then_the_least_important_columns_go(capsys, monkeypatch):
    """One after the other; those that are never dropped stay."""
    assert _table(capsys, monkeypatch, 40)[0].split() == ["name", "last", "long"]
    assert _table(capsys, monkeypatch, 24)[0].split() == ["name", "long"]


@pytest.mark.parametrize(("width", "columns"), [(60, 4), (16, 1)])
def test_what_must_be_read_stands_below_the_table_if_it_was_cut(capsys, monkeypatch, width: int, columns: int):
    """Once, however many rows have it, and folded as the terminal wants it."""
    reason = Column("long", lambda item: item["long"], drop=3, shrink=8, is_told=True)
    head, _, _, *told = _table(capsys, monkeypatch, width, [ITEM, ITEM], (*COLUMNS[:3], reason))
    assert len(head.split()) == columns
    assert "".join(told).replace(" ", "") == f"{ITEM['name']}:{ITEM['long']}"


def test_what_is_told_at_length_goes_on_in_the_next_line(capsys, monkeypatch):
    """Nothing of it is cut."""
    meaning = column("long", shrink=8, is_folded=True)
    _, *lines = _table(capsys, monkeypatch, 60, columns=(*COLUMNS[:3], meaning))
    assert len(lines) == 3
    assert "".join(line[36:] for line in lines) == ITEM["long"]


def test_columns_without_anything_in_them_are_left_out(capsys, monkeypatch):
    """Unless they are what the table is about."""
    head, *_ = _table(capsys, monkeypatch, 120, [{"long": "x"}])
    assert head.split() == ["name", "long"]


def test_into_a_pipe_a_table_goes_whole(capsys):
    """No colors, no ellipsis, no spaces at the ends of lines; numbers stand at the right."""
    columns = (*COLUMNS, Column("n", lambda item: "7", is_number=True), column("empty"))
    Output().items([ITEM, {**ITEM, "long": "é" * 300}], columns, "nothing")
    out = capsys.readouterr().out
    assert "é" * 300 in out
    assert "\x1b" not in out
    assert all(line == line.rstrip() for line in out.splitlines())


def test_json_is_one_document_and_nothing_else(capsys):
    """Also where there is nothing."""
    output = Output(is_json=True)
    output.items([ITEM], COLUMNS, "nothing")
    assert json.loads(capsys.readouterr().out) == [ITEM]
    output.items([], COLUMNS, "nothing")
    captured = capsys.readouterr()
    assert (json.loads(captured.out), captured.err) == ([], "")


# -- what people are told


class _Odd(BaseHTTPRequestHandler):
    """Not a gateway."""

    bodies = {"/health": b"<html>\x1b[31mhello</html>", "/gw/devices/all": b'{"result": 5, "errors": 7}'}

    def do_GET(self) -> None:
        body = self.bodies.get(self.path.partition("?")[0], b"[]")
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def odd_server() -> Iterator[str]:
    """The URL of something that answers, but is no gateway."""
    server = HTTPServer(("127.0.0.1", 0), _Odd)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _no_token(monkeypatch, tmp_path) -> None:
    """Neither in the environment nor in var/token."""
    monkeypatch.delenv("GATEWAY_TOKEN", raising=False)
    monkeypatch.delenv("GATEWAY_URL", raising=False)
    monkeypatch.chdir(tmp_path)


def _complaint(capsys, *arguments: str) -> str:
    """What is written to standard error; the command fails with status 1 and has no other output."""
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert "Traceback" not in captured.err
    return captured.err


def test_nobody_at_the_address(capsys):
    """The address is named."""
    url = f"http://127.0.0.1:{free_port()}"
    assert f"cannot reach the gateway at {url}: " in _complaint(capsys, "--url", url, "status")
    assert f"cannot reach the gateway at {url}: " in _complaint(capsys, "--url", url, "--token", "x", "devices", "list")


def test_somebody_else_at_the_address(capsys, odd_server):
    """Whatever it answers, and without its colors."""
    assert "it is no gateway" in _complaint(capsys, "--url", odd_server, "status")
    for command in (["devices", "list"], ["channels", "list"], ["telemetry", "1"], ["tail", "device", "1"]):
        assert "it is no gateway" in _complaint(capsys, "--url", odd_server, "--token", "x", *command)


@pytest.mark.parametrize("url", ["foo", "ftp://host", "http://", "http://[::1", "http://127.0.0.1:99999", "http://a b"])
def test_an_address_that_cannot_be(capsys, url):
    """Told before anything is sent."""
    assert url[:6] in _complaint(capsys, "--url", url, "--token", "x", "devices", "list")


def test_no_token_at_all(capsys):
    """With the ways to give one."""
    assert "GATEWAY_TOKEN" in _complaint(capsys, "devices", "list")


@pytest.mark.parametrize("token", ["a b", "", "tökén", "x\ny"])
def test_what_cannot_be_a_token(capsys, token):
    """Before it breaks a header."""
    assert "no token" in _complaint(capsys, "--token", token, "devices", "list")


def test_a_token_file_that_is_not_there_or_is_no_text(capsys, tmp_path):
    """The file is named."""
    missing = tmp_path / "nothing"
    assert f"--token-file: {missing}: No such file" in _complaint(capsys, "--token-file", str(missing), "types")
    binary = tmp_path / "binary"
    binary.write_bytes(bytes(range(256)))
    assert f"{binary} is no token" in _complaint(capsys, "--token-file", str(binary), "types")


def test_an_authority_that_is_none(capsys):
    """The file is named."""
    assert "--ca: /dev/null" in _complaint(capsys, "--ca", "/dev/null", "status")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["devices"],
        ["devices", "set", "1"],
        ["messages", "stream", "1"],
        ["messages", "device", "1", "--count", "-1"],
        ["messages", "device", "1", "--count", "x"],
        ["messages", "device", "1", "--from", "yesterday"],
    ],
)
def test_wrong_arguments_are_explained(capsys, arguments):
    """As programs do: usage, status 2."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m gateway.admin" in capsys.readouterr().err


def test_common_options_stand_before_or_behind_the_command(capsys, tmp_path):
    """Those behind win; those before are not forgotten."""
    file = Path("token")
    file.write_text("x\n")
    url = f"http://127.0.0.1:{free_port()}"
    for arguments in (
        ["--url", url, "--token-file", "token", "devices", "list"],
        ["devices", "list", "--url", url, "--token-file", "token"],
        ["--url", "http://wrong", "--token", "y", "devices", "list", "--url", url],
    ):
        assert url in _complaint(capsys, *arguments)
