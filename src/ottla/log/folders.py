"""Names of the folders in a data directory (Kafka's LocalLog.parseTopicPartitionName).

A partition's folder is ``TOPIC-N``. One that is on its way out or set aside is ``TOPIC-N.ID-SUFFIX`` with 32
hex digits, the topic's name shortened where the whole would be too long. Any other name is somebody else's:
what has it is neither read nor touched.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple
from uuid import uuid4

from ottla.types import TopicPartition

# What the file systems that matter allow in a name; ours are ASCII.
FOLDER_NAME_MAX = 255
PARTITION_MAX = 2**31 - 1

# The one form that Kafka writes a partition's number in: with a second name it would have a second log.
_PARTITION = re.compile(r"([a-zA-Z0-9._-]{1,249})-(0|[1-9][0-9]{0,9})")
_ASIDE = re.compile(_PARTITION.pattern + r"\.([0-9a-f]{32})-(delete|stray|future)")


class Suffix(StrEnum):
    """What has become of a partition's folder."""

    # Its topic is deleted, or the replica lives elsewhere: it goes as soon as nobody reads from it.
    DELETE = "delete"
    # It belongs to no partition that this node holds: it stays until somebody says what is to become of it.
    STRAY = "stray"
    # Kafka's, for a replica that was moving between directories. We make none, and leave them alone.
    FUTURE = "future"


class Aside(NamedTuple):
    """What the name of a folder with a suffix says. ``topic`` may be the beginning of the topic's name."""

    topic: str
    partition: int
    suffix: Suffix

    @property
    def may_be_short(self) -> bool:
        """Whether the topic's name may go on."""
        return len(_aside(self.topic, self.partition, "0" * 32, self.suffix)) >= FOLDER_NAME_MAX


def parse_folder(name: str) -> TopicPartition | None:
    """The partition that a folder of this name holds, None where it holds none."""
    match = _PARTITION.fullmatch(name)
    if match is None or int(match[2]) > PARTITION_MAX or match[1] in (".", ".."):
        return None
    return TopicPartition(match[1], int(match[2]))


def parse_aside(name: str) -> Aside | None:
    """What a folder with a suffix holds, None where the name is no such folder's."""
    match = _ASIDE.fullmatch(name)
    if match is None or int(match[2]) > PARTITION_MAX:
        return None
    return Aside(match[1], int(match[2]), Suffix(match[4]))


def aside_name(where: TopicPartition, suffix: Suffix) -> str:
    """A new name for a partition's folder (LocalLog.logDeleteDirName, logStrayDirName)."""
    unique = uuid4().hex
    rest = len(_aside("", where.partition, unique, suffix))
    return _aside(where.topic[: FOLDER_NAME_MAX - rest], where.partition, unique, suffix)


def _aside(topic: str, partition: int, unique: str, suffix: Suffix) -> str:
    return f"{topic}-{partition}.{unique}-{suffix}"
