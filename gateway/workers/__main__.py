"""``python -m gateway.workers FD``: a worker process; the gateway's first process starts it, nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
import socket
import sys
from typing import Any

from gateway import aio

PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""


class Lines:
    """Where the diagnostic log writes: to the first process."""

    def __init__(self, send: Any) -> None:
        self._send = send

    def write(self, text: str) -> None:
        """A line."""
        from gateway.workers import wire

        self._send(wire.Line(text))

    def flush(self) -> None:
        """It is on its way."""


def end_with_parent() -> None:
    """Linux: have the kernel kill this process when the one that started it is gone, also where it stands still; it
    would keep its part of the ports. Elsewhere the end of the pipe has to do."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main(fd: int) -> None:
    """Run until the first process says so, or is gone."""
    aio.install_reactor()
    from twisted.internet import reactor
    from twisted.logger import globalLogBeginner

    from gateway.log import Observer, adopt_standard_library
    from gateway.workers import wire
    from gateway.workers.pipe import open_pipe
    from gateway.workers.worker import Worker

    end_with_parent()
    running: Any = reactor
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # they are meant for the first process, which has the others end in order

    def set_up(setup: wire.Setup) -> None:
        out: Any = Lines(worker.pipe.send)
        observer = Observer(out, setup.log_format, setup.log_level)
        globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
        adopt_standard_library()

    worker = Worker(reactor, set_up, running.stop)
    sock = socket.socket(fileno=fd)
    running.callWhenRunning(lambda: asyncio.ensure_future(open_pipe(sock, worker.pipe)))
    running.run(installSignalHandlers=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
