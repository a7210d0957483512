"""Renders docs/CONFIG.md: every configuration, its default, and what it does here, from the tables."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
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
from ottla.config.node import DATA_DEFAULT, NodeSettings
from ottla.config.values import NODE_ID_DEFAULT

# What a broker by itself is started with that is given no option and no file.
OURS = {"log.dir": DATA_DEFAULT, "node.id": str(NODE_ID_DEFAULT), **NodeSettings().to_properties()}

TOPICS_HEAD = """\
## Topics

The value of a topic overrides the setting of the broker in the column *Default from*. If neither is set, the
default is in force.

| Name | Type | Default | Valid | Default from | What it does |
| --- | --- | --- | --- | --- | --- |
"""

GROUPS_HEAD = """
## Groups

The value of a group overrides the setting of the broker in the column *Default from*. It must be within the
`min` and `max` of the broker. These settings are stored and checked, and have no effect yet: groups use the
classic protocol.

| Name | Type | Default | Valid | Default from | What it does |
| --- | --- | --- | --- | --- | --- |
"""

CLIENT_METRICS_HEAD = """
## Client metrics

A subscription to the metrics of clients (KIP-714) has a name and these settings. Clients send metrics only
while somebody reads them ([METRICS.md](METRICS.md)).

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

If one of these is set to another value than its default, the broker does not start.

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
    parts = [_head(), TOPICS_HEAD]
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


def _head() -> str:
    """What stands before the tables, with the defaults of the settings that it names."""
    text = Path(__file__).with_name("config_page.txt").read_text()
    named = re.compile(r"^\| `([\w.]+)` \| DEFAULT \|", re.MULTILINE)
    return named.sub(lambda found: f"| `{found[1]}` | {_in_force(BROKER[found[1]])} |", text)


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
    return _row(f"`{entry.name}`", _type(entry), _in_force(entry), _valid(entry), update, entry.doc)


def _in_force(entry: Definition) -> str:
    """What a broker has that is told nothing: our default, with Kafka's behind it where that is another."""
    ours = OURS.get(entry.name, entry.format(entry.default))
    if ours == entry.format(entry.default):
        return _default(entry)
    return f"`{ours}` (Kafka: {_default(entry) or 'none'})"


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
