"""Requests that are as much as their API allows, and a little more: wide and deep arrays, long strings.

They are made from kio's definitions, field by field, so that an API that is served next is covered by itself.
"""

from __future__ import annotations

import uuid
from enum import Enum
from typing import Any

from interop.fuzz import Awkward
from interop.raw import flexible, framed, request_header
from ottla.wire.apis import APIS, Api
from ottla.wire.fields import Field, describe
from ottla.wire.messages import encode_request

STRING_BYTES_MAX = 2**15 - 1
# Larger frames only take longer to make: what they cost is bounded by the elements in them.
FRAME_BYTES_MAX = 4 * 1024 * 1024


class Shape(Enum):
    """Where a request has its elements."""

    WIDE = "one array of everything"
    DEEP = "one element with an array of everything"
    DEEPEST = "one element of one element with an array of everything"
    SQUARE = "many elements with many each"
    SAME = "one array of one thing, again and again"
    LONG = "strings as long as they may be"
    OVER = "more elements than are allowed"
    TOO_LONG = "a string that is too long"


class Heavy(Awkward):
    """Makes requests from one random number generator; `names` are topics and groups that exist."""

    def __init__(self, seed: int, ids: list[uuid.UUID], names: list[str]) -> None:
        super().__init__(seed, ids)
        self._names = names
        self._shape = Shape.WIDE
        self._depth = 0
        self._left = self._bytes_left = 0
        self._number = 0

    def frame(self, api: Api, version: int, shape: Shape) -> bytes:
        """A whole request, its size in front."""
        if shape is Shape.TOO_LONG and not flexible(api.key, version):
            # Two bytes of length cannot say so.
            shape = Shape.LONG
        self._shape, self._depth = shape, 0
        self._left = api.elements_max + (1_000 if shape is Shape.OVER else 0)
        self._bytes_left = min(api.frame_bytes_max, FRAME_BYTES_MAX) // 2
        header = request_header(api.key, version, flexible=flexible(api.key, version))
        return framed(header + encode_request(api.key, version, self.request(api.key, version)))

    def _entity(self, entity: type[Any]) -> dict[str, Any]:
        fields = {}
        for field in describe(entity):
            if field.tag is not None:
                # Tagged fields count, too.
                if self._left <= 0 or self.chance.random() < 0.7:
                    continue
                self._left -= 1
            fields[field.name] = self._field(field)
        return fields

    def _field(self, field: Field) -> Any:
        if field.name == "validate_only":
            # What is really made or changed is not what is measured, and would be in the way of the rest.
            return True
        if not field.array:
            return super()._field(field)
        count = min(self._count(), self._left)
        self._left -= count
        self._depth += 1
        items = [self._one(field) for _ in range(count)] if self._shape is not Shape.SAME else []
        if self._shape is Shape.SAME and count:
            items = [self._one(field)] * count
        self._depth -= 1
        return items

    def _count(self) -> int:
        """How many elements an array has at this depth."""
        many, shape, depth = self._left, self._shape, self._depth
        if shape is Shape.SQUARE:
            return max(1, int(many**0.5))
        if shape is Shape.TOO_LONG:
            return 1
        if shape is Shape.LONG:
            return max(1, min(many, self._bytes_left // STRING_BYTES_MAX))
        deep = {Shape.DEEP: 1, Shape.DEEPEST: 2}.get(shape, 0)
        return many if depth == deep else 1

    def _one(self, field: Field) -> Any:
        if field.kind != "string" or (field.array and field.entity is not None):
            return super()._one(field)
        if self._shape is Shape.TOO_LONG:
            return "x" * 40_000
        if self._shape is Shape.LONG and self._bytes_left > STRING_BYTES_MAX:
            self._bytes_left -= STRING_BYTES_MAX
            return self._unlike("x" * STRING_BYTES_MAX)
        # What exists, what cannot be, and names that all differ: each is another way through a handler.
        choice = self.chance.random()
        if choice < 0.3:
            return self.chance.choice(self._names)
        return super()._one(field) if choice < 0.5 else self._unlike("heavy-name")

    def _unlike(self, name: str) -> str:
        """A name of the same length, nearly, that no other element has."""
        self._number += 1
        number = str(self._number)
        return name[: max(0, STRING_BYTES_MAX - len(number))] + number


def versions(api: Api) -> list[int]:
    """All versions of an API that are served."""
    return list(range(api.version_min, api.version_max + 1))


ALL = [(api, version) for api in APIS.values() for version in versions(api)]
