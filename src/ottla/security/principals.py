"""Who a client is, as the authorizer and the log know it (Kafka's KafkaPrincipal)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

USER: Final = "User"


@dataclass(frozen=True, slots=True)
class KafkaPrincipal:
    """Equal where type and name are; whether a delegation token stood in for a password does not count."""

    type: str
    name: str
    token_authenticated: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return f"{self.type}:{self.name}"


# Whoever comes by a listener that does not ask, or shows no certificate where none is required.
ANONYMOUS: Final = KafkaPrincipal(USER, "ANONYMOUS")


def user(name: str) -> KafkaPrincipal:
    return KafkaPrincipal(USER, name)


def parse_principal(text: str) -> KafkaPrincipal:
    """``type:name``, where the name may have colons of its own and either may be empty
    (SecurityUtils.parseKafkaPrincipal). ValueError for anything else."""
    kind, colon, name = text.partition(":")
    if not colon:
        raise ValueError(f"expected a string in format principalType:principalName but got {text!r}")
    return KafkaPrincipal(kind, name)
