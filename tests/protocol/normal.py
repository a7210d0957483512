"""What of an answer does not depend on which broker gave it, and when. Pure.

Left out are addresses, sizes of disks, documentation; ids, timestamps of today and the words of messages
become what they stand for. Arrays whose order says nothing are sorted.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from ottla.wire import records

LEFT_OUT = frozenset(
    {
        "throttle_time_ms",
        "documentation",
        "host",
        "port",
        "rack",
        "cluster_id",
        "total_bytes",
        "usable_bytes",
        "node_endpoints",
        "is_cordoned",
        "supported_features",
        "finalized_features",
        "finalized_features_epoch",
        "zk_migration_ready",
        "controller_id",
    }
)
# Whose entities are told apart by these fields, in whatever order they come.
_IDENTITIES = (
    "name",
    "topic",
    "topic_name",
    "topic_id",
    "partition_index",
    "partition_id",
    "partition",
    "index",
    "group_id",
    "resource_name",
    "config_name",
    "api_key",
    "member_id",
    "producer_id",
    "key",
    "batch_index",
    "group",
)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_DAY_MS = 86_400_000
# DescribeConfigs' source of a configuration that nobody set.
_DEFAULT = 5
_NO_ID = UUID(int=0)
NOTHING = "(nothing)"


class Normaliser:
    """Answers of one broker, in one run: it learns topic ids and drops the prefix of names."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.names: dict[UUID, str] = {}
        self.producers: dict[int, str] = {}

    def answer(self, message: Any) -> Any:
        """The answer as what JSON can hold."""
        self._learn(message)
        if getattr(message, "producer_id", -1) >= 0:
            # An answer to InitProducerId: the number is the broker's affair.
            self.producers.setdefault(message.producer_id, f"producer {len(self.producers)}")
        return self._value("", message)

    def _learn(self, message: Any) -> None:
        for entity in _entities(message):
            topic_id = getattr(entity, "topic_id", None)
            name = getattr(entity, "name", None) or getattr(entity, "topic_name", None)
            if topic_id and topic_id != _NO_ID and name and not getattr(entity, "error_code", 0):
                self.names[topic_id] = name

    def _value(self, field: str, value: Any) -> Any:
        if hasattr(value, "_asdict"):
            return {k: self._value(k, v) for k, v in value._asdict().items() if k not in LEFT_OUT}
        if isinstance(value, UUID):
            return "no id" if value == _NO_ID else f"id of {self._text(self.names.get(value, 'nothing'))}"
        if field == "records" and value is not None:
            return batches(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value).hex()
        if isinstance(value, list | tuple):
            return self._array(field, value)
        if isinstance(value, str):
            return self._string(field, value)
        if isinstance(value, int) and not isinstance(value, bool):
            return self._number(field, value)
        if isinstance(value, float) and not math.isfinite(value):
            # JSON has none of these, and what is no number is not even itself.
            return str(value)
        return value

    def _array(self, field: str, values: Any) -> list[Any]:
        found = [self._value(field, value) for value in values if not _is_default(value)]
        if field == "partitions" and not any(isinstance(value, dict) for value in found):
            # A transaction's partitions, of which Kafka keeps a set.
            return sorted(found)
        return sorted(found, key=_identity) if found and isinstance(found[0], dict) else found

    def _string(self, field: str, value: str) -> str:
        if field in ("error_message", "batch_index_error_message"):
            return value if value in ("", "NONE") else "text"
        if field == "log_dir":
            return "absolute" if value.startswith("/") else f"relative: {value}"
        return self._text(value)

    def _text(self, value: str) -> str:
        return _UUID.sub("<uuid>", value.replace(self.prefix, ""))

    def _number(self, field: str, value: int) -> int | str:
        if field == "session_id":
            return "a session" if value else 0
        if field == "producer_id":
            return self.producers.get(value, value)
        if abs(value - time.time() * 1000) < _DAY_MS:
            return "now"
        return int(value)


def _is_default(value: Any) -> bool:
    """Whether it is a configuration that a CreateTopics answers without having been told: they are many, and
    DescribeConfigs has them too."""
    return getattr(value, "config_source", None) == _DEFAULT and not hasattr(value, "synonyms")


def batches(data: Any) -> list[str]:
    """Each batch that was read: its first and last offset, its epoch and its attributes."""
    return [
        f"{header.base_offset}..{header.base_offset + header.last_offset_delta}"
        f" epoch {header.partition_leader_epoch} attributes {header.attributes:#x}"
        for header, _ in records.iter_batches(data)
    ]


def _entities(message: Any) -> Iterator[Any]:
    if hasattr(message, "_asdict"):
        yield message
        for value in message:
            yield from _entities(value)
    elif isinstance(message, tuple | list):
        for value in message:
            yield from _entities(value)


def _identity(entity: Any) -> str:
    return json.dumps([[str(entity.get(name)) for name in _IDENTITIES], entity], sort_keys=True)


def differences(one: Any, other: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two normalised answers differ: (path, one's, the other's)."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            yield from differences(one.get(key, NOTHING), other.get(key, NOTHING), f"{path}.{key}")
    elif isinstance(one, list) and isinstance(other, list):
        ours, theirs = _named(one), _named(other)
        for key in dict.fromkeys([*ours, *theirs]):
            yield from differences(ours.get(key, NOTHING), theirs.get(key, NOTHING), f"{path}[{key}]")
    elif one != other:
        yield path, one, other


def _named(values: list[Any]) -> dict[str, Any]:
    """An array's entries by what tells them apart; those that are told apart by nothing are counted."""
    found: dict[str, Any] = {}
    for value in values:
        name = str(_own_name(value)) if isinstance(value, dict) else ""
        place = name
        at = 0
        while place in found or not place:
            at += 1
            place = f"{name}#{at}"
        found[place] = value
    return found


def _own_name(entity: dict[str, Any]) -> Any:
    named = [entity[field] for field in _IDENTITIES if entity.get(field) not in (None, "", "no id")]
    return named[0] if named else ""
