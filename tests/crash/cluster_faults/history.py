"""What the clients of a campaign saw, from the files that the workers wrote, and what the logs hold."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cluster_faults.logs import Batch
from cluster_faults.sends import Event, Where
from cluster_faults.transactions import Ledger

# A partition, and a producer in it.
Stream = tuple[str, str, int]


class Ack(NamedTuple):
    """An acknowledgement; ``offset`` is less than 0 where the client was not told."""

    number: int
    offset: int
    handed_over_s: float
    acked_s: float


class Failure(NamedTuple):
    """A record of which the producer knows no outcome."""

    number: int
    error: str
    handed_over_s: float
    failed_s: float


class Stored(NamedTuple):
    """A record as it lies in the log at the end."""

    offset: int
    producer: str
    number: int
    hash: int


class Read(NamedTuple):
    group: str
    member: str
    offset: int
    hash: int


class Commit(NamedTuple):
    """An attempt to commit; ``error`` is empty where it was acknowledged."""

    member: str
    offset: int
    asked_s: float
    answered_s: float
    error: str


class Committed(NamedTuple):
    """A look at a group's committed offset; -1: there is none."""

    member: str
    offset: int
    asked_s: float
    answered_s: float


@dataclass(slots=True)
class History:
    """Everything, by partition, by producer and partition, or by group and partition."""

    sent: dict[Stream, int] = field(default_factory=dict)
    acked: dict[Stream, list[Ack]] = field(default_factory=lambda: defaultdict(list))
    failed: dict[Stream, list[Failure]] = field(default_factory=lambda: defaultdict(list))
    stored: dict[Where, list[Stored]] = field(default_factory=dict)
    reads: dict[Where, list[Read]] = field(default_factory=lambda: defaultdict(list))
    commits: dict[Stream, list[Commit]] = field(default_factory=lambda: defaultdict(list))
    committed: dict[Stream, list[Committed]] = field(default_factory=lambda: defaultdict(list))
    trouble: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    # The batches of each partition, and what each producer's log tells.
    batches: dict[Where, list[Batch]] = field(default_factory=dict)
    events: dict[str, list[Event]] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)

    def take(self, line: list[Any]) -> None:
        """One line of a worker."""
        if self.ledger.take(line):
            return
        match line:
            case ["sent", producer, topic, partition, count]:
                self.sent[producer, topic, partition] = count
            case ["acked", producer, topic, partition, *rest]:
                self.acked[producer, topic, partition].append(Ack(*rest))
            case ["failed", producer, topic, partition, *rest]:
                self.failed[producer, topic, partition].append(Failure(*rest))
            case ["read", group, member, topic, partition, offset, value_hash]:
                self.reads[topic, partition].append(Read(group, member, offset, value_hash))
            case ["commit", group, member, topic, partition, *rest]:
                self.commits[group, topic, partition].append(Commit(member, *rest))
            case ["committed", group, member, topic, partition, *rest]:
                self.committed[group, topic, partition].append(Committed(member, *rest))
            case ["trouble", who, what]:
                self.trouble.append(f"{who}: {what}")
            case ["note", who, what]:
                self.notes[f"{who}: {what}"] += 1
            case _:
                raise AssertionError(f"a worker wrote {line}")


class Tail:
    """What has been added to files since the last look; a line that is not whole yet is left for the next."""

    def __init__(self) -> None:
        self._offsets: dict[Path, int] = {}

    def add(self, path: Path) -> None:
        self._offsets[path] = 0

    def lines(self) -> list[list[Any]]:
        found = []
        for path, offset in self._offsets.items():
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._offsets[path] = offset + len(whole)
            found += [json.loads(line) for line in whole.splitlines()]
        return found
