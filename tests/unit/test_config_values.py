"""What is in force when values are given in several places, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ottla.config
from ottla.config import BROKER, SYNONYMS, TOPIC, BrokerConfig, ConfigError, Effect, Mode, Source
from ottla.config.tls import LIVE
from ottla.config.values import check_topic

HOUR_MS = 3_600_000


def test_defaults_are_kafkas() -> None:
    config = BrokerConfig()
    assert config.get("num.partitions") == 1
    assert config.get("message.max.bytes") == 1_048_588
    assert config.get("auto.create.topics.enable") is True
    assert config.get("log.cleanup.policy") == ("delete",)
    assert config.get("log.retention.ms") is None
    assert config.topic_default("retention.ms") == 7 * 24 * HOUR_MS
    assert config.warnings == []


def test_every_default_is_valid_and_survives_being_written_down() -> None:
    for entry in (*BROKER.values(), *TOPIC.values()):
        text = entry.format(entry.default)
        if text is not None:
            assert entry.parse(text) == entry.default, entry.name


def test_every_topic_default_comes_from_a_broker_configuration_with_the_same_default() -> None:
    for name, entry in TOPIC.items():
        synonyms = SYNONYMS.get(name, ())
        given = [BROKER[synonym.name] for synonym in synonyms]
        defaults = [
            definition.default * synonym.factor if synonym.factor > 1 else definition.default
            for definition, synonym in zip(given, synonyms, strict=True)
            if definition.default is not None
        ]
        assert not defaults or defaults[0] == entry.default, name


@pytest.mark.parametrize(
    ("given", "retention_ms"),
    [
        ({"log.retention.hours": "1"}, HOUR_MS),
        ({"log.retention.hours": "1", "log.retention.minutes": "5"}, 300_000),
        ({"log.retention.hours": "1", "log.retention.minutes": "5", "log.retention.ms": "7"}, 7),
        ({"log.retention.hours": "-1"}, -1),
        ({"log.retention.minutes": "-1"}, -1),
        ({"log.retention.ms": "-1", "log.retention.hours": "5"}, -1),
    ],
)
def test_the_finer_unit_of_retention_goes_first(given: dict[str, str], retention_ms: int) -> None:
    assert BrokerConfig(given).topic_values()["retention.ms"] == retention_ms


def test_segment_age_and_jitter_may_be_given_in_hours() -> None:
    values = BrokerConfig({"log.roll.hours": "2", "log.roll.jitter.hours": "1"}).topic_values()
    assert (values["segment.ms"], values["segment.jitter.ms"]) == (2 * HOUR_MS, HOUR_MS)
    values = BrokerConfig({"log.roll.hours": "2", "log.roll.ms": "10"}).topic_values()
    assert values["segment.ms"] == 10


def test_flush_interval_falls_back_to_the_scheduler_s() -> None:
    assert BrokerConfig({"log.flush.scheduler.interval.ms": "9"}).topic_values()["flush.ms"] == 9


def test_a_topic_s_own_value_goes_before_the_broker_s() -> None:
    config = BrokerConfig({"log.segment.bytes": "2000000", "log.retention.ms": "9"})
    values = config.topic_values({"segment.bytes": "3000000"})
    assert (values["segment.bytes"], values["retention.ms"]) == (3_000_000, 9)


def test_a_topic_may_have_tiny_segments_for_tests() -> None:
    assert BrokerConfig().topic_values({"internal.segment.bytes": "100"})["segment.bytes"] == 100


def test_overrides_of_another_version_do_not_keep_a_log_from_opening() -> None:
    values = BrokerConfig().topic_values({"from.the.future": "x", "segment.bytes": "no number"})
    assert values["segment.bytes"] == 1024**3
    assert "from.the.future" not in values


def test_dynamic_values_go_before_static_ones_and_subscribers_hear_of_them() -> None:
    config = BrokerConfig({"message.max.bytes": "1000"})
    heard: list[frozenset[str]] = []
    config.subscribe(heard.append)
    config.update_dynamic({"message.max.bytes": "2000"}, {})
    assert config.get("message.max.bytes") == 2000
    assert config.topic_default("max.message.bytes") == 2000
    config.update_dynamic({"message.max.bytes": "2000"}, {"message.max.bytes": "3000"})
    assert config.get("message.max.bytes") == 3000
    config.update_dynamic({}, {})
    assert config.get("message.max.bytes") == 1000
    assert heard == [frozenset({"message.max.bytes"})] * 3
    assert config.update_dynamic({}, {}) == frozenset()
    assert len(heard) == 3


def test_stored_dynamic_values_that_are_not_valid_are_left_out() -> None:
    config = BrokerConfig()
    config.update_dynamic({"message.max.bytes": "many", "num.partitions": "7", "unknown": "x"}, {})
    assert config.get("message.max.bytes") == 1_048_588
    assert config.get("num.partitions") == 1  # cannot change while a broker runs


def test_synonyms_are_listed_in_the_order_in_which_they_hold() -> None:
    config = BrokerConfig({"message.max.bytes": "1000"})
    config.update_dynamic({"message.max.bytes": "2000"}, {"message.max.bytes": "3000"})
    assert [(value, source) for _, value, source in config.synonyms("message.max.bytes")] == [
        ("3000", Source.DYNAMIC_BROKER),
        ("2000", Source.DYNAMIC_CLUSTER),
        ("1000", Source.STATIC),
        ("1048588", Source.DEFAULT),
    ]


def test_a_coarser_spelling_is_not_shown_for_the_finer_one() -> None:
    config = BrokerConfig({"log.retention.minutes": "5"})
    assert config.synonyms("log.retention.ms") == []
    assert [synonym.name for synonym in config.synonyms("log.retention.minutes")] == [
        "log.retention.minutes",
        "log.retention.hours",
    ]


def test_names_that_kafka_does_not_know_are_warned_about_in_its_words() -> None:
    config = BrokerConfig({"no.such.name": "1"})
    assert config.warnings == ["The configuration 'no.such.name' was supplied but isn't a known config."]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("listener", " Did you mean 'listeners'?"),
        ("super.user", " Did you mean 'super.users'?"),
        ("SSL.KeyStore.Location", " Did you mean 'ssl.keystore.location'?"),
        ("ssl.keystore.locations", " Did you mean 'ssl.keystore.location'?"),
        ("confluent.metrics.reporter.bootstrap.servers", ""),
    ],
)
def test_a_slip_of_the_pen_is_told_what_was_meant(name: str, told: str) -> None:
    known = f"The configuration '{name}' was supplied but isn't a known config."
    assert BrokerConfig({name: "x"}).warnings == [known + told]


def test_names_that_kafka_had_once_are_told_what_became_of_them() -> None:
    (warning,) = BrokerConfig({"quota.producer.default": "1000"}).warnings
    assert "ottla quota set producer_byte_rate=N --default-client" in warning
    (warning,) = BrokerConfig({"delegation.token.master.key": "a"}).warnings
    assert "delegation.token.secret.key" in warning


def test_names_without_effect_are_warned_about_unless_they_say_the_default() -> None:
    assert BrokerConfig({"log.preallocate": "false", "zookeeper.connect": "x"}).warnings == [
        "The configuration 'zookeeper.connect' was supplied but isn't a known config. "
        "There is no ZooKeeper: for more than one node, see --store."
    ]
    (warning,) = BrokerConfig({"log.preallocate": "true"}).warnings
    assert warning.startswith("log.preallocate has no effect: ")


@pytest.mark.parametrize(
    ("name", "met", "missed"),
    [
        ("num.io.threads", "4", None),
        ("controller.quorum.voters", "1@localhost:9093", None),
        ("share.coordinator.state.topic.min.isr", "1", "3"),
        ("group.coordinator.rebalance.protocols", "classic", "classic,consumer"),
    ],
)
def test_what_asks_for_nothing_that_is_missing_is_not_warned_about(
    name: str, met: str, missed: str | None
) -> None:
    config = BrokerConfig({name: met})
    assert (config.warnings, config.idle) == ([], [name])
    if missed is not None:
        config = BrokerConfig({name: missed})
        (warning,) = config.warnings
        assert warning.startswith(f"{name} has no effect: ")
        assert config.idle == []


def test_the_file_that_kafka_comes_with_is_taken_without_a_warning() -> None:
    config = BrokerConfig(
        {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.bootstrap.servers": "localhost:9093",
            "listeners": "PLAINTEXT://:9092,CONTROLLER://:9093",
            "inter.broker.listener.name": "PLAINTEXT",
            "advertised.listeners": "PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL",
            "num.network.threads": "3",
            "num.io.threads": "8",
            "socket.send.buffer.bytes": "102400",
            "socket.receive.buffer.bytes": "102400",
            "socket.request.max.bytes": "104857600",
            "num.partitions": "1",
            "num.recovery.threads.per.data.dir": "1",
            "offsets.topic.replication.factor": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "log.retention.hours": "168",
            "log.segment.bytes": "1073741824",
            "log.retention.check.interval.ms": "300000",
        }
    )
    assert config.warnings == []
    assert "controller.quorum.bootstrap.servers" in config.idle


def test_every_name_without_effect_says_why() -> None:
    for entry in (*BROKER.values(), *TOPIC.values()):
        assert bool(entry.note) == (entry.effect is not Effect.ACTED_ON), entry.name


def test_a_stock_server_properties_works() -> None:
    config = BrokerConfig(
        {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.bootstrap.servers": "localhost:9093",
            "listeners": "PLAINTEXT://:9092,CONTROLLER://:9093",
            "inter.broker.listener.name": "PLAINTEXT",
            "advertised.listeners": "PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL",
            "num.network.threads": "3",
            "log.dirs": "/var/lib/kafka",
            "num.partitions": "1",
            "offsets.topic.replication.factor": "1",
        }
    )
    (listener,) = config.listeners()
    assert (listener.listener, listener.host, listener.port) == ("PLAINTEXT", "", 9092)
    (advertised,) = config.advertised_listeners()
    assert (advertised.host, advertised.port) == ("localhost", 9092)
    assert (config.node_id, config.data_dir) == (1, "/var/lib/kafka")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PLAINTEXT://:9092", ("PLAINTEXT", "", 9092)),
        ("plaintext://localhost:0", ("PLAINTEXT", "localhost", 0)),
        ("PLAINTEXT://[::1]:9092", ("PLAINTEXT", "::1", 9092)),
        ("PLAINTEXT://my-host_1.example:65535", ("PLAINTEXT", "my-host_1.example", 65535)),
    ],
)
def test_listeners(text: str, expected: tuple[str, str, int]) -> None:
    (listener,) = BrokerConfig({"listeners": text}).listeners()
    assert listener[:3] == expected


@pytest.mark.parametrize(
    "given",
    [
        {"listeners": "PLAINTEXT://host:65536"},
        {"listeners": "PLAINTEXT://host:-1"},
        {"listeners": "PLAINTEXT://a b:1"},
        {"listeners": ""},
        {"listeners": "A://:1,B://:1", "listener.security.protocol.map": "A:PLAINTEXT,B:PLAINTEXT"},
        {"listener.security.protocol.map": "A"},
        {"listener.security.protocol.map": "A:NONE"},
        {"listener.security.protocol.map": "A:SSL,A:SSL"},
        {"listeners": "CONTROLLER://:9093", "controller.listener.names": "CONTROLLER"},
    ],
)
def test_listeners_that_cannot_be(given: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        BrokerConfig(given)


def test_node_id_goes_by_either_name() -> None:
    assert BrokerConfig().node_id == 1
    assert BrokerConfig({"broker.id": "0"}).node_id == 0
    assert BrokerConfig({"broker.id": "4", "node.id": "4"}).node_id == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"num.partitions": "0"},
            "Invalid value 0 for configuration num.partitions: Value must be at least 1",
        ),
        (
            {"num.partitions": "x"},
            "Invalid value x for configuration num.partitions: Not a number of type INT",
        ),
        ({"num.partitions": "2147483648"}, "Not a number of type INT"),
        ({"auto.create.topics.enable": "yes"}, "Expected value to be either true or false"),
        (
            {"compression.type": "brotli"},
            "String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
        ),
        ({"log.cleanup.policy": "delete,keep"}, "String must be one of: compact, delete"),
        ({"compression.gzip.level": "0"}, "between 1 and 9 or equal to -1"),
        ({"log.segment.bytes": "1000"}, "Value must be at least 1048576"),
        ({"broker.id": "1", "node.id": "2"}, "You must set `node.id` to the same value as `broker.id`."),
        ({"log.roll.ms": "0"}, "log.roll.ms must be greater than or equal to 1"),
        ({"log.retention.ms": "0"}, "log.retention.ms must be unlimited (-1) or, greater than or equal to 1"),
        ({"process.roles": "controller"}, "process.roles must include 'broker'"),
        ({"log.dirs": "/a,/b"}, "log.dirs must name exactly one folder"),
        (
            {"authorizer.class.name": "org.example.Any"},
            "say org.apache.kafka.metadata.authorizer",
        ),
        ({"remote.log.storage.system.enable": "true"}, "tiered storage is not offered"),
        ({"listeners": "localhost:9092"}, "it must be NAME://host:port"),
        (
            {"listener.security.protocol.map": "SSL:SLL"},
            "SLL in listener.security.protocol.map is not one of",
        ),
        ({"listeners": "OTHER://:9092"}, "No security protocol defined for listener OTHER"),
        ({"listeners": "PLAINTEXT://:1,PLAINTEXT://:2"}, "Each listener must have a different name"),
        ({"advertised.listeners": "PLAINTEXT://0.0.0.0:9092"}, "nonroutable meta-address"),
        ({"advertised.listeners": "SSL://host:9092"}, "not among the listeners"),
    ],
)
def test_what_kafka_refuses_and_what_cannot_be_done_is_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BrokerConfig(given)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("given", "per_broker", "message"),
    [
        (
            {"num.partitions": "3"},
            True,
            "Cannot update these configs dynamically: [num.partitions]; "
            "set it in server.properties and restart",
        ),
        ({"ssl.protocol": "TLSv1.3"}, False, "Cannot update these configs at default cluster level"),
        ({"listener.name.a.ssl.keystore.type": "PEM"}, False, "Cannot update these configs at default"),
        ({"ssl.keystore.type": "PEM"}, True, "only per-listener using the listener prefix"),
        ({"listener.name.a.max.connections": "many"}, False, "Not a number of type INT"),
        ({"message.max.bytes": "-1"}, False, "Value must be at least 0"),
        ({"log.roll.ms": "0"}, False, "log.roll.ms must be greater than or equal to 1"),
        ({"log.roll.ms": "-1"}, True, "log.roll.ms must be greater than or equal to 1"),
        ({"log.roll.jitter.ms": "-1"}, False, "log.roll.jitter.ms must be greater than or equal to 0"),
        ({"log.retention.ms": "0"}, False, "log.retention.ms must be unlimited"),
        (
            {"log.cleaner.min.compaction.lag.ms": "2", "log.cleaner.max.compaction.lag.ms": "1"},
            True,
            "conflict",
        ),
        ({"log.cleaner.dedupe.buffer.size": "1048576"}, False, "at least 1MB per cleaner thread"),
        ({"log.cleaner.threads": "0"}, False, "at least 1MB per cleaner thread"),
        ({"log.cleaner.threads": "3"}, False, "more than double"),
        ({"max.connections": "0"}, False, "Invalid max.connections 0"),
        ({"max.connection.creation.rate": "0"}, True, "Invalid max.connection.creation.rate 0"),
        ({"max.connections.per.ip": "0"}, False, "can be set to zero only if"),
        ({"max.connections.per.ip.overrides": "host"}, False, "not HOST:LIMIT"),
        ({"max.connections.per.ip.overrides": "ho st:5"}, False, "invalid addresses"),
        ({"max.connections.per.ip.overrides": "host:1_0"}, False, "not HOST:LIMIT"),
        ({"num.io.threads": "17"}, True, "greater than double the current value 8"),
        ({"num.network.threads": "0"}, True, "at least 1"),
        ({"background.threads": "4"}, True, "at least half the current value 10"),
        ({"log.local.retention.ms": "-1"}, False, "Value must not be -1"),
        ({"log.local.retention.ms": "604800001"}, False, "Value must not be more than log.retention.ms"),
        ({"log.retention.bytes": "5", "log.local.retention.bytes": "6"}, False, "property value: 5"),
        ({"log.remote.copy.lag.ms": "604800001"}, False, "Value must not exceed log.local.retention.ms"),
        (
            {"group.consumer.assignment.interval.ms": "15001"},
            False,
            "group.consumer.max.assignment.interval.ms",
        ),
        ({"num.io.threads": "9" * 5000}, True, "Not a number of type INT"),
    ],
)
def test_dynamic_values_are_checked(given: dict[str, str], per_broker: bool, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BrokerConfig().check_dynamic(given, per_broker=per_broker)
    assert message in str(caught.value)
    # It has to fit into an answer.
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "given",
    [
        # Of no configuration that Kafka knows, but perhaps of a plugin.
        {"of.a.plugin": "x"},
        {"log.retention.ms": "-5"},
        {"log.cleanup.policy": "delete,delete"},
        {"log.cleanup.policy": ""},
        {"leader.replication.throttled.rate": "5"},
        {"producer.id.expiration.ms": "1"},
        {"listener.name.a.max.connections": "5"},
        {"max.connections.per.ip": "0", "max.connections.per.ip.overrides": "127.0.0.1:5,host:+6"},
        {"log.cleaner.io.max.bytes.per.second": "NaN"},
        {"num.io.threads": "16"},
    ],
)
def test_dynamic_values_that_kafka_takes_for_all_brokers_are_taken(given: dict[str, str]) -> None:
    BrokerConfig().check_dynamic(given, per_broker=False)


def test_a_change_is_looked_at_beside_what_else_is_set() -> None:
    config = BrokerConfig({"max.connections.per.ip.overrides": "host:5"})
    config.check_dynamic({"max.connections.per.ip": "0"}, per_broker=True)
    config.update_dynamic({"log.cleaner.max.compaction.lag.ms": "5"}, {})
    with pytest.raises(ConfigError, match="conflict"):
        config.check_dynamic({"log.cleaner.min.compaction.lag.ms": "6"}, per_broker=True)
    # What is set for this broker goes before what is set for all.
    config.update_dynamic({"log.cleaner.max.compaction.lag.ms": "5"}, {"num.io.threads": "16"})
    config.check_dynamic({"num.io.threads": "8"}, per_broker=False)


def test_stored_values_that_contradict_each_other_are_not_put_in_force() -> None:
    config = BrokerConfig()
    config.update_dynamic({"message.max.bytes": "5"}, {})
    config.update_dynamic({"log.roll.ms": "0", "message.max.bytes": "6"}, {})
    assert (config.get("log.roll.ms"), config.get("message.max.bytes")) == (None, 5)
    config.update_dynamic({"log.roll.ms": "7", "message.max.bytes": "6"}, {})
    assert (config.get("log.roll.ms"), config.get("message.max.bytes")) == (7, 6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"replica.fetch.wait.max.ms": "40000"}, "replica.socket.timeout.ms should always be"),
        ({"replica.fetch.wait.max.ms": "500", "replica.lag.time.max.ms": "499"}, "prevent frequent changes"),
        ({"queued.max.request.bytes": "5"}, "queued.max.request.bytes must be larger"),
        ({"connections.max.idle.ms": "100"}, "connection.failed.authentication.delay.ms=100"),
        ({"group.consumer.session.timeout.ms": "5"}, "group.consumer.session.timeout.ms must be greater"),
        ({"group.streams.heartbeat.interval.ms": "20000"}, "group.streams.max.heartbeat.interval.ms"),
        ({"group.streams.num.standby.replicas": "3"}, "group.streams.max.standby.replicas"),
        ({"group.share.assignors": "simple,other"}, "exactly one assignor"),
        ({"group.share.max.size": "1000", "group.share.max.share.sessions": "999"}, "max.share.sessions"),
        ({"offsets.topic.compression.codec": "5"}, "no such codec"),
        ({"metrics.recording.level": "LOUD"}, "metrics.recording.level"),
        ({"log.cleaner.threads": "0"}, "at least 1MB per cleaner thread"),
        ({"log.retention.hours": "0"}, "log.retention.ms must be unlimited"),
    ],
)
def test_values_that_contradict_each_other_keep_a_broker_from_starting(
    given: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        BrokerConfig(given)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"no.such.name": "1"}, "Unknown topic config name: no.such.name"),
        ({"segment.bytes": "14"}, "Value must be at least 1048576"),
        ({"min.compaction.lag.ms": "5", "max.compaction.lag.ms": "4"}, "conflict topic config setting"),
        ({"remote.storage.enable": "true"}, "tiered storage is not offered"),
        ({"cleanup.policy": "delete,,compact"}, "values must not be empty"),
        ({"cleanup.policy": "delete,keep"}, "Invalid value keep for configuration cleanup.policy"),
        (
            {"leader.replication.throttled.replicas": "1-2"},
            "comma-separated list of [partitionId]:[brokerId]",
        ),
    ],
)
def test_topics_overrides_are_checked(overrides: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_topic(BrokerConfig(), overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize("replicas", ["*", "0:1", "0:1,1:2", ""])
def test_throttled_replicas_are_a_star_or_pairs(replicas: str) -> None:
    check_topic(BrokerConfig(), {"leader.replication.throttled.replicas": replicas, "cleanup.policy": ""})


def test_only_names_that_take_effect_at_once_can_be_set_for_running_brokers() -> None:
    """What can change while a broker runs is read each time it is used, or given to logs anew."""
    topic_sources = {synonym.name for synonyms in SYNONYMS.values() for synonym in synonyms}
    live = {name for name, entry in BROKER.items() if entry.mode is not Mode.READ_ONLY}
    acted_on = {name for name in live if BROKER[name].effect is Effect.ACTED_ON}
    assert acted_on - topic_sources - LIVE <= {
        "log.cleaner.backoff.ms",
        "log.cleaner.dedupe.buffer.size",
        "log.cleaner.io.buffer.load.factor",
        "log.cleaner.io.buffer.size",
        "log.cleaner.io.max.bytes.per.second",
        "follower.replication.throttled.rate",
        "leader.replication.throttled.rate",
        "max.connection.creation.rate",
        "max.connections",
        "max.connections.per.ip",
        "metrics.groups.max",
        "metrics.listener",
        "metrics.topics.max",
        "slow.request.ms",
        "otlp.endpoint",
        "otlp.headers",
        "otlp.interval.ms",
        "max.connections.per.ip.overrides",
        "producer.id.expiration.ms",
        "sasl.enabled.mechanisms",
        "sasl.jaas.config",
        "sasl.kerberos.principal.to.local.rules",
        "sasl.kerberos.service.name",
        "sasl.mechanism.inter.broker.protocol",
        "transaction.partition.verification.enable",
        "ottla.users",
        "ottla.users.file",
    }


def test_what_is_said_to_be_acted_on_is_read_somewhere() -> None:
    """By its own name, or as the default of a topic configuration that logs or handlers read."""
    source = Path(ottla.config.__file__).parents[1]
    code = "".join(
        path.read_text()
        for path in source.rglob("*.py")
        if not path.is_relative_to(source / "cli")
        and path.name not in ("broker.py", "topic.py", "inert.py", "inert_security.py")
    )
    defaults = {synonym.name for synonyms in SYNONYMS.values() for synonym in synonyms}
    for name, entry in BROKER.items():
        if entry.effect is Effect.ACTED_ON and name not in defaults:
            assert f'"{name}"' in code, name
    for name, entry in TOPIC.items():
        if entry.effect is Effect.ACTED_ON:
            field = name.replace(".", "_")
            assert f'"{name}"' in code or f".{field}" in code, name


@given(st.dictionaries(st.sampled_from(sorted(BROKER)), st.text(max_size=12), max_size=4))
def test_whatever_is_given_is_taken_or_refused_with_a_message(given_: dict[str, str]) -> None:
    try:
        config = BrokerConfig(given_)
    except ConfigError as error:
        assert str(error)
    else:
        for name in given_:
            assert config.is_set(name)
            config.synonyms(name)


def test_whoever_fails_at_a_change_keeps_no_other_from_hearing_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = BrokerConfig({})
    heard: list[frozenset[str]] = []

    def fails(changed: frozenset[str]) -> None:
        raise ValueError("nobody thought of this")

    for listener in (heard.append, fails, heard.append):
        config.subscribe(listener)
    assert config.update_dynamic({"log.retention.ms": "77000"}, {}) == {"log.retention.ms"}
    assert heard == [frozenset({"log.retention.ms"})] * 2
    assert "nobody thought of this" in caplog.text
