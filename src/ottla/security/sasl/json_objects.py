"""JSON from strangers: objects whose names are unique, of any depth and size that they come in."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def read_object(text: bytes | str) -> dict[str, Any]:
    """The object that ``text`` is. ValueError, without any of the text, where it is none, says a name twice,
    or has numbers or a nesting that JSON readers differ about."""
    try:
        found = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise ValueError("malformed JSON") from None
    if not isinstance(found, dict):
        raise ValueError("JSON that is no object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
