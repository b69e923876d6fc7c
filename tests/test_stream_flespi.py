"""Streams to flespi's HTTP channel, and to another gateway over REST.

flespi cannot be run here: a real HTTP server answers as its page on protocol ``http`` says. The other gateway is a real
one, with processes of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal

import httpx
import pytest
from redis import Redis as Client

from gateway.errors import ItemError, RemoteRefused
from gateway.store.event_codes import EventCode
from gateway.store.keys import ShardKeys
from gateway.stream.lanes import side_by_side
from gateway.stream.target import Conversion, Outgoing, StreamInfo
from gateway.streams.flespi import Flespi
from tests.conftest import LOOP
from tests.integration.processes import Gateway, freeze
from tests.stream_conformance import Kit, StreamConformance
from tests.targets.http import Answer
from tests.test_stream_http import HttpKit

IDENTS = ("0", "1", "2", "3")


class ChannelKit(HttpKit):
    protocol = "flespi"


class TestFlespiChannel(StreamConformance):
    @pytest.fixture
    def kit(self):
        return ChannelKit()

    def test_ident_and_timestamp_are_sent_whatever_is_chosen(self, run, kit, carrier):
        """flespi takes no message without an ident, and one without a timestamp as of now."""

        async def check() -> None:
            configuration = {**kit.configuration(), "convert_message": {"fields": ["n"], "dots": "underscore"}}
            await carrier.stream("flespi", configuration)
            await carrier.receive({"n": 0})
            (message,) = await self.arrived(kit, carrier, 1)
            assert set(message) == {"n", "ident", "timestamp"}
            assert "authorization" not in kit.target.requests[0].headers

        run(check())


@pytest.fixture(scope="module")
def other_gateway(tmp_path_factory):
    """One for all tests; each has devices of its own."""
    gateway = Gateway(tmp_path_factory.mktemp("other"))
    try:
        LOOP.run_until_complete(gateway.ready())
        yield gateway
    finally:
        gateway.kill()


class RestKit(Kit):
    """A gateway with a device for each ident, and a token that can be taken away. What has come is what it has in its
    device log, in order: messages of the same second would be one in its API."""

    protocol = "flespi"

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.key = ""
        self.token_id = 0
        self.begin = "-"

    async def start(self):
        await self.ask("DELETE", "gw/devices/all")
        await self.ask("POST", "gw/devices", [{"configuration": {"ident": ident}} for ident in IDENTS])
        acl = [{"uri": "gw/devices", "methods": ["POST"], "submodules": [{"name": "messages", "methods": ["POST"]}]}]
        (token,) = await self.ask(
            "POST", "platform/tokens", [{"info": "stream", "ttl": 86400, "access": {"type": 2, "acl": acl}}]
        )
        self.token_id, self.key = token["id"], token["key"]
        newest = self.redis("XREVRANGE", ShardKeys().device_log, "+", "-", "COUNT", 1)
        self.begin = f"({newest[0][0].decode()}" if newest else "-"

    async def close(self):
        await self.release()
        if not self.is_up:
            await self.gateway.ready()

    @property
    def is_up(self):
        return self.gateway._popen is not None

    async def ask(self, method, path, body=None):
        async with httpx.AsyncClient(timeout=20) as client:
            answer = await client.request(
                method, f"{self.gateway.api_url}/{path}", json=body,
                headers={"authorization": f"FlespiToken {self.gateway.token}"},
            )  # fmt: skip
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]

    def redis(self, *command):
        with Client.from_url(self.gateway.socket) as client:
            return client.execute_command(*command)

    def configuration(self):
        return {"uri": self.gateway.api_url, "token": self.key, "timeout": 5.0}

    def refused_message(self):
        return {"a#b": 1}

    async def received(self):
        rows = self.redis("XRANGE", ShardKeys().device_log, self.begin, "+")
        return [json.loads(text) for _, fields in rows for text in fields[b"messages"].split(b"\n")]

    async def go_down(self):
        if self.is_up:
            await self.gateway.stop(signal.SIGTERM)

    async def come_up(self):
        await self.gateway.ready()

    async def hold(self):
        freeze(self.gateway.pid)

    async def release(self):
        if self.is_up:
            os.kill(self.gateway.pid, signal.SIGCONT)

    async def refuse_all(self):
        await self.ask("PATCH", f"platform/tokens/{self.token_id}", {"enabled": False})

    async def take_again(self):
        await self.ask("PATCH", f"platform/tokens/{self.token_id}", {"enabled": True})


class TestFlespiRest(StreamConformance):
    @pytest.fixture
    def kit(self, other_gateway):
        return RestKit(other_gateway)

    def test_messages_of_an_ident_without_a_device_are_rejected(self, run, kit, carrier):
        async def check() -> None:
            stream = await carrier.stream("flespi", kit.configuration())
            await carrier.receive({"n": 0}, ident="stranger")
            await carrier.receive({"n": 1}, ident="a*")
            await carrier.receive({"n": 2}, ident="1")
            await self.arrived(kit, carrier, 1)
            await carrier.until(lambda: carrier.state(stream).counters.rejected == 2, "two are rejected")
            first, second = carrier.told(EventCode.STREAM_REJECTED, stream)
            assert first["reason"] == "no device there has the ident 'stranger', or the token may not see it"
            assert "no device can be named" in second["reason"]

        run(check(), 60)

    def test_what_the_other_gateway_says_of_a_message_is_told(self, run, kit, carrier):
        async def check() -> None:
            stream = await carrier.stream("flespi", kit.configuration())
            await carrier.receive({"n": 0}, {"n": 1, "timestamp": -5}, {"n": 2, "x/y": 1}, {"n": 3})
            await self.arrived(kit, carrier, 2)
            await carrier.until(lambda: carrier.state(stream).counters.rejected == 2, "two are rejected")
            reasons = [entry["reason"] for entry in carrier.told(EventCode.STREAM_REJECTED, stream)]
            assert "UNIX seconds" in reasons[0]
            assert "(field timestamp)" in reasons[0]
            assert "without / # +" in reasons[1]

        run(check(), 60)

    def test_device_messages_arrive_at_the_device_of_the_same_ident(self, run, kit, carrier):
        async def check() -> None:
            device = await carrier.device("2")
            stream = await carrier.items.create_stream(
                name="s", protocol="flespi", configuration=kit.configuration()
            )  # fmt: skip
            await carrier.link(stream, "devices", device.id)
            await carrier.register({"n": 0, "driver.name": "Ada"}, device_id=device.id, ident="2")
            await self.arrived(kit, carrier, 1)
            (there,) = await kit.ask("GET", "gw/devices/configuration.ident=2")
            (message,) = await kit.ask("GET", f"gw/devices/{there['id']}/messages?data=%7B%22reverse%22:true%7D")
            assert (message["driver.name"], message["ident"]) == ("Ada", "2")
            assert message["device.id"] == there["id"]

        run(check(), 60)


def made(**options) -> Flespi:
    config = Flespi.Config(**options)
    Flespi.check(config)
    return Flespi(config, StreamInfo(1, "flespi"))


def batch(*idents: str) -> list[Outgoing]:
    return [Outgoing(b'{"n":%d}' % n, ident) for n, ident in enumerate(idents)]


def test_a_refusal_of_single_messages_sends_the_others_once_more(run, http_target):
    """flespi may take nothing of a request with a wrong message in it."""
    wrong = b'{"errors": [{"code": 2, "reason": "no number", "index": 1}]}'

    async def check() -> None:
        http_target.next(Answer(400, wrong), Answer(200, b'{"result": [{"id": 1}]}'))
        target = made(uri=f"{http_target.url}/", token="t")
        messages = batch("a", "a", "a")
        (rejection,) = await target.deliver(messages)
        assert (rejection.index, rejection.reason) == (1, "no number")
        assert [outgoing.is_done for outgoing in messages] == [True, False, True]
        assert [asked.json() for asked in http_target.requests] == [
            [{"n": 0}, {"n": 1}, {"n": 2}],
            [{"n": 0}, {"n": 2}],
        ]
        assert http_target.requests[0].path == "/gw/devices/configuration.ident=%22a%22/messages"
        assert http_target.requests[0].headers["authorization"] == "FlespiToken t"
        await target.close()

    run(check())


def test_where_no_device_took_them_none_is_delivered(run, http_target):
    """Also beside an error of one of them."""

    async def check() -> None:
        http_target.default = Answer(200, b'{"result": [], "errors": [{"reason": "no number", "index": 1}]}')
        target = made(uri=http_target.url, token="t")
        messages = batch("a", "a", "a")
        rejections = await target.deliver(messages)
        reasons = {rejection.index: rejection.reason[:9] for rejection in rejections}
        assert reasons == {0: "no device", 1: "no number", 2: "no device"}
        assert not any(outgoing.is_done for outgoing in messages)
        await target.close()

    run(check())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(200, b"welcome"), "should have result"),
        (Answer(200, b"[]"), "should have result"),
        (Answer(200, b'{"result": {}}'), "should have result"),
        (Answer(200, b'{"result": [], "errors": [{"code": 3, "reason": "no rights"}]}'), "no rights"),
        (Answer(200, b'{"result": [], "errors": [{"reason": "x", "index": 9}]}'), "an error: x"),
        (Answer(400, b'{"errors": [{"reason": "bad selector"}]}'), "bad selector"),
        (Answer(400, b"nothing"), "HTTP 400: nothing"),
        (Answer(401, b'{"errors": [{"reason": "unknown token"}]}'), "unknown token"),
        (Answer(429), "HTTP 429"),
    ],
)
def test_an_answer_that_is_no_confirmation_is_a_refusal(run, http_target, answer, reason):
    async def check() -> None:
        http_target.default = answer
        target = made(uri=http_target.url, token="t", refused="retry")
        with pytest.raises(RemoteRefused, match=reason):
            await target.deliver(batch("a", "a"))
        await target.close()

    run(check())


def test_the_ident_that_fails_does_not_undo_the_others(run, http_target):
    """Those that were answered are not sent again, and of the failed one nothing is delivered out of turn."""

    async def check() -> None:
        http_target.default = lambda asked: (
            Answer(500) if "%22b%22" in asked.path else Answer(200, b'{"result": [{"id": 1}]}')
        )
        target = made(uri=http_target.url, token="t", connections=3)
        messages = batch("a", "b", "c", "b", "a")
        with pytest.raises(RemoteRefused, match="HTTP 500"):
            await target.deliver(messages)
        assert [outgoing.is_done for outgoing in messages] == [True, False, True, False, True]
        await target.close()

    run(check())


def test_lanes_run_side_by_side_up_to_a_number_and_end_before_an_error_does(run):
    now, most, ended = 0, 0, []

    async def lane(n: int) -> list[int]:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01 * (n % 3 + 1))
        now -= 1
        ended.append(n)
        if n == 3:
            raise RemoteRefused("three")
        return [n]

    assert run(side_by_side([0, 1, 2, 4, 5], lane, 3)) == [0, 1, 2, 4, 5]
    assert most == 3
    ended.clear()
    with pytest.raises(RemoteRefused, match="three"):
        run(side_by_side([1, 2, 3, 6, 7, 9, 10, 12], lane, 3))
    assert now == 0
    assert set(ended) < {1, 2, 3, 6, 7, 9, 10, 12}


def test_what_is_converted_keeps_what_is_needed(run, http_target):
    async def check() -> None:
        target = made(uri=http_target.url, convert_message=Conversion(fields=["n"]))
        message = {"n": 1, "ident": "a", "timestamp": 5, "x": 2}
        await target.deliver([Outgoing(b'{"n":1}', "a", original=message)])
        assert http_target.requests[0].json() == [{"n": 1, "ident": "a", "timestamp": 5}]
        await target.close()

    run(check())


@pytest.mark.parametrize(
    "options",
    [
        {"uri": "gw.flespi.io:27699"},
        {"uri": "flespi.io", "token": "t"},
        {"uri": "https://flespi.io?x=1", "token": "t"},
    ],
)
def test_addresses_that_cannot_be_are_refused(options):
    with pytest.raises(ItemError) as refused:
        made(**options)
    assert refused.value.field == "configuration.uri"
