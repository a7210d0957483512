"""Our tables of configurations beside Kafka's: the same names, types, bounds and ways to change them.

``kafka_configs.tsv`` holds what Kafka's ``ConfigDef``s say.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from ottla.config import BROKER, TOPIC, ConfigError, ConfigType, Definition
from ottla.config.node import NodeSettings
from ottla.config.values import TABLES, BrokerConfig
from ottla.numbers import INT_MAX, LONG_MAX, SHORT_MAX

LARGEST = {ConfigType.INT: INT_MAX, ConfigType.SHORT: SHORT_MAX, ConfigType.LONG: LONG_MAX}

# Where we differ: nothing but what follows from what a node is here.
OURS = {
    # Kafka cannot do without; here they have defaults.
    "controller.listener.names": "may be empty",
    "process.roles": "may be empty",
    "node.id": "-1 stands for the default",
    # No bound in Kafka; here a lease must last.
    "broker.heartbeat.interval.ms": "at least 1",
    "broker.session.timeout.ms": "at least 1",
    "initial.broker.registration.timeout.ms": "at least 1",
    # Java classes cannot be loaded, so the names that are known are the valid ones.
    "replica.selector.class": "one of two",
    # Whom nobody here asks for a vote may be written in any way.
    "controller.quorum.voters": "any",
    "controller.quorum.bootstrap.servers": "any",
}
# Listeners and their keys cannot change while a broker runs.
UPDATES_OURS = {"listeners": "read-only", "listener.security.protocol.map": "read-only"}
NOT_KAFKAS = {
    # Kafka has none of it since it does without ZooKeeper, and plans leaders in another way.
    "leader.imbalance.per.broker.percentage",
    # Read by its authorizer, which has no table.
    "allow.everyone.if.no.acl.found",
    "super.users",
    # It tells what it does by JMX.
    "metrics.groups.max",
    "metrics.listener",
    "metrics.topics.max",
    "slow.request.ms",
    "otlp.endpoint",
    "otlp.headers",
    "otlp.interval.ms",
    # Ours, for those who would rather write no JAAS.
    "ottla.node.user",
    "ottla.users",
    "ottla.users.file",
}


class Fact(NamedTuple):
    of: str
    name: str
    type: str
    valid: str
    update: str


def facts() -> list[Fact]:
    lines = Path(__file__).with_name("kafka_configs.tsv").read_text().splitlines()
    return [Fact(*line.split("\t")) for line in lines if not line.startswith("#")]


FACTS = facts()


def definition(fact: Fact) -> Definition:
    return (TOPIC if fact.of == "topic" else BROKER)[fact.name]


def takes(entry: Definition, text: str) -> bool:
    try:
        entry.parse(text)
    except ConfigError:
        return False
    return True


def test_every_name_is_known_and_no_other() -> None:
    for of, table in (("broker", BROKER), ("topic", TOPIC)):
        kafkas = {fact.name for fact in FACTS if fact.of == of}
        ours = {name for name, entry in table.items() if not entry.internal} - NOT_KAFKAS
        # This one is internal in Kafka, and can be set there too.
        ours -= {"producer.id.expiration.check.interval.ms"}
        assert ours == kafkas


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: f"{fact.of}-{fact.name}")
def test_type_and_update_are_kafka_s(fact: Fact) -> None:
    entry = definition(fact)
    assert entry.type.name == fact.type
    if fact.of == "broker":
        assert entry.mode.value == UPDATES_OURS.get(fact.name, fact.update)


@pytest.mark.parametrize(
    "fact", [fact for fact in FACTS if fact.name not in OURS], ids=lambda fact: f"{fact.of}-{fact.name}"
)
def test_valid_values_are_kafka_s(fact: Fact) -> None:
    entry = definition(fact)
    if entry.type in LARGEST:
        check_whole(entry, fact.valid)
    elif entry.type is ConfigType.DOUBLE:
        check_double(entry, fact.valid)
    elif fact.valid.startswith("list"):
        check_list(entry, fact.valid)
    elif fact.valid.startswith("one"):
        check_choice(entry, fact.valid)
    elif fact.valid == "text+":
        assert takes(entry, "x") and not takes(entry, " ")


def check_whole(entry: Definition, valid: str) -> None:
    largest = LARGEST[entry.type]
    low, high = -largest - 1, largest
    if valid == "-1,1..9":
        assert takes(entry, "-1") and not takes(entry, "0")
        low, high = 1, 9
    elif valid != "any":
        low_text, _, high_text = valid.partition("..")
        low, high = int(low_text), int(high_text or high)
    assert takes(entry, str(low)) and takes(entry, f"+{high}") and takes(entry, f" \t{high}\n")
    assert not takes(entry, str(high + 1))
    assert not takes(entry, str(low - 1)) or (valid == "-1,1..9" and low - 1 == -1)
    for text in ("", "1.0", "1_0", "0x1", "１", "1" + "0" * 5000, "one"):
        assert not takes(entry, text), text


def check_double(entry: Definition, valid: str) -> None:
    assert takes(entry, "0.5d") and takes(entry, "NaN")
    bounded = valid != "any"
    assert takes(entry, "-0.5") is not bounded and takes(entry, "1.5") is not bounded
    for text in ("", "nan", "0,5", "1_0.5", "inf"):
        assert not takes(entry, text), text


def check_list(entry: Definition, valid: str) -> None:
    kind, _, allowed = valid.partition(":")
    items = allowed.split(",") if allowed else ["a", "b"]
    assert entry.parse(f" {items[0]} , {items[1]},{items[0]} ") == (items[0], items[1])
    assert takes(entry, "") is (kind == "list")
    assert not takes(entry, f"{items[0]},,{items[1]}")
    assert takes(entry, "no such") is not bool(allowed)


def check_choice(entry: Definition, valid: str) -> None:
    kind, _, allowed = valid.partition(":")
    for item in allowed.split(","):
        assert takes(entry, item)
        assert takes(entry, item.swapcase()) is (kind == "oneof")
    assert not takes(entry, "no such")


def test_each_setting_is_in_one_table() -> None:
    """One that has an effect in one table, and none in another, would be as whichever comes last says."""
    assert not [name for name, count in Counter(name for one in TABLES for name in one).items() if count > 1]


@pytest.mark.parametrize("table", [BROKER, TOPIC], ids=["brokers", "topics"])
def test_what_is_said_of_a_setting_needs_none_of_another(table: dict[str, Definition]) -> None:
    """They are shown by name, and one at a time: what `the same' is nobody sees."""
    pointing = re.compile(
        r"^The same\b|\bthe others\b|\bthese keys\b|\blooked at meanwhile|^(Where|The \w+ of) that token"
    )
    assert not [name for name, one in table.items() if pointing.search(one.doc)]


def test_the_page_has_the_defaults_that_brokers_have() -> None:
    page = (Path(__file__).parents[2] / "docs" / "CONFIG.md").read_text()
    made = BrokerConfig(NodeSettings().to_properties())
    for name in ("listeners", "log.dirs", "node.id"):
        value = BROKER[name].format(made.get(name))
        assert re.search(
            rf"^\| `{re.escape(name)}` \| \w+ \| `{re.escape(value)}` \(Kafka: ", page, re.MULTILINE
        ), value
