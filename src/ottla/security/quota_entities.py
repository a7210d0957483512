"""Whom client quotas are for, and what they can be (KIP-13, KIP-124, KIP-546, KIP-599, KIP-612).

The rules are those of Kafka's ``ClientQuotaControlManager`` and ``QuotaConfig``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from ottla.security.acl_bindings import address_of

USER: Final = "user"
CLIENT_ID: Final = "client-id"
IP: Final = "ip"
TYPES: Final = (USER, CLIENT_ID, IP)

PRODUCER_BYTE_RATE: Final = "producer_byte_rate"
CONSUMER_BYTE_RATE: Final = "consumer_byte_rate"
REQUEST_PERCENTAGE: Final = "request_percentage"
CONTROLLER_MUTATION_RATE: Final = "controller_mutation_rate"
CONNECTION_CREATION_RATE: Final = "connection_creation_rate"

# The largest values of those that are whole numbers; the others may have fractions.
_WHOLE_MAX: Final[dict[str, tuple[int, str]]] = {
    PRODUCER_BYTE_RATE: (2**63 - 1, "a LONG"),
    CONSUMER_BYTE_RATE: (2**63 - 1, "a LONG"),
    CONNECTION_CREATION_RATE: (2**31 - 1, "an INT"),
}
_OF_CLIENTS: Final = frozenset(
    (PRODUCER_BYTE_RATE, CONSUMER_BYTE_RATE, REQUEST_PERCENTAGE, CONTROLLER_MUTATION_RATE)
)
_OF_ADDRESSES: Final = frozenset((CONNECTION_CREATION_RATE,))

# How far from a whole number a double may be to count as one.
_WHOLE_ENOUGH: Final = 1e-6

# Characters that an entity's names may have together: it is kept in the memory of every node.
CHARACTERS_MAX: Final = 4_096


class Entity(NamedTuple):
    """The names that an entity has, by type: None stands for everybody without a quota of their own.

    ``of`` makes it, so that equal ones are equal.
    """

    parts: tuple[tuple[str, str | None], ...]

    @classmethod
    def of(cls, names: Mapping[str, str | None]) -> Entity:
        return cls(tuple(sorted(names.items())))

    @property
    def names(self) -> dict[str, str | None]:
        return dict(self.parts)

    def __str__(self) -> str:
        return ", ".join(f"{kind} {'<default>' if name is None else name}" for kind, name in self.parts)


def invalid_entity(parts: Sequence[tuple[str, str | None]]) -> str | None:
    """Why there can be no such entity; None: there can."""
    if not parts:
        return "Invalid empty client quota entity"
    for kind, name in parts:
        if kind not in TYPES:
            return f"Unhandled client quota entity type: {kind}"
        if name == "":
            return f"Empty {kind} not supported"
    names = dict(parts)
    if IP in names:
        if len(names) > 1:
            # Kafka's words.
            return "Invalid quota entity combination, IP entity shouldnot be combined with User or ClientId"
        address = names[IP]
        if address is not None and address_of(address) is None:
            return f"{address} is not a valid IP or resolvable host."
    if sum(len(name) for name in names.values() if name is not None) > CHARACTERS_MAX:
        return f"An entity's names may have {CHARACTERS_MAX} characters together"
    return None


def invalid_value(entity: Entity, key: str, value: float) -> str | None:
    """Why an entity can have no such quota; None: it can."""
    if key not in (_OF_ADDRESSES if IP in entity.names else _OF_CLIENTS):
        return f"Invalid configuration key {key}"
    if value <= 0:
        # What is no number is none of these, and can be stored.
        return f"Quota {key} must be greater than 0"
    if key not in _WHOLE_MAX:
        return None
    largest, kind = _WHOLE_MAX[key]
    # As a double, which rounds it up.
    if value > float(largest):
        return f"Proposed value for {key} is too large for {kind}."
    if math.fmod(value, 1.0) > _WHOLE_ENOUGH:
        return f"{key} cannot be a fractional value."
    return None
