"""Kafka's features and their levels: which there are, what each needs, and which release has it (pure; Kafka
4.4's ``MetadataVersion`` and ``Feature``, KIP-584, KIP-1022).

A feature's level is agreed on by the whole cluster, so that no node does what another one cannot read.
``metadata.version`` stands for the release: a new cluster of it has the other features at certain levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

METADATA_VERSION: Final = "metadata.version"
KRAFT_VERSION: Final = "kraft.version"
TRANSACTION_VERSION: Final = "transaction.version"
GROUP_VERSION: Final = "group.version"
ELIGIBLE_LEADER_REPLICAS_VERSION: Final = "eligible.leader.replicas.version"
SHARE_VERSION: Final = "share.version"
STREAMS_VERSION: Final = "streams.version"


class Release(NamedTuple):
    """A level of ``metadata.version``; ``changed``: it has metadata that those before it cannot have."""

    level: int
    name: str
    changed: bool

    @property
    def short_name(self) -> str:
        """Without what came within its release: ``4.3`` of ``4.3-IV0``."""
        return self.name.partition("-")[0]


# How many levels each release has, in order, of which the first is number 7: 3.3-IV3.
_COUNTS = {
    "3.4": 1, "3.5": 3, "3.6": 3, "3.7": 5, "3.8": 1, "3.9": 1,
    "4.0": 4, "4.1": 2, "4.2": 2, "4.3": 1, "4.4": 3,
}  # fmt: skip
_NAMES = ["3.3-IV3", *(f"{release}-IV{n}" for release, count in _COUNTS.items() for n in range(count))]
_CHANGED = frozenset((7, 8, 11, 13, 14, 15, 17, 23, 30, 32, 33))
METADATA_VERSION_MIN: Final = 7
RELEASES: Final = tuple(
    Release(n, name, n in _CHANGED) for n, name in enumerate(_NAMES, METADATA_VERSION_MIN)
)
# The last that Kafka 4.4 has for other than tests.
METADATA_VERSION_MAX: Final = 30


class Level(NamedTuple):
    """A level of a feature: since which ``metadata.version`` new clusters have it, and what it needs."""

    level: int
    since: int
    needs: Mapping[str, int] = {}


# Each has every level from 0 on.
FEATURES: Final[Mapping[str, tuple[Level, ...]]] = {
    KRAFT_VERSION: (Level(0, 7), Level(1, 21)),
    TRANSACTION_VERSION: (Level(0, 7), Level(1, 24), Level(2, 24)),
    GROUP_VERSION: (Level(0, 7), Level(1, 22)),
    ELIGIBLE_LEADER_REPLICAS_VERSION: (Level(0, 7), Level(1, 26, {METADATA_VERSION: 23})),
    SHARE_VERSION: (Level(0, 7), Level(1, 28), Level(2, 31)),
    STREAMS_VERSION: (Level(0, 7), Level(1, 29)),
}


def release_of(level: int) -> Release | None:
    """The release that a level of ``metadata.version`` is; None where there is none."""
    index = level - METADATA_VERSION_MIN
    return RELEASES[index] if 0 <= index < len(RELEASES) else None


def find_release(text: str) -> Release:
    """A release by its name, as Kafka's tools take it: ``4.3-IV0``; ``4.3`` or ``4.3.1`` for the last one
    within it, if it is for other than tests. ValueError with those that there are."""
    name = ".".join(text.split(".")[:2])
    for release in reversed(RELEASES):
        stable = release.level <= METADATA_VERSION_MAX
        if name == release.name or (stable and name == release.short_name):
            return release
    known = ", ".join(release.name for release in RELEASES)
    raise ValueError(f"there is no release {text!r}; there are {known}")


def levels_of(release: Release) -> dict[str, int]:
    """The level of every feature in a new cluster of this release."""
    found = {METADATA_VERSION: release.level}
    for name, levels in FEATURES.items():
        found[name] = max(one.level for one in levels if one.since <= release.level)
    return found


def was_metadata_changed(one: int, other: int) -> bool:
    """Whether there may be metadata at the higher of two levels of ``metadata.version`` that the lower cannot
    have (``MetadataVersion.checkIfMetadataChanged``)."""
    low, high = sorted((one, other))
    return any(release.changed for release in RELEASES if low < release.level <= high)
