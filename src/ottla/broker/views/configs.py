"""Configurations as DescribeConfigs and CreateTopics show them (Kafka's ``ConfigHelper``)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ottla.config import (
    BROKER,
    BROKER_SYNONYMS,
    CLIENT_METRICS,
    GROUP,
    SYNONYMS,
    TOPIC,
    BrokerConfig,
    Definition,
    Mode,
    Source,
    Synonym,
    client_metrics_values,
    group_values,
)

Fields = dict[str, Any]

_TYPE_UNKNOWN = 0

# Configurations of brokers that a description has only where they are set: Kafka knows those of replication's
# rates as dynamic ones (QuotaConfig.brokerQuotaConfigs), has the next one as internal, and not the last.
SHOWN_IF_SET = frozenset(
    {
        "leader.replication.throttled.rate",
        "follower.replication.throttled.rate",
        "replica.alter.log.dirs.io.max.bytes.per.second",
        "producer.id.expiration.check.interval.ms",
        "leader.imbalance.per.broker.percentage",
    }
)


def topic_entries(
    config: BrokerConfig, overrides: Mapping[str, str], names: Collection[str] | None = None
) -> list[Fields]:
    """Every configuration of a topic, or those of ``names``."""
    values = config.topic_values(overrides)
    return [
        _topic_entry(config, TOPIC[name], values[name], overrides)
        for name in TOPIC
        if (not names or name in names) and (not TOPIC[name].internal or name in overrides)
    ]


def created_entries(config: BrokerConfig, given: Mapping[str, str]) -> list[Fields]:
    """Every configuration of a new topic, the values that it was made with as they were given
    (``KafkaConfigSchema.resolveEffectiveTopicConfigs``), where a description shows what they come to."""
    entries = topic_entries(config, given)
    return [entry | {"value": given.get(entry["name"], entry["value"])} for entry in entries]


def _topic_entry(config: BrokerConfig, entry: Definition, value: Any, overrides: Mapping[str, str]) -> Fields:
    synonyms = SYNONYMS.get(entry.name)
    found = config.synonyms(synonyms[0].name) if synonyms else []
    if entry.name in overrides:
        found = [Synonym(entry.name, entry.format(value), Source.TOPIC), *found]
    return _entry(entry.name, entry, entry.format(value), found, read_only=False)


def broker_entries(config: BrokerConfig, names: Collection[str] | None = None) -> list[Fields]:
    """Every configuration of this broker, and what was given that it does not know."""
    unknown = [name for name in config.given if name not in BROKER]
    known = [
        name
        for name, entry in BROKER.items()
        if config.is_set(name) or not (entry.internal or name in SHOWN_IF_SET)
    ]
    return [_broker_entry(config, name) for name in [*known, *unknown] if not names or name in names]


def _broker_entry(config: BrokerConfig, name: str) -> Fields:
    entry = BROKER.get(name)
    found = config.synonyms(name)
    value = entry.format(config.get(name)) if entry else None
    return _entry(name, entry, value, found, read_only=entry is None or entry.mode is Mode.READ_ONLY)


def cluster_entries(config: BrokerConfig, names: Collection[str] | None = None) -> list[Fields]:
    """What is set for all brokers."""
    return [
        _entry(
            name,
            BROKER.get(name),
            text,
            [Synonym(name, text, Source.DYNAMIC_CLUSTER)],
            read_only=name not in BROKER or BROKER[name].mode is Mode.READ_ONLY,
        )
        for name, text in config.dynamic_cluster.items()
        if not names or name in names
    ]


def group_entries(
    config: BrokerConfig, overrides: Mapping[str, str], names: Collection[str] | None = None
) -> list[Fields]:
    """Every configuration of a group, or those of ``names``; internal ones only where they are set."""
    values = group_values(config, overrides)
    return [
        _group_entry(config, entry, values[name], overrides)
        for name, entry in GROUP.items()
        if (not names or name in names) and (not entry.internal or name in overrides)
    ]


def _group_entry(config: BrokerConfig, entry: Definition, value: Any, overrides: Mapping[str, str]) -> Fields:
    found: list[Synonym] = []
    if entry.name in overrides:
        found.append(Synonym(entry.name, entry.format(value), Source.GROUP))
    synonym = BROKER_SYNONYMS.get(entry.name)
    if synonym is not None:
        found += config.synonyms(synonym)
    elif entry.default is not None:
        found.append(Synonym(entry.name, entry.format(entry.default), Source.DEFAULT))
    return _entry(entry.name, entry, entry.format(value), found, read_only=False)


def client_metrics_entries(given: Mapping[str, str], names: Collection[str] | None = None) -> list[Fields]:
    """Every configuration of a subscription to clients' metrics, or those of ``names``."""
    values = client_metrics_values(given)
    entries = []
    for name, entry in CLIENT_METRICS.items():
        if not names or name in names:
            text = entry.format(values[name])
            found = [Synonym(name, text, Source.CLIENT_METRICS)] if name in given else []
            entries.append(_entry(name, entry, text, found, read_only=False))
    return entries


def logger_entries(levels: Mapping[str, str], names: Collection[str] | None = None) -> list[Fields]:
    """The level of each logger, or of those of ``names``."""
    return [
        {
            "name": name,
            "value": level,
            "read_only": False,
            "config_source": int(Source.LOGGER),
            "is_sensitive": False,
            "synonyms": (),
            "config_type": _TYPE_UNKNOWN,
            "documentation": None,
        }
        for name, level in levels.items()
        if not names or name in names
    ]


def _entry(
    name: str, entry: Definition | None, value: str | None, synonyms: Sequence[Synonym], *, read_only: bool
) -> Fields:
    # What is not known may be a secret.
    sensitive = entry is None or entry.sensitive
    return {
        "name": name,
        "value": None if sensitive else value,
        "read_only": read_only,
        "config_source": int(synonyms[0].source if synonyms else Source.DEFAULT),
        "is_sensitive": sensitive,
        "synonyms": [
            {"name": other.name, "value": None if sensitive else other.value, "source": int(other.source)}
            for other in synonyms
        ],
        "config_type": _TYPE_UNKNOWN if entry is None else int(entry.type),
        "documentation": None if entry is None else entry.doc,
    }
