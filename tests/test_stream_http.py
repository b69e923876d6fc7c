"""Streams to a web server."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from gateway.errors import ItemError
from gateway.store.event_codes import EventCode
from gateway.streams.http import Http
from tests.stream_conformance import Kit, StreamConformance
from tests.streaming import numbers
from tests.targets.http import NEVER, Answer, HttpTarget


class HttpKit(Kit):
    protocol = "http"

    def __init__(self) -> None:
        self.target = HttpTarget()
        self.target.default = self._answer
        self.is_held = self.is_refusing = False
        self.taken: list[dict] = []

    def _answer(self, asked) -> Answer:
        if self.is_held:
            return NEVER
        messages = asked.json()
        if self.is_refusing:
            return Answer(503, b"closed for repairs")
        if any(message.get("color") == "puce" for message in messages):
            return Answer(400, b"puce is no color")
        self.taken += messages
        return Answer()

    async def start(self):
        self.target.start()

    async def close(self):
        await self.target.stop()

    def configuration(self):
        return {"uri": f"{self.target.url}/in", "timeout": 1.0}

    def refusing_configuration(self):
        return {**self.configuration(), "refused": "skip"}

    def refused_message(self):
        return {"color": "puce"}

    async def received(self):
        return self.taken

    async def go_down(self):
        await self.target.stop()

    async def come_up(self):
        self.target.start()

    async def hold(self):
        self.is_held = True

    async def release(self):
        self.is_held = False

    async def refuse_all(self):
        self.is_refusing = True

    async def take_again(self):
        self.is_refusing = False


class TestHttp(StreamConformance):
    @pytest.fixture
    def kit(self):
        return HttpKit()

    def test_a_request_is_a_post_of_a_json_array_with_the_headers(self, run, kit, carrier):
        async def check() -> None:
            configuration = {**kit.configuration(), "headers": {"X-Key": "7"}, "secret": "s3cret"}
            await carrier.stream("http", configuration)
            await carrier.receive({"n": 0}, {"n": 1})
            (asked,) = await kit.target.until(1)
            assert (asked.method, asked.path) == ("POST", "/in")
            assert asked.headers["content-type"] == "application/json"
            assert asked.headers["x-key"] == "7"
            stamp, _, digest = asked.headers["x-signature"].partition(",sha256=")
            signed = stamp.removeprefix("t=").encode() + b"." + asked.body
            assert digest == hmac.new(b"s3cret", signed, hashlib.sha256).hexdigest()
            assert numbers(asked.json()) == [0, 1]

        run(check())

    def test_the_ident_in_the_address_makes_a_request_of_each(self, run, kit, carrier):
        async def check() -> None:
            await carrier.stream("http", {**kit.configuration(), "uri": f"{kit.target.url}/of/%ident%/%channel.id%"})
            await carrier.receive({"n": 0}, ident="a b")
            await carrier.receive({"n": 1}, ident="c")
            await self.arrived(kit, carrier, 2)
            assert {asked.path for asked in kit.target.requests} == {"/of/a%20b/1", "/of/c/1"}

        run(check())

    def test_a_part_that_was_taken_is_not_sent_again(self, run, kit, carrier):
        async def check() -> None:
            kit.is_held = True
            stream = await carrier.stream("http", {**kit.configuration(), "uri": f"{kit.target.url}/%ident%"})
            await carrier.receive({"n": 0}, ident="a")
            await carrier.receive({"n": 1, "color": "puce"}, ident="b")
            await carrier.until(lambda: kit.target.requests, "it is held")
            kit.is_held = False
            await carrier.until(lambda: len(carrier.told(EventCode.STREAM_FAILED, stream)) > 3, "b fails and fails")
            assert numbers(kit.taken) == [0]

        run(check())

    def test_a_batch_that_is_too_large_is_halved(self, run, kit, carrier):
        async def check() -> None:
            kit.target.default = lambda asked: (
                Answer(413) if len(asked.json()) > 2 else kit._answer(asked)
            )  # fmt: skip
            stream = await carrier.stream("http", kit.configuration())
            await carrier.receive(*({"n": n} for n in range(9)))
            assert numbers(await self.arrived(kit, carrier, 9)) == list(range(9))
            assert not carrier.told(EventCode.STREAM_FAILED, stream)

        run(check())

    def test_what_the_server_answered_is_told(self, run, kit, carrier):
        async def check() -> None:
            kit.target.default = Answer(422, b'{"error": "no tenant"}')
            stream = await carrier.stream("http", kit.configuration())
            await carrier.receive({"n": 0})
            await carrier.until(lambda: carrier.told(EventCode.STREAM_FAILED, stream), "it is told")
            entry = carrier.told(EventCode.STREAM_FAILED, stream)[0]
            assert entry["status"] == 422
            assert 'HTTP 422: {"error": "no tenant"}' in entry["reason"]
            assert (entry["ident"], entry["messages"]) == ("1", 1)

        run(check())


@pytest.mark.parametrize("uri", ["ftp://host/x", "http://", "http:///x", "http://host:99999/", "http://a b/"])
def test_addresses_that_cannot_be_are_refused(uri):
    with pytest.raises(ItemError, match=r"https://host:port/path"):
        Http.check(Http.Config(uri=uri))


@pytest.mark.parametrize("uri", ["http://%ident%/in", "https://host.%device.name%:8443/", "https://%ident%@host/"])
def test_a_message_does_not_choose_the_host(uri):
    with pytest.raises(ItemError, match="in its path and query only"):
        Http.check(Http.Config(uri=uri))
