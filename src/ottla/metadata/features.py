"""The features of a cluster: which levels a node supports, which one is in force, and how it may change
(pure; Kafka's ``QuorumFeatures``, ``BrokerFeatures`` and ``FeatureControlManager``;
docs/decisions/0021-features.md).

The levels in force, Kafka's finalized ones, are in one key of the store, and change together. Each node
registers with what it supports, and neither joins nor goes on at a level that it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, NamedTuple

from ottla.errors import ErrorCode, KafkaError
from ottla.metadata import keys
from ottla.metadata.feature_levels import (
    ELIGIBLE_LEADER_REPLICAS_VERSION,
    FEATURES,
    GROUP_VERSION,
    KRAFT_VERSION,
    METADATA_VERSION,
    METADATA_VERSION_MAX,
    METADATA_VERSION_MIN,
    SHARE_VERSION,
    STREAMS_VERSION,
    TRANSACTION_VERSION,
    levels_of,
    release_of,
    was_metadata_changed,
)

# Whether the requests of transactional producers are served. Clients take from transaction.version 2 that
# they may leave AddPartitionsToTxn out (KIP-890).
TRANSACTIONS_SERVED: Final = True

LEVEL_MAX: Final = 2**15 - 1
# More of a feature's name does not go into a message: it may be as long as a request.
NAME_SHOWN_MAX: Final = 255


class VersionRange(NamedTuple):
    """The levels of a feature that a node supports, both ends included; ``str`` as Kafka writes it."""

    min: int
    max: int

    def __contains__(self, level: object) -> bool:
        return isinstance(level, int) and self.min <= level <= self.max

    def __str__(self) -> str:
        return f"{self.min}" if self.min == self.max else f"{self.min}-{self.max}"


DISABLED: Final = VersionRange(0, 0)
Supported = Mapping[str, VersionRange]


def supported_features(*, transactions: bool) -> dict[str, VersionRange]:
    """What this release supports, with transactions or without. A feature that is not served yet has level 0
    alone; one that cannot be done without has no level 0."""
    return {
        METADATA_VERSION: VersionRange(METADATA_VERSION_MIN, METADATA_VERSION_MAX),
        # Nothing depends on it: the quorum is etcd's. Kafka's tools set it with the others of a release.
        KRAFT_VERSION: VersionRange(0, 1),
        TRANSACTION_VERSION: VersionRange(0, 2 if transactions else 0),
        GROUP_VERSION: DISABLED,
        ELIGIBLE_LEADER_REPLICAS_VERSION: VersionRange(1, 1),
        SHARE_VERSION: DISABLED,
        STREAMS_VERSION: DISABLED,
    }


SUPPORTED: Final[Supported] = supported_features(transactions=TRANSACTIONS_SERVED)

# What a cluster has whose store says nothing of features, since an earlier release made it.
EARLIER_LEVELS: Final[Mapping[str, int]] = {
    METADATA_VERSION: METADATA_VERSION_MIN,
    ELIGIBLE_LEADER_REPLICAS_VERSION: 1,
}


@dataclass(frozen=True, slots=True)
class Features:
    """The levels in force. ``epoch`` grows with each change of them; ``revision`` is their key's, 0 for none.

    ``unreadable``: the key holds something that this release cannot read; then the levels mean nothing.
    """

    levels: Mapping[str, int] = field(default_factory=lambda: EARLIER_LEVELS)
    epoch: int = 0
    revision: int = 0
    unreadable: bool = False

    def level(self, name: str) -> int:
        """The level of a feature that is in force; 0 for one that is not."""
        return self.levels.get(name, 0)


def features_value(levels: Mapping[str, int], epoch: int) -> bytes:
    """What is stored."""
    return keys.encode({"epoch": epoch, "levels": {name: n for name, n in levels.items() if n}})


def features_of(value: bytes | None, revision: int) -> Features:
    """What ``features_value`` made, whoever wrote it; None where there is no such key."""
    if value is None:
        return Features()
    try:
        content: Any = keys.decode(value)
        epoch, levels = content["epoch"], dict(content["levels"])
    except (ValueError, KeyError, TypeError):
        return Features(revision=revision, unreadable=True)
    if not _is_number(epoch, 2**63 - 1) or not all(_is_number(n, LEVEL_MAX) for n in levels.values()):
        return Features(revision=revision, unreadable=True)
    return Features(levels, epoch, revision)


def _is_number(value: object, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def ranges_of(content: Any) -> dict[str, VersionRange] | None:
    """What a registration says of its node; None where it says nothing, as those of earlier releases."""
    if content is None:
        return None
    return {name: VersionRange(int(low), int(high)) for name, (low, high) in content.items()}


def supported_by(registered: Supported | None, supported: Supported) -> Supported:
    """What a registered node supports. One of an earlier release, which does not say: the least that this
    release, which supports ``supported``, has of each feature."""
    if registered is not None:
        return registered
    return {name: VersionRange(levels.min, levels.min) for name, levels in supported.items()}


def new_cluster_levels(supported: Supported) -> dict[str, int]:
    """Those of a cluster that begins: Kafka's for its latest release, as far as this node supports them."""
    latest = release_of(METADATA_VERSION_MAX)
    assert latest is not None
    found = {}
    for name, level in levels_of(latest).items():
        low, high = supported.get(name, DISABLED)
        if made := min(max(level, low), high):
            found[name] = made
    return found


# Gates


def beyond(features: Features, supported: Supported) -> list[tuple[str, int]]:
    """The features whose level in force a node that supports these does not (``BrokerFeatures``)."""
    every = dict.fromkeys((*supported, *features.levels))
    found = ((name, features.level(name)) for name in every)
    return [(name, level) for name, level in found if level not in supported.get(name, DISABLED)]


def obstacle(features: Features, supported: Supported) -> str | None:
    """Why a node that supports these cannot be in this cluster, and what to do; None where it can."""
    if features.unreadable:
        return (
            "the metadata store says in a way that this release does not know at which levels the cluster's "
            "features are: start the release that wrote it, or a newer one"
        )
    found = beyond(features, supported)
    if not found:
        return None
    levels = ", ".join(
        f"{name[:NAME_SHOWN_MAX]} is at level {level}, of which this release supports "
        f"{supported.get(name, DISABLED)}"
        for name, level in found
    )
    return (
        f"this release does not support what the cluster has agreed on: {levels}; start a release that does, "
        "or set the levels back with it ('ottla feature downgrade'), if they can be"
    )


# Changes


class UpgradeType(IntEnum):
    """How a level may change (``FeatureUpdate.UpgradeType``): up only, down if nothing is lost, down."""

    UPGRADE = 1
    SAFE_DOWNGRADE = 2
    UNSAFE_DOWNGRADE = 3


class FeatureUpdate(NamedTuple):
    """A feature's new level; 0 turns it off. ``upgrade_type`` may be a number that is no UpgradeType."""

    name: str
    level: int
    upgrade_type: int = UpgradeType.UPGRADE


def updated(
    features: Features,
    updates: Sequence[FeatureUpdate],
    supported: Supported,
    node_id: int,
    registered: Mapping[int, Supported | None],
) -> dict[str, int]:
    """The levels after all of these changes. KafkaError(INVALID_UPDATE_VERSION) names the first that cannot
    be.

    ``supported`` is what ``node_id`` has, which is asked; ``registered`` what each node does that ever
    joined, None where its release does not say. Where a feature is named twice, the last counts.
    KafkaError(FEATURE_UPDATE_FAILED) where it is not known what they are now.
    """
    if features.unreadable:
        raise KafkaError(ErrorCode.feature_update_failed, obstacle(features, supported))
    wanted = {update.name: update for update in updates}
    levels = dict(features.levels) | {name: update.level for name, update in wanted.items()}
    for update in wanted.values():
        why = _reason_not_supported(update, supported, node_id, registered)
        _check(update, features.level(update.name), why)
        if update.name not in (METADATA_VERSION, KRAFT_VERSION):
            _check_needs(update, levels)
    return {name: level for name, level in levels.items() if level}


def _check(update: FeatureUpdate, current: int, not_supported: str | None) -> None:
    kind, level = update.upgrade_type, update.level
    if kind not in list(UpgradeType):
        raise _invalid(update, "The controller does not support the given upgrade type.")
    if level < 0:
        raise _invalid(update, "A feature version cannot be less than 0.")
    if not_supported is not None:
        raise _invalid(update, not_supported)
    if level < current and kind == UpgradeType.UPGRADE:
        raise _invalid(
            update,
            "Can't downgrade the version of this feature without setting the upgrade type to either safe or "
            "unsafe downgrade.",
        )
    if level > current and kind != UpgradeType.UPGRADE:
        raise _invalid(update, "Can't downgrade to a newer version.")
    if update.name == METADATA_VERSION and level < current and was_metadata_changed(level, current):
        why = (
            "Unsafe metadata downgrade is not supported in this version."
            if kind == UpgradeType.UNSAFE_DOWNGRADE
            else "Refusing to perform the requested downgrade because it might delete metadata information."
        )
        message = f"Unsupported metadata.version downgrade from {current} to {level}. {why}"
        raise KafkaError(ErrorCode.invalid_update_version, message)
    if update.name == KRAFT_VERSION and level < current:
        raise _invalid(update, "Can't downgrade the version of this feature.")


def _reason_not_supported(
    update: FeatureUpdate, supported: Supported, node_id: int, registered: Mapping[int, Supported | None]
) -> str | None:
    """Kafka's words for a node that does not support a level; None where all do."""
    everyone = [(f"Local controller {node_id}", supported.get(update.name, DISABLED))]
    for other, said in registered.items():
        everyone.append((f"Broker {other}", supported_by(said, supported).get(update.name, DISABLED)))
    for who, levels in everyone:
        if update.level not in levels:
            if levels.max == 0:
                return f"{who} does not support this feature."
            return f"{who} only supports versions {levels}"
    return None


def _check_needs(update: FeatureUpdate, levels: Mapping[str, int]) -> None:
    """Whether the levels that there will be are what one of them needs (``Feature.validateVersion``)."""
    if update.name not in FEATURES:
        # Every node supports level 0 of it.
        raise _invalid(update, f"Feature {update.name[:NAME_SHOWN_MAX]} not found.")
    if update.level >= 1 and levels.get(METADATA_VERSION, 0) < METADATA_VERSION_MIN:
        first = release_of(METADATA_VERSION_MIN)
        assert first is not None
        raise _invalid(
            update,
            f"{update.name} could not be set to {update.level} because it depends on "
            f"{METADATA_VERSION}={first.level} ({first.name})",
        )
    for name, least in FEATURES[update.name][update.level].needs.items():
        if levels.get(name, 0) < least:
            raise _invalid(
                update,
                f"{update.name} could not be set to {update.level} because it depends on {name} "
                f"level {least}",
            )


def _invalid(update: FeatureUpdate, why: str) -> KafkaError:
    name = update.name[:NAME_SHOWN_MAX]
    return KafkaError(
        ErrorCode.invalid_update_version, f"Invalid update version {update.level} for feature {name}. {why}"
    )
