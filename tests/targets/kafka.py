"""Kafka, one node that is broker and controller; its jars come from ``install_servers.sh``."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.authority import Authority
from tests.targets.process import ServerProcess, ended_with_test, find_program, free_port, leave_out, speaks

JARS = Path(__file__).parent.parent.parent / ".venv" / "kafka"
# A small heap, and no time lost on code that runs only once.
JAVA_OPTIONS = (
    *("-Xms64m", "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
    *("-Djava.awt.headless=true", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"),
)
CLUSTER = "Z2F0ZXdheS10YXJnZXRzIQ"
"""16 bytes in base64."""
USER = "keeper"
PASSWORD = "pass word"

_CORRELATION = b"\0\0\0\x2a"
_API_VERSIONS = struct.pack("!hh", 18, 0) + _CORRELATION + struct.pack("!h", -1)
API_VERSIONS = struct.pack("!i", len(_API_VERSIONS)) + _API_VERSIONS

SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAIN://127.0.0.1:{port},TLS://127.0.0.1:{tls},PASSWORD://127.0.0.1:{password},CONTROLLER://127.0.0.1:{controller}
inter.broker.listener.name=PLAIN
listener.security.protocol.map=PLAIN:PLAINTEXT,TLS:SSL,PASSWORD:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location={data}/server.pem
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.password.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{secret}";
listener.name.password.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.password.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
super.users=User:{user}
log.dirs={data}/log
num.partitions={partitions}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
# a broker that was killed is welcome again at once
broker.session.timeout.ms=1000
broker.heartbeat.interval.ms=200
"""


class KafkaServer(ServerProcess):
    """A Kafka whose data are in ``directory``; a topic is made when it is first used, with ``partitions``.

    :attr:`address` takes anybody, :attr:`password_address` :data:`USER` with :data:`PASSWORD` (SASL, PLAIN or SCRAM),
    :attr:`tls_address` anybody over TLS. Who is anybody may do all that no access list of the resource forbids.
    """

    start_seconds = 60.0

    def __init__(self, directory: Path, partitions: int = 3) -> None:
        if not any(JARS.glob("kafka_*.jar")):
            leave_out("kafka is not installed (tests/install_servers.sh fetches it)")
        self._java = [find_program("java"), *JAVA_OPTIONS, "-cp", f"{JARS}/*"]
        super().__init__("kafka", self._java, directory)
        self._ports = {"port": self.port, "tls": free_port(), "password": free_port(), "controller": free_port()}
        self.data = directory / self.name
        self.data.mkdir()
        self._settings = self.data / "server.properties"
        values = {"data": self.data, "partitions": partitions, "user": USER, "secret": PASSWORD}
        self._settings.write_text(SETTINGS.format(**self._ports, **values))
        self.command += ["kafka.Kafka", str(self._settings)]
        self.authority = self.data / "authority.pem"
        """The certificate to trust for :attr:`tls_address`."""
        self._certify()

    @property
    def address(self) -> str:
        """What clients call the bootstrap server."""
        return f"127.0.0.1:{self.port}"

    @property
    def tls_address(self) -> str:
        return f"127.0.0.1:{self._ports['tls']}"

    @property
    def password_address(self) -> str:
        return f"127.0.0.1:{self._ports['password']}"

    def start(self) -> None:
        """Start it, a few seconds; the first time its storage is made before."""
        if not (self.data / "log").exists():
            self._format()
        super().start()

    def answers(self) -> bool:
        # the port is open before, but nothing is read from it
        return speaks(self.port, API_VERSIONS, _CORRELATION, skipped=4)

    def _format(self) -> None:
        command = [*self._java, "kafka.tools.StorageTool", "format", "--config", str(self._settings)]
        command += ["--cluster-id", CLUSTER]
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
            command += ["--add-scram", f'{mechanism}=[name={USER},password="{PASSWORD}"]']
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"kafka: {done.stdout}{done.stderr}"

    def _certify(self) -> None:
        authority = Authority("brokers")
        self.authority.write_bytes(authority.pem)
        signed = authority.sign("kafka")
        (self.data / "server.pem").write_bytes(signed.key_pem() + signed.pem)


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """One Kafka for all tests that leave it running; each gives its topics names of its own."""
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture
def make_kafka(tmp_path: Path) -> Iterator[Callable[..., KafkaServer]]:
    """Makes and starts Kafkas that a test may stop, kill and start again; they end with the test."""
    made: list[KafkaServer] = []

    def make(partitions: int = 3) -> KafkaServer:
        made.append(KafkaServer(tmp_path, partitions))
        made[-1].start()
        return made[-1]

    with ended_with_test(made):
        yield make
