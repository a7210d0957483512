"""Plans as files, in the JSON of Kafka's own tool, kafka-reassign-partitions (ReassignPartitionsCommand)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from ottla.cli.errors import CliError, ExitCode
from ottla.numbers import INT_MAX
from ottla.text import is_text
from ottla.types import TopicPartition

VERSION = 1
ANY_FOLDER = "any"
# Characters of what makes no sense which are shown.
SHOWN_MAX = 200


def to_document(planned: Mapping[TopicPartition, Sequence[int]]) -> dict[str, Any]:
    """The plan as Kafka's tool writes it."""
    return {
        "version": VERSION,
        "partitions": [
            {
                "topic": topic,
                "partition": partition,
                "replicas": list(planned[TopicPartition(topic, partition)]),
                "log_dirs": [ANY_FOLDER] * len(planned[TopicPartition(topic, partition)]),
            }
            for topic, partition in sorted(planned)
        ],
    }


def read(path: Path) -> dict[TopicPartition, tuple[int, ...]]:
    """The plan in a file. CliError where there is none, or where it makes no sense."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise CliError(f"--file {path}: there is no such file", ExitCode.NOT_FOUND) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"--file {path}: it cannot be read: {error}") from None
    try:
        return parse(text)
    except ValueError as error:
        raise CliError(f"--file {path}: {error}", ExitCode.USAGE) from None


def parse(text: str) -> dict[TopicPartition, tuple[int, ...]]:
    """A plan in Kafka's JSON. ValueError says what is wrong with it."""
    try:
        document = json.loads(text)
    except RecursionError:
        raise ValueError("it is not JSON that makes sense here: it is nested too deeply") from None
    except ValueError as error:
        # Also of a number with more digits than Python reads.
        raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("partitions"), list):
        raise ValueError('it must be {"version": 1, "partitions": [{"topic", "partition", "replicas"}, …]}')
    if document.get("version", VERSION) != VERSION:
        raise ValueError(f"its version is {_shown(document['version'])}, and {VERSION} is understood")
    planned: dict[TopicPartition, tuple[int, ...]] = {}
    for entry in document["partitions"]:
        partition, replicas = _entry(entry)
        if partition in planned:
            raise ValueError(f"{partition} is in it twice")
        planned[partition] = replicas
    if not planned:
        raise ValueError("it names no partitions")
    return planned


def _entry(entry: Any) -> tuple[TopicPartition, tuple[int, ...]]:
    shown = _shown(entry)
    if not isinstance(entry, dict):
        raise ValueError(f"{shown} is not a partition")
    topic, partition, replicas = (entry.get(key) for key in ("topic", "partition", "replicas"))
    if not isinstance(topic, str) or not topic or not is_text(topic) or not _is_id(partition):
        raise ValueError(f"{shown} names no topic and partition")
    if not isinstance(replicas, list) or not replicas or not all(map(_is_id, replicas)):
        raise ValueError(f"{shown} needs replicas, a list of node ids")
    if len(set(replicas)) != len(replicas):
        raise ValueError(f"{topic}-{partition} has a node twice: {_shown(replicas)}")
    folders = entry.get("log_dirs") or []
    if not isinstance(folders, list) or any(folder != ANY_FOLDER for folder in folders):
        raise ValueError(
            f"{topic}-{partition}: a node here has one data directory; log_dirs may be 'any' only"
        )
    return TopicPartition(topic, partition), tuple(replicas)


def _shown(entry: Any) -> str:
    text = json.dumps(entry)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


def _is_id(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= INT_MAX
