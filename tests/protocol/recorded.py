"""Playing the sequences on a broker, and writing down what it answered so that people can read it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from protocol import (
    sequence_cluster,
    sequence_groups,
    sequence_records,
    sequence_security,
    sequence_topics,
    sequence_transactions,
)
from protocol.peer import Peer, Transcript

Sequence = Callable[[Peer], None]
# By the names of sequence and question.
Answers = dict[str, Transcript]

SEQUENCES: dict[str, Sequence] = {
    sequence.__name__: sequence
    for module in (
        sequence_records,
        sequence_topics,
        sequence_groups,
        sequence_cluster,
        sequence_transactions,
    )
    for sequence in module.SEQUENCES
}
# Those of a broker that asks for logins: `sequence_security.SETTINGS`.
SECURED: dict[str, Sequence] = {sequence.__name__: sequence for sequence in sequence_security.SEQUENCES}
_ALL = SEQUENCES | SECURED
# With what names begin where answers are recorded or compared with the record.
PREFIX = "q000000-"
# What Apache Kafka answered, in a file for each module of sequences.
KAFKA = Path(__file__).with_name("kafka")
_FILES = {name: f"{sequence.__module__.rpartition('sequence_')[2]}.json" for name, sequence in _ALL.items()}


def play(address: str, prefix: str, word: str = "", *, secured: bool = False) -> Answers:
    """Play the sequences that have `word` in their names, each on a connection of its own.

    `secured`: those of a broker that asks for logins.
    """
    if not secured:
        warm_up(address, prefix)
    names = SECURED if secured else SEQUENCES
    return {name: play_one(address, prefix, name) for name in names if word in name}


def warm_up(address: str, prefix: str) -> None:
    """Have the broker make its internal topics, and wait until it hands out producers' ids."""
    peer = Peer(address, prefix)
    group = peer.name("warm")
    wants = (
        ("FindCoordinator", 3, {"key": group, "key_type": 0}),
        ("FindCoordinator", 3, {"key": group, "key_type": 1}),
        ("OffsetFetch", 5, {"group_id": group, "topics": None, "require_stable": False}),
        ("InitProducerId", 1, {"transactional_id": None, "transaction_timeout_ms": 1000}),
    )
    deadline = time.monotonic() + peer.timeout_s
    for api, version, fields in wants:
        while getattr(peer.send(api, version, fields), "error_code", None) != 0:
            assert time.monotonic() < deadline, f"{address} is not ready for {api}"
            time.sleep(0.05)
    peer.close()


def play_one(address: str, prefix: str, name: str) -> Transcript:
    """Play one sequence. Its topics and groups begin with `prefix` and are no other sequence's."""
    login = sequence_security.ADMIN if name in SECURED else None
    peer = Peer(address, f"{prefix}{name.replace('_', '-')}-", login=login)
    try:
        _ALL[name](peer)
    finally:
        peer.close()
    return peer.transcript


def write(folder: Path, answers: Answers) -> None:
    """Write answers down, for `read`."""
    folder.mkdir(exist_ok=True)
    for file in dict.fromkeys(map(_FILES.__getitem__, answers)):
        of_file = {name: each for name, each in answers.items() if _FILES[name] == file}
        (folder / file).write_text(_written(of_file))


def _written(answers: Answers) -> str:
    """As JSON, one line for each answer; versions with the same answer have one line together."""
    lines = []
    for name, transcript in answers.items():
        questions = []
        for question, versions in transcript.items():
            told = ",\n   ".join(
                f"{json.dumps(span)}: {json.dumps(answer, sort_keys=True, separators=(',', ':'))}"
                for span, answer in _joined(versions)
            )
            questions.append(f"  {json.dumps(question)}: {{\n   {told}\n  }}")
        lines.append(f" {json.dumps(name)}: {{\n" + ",\n".join(questions) + "\n }")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _joined(versions: dict[int, Any]) -> Iterator[tuple[str, Any]]:
    spans: dict[str, list[int]] = {}
    for version, answer in sorted(versions.items()):
        spans.setdefault(json.dumps(answer, sort_keys=True), []).append(version)
    for answer_text, found in spans.items():
        yield ",".join(map(str, found)), json.loads(answer_text)


def read(folder: Path = KAFKA) -> Answers:
    """What `write` wrote, in the order of the sequences."""
    found: Answers = {}
    for path in folder.glob("*.json"):
        found |= {
            name: {
                question: {
                    int(version): answer for span, answer in spans.items() for version in span.split(",")
                }
                for question, spans in transcript.items()
            }
            for name, transcript in json.loads(path.read_text()).items()
        }
    return {name: found[name] for name in _ALL if name in found}


def names(folder: Path = KAFKA) -> Iterable[str]:
    return read(folder)
