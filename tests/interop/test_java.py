"""The official Java client, through the small program in `java/`.

Its jars lie in build/java/libs (scripts/interop-deps.sh puts them there). The program is compiled once for
all workers, under a lock, into a directory named by its sources' hash.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from interop.process import BrokerProcess
from ottla.metadata.features import SUPPORTED, new_cluster_levels

HERE = Path(__file__).parent
SOURCES = sorted((HERE / "java").glob("*.java"))
BUILD = HERE.parent.parent / "build" / "java"
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
RUN_TIMEOUT_S = 120


@pytest.fixture(scope="session")
def classes() -> Path:
    """The compiled program."""
    assert list((BUILD / "libs").glob("kafka-clients-*.jar")), "no jars: run scripts/interop-deps.sh"
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in SOURCES)).hexdigest()[:16]
    target = BUILD / f"classes-{digest}"
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            part = target.with_suffix(".part")
            command = ["javac", "-Xlint:all", "-Werror", "-cp", f"{BUILD}/libs/*", "-d", str(part)]
            subprocess.run([*command, *map(str, SOURCES)], check=True)
            part.rename(target)
    return target


@pytest.fixture
def java(classes: Path, bootstrap: str) -> Callable[..., list[tuple[str, Any]]]:
    """java(subcommand, args…) gives the (step, result) pairs that the program printed; java(…, at=ADDRESS) of
    another broker."""

    def run(subcommand: str, *args: object, at: str = bootstrap) -> list[tuple[str, Any]]:
        command = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]
        command += ["-cp", f"{classes}:{BUILD}/libs/*", "Main", subcommand, at, *map(str, args)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=RUN_TIMEOUT_S)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return [(line["step"], line["result"]) for line in lines]

    return run


Java = Callable[..., list[tuple[str, Any]]]


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_produce_with_every_codec_and_consume(java: Java, make_topic: Callable[..., str], acks: str) -> None:
    """acks=all is the idempotent producer, the client's default."""
    topic = make_topic()
    count = 60
    produced = dict(java("produce", topic, acks, count, *CODECS))
    if acks != "0":
        assert produced == {codec: list(range(i * count, (i + 1) * count)) for i, codec in enumerate(CODECS)}
    steps = java("consume", topic, count * len(CODECS))
    records = [result for step, result in steps if step == "record"]
    for offset, record in enumerate(records):
        i = offset % count
        assert record == {
            "offset": offset,
            "key": None if i % 6 == 0 else f"key {i}",
            "value": None if i % 6 == 3 else f"{CODECS[offset // count]} {i}",
            "timestamp": 1_600_000_000_000 + i,
            "headers": ["h=1", "h=2", "nothing=null"],
            "leader_epoch": 0,
        }
    rest = {step: result for step, result in steps if step != "record"}
    assert rest == {
        "beginning": 0,
        "end": 300,
        "time": 5,
        "late": None,
        "seek": 299,
        "lag": 0,
        "beyond": "OffsetOutOfRangeException",
    }


def test_refused_sends(java: Java, make_topic: Callable[..., str]) -> None:
    steps = dict(java("refused", make_topic(max_message_bytes="10000")))
    assert steps["large"] == "RecordTooLargeException"
    assert steps["small"] == 0
    assert steps["transactions"] == "ready"
    assert steps["consumer protocol"] == "UnsupportedVersionException"


def test_a_token_that_the_command_made_lets_in(
    java: Java, ottla_process: Callable[..., BrokerProcess]
) -> None:
    module = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    jaas = f'{module} username="node" password="p" user_node="p" user_alice="wonderland";'
    broker = ottla_process(
        {
            "listener.security.protocol.map": "PLAINTEXT:SASL_PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "listener.name.plaintext.plain.sasl.jaas.config": jaas,
            "delegation.token.secret.key": "between the nodes",
        }
    )
    login = ("security.protocol=SASL_PLAINTEXT", "sasl.mechanism=PLAIN", "sasl.username=alice")
    properties = [part for one in (*login, "sasl.password=wonderland") for part in ("-X", one)]
    command = [sys.executable, "-m", "ottla.cli.main", "token", "create", "--json", *properties]
    made = subprocess.run([*command, "-b", broker.bootstrap], check=True, capture_output=True)
    token = json.loads(made.stdout)
    steps = java("token-login", token["token_id"], token["hmac"], "SCRAM-SHA-256", at=broker.bootstrap)
    # By a token one gets no other.
    assert steps == [("topics", []), ("token", "UnsupportedByAuthenticationException")]


def test_transactions(java: Java, make_topic: Callable[..., str]) -> None:
    """In KIP-890's protocol, which the levels of features have the client speak."""
    steps = dict(java("transactions", make_topic(3), 20))
    assert steps == {
        "empty commit": "done",
        "empty abort": "done",
        "zombie": "ProducerFencedException",
        "committed": 31,
        "state": "CompleteCommit",
        "listed": 1,
    }


@pytest.mark.parametrize(
    ("assignor", "eager"),
    [("RangeAssignor", True), ("StickyAssignor", True), ("CooperativeStickyAssignor", False)],
)
def test_rebalancing(
    java: Java, make_topic: Callable[..., str], name: str, assignor: str, eager: bool
) -> None:
    topic = make_topic(6)
    steps = dict(java("group", topic, 6, name, f"org.apache.kafka.clients.consumer.{assignor}"))
    assert steps == {"whole revocations": 1 if eager else 0, "read": 120}


def test_static_members(java: Java, make_topic: Callable[..., str], name: str) -> None:
    assert java("static", make_topic(4), 4, name) == [("returned", {"kept": 2, "rebalances": 0})]


def test_admin_topics(java: Java, name: str) -> None:
    steps = dict(java("admin-topics", name))
    topic_id = steps.pop("id")
    description = {"name": name, "id": topic_id, "internal": False}
    node = steps["describe"]["partitions"][0][1]
    description["partitions"] = [[i, node, 1, 1] for i in range(3)]
    assert steps == {
        "create": [3, 1, "1000"],
        "create exists": "TopicExistsException",
        "create slash": "InvalidTopicException",
        "create dots": "InvalidTopicException",
        "create empty": "InvalidTopicException",
        "create long": "InvalidTopicException",
        "create partitions": "InvalidPartitionsException",
        "create replicas": "InvalidReplicationFactorException",
        "create config": "InvalidConfigurationException",
        "create value": "InvalidConfigurationException",
        "list": [name, f"{name}-d"],
        "describe": description,
        "describe id": description,
        "describe paged": description,
        "describe none": "UnknownTopicOrPartitionException",
        "describe no id": "UnknownTopicIdException",
        "grown": 5,
        "shrink": "InvalidPartitionsException",
        "grow none": "UnknownTopicOrPartitionException",
        "delete none": "UnknownTopicOrPartitionException",
        "delete no id": "UnknownTopicIdException",
        "left": [],
    }


def test_admin_configs(java: Java, make_topic: Callable[..., str]) -> None:
    steps = dict(java("admin-configs", make_topic()))
    assert steps == {
        "fresh": ["1048588", "DEFAULT_CONFIG", True, "INT"],
        "set": ["5000", "DYNAMIC_TOPIC_CONFIG", False],
        "append": "delete,compact",
        "deleted": "1048588",
        "unknown": "InvalidConfigurationException",
        "bad": "InvalidConfigurationException",
        "none": "UnknownTopicOrPartitionException",
        "alter none": "UnknownTopicOrPartitionException",
        "broker": False,
        "broker set": ["2000000", "DYNAMIC_BROKER_CONFIG"],
        "inherited": "2000000",
        "read-only": "InvalidRequestException",
        "resources": True,
        "fresh GROUP": ["30000", "DEFAULT_CONFIG", False, "INT"],
        "set GROUP": ["20000", "DYNAMIC_GROUP_CONFIG"],
        "bad GROUP": "InvalidConfigurationException",
        "list GROUP": "InvalidConfigurationException",
        "resources GROUP": True,
        "fresh CLIENT_METRICS": ["300000", "DEFAULT_CONFIG", False, "INT"],
        "set CLIENT_METRICS": ["20000", "DYNAMIC_CLIENT_METRICS_CONFIG"],
        "bad CLIENT_METRICS": "InvalidRequestException",
        "list CLIENT_METRICS": "InvalidConfigurationException",
        "resources CLIENT_METRICS": True,
        "logger": ["TRACE", "DYNAMIC_BROKER_LOGGER_CONFIG"],
        "logger bad": "InvalidConfigurationException",
        "logger append": "InvalidRequestException",
        "logger root": "InvalidRequestException",
        "logger after": True,
    }


def test_admin_offsets(java: Java, make_topic: Callable[..., str]) -> None:
    steps = dict(java("admin-offsets", make_topic()))
    assert steps == {
        "empty max": -1,
        "earliest": 0,
        "latest": 10,
        "max": 7,
        "time": 4,
        "late": -1,
        "local": 0,
        "tiered": -1,
        "producers": [1, 0, 9, True, False],
        "delete": 4,
        "after": 4,
        "beyond": "OffsetOutOfRangeException",
        "delete all": 10,
    }


def test_admin_cluster(java: Java, make_topic: Callable[..., str], bootstrap: str) -> None:
    topic = make_topic(2)
    java("produce", topic, "all", 10, "none")
    steps = dict(java("admin-cluster", topic))
    assert steps["cluster"]
    assert steps["nodes"] == [bootstrap]
    assert isinstance(steps["controller"], int)
    assert steps["volume"] is True
    assert steps["sizes"] == {f"{topic}-0": [True, 0, False], f"{topic}-1": [False, 0, False]}
    assert steps["features"] == {name: list(levels) for name, levels in SUPPORTED.items()}
    expected = {name: [level, level] for name, level in new_cluster_levels(SUPPORTED).items()}
    assert steps["finalized"] == expected
    assert steps["epoch"] >= 1
    assert steps["lower"] == "InvalidUpdateVersionException"


def test_admin_groups(java: Java, make_topic: Callable[..., str], name: str) -> None:
    topic = make_topic()
    steps = dict(java("admin-groups", topic, name))
    assert steps == {
        "list": [["Classic", "consumer", "Stable"]],
        "describe": ["Stable", "range", "the-client", [f"{topic}-0"]],
        "classic": ["Stable", "consumer", "range"],
        "alive": "GroupNotEmptyException",
        "subscribed": "GroupSubscribedToTopicException",
        "offsets": 10,
        "altered": [4, "note", 0],
        "resumed": 4,
        "no offsets": False,
        "delete": "accepted",
        "delete none": "GroupIdNotFoundException",
        "describe none": "GroupIdNotFoundException",
    }


def transactions_of(number_of_transactions: int, step: int) -> dict[str, list[str]]:
    """By partition what the program writes, of each transaction or (step 2) of those that it commits."""
    return {
        str(partition): [
            f"{number}-{i}"
            for number in range(0, number_of_transactions, step)
            for i in range(partition, 6, 2)
        ]
        for partition in range(2)
    }


def test_transactions_with_offsets(java: Java, make_topic: Callable[..., str], name: str) -> None:
    """A new cluster has transaction.version 2: each transaction has an epoch of its own (KIP-890)."""
    assert dict(java("transactions-offsets", make_topic(2), name)) == {
        "epochs": [0, 1, 2, 3, 4, 5],
        "read_committed": transactions_of(6, step=2),
        "read_uncommitted": transactions_of(6, step=1),
        "offset": 5,
    }


@pytest.mark.parametrize("level", [0, 1])
def test_transactions_of_earlier_levels(
    java: Java, ottla_process: Callable[..., BrokerProcess], level: int
) -> None:
    """With transaction.version 0 and 1 the client adds each partition itself and keeps its epoch."""
    at = ottla_process().bootstrap
    admin = AdminClient({"bootstrap.servers": at})
    admin.create_topics([NewTopic("t", num_partitions=2)])["t"].result(60)
    assert java("transaction-version", level, at=at) == [("version", level)]
    assert dict(java("transactions-offsets", "t", "g", at=at)) == {
        "epochs": [0] * 6,
        "read_committed": transactions_of(6, step=2),
        "read_uncommitted": transactions_of(6, step=1),
        "offset": 5,
    }


def test_fencing(java: Java, make_topic: Callable[..., str]) -> None:
    assert dict(java("fencing", make_topic(2))) == {
        "zombie": "ProducerFencedException",
        "epoch grew": True,
        "fenced": "ProducerFencedException",
        "state": "Empty",
        "read": {"0": ["successor"]},
    }


def test_admin_transactions(java: Java, make_topic: Callable[..., str]) -> None:
    topic = make_topic(2)
    steps = java("admin-transactions", topic)
    assert [result for step, result in steps if step == "list"] == [True, True, True, True, False, False]
    assert {step: result for step, result in steps if step != "list"} == {
        "describe": ["Ongoing", 60_000, [f"{topic}-1"], True],
        "describe none": "TransactionalIdNotFoundException",
        "list pattern": "InvalidRegularExpression",
        "producers": [True, True, 0],
        "offsets": [0, 1],
        "abort of another": "InvalidProducerEpochException",
        "aborted": [2, 2],
    }


def test_kafkas_own_classes_read_our_segments(
    java: Java, ottla_server: BrokerProcess, make_topic: Callable[..., str], bootstrap: str
) -> None:
    if bootstrap != ottla_server.bootstrap:
        pytest.skip("the broker under test is not ours: its files are out of reach")
    topic = make_topic()
    java("produce", topic, "all", 60, *CODECS)
    (segment,) = (ottla_server.data / f"{topic}-0").glob("*.log")
    steps = java("segments", segment)
    values = [f"{codec} {i}" if i % 6 != 3 else None for codec in CODECS for i in range(60)]
    assert [result for step, result in steps if step == "record"] == values
    batches = [result for step, result in steps if step == "batch"]
    assert {codec for _, _, _, codec, _, _ in batches} == set(CODECS)
    following = 0
    for base, last, epoch, _, idempotent, whole in batches:
        assert (base, epoch, idempotent, whole) == (following, 0, True, True)
        following = last + 1
    assert following == 300
    assert [result for step, result in steps if step == "rest"] == [0]
