"""Channels that start, change and stop at run time: the others run on, and a change that fails changes nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from attrs import evolve
from twisted.internet import reactor

from gateway.channel.channels import Channels
from gateway.channel.connections import Limits
from gateway.channel.endpoints import parse_range, port_of, problem_for_api
from gateway.channel.observer import Counted, Observer
from gateway.channel.ports import PortRange
from gateway.errors import ConfigError, ItemError, ListenError, StoreError
from gateway.store.event_codes import CloseCode
from gateway.store.gate import Gate
from gateway.store.items import Change, Channel, Items
from gateway.store.keys import ShardKeys
from gateway.store.log import LogWriter
from tests.builders import FrameFactory
from tests.items_rest import free_ports

KEYS = ShardKeys()
LOCAL = ":interface=127.0.0.1"

# Twisted before 26.10 leaves the socket of a failed bind to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Codes(Observer):
    """Remembers why connections ended."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def closed(self, party: Counted, code: CloseCode, why: str) -> None:
        self.seen.append(int(code))


class There:
    """Channels on real ports, and a store that commits. ``codes``: why connections ended."""

    def __init__(self, redis) -> None:
        self.redis = redis
        self.items = Items(redis)
        gate = Gate()
        self.writer = LogWriter(redis, KEYS, gate)
        codes = Codes()
        self.codes = codes.seen
        self.channels = Channels(reactor, self.items, self.writer, gate, Limits(), observer=codes)

    async def create(self, *listen: str, name: str = "test", **values) -> Channel:
        return await self.items.create_channel(
            name=name, protocol_id=14, configuration={"listen": list(listen)}, **values
        )

    async def change(self, channel: Channel, **values) -> Channel:
        return await self.items.change_channel(channel.id, lambda old: evolve(old, **values))

    async def listen(self, channel: Channel, *listen: str) -> Channel:
        return await self.change(channel, configuration={"listen": list(listen)})

    def port(self, channel: Channel) -> int:
        port = self.channels.port_of(channel)
        assert port is not None
        return port

    async def tracker(self, channel: Channel, frames: FrameFactory | None = None) -> Tracker:
        tracker = Tracker(*await asyncio.open_connection("127.0.0.1", self.port(channel)))
        await tracker.log_in(frames or FrameFactory())
        return tracker


class Tracker:
    """One that is logged in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.frames = FrameFactory()

    async def log_in(self, frames: FrameFactory) -> None:
        self.frames = frames
        self.writer.write(frames.login())
        assert await self.reader.readexactly(1) == b"\x01"

    async def send(self) -> None:
        """A packet that is acknowledged."""
        self.writer.write(self.frames.packet(2))
        assert await self.reader.readexactly(4) == b"\0\0\0\2"

    async def is_closed(self) -> bool:
        async with asyncio.timeout(5):
            return await self.reader.read() == b""

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


@asynccontextmanager
async def running(redis) -> AsyncIterator[There]:
    there = There(redis)
    writing = asyncio.ensure_future(there.writer.run())
    await there.channels.start()
    try:
        yield there
    finally:
        await there.channels.stop(timeout=2)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


def free_port() -> int:
    return free_ports(1)[0]


def spec(port: int) -> str:
    return f"tcp:{port}{LOCAL}"


def is_free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return one.connect_ex(("127.0.0.1", port)) != 0


def test_a_channel_that_is_created_takes_trackers_at_once(run, redis):
    """Without a restart, and disturbing nobody."""

    async def scenario() -> None:
        async with running(redis) as there:
            first = await there.create(spec(0))
            tracker = await there.tracker(first)
            second = await there.create(spec(0), f"udp:0{LOCAL}", name="second")
            other = await there.tracker(second, FrameFactory(imei="111111111111111"))
            await tracker.send()
            await other.send()
            assert await redis.xlen(KEYS.channel_log(second.id)) == 1
            kinds = [address.partition(" ")[0] for channel, address in there.channels.addresses() if channel == second]
            assert kinds == ["tcp", "udp"]
            await tracker.close()
            await other.close()

    run(scenario())


def test_a_port_in_use_leaves_no_channel(run, redis):
    """The reason names it; nothing is stored, nothing listens, and the port in use is not disturbed."""

    async def scenario() -> None:
        async with running(redis) as there:
            first = await there.create(spec(0))
            free = free_port()
            with pytest.raises(ListenError, match="cannot listen"):
                await there.create(spec(free), spec(there.port(first)), name="second")
            assert list(there.items.channels) == [first.id]
            assert await redis.hlen("gw:{items}:channels") == 1
            assert is_free(free)
            tracker = await there.tracker(first)
            await tracker.send()
            await tracker.close()

    run(scenario())


def test_a_change_of_what_does_not_concern_connections_leaves_them(run, redis):
    """Name, lifetime, metadata, the rule for unknown idents: the tracker notices nothing, and the rule holds."""

    async def scenario() -> None:
        async with running(redis) as there:
            channel = await there.create(spec(0))
            tracker = await there.tracker(channel)
            configuration = {**channel.configuration, "unknown_ident": "reject"}
            changed = await there.change(
                channel, name="new", messages_ttl=5, metadata={"a": 1}, configuration=configuration
            )
            await tracker.send()
            assert [one.name for one, _address in there.channels.addresses()] == ["new"]
            reader, writer = await asyncio.open_connection("127.0.0.1", there.port(changed))
            writer.write(FrameFactory(imei="111111111111111").login())
            assert await reader.read() == b"\0"
            await tracker.close()
            writer.close()
            await writer.wait_closed()

    run(scenario())


def test_another_port_closes_the_connections_and_frees_the_old_one(run, redis):
    """The tracker comes back to the new one; an endpoint that stays is never closed."""

    async def scenario() -> None:
        async with running(redis) as there:
            old, stays, new = (spec(free_port()) for _ in range(3))
            channel = await there.create(old, stays)
            tracker = await there.tracker(channel)
            changed = await there.listen(channel, new, stays)
            assert await tracker.is_closed()
            assert there.codes == [9]
            assert is_free(port_of(old)[1])
            assert not is_free(port_of(stays)[1])
            again = await there.tracker(changed)
            await again.send()
            await tracker.close()
            await again.close()

    run(scenario())


def test_a_port_may_change_its_interface(run, redis):
    """The old endpoint is in the way of the new one, so it goes first."""

    async def scenario() -> None:
        async with running(redis) as there:
            port = free_port()
            channel = await there.create(f"tcp:{port}:interface=127.0.0.1")
            await there.listen(channel, f"tcp:{port}")
            assert [address for _, address in there.channels.addresses()] == [f"tcp 0.0.0.0:{port}"]
            assert there.items.channels[channel.id].listen == [f"tcp:{port}"]

    run(scenario())


@pytest.mark.parametrize("wrong", ["busy", "nonsense"])
def test_a_change_that_fails_keeps_the_old_state_whole(run, redis, wrong: str):
    """The connection too; even where the old endpoint had to go before it was known that the new one cannot be."""

    async def scenario() -> None:
        async with running(redis) as there:
            blocker = await there.create(spec(0), name="blocker")
            port = free_port()
            channel = await there.create(spec(port))
            tracker = await there.tracker(channel)
            bad = spec(there.port(blocker)) if wrong == "busy" else "tcp:abc"
            with pytest.raises((ListenError, ConfigError)):
                await there.listen(channel, f"tcp:{port}", bad)
            assert there.items.channels[channel.id] == channel
            await tracker.send()
            other = await there.tracker(channel, FrameFactory(imei="111111111111111"))
            await other.send()
            await tracker.close()
            await other.close()

    run(scenario())


def test_a_change_that_cannot_be_stored_is_taken_back(run, redis, monkeypatch):
    """What listens is what is stored."""

    async def scenario() -> None:
        async with running(redis) as there:
            old, new = spec(free_port()), spec(free_port())
            channel = await there.create(old)
            tracker = await there.tracker(channel)

            async def refuse(*_arguments) -> None:
                raise StoreError("no")

            with monkeypatch.context() as patched:
                patched.setattr(there.items.records, "write", refuse)
                with pytest.raises(StoreError):
                    await there.listen(channel, new)
                with pytest.raises(StoreError):
                    await there.create(new)
            assert is_free(port_of(new)[1])
            assert there.items.channels == {channel.id: channel}
            await tracker.send()
            await tracker.close()

    run(scenario())


@pytest.mark.parametrize("how", ["disabled", "deleted"])
def test_a_channel_that_goes_closes_its_connections_only(run, redis, how: str):
    """Its port is free, and the other channel's tracker goes on."""

    async def scenario() -> None:
        async with running(redis) as there:
            going, staying = await there.create(spec(0), name="going"), await there.create(spec(0))
            port = there.port(going)
            first = await there.tracker(going)
            second = await there.tracker(staying, FrameFactory(imei="111111111111111"))
            await (there.change(going, enabled=False) if how == "disabled" else there.items.delete_channel(going.id))
            assert await first.is_closed()
            assert there.codes == [21]
            assert is_free(port)
            await second.send()
            if how == "disabled":
                await there.change(going, enabled=True)
                again = await there.tracker(going)
                await again.send()
                await again.close()
            await first.close()
            await second.close()

    run(scenario())


def test_concurrent_changes_of_a_channel_come_one_after_the_other(run, redis):
    """What listens in the end is what is stored, and nothing else."""

    async def scenario() -> None:
        async with running(redis) as there:
            channel = await there.create(spec(0))
            ports = [free_port() for _ in range(5)]
            await asyncio.gather(*(there.listen(channel, spec(port)) for port in ports))
            [stored] = there.items.channels[channel.id].listen
            assert [spec(port) for port in ports if not is_free(port)] == [stored]

    run(scenario())


def test_a_client_that_hangs_up_leaves_no_half_done_change(run, redis):
    """Whenever it is cancelled: what has begun is done, and told, to its end."""

    async def scenario() -> None:
        async with running(redis) as there:
            channel = await there.create(spec(0))
            told: list[Change] = []
            there.items.on_change.append(told.append)
            for turns in range(30):
                port = free_port()
                changing = asyncio.ensure_future(there.listen(channel, spec(port)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                changing.cancel()
                await asyncio.gather(changing, return_exceptions=True)
                await there.items.settle(5)
                [stored] = there.items.channels[channel.id].listen
                assert (stored == spec(port)) is not is_free(port)
                assert (stored == spec(port)) is (turns > 0)
                assert len(there.channels.addresses()) == 1
            assert len(told) == 29
            again = Items(redis)
            await again.load()
            assert again.channels == there.items.channels

    run(scenario())


@pytest.mark.parametrize(
    ("values", "codes"),
    [
        ({"name": "new"}, []),
        ({"messages_ttl": 5}, []),
        ({"device_type_id": 10000}, [15]),
        ({"configuration": {"ident": "99"}}, [15]),
        ({"enabled": False}, [23]),
    ],
)
def test_a_device_that_becomes_another_closes_its_connection(run, redis, values: dict, codes: list[int]):
    """Its tracker logs in again, and is taken as what it is now; what does not concern it leaves it."""

    async def scenario() -> None:
        async with running(redis) as there:
            frames = FrameFactory()
            channel = await there.create(spec(0))
            device = await there.items.create_device(ident=frames.imei, name="x", protocol_id=14, device_type_id=303)
            tracker = await there.tracker(channel)
            await there.items.change_device(device.id, lambda old: evolve(old, **values))
            if codes:
                assert await tracker.is_closed()
            else:
                await tracker.send()
            assert there.codes == codes
            await tracker.close()

    run(scenario())


def test_a_device_that_is_made_or_deleted_closes_the_connection_of_its_ident(run, redis):
    """An ident that was unknown becomes a device, and the other way round."""

    async def scenario() -> None:
        async with running(redis) as there:
            frames = FrameFactory()
            channel = await there.create(spec(0))
            tracker = await there.tracker(channel)
            device = await there.items.create_device(ident=frames.imei, name="x", protocol_id=14, device_type_id=303)
            assert await tracker.is_closed()
            again = await there.tracker(channel)
            await there.items.delete_device(device.id)
            assert await again.is_closed()
            assert there.codes == [15, 15]
            await tracker.close()
            await again.close()

    run(scenario())


def test_a_channel_gets_the_lowest_port_that_is_free(run, redis):
    """Free of other channels, also of disabled ones, and of other programs; concurrent creations get different ones."""

    async def scenario() -> None:
        async with running(redis) as there:
            with socket.socket() as held:
                first = free_ports(4)[0]
                held.bind(("0.0.0.0", first + 1))
                held.listen()
                ports = PortRange(range(first, first + 4), there.items)

                async def make(listen: list[str]) -> Channel:
                    return await there.create(*listen, enabled=listen[0] != f"tcp:{first}")

                made = await asyncio.gather(*(ports.create(make) for _ in range(3)))
                assert [there.port(channel) for channel in made] == [first, first + 2, first + 3]
                with pytest.raises(ListenError, match=rf"no port from {first} to {first + 3} is free"):
                    await ports.create(make)

    run(scenario())


def test_there_is_a_most_of_channels(run, redis, monkeypatch):
    """Also where they are created at the same time."""
    monkeypatch.setattr("gateway.store.items.CHANNELS_MOST", 3)

    async def scenario() -> None:
        items = Items(redis)
        results = await asyncio.gather(
            *(items.create_channel(name="x", protocol_id=14) for _ in range(5)), return_exceptions=True
        )
        assert len(items.channels) == 3
        refused = [result for result in results if isinstance(result, ItemError)]
        assert [str(error) for error in refused] == ["there are 3 channels, which is the most that can be"] * 2

    run(scenario())


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ("tcp:5027", None),
        ("ssl:5027:privateKey=a.pem:certKey=b.pem", None),
        ("haproxy:tcp:5027", None),
        ("udp:5027:interface=10.0.0.1", None),
        ("unix:/tmp/x", "an endpoint such as tcp:5027"),
        ("haproxy:unix:/tmp/x", "an endpoint such as tcp:5027"),
        ("systemd:domain=INET:index=0", "an endpoint such as tcp:5027"),
        ("stdio:", "an endpoint such as tcp:5027"),
        ("tcp:70000", "tcp:PORT with a port from 0 to 65535"),
        ("tcp:99999999999999999999999", "tcp:PORT with a port from 0 to 65535"),
        ("tcp:5027:mode=5", "without mode"),
        ("x" * 600, "at most 512 characters"),
        ("", "an endpoint such as tcp:5027"),
    ],
)
def test_the_api_may_not_listen_on_everything(given: str, right: str | None):
    """No files, no sockets of somebody else."""
    problem = problem_for_api(given)
    assert problem is None if right is None else right in (problem or "")


@pytest.mark.parametrize("text", ["", "5", "0-5", "9-8", "5-70000", "a-b", "1-2-3", "\u0665-\u0666"])
def test_a_range_of_ports_that_is_none(text: str):
    """First and last, from 1 to 65535."""
    assert parse_range(text) is None


def test_a_range_of_ports():
    """Both ends belong to it."""
    assert parse_range("20000-20001") == range(20000, 20002)
