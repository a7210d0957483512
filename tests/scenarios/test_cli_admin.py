"""Topics, configurations and the cluster from the command line, against a real broker."""

from __future__ import annotations

from uuid import uuid4

import pytest
from cli_support import Ottla

from interop.process import BrokerProcess

# The id of a broker that is given none.
NODE = 1


@pytest.fixture
def ottla(ottla_server: BrokerProcess) -> Ottla:
    return Ottla(ottla_server.bootstrap)


@pytest.fixture
def topic() -> str:
    return f"cli-{uuid4().hex[:10]}"


def test_a_topic_from_its_creation_to_its_end(ottla: Ottla, topic: str, ottla_server: BrokerProcess) -> None:
    created = ottla("topic", "create", topic, "--partitions", "3", "--config", "retention.ms=60000")
    assert created.out == f"{topic}: created\n"
    assert {"topic": topic, "partitions": 3, "replication_factor": 1} in ottla("topic", "list", "--json").json
    (described,) = ottla("topic", "describe", topic, "--json").json
    assert described["configs"] == {"retention.ms": "60000"}
    metadata = (ottla_server.data / f"{topic}-0" / "partition.metadata").read_text()
    assert f"topic_id: {described['topic_id']}" in metadata.splitlines()
    assert described["partitions"] == [
        {
            "partition": i,
            "leader": NODE,
            "replicas": [NODE],
            "isr": [NODE],
            "start_offset": 0,
            "end_offset": 0,
        }
        for i in range(3)
    ]
    ottla(
        "topic",
        "alter",
        topic,
        "--partitions",
        "5",
        "-c",
        "retention.bytes=9",
        "--delete-config",
        "retention.ms",
    )
    (described,) = ottla("topic", "describe", topic, "--json").json
    assert described["configs"] == {"retention.bytes": "9"}
    assert len(described["partitions"]) == 5
    assert ottla("topic", "delete", topic).out == f"{topic}: deleted\n"
    assert topic not in ottla("topic", "list").out
    assert topic in ottla.fails(4, "topic", "describe", topic).err


def test_describe_counts_messages(ottla: Ottla, topic: str) -> None:
    ottla("topic", "create", topic)
    ottla("produce", topic, stdin=b"a\nb\nc\n")
    head, columns, row = ottla("topic", "describe", topic).out.splitlines()
    assert head.startswith(f"{topic}: replication factor 1, id ")
    assert columns.split() == [
        "PARTITION",
        "LEADER",
        "REPLICAS",
        "ISR",
        "START",
        "END",
        "MESSAGES",
        "TROUBLE",
    ]
    assert row.split() == ["0", str(NODE), str(NODE), str(NODE), "0", "3", "3", "-"]
    # How much of it is left cannot be known once it is compacted.
    ottla("config", "set", "topic", topic, "cleanup.policy=compact")
    assert ottla("topic", "describe", topic).out.splitlines()[-1].split()[-3:] == ["3", "-", "-"]


def test_creating_what_exists(ottla: Ottla, topic: str) -> None:
    ottla("topic", "create", topic)
    assert "already exists" in ottla.fails(5, "topic", "create", topic).err
    assert ottla("topic", "create", topic, "--if-not-exists").out == f"{topic}: exists\n"
    other = f"{topic}-2"
    both = ottla.fails(5, "topic", "create", topic, other)
    assert both.out == f"{other}: created\n"


def test_deleting_what_does_not_exist(ottla: Ottla, topic: str) -> None:
    assert "ottla topic list" in ottla.fails(4, "topic", "delete", topic).err
    assert ottla("topic", "delete", topic, "--if-exists").out == f"{topic}: does not exist\n"


def test_topics_of_the_brokers_are_deleted_only_when_told(ottla: Ottla, topic: str) -> None:
    ottla("topic", "create", topic)
    for name in ("__consumer_offsets", "__transaction_state", "__share_group_state"):
        assert "give --internal" in ottla.fails(2, "topic", "delete", topic, name, "--if-exists").err
    assert topic in ottla("topic", "list").out, "nothing is deleted where something is refused"
    ran = ottla("topic", "delete", "__share_group_state", "--internal", "--if-exists")
    assert ran.out == "__share_group_state: does not exist\n"


def test_a_dry_run_creates_nothing(ottla: Ottla, topic: str) -> None:
    assert ottla("topic", "create", topic, "--dry-run").out == f"{topic}: would be created\n"
    ottla.fails(4, "topic", "describe", topic)
    assert (
        "no_such_config"
        in ottla.fails(1, "topic", "create", topic, "--dry-run", "-c", "no_such_config=1").err
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["bad/name"], "bad/name"),
        (["x" * 250], "249"),
        (["r", "--replication-factor", "3"], "replica"),
        (["c", "--config", "retention.ms=soon"], "retention.ms"),
    ],
)
def test_what_the_broker_refuses_is_said_in_a_line(ottla: Ottla, arguments: list[str], reason: str) -> None:
    assert reason in ottla.fails(1, "topic", "create", *arguments).err


def test_partitions_only_grow(ottla: Ottla, topic: str) -> None:
    ottla("topic", "create", topic, "-p", "3")
    ottla.fails(1, "topic", "alter", topic, "--partitions", "2")
    ottla("topic", "alter", topic, "--partitions", "4", "--dry-run")
    assert len(ottla("topic", "describe", topic, "--json").json[0]["partitions"]) == 3
    ottla.fails(4, "topic", "alter", f"{topic}-none", "--partitions", "4")


def test_internal_topics_are_listed_on_demand(ottla: Ottla, topic: str) -> None:
    ottla("produce", topic, stdin=b"x\n")
    ottla("consume", topic, "--group", topic)
    assert "__consumer_offsets" not in ottla("topic", "list").out
    assert "__consumer_offsets" in ottla("topic", "list", "--internal").out


def test_configurations_of_a_topic(ottla: Ottla, topic: str) -> None:
    ottla("topic", "create", topic)
    assert ottla("config", "describe", "topic", topic, "--json").json == []
    out = ottla("config", "set", "topic", topic, "retention.ms=7000", "cleanup.policy=compact,delete").out
    assert out.splitlines() == ["retention.ms: set to 7000", "cleanup.policy: set to compact,delete"]
    entries = {entry["name"]: entry for entry in ottla("config", "describe", "topic", topic, "--json").json}
    assert entries.keys() == {"retention.ms", "cleanup.policy"}
    assert entries["retention.ms"]["value"] == "7000"
    assert entries["retention.ms"]["source"] == "topic"
    assert len(ottla("config", "describe", "topic", topic, "--all", "--json").json) > 20
    ottla("config", "delete", "topic", topic, "retention.ms", "--dry-run")
    assert "retention.ms" in ottla("config", "describe", "topic", topic).out
    assert (
        ottla("config", "delete", "topic", topic, "retention.ms").out
        == "retention.ms: returned to its default\n"
    )
    assert "retention.ms" not in ottla("config", "describe", "topic", topic).out
    assert "retention.ms" in ottla.fails(1, "config", "set", "topic", topic, "retention.ms=x").err
    ottla.fails(4, "config", "describe", "topic", f"{topic}-none")


def test_configurations_of_one_broker_and_of_all(ottla_process) -> None:  # type: ignore[no-untyped-def]
    ottla = Ottla(ottla_process().bootstrap)
    ottla("config", "set", "broker", "default", "log.retention.ms=123456")
    ottla("config", "set", "broker", str(NODE), "message.max.bytes=2000000")
    entry, min_isr = ottla("config", "describe", "broker", "default", "--json").json
    assert (entry["name"], entry["value"], entry["source"]) == ("log.retention.ms", "123456", "all brokers")
    assert (min_isr["name"], min_isr["value"]) == ("min.insync.replicas", "1")
    found = {
        e["name"]: (e["value"], e["source"])
        for e in ottla("config", "describe", "broker", str(NODE), "--json").json
    }
    assert found["log.retention.ms"] == ("123456", "all brokers")
    assert found["message.max.bytes"] == ("2000000", "broker")
    assert found["listeners"][1] == "static"
    ottla("config", "delete", "broker", "default", "log.retention.ms")
    assert ottla("config", "describe", "broker", "default", "--json").json == [min_isr]
    ottla("config", "set", "broker", "default", "min.insync.replicas=2")
    assert "min.insync.replicas" in ottla("config", "describe", "broker", str(NODE)).out
    failed = ottla.fails(1, "config", "set", "broker", str(NODE), "min.insync.replicas=1")
    assert "cannot be altered while ELR is enabled" in failed.err
    ottla.fails(1, "config", "set", "broker", str(NODE), "broker.id=5")
    unknown = ottla.try_("config", "set", "broker", "default", "log.retention.hour=1")
    assert (unknown.code, unknown.out) == (0, "log.retention.hour: set to 1\n")
    assert unknown.err == (
        "ottla: brokers have no configuration 'log.retention.hour': the value is kept, and has no effect. "
        "Did you mean 'log.retention.hours'?\n"
    )
    ottla("config", "delete", "broker", "default", "log.retention.hour")
    ottla.fails(1, "config", "set", "broker", "default", "message.max.bytes=x")
    assert f"give one of {NODE}," in ottla.fails(4, "config", "describe", "broker", "7").err


def test_configurations_of_groups_and_of_client_metrics(ottla: Ottla, topic: str) -> None:
    for kind, config, value, source in (
        ("group", "share.delivery.count.limit", "7", "group"),
        ("client-metrics", "interval.ms", "60000", "client metrics"),
    ):
        assert ottla("config", "describe", kind, topic, "--json").json == []
        out = ottla("config", "set", kind, topic, f"{config}={value}").out
        assert out == f"{config}: set to {value}\n"
        assert ottla("config", "describe", kind, topic, "--json").json == [
            {"name": config, "value": value, "source": source, "read_only": False, "sensitive": False}
        ]
        assert config in ottla("config", "describe", kind, topic, "--all").out
        assert config in ottla.fails(1, "config", "set", kind, topic, f"{config}=0").err
        ottla("config", "delete", kind, topic, config)
        assert ottla("config", "describe", kind, topic, "--json").json == []


def test_levels_of_loggers(ottla: Ottla) -> None:
    node = str(NODE)
    levels = {e["name"]: e["value"] for e in ottla("config", "describe", "logger", node, "--json").json}
    assert {"root", "ottla.coordinators"} <= set(levels)
    ottla("config", "set", "logger", node, "ottla.coordinators=TRACE")
    assert "TRACE" in ottla("config", "describe", "logger", node).out
    ottla("config", "delete", "logger", node, "ottla.coordinators")
    after = {e["name"]: e["value"] for e in ottla("config", "describe", "logger", node, "--json").json}
    assert after["ottla.coordinators"] == levels["ottla.coordinators"]
    assert "does not exist" in ottla.fails(1, "config", "set", "logger", node, "ottla.none=INFO").err
    assert f"give one of {node}" in ottla.fails(4, "config", "describe", "logger", "77").err


def test_the_cluster(ottla: Ottla, ottla_server: BrokerProcess, topic: str) -> None:
    ottla("topic", "create", topic, "-p", "2")
    found = ottla("cluster", "describe", "--json").json
    assert found["cluster_id"]
    assert found["controller"] == NODE
    (broker,) = found["brokers"]
    assert (broker["node_id"], broker["host"], broker["port"]) == (NODE, "127.0.0.1", ottla_server.port)
    assert broker["leads"] == found["partitions"] >= 2
    assert found["offline_partitions"] == found["under_replicated_partitions"] == []
    assert (broker["state"], broker["replicas"], broker["behind"]) == ("alive", found["partitions"], 0)
    head, columns, row = ottla("cluster", "describe").out.splitlines()
    assert head.startswith(f"cluster {found['cluster_id']}: ")
    assert columns.split() == ["BROKER", "ADDRESS", "RACK", "STATE", "LEADS", "REPLICAS", "BEHIND"]
    assert row.split()[:4] == [str(NODE), f"127.0.0.1:{ottla_server.port}", "-", "controller"]
