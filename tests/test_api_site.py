"""HTTP around the operations: tokens, limits, streams, errors."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import httpx
import orjson
import pytest
from msgspec import Struct
from twisted.internet import reactor

from gateway.api.answers import Answer
from gateway.api.call import Call
from gateway.api.errors import ApiError
from gateway.api.http import BODY_MOST_OF_ALL, HEAD_MOST
from gateway.api.operations import Operation, Right
from gateway.api.parts import Parts
from gateway.api.server import ApiServer
from gateway.errors import StoreFull, StoreUnavailable
from gateway.store.failures import Failures
from gateway.store.tokens import Tokens
from tests.rest import LOCAL, MASTER, Rest

DEVICES = Right("gw/devices")


class Wanted(Struct, forbid_unknown_fields=True):
    count: int = 10
    size: int = 10


class Body(Struct, forbid_unknown_fields=True):
    name: str


class Endless:
    """A stream that counts how much was taken from it, and whether it was closed."""

    def __init__(self) -> None:
        self.taken = 0
        self.is_closed = False

    async def texts(self):
        try:
            while True:
                self.taken += 100
                yield [b'"' + b"x" * 1000 + b'"'] * 100
                await asyncio.sleep(0)
        finally:
            self.is_closed = True


ENDLESS = Endless()


async def stream(call: Call) -> Answer:
    async def texts():
        for number in range(call.data.count):
            yield [orjson.dumps(f"{number:0{call.data.size}}")]

    return Answer(texts(), errors=[ApiError.denied(7)], extra={"next_key": 5})


async def endless(call: Call) -> Answer:
    return Answer(ENDLESS.texts())


async def break_off(call: Call) -> Answer:
    async def texts():
        for _ in range(100):
            yield [b'"' + b"x" * 10_000 + b'"']
        raise StoreUnavailable("gone")

    return Answer(texts())


async def break_off_early(call: Call) -> Answer:
    async def texts():
        yield [b'"little"']
        raise StoreUnavailable("gone")

    return Answer(texts())


async def echo(call: Call) -> Answer:
    return Answer([{"name": entry.value.name, "index": entry.index} for entry in call.entries])


async def bug(call: Call) -> Answer:
    raise KeyError("a bug")


async def no_store(call: Call) -> Answer:
    raise StoreUnavailable("Redis is away")


async def full_store(call: Call) -> Answer:
    raise StoreFull("OOM")


async def open_to_all(call: Call) -> Answer:
    return Answer(["fine"])


OPERATIONS = [
    Operation("GET", "/stream", stream, "", access=DEVICES, data=Wanted),
    Operation("GET", "/endless", endless, "", access=DEVICES),
    Operation("GET", "/broken", break_off, "", access=DEVICES),
    Operation("GET", "/broken-early", break_off_early, "", access=DEVICES),
    Operation("POST", "/echo", echo, "", access=DEVICES, body=list[Body], body_most=10_000),
    Operation("GET", "/bug", bug, "", access=DEVICES),
    Operation("GET", "/away", no_store, "", access=DEVICES),
    Operation("GET", "/full", full_store, "", access=DEVICES),
    Operation("GET", "/open", open_to_all, ""),
]


@pytest.fixture
def rest(run, redis, monkeypatch: pytest.MonkeyPatch):
    """The API with the operations above."""
    monkeypatch.setattr("gateway.api.server.operations", lambda: OPERATIONS)
    servers = []

    async def start(origins: tuple[str, ...] = ()) -> Rest:
        parts = Parts(tokens=Tokens(redis, MASTER), failures=Failures())
        server = ApiServer(reactor, LOCAL, parts, origins)
        await server.start()
        client = httpx.AsyncClient(base_url=server.url, timeout=20)
        servers.append((server, client))
        return Rest(parts, server, client)

    yield lambda *origins: run(start(origins))

    async def stop() -> None:
        for server, client in servers:
            await client.aclose()
            await server.stop()

    run(stop())


def test_an_answer_is_an_envelope_with_results_and_errors(run, rest):
    """What succeeded and what did not stand beside each other."""
    response = run(rest().request("GET", "/stream", data={"count": 3, "size": 2}))
    assert response.status_code == 200
    assert response.json() == {
        "result": ["00", "01", "02"],
        "errors": [{"code": 3, "reason": "access denied or unable to process the item", "id": 7}],
        "next_key": 5,
    }
    assert response.headers["content-type"] == "application/json"


def test_parameters_may_stand_in_the_query_or_in_the_body_of_a_get(run, rest):
    """flespi takes both."""
    there = rest()
    assert len(run(there.request("GET", "/stream", json={"count": 4})).json()["result"]) == 4
    both = run(there.refused("GET", "/stream", 400, data={"count": 1}, json={"count": 4}))
    assert "only one" in both["reason"]


def test_a_parameter_in_the_wrong_place_is_told(run, rest):
    """flespi ignores it without a word, and people call that a trap."""
    response = run(rest().request("GET", "/stream", params={"count": "1", "_": "2"}))
    assert len(response.json()["result"]) == 10
    assert [warning["reason"] for warning in response.json()["warnings"]] == [
        "the query parameter _ is ignored",
        "the query parameter count is ignored: put it into the JSON object of the parameter data",
    ]


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"FlespiToken {MASTER}", 200),
        (f"Bearer {MASTER}", 200),
        (MASTER, 200),
        (f"FlespiToken  {MASTER}", 200),
        ("FlespiToken " + "x" * 64, 401),
        ("FlespiToken", 401),
        (None, 401),
        ("é", 401),
        (f"Basic {MASTER}", 401),
    ],
)
def test_a_token_is_needed(run, rest, header: str | None, status: int):
    """With flespi's word before it, Bearer, or bare."""
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    response = run(rest().client.get("/stream", headers=headers))
    assert response.status_code == status
    if status == 401:
        assert response.json()["errors"][0]["code"] == 1


def test_what_is_open_needs_no_token(run, rest):
    """Health and metrics are for machines."""
    assert run(rest().get("/open", key=None)) == ["fine"]


def test_wrong_tokens_are_limited_for_each_address(run, rest):
    """Guessing 64 characters takes for ever, but the log and the processor should not suffer from trying."""
    there = rest()

    async def guess() -> list[int]:
        return [(await there.request("GET", "/stream", key=f"{n:064}")).status_code for n in range(40)]

    statuses = run(guess())
    assert statuses[0] == 401
    assert statuses[-1] == 429


@pytest.mark.parametrize(
    ("path", "status", "code"), [("/bug", 500, 8), ("/away", 503, 7), ("/full", 503, 7), ("/nothing", 404, 4)]
)
def test_errors_are_answers(run, rest, path: str, status: int, code: int):
    """Never a traceback; and a store that is away says that it may be back."""
    there = rest()
    response = run(there.request("GET", path))
    assert (response.status_code, response.json()["errors"][0]["code"]) == (status, code)
    assert "Traceback" not in response.text
    assert response.headers["content-type"] == "application/json"  # the path is in the reason: no page for a browser
    assert ("retry-after" in response.headers) == (status == 503)


def test_a_method_that_a_path_does_not_have_is_refused_with_those_it_has(run, rest):
    """As HTTP wants it: 405 with Allow."""
    response = run(rest().request("PUT", "/echo", json=[]))
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


def test_head_is_get_without_the_body(run, rest):
    """Who watches over services asks so."""
    there = rest()
    head, get = (run(there.client.request(method, "/open")) for method in ("HEAD", "GET"))
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(get.content))


def test_an_answer_that_breaks_off_does_not_look_whole(run, rest):
    """The status is sent already: only a cut connection tells it."""
    there = rest()
    with pytest.raises(httpx.TransportError):
        run(there.request("GET", "/broken"))


def test_a_list_that_breaks_off_before_anything_was_sent_has_a_status(run, rest):
    """The client learns that it may try again."""
    error = run(rest().refused("GET", "/broken-early", 503))
    assert "Redis does not answer" in error["reason"]


def test_a_body_is_checked_item_by_item(run, rest):
    """The wrong ones are named, the others are done."""
    response = run(rest().request("POST", "/echo", json=[{"name": "a"}, {"nmae": "b"}, {"name": "c"}]))
    assert response.status_code == 200
    assert response.json()["result"] == [{"name": "a", "index": 0}, {"name": "c", "index": 2}]
    assert [(error["index"], error["field"]) for error in response.json()["errors"]] == [(1, "nmae")]


def test_a_body_is_no_query_whatever_its_type_says(run, rest):
    """curl calls it a form unless told otherwise."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = run(rest().request("POST", "/echo", content=b'[{"name": "a=b&data=c"}]', headers=headers))
    assert response.json() == {"result": [{"name": "a=b&data=c", "index": 0}]}


def test_a_query_may_have_any_characters(run, rest):
    """In UTF-8 and percent-encoded, as all addresses are."""
    response = run(rest().request("GET", "/stream?data=%7B%22count%22:1%7D&gr%C3%B6%C3%9Fe=%D9%A1"))
    assert response.json()["warnings"] == [{"reason": "the query parameter größe is ignored"}]


@pytest.mark.parametrize("query", ["&".join(["a=b"] * 101), "data=%ff", "%ff=1"])
def test_a_query_that_cannot_be_read_is_refused(run, rest, query: str):
    """It is the client's error."""
    assert run(rest().refused("GET", f"/stream?{query}", 400))["code"] == 2


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"{}", 400),
        (b"[]", 400),
        (b'[{"nmae": 1}]', 400),
        (b"[" + b" " * 10_000 + b"]", 413),
        (b" " * (BODY_MOST_OF_ALL + 1), 413),
    ],
)
def test_a_wrong_body_is_refused(run, rest, content: bytes, status: int):
    """With what would be right."""
    error = run(rest().refused("POST", "/echo", status, content=content))
    assert error["code"] == (2 if status == 400 else 5)


def test_a_body_without_a_declared_length_is_limited_too(run, rest):
    """Chunked: it is counted while it comes, and never kept."""
    there = rest()

    async def chunks():
        for _ in range(BODY_MOST_OF_ALL // 2**20 + 2):
            yield b" " * 2**20

    assert run(there.refused("POST", "/echo", 413, content=chunks()))["code"] == 5


@pytest.mark.parametrize(("size", "status"), [(100_000, 200), (HEAD_MOST + 10, 431), (HEAD_MOST * 4, 431)])
def test_a_long_address_is_taken_and_one_that_is_too_long_is_refused(run, rest, size: int, status: int):
    """Selectors and data stand in it."""
    there = rest()

    async def scenario() -> tuple[int, dict]:
        reader, writer = await asyncio.open_connection("127.0.0.1", there.server.port)
        writer.write(b"GET /open?x=" + b"y" * size + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        writer.close()
        return int(head.split()[1]), orjson.loads(body)

    found, answer = run(scenario())
    assert found == status
    assert ("errors" in answer) == (status != 200)


def test_a_body_where_none_belongs_is_refused(run, rest):
    """It would be ignored, and somebody would wonder."""
    assert "takes no body" in run(rest().refused("GET", "/bug", 400, content=b"{}"))["reason"]


def test_a_client_that_does_not_read_is_not_written_to(run, rest):
    """The list waits in the store, not in memory; and when the client goes, nobody reads the store any more."""
    there = rest()

    async def scenario() -> tuple[int, int]:
        ENDLESS.taken, ENDLESS.is_closed = 0, False
        reader, writer = await asyncio.open_connection("127.0.0.1", there.server.port, limit=1000)
        writer.write(f"GET /endless HTTP/1.1\r\nHost: x\r\nAuthorization: {MASTER}\r\n\r\n".encode())
        await reader.readexactly(100)
        before, now = -1, 0
        while now != before:
            before = now
            await asyncio.sleep(0.3)
            now = ENDLESS.taken
        writer.transport.abort()
        async with asyncio.timeout(5):
            while not ENDLESS.is_closed:
                await asyncio.sleep(0.01)
        return now, before

    taken, _ = run(scenario())
    assert 0 < taken * 1000 < 20_000_000


def test_connections_are_kept_for_further_requests(run, rest):
    """A client that polls does not pay for a connection each time."""
    there = rest()

    async def scenario() -> set[Any]:
        streams = set()
        for _ in range(3):
            response = await there.request("GET", "/open")
            streams.add(response.extensions["network_stream"].get_extra_info("client_addr"))
        return streams

    assert len(run(scenario())) == 1


def test_answers_are_compressed_for_those_who_take_it(run, rest):
    """Messages shrink to a tenth."""
    there = rest()

    async def raw(encoding: str) -> tuple[httpx.Headers, bytes]:
        headers = {"Authorization": MASTER, "Accept-Encoding": encoding}
        params = {"data": '{"count": 2000}'}
        async with there.client.stream("GET", "/stream", headers=headers, params=params) as response:
            return response.headers, b"".join([chunk async for chunk in response.aiter_raw()])

    headers, compressed = run(raw("gzip"))
    plain_headers, plain = run(raw("identity"))
    assert headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain_headers
    assert gzip.decompress(compressed) == plain
    assert len(compressed) < len(plain) / 3


def test_other_origins_are_not_answered_unless_configured(run, rest):
    """Nothing is allowed by itself."""
    there = rest()
    response = run(there.request("GET", "/open", headers={"Origin": "https://fleet.example"}))
    assert "access-control-allow-origin" not in response.headers


def test_a_configured_origin_may_ask(run, rest):
    """First with OPTIONS, without a token."""
    there = rest("https://fleet.example")
    asked = {"Origin": "https://fleet.example", "Access-Control-Request-Method": "POST"}
    preflight = run(there.request("OPTIONS", "/echo", key=None, headers=asked))
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://fleet.example"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "Authorization" in preflight.headers["access-control-allow-headers"]
    other = run(there.request("GET", "/open", headers={"Origin": "https://evil.example"}))
    assert "access-control-allow-origin" not in other.headers
