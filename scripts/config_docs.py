"""Renders docs/CONFIG.md: every configuration, its default, and what it does here, from the tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ottla.config import (
    BROKER,
    BROKER_SYNONYMS,
    CLIENT_METRICS,
    GROUP,
    SYNONYMS,
    TOPIC,
    Definition,
    Effect,
    Mode,
)

HEAD = """\
# Configuration

This page is generated from the tables in `src/ottla/config/` by `make docs`. Names, types, defaults and
valid values are those of Apache Kafka 4.4, so a `server.properties` file works as it is: give it with
`--config`, and single settings with `--set name=value`, which go before those of the file.

A broker takes, in this order: a value set for it alone while it runs; one set for all brokers; that of the
command line or the file; the default. What is set while brokers run (`ottla config`, or any Kafka admin
client) is kept in the metadata store and holds at once and after restarts. *Update* says what can be set so.

Nothing is ignored in silence. A name that has no effect here is warned about at the start when its value asks
for something that is missing; those that ask for nothing of the kind (a number of threads, a quorum of
controllers, a replication factor of 1) are named together in one line. One that promises what Ottla does not
do is refused; one that Kafka does not know is warned about as Kafka does, and refused for topics.

"""

TOPICS_HEAD = """\
## Topics

A topic's own value goes before the broker's *default from*, which goes before the default.

| Name | Type | Default | Valid | Default from | What it does |
| --- | --- | --- | --- | --- | --- |
"""

GROUPS_HEAD = """
## Groups

A group's own value goes before the broker's *default from*, whose `min` and `max` it has to keep to. They are
kept and checked, and change nothing yet: groups use the classic protocol.

| Name | Type | Default | Valid | Default from | What it does |
| --- | --- | --- | --- | --- | --- |
"""

CLIENT_METRICS_HEAD = """
## Client metrics

Subscriptions to the metrics of clients (KIP-714), each with a name of its own. They are kept and checked, and
change nothing yet: clients are not asked for metrics.

| Name | Type | Default | What it does |
| --- | --- | --- | --- |
"""

ACTED_HEAD = """
## Brokers

| Name | Type | Default | Valid | Update | What it does |
| --- | --- | --- | --- | --- | --- |
"""

REFUSED_HEAD = """
## Refused

These stop a broker from starting when they are set to anything but their default.

| Name | Default | What it would do | Why not |
| --- | --- | --- | --- |
"""

INERT_HEAD = """
## Without effect

| Name | Default | What it would do | Why it has none |
| --- | --- | --- | --- |
"""


def render() -> str:
    """The page."""
    brokers = BROKER.values()
    parts = [HEAD, TOPICS_HEAD]
    parts += [_topic_row(entry) for entry in TOPIC.values() if not entry.internal]
    parts.append(GROUPS_HEAD)
    parts += [_group_row(entry) for entry in GROUP.values() if not entry.internal]
    parts.append(CLIENT_METRICS_HEAD)
    parts += [_client_metrics_row(entry) for entry in CLIENT_METRICS.values()]
    parts.append(ACTED_HEAD)
    parts += [_broker_row(entry) for entry in brokers if entry.effect is Effect.ACTED_ON]
    parts.append(REFUSED_HEAD)
    parts += [_inert_row(entry) for entry in _with(brokers, Effect.REFUSED)]
    parts.append(INERT_HEAD)
    parts += [_inert_row(entry) for entry in _with(brokers, Effect.NONE)]
    return "".join(parts)


def _with(entries: Iterable[Definition], effect: Effect) -> list[Definition]:
    return [entry for entry in entries if entry.effect is effect and not entry.internal]


def _topic_row(entry: Definition) -> str:
    sources = ", ".join(f"`{synonym.name}`" for synonym in SYNONYMS.get(entry.name, ()))
    does = entry.doc
    if entry.effect is Effect.NONE:
        does = f"{does} *No effect: {entry.note}.*"
    elif entry.effect is Effect.REFUSED:
        does = f"{does} *Refused: {entry.note}.*"
    return _row(f"`{entry.name}`", _type(entry), _default(entry), _valid(entry), sources, does)


def _group_row(entry: Definition) -> str:
    source = BROKER_SYNONYMS.get(entry.name)
    shown = f"`{source}`" if source else ""
    return _row(f"`{entry.name}`", _type(entry), _default(entry), _valid(entry), shown, entry.doc)


def _client_metrics_row(entry: Definition) -> str:
    return _row(f"`{entry.name}`", _type(entry), _default(entry), entry.doc)


def _broker_row(entry: Definition) -> str:
    update = "" if entry.mode is Mode.READ_ONLY else entry.mode.value
    return _row(f"`{entry.name}`", _type(entry), _default(entry), _valid(entry), update, entry.doc)


def _inert_row(entry: Definition) -> str:
    return _row(f"`{entry.name}`", _default(entry), entry.doc, f"{entry.note[0].upper()}{entry.note[1:]}.")


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _type(entry: Definition) -> str:
    return entry.type.name.lower()


def _valid(entry: Definition) -> str:
    return entry.check.text if entry.check else ""


def _default(entry: Definition) -> str:
    value: Any = entry.format(entry.default)
    if value is None:
        return ""
    return f"`{value}`" if value else "empty"
