"""Kafka Connect 4.3.0 in distributed mode, with its file connectors and Debezium 3.6.3 on a real PostgreSQL.

The worker keeps its configurations, offsets and states in three compacted topics of the broker under test,
and its sources write exactly once (KIP-618): records and offsets in one transaction, which the worker that
takes its place aborts. It is killed in the middle of one, and another one goes on from there. The program in
`connect/` starts Connect's own classes; the jars lie in build/java (scripts/interop-deps.sh puts them there).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from interop.process import wait_until

HERE = Path(__file__).parent
SOURCE = HERE / "connect" / "ConnectWorker.java"
BUILD = HERE.parent.parent / "build" / "java"
JARS = f"{BUILD}/libs/*:{BUILD}/connect/*"
# A JVM that loads two thousand classes, on a machine that does other things as well.
START_TIMEOUT_S = 90
STEP_TIMEOUT_S = 40


@pytest.fixture(scope="session")
def worker_classes() -> Path:
    """The compiled program."""
    assert list((BUILD / "connect").glob("connect-runtime-*.jar")), "no jars: run scripts/interop-deps.sh"
    target = BUILD / f"connect-classes-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}"
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            part = target.with_suffix(".part")
            # Not classfile: the jars name annotations that are nowhere.
            command = ["javac", "-Xlint:all,-classfile", "-Werror", "-cp", JARS, "-d", str(part), str(SOURCE)]
            subprocess.run(command, check=True)
            part.rename(target)
    return target


class Postgres:
    """A server of our own, in a directory of its own: it will not run as root, nor under pytest's directories
    then, which are root's alone."""

    def __init__(self) -> None:
        (self._bin,) = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
        self._data = Path(tempfile.mkdtemp(prefix="ottla-postgres-"))
        self._prefix: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self._data, user.pw_uid, user.pw_gid)
            self._prefix = [
                "setpriv",
                f"--reuid={user.pw_uid}",
                f"--regid={user.pw_gid}",
                "--clear-groups",
                "--",
            ]
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        initdb = [str(self._bin / "initdb"), "-D", str(self._data / "db"), "-A", "trust", "-U", "postgres"]
        subprocess.run([*self._prefix, *initdb, "-N"], check=True, capture_output=True, cwd="/")
        server = [str(self._bin / "postgres"), "-D", str(self._data / "db"), "-p", str(self.port)]
        for setting in (
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self._data}",
            "wal_level=logical",
            "fsync=off",
        ):
            server += ["-c", setting]
        with (self._data / "log").open("wb") as log:
            self._process = subprocess.Popen([*self._prefix, *server], stdout=log, stderr=log, cwd="/")

    def sql(self, *statements: str) -> str:
        """Run the statements, each by itself; what they print."""
        command = [str(self._bin / "psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-qAt"]
        for statement in statements:
            command += ["-c", statement]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=STEP_TIMEOUT_S)
        return done.stdout if done.returncode == 0 else f"failed: {done.stderr}"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._data)


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    try:
        wait_until(lambda: server.sql("select 1") == "1\n", STEP_TIMEOUT_S, "the start of PostgreSQL")
        yield server
    finally:
        server.close()


class Worker:
    """One worker process of a Connect cluster."""

    def __init__(self, classes: Path, directory: Path, name: str, settings: dict[str, str]) -> None:
        self._output = directory / f"{name}.out"
        self.connectors = directory / name
        self.connectors.mkdir()
        properties(directory / f"{name}.properties", {**settings, "client.id": name})
        command = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xmx512m"]
        command += ["-cp", f"{classes}:{JARS}", "ConnectWorker"]
        command += [str(directory / f"{name}.properties"), str(self.connectors)]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    def wait_for(self, line: str) -> None:
        """Wait until the worker has printed this line."""

        def there() -> bool:
            assert self._process.poll() is None, self._output.read_text()
            return line in self._output.read_text().splitlines()

        try:
            wait_until(there, START_TIMEOUT_S, line, 0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._output.read_text()}") from None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit code: a JVM that ended in order on it has 143."""
        self._process.terminate()
        return self._process.wait(STEP_TIMEOUT_S)


@pytest.fixture
def start_worker(worker_classes: Path, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    started: list[Worker] = []

    def start(name: str, settings: dict[str, str]) -> Worker:
        started.append(Worker(worker_classes, tmp_path, name, settings))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


def properties(path: Path, settings: dict[str, str]) -> None:
    """Write a properties file, whole or not at all: somebody may be looking at its directory."""
    part = path.with_suffix(".part")
    part.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    part.rename(path)


def records(bootstrap: str, topic: str, isolation: str = "read_committed") -> list[tuple[Any, Any]]:
    """Keys and values that are in a topic now, from JSON if they are JSON; none if there is no such topic."""
    settings = {"bootstrap.servers": bootstrap, "group.id": "looker", "enable.auto.commit": False}
    consumer = Consumer({**settings, "enable.partition.eof": True, "isolation.level": isolation})
    described = consumer.list_topics(topic, timeout=60).topics[topic]
    waiting = set(described.partitions or ())
    consumer.assign([TopicPartition(topic, partition, 0) for partition in waiting])
    found: list[tuple[Any, Any]] = []
    while waiting:
        message = consumer.poll(0.1)
        if message is None:
            continue
        if message.error() is None:
            found.append((decoded(message.key()), decoded(message.value())))
        elif message.error().code() == KafkaError._PARTITION_EOF:
            waiting.discard(message.partition())
    consumer.close()
    return found


def decoded(data: bytes | None) -> Any:
    if data is None:
        return None
    try:
        return json.loads(data)
    except ValueError:
        return data.decode()


def worker_settings(bootstrap: str, name: str) -> dict[str, str]:
    converter = "org.apache.kafka.connect.storage.StringConverter"
    return {
        "bootstrap.servers": bootstrap,
        "group.id": name,
        **{f"{kind}.storage.topic": f"{name}-{kind}" for kind in ("config", "offset", "status")},
        **{f"{kind}.storage.replication.factor": "1" for kind in ("config", "offset", "status")},
        "key.converter": converter,
        "value.converter": converter,
        "offset.flush.interval.ms": "500",
        "exactly.once.source.support": "enabled",
        "consumer.isolation.level": "read_committed",
        # A worker that is gone is gone: its tasks wait for nobody, nor do the consumers of its sinks.
        "session.timeout.ms": "6000",
        "consumer.session.timeout.ms": "6000",
        "heartbeat.interval.ms": "1000",
        "scheduled.rebalance.max.delay.ms": "0",
        # The jars say what is in them: nothing has to be searched.
        "plugin.discovery": "service_load",
    }


def connectors(name: str, directory: Path, port: int) -> dict[str, dict[str, str]]:
    file = "org.apache.kafka.connect.file.FileStream{}Connector"
    as_json = {
        f"{side}.converter{suffix}": value
        for side in ("key", "value")
        for suffix, value in (
            ("", "org.apache.kafka.connect.json.JsonConverter"),
            (".schemas.enable", "false"),
        )
    }
    lines = f"{name}-lines"
    return {
        "source": {
            "connector.class": file.format("Source"),
            "file": str(directory / "in.txt"),
            "topic": lines,
            "exactly.once.support": "required",
            # Long enough to be killed in.
            "transaction.boundary": "interval",
            "transaction.boundary.interval.ms": "3000",
        },
        "sink": {"connector.class": file.format("Sink"), "file": str(directory / "out.txt"), "topics": lines},
        "debezium": {
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "database.hostname": "127.0.0.1",
            "database.port": str(port),
            "database.user": "postgres",
            "database.dbname": "postgres",
            "plugin.name": "pgoutput",
            "topic.prefix": name,
            "table.include.list": "public.customers",
            "exactly.once.support": "required",
            **as_json,
        },
    }


def changes(found: list[tuple[Any, Any]]) -> list[tuple[Any, ...]]:
    """Debezium's events: what was done, to which row, its e-mail after it."""
    told: list[tuple[Any, ...]] = []
    for key, value in found:
        if value is None:
            told.append(("tombstone", key["id"], None))
        else:
            after = value["after"] and value["after"]["email"]
            told.append((value["op"], key["id"], after))
    return told


def lines(bootstrap: str, topic: str, isolation: str = "read_committed") -> list[str]:
    return [value for _, value in records(bootstrap, topic, isolation)]


def append_uncommitted(bootstrap: str, topic: str, file: Path) -> tuple[list[str], str]:
    """Give the source lines until one of them is in a transaction that is open: those, and that one."""
    given: list[str] = []
    while True:
        given.append(f"more {len(given)}")
        with file.open("a") as end:
            end.write(f"{given[-1]}\n")
        wait_until(
            lambda: given[-1] in lines(bootstrap, topic, "read_uncommitted"),
            STEP_TIMEOUT_S,
            "the source writes a line",
            0.05,
        )
        if given[-1] not in lines(bootstrap, topic):
            return given, given[-1]


def test_connectors_outlive_their_worker_exactly_once(
    bootstrap: str,
    admin: AdminClient,
    name: str,
    start_worker: Callable[..., Worker],
    postgres: Postgres,
    tmp_path: Path,
) -> None:
    table = f"{name}.public.customers"
    postgres.sql(
        "create table customers (id int primary key, email text)",
        "insert into customers values (1, 'ada@old'), (2, 'bo@old')",
    )
    (tmp_path / "in.txt").write_text("one\ntwo\nthree\n")
    settings = worker_settings(bootstrap, name)
    one = start_worker("one", settings)
    for connector, config in connectors(name, tmp_path, postgres.port).items():
        properties(one.connectors / f"{connector}.properties", {**config, "tasks.max": "1"})
    for connector in ("source", "sink", "debezium"):
        one.wait_for(f"{connector} RUNNING 0=RUNNING")

    def written() -> list[str]:
        out = tmp_path / "out.txt"
        return list(dict.fromkeys(out.read_text().splitlines())) if out.exists() else []

    wait_until(lambda: written() == ["one", "two", "three"], STEP_TIMEOUT_S, "the sink has the lines", 0.1)
    snapshot = [("r", 1, "ada@old"), ("r", 2, "bo@old")]
    wait_until(lambda: changes(records(bootstrap, table)) == snapshot, STEP_TIMEOUT_S, "the snapshot", 0.2)
    postgres.sql(
        "insert into customers values (3, 'cy@old')",
        "update customers set email = 'ada@new' where id = 1",
        "delete from customers where id = 2",
    )
    seen = [*snapshot, ("c", 3, "cy@old"), ("u", 1, "ada@new"), ("d", 2, None), ("tombstone", 2, None)]
    wait_until(lambda: changes(records(bootstrap, table)) == seen, STEP_TIMEOUT_S, "the changes", 0.2)

    partitions = {}
    for kind in ("config", "offset", "status"):
        topic = f"{name}-{kind}"
        partitions[kind] = len(admin.list_topics(topic, timeout=60).topics[topic].partitions)
        resource = ConfigResource(ResourceType.TOPIC, topic)
        described = admin.describe_configs([resource])[resource].result(60)
        assert described["cleanup.policy"].value == "compact"
    assert partitions == {"config": 1, "offset": 25, "status": 5}

    # With each record its offset.
    last_lsn = max(value["source"]["lsn"] for _, value in records(bootstrap, table) if value is not None)

    kept = {key[0]: value for key, value in records(bootstrap, f"{name}-offset")}
    assert kept["source"] == {"position": 14}
    assert kept["debezium"]["lsn"] >= last_lsn

    topic = f"{name}-lines"
    more, uncommitted = append_uncommitted(bootstrap, topic, tmp_path / "in.txt")
    one.kill()
    with (tmp_path / "in.txt").open("a") as file:
        file.write("four\nfive\n")
    postgres.sql("update customers set email = 'cy@new' where id = 3")

    # The other worker is told of no connector: all that it knows is in the topics.
    two = start_worker("two", settings)
    for connector in ("source", "sink", "debezium"):
        two.wait_for(f"{connector} RUNNING 0=RUNNING")
    everything = ["one", "two", "three", *more, "four", "five"]
    wait_until(lambda: written() == everything, STEP_TIMEOUT_S, "the sink has all lines", 0.1)
    assert lines(bootstrap, topic) == everything
    # What the worker had open is there as well, aborted.
    assert lines(bootstrap, topic, "read_uncommitted").count(uncommitted) == 2
    seen.append(("u", 3, "cy@new"))
    wait_until(lambda: changes(records(bootstrap, table)) == seen, STEP_TIMEOUT_S, "the last change", 0.2)
    assert two.stop() == 143
