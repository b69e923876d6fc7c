"""All workers, in the first process: started, told of channels and of the gate, started again, ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable

from attrs import asdict, define, field
from twisted.logger import Logger

from gateway import metrics
from gateway.channel.channels import Channels
from gateway.channel.connections import Limits
from gateway.channel.observer import Observer
from gateway.errors import OperatorError
from gateway.store.gate import Gate
from gateway.store.item import encoded
from gateway.store.log import LogWriter
from gateway.workers import wire
from gateway.workers.desk import Desk
from gateway.workers.pipe import Pipe, open_pipe
from gateway.workers.sharing import shared_spec

READY_TIME = 30.0
RESTART_FIRST, RESTART_MOST = 1.0, 30.0
STEADY = 60.0
"""Seconds after which a worker that ends is started again at once."""
LOOK_EVERY = 5.0
SILENT_LOOKS = 4
"""Looks in a row at which a worker had said nothing, until it is killed: it speaks once a second."""
END_TIME = 5.0
"""Seconds beyond those for packets under way that a worker may take to end."""


@define(eq=False)
class Worker:
    """One that runs."""

    number: int
    process: asyncio.subprocess.Process
    pipe: Pipe[wire.FromWorker]
    desk: Desk
    gone: asyncio.Event = field(factory=asyncio.Event)
    silent: int = 0
    """Looks at which it had said nothing."""


class Crew:
    """``count`` workers. ``write_line`` takes their lines of the diagnostic log."""

    log = Logger()

    def __init__(
        self,
        count: int,
        channels: Channels,
        writer: LogWriter,
        gate: Gate,
        observer: Observer,
        limits: Limits,
        *,
        log_format: str = "text",
        log_level: str = "info",
        write_line: Callable[[str], object] = lambda text: None,
    ) -> None:
        self._count = count
        self._channels = channels
        self._writer = writer
        self._gate = gate
        self._observer = observer
        self._limits = limits
        self._log = (log_format, log_level)
        self._write_line = write_line
        self._workers: dict[int, Worker] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._is_stopping = False

    @property
    def workers(self) -> list[Worker]:
        """Those that run."""
        return list(self._workers.values())

    async def start(self) -> None:
        """Start all. Raises OperatorError where one does not come up."""
        metrics.gauge("workers", lambda: float(len(self._workers)))
        if not self._count:
            return
        self._gate.subscribe(self, self._gate_changed)
        self._channels.on_listening.append(self._listening)
        started = await asyncio.gather(*(self._begin(number) for number in range(1, self._count + 1)))
        self._keepers = [asyncio.ensure_future(self._keep(worker)) for worker in started]
        self._keepers.append(asyncio.ensure_future(self._look_for_silent_ones()))

    async def stop(self, timeout: float) -> None:
        """Have all end in order: what they took is stored and acknowledged, ``timeout`` seconds at most."""
        self._is_stopping = True
        self._gate.unsubscribe(self)
        for keeper in self._keepers:  # or those that end first would be started again
            keeper.cancel()
        ending = self.workers
        for worker in ending:
            if worker.desk.is_ready:
                worker.pipe.send(wire.Stop(timeout))
            else:
                worker.pipe.abort()
                self._ended(worker)
        if self._workers:
            waiting = [asyncio.ensure_future(worker.gone.wait()) for worker in self.workers]
            await asyncio.wait(waiting, timeout=timeout + END_TIME)
            for task in waiting:
                task.cancel()
        for worker in self.workers:
            worker.pipe.abort()
            self._ended(worker)
        for worker in ending:
            await _reap(worker.process)

    # -- one worker

    async def _begin(self, number: int) -> Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway.workers", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
            )
        worker: Worker
        pipe: Pipe[wire.FromWorker] = Pipe(
            wire.from_worker, lambda message: worker.desk.take(message), lambda: self._ended(worker)
        )
        desk = Desk(number, self._channels, self._writer, self._observer, pipe.send, self._write_line)
        worker = Worker(number, process, pipe, desk)
        self._workers[number] = worker
        await open_pipe(ours, pipe)
        pipe.send(wire.Setup(number, asdict(self._limits), *self._log))
        await self._until_ready(worker)
        pipe.send(wire.Gate(self._gate.is_open, "; ".join(self._gate.reasons)))
        for message in self._all_listening():
            pipe.send(message)
        return worker

    async def _until_ready(self, worker: Worker) -> None:
        try:
            async with asyncio.timeout(READY_TIME):
                while not worker.desk.is_ready:
                    if worker.gone.is_set():
                        raise OperatorError(f"gateway.workers: worker process {worker.number} ended at its start")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            worker.process.kill()
            raise OperatorError(f"gateway.workers: worker process {worker.number} is not ready in time") from None

    def _ended(self, worker: Worker) -> None:
        if worker.gone.is_set():
            return
        worker.gone.set()
        self._workers.pop(worker.number, None)
        worker.desk.close()
        if not self._is_stopping:
            self.log.error("worker process {number} ended; its trackers come again", number=worker.number)

    async def _keep(self, worker: Worker) -> None:
        """Start it again whenever it ends."""
        number, delay = worker.number, RESTART_FIRST
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await worker.gone.wait()
            await _reap(worker.process)
            delay = RESTART_FIRST if loop.time() - began > STEADY else min(delay * 2, RESTART_MOST)
            while True:
                await asyncio.sleep(delay)
                try:
                    worker = await self._begin(number)
                    metrics.count("worker_restarts")
                    break
                except (OperatorError, OSError) as error:
                    self.log.error("{error}", error=str(error))
                    delay = min(delay * 2, RESTART_MOST)

    async def _look_for_silent_ones(self) -> None:
        """One that hangs would keep its trackers waiting, and get new ones from the kernel."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            for worker in self.workers:
                worker.silent = 0 if worker.desk.is_heard else worker.silent + 1
                worker.desk.is_heard = False
                if worker.silent >= SILENT_LOOKS:
                    self.log.error("worker process {number} hangs, and is killed", number=worker.number)
                    with contextlib.suppress(ProcessLookupError):
                        worker.process.kill()

    # -- what they must know

    def _gate_changed(self, is_open: bool) -> None:
        self._tell(wire.Gate(is_open, "; ".join(self._gate.reasons)))

    def _listening(self, channel_id: int) -> None:
        self._tell(self._listen(channel_id))

    def _all_listening(self) -> list[wire.Message]:
        return [self._listen(channel_id) for channel_id in self._channels.listening()]

    def _listen(self, channel_id: int) -> wire.Message:
        channel, ports = self._channels.listening().get(channel_id, (None, {}))
        if channel is None:
            return wire.Listen(channel_id, b"", [])
        specs = [shared_spec(spec, ports.get(spec)) for spec in ports]
        return wire.Listen(channel_id, encoded(channel), [spec for spec in specs if spec is not None])

    def _tell(self, message: wire.Message) -> None:
        for worker in self.workers:
            worker.pipe.send(message)


async def _reap(process: asyncio.subprocess.Process) -> None:
    """Wait for its end; its pipe has ended already."""
    try:
        async with asyncio.timeout(END_TIME):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def worker_count(setting: int) -> int:
    """How many workers besides the first process: ``gateway.workers`` counts that one, and 0 means one per core."""
    return (setting or len(os.sched_getaffinity(0)) or 1) - 1
