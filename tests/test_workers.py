"""What the first process and its workers say to each other, and what each makes of it."""

from __future__ import annotations

import asyncio
import signal
import socket

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import message as msg
from gateway import metrics
from gateway.channel.connections import Limits
from gateway.errors import EncodeError, ListenError, NotCommitted
from gateway.store.gate import Gate
from gateway.workers import crew, wire
from gateway.workers.asking import PENDING_BYTES, Doorkeeper, FrontWriter
from gateway.workers.crew import worker_count
from gateway.workers.desk import stamped
from gateway.workers.ordered import LATE_COMMAND, FrontLines
from gateway.workers.pipe import AT_ONCE, Pipe, open_pipe
from gateway.workers.remote import RemoteConnection
from gateway.workers.sharing import check_free, shared_spec
from gateway.workers.worker import FiguresOf

TEXTS = [b'{"ident":"1","timestamp":1.5}', b'{"a":{"b":"}"}}', b"{}"]


class Ends:
    """Both ends of a pipe."""

    def __init__(self) -> None:
        self.heard: list[wire.FromWorker] = []
        self.lost = 0
        self.ours, self.theirs = socket.socketpair()
        self.pipe: Pipe[wire.FromWorker] = Pipe(wire.from_worker, self.heard.append, self._lose)

    def _lose(self) -> None:
        self.lost += 1

    async def open(self) -> None:
        await open_pipe(self.ours, self.pipe)

    async def until(self, condition) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.005)


# -- the pipe


def test_messages_come_in_order_however_they_are_cut(run):
    async def check() -> None:
        ends = Ends()
        await ends.open()
        sent = [wire.Line(f"line {n}") for n in range(AT_ONCE * 2 + 7)]
        data = b"".join(wire.pack(one) for one in sent)
        for start in range(300):
            ends.theirs.send(data[start : start + 1])
            await asyncio.sleep(0)
        ends.theirs.setblocking(True)
        ends.theirs.sendall(data[300:])
        await ends.until(lambda: len(ends.heard) == len(sent))
        assert ends.heard == sent
        ends.theirs.close()
        await ends.until(lambda: ends.lost)
        assert not ends.pipe.is_open

    run(check())


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x02\xc1\xc1", b"\x00\x00\x00\x00", wire.pack(wire.Stop(1.0))]
)
def test_what_is_no_message_ends_the_pipe(run, data):
    """A length beyond all bounds, no MessagePack, nothing, and what only the first process says."""

    async def check() -> None:
        ends = Ends()
        await ends.open()
        ends.theirs.send(data)
        await ends.until(lambda: ends.lost)
        assert ends.heard == []
        ends.theirs.close()

    run(check())


def test_what_is_sent_to_nobody_is_dropped(run):
    async def check() -> None:
        ends = Ends()
        await ends.open()
        ends.theirs.close()
        await ends.until(lambda: ends.lost)
        ends.pipe.send(wire.Line("x"))
        await asyncio.sleep(0.01)
        ends.pipe.close()
        assert ends.lost == 1

    run(check())


# -- what is stored


@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=255), st.integers(10**15, 2 * 10**15))
def test_each_message_gets_a_time_of_its_own(texts, first):
    """As the first process would have written it: in seconds, exact to the microsecond."""
    lines = stamped(b"\n".join(texts), first).split(b"\n")
    messages = [msg.decode(line.replace(b"{,", b"{")) for line in lines]
    assert [round(message["server.timestamp"] * 1e6) for message in messages] == list(range(first, first + len(texts)))


def test_packets_wait_for_their_answer_and_the_gate_closes_when_too_many_do(run):
    async def check() -> None:
        sent: list[wire.Message] = []
        gate = Gate()
        writer = FrontWriter(sent.append, gate)
        done: list[object] = []
        writer.append(1, 0, "1", b'{"a":1}\n{"a":2}', done.append)
        writer.park(1, "1", b"raw", done.append, "why")
        assert sent == [wire.Store(1, 1, "1", 2, b'{"a":1}\n{"a":2}'), wire.Park(2, 1, "1", b"raw", "why")]
        assert not await writer.drain(0.01)
        writer.stored(wire.Stored(1, ""))
        writer.stored(wire.Stored(2, "no room"))
        assert done[0] is None
        assert isinstance(done[1], NotCommitted)
        assert await writer.drain(0.01)
        writer.append(1, 0, "1", bytes(PENDING_BYTES + 1), done.append)
        assert not gate.is_open
        writer.stored(wire.Stored(3, ""))
        assert gate.is_open

    run(check())


# -- who is welcome


def test_what_the_first_process_said_of_an_ident_is_known_until_it_says_something_else():
    sent: list[wire.Message] = []
    doorkeeper = Doorkeeper(sent.append)
    verdicts: list[object] = []
    doorkeeper.ask(1, "42", verdicts.append)
    assert sent == [wire.Ask(1, 1, "42")]
    assert doorkeeper.of(1, "42").device is None
    device = b'{"id":7,"name":"Van","protocol_id":14,"device_type_id":303,"configuration":{"ident":"42"}}'
    doorkeeper.answered(wire.Verdict(1, True, "", 14, True, device, None))
    known = doorkeeper.of(1, "42").device
    assert known is not None
    assert (known.id, known.ident) == (7, "42")
    assert verdicts[0].is_welcome
    doorkeeper.ask(1, "42", verdicts.append)
    doorkeeper.answered(wire.Verdict(2, False, "no", 14, False, b"", "FMB120"))
    assert doorkeeper.of(1, "42").device is None
    assert doorkeeper.of(1, "42").model == "FMB120"
    assert verdicts[1].reason == "no"


# -- commands


class Line:
    """A connection whose line is free or not."""

    def __init__(self) -> None:
        self.id = 5
        self.may_send_command = True
        self.sent: list[bytes] = []
        self.abandoned = 0
        self.is_too_long = False

    def send_command(self, payload: bytes, codec_id: int) -> None:
        if self.is_too_long:
            raise EncodeError("too long")
        self.sent.append(payload)

    def abandon_command(self) -> None:
        self.abandoned += 1


class Commanded:
    """A worker's lines with one device on one connection."""

    def __init__(self) -> None:
        self.time = 0.0
        self.said: list[wire.Message] = []
        self.lines = FrontLines(self.said.append, Doorkeeper(lambda message: None), lambda: self.time)
        self.link = Line()

        class Device:
            id = 3

        self.lines.connected(Device(), None, self.link)  # type: ignore[arg-type]


def test_a_command_goes_out_when_the_line_is_free_and_its_answer_is_told():
    one = Commanded()
    one.link.may_send_command = False
    one.lines.command(one.link, wire.Command(5, 8, b"getver", 12))
    assert one.link.sent == []
    one.link.may_send_command = True
    one.lines.line_changed(3)
    one.lines.line_changed(3)
    assert one.link.sent == [b"getver"]
    assert one.lines.answered(3, one.link, b"Ver:1", "")
    assert one.said == [wire.Answered(5, 8, b"Ver:1", "", {"codec_id": 12, "type": 6, "payload": b"Ver:1"})]
    assert not one.lines.answered(3, one.link, b"Ver:1", "")


def test_a_command_that_cannot_be_sent_is_refused_with_the_reason():
    one = Commanded()
    one.link.is_too_long = True
    one.lines.command(one.link, wire.Command(5, 8, b"x", 12))
    assert one.said == [wire.Answered(5, 8, b"", "too long", None)]


def test_an_answer_that_nobody_waits_for_any_longer_is_a_message():
    one = Commanded()
    one.lines.command(one.link, wire.Command(5, 8, b"getver", 12))
    one.lines.abandon(one.link)
    assert one.link.abandoned == 1
    assert not one.lines.answered(3, one.link, b"late", "")
    assert one.said == []


def test_a_command_without_an_answer_is_sent_also_where_the_line_was_not_free_at_once():
    one = Commanded()
    one.link.may_send_command = False
    one.lines.command(one.link, wire.Command(5, 8, b"cpureset", 12))
    one.lines.abandon(one.link)
    one.link.may_send_command = True
    one.lines.line_changed(3)
    assert (one.link.sent, one.link.abandoned) == ([b"cpureset"], 1)


def test_commands_without_an_answer_all_go_out_in_order_when_the_line_is_free():
    """The first process sends one behind the other, and says of each that it was sent."""
    one = Commanded()
    one.link.may_send_command = False
    for number, text in enumerate((b"setdigout 1", b"setdigout 0"), 1):
        one.lines.command(one.link, wire.Command(5, number, text, 12))
        one.lines.abandon(one.link)
    one.lines.command(one.link, wire.Command(5, 3, b"getver", 12))
    one.link.may_send_command = True
    one.lines.line_changed(3)
    assert (one.link.sent, one.link.abandoned) == ([b"setdigout 1", b"setdigout 0", b"getver"], 2)
    assert one.lines.answered(3, one.link, b"Ver:1", "")
    assert one.said == [wire.Answered(5, 3, b"Ver:1", "", {"codec_id": 12, "type": 6, "payload": b"Ver:1"})]
    assert not one.lines.answered(3, one.link, b"Ver:1", "")


def test_a_command_that_was_given_up_before_it_could_go_out_is_never_sent():
    """The client was told that it failed."""
    one = Commanded()
    one.link.may_send_command = False
    one.lines.command(one.link, wire.Command(5, 8, b"setdigout 1", 12))
    one.time = LATE_COMMAND + 0.1
    one.lines.abandon(one.link)
    one.link.may_send_command = True
    one.lines.line_changed(3)
    assert one.link.sent == []


def test_an_answer_on_its_way_when_its_command_is_given_up_is_none_to_the_next_one():
    """The two cross between the processes; each answer has the number of its command."""
    heard: list[bytes] = []
    sent: list[wire.Message] = []

    class Lines:
        def answered(self, line_id: int, link: object, payload: bytes, refusal: str) -> bool:
            heard.append(payload)
            return True

    class Intake:
        gate = Gate()
        lines = Lines()

        def line_of(self, *_: object) -> int:
            return 3

    opened = wire.Opened(5, 1, "10.0.0.1:5", "10.0.0.1", "tcp")
    remote = RemoteConnection(5, opened, Intake(), sent.append, lambda: 0.0)  # type: ignore[arg-type]
    remote.take_line("42")
    remote.send_command(b"getver", 12)
    remote.abandon_command()
    remote.send_command(b"getinfo", 12)
    first, _, second = sent
    assert not remote.answered(first.number, b"Ver:1", "")
    assert not remote.may_send_command
    assert remote.answered(second.number, b"Info", "")
    assert heard == [b"Info"]
    assert remote.may_send_command


# -- the crew


def test_while_all_end_none_is_started_again(run, monkeypatch):
    """Also where one of them ends long before the others: it would listen again while the gateway stops."""

    class Channels:
        on_listening: list[object] = []

        def listening(self) -> dict[int, object]:
            return {}

    monkeypatch.setattr(crew, "RESTART_FIRST", 0.005)
    monkeypatch.setattr(crew, "END_TIME", 1.0)
    started: list[asyncio.subprocess.Process] = []
    start = asyncio.create_subprocess_exec

    async def noting(*arguments, **options):
        started.append(await start(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noting)

    async def check() -> None:
        all_of_them = crew.Crew(2, Channels(), None, Gate(), None, Limits())  # type: ignore[arg-type]
        await all_of_them.start()
        slow = all_of_them.workers[1]
        slow.process.send_signal(signal.SIGSTOP)
        await all_of_them.stop(0.5)
        assert len(started) == 2
        assert all(process.returncode is not None for process in started)

    run(check())


# -- figures


def test_figures_of_other_processes_are_added_once():
    figures = FiguresOf()
    figures.grown()
    metrics.count("packets", 3, channel="workers-test")
    metrics.observe("commit_seconds", 0.004)
    grown = figures.grown()
    assert ("packets", [("channel", "workers-test")], 3) in grown.counters
    [(name, labels, buckets, total)] = [one for one in grown.histograms if one[0] == "commit_seconds"]
    assert (sum(buckets), round(total, 6)) == (1, 0.004)
    assert figures.grown() == wire.Figures([], [])
    before = _observations(name)
    metrics.take([], [(name, labels, buckets, total)])
    assert _observations(name) == before + 1


def _observations(name: str) -> int:
    return sum(sum(histogram.buckets) for other, _, histogram in metrics.histograms() if other == name)


# -- ports


@pytest.mark.parametrize(
    ("spec", "port", "shared"),
    [
        ("tcp:5027", 5027, "tcp:5027"),
        ("tcp:0:interface=127.0.0.1", 40001, "tcp:40001:interface=127.0.0.1"),
        ("ssl:0:privateKey=k:certKey=c", 40002, "ssl:40002:privateKey=k:certKey=c"),
        ("haproxy:tcp:0", 40003, "haproxy:tcp:40003"),
        ("tcp6:5027", 5027, "tcp6:5027"),
        ("udp:5027", 5027, None),
        ("systemd:domain=INET:index=0", 5027, None),
        ("unix:/run/x.sock", None, None),
    ],
)
def test_tcp_and_tls_are_shared_on_the_port_that_there_is(spec, port, shared):
    assert shared_spec(spec, port) == shared


@pytest.mark.parametrize(
    ("host", "options"), [("127.0.0.1", ":interface=127.0.0.1"), ("::1", r":interface=\:\:1"), ("", "")]
)
def test_a_port_that_somebody_has_is_not_shared(run, host, options):
    """Not even where he is ready to share it; one that becomes free in time is taken."""

    async def check() -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind((host, 0))
            other.listen()
            spec = f"tcp:{other.getsockname()[1]}{options}"
            with pytest.raises(ListenError, match=r"tcp:\d+.*: cannot listen: .*in use"):
                await check_free(["udp:5027", "tcp:0", spec], patience=0.2)
            asyncio.get_running_loop().call_later(0.3, other.close)
            await check_free([spec], patience=5)

    run(check())


def test_the_setting_counts_the_first_process_too(monkeypatch):
    assert worker_count(1) == 0
    assert worker_count(4) == 3
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3, 4, 5, 6, 7})
    assert worker_count(0) == 7


def test_limits_survive_the_way():
    """Whole numbers and fractions."""
    limits = Limits(login_time=2.5)
    setup = wire.Setup(1, msgspec.to_builtins(limits), "text", "info")
    back = wire.to_worker.decode(wire.pack(setup)[wire.SIZE :])
    assert isinstance(back, wire.Setup)
    assert msgspec.convert(back.limits, Limits, strict=False) == limits
