"""``/platform/tokens`` and ``/auth/info`` over HTTP: who may, what is refused, and that it holds at once."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from gateway.api.parts import Parts
from gateway.store import keys
from gateway.store.failures import Failures
from gateway.store.tokens import Tokens
from tests.rest import MASTER, Rest, serving

TOKENS = "/platform/tokens"
ACL = {"type": 2, "acl": [{"uri": "gw/devices", "methods": ["GET"], "ids": [1, 2]}]}
HOUR = {"ttl": 3600}


@pytest.fixture
def scene(run, redis):
    """Runs a coroutine function with the API's client."""

    def run_scene(play: Any) -> Any:
        async def scenario() -> Any:
            async with serving(Parts(tokens=Tokens(redis, MASTER), failures=Failures(), redis=redis)) as rest:
                return await play(rest)

        return run(scenario())

    return run_scene


async def made(rest: Rest, **values: Any) -> dict[str, Any]:
    """A new token, as the API answers."""
    (token,) = await rest.post(TOKENS, [{**HOUR, **values}])
    return token


def test_a_token_is_made_and_opens_the_api(scene):
    """The answer has all of it, and the key."""

    async def play(rest: Rest) -> None:
        values = {"info": "reader", "ttl": 60, "expire": 0, "access": ACL, "ips": ["127.0.0.0/8"], "metadata": {"a": 1}}
        before = int(time.time())
        (token,) = await rest.post(TOKENS, [values])
        key = token.pop("key")
        assert len(key) == 64
        assert before <= token.pop("created") <= time.time()
        assert token == {"id": 1, "enabled": True, "accessed": 0, "cid": 1, **values}
        (known,) = await rest.get("/auth/info", key=key)
        assert known.pop("created") >= before
        assert known.pop("accessed") >= before
        assert known == {"id": 1, "enabled": True, "cid": 1, **values}

    scene(play)


def test_the_key_is_told_once(scene):
    """Whatever fields are asked for: there it is, and never again."""

    async def play(rest: Rest) -> None:
        (token,) = await rest.post(TOKENS, [HOUR], params={"fields": "id,info"})
        assert set(token) == {"id", "info", "key"}
        for method, body in (("GET", None), ("PUT", {"info": "x"}), ("PATCH", {"info": "x"}), ("DELETE", None)):
            response = await rest.request(method, f"{TOKENS}/all", json=body)
            assert response.status_code == 200
            assert token["key"] not in response.text
            assert "key" not in response.json()["result"][0]
        await rest.refused("GET", f"{TOKENS}/all", 400, params={"fields": "digest"})

    scene(play)


def test_each_of_several_succeeds_on_its_own(scene):
    """The answer says which did not, and what would be right."""

    async def play(rest: Rest) -> None:
        bodies: list[Any] = [
            {"info": "good", **HOUR},
            {},
            {"ttl": 1, "key": "x" * 64},
            {"ttl": -1},
            {"expire": int(time.time()) - 1},
            {**HOUR, "ips": ["192.0.2.0/33"]},
            {**HOUR, "access": {"type": 2, "acl": [{"uri": "platform/tokens", "methods": ["GET"]}]}},
            {**HOUR, "info": "x" * 257},
            "token",
            {"expire": int(time.time()) + 60},
        ]
        answer = (await rest.request("POST", TOKENS, json=bodies)).json()
        assert [token["info"] for token in answer["result"]] == ["good", ""]
        errors = {error["index"]: (error["code"], error.get("field")) for error in answer["errors"]}
        assert errors == {
            1: (2, "ttl"),
            2: (2, "key"),
            3: (2, "ttl"),
            4: (2, "expire"),
            5: (2, "ips"),
            6: (2, "access.acl[0].uri"),
            7: (2, "info"),
            8: (2, None),
        }
        assert len(await rest.get(f"{TOKENS}/all")) == 2

    scene(play)


STANDARD: dict[str, Any] = {"type": 0}


@pytest.mark.parametrize("access", [STANDARD, ACL, {"type": 2, "acl": []}], ids=["standard", "acl", "empty"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_only_a_master_token_touches_tokens(scene, access: dict[str, Any], method: str):
    """So nobody gives more than they have; with flespi's words."""

    async def play(rest: Rest) -> None:
        key = (await made(rest, access=access))["key"]
        path = TOKENS if method == "POST" else f"{TOKENS}/all"
        error = await rest.refused(method, path, 403, key=key, json=[{"ttl": 1}] if method == "POST" else None)
        assert error == {"code": 3, "reason": "action is not permitted by ACL"}
        assert [token["id"] for token in await rest.get(f"{TOKENS}/all")] == [1]

    scene(play)


def test_a_master_token_that_was_made_is_one(scene):
    """It makes others; but the one of the configuration is out of its reach."""

    async def play(rest: Rest) -> None:
        key = (await made(rest, access={"type": 1}))["key"]
        assert (await rest.post(TOKENS, [HOUR], key=key))[0]["access"] == STANDARD
        assert [token["id"] for token in await rest.get(f"{TOKENS}/all", key=key)] == [1, 2]
        error = await rest.refused("DELETE", f"{TOKENS}/0", 403, key=key)
        assert (error["code"], error["id"]) == (3, 0)

    scene(play)


def test_tokens_are_found_by_selectors_and_fields(scene):
    """As other items; what does not exist is refused by its id."""

    async def play(rest: Rest) -> None:
        for info in ("car 1", "car 2", "truck"):
            await made(rest, info=info, access=ACL if info == "truck" else STANDARD)
        paths = {
            "info=car*": [1, 2],
            "access.type=2": [3],
            "2,3": [2, 3],
            "{info == 'truck'}": [3],
            "enabled=false": [],
        }
        for selector, ids in paths.items():
            assert [token["id"] for token in await rest.get(f"{TOKENS}/{selector}")] == ids
        assert await rest.get(f"{TOKENS}/3", params={"fields": "info,access.type"}) == [
            {"info": "truck", "access.type": 2}
        ]
        answer = (await rest.request("GET", f"{TOKENS}/3,9", params={"limit": 1})).json()
        assert [token["id"] for token in answer["result"]] == [3]
        assert [(error["code"], error["id"]) for error in answer["errors"]] == [(3, 9)]

    scene(play)


def test_a_change_holds_from_the_next_call_on(scene):
    """PUT replaces what is named; the key stays good for what the token may now."""

    async def play(rest: Rest) -> None:
        key = (await made(rest, info="old", metadata={"a": 1}))["key"]
        assert (await rest.request("GET", "/storage/expressions/functions", key=key)).status_code == 200
        (token,) = await rest.put(f"{TOKENS}/1", {"access": ACL, "metadata": {"b": 2}})
        assert (token["info"], token["access"], token["metadata"]) == ("old", ACL, {"b": 2})
        await rest.refused("GET", "/storage/expressions/functions", 403, key=key)
        assert (await rest.get("/auth/info", key=key, params={"fields": "access"})) == [{"access": ACL}]

    scene(play)


def test_a_patch_merges(scene):
    """Objects, and null removes; a wrong result is refused with its place."""

    async def play(rest: Rest) -> None:
        await made(rest, access=ACL, metadata={"a": 1, "b": {"c": 2}})
        (token,) = await rest.patch(f"{TOKENS}/1", {"metadata": {"a": None, "b": {"d": 3}}, "access": {"acl": []}})
        assert token["metadata"] == {"b": {"c": 2, "d": 3}}
        assert token["access"] == {"type": 2, "acl": []}
        (token,) = await rest.patch(f"{TOKENS}/1", {"access": {"type": 0, "acl": None}})
        assert token["access"] == STANDARD
        wrong = {"access": {"type": 2, "acl": [{"uri": "gw/devices", "ids": [0]}]}}
        error = await rest.refused("PATCH", f"{TOKENS}/1", 400, json=wrong)
        assert (error["field"], error["id"]) == ("access.acl[0].ids[0]", 1)

    scene(play)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"id": 5}, "id"),
        ({"created": 5}, "created"),
        ({"enabled": 1}, "enabled"),
        ({"ttl": 0}, "ttl"),
        ({"ips": ["here"]}, "ips"),
        ({"access": {"type": 1, "acl": [{"uri": "mqtt"}]}}, "access"),
        ([], None),
    ],
)
def test_a_wrong_change_changes_nothing(scene, body: Any, field: str | None):
    """And names the field."""

    async def play(rest: Rest) -> None:
        await made(rest)
        before = await rest.get(f"{TOKENS}/1")
        error = await rest.refused("PUT", f"{TOKENS}/1", 400, json=body)
        assert error["code"] == 2
        assert error.get("field") == field
        assert await rest.get(f"{TOKENS}/1") == before

    scene(play)


def test_a_token_that_is_gone_opens_nothing(scene):
    """Deleted, disabled, expired, from elsewhere: all are answered alike."""

    async def play(rest: Rest) -> None:
        tokens = [await made(rest, info=str(n)) for n in range(3)]
        short = (await rest.post(TOKENS, [{"expire": int(time.time()) + 1}]))[0]
        elsewhere = await made(rest, ips=["192.0.2.1"])
        assert [token["id"] for token in await rest.delete(f"{TOKENS}/1,2")] == [1, 2]
        await rest.put(f"{TOKENS}/3", {"enabled": False})
        while time.time() < short["expire"]:
            await asyncio.sleep(0.05)
        reasons = set()
        for token in (*tokens, short, elsewhere):
            error = await rest.refused("GET", "/auth/info", 401, key=token["key"])
            reasons.add((error["code"], error["reason"]))
        assert len(reasons) == 1
        assert reasons.pop()[0] == 1

    scene(play)


def test_who_asks_without_a_token_learns_nothing(scene):
    """401, with the header that is missing."""

    async def play(rest: Rest) -> None:
        error = await rest.refused("GET", "/auth/info", 401, key=None)
        assert "Authorization: FlespiToken KEY" in error["reason"]
        await rest.refused("GET", f"{TOKENS}/all", 401, key="x" * 64)

    scene(play)


def test_the_master_of_the_configuration_is_number_0(scene):
    """And not in the list."""

    async def play(rest: Rest) -> None:
        (token,) = await rest.get("/auth/info")
        assert (token["id"], token["access"], token["cid"], token["expire"]) == (0, {"type": 1}, 1, 0)
        assert await rest.get(f"{TOKENS}/all") == []

    scene(play)


def test_guessing_is_refused_for_a_while(scene):
    """Also with a right token then; not by a program with an old one."""

    async def play(rest: Rest) -> None:
        for _ in range(30):
            await rest.refused("GET", "/auth/info", 401, key="old" * 20)
        for n in range(19):
            await rest.refused("GET", "/auth/info", 401, key=f"{n:064}")
        await rest.refused("GET", "/auth/info", 429)

    scene(play)


def test_without_redis_nothing_is_changed(scene):
    """503: the same request may succeed later."""

    async def play(rest: Rest) -> None:
        key = (await made(rest))["key"]
        await rest.parts.redis.delete(keys.TOKENS)
        await rest.parts.redis.set(keys.TOKENS, "in the way")
        for method, path in (("POST", TOKENS), ("PUT", f"{TOKENS}/1"), ("DELETE", f"{TOKENS}/1")):
            body = {"POST": [HOUR], "PUT": {"info": "x"}, "DELETE": None}[method]
            await rest.refused(method, path, 503, json=body)
        assert (await rest.get("/auth/info", key=key))[0]["info"] == ""

    scene(play)


@pytest.mark.parametrize("header", [b"FlespiToken \xff\xfe", b"\xc3\x28", b"FlespiToken", b"Basic Og==", b"x" * 15_000])
def test_whatever_stands_in_the_header_is_no_token(scene, header: bytes):
    """And no bug: 401."""

    async def play(rest: Rest) -> None:
        await rest.refused("GET", "/auth/info", 401, key=None, headers={b"Authorization": header})

    scene(play)
