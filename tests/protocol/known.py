"""Where Ottla's answers are meant to differ from Kafka's, and why. Pure."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

UNKNOWN_SERVER_ERROR = -1


class Known(NamedTuple):
    """Differences that are meant: questions and paths (regular expressions), and the reason."""

    question: str
    path: str
    why: str


KNOWN = (
    Known(
        r"Produce: (a byte too much|log append time|unknown attribute|compressed garbage)$|what was stored",
        r"",
        "docs/decisions/0003: what Kafka would quietly repair we refuse, and we unpack less",
    ),
    Known(r"Produce: codec [57]$", r"", "Kafka fails; we say UNSUPPORTED_COMPRESSION_TYPE"),
)


def is_meant(question: str, path: str, one: Any, other: Any) -> bool:
    """Whether a difference is one of those, or of words: where Kafka has none for an error we may."""
    if path.endswith("error_message") and one in (None, "") and other == "text":
        return True
    return any(re.search(known.question, question) and re.search(known.path, path) for known in KNOWN)


def is_failure(answer: Any) -> bool:
    """Whether Kafka met something that it does not expect, and said no more than that. What we answer then
    is our affair."""
    if isinstance(answer, dict):
        return answer.get("error_code") == UNKNOWN_SERVER_ERROR or any(map(is_failure, answer.values()))
    return isinstance(answer, list) and any(map(is_failure, answer))
