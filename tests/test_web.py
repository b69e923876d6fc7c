"""Requests to other systems: bounded in time and size, and what errors say and do not say."""

from __future__ import annotations

import asyncio
import gzip
import os
import zlib

import pytest

from gateway.errors import ConfigError, RemoteRefused, RemoteUnavailable
from gateway.mqtt.certificates import tls_options
from gateway.stream.tls import tls_context
from gateway.web import PEM_MOST, SHOWN_MOST, WebClient
from gateway.web import Answer as Answered
from tests.authority import Authority
from tests.targets.http import CLOSE, NEVER, Answer, HttpTarget

KiB = 1024
SECRETS = "http://user:pass-secret@127.0.0.1:{port}/path-secret?key=query-secret"


@pytest.fixture
def make_client(run):
    """Makes clients; they are closed with the test."""
    made = []

    def make(**options) -> WebClient:
        made.append(WebClient(**options))
        return made[-1]

    yield make
    for client in made:
        run(client.close())


def test_a_request_goes_out_and_its_answer_comes_back(run, http_target, make_client):
    """Body, headers, parameters and a password of the address as they were given; status, headers and body as sent."""
    http_target.next(Answer(201, b"made", {"X-Kind": "new"}))
    uri = f"http://bob:secret@127.0.0.1:{http_target.port}/a%20b"
    client = make_client(headers={"x-all": "1"})
    answer = run(client.request("POST", uri, content=b"{}", headers={"x-one": "2"}, params={"q": "ä&"}))
    assert (answer.status, answer.body, answer.headers["x-kind"]) == (201, b"made", "new")
    [asked] = http_target.requests
    assert (asked.method, asked.path, asked.query, asked.body) == ("POST", "/a%20b", "q=%C3%A4%26", b"{}")
    assert (asked.headers["x-all"], asked.headers["x-one"]) == ("1", "2")
    assert asked.headers["authorization"] == "Basic Ym9iOnNlY3JldA=="


def test_connections_are_used_again(run, http_target, make_client):
    """One after the other goes over the same connection."""
    client = make_client()
    for _ in range(3):
        run(client.request("GET", http_target.url))
    assert http_target.connections == 1


def test_redirects_are_answers_and_cookies_are_not_kept(run, http_target, make_client):
    """Nothing goes where the configuration does not say, and nothing comes back with the next request."""
    http_target.default = Answer(302, b"", {"Location": f"{http_target.url}/elsewhere", "Set-Cookie": "a=b"})
    client = make_client()
    assert run(client.request("GET", http_target.url)).status == 302
    run(client.request("GET", http_target.url))
    assert [asked.path for asked in http_target.requests] == ["/", "/"]
    assert "cookie" not in http_target.requests[1].headers


def test_proxies_of_the_environment_are_not_used(run, http_target, make_client, monkeypatch):
    """Whatever the shell says that the gateway was started from."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert run(make_client().request("GET", http_target.url)).status == 200


@pytest.mark.parametrize("answer", [NEVER, Answer(delay=20)])
def test_an_answer_has_its_time(run, http_target, make_client, answer):
    """Then the error says how long."""
    http_target.default = answer
    with pytest.raises(RemoteUnavailable, match=rf"^127.0.0.1:{http_target.port} did not answer within 0.1 s$"):
        run(make_client(timeout=0.1).request("GET", http_target.url))


def test_a_body_that_trickles_has_no_more_time_than_the_rest(run, make_client):
    """Each byte comes in time, and yet the whole does not."""

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.01)

    async def scenario() -> None:
        server = await asyncio.start_server(trickle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(RemoteUnavailable, match=r"did not answer within 0\.3 s"):
            await make_client(timeout=0.3).request("GET", f"http://127.0.0.1:{port}")
        server.close()

    run(scenario())


def test_answers_are_bounded(run, http_target, make_client):
    """As many bytes as may come, come; one more is an error that says how many may."""
    client = make_client(answer_most=KiB)
    http_target.next(Answer(body=b"x" * KiB), Answer(body=b"x" * (KiB + 1)))
    assert len(run(client.request("GET", http_target.url)).body) == KiB
    with pytest.raises(RemoteRefused, match="more than 1024 bytes") as raised:
        run(client.request("GET", http_target.url))
    assert raised.value.status == 200


@pytest.mark.parametrize(("name", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_what_is_compressed_is_bounded_as_well(run, http_target, make_client, name, compress):
    """By what it is when decompressed, and a thousandfold is not decompressed at all."""
    client = make_client(answer_most=64 * KiB)
    headers = {"Content-Encoding": name}
    http_target.next(
        Answer(body=compress(b"hello"), headers=headers), Answer(body=compress(bytes(10_000 * KiB)), headers=headers)
    )
    assert run(client.request("GET", http_target.url)).body == b"hello"
    with pytest.raises(RemoteRefused, match="more than 65536 bytes"):
        run(client.request("GET", http_target.url))


@pytest.mark.parametrize("name", ["br", "gzip"])
def test_what_cannot_be_decompressed_is_refused(run, http_target, make_client, name):
    """The error names the way."""
    http_target.default = Answer(body=b"no such thing", headers={"Content-Encoding": name})
    with pytest.raises(RemoteRefused, match=name):
        run(make_client().request("GET", http_target.url))


@pytest.mark.parametrize("answer", [CLOSE, Answer(body=b"half", is_cut=True)])
def test_a_broken_connection_is_an_error(run, http_target, make_client, answer):
    """And the next request has a new one."""
    http_target.next(answer)
    client = make_client()
    with pytest.raises(RemoteUnavailable, match=f"^127.0.0.1:{http_target.port}: "):
        run(client.request("GET", http_target.url))
    assert run(client.request("GET", http_target.url)).status == 200


def test_a_refused_connection_is_an_error(run, http_target, make_client):
    """It names the host, and says what the system says."""
    run(http_target.stop())
    with pytest.raises(RemoteUnavailable, match=f"^127.0.0.1:{http_target.port}: Connection refused$"):
        run(make_client().request("GET", http_target.url))


@pytest.mark.parametrize(
    ("uri", "headers"),
    [
        (SECRETS, {}),
        (SECRETS.replace("127.0.0.1", "no-such-host.invalid"), {}),
        (SECRETS.replace("http:", "ftp:"), {}),
        ("http://user:pass-secret/x@127.0.0.1/", {}),
        ("http://user:pass-secret@127.0.0.1:port-secret/", {}),
        ("pass-secret", {}),
        (SECRETS, {"x-token": "header-secret\n"}),
        (SECRETS, {"x-token": "header-secret-ä"}),
    ],
)
def test_errors_do_not_tell_secrets(run, http_target, make_client, uri, headers):
    """Neither the password of an address, its path and query, nor a header; whatever is wrong with them."""
    http_target.default = CLOSE
    with pytest.raises(RemoteUnavailable) as raised:
        run(make_client(headers={"x-all": "fine"}).request("GET", uri.format(port=http_target.port), headers=headers))
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_tls_is_checked_against_the_own_authority(run, make_http_target, make_client, tmp_path):
    """With its certificate the server is trusted, without it is not; the error says why."""
    authority = Authority("ours")
    target = make_http_target(authority.sign("server"))
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(authority.pem)
    assert run(make_client(ca_file=str(ca_file)).request("GET", target.url)).status == 200
    with pytest.raises(RemoteUnavailable, match="certificate verify failed"):
        run(make_client().request("GET", target.url))


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_wrong_ca_file_is_said_when_opening(run, make_client, tmp_path, content):
    """With its name and what should be in it."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"ca\.pem.*certificates"):
        run(make_client(ca_file=str(path)).open())


@pytest.mark.parametrize("kind", ["pipe", "device", "large"])
def test_a_ca_file_that_does_not_end_is_not_read(run, make_client, tmp_path, kind):
    """Nobody may ever write into a pipe, and the thread that reads it would be lost to all others."""
    path = tmp_path / "ca.pem"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(PEM_MOST + 1)
    with pytest.raises(ConfigError, match=r"ca\.pem.*not a regular file of 16777216 bytes at most"):
        run(asyncio.wait_for(make_client(ca_file=str(path)).open(), 5))
    with pytest.raises(ConfigError, match=r"ca\.pem.*not a regular file of 16777216 bytes at most"):
        tls_options("host", str(path))
    with pytest.raises(ConfigError, match=r"ca\.pem.*not a regular file of 16777216 bytes at most"):
        run(asyncio.wait_for(tls_context(cert_file=str(path)), 5))


def test_closing_waits_for_what_is_under_way(run, http_target: HttpTarget, make_client):
    """Its answer is not lost."""
    http_target.default = Answer(body=b"late", delay=0.1)

    async def scenario() -> None:
        client = make_client()
        asking = asyncio.ensure_future(client.request("GET", http_target.url))
        await http_target.until(1)
        await client.close()
        assert (await asking).body == b"late"

    run(scenario())


def test_a_status_that_looks_like_a_success_is_said_to_be_none():
    """Only 200 takes messages."""
    assert str(Answered(201, body=b"made").refusal()) == "HTTP 201, not 200: made"
    assert str(Answered(302).refusal()) == "HTTP 302, not 200"
    assert str(Answered(400).refusal()) == "HTTP 400"


def test_what_an_error_shows_is_short_and_printable():
    """Whatever the other system answered."""
    refusal = Answered(500, body=b"\x1b[31m \xff\n" + b"x" * 10_000).refusal()
    assert str(refusal).startswith("HTTP 500: \ufffd[31m \ufffd xxx")
    assert len(refusal.answer) == SHOWN_MOST
