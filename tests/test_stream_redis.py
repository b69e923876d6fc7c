"""Streams into another Redis, a real one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl

import pytest
from redis import Redis as Client

from gateway.errors import ItemError, RemoteRefused, RemoteUnavailable
from gateway.store.event_codes import EventCode
from gateway.stream import resp
from gateway.stream.resp import ANSWERS_MOST
from gateway.stream.target import Outgoing, StreamInfo
from gateway.streams.redis import Redis
from tests.authority import Authority
from tests.integration.processes import freeze
from tests.stream_conformance import Kit, StreamConformance
from tests.streaming import numbers
from tests.targets.redis import RedisTarget


class RedisKit(Kit):
    """A process that is killed, started again, and stopped; what it refuses is what does not fit into its memory."""

    protocol = "redis"

    def __init__(self, directory) -> None:
        self.target = RedisTarget(directory)

    async def start(self):
        self.target.start()

    async def close(self):
        self.target.close()

    def configuration(self):
        return {"uri": self.target.url, "timeout": 5.0}

    async def received(self):
        return [json.loads(fields[b"message"]) for _, fields in self.ask("XRANGE", "messages", "-", "+")]

    def ask(self, *command):
        with Client(port=self.target.port, socket_timeout=10) as client:
            return client.execute_command(*command)

    async def go_down(self):
        self.target.kill()

    async def come_up(self):
        self.target.start()

    async def hold(self):
        freeze(self.target.pid)

    async def release(self):
        os.kill(self.target.pid, signal.SIGCONT)

    async def refuse_all(self):
        self.ask("CONFIG", "SET", "maxmemory", "1")

    async def take_again(self):
        self.ask("CONFIG", "SET", "maxmemory", "0")


class TestRedis(StreamConformance):
    @pytest.fixture
    def kit(self, tmp_path):
        return RedisKit(tmp_path)

    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (("CONFIG", "SET", "maxmemory", "1"), ": OOM command not allowed when used memory > 'maxmemory'."),
            (("CONFIG", "SET", "requirepass", "s3cret"), ": Authentication required."),
            (("REPLICAOF", "127.0.0.1", "1"), ": READONLY You can't write against a read only replica."),
            (("SET", "messages", "no stream"), "WRONGTYPE"),
            (("CONFIG", "SET", "min-replicas-to-write", "1"), "NOREPLICAS"),
        ],
    )
    def test_what_redis_answers_is_told_and_nothing_is_rejected(self, run, kit, carrier, spoil, said):
        async def check() -> None:
            kit.ask(*spoil)
            stream = await carrier.stream("redis", kit.configuration())
            await carrier.receive({"n": 0, "text": "not for the log"})
            await carrier.until(lambda: said in carrier.state(stream).error, said)
            assert "not for the log" not in str(carrier.told(EventCode.STREAM_FAILED, stream))
            assert carrier.state(stream).counters.rejected == 0

        run(check())

    def test_a_redis_that_still_loads_is_waited_for(self, run, kit, carrier):
        async def check() -> None:
            for n in range(30):
                kit.ask("SET", f"key{n}", os.urandom(300_000))  # others have their turn every 2 MB
            kit.ask("CONFIG", "SET", "appendonly", "no")
            kit.ask("SAVE")
            kit.target.stop()
            kit.target.command += ["--appendonly", "no", "--key-load-delay", "50000"]
            kit.target.answers = lambda: True  # it takes connections before it takes commands
            kit.target.start()
            stream = await carrier.stream("redis", kit.configuration())
            await carrier.receive({"n": 0})
            await carrier.until(lambda: "LOADING" in str(carrier.told(EventCode.STREAM_FAILED, stream)), "it loads")
            await carrier.until(lambda: carrier.state(stream).counters.delivered == 1, "it has loaded")

        run(check())

    def test_each_ident_has_its_own_key_and_a_wrong_one_holds_up_no_other(self, run, kit, carrier):
        async def check() -> None:
            kit.ask("SET", "trackers:b:1", "no stream")
            configuration = {**kit.configuration(), "key": "trackers:%ident%:%channel.id%"}
            stream = await carrier.stream("redis", configuration)
            for n, ident in enumerate("abcba"):
                await carrier.receive({"n": n}, ident=ident)
            await carrier.until(lambda: carrier.state(stream).counters.rejected == 2, "b is rejected")
            await carrier.until(lambda: carrier.state(stream).counters.delivered == 3, "a and c are taken")
            entry = carrier.told(EventCode.STREAM_REJECTED, stream)[0]
            assert entry["reason"].startswith("key trackers:b:1: WRONGTYPE")
            found = [json.loads(fields[b"message"])["n"] for _, fields in kit.ask("XRANGE", "trackers:a:1", "-", "+")]
            assert found == [0, 4]

        run(check())

    def test_fields_are_flat_where_that_is_wanted(self, run, kit, carrier):
        async def check() -> None:
            await carrier.stream("redis", {**kit.configuration(), "format": "fields"})
            await carrier.receive({"n": 0, "ok": True, "text": 'a "b"', "list": [1, {"x": None}], "speed": 5.5})
            await carrier.until(lambda: kit.ask("XLEN", "messages"), "it came")
            ((_, fields),) = kit.ask("XRANGE", "messages", "-", "+")
            assert fields[b"n"] == b"0"
            assert fields[b"ok"] == b"true"
            assert fields[b"text"] == b'a "b"'
            assert json.loads(fields[b"list"]) == [1, {"x": None}]
            assert fields[b"speed"] == b"5.5"
            assert fields[b"ident"] == b"1"

        run(check())

    def test_a_stream_is_kept_near_its_length(self, run, kit, carrier):
        async def check() -> None:
            stream = await carrier.stream("redis", {**kit.configuration(), "maxlen": 100})
            for n in range(0, 1000, 50):
                await carrier.receive(*({"n": n + i} for i in range(50)))
            await carrier.until(lambda: carrier.state(stream).counters.delivered == 1000, "all are delivered")
            left = numbers(await kit.received())
            assert 100 <= len(left) < 300
            assert left == list(range(1000 - len(left), 1000))

        run(check())

    def test_a_password_is_used_and_shown_to_nobody(self, run, kit, carrier):
        async def check() -> None:
            kit.ask("CONFIG", "SET", "requirepass", "s3cr/et")
            url = f"redis://:s3cr%2Fet@127.0.0.1:{kit.target.port}/0"
            stream = await carrier.stream("redis", {**kit.configuration(), "uri": url})
            await carrier.receive({"n": 0})
            await carrier.until(lambda: carrier.state(stream).counters.delivered == 1, "it is delivered")
            wrong = await carrier.stream("redis", {**kit.configuration(), "uri": url.replace("et@", "ets@")})
            await carrier.until(lambda: carrier.state(wrong).error, "it is refused")
            assert "invalid username-password pair" in carrier.state(wrong).error
            assert "s3cr" not in str(carrier.events) + repr(carrier.state(wrong))

        run(check())

    def test_a_user_with_few_rights_is_enough(self, run, kit, carrier):
        """Those that the documentation names."""

        async def check() -> None:
            rights = ["on", ">p", "~trackers:*", "+ping", "+multi", "+exec", "+xadd"]
            kit.ask("ACL", "SETUSER", "gateway", *rights)
            url = f"redis://gateway:p@127.0.0.1:{kit.target.port}"
            stream = await carrier.stream("redis", {"uri": url, "key": "trackers:all"})
            other = await carrier.stream("redis", {"uri": url, "key": "others"})
            await carrier.receive({"n": 0})
            await carrier.until(lambda: carrier.state(stream).counters.delivered == 1, "it is delivered")
            await carrier.until(
                lambda: ": NOPERM this user has no" in carrier.state(other).error, "this key is not for it"
            )

        run(check())

    def test_tls_trusts_the_own_authority_and_no_other(self, run, kit, carrier, tmp_path):
        """Redis stands behind a proxy that speaks TLS, as with most services."""

        async def check() -> None:
            authority = Authority("ours")
            (tmp_path / "ca.pem").write_bytes(authority.pem)
            authority.sign("redis").write(tmp_path / "server.pem", tmp_path / "server.key")
            async with tls_proxy(tmp_path, kit.target.port) as port:
                url = {**kit.configuration(), "uri": f"rediss://127.0.0.1:{port}"}
                trusting = await carrier.stream("redis", {**url, "ca_file": str(tmp_path / "ca.pem")})
                other = await carrier.stream("redis", url)
                lost = await carrier.stream("redis", {**url, "ca_file": str(tmp_path / "none.pem")})
                await carrier.receive({"n": 0})
                await carrier.until(lambda: carrier.state(trusting).counters.delivered == 1, "it is delivered")
                await carrier.until(lambda: "certificate verify failed" in carrier.state(other).error, "not trusted")
                await carrier.until(lambda: "none.pem" in carrier.state(lost).error, "there is no such file")
                await carrier.streams.stop()

        run(check())


@contextlib.asynccontextmanager
async def tls_proxy(directory, port):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem", directory / "server.key")
    tasks = set()

    async def pass_on(reader, writer) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def serve(reader, writer) -> None:
        tasks.add(asyncio.current_task())
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        if tasks:
            await asyncio.wait(tasks, timeout=10)


def test_nothing_is_left_when_it_is_closed_in_any_order(run, redis_target):
    async def check() -> None:
        target = Redis(Redis.Config(uri=redis_target.url), StreamInfo(1, "redis"))
        await target.close()
        await target.open()
        await target.open()
        assert await target.deliver([Outgoing(b"{}", "1")]) == []
        await target.close()
        await target.close()
        with pytest.raises(RemoteUnavailable, match="not connected"):
            await target.deliver([Outgoing(b"{}", "1")])

    run(check())


def test_where_one_message_fails_the_others_are_done(run, redis_target):
    """Those are not sent again."""

    async def check() -> None:
        with Client(port=redis_target.port) as client:
            client.execute_command("XADD", "messages", "18446744073709551615-18446744073709551615", "a", "b")
            client.execute_command("XGROUP", "CREATE", "messages", "g", "$")
        target = Redis(Redis.Config(uri=redis_target.url, key="messages%device.id%"), StreamInfo(1, "redis"))
        await target.open()
        batch = [Outgoing(b"{}", "1", 7), Outgoing(b"{}", "2"), Outgoing(b"{}", "3", 8)]
        with pytest.raises(RemoteRefused, match="exhausted the last possible ID"):
            await target.deliver(batch)
        assert [outgoing.is_done for outgoing in batch] == [True, False, True]
        await target.close()

    run(check())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("uri", "http://localhost"),
        ("uri", "redis://"),
        ("uri", "redis://host:99999"),
        ("uri", "redis://host/a"),
        ("uri", "redis://host/0/1"),
        ("uri", "redis://host?socket_timeout=1"),
        ("uri", "rediss://host?ssl_cert_reqs=none"),
        ("uri", "redis://user:pa/ss@host"),
        ("uri", "unix://"),
        ("key", "gw:{s0}:cursors"),
        ("key", "%ident%"),
        ("key", "gw%ident%"),
        ("key", "g%device.id%"),
        ("key", "gw:%ident%"),
    ],
)
def test_what_cannot_be_or_would_harm_a_gateway_is_refused(field, value):
    with pytest.raises(ItemError, match=r"should (be like|begin)") as refused:
        Redis.check(Redis.Config(**{"uri": "redis://host", field: value}))
    assert refused.value.field == f"configuration.{field}"


@pytest.mark.parametrize(
    "uri",
    [
        "redis://h",
        "redis://h:1/2",
        "rediss://u:p@h/0",
        "unix:///run/redis.sock",
        "unix:///run/redis.sock?db=2",
        "redis://[::1]:6379",
    ],
)
@pytest.mark.parametrize("key", ["messages", "a%ident%", "gateway", "gw%", "trackers:%device.id%"])
def test_what_can_be_is_taken(uri, key):
    Redis.check(Redis.Config(uri=uri, key=key))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([b"*2000000000\r\n"], "100000 or more elements or bytes was announced"),
        ([b"*20000", b"00000\r\n"], "100000 or more elements or bytes was announced"),
        ([b"*2\r\n*+2000000000\r\n"], "100000 or more elements or bytes was announced"),
        ([b"+" + b"x" * (ANSWERS_MOST + 1)], "answers of more than 16777216 bytes"),
    ],
)
def test_no_room_is_made_for_answers_of_any_length(run, answer, said):
    """A Redis that is somebody else's, or none, cannot have the gateway take gigabytes."""

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read(100)
            for part in answer:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.01)
            await reader.read()
        writer.close()

    async def check() -> None:
        async with await asyncio.start_server(other, "127.0.0.1", 0) as server:
            uri = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            target = Redis(Redis.Config(uri=uri, timeout=3.0), StreamInfo(1, "stream"))
            with pytest.raises(RemoteUnavailable, match=said):
                await target.open()
            await target.close()

    run(check())


def test_the_bound_is_that_of_one_batch(run, redis_target, monkeypatch):
    """A connection may have any number of answers."""
    monkeypatch.setattr(resp, "ANSWERS_MOST", 100_000)

    async def check() -> None:
        target = Redis(Redis.Config(uri=redis_target.url), StreamInfo(1, "stream"))
        await target.open()
        for _ in range(5):
            assert not await target.deliver([Outgoing(b"{}", "a") for _ in range(1000)])
        await target.close()

    run(check())
