"""A real broker for the tests: one node of Kafka in KRaft mode, on free ports of loopback."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from uuid import uuid4

from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaError

from tests.kafka.certificates import Certificates

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".kafka"
DOWNLOAD_S = 600
ANSWER_S = 90
CLUSTER = "MkU3OEVBNTcwNTJENDM2Qk"

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={folder}/data
# The records' times are those of the tests and long past.
log.retention.ms=-1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
"""
SECURE = {"SSL": "SSL", "SASL_SSL": "SASL_SSL", "MUTUAL": "SSL"}
"""Names and protocols of the listeners with certificates; MUTUAL asks for the client's too."""
USER, PASSWORD = "reader", "correct-horse"
SECURITY = """\
ssl.keystore.type=PEM
ssl.keystore.location={server}
ssl.truststore.type=PEM
ssl.truststore.location={ca}
listener.name.mutual.ssl.client.auth=required
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256
listener.name.sasl_ssl.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
"""
LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""


class NoBrokerError(RuntimeError):
    """Neither is a broker named, nor can one be started here; says why."""


def download() -> Path:
    """The folder of the broker's jars, from the cache or from Maven Central."""
    pom = HERE / "pom.xml"
    folder = CACHE / hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    if shutil.which("java") is None:
        raise NoBrokerError("Java 17 is needed to start a broker")
    if folder.is_dir():
        return folder
    if shutil.which("mvn") is None:
        raise NoBrokerError("Maven is needed to download a broker")
    fresh = CACHE / f"{folder.name}.{os.getpid()}"
    command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
    try:
        done = subprocess.run(
            [*command, "-DincludeScope=runtime", f"-DoutputDirectory={fresh}"],
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoBrokerError(f"the download took more than {DOWNLOAD_S} s") from None
    if done.returncode:
        raise NoBrokerError(f"the download failed: {done.stdout[-500:]}{done.stderr[-500:]}")
    with contextlib.suppress(OSError):  # another run may have been faster
        fresh.rename(folder)
    return folder


class Broker:
    """A node that can be stopped and started again, with its data kept in `folder`."""

    def __init__(self, folder: Path, certificates: Certificates | None = None) -> None:
        port, controller, *more = free_ports(2 + len(SECURE))
        self.servers = f"127.0.0.1:{port}"
        self.secure = {name: f"127.0.0.1:{n}" for name, n in zip(SECURE, more, strict=True)}
        """Servers of the listeners with certificates, if it was given some."""
        self._folder = folder
        self._java = [
            *("java", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            f"-Dlog4j2.configurationFile={folder}/log4j2.properties",
            *("-cp", f"{download()}/*"),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        text = PROPERTIES.format(port=port, controller=controller, folder=folder)
        users = []
        if certificates is not None:
            text = self._secured(text, certificates)
            users = ["--add-scram", f"SCRAM-SHA-256=[name={USER},password={PASSWORD}]"]
        (folder / "server.properties").write_text(text)
        (folder / "log4j2.properties").write_text(LOGGING)
        self._run("kafka.tools.StorageTool", "format", *users, "-t", CLUSTER, "-c")

    def _secured(self, text: str, certificates: Certificates) -> str:
        for name, servers in self.secure.items():
            for setting in ("listeners", "advertised.listeners"):
                text = re.sub(rf"(?m)^{setting}=.*$", rf"\g<0>,{name}://{servers}", text)
        protocols = ",".join(f"{name}:{protocol}" for name, protocol in SECURE.items())
        text = re.sub(r"(?m)^listener\.security.*$", rf"\g<0>,{protocols}", text)
        return text + SECURITY.format(
            server=certificates.server, ca=certificates.ca, user=USER, password=PASSWORD
        )

    def _run(self, main: str, *args: str) -> None:
        command = [*self._java, main, *args, f"{self._folder}/server.properties"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise NoBrokerError(f"{main} failed: {done.stdout[-500:]}{done.stderr[-500:]}")

    def start(self) -> None:
        """Start, and wait until it answers."""
        with (self._folder / "broker.log").open("ab") as output:
            self._process = subprocess.Popen(
                [*self._java, "kafka.Kafka", f"{self._folder}/server.properties"],
                stdout=output,
                stderr=output,
            )
        wait_for_answer(self.servers, self._check)

    def _check(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            said = (self._folder / "broker.log").read_text(errors="replace")
            raise NoBrokerError(f"the broker ended with {self._process.returncode}: {said[-800:]}")

    def stop(self) -> None:
        """Stop this process, and no other; wait until it has ended."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=30)
        self._process = None

    def kill(self) -> None:
        """End this process, and no other, without giving it time for anything."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=30)
        self._process = None


def wait_for_answer(servers: str, check: Callable[[], None] = lambda: None) -> None:
    """Wait until a broker answers."""
    until = time.monotonic() + ANSWER_S
    host, _, port = servers.rpartition(":")
    while True:
        check()
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1.0):
            break
        if time.monotonic() > until:
            raise NoBrokerError(f"{servers} cannot be reached")
        time.sleep(0.1)
    while True:
        check()
        try:
            client = KafkaAdminClient(bootstrap_servers=servers, bootstrap_timeout_ms=2000)
        except KafkaError as error:
            if time.monotonic() > until:
                message = f"{servers} did not answer within {ANSWER_S} s: {error}"
                raise NoBrokerError(message) from error
        else:
            client.close()
            return


def free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def new_topic(
    servers: str, name: str, partitions: int = 1, retention_bytes: int | None = None
) -> str:
    """Create a topic of its own for a test; its name begins with `name`."""
    topic = f"{name}-{uuid4().hex[:8]}"
    config = {}
    if retention_bytes is not None:
        config = {
            "retention.bytes": str(retention_bytes),
            "segment.bytes": str(retention_bytes // 4),
        }
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=servers)) as admin:
        admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=config)])
    return topic


Message = tuple[str, int, bytes | None, int | None]
"""Topic, partition, value and time (Unix milliseconds)."""


def produce(servers: str, messages: Iterable[Message]) -> None:
    """Write messages in this order, and wait until the broker has them."""
    with contextlib.closing(KafkaProducer(bootstrap_servers=servers, acks="all")) as producer:
        sent = [
            producer.send(
                topic,
                value=value,
                key=b"s" if value is None else None,  # a tombstone needs one
                partition=partition,
                timestamp_ms=time_ms,
            )
            for topic, partition, value, time_ms in messages
        ]
        for future in sent:
            future.get(timeout=60)


def produce_values(servers: str, topic: str, values: Sequence[bytes | None]) -> None:
    """Write values to partition 0, with a time that grows."""
    produce(servers, [(topic, 0, value, 1000 + n) for n, value in enumerate(values)])
