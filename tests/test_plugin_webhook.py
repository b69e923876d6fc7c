"""The plugin type msg-webhook: what is sent, what is merged, and what is an error."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time

import msgspec
import pytest
from attrs import evolve

from gateway.errors import GatewayError, ItemError, RemoteRefused, RemoteUnavailable
from gateway.plugin import PluginError
from tests.authority import Authority
from tests.plugin_examples import BASE
from tests.plugin_run import DEVICE, asked, made, message
from tests.targets.http import CLOSE, NEVER, Answer

OTHER = evolve(DEVICE, id=8)


def says(*changes: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(changes).encode())


def test_messages_are_posted_and_the_answer_is_merged(run, http_target, make_plugin):
    """As an array, in order; null and {} leave a message as it is."""
    http_target.default = says({"driver": "Bob", "din": 5}, None, {}, {"can": {"a": [1]}})
    plugin = make_plugin("msg-webhook", uri=http_target.url)
    messages = [message(din=n) for n in range(4)]
    results = run(asked(plugin, *messages))
    assert results == [messages[0] | {"driver": "Bob", "din": 5}, *messages[1:3], messages[3] | {"can": {"a": [1]}}]
    [request] = http_target.requests
    assert (request.method, request.json()) == ("POST", messages)
    assert request.headers["content-type"] == "application/json"


def test_the_obligatory_parameters_stay_but_for_the_time(run, http_target, make_plugin):
    """Whatever is answered, a message stays that of its device."""
    http_target.default = says({**dict.fromkeys(BASE, "changed"), "timestamp": 1_700_000_000.5, "x": 1})
    [result] = run(asked(make_plugin("msg-webhook", uri=http_target.url), message()))
    assert result == BASE | {"timestamp": 1_700_000_000.5, "x": 1}


def test_the_address_and_the_headers_are_those_of_the_configuration(run, http_target, make_plugin):
    """What stands for the device cannot become another path."""
    http_target.default = says(None)
    uri = http_target.url + "/%ident%/%device.name%?id=%device.id%&raw=%20"
    plugin = make_plugin("msg-webhook", uri=uri, headers={"Authorization": "Bearer k", "Content-Type": "text/x"})
    run(asked(plugin, message()))
    [request] = http_target.requests
    assert f"{request.path}?{request.query}" == "/352093081452251/Van%201%2F2?id=7&raw=%20"
    assert (request.headers["authorization"], request.headers["content-type"]) == ("Bearer k", "text/x")
    assert "x-signature" not in request.headers


def test_only_the_chosen_fields_are_sent(run, http_target, make_plugin):
    """By name and by mask; the message keeps the others."""
    http_target.default = says({"a": 1})
    plugin = make_plugin("msg-webhook", uri=http_target.url, fields=["ident", "can.*"])
    given = message(can_speed=5, din=1)
    [result] = run(asked(plugin, given))
    assert http_target.requests[0].json() == [{"ident": BASE["ident"], "can.speed": 5}]
    assert result == given | {"a": 1}


def test_a_secret_signs_time_and_body(run, http_target, make_plugin):
    """As the documentation tells receivers to check it."""
    http_target.default = says(None)
    before = int(time.time())
    run(asked(make_plugin("msg-webhook", uri=http_target.url, secret="geheim"), message(name="ä")))
    [request] = http_target.requests
    seconds, digest = (part.partition("=")[2] for part in request.headers["x-signature"].split(","))
    assert before <= int(seconds) <= time.time()
    expected = hmac.new(b"geheim", seconds.encode() + b"." + request.body, hashlib.sha256)
    assert hmac.compare_digest(expected.hexdigest(), digest)


def test_false_drops_a_message_where_that_is_allowed(run, http_target, make_plugin):
    """Otherwise it is an error, and nothing of the answer is taken."""
    http_target.default = says(None, False)
    assert run(asked(make_plugin("msg-webhook", uri=http_target.url, drop=True), message(), message())) == [
        message(),
        None,
    ]
    with pytest.raises(PluginError, match="message 1, and the option drop is off"):
        run(asked(make_plugin("msg-webhook", uri=http_target.url), message(), message()))


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        (Answer(500, b"out of order"), RemoteRefused, "HTTP 500: out of order"),
        (Answer(404), RemoteRefused, "HTTP 404"),
        (says({}, {}, status=201), RemoteRefused, "HTTP 201"),
        (Answer(302, b"", {"Location": "/x"}), RemoteRefused, "HTTP 302"),
        (says({}), RemoteRefused, r"2 objects should be answered, not 1: \[\{\}\]"),
        (says({}, {}, {}), RemoteRefused, "2 objects should be answered, not 3"),
        (Answer(body=b'{"a": 1}'), RemoteRefused, "2 objects should be answered, in an array"),
        (Answer(body=b""), RemoteRefused, "a JSON array should be answered"),
        (Answer(body=b"thanks"), RemoteRefused, "a JSON array should be answered: thanks"),
        (Answer(body=b'[{"a":"\xff\xfe"},{}]'), RemoteRefused, "a JSON array should be answered"),
        (Answer(body=b"[" * 100_000), RemoteRefused, "a JSON array should be answered"),
        (Answer(body=b"[" + b" " * 5_000_000 + b"]"), RemoteRefused, "more than 4194304 bytes"),
        (says({}, 5), PluginError, "an object should be answered for message 1, not 5"),
        (
            Answer(body=b"[{}," + b"[" * 1000 + b"]" * 1000 + b"]"),
            PluginError,
            "an object should be answered for message 1, not an array",
        ),
        (says({}, True), PluginError, "not True"),
        (says({}, {"a/b": 1}), PluginError, "message 1 cannot be taken: a parameter's name"),
        (says({"a": "x" * 70_000}, {}), PluginError, "message 0 cannot be taken: the message has 7.* bytes"),
        (says({f"p{n}": n for n in range(1025)}, {}), PluginError, "1024 are possible"),
        (says({"a": [[[[[[[[1]]]]]]]]}, {}), PluginError, "nested deeper"),
        (says({"timestamp": "now"}, {}), PluginError, "timestamp should be a number"),
        (says({"timestamp": None}, {}), PluginError, "timestamp should be a number"),
        (CLOSE, RemoteUnavailable, "127.0.0.1"),
        (NEVER, RemoteUnavailable, r"did not answer within 0\.5 s"),
        (Answer(body=b"[{}", is_cut=True), RemoteUnavailable, "127.0.0.1"),
    ],
)
def test_any_other_answer_is_an_error_that_shows_it(run, http_target, make_plugin, answer, error, reason):
    """Status and excerpt, or which message; and the next request is asked as if nothing had been."""
    http_target.next(answer)
    plugin = make_plugin("msg-webhook", uri=http_target.url, timeout=0.5)
    with pytest.raises(error, match=reason) as raised:
        run(asked(plugin, message(), message()))
    assert len(str(raised.value)) < 600
    http_target.next(says({}, {"a": 1}))
    assert run(asked(plugin, message(), message())) == [message(), message(a=1)]


def test_a_refused_connection_is_an_error(run, http_target, make_plugin):
    """Nobody listens."""
    run(http_target.stop())
    with pytest.raises(RemoteUnavailable):
        run(asked(make_plugin("msg-webhook", uri=http_target.url), message()))


def test_the_server_is_known_by_the_own_authority(run, make_http_target, make_plugin, tmp_path):
    """And is not trusted without it."""
    authority = Authority("ours")
    target = make_http_target(authority.sign("server"))
    target.default = says({"a": 1})
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    plugin = make_plugin("msg-webhook", uri=target.url, ca_file=str(tmp_path / "ca.pem"))
    assert run(asked(plugin, message())) == [message(a=1)]
    with pytest.raises(RemoteUnavailable, match="certificate"):
        run(asked(make_plugin("msg-webhook", uri=target.url), message()))


def test_a_device_that_waits_does_not_hold_up_another(run, http_target, make_plugin):
    """Both over the same plugin."""
    plugin = make_plugin("msg-webhook", uri=http_target.url + "/%device.id%", timeout=20)
    http_target.default = lambda request: NEVER if request.path == "/7" else says({"a": 1})

    async def scenario() -> None:
        waiting = asyncio.ensure_future(asked(plugin, message()))
        await http_target.until(1)
        assert await asked(plugin, message(), device=OTHER) == [message(a=1)]
        assert not waiting.done()
        waiting.cancel()

    run(scenario())


def test_a_batch_is_as_large_as_configured(make_plugin):
    """The chain asks so many at once."""
    assert make_plugin("msg-webhook", uri="http://127.0.0.1:1", batch=7).batch_most == 7


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"uri": "ftp://host/x"}, "uri"),
        ({"uri": "http:///path"}, "uri"),
        ({"uri": "http://host:port/"}, "uri"),
        ({"uri": "http://host/a b"}, "uri"),
        ({"uri": "http://%ident%.example.com/"}, "uri"),
        ({"uri": "http://host/", "headers": {"a b": "1"}}, "headers"),
        ({"uri": "http://host/", "headers": {"Content-Length": "1"}}, "headers"),
        ({"uri": "http://host/", "headers": {"x": "secret\r\ny: 1"}}, "headers"),
    ],
)
def test_what_is_wrong_with_a_configuration_is_said_before(config, field):
    """With the field, and without the values of headers."""
    with pytest.raises(ItemError) as raised:
        made("msg-webhook", **config)
    assert raised.value.field == f"configuration.{field}"
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("config", [{}, {"uri": "http://host/", "batch": 0}, {"uri": "http://host/", "timeout": 51}])
def test_options_have_bounds(config):
    with pytest.raises(msgspec.ValidationError):
        made("msg-webhook", **config)


def test_a_missing_ca_file_is_said_when_the_plugin_is_opened(make_plugin):
    with pytest.raises(GatewayError, match="ca_file"):
        make_plugin("msg-webhook", uri="https://127.0.0.1:1", ca_file="/nowhere/ca.pem")
