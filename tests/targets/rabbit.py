"""RabbitMQ with a directory, a node name and an Erlang port mapper of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.authority import Authority
from tests.targets.process import ServerProcess, ended_with_test, find_program, free_port, speaks

PROTOCOL_HEADER = b"AMQP\0\0\x09\x01"
METHOD_FRAME = b"\x01"


SETTINGS = """\
vm_memory_high_watermark.absolute = 1GiB
disk_free_limit.absolute = 50MB
listeners.ssl.1 = 127.0.0.1:{tls}
ssl_options.cacertfile = {data}/authority.pem
ssl_options.certfile = {data}/server.pem
ssl_options.keyfile = {data}/server.key
"""


class PortMapper(ServerProcess):
    """``epmd``, which Erlang would otherwise leave behind as a daemon, one for all on its well-known port."""

    def __init__(self, directory: Path) -> None:
        super().__init__("epmd", [find_program("epmd"), "-address", "127.0.0.1"], directory)
        self.command += ["-port", str(self.port)]


class RabbitServer(ServerProcess):
    """A RabbitMQ without plugins whose data are in ``directory``; ``guest`` may connect, from this machine."""

    start_seconds = 60.0

    def __init__(self, directory: Path) -> None:
        self._mapper = PortMapper(directory)
        # the one on the PATH changes to the user of the service, and to its directories
        program = find_program("rabbitmq-server", "/usr/lib/rabbitmq/bin")
        super().__init__("rabbitmq", [program], directory)
        self.data = directory / f"rabbitmq-{self.port}"
        self.data.mkdir()
        self._tls_port = free_port()
        self.authority = self.data / "authority.pem"
        """The certificate to trust for :attr:`tls_url`."""
        self._certify()
        self.environment |= self._settings()

    def _settings(self) -> dict[str, str]:
        data = str(self.data)
        configuration = self.data / "rabbitmq.conf"
        configuration.write_text(SETTINGS.format(tls=self._tls_port, data=data))
        return {
            "HOME": data,  # of the Erlang cookie
            "ERL_EPMD_PORT": str(self._mapper.port),
            "RABBITMQ_NODENAME": f"rabbit-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": f"{data}/mnesia",
            "RABBITMQ_LOG_BASE": f"{data}/log",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": f"{data}/pid",
            "RABBITMQ_CONF_ENV_FILE": f"{data}/none",
            "RABBITMQ_CONFIG_FILE": str(configuration),
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{data}/none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{data}/none",
            # threads that spin while they wait take the time of the only cores
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
            # the shell that starts it becomes it: signals reach it
            "RUNNING_UNDER_SYSTEMD": "1",
        }

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def tls_url(self) -> str:
        return f"amqps://guest:guest@127.0.0.1:{self._tls_port}/?cafile={self.authority}"

    def start(self) -> None:
        """Start it, a few seconds; queues and messages that are durable are there again."""
        if not self._mapper.is_running:
            self._mapper.start()
        super().start()

    def _certify(self) -> None:
        authority = Authority("brokers")
        self.authority.write_bytes(authority.pem)
        authority.sign("rabbitmq").write(self.data / "server.pem", self.data / "server.key")

    def answers(self) -> bool:
        return speaks(self.port, PROTOCOL_HEADER, METHOD_FRAME)

    def close(self) -> None:
        super().close()
        self._mapper.close()


@pytest.fixture(scope="session")
def rabbit_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """One RabbitMQ for all tests that leave it running; each gives its exchanges and queues names of its own."""
    with RabbitServer(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture
def make_rabbit(tmp_path: Path) -> Iterator[Callable[[], RabbitServer]]:
    """Makes and starts RabbitMQs that a test may stop, kill and start again; they end with the test."""
    made: list[RabbitServer] = []

    def make() -> RabbitServer:
        made.append(RabbitServer(tmp_path))
        made[-1].start()
        return made[-1]

    with ended_with_test(made):
        yield make
