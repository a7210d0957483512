"""The fields of a request's body or query, each of a type and within limits (pure)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any, Never
from urllib.parse import parse_qsl

from ottla.testing.control.errors import bad_request, meant, shown
from ottla.text import is_text

# Fields of a query.
QUERY_FIELDS_MAX = 20
# A topic's name has at most 249 characters, a client's id 32767: nobody's pattern needs so many.
TEXT_LENGTH_MAX = 1_000
# Fields whose names are compared with one that is missing.
COMPARED_FIELDS_MAX = 20


class Fields:
    """What was given. Each name may be asked for once; ``end`` refuses those that nobody asked for."""

    def __init__(self, given: Mapping[str, Any], where: str) -> None:
        self._given = given
        self._where = where
        self._known: set[str] = set()

    def has(self, name: str) -> bool:
        """Whether it was given, and is not null."""
        self._known.add(name)
        return self._given.get(name) is not None

    def text(self, name: str, length_max: int = TEXT_LENGTH_MAX) -> str:
        value = self._get(name)
        if not isinstance(value, str):
            self._wrong(name, "is not a string")
        if len(value) > length_max:
            self._wrong(name, f"has {len(value)} characters, more than {length_max}")
        if not is_text(value):
            self._wrong(name, "is no text, it has half of a character")
        return value

    def text_or_none(self, name: str) -> str | None:
        return self.text(name) if self.has(name) else None

    def whole(self, name: str, low: int, high: int) -> int:
        value = self._get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < TEXT_LENGTH_MAX:
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self._wrong(name, f"is {_as_json(value)}. Give a whole number from {low} to {high}")
        return value

    def whole_or(self, name: str, default: int, low: int, high: int) -> int:
        return self.whole(name, low, high) if self.has(name) else default

    def whole_or_none(self, name: str, low: int, high: int) -> int | None:
        return self.whole(name, low, high) if self.has(name) else None

    def flag(self, name: str) -> bool:
        """False where it was not given."""
        if not self.has(name):
            return False
        value = self._given[name]
        if isinstance(value, str):
            # In a query everything is text.
            value = {"true": True, "false": False}.get(value, value)
        if not isinstance(value, bool):
            self._wrong(name, f"is {_as_json(value)}. Give true or false")
        return value

    def list_(self, name: str, length_max: int) -> list[Any]:
        value = self._get(name)
        if not isinstance(value, list):
            self._wrong(name, f"is {_as_json(value)}. Give a list")
        if len(value) > length_max:
            self._wrong(name, f"has {len(value)} elements, more than {length_max}")
        return value

    def object_(self, name: str) -> dict[str, Any]:
        value = self._get(name)
        if not isinstance(value, dict):
            self._wrong(name, f"is {_as_json(value)}. Give an object")
        return value

    def any_(self, name: str) -> Any:
        """Its value, of whatever type; None where there is none."""
        self._known.add(name)
        return self._given.get(name)

    def end(self) -> None:
        """ControlError where something was given that nobody asked for."""
        for name in self._given:
            if name not in self._known:
                why = f"The {self._where} has an unknown field {shown(name)}. {meant(name, self._known)}"
                raise bad_request("UNKNOWN_FIELD", why)

    def _get(self, name: str) -> Any:
        if not self.has(name):
            for given in islice(self._given, COMPARED_FIELDS_MAX):
                if given not in self._known:
                    hint = meant(given, [name])
                    if hint.startswith("Did"):
                        why = f"The {self._where} has an unknown field {shown(given)}. {hint}"
                        raise bad_request("UNKNOWN_FIELD", why)
            raise bad_request("MISSING_FIELD", f"The {self._where} needs the field {name!r}.")
        return self._given[name]

    def _wrong(self, name: str, why: str) -> Never:
        raise bad_request("INVALID_FIELD", f"The field {name!r} of the {self._where} {why}.")


def _as_json(value: Any) -> str:
    """A value of a request, for people: of lists and objects only what they are, since they may be long."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return shown(value) if isinstance(value, str) else shown(json.dumps(value))[1:-1]


def from_body(body: bytes) -> Fields:
    """The fields of a JSON object; an empty body has none."""
    if not body:
        return Fields({}, "body")
    try:
        given = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise bad_request("INVALID_JSON", f"The body is not valid JSON: {why}.") from error
    if not isinstance(given, dict):
        raise bad_request("INVALID_JSON", "The body is not a JSON object.")
    return Fields(given, "body")


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is no number")


def from_query(query: str) -> Fields:
    """The fields of a query; the last one counts where a name comes twice."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
    except ValueError as error:
        raise bad_request("INVALID_QUERY", f"The query has more than {QUERY_FIELDS_MAX} fields.") from error
    return Fields(dict(pairs), "query")
