"""Requests that are well formed and make little sense: each field is drawn from a pool of awkward values."""

from __future__ import annotations

import random
import uuid
from typing import Any

from interop.raw import batch
from ottla.wire.apis import APIS
from ottla.wire.fields import FIXED, Field, describe
from ottla.wire.messages import load

NAMES = [
    "t",
    "u",
    "g",
    "range",
    "consumer",
    "",
    ".",
    "..",
    "a/b",
    "a b",
    "x" * 249,
    "x" * 250,
    "\u2603",
    "a\0b",
    "0",
    "-1",
]
INTEGERS = [0, 1, -1, 2, 3, 5, 100, 1000, -2, -3, -4, -5, -6, 2**7 - 1, 2**15 - 1, 2**31 - 1, 2**63 - 1]
RANGES = {"b": 7, "h": 15, "H": 16, "i": 31, "I": 32, "q": 63}


class Awkward:
    """Makes requests from one random number generator; `ids` are topic ids that exist."""

    def __init__(self, seed: int, ids: list[uuid.UUID]) -> None:
        self.chance = random.Random(seed)
        self._ids = [*ids, uuid.UUID(int=0), uuid.UUID(int=1), uuid.UUID(int=2**128 - 1)]
        # Records that are fine, stamped once.
        self._records = [
            batch(b"v"),
            batch(b"v", b"w", producer_id=5, producer_epoch=0, base_sequence=0),
            b"",
        ]

    def request(self, api_key: int, version: int) -> dict[str, Any]:
        return self._entity(load(APIS[api_key].schema, version, "request"))

    def _entity(self, entity: type[Any]) -> dict[str, Any]:
        return {field.name: self._field(field) for field in describe(entity)}

    def _field(self, field: Field) -> Any:
        optional = field.nullable and field.kind != "datetime_i64"
        if optional and (field.tag is None or field.kind == "entity") and self.chance.random() < 0.15:
            return None
        if field.array:
            return [self._one(field) for _ in range(self.chance.choice([0, 1, 1, 1, 2, 3]))]
        return self._one(field)

    def _one(self, field: Field) -> Any:
        kind, chance = field.kind, self.chance
        if field.entity is not None:
            return self._entity(field.entity)
        if kind == "bool":
            return chance.random() < 0.5
        if kind == "uuid":
            return chance.choice(self._ids)
        if kind == "string":
            return chance.choice(NAMES[:5] if chance.random() < 0.6 else NAMES)
        if kind == "records":
            return chance.choice([*self._records, chance.randbytes(chance.randrange(100))])
        if kind == "bytes":
            return chance.randbytes(chance.choice([0, 1, 10, 100]))
        if kind == "float64":
            return chance.choice([0.0, -1.0, 1e300, float("nan"), float("inf")])
        if kind in ("timedelta_i32", "timedelta_i64"):
            # Waits are kept short, or the test would wait.
            return chance.choice([0, 1, 10, 50, -1])
        if kind in ("error_code", "datetime_i64"):
            return chance.choice([-1, 0, 1, 87])
        bits = RANGES[FIXED[kind]]
        value = chance.choice(INTEGERS[:6] if chance.random() < 0.7 else INTEGERS)
        return max(0, value) % 2**bits if FIXED[kind].isupper() else min(value, 2**bits - 1)
