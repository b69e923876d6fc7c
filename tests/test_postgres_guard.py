"""What streams to PostgreSQL make of a server that is none, or that wants to stop them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gateway.errors import RemoteUnavailable
from gateway.stream.postgres_guard import ANSWER_MOST, Messages
from gateway.stream.target import StreamInfo
from gateway.streams.postgresql import Postgresql
from tests.authority import Authority
from tests.postgres_table import Table, outgoing

# asyncpg's loop is in C: no signal would end it
pytestmark = pytest.mark.timeout(60, method="thread")

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SSL_REQUEST = struct.pack(">ii", 8, 80877103)


def message(kind: str, body: bytes = b"", length: int | None = None) -> bytes:
    return kind.encode() + struct.pack(">I", 4 + len(body) if length is None else length) + body


WELCOME = (
    message("R", bytes(4)) + message("S", b"server_version\x0016.0\0") + message("K", bytes(8)) + message("Z", b"I")
)
FAREWELL = message("E", b"SFATAL\0C57P03\0Mnot now\0\0")
NO_POSTGRESQL = "speaks no PostgreSQL"
SAY_NO_POSTGRESQL = {
    "five bytes": bytes([0, 0, 0, 0, 4]),
    "zeros": bytes(1000),
    "zeros after a message": message("R", bytes(4)) + bytes(1000),
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "no length": message("R", length=0),
    "less than its length": message("N", length=3),
    "no method": message("R", b"\0"),
    "no salt": message("R", b"\0\0\0\x05\0"),
    "no end of methods": message("R", b"\0\0\0\x0aSCRAM-SHA-256\0"),
    "a proof that was not asked for": message("R", b"\0\0\0\x0br=a,s=YQ==,i=4096"),
    "an end that has no beginning": message("R", b"\0\0\0\x0cv=YQ=="),
    "an end without a middle": message("R", b"\0\0\0\x0aSCRAM-SHA-256\0\0") + message("R", b"\0\0\0\x0cv=YQ=="),
    "no key": message("K", bytes(7)),
    "no status": message("Z"),
    "a text without end": message("S", b"server_version"),
    "one text of two": message("S", b"server_version\0"),
    "a notice without end": message("N", b"Mnotice\0"),
    "a notification without a text": message("A", bytes(5)),
}
ANNOUNCE = {
    "an error of 2 GB": message("E", length=0x7FFFFFFF),
    "a notice of 4 GB": message("N", length=0xFFFFFFFF),
    "just too much": message("D", length=ANSWER_MOST + 1),
    "too much together": message("t", bytes(100)) + message("t", length=ANSWER_MOST - 100),
}


@contextlib.asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    """The URI of a server that answers so."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await answer(reader, writer)
            await reader.read()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"postgresql://user:5ecret@127.0.0.1:{server.sockets[0].getsockname()[1]}/database"


async def greeted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, has_tls: ssl.SSLContext | None) -> None:
    """Up to where the client has said who it is."""
    begin = await reader.readexactly(8)
    if begin == SSL_REQUEST:
        writer.write(b"S" if has_tls else b"N")
        if has_tls:
            await writer.start_tls(has_tls)
        begin = await reader.readexactly(8)
    await reader.readexactly(int.from_bytes(begin[:4], "big") - 8)


async def sent(writer: asyncio.StreamWriter, data: bytes, is_trickle: bool) -> None:
    for piece in [data[n : n + 1] for n in range(len(data))] if is_trickle else [data]:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)  # who reads has its turn


def saying(data: bytes, *, is_trickle: bool = False, has_tls: ssl.SSLContext | None = None) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greeted(reader, writer, has_tls)
        await sent(writer, data, is_trickle)

    return answer


async def refusal(uri: str, **options) -> str:
    """Why it cannot be opened."""
    target = Postgresql(Postgresql.Config(uri=uri, timeout=10.0, **options), StreamInfo(1, "rows"))
    try:
        with pytest.raises(RemoteUnavailable) as caught:
            await target.open()
    finally:
        await target.close()
    reason = str(caught.value)
    assert "5ecret" not in reason
    return reason


@pytest.mark.parametrize("sslmode", ["disable", "prefer"])
@pytest.mark.parametrize("is_trickle", [False, True])
@pytest.mark.parametrize("data", SAY_NO_POSTGRESQL.values(), ids=SAY_NO_POSTGRESQL.keys())
def test_what_speaks_no_postgresql_is_left(run, data, is_trickle, sslmode):
    async def check() -> None:
        async with serving(saying(data, is_trickle=is_trickle)) as uri:
            async with asyncio.timeout(5):
                reason = await refusal(uri, sslmode=sslmode)
            address = uri.partition("@")[2].partition("/")[0]
            assert reason.startswith(f"{address} {NO_POSTGRESQL}")

    run(check())


@pytest.mark.parametrize("is_trickle", [False, True])
@pytest.mark.parametrize("data", ANNOUNCE.values(), ids=ANNOUNCE.keys())
def test_what_announces_too_much_is_not_waited_for(run, data, is_trickle):
    async def check() -> None:
        async with serving(saying(data, is_trickle=is_trickle)) as uri:
            async with asyncio.timeout(5):
                reason = await refusal(uri)
            assert f"{uri.partition('@')[2].partition('/')[0]} announces " in reason
            assert str(int.from_bytes(data[-4:], "big")) in reason

    run(check())


@pytest.mark.parametrize("sslmode", ["prefer", "require"])
def test_within_tls_it_is_the_same(run, tmp_path, sslmode):
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    Authority("authority").sign("127.0.0.1").write(certificate, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def check() -> None:
        async with serving(saying(bytes(5), has_tls=context)) as uri:
            async with asyncio.timeout(5):
                assert NO_POSTGRESQL in await refusal(uri, sslmode=sslmode)

    run(check())


@pytest.mark.parametrize("is_trickle", [False, True])
def test_what_came_before_is_heeded(run, is_trickle):
    """An error is told in the server's words, whatever follows it."""

    async def check() -> None:
        async with serving(saying(FAREWELL + bytes(10), is_trickle=is_trickle)) as uri:
            assert "not now" in await refusal(uri, sslmode="disable")

    run(check())


@pytest.mark.parametrize(
    "data",
    [
        message("R", b"\0\0\0\x0aSCRAM-SHA-256\0\0") + message("R", b"\0\0\0\x0bnonsense"),
        message("R", bytes(4)) + message("Z", b"I"),  # without a version
        message("E", b"SFATAL\0C28P01\0MPasswort ung\xfcltig\0\0") + message("Z", b"I"),
    ],
)
def test_a_login_that_cannot_be_followed_is_the_servers_fault(run, data):
    async def check() -> None:
        async with serving(saying(data)) as uri:
            assert "sends what cannot be followed" in await refusal(uri)

    run(check())


def test_a_server_that_is_silent_after_the_login_is_left_in_time(run, monkeypatch):
    monkeypatch.setattr("gateway.streams.postgresql.GRACE", 0.1)

    async def check() -> None:
        async with serving(saying(WELCOME)) as uri:
            target = Postgresql(Postgresql.Config(uri=uri, timeout=0.1), StreamInfo(1, "rows"))
            async with asyncio.timeout(5):
                with pytest.raises(RemoteUnavailable, match=r"did not answer within 0\.1 s"):
                    await target.open()
                await target.close()

    run(check())


def test_a_connection_that_stands_is_cut_as_well(run):
    """Also while nobody waits for an answer; the next delivery tells why."""

    async def check() -> None:
        is_open, is_over = asyncio.Event(), asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await greeted(reader, writer, None)
            writer.write(WELCOME)
            await is_open.wait()
            writer.write(bytes(5))
            with contextlib.suppress(ConnectionError):
                await reader.read()
            is_over.set()

        async with serving(answer) as uri:
            target = Postgresql(Postgresql.Config(uri=uri, create=False), StreamInfo(1, "rows"))
            await target.open()
            is_open.set()
            async with asyncio.timeout(5):
                await is_over.wait()
            with pytest.raises(RemoteUnavailable, match=NO_POSTGRESQL):
                await target.deliver([outgoing(n=1)])
            await target.close()

    run(check())


def test_answers_that_nobody_asked_for_end_the_connection(run, caplog):
    """asyncpg has nobody to give them to, and raises within the event loop."""

    async def check() -> None:
        is_over = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await greeted(reader, writer, None)
            writer.write(WELCOME)
            writer.write(message("Z", b"I") * 3)
            with contextlib.suppress(ConnectionError):
                await reader.read()
            is_over.set()

        async with serving(answer) as uri:
            target = Postgresql(Postgresql.Config(uri=uri, create=False), StreamInfo(1, "rows"))
            with contextlib.suppress(RemoteUnavailable):
                await target.open()
            async with asyncio.timeout(5):
                await is_over.wait()
            with pytest.raises(RemoteUnavailable, match=r"cannot be followed|not connected"):
                await target.deliver([outgoing(n=1)])
            await target.close()

    run(check())
    assert not caplog.records


@contextlib.asynccontextmanager
async def trickling(server_port: int) -> AsyncIterator[int]:
    """The port of a way to the server on which its answers come byte by byte."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", server_port)

        async def forth() -> None:
            while data := await reader.read(65536):
                far_writer.write(data)
            far_writer.close()

        async def back() -> None:
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := await far_reader.read(65536):
                await sent(writer, data, is_trickle=True)
            writer.close()

        with contextlib.suppress(ConnectionError):
            await asyncio.gather(forth(), back())

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("sslmode", ["disable", "require"])
def test_a_real_server_may_answer_byte_by_byte(run, postgres_server, postgres_url, sslmode):
    async def check() -> None:
        table = Table(postgres_server, postgres_url)
        port = int(postgres_url.partition("@")[2].partition(":")[2].partition("/")[0])
        async with trickling(port) as other:
            uri = postgres_url.replace(f":{port}/", f":{other}/")
            assert uri != postgres_url
            assert not await table.deliver({"n": 1}, uri=uri, sslmode=sslmode)
            (rejection,) = await table.deliver({"n": 1, "text": "a\0b"}, uri=uri, sslmode=sslmode)
            assert "22P05" in rejection.reason
        assert len(await table.rows()) == 1

    run(check())


# -- messages


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 1000])
def test_pieces_change_nothing(size):
    """Only what is whole is handed on, and all of it, before the flaw."""
    good = WELCOME + FAREWELL + message("D", bytes(300)) + message("1") + WELCOME
    for rest, flaw in (
        (b"", ""),
        (b"D\0\0\1\0", ""),
        (bytes(5), NO_POSTGRESQL),
        (ANNOUNCE["an error of 2 GB"], "announces"),
    ):
        messages, data, whole = Messages(), good + rest, b""
        for start in range(0, len(data), size):
            whole += messages.whole(data[start : start + size])
        assert whole == good
        assert messages.flaw[: len(flaw) or None] == flaw


def test_each_query_may_have_a_large_answer():
    messages = Messages()
    answer = message("N", b"M" + bytes(ANSWER_MOST - 100).replace(b"\0", b"x") + b"\0\0") + message("Z", b"I")
    for _ in range(3):
        assert messages.whole(answer) == answer
        assert not messages.flaw
