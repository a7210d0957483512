"""Where two brokers' answers to the same questions differ. Pure."""

from __future__ import annotations

from typing import Any

from protocol.known import is_failure, is_meant
from protocol.normal import differences
from protocol.peer import Transcript


def listed(one: dict[str, Transcript], other: dict[str, Transcript], *, all_of_them: bool) -> list[str]:
    """A line for each difference: sequence, question, versions, path, one's value and the other's."""
    return [
        f"{name} / {line}"
        for name, transcript in one.items()
        for line in between(transcript, other.get(name, {}), all_of_them=all_of_them)
    ]


def between(one: Transcript, other: Transcript, *, all_of_them: bool = False) -> list[str]:
    """The lines of one sequence; versions that differ alike share theirs.

    `all_of_them`: those as well that are meant where `one` is Kafka and `other` Ottla.
    """
    found: dict[str, list[int]] = {}
    for question in dict.fromkeys([*one, *other]):
        left, right = one.get(question, {}), other.get(question, {})
        for version in dict.fromkeys([*left, *right]):
            answers: tuple[Any, Any] = (left.get(version, "not asked"), right.get(version, "not asked"))
            if is_failure(answers[0]) and not all_of_them:
                continue
            for path, this, that in differences(*answers):
                if all_of_them or not is_meant(question, path, this, that):
                    found.setdefault(f"{question}{{}}: {path}: {this!r} / {that!r}", []).append(version)
    return [line.replace("{}", f" v{','.join(map(str, versions))}", 1) for line, versions in found.items()]
