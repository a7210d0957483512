"""`ottla serve --processes N` with real processes: one address, N nodes, one data directory."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from tls_support import Authority, pem_of

import etcd_support
from interop.process import BrokerProcess, wait_until
from measuring import not_waiting

QUIET = {"log_level": 0}


def free_ports(count: int) -> int:
    """The first of so many consecutive ports that nobody has, of those that the system gives to nobody."""
    while True:
        first = random.randint(20_000, 30_000)
        sockets = [socket.socket() for _ in range(count)]
        try:
            for number, one in enumerate(sockets):
                one.bind(("127.0.0.1", first + number))
            return first
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()


class Nodes(BrokerProcess):
    """The command with so many nodes, and ports of its own."""

    def __init__(
        self, directory: Path, processes: int, *, session_ms: int = 20_000, arguments: Sequence[str] = ()
    ) -> None:
        settings = {"broker.session.timeout.ms": str(session_ms)}
        super().__init__(directory, settings, arguments=("--processes", str(processes), *arguments))
        self.processes = processes
        self.port = free_ports(processes + 1)

    def children(self) -> dict[int, int]:
        """Processes of nodes, by node id."""
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if not entry.name.isdigit():
                    continue
                status = (entry / "stat").read_text().rpartition(")")[2].split()
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if int(status[1]) == self.pid and status[0] != "Z" and b"ottla.processes.child" in words:
                found[int(words[4].removeprefix(b"node-"))] = int(entry.name)
        return found

    def port_of(self, node_id: int) -> int:
        return self.port + node_id

    def refused(self) -> str:
        """Start it in vain; what it says."""
        self.spawn()
        assert self.process is not None
        assert self.process.wait(60) == 1
        self.process = None
        return self.log().splitlines()[-1]


@contextmanager
def running(directory: Path, processes: int, **options: Any) -> Iterator[Nodes]:
    nodes = Nodes(directory, processes, **options)
    try:
        nodes.start()
        yield nodes
    finally:
        if nodes.alive():
            nodes.stop()
        print(nodes.log())


def admin(nodes: BrokerProcess) -> AdminClient:
    return AdminClient({"bootstrap.servers": nodes.bootstrap, **QUIET})


def create(nodes: BrokerProcess, topic: str, partitions: int) -> None:
    client = admin(nodes)
    client.create_topics([NewTopic(topic, partitions, 1)], operation_timeout=60)[topic].result(60)
    wait_until(lambda: len(leaders(nodes, topic)) == partitions, what=f"{topic} is led")


def leaders(nodes: BrokerProcess, topic: str) -> dict[int, int]:
    """Who leads which partition, of those that are led."""
    client = admin(nodes)
    found = client.list_topics(topic, 10).topics[topic].partitions
    return {index: state.leader for index, state in found.items() if state.leader >= 0}


def produce(nodes: BrokerProcess, topic: str, values: Sequence[str], partitions: int) -> None:
    """Values, in turn to all partitions; all of them acknowledged."""
    errors: list[KafkaError] = []
    producer = Producer({"bootstrap.servers": nodes.bootstrap, "acks": "all", "linger.ms": 1, **QUIET})
    for number, value in enumerate(values):
        producer.produce(
            topic,
            value,
            partition=number % partitions,
            on_delivery=lambda error, _: errors.append(error) if error else None,
        )
        producer.poll(0)
    assert producer.flush(60) == 0
    assert not errors


def consume(nodes: BrokerProcess, topic: str, count: int, *, group: str = "g") -> list[str]:
    """So many values, by a group from the beginning on, committed."""
    consumer = Consumer(
        {
            "bootstrap.servers": nodes.bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **QUIET,
        }
    )
    consumer.subscribe([topic])
    values: list[str] = []
    deadline = time.monotonic() + 60
    while len(values) < count and time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            values.append(message.value().decode())
    consumer.commit(asynchronous=False)
    consumer.close()
    return values


def test_one_address_for_all_nodes_and_their_partitions_are_spread(tmp_path: Path) -> None:
    with running(tmp_path, 3) as nodes:
        found = admin(nodes).list_topics(timeout=60)
        assert {(one.id, one.port) for one in found.brokers.values()} == {
            (node_id, nodes.port_of(node_id)) for node_id in (1, 2, 3)
        }
        create(nodes, "t", 6)
        assert Counter(leaders(nodes, "t").values()) == {1: 2, 2: 2, 3: 2}
        values = [str(number) for number in range(3_000)]
        produce(nodes, "t", values, 6)
        assert sorted(consume(nodes, "t", 3_000)) == sorted(values)
        # Also the groups' coordinators, with one replica each.
        offsets = admin(nodes).list_topics("__consumer_offsets", 10).topics["__consumer_offsets"].partitions
        assert len({state.leader for state in offsets.values()}) == 3
        assert {len(state.replicas) for state in offsets.values()} == {1}
        # Each node by itself knows all of them.
        for node_id in (1, 2, 3):
            client = AdminClient({"bootstrap.servers": f"127.0.0.1:{nodes.port_of(node_id)}", **QUIET})
            assert set(client.list_topics(timeout=60).brokers) == {1, 2, 3}
        assert nodes.stop() == 0
        lines = nodes.log().splitlines()
        assert all(any(f"[node {node_id}]" in line for line in lines) for node_id in (1, 2, 3))
        # What runs is said at the start, by the command as well, and not when it first has something to say.
        assert "(pure Python)" in lines[0] or "(compiled)" in lines[0]
        assert "starting 3 nodes" in lines[1]


def test_nobody_else_reads_what_the_nodes_know_each_other_by(tmp_path: Path) -> None:
    """Who knows a registration's key can pass for that node."""
    with running(tmp_path, 2) as nodes:
        create(nodes, "t", 1)
        files = [nodes.data / "metadata.db", nodes.data / "metadata.db-wal"]
        assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]
        assert b"fetch_key" in b"".join(file.read_bytes() for file in files)


def test_all_of_it_is_there_after_a_restart(tmp_path: Path) -> None:
    with running(tmp_path, 2) as nodes:
        create(nodes, "t", 4)
        produce(nodes, "t", [str(number) for number in range(400)], 4)
        assert len(consume(nodes, "t", 400)) == 400
        assert nodes.stop() == 0
        nodes.start()
        produce(nodes, "t", [str(number) for number in range(400, 800)], 4)
        assert sorted(map(int, consume(nodes, "t", 400))) == list(range(400, 800))
        assert sorted(map(int, consume(nodes, "t", 800, group="other"))) == list(range(800))


def test_a_node_that_is_killed_is_back_with_its_data(tmp_path: Path) -> None:
    with running(tmp_path, 2) as nodes:
        create(nodes, "t", 4)
        produce(nodes, "t", [str(number) for number in range(400)], 4)
        before = nodes.children()
        os.kill(before[2], signal.SIGKILL)
        wait_until(lambda: nodes.children().get(2) not in (None, before[2]), what="node 2 is started again")
        # Producers bear it, and nothing is missing.
        produce(nodes, "t", [str(number) for number in range(400, 800)], 4)
        assert sorted(map(int, consume(nodes, "t", 800))) == list(range(800))
        assert nodes.children()[1] == before[1]
        assert (
            f"node 2 (process {before[2]}) ended with SIGKILL: it is started again in 100 ms" in nodes.log()
        )


def test_nothing_acknowledged_is_lost_or_doubled_while_nodes_are_killed(tmp_path: Path) -> None:
    with running(tmp_path, 2) as nodes:
        create(nodes, "t", 4)
        sent: list[list[str]] = [[] for _ in range(4)]
        failed: list[str] = []
        producer = Producer(
            {"bootstrap.servers": nodes.bootstrap, "enable.idempotence": True, "linger.ms": 2, **QUIET}
        )

        def told(error: KafkaError | None, message: Any) -> None:
            if error is None:
                sent[message.partition()].append(message.value().decode())
            else:
                failed.append(str(error))

        number = 0
        for kill in range(5):
            until = time.monotonic() + 1.0
            node_id = 1 + kill % 2
            pid = nodes.children()[node_id]
            os.kill(pid, signal.SIGKILL)
            while time.monotonic() < until:
                producer.produce("t", str(number), partition=number % 4, on_delivery=told)
                number += 1
                producer.poll(0.001)
            wait_until(partial(is_another, nodes, node_id, pid), what="the node is started again")
        assert producer.flush(60) == 0
        assert not failed
        assert sorted(int(value) for values in sent for value in values) == list(range(number))
        for index, values in enumerate(partitions_of(nodes, "t", [len(values) for values in sent])):
            assert values == [str(one) for one in range(index, number, 4)]


def is_another(nodes: Nodes, node_id: int, pid: int) -> bool:
    return nodes.children().get(node_id) not in (None, pid)


def partitions_of(nodes: BrokerProcess, topic: str, counts: Sequence[int]) -> list[list[str]]:
    """The values of each partition, in their order; more than so many would be seen as well."""
    consumer = Consumer(
        {"bootstrap.servers": nodes.bootstrap, "group.id": "x", "enable.partition.eof": True, **QUIET}
    )
    consumer.assign([TopicPartition(topic, index, 0) for index in range(len(counts))])
    found: list[list[str]] = [[] for _ in counts]
    ended: set[int] = set()
    deadline = time.monotonic() + 60
    while len(ended) < len(counts):
        assert time.monotonic() < deadline, f"{[len(values) for values in found]} of {counts}"
        message = consumer.poll(0.5)
        if message is None:
            continue
        if message.error() is None:
            found[message.partition()].append(message.value().decode())
        elif message.error().code() == KafkaError._PARTITION_EOF:
            ended.add(message.partition())
    consumer.close()
    return found


def test_others_take_over_at_once_what_a_killed_node_led(tmp_path: Path) -> None:
    """Long before its session ends: the command knows that it is gone."""
    with running(tmp_path, 3, session_ms=60_000) as nodes:
        client = admin(nodes)
        new = NewTopic("t", 1, replica_assignment=[[2, 3]])
        client.create_topics([new], operation_timeout=60)["t"].result(60)
        wait_until(lambda: leaders(nodes, "t") == {0: 2}, what="t is led")
        produce(nodes, "t", ["1"], 1)
        with not_waiting(60):
            os.kill(nodes.children()[2], signal.SIGKILL)
            produce(nodes, "t", ["2"], 1)
        assert consume(nodes, "t", 2) == ["1", "2"]


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGABRT])
def test_no_node_outlives_the_command(tmp_path: Path, signum: signal.Signals) -> None:
    with running(tmp_path, 2) as nodes:
        create(nodes, "t", 2)
        produce(nodes, "t", [str(number) for number in range(100)], 2)
        children = nodes.children()
        assert set(children) == {1, 2}
        # One that stands still ends as well.
        os.kill(children[1], signal.SIGSTOP)
        assert nodes.process is not None
        nodes.process.send_signal(signum)
        nodes.process.wait(60)
        nodes.process = None
        for pid in children.values():
            wait_until(lambda pid=pid: not running_process(pid), 10, "a node ends")  # type: ignore[misc]
        # What was acknowledged is there.
        nodes.start()
        assert sorted(map(int, consume(nodes, "t", 100))) == list(range(100))


def running_process(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_stop_reaches_a_node_that_stands_still(tmp_path: Path) -> None:
    with running(tmp_path, 2) as nodes:
        children = nodes.children()
        os.kill(children[2], signal.SIGSTOP)
        assert nodes.stop() == 0
        assert not any(map(running_process, children.values()))
        assert (nodes.data / ".kafka_cleanshutdown").exists()
        assert (nodes.data / "nodes" / "2" / ".kafka_cleanshutdown").exists()


def test_a_node_that_cannot_start_ends_the_command_with_its_reason(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path, 2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", nodes.port_of(2)))
        taken.listen()
        nodes.refused()
        assert f"ottla: node 2: cannot listen on 127.0.0.1:{nodes.port_of(2)}" in nodes.log()


def test_the_shared_port_is_nobody_elses(tmp_path: Path) -> None:
    with running(tmp_path / "a", 2) as nodes:
        other = Nodes(tmp_path / "b", 2)
        other.port = nodes.port
        assert f"cannot listen on 127.0.0.1:{nodes.port}: address already in use" in other.refused()


def test_a_data_directory_in_use_is_refused(tmp_path: Path) -> None:
    with running(tmp_path / "a", 2) as nodes:
        other = Nodes(tmp_path / "b", 2)
        other.data = nodes.data
        assert "is in use by another broker" in other.refused()


def test_free_ports_and_a_working_directory_with_anything_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    nodes = Nodes(tmp_path, 2)
    nodes.program = ("-P", "-m", "ottla.cli.main")
    nodes.port = 0
    try:
        nodes.start()
        create(nodes, "t", 2)
        produce(nodes, "t", ["0", "1"], 2)
        before = nodes.children()
        os.kill(before[2], signal.SIGKILL)
        wait_until(lambda: nodes.children().get(2) not in (None, before[2]), what="node 2 is started again")
        # At another port: clients hear of it.
        assert sorted(consume(nodes, "t", 2)) == ["0", "1"]
    finally:
        if nodes.alive():
            nodes.stop()
        print(nodes.log())


# ------------------------------------------------------------ one process, several, fewer


def test_the_data_of_one_process_is_there_with_several_and_the_other_way_round(
    tmp_path: Path, ottla_process: Callable[..., BrokerProcess]
) -> None:
    data = tmp_path / "data"
    single = ottla_process(data=data)
    create(single, "old", 3)
    produce(single, "old", [str(number) for number in range(300)], 3)
    assert len(consume(single, "old", 300)) == 300
    assert single.stop() == 0
    with running(tmp_path, 2) as nodes:
        # Groups go on where they were, too.
        produce(nodes, "old", [str(number) for number in range(300, 600)], 3)
        assert sorted(map(int, consume(nodes, "old", 300))) == list(range(300, 600))
        assert set(leaders(nodes, "old").values()) == {1}
        assert "'ottla cluster reassign --all' spreads them" in nodes.log()
        nodes.kill()
        wait_until(lambda: not nodes_of(data), what="the nodes end")
    # Node 2 was given nothing: all there is are node 1's partitions, which one process serves as before.
    assert single.start().alive()
    assert sorted(map(int, consume(single, "old", 600, group="other"))) == list(range(600))
    produce(single, "old", ["600"], 3)
    assert single.stop() == 0


def nodes_of(data: Path) -> list[str]:
    """Processes that have the data directory open."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                links = [os.readlink(link) for link in (entry / "fd").iterdir()]
            except OSError:
                continue
            if any(link.startswith(str(data)) for link in links):
                found.append(entry.name)
    return found


def test_fewer_nodes_are_refused_until_the_others_are_empty(tmp_path: Path) -> None:
    with running(tmp_path, 3) as nodes:
        create(nodes, "t", 6)
        produce(nodes, "t", [str(number) for number in range(600)], 6)
        assert nodes.stop() == 0
        for fewer, missing in ((2, "3"), (1, "2, 3")):
            nodes.arguments = ("--processes", str(fewer))
            said = nodes.refused()
            assert "partitions of" in said and f"({missing})" in said and "--processes 3" in said
            assert "ottla cluster drain" in said
        nodes.arguments = ("--processes", "3")
        nodes.start()
        drain(nodes, 3)
        assert nodes.stop() == 0
        nodes.arguments = ("--processes", "2")
        nodes.start()
        assert set(admin(nodes).list_topics(timeout=60).brokers) == {1, 2}
        assert sorted(map(int, consume(nodes, "t", 600))) == list(range(600))
        drain(nodes, 2)
        assert nodes.stop() == 0
        nodes.arguments = ()
        nodes.start()
        assert sorted(map(int, consume(nodes, "t", 600, group="other"))) == list(range(600))


def drain(nodes: BrokerProcess, node_id: int) -> None:
    command = [sys.executable, "-m", "ottla.cli.main", "cluster", "drain", str(node_id)]
    done = subprocess.run(
        [*command, "--bootstrap", nodes.bootstrap], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_metadata_that_knows_of_other_nodes_is_enough_to_refuse(tmp_path: Path) -> None:
    """Also where their folders are gone: what they hold is not to be forgotten without a word."""
    with running(tmp_path, 2) as nodes:
        create(nodes, "t", 4)
        assert nodes.stop() == 0
        (nodes.data / "nodes" / "2").rename(tmp_path / "elsewhere")
        nodes.arguments = ()
        assert "has partitions of other nodes (2)" in nodes.refused()
        (tmp_path / "elsewhere").rename(nodes.data / "nodes" / "2")
        nodes.arguments = ("--processes", "2")
        nodes.start()
        assert len(leaders(nodes, "t")) == 4


# ------------------------------------------------------------ the store


def test_a_node_without_its_store_serves_what_it_can(tmp_path: Path) -> None:
    """The command stands still, and so does the store, for longer than a session: as with an etcd that is out
    of reach."""
    with running(tmp_path, 2, session_ms=3_000) as nodes:
        create(nodes, "t", 2)
        assert nodes.process is not None
        nodes.process.send_signal(signal.SIGSTOP)
        try:
            produce(nodes, "t", [str(number) for number in range(100)], 2)
            client = admin(nodes)
            with pytest.raises(KafkaException):
                client.create_topics([NewTopic("u", 1, 1)], request_timeout=12)["u"].result(60)
        finally:
            nodes.process.send_signal(signal.SIGCONT)
        create(nodes, "v", 2)
        assert sorted(map(int, consume(nodes, "t", 100))) == list(range(100))
        assert "the metadata store answers again" in nodes.log()
        # No lease ended for that.
        assert "is fenced: its registration has ended" not in nodes.log()


def test_a_node_that_stands_still_for_longer_than_its_session_loses_its_place(tmp_path: Path) -> None:
    """Others lead; it notices when it goes on, and follows."""
    with running(tmp_path, 2, session_ms=2_000) as nodes:
        client = admin(nodes)
        new = NewTopic("t", 1, replica_assignment=[[2, 1]])
        client.create_topics([new], operation_timeout=60)["t"].result(60)
        wait_until(lambda: leaders(nodes, "t") == {0: 2}, what="t is led")
        produce(nodes, "t", ["0"], 1)
        pid = nodes.children()[2]
        os.kill(pid, signal.SIGSTOP)
        try:
            # Asked of the other one: connections to the shared port go to whoever takes them.
            first = AdminClient({"bootstrap.servers": f"127.0.0.1:{nodes.port_of(1)}", **QUIET})
            wait_until(
                lambda: first.list_topics("t", 10).topics["t"].partitions[0].leader == 1, what="node 1 leads"
            )
            produce(nodes, "t", ["1"], 1)
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(
            lambda: sorted(first.list_topics("t", 10).topics["t"].partitions[0].isrs) == [1, 2],
            what="node 2 is in sync again",
        )
        assert nodes.children()[2] == pid
        assert consume(nodes, "t", 2) == ["0", "1"]


def test_topics_made_at_all_nodes_at_once_are_made_once(tmp_path: Path) -> None:
    with running(tmp_path, 3) as nodes:
        clients = [
            AdminClient({"bootstrap.servers": f"127.0.0.1:{nodes.port_of(one)}", **QUIET})
            for one in (1, 2, 3)
        ]
        made = []
        for number in range(20):
            for client in clients:
                futures = client.create_topics([NewTopic(f"t{number}", 3, 1)], operation_timeout=60)
                made.append((number, futures[f"t{number}"]))
        outcomes = Counter(number for number, future in made if future.exception(30) is None)
        assert outcomes == dict.fromkeys(range(20), 1)
        for client in clients:
            wait_until(
                lambda client=client: len(client.list_topics(timeout=60).topics) == 20,  # type: ignore[misc]
                what="all topics on all nodes",
            )
        spread = Counter(
            state.leader
            for topic in clients[0].list_topics(timeout=60).topics.values()
            for state in topic.partitions.values()
        )
        assert spread == {1: 20, 2: 20, 3: 20}


# ------------------------------------------------------------ nodes of a cluster


@pytest.mark.skipif(shutil.which("etcd") is None, reason="there is no etcd")
def test_the_nodes_are_members_of_a_cluster_in_the_rack_of_their_machine(tmp_path: Path) -> None:
    cluster = etcd_support.namespace()
    store = ("--store", etcd_support.shared().url(), "--cluster", cluster)
    first = Nodes(tmp_path / "a", 2, arguments=("--node-id", "10", *store))
    second = Nodes(tmp_path / "b", 2, arguments=("--node-id", "20", "--rack", "other", *store))
    try:
        first.start()
        second.start()
        client = admin(first)
        futures = client.create_topics([NewTopic("t", 8, 2)], operation_timeout=60)
        futures["t"].result(60)
        wait_until(lambda: len(leaders(second, "t")) == 8, what="t is led")
        found = client.list_topics("t", 10)
        assert set(found.brokers) == {10, 11, 20, 21}
        machines = [
            {node_id // 10 for node_id in state.replicas} for state in found.topics["t"].partitions.values()
        ]
        assert machines == [{1, 2}] * 8
        assert not (first.data / "metadata.db").exists()
        produce(first, "t", [str(number) for number in range(400)], 8)
        # A machine goes, with all its nodes; what it led goes on.
        first.kill()
        wait_until(
            lambda: set(leaders(second, "t").values()) == {20, 21} and len(leaders(second, "t")) == 8,
            what="the other machine leads",
        )
        assert sorted(map(int, consume(second, "t", 400))) == list(range(400))
    finally:
        for nodes in (first, second):
            if nodes.alive():
                nodes.stop()
            print(nodes.log())


PLAIN = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required "
    'username="node" password="between nodes" user_node="between nodes" user_alice="wonderland";'
)


@pytest.mark.parametrize("protocol", ["SSL", "SASL_SSL"])
def test_all_nodes_answer_by_tls_and_ask_for_a_login(protocol: str, tmp_path: Path) -> None:
    """At the address that they share, at their own, and among themselves."""
    authority = Authority()
    (tmp_path / "ca.pem").write_text(pem_of(authority.certificate))
    (tmp_path / "broker.pem").write_text(authority.issue("broker").pem())
    settings = {
        "listener.security.protocol.map": f"PLAINTEXT:{protocol}",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(tmp_path / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(tmp_path / "ca.pem"),
    }
    client = {"security.protocol": protocol.lower(), "ssl.ca.location": str(tmp_path / "ca.pem"), **QUIET}
    if protocol == "SASL_SSL":
        settings |= {
            "sasl.enabled.mechanisms": "PLAIN",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "listener.name.plaintext.plain.sasl.jaas.config": PLAIN,
        }
        client |= {"sasl.mechanism": "PLAIN", "sasl.username": "alice", "sasl.password": "wonderland"}
    nodes = Nodes(tmp_path / "nodes", 2)
    nodes.settings |= settings
    try:
        nodes.start()
        conf = {"bootstrap.servers": nodes.bootstrap, **client}
        # A replica on each node, so that they fetch from each other.
        asker = AdminClient(conf)
        asker.create_topics([NewTopic("t", 4, 2)], operation_timeout=60)["t"].result(60)
        wait_until(
            lambda: {p.leader for p in asker.list_topics("t", 10).topics["t"].partitions.values()} == {1, 2},
            what="both nodes lead",
        )
        producer = Producer({**conf, "acks": "all"})
        errors: list[KafkaError] = []
        for number in range(8):
            producer.produce(
                "t", b"%d" % number, partition=number % 4, on_delivery=lambda e, _: e and errors.append(e)
            )
        assert producer.flush(60) == 0 and not errors
        consumer = Consumer({**conf, "group.id": "g", "auto.offset.reset": "earliest"})
        consumer.subscribe(["t"])
        found = set()
        while len(found) < 8:
            (message,) = consumer.consume(1, 60)
            found.add(message.value())
        consumer.close()
    finally:
        if nodes.alive():
            nodes.stop()
        print(nodes.log())
