"""The levels of features: Kafka's tables, and which change is taken with which words (pure)."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.errors import ErrorCode, KafkaError
from ottla.metadata import keys
from ottla.metadata.feature_levels import (
    FEATURES,
    RELEASES,
    find_release,
    levels_of,
    release_of,
    was_metadata_changed,
)
from ottla.metadata.features import (
    EARLIER_LEVELS,
    LEVEL_MAX,
    SUPPORTED,
    TRANSACTIONS_SERVED,
    Features,
    FeatureUpdate,
    Supported,
    UpgradeType,
    VersionRange,
    beyond,
    features_of,
    features_value,
    new_cluster_levels,
    obstacle,
    ranges_of,
    supported_by,
    supported_features,
    updated,
)

UP, SAFE, UNSAFE = UpgradeType.UPGRADE, UpgradeType.SAFE_DOWNGRADE, UpgradeType.UNSAFE_DOWNGRADE
MV, TV, ELR, KRAFT = (
    "metadata.version",
    "transaction.version",
    "eligible.leader.replicas.version",
    "kraft.version",
)
WITH_TRANSACTIONS = supported_features(transactions=True)
# As Kafka 4.4 has it: a test of rules that none of our features has a use for.
KAFKA = {name: VersionRange(0, levels[-1].level) for name, levels in FEATURES.items()} | {
    MV: VersionRange(7, 30)
}


# Kafka's tables ----------------------------------------


def test_levels_of_metadata_version_are_kafka_s() -> None:
    names = {release.level: release.name for release in RELEASES}
    assert (names[7], names[8], names[11], names[15], names[19]) == (
        "3.3-IV3",
        "3.4-IV0",
        "3.5-IV2",
        "3.7-IV0",
        "3.7-IV4",
    )
    assert (names[21], names[25], names[27], names[29], names[30], names[33]) == (
        "3.9-IV0",
        "4.0-IV3",
        "4.1-IV1",
        "4.2-IV1",
        "4.3-IV0",
        "4.4-IV2",
    )
    assert sorted(names) == list(range(7, 34))


@pytest.mark.parametrize(
    ("release", "levels"),
    [
        # transaction, group, eligible leader replicas, share, streams, kraft
        ("3.8", (0, 0, 0, 0, 0, 0)),
        ("3.9", (0, 0, 0, 0, 0, 1)),
        ("4.0-IV1", (0, 1, 0, 0, 0, 1)),
        ("4.0", (2, 1, 0, 0, 0, 1)),
        ("4.1", (2, 1, 1, 0, 0, 1)),
        ("4.2-IV0", (2, 1, 1, 1, 0, 1)),
        ("4.3.1", (2, 1, 1, 1, 1, 1)),
        ("4.4-IV0", (2, 1, 1, 2, 1, 1)),
    ],
)
def test_what_new_clusters_of_a_release_have(release: str, levels: tuple[int, ...]) -> None:
    found = levels_of(find_release(release))
    order = (TV, "group.version", ELR, "share.version", "streams.version", KRAFT)
    assert tuple(found[name] for name in order) == levels
    assert found[MV] == find_release(release).level


def test_a_short_name_is_the_last_level_that_is_for_use() -> None:
    assert find_release("4.0").name == find_release("4.0.1").name == "4.0-IV3"
    assert find_release("3.3").name == "3.3-IV3"
    for unknown in ("4.4", "4.5", "3.2", "4", "", "IV3", "4.0-IV9"):
        with pytest.raises(ValueError, match=r"there is no release"):
            find_release(unknown)
    assert release_of(6) is None and release_of(34) is None


@pytest.mark.parametrize(
    ("one", "other", "changed"),
    [
        (30, 29, True),
        (29, 24, False),
        (24, 23, False),
        (24, 22, True),
        (9, 9, False),
        (7, 8, True),
        (8, 10, False),
    ],
)
def test_between_which_levels_metadata_changed(one: int, other: int, changed: bool) -> None:
    assert was_metadata_changed(one, other) is was_metadata_changed(other, one) is changed


# What this release supports ----------------------------------------


def test_transactions_are_one_switch() -> None:
    """Clients take from transaction.version 2 what they may leave out: it goes with the requests."""
    assert WITH_TRANSACTIONS[TV] == VersionRange(0, 2)
    without = supported_features(transactions=False)
    assert without[TV] == VersionRange(0, 0)
    assert without | {TV: VersionRange(0, 2)} == WITH_TRANSACTIONS
    assert supported_features(transactions=TRANSACTIONS_SERVED) == SUPPORTED
    assert new_cluster_levels(WITH_TRANSACTIONS) == {MV: 30, TV: 2, ELR: 1, KRAFT: 1}
    assert new_cluster_levels(without) == {MV: 30, ELR: 1, KRAFT: 1}


def test_no_more_is_supported_than_kafka_has() -> None:
    for name, levels in WITH_TRANSACTIONS.items():
        assert KAFKA[name].min <= levels.min <= levels.max <= KAFKA[name].max


def test_what_is_supported_can_be_agreed_on() -> None:
    """A new cluster may be what its first node makes, and so may one of an earlier release."""
    for supported in (supported_features(transactions=False), WITH_TRANSACTIONS):
        assert not beyond(Features(new_cluster_levels(supported)), supported)
        assert not beyond(Features(), supported)


# What is stored ----------------------------------------


@given(
    st.dictionaries(st.text(max_size=20), st.integers(0, LEVEL_MAX), max_size=8),
    st.integers(0, 2**63 - 1),
    st.integers(1, 2**63 - 1),
)
def test_levels_come_back_from_the_store(levels: dict[str, int], epoch: int, revision: int) -> None:
    found = features_of(features_value(levels, epoch), revision)
    assert (found.epoch, found.revision, found.unreadable) == (epoch, revision, False)
    assert found.levels == {name: level for name, level in levels.items() if level}
    assert all(found.level(name) == level for name, level in levels.items())
    assert found.level("another") == levels.get("another", 0)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"7",
        b'{"epoch": 1}',
        b'{"epoch": -1, "levels": {}}',
        b'{"epoch": true, "levels": {}}',
        b'{"epoch": 9223372036854775808, "levels": {}}',
        b'{"epoch": 1, "levels": 3}',
        b'{"epoch": 1, "levels": {"metadata.version": "30"}}',
        b'{"epoch": 1, "levels": {"metadata.version": -1}}',
        b'{"epoch": 1, "levels": {"metadata.version": 32768}}',
        b'{"epoch": 1, "levels": {"metadata.version": 1.0}}',
    ],
)
def test_a_value_of_another_form_is_no_levels(value: bytes) -> None:
    found = features_of(value, 5)
    assert found.unreadable and found.revision == 5
    assert "does not know" in (obstacle(found, SUPPORTED) or "")
    with pytest.raises(KafkaError) as refused:
        updated(found, [FeatureUpdate(MV, 30)], SUPPORTED, 1, {})
    assert refused.value.code is ErrorCode.feature_update_failed


def test_a_store_of_an_earlier_release_has_the_least_levels() -> None:
    assert features_of(None, 0) == Features()
    assert Features().levels == EARLIER_LEVELS == {MV: 7, ELR: 1}
    assert (Features().epoch, Features().revision) == (0, 0)


def test_what_a_registration_says_comes_back() -> None:
    value = keys.decode(keys.broker_value({"L": ("h", 1)}, None, features=SUPPORTED))
    assert ranges_of(value["features"]) == SUPPORTED
    assert "features" not in keys.decode(keys.broker_value({"L": ("h", 1)}, None))
    assert supported_by(ranges_of(None), WITH_TRANSACTIONS) == {
        name: VersionRange(levels.min, levels.min) for name, levels in WITH_TRANSACTIONS.items()
    }


# Gates ----------------------------------------


def test_a_level_that_is_not_supported_is_an_obstacle() -> None:
    levels = {MV: 33, ELR: 1, TV: 3, "later.version": 1, "another.version": 0}
    found = beyond(Features(levels), WITH_TRANSACTIONS)
    assert found == [(MV, 33), (TV, 3), ("later.version", 1)]
    why = obstacle(Features(levels), WITH_TRANSACTIONS) or ""
    assert "metadata.version is at level 33, of which this release supports 7-30" in why
    assert "later.version is at level 1, of which this release supports 0" in why
    assert "start a release that does" in why
    # One that is missing is at level 0, which may be too low as well.
    assert beyond(Features({MV: 30}), SUPPORTED) == [(ELR, 0)]
    assert obstacle(Features(), SUPPORTED) is None
    assert len(obstacle(Features({"x" * 30_000: 1} | EARLIER_LEVELS), SUPPORTED) or "") < 1_000


# Changes ----------------------------------------


def refusal(
    features: Features,
    *updates: FeatureUpdate,
    supported: Supported = KAFKA,
    registered: Mapping[int, Supported | None] | None = None,
) -> str:
    with pytest.raises(KafkaError) as refused:
        updated(features, updates, supported, 1, registered or {})
    assert refused.value.code is ErrorCode.invalid_update_version
    return refused.value.text


NOW = Features({MV: 25, TV: 1, KRAFT: 1}, 4, 9)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (
            (TV, 2, 0),
            "2 for feature transaction.version. The controller does not support the given upgrade type.",
        ),
        (
            (TV, 2, 4),
            "2 for feature transaction.version. The controller does not support the given upgrade type.",
        ),
        ((TV, -1, SAFE), "-1 for feature transaction.version. A feature version cannot be less than 0."),
        ((TV, 3, UP), "3 for feature transaction.version. Local controller 1 only supports versions 0-2"),
        ((MV, 6, SAFE), "6 for feature metadata.version. Local controller 1 only supports versions 7-30"),
        (("no.such", 1, UP), "1 for feature no.such. Local controller 1 does not support this feature."),
        (("no.such", 0, UP), "0 for feature no.such. Feature no.such not found."),
        (
            (TV, 0, UP),
            "0 for feature transaction.version. Can't downgrade the version of this feature without setting "
            "the upgrade type to either safe or unsafe downgrade.",
        ),
        ((TV, 2, SAFE), "2 for feature transaction.version. Can't downgrade to a newer version."),
        ((TV, 2, UNSAFE), "2 for feature transaction.version. Can't downgrade to a newer version."),
        ((KRAFT, 0, SAFE), "0 for feature kraft.version. Can't downgrade the version of this feature."),
    ],
)
def test_changes_that_are_refused(update: tuple[str, int, int], message: str) -> None:
    assert refusal(NOW, FeatureUpdate(*update)) == f"Invalid update version {message}"


def test_metadata_is_never_lost() -> None:
    assert refusal(NOW, FeatureUpdate(MV, 22, SAFE)) == (
        "Unsupported metadata.version downgrade from 25 to 22. Refusing to perform the requested downgrade "
        "because it might delete metadata information."
    )
    assert refusal(NOW, FeatureUpdate(MV, 22, UNSAFE)) == (
        "Unsupported metadata.version downgrade from 25 to 22. Unsafe metadata downgrade is not supported in "
        "this version."
    )
    for kind in (SAFE, UNSAFE):
        assert updated(NOW, [FeatureUpdate(MV, 23, kind)], KAFKA, 1, {})[MV] == 23


def test_a_level_needs_others() -> None:
    low = Features({MV: 22})
    assert refusal(low, FeatureUpdate(ELR, 1)) == (
        f"Invalid update version 1 for feature {ELR}. {ELR} could not be set to 1 because it depends on "
        "metadata.version level 23"
    )
    # Those that there will be count, in whichever order they are named.
    for updates in ([(ELR, 1), (MV, 26)], [(MV, 26), (ELR, 1)]):
        made = updated(low, [FeatureUpdate(*each) for each in updates], KAFKA, 1, {})
        assert made == {ELR: 1, MV: 26}
    assert refusal(Features({}), FeatureUpdate(TV, 1)).endswith(
        "transaction.version could not be set to 1 because it depends on metadata.version=7 (3.3-IV3)"
    )
    assert updated(Features({MV: 7}), [FeatureUpdate(TV, 1)], KAFKA, 1, {}) == {MV: 7, TV: 1}
    assert updated(Features({TV: 1}), [FeatureUpdate(TV, 0, SAFE)], KAFKA, 1, {}) == {}


def test_every_node_that_is_registered_must_support_a_level() -> None:
    nodes = {2: KAFKA, 3: KAFKA | {TV: VersionRange(0, 1), "group.version": VersionRange(0, 0)}}
    assert refusal(NOW, FeatureUpdate(TV, 2), registered=nodes) == (
        "Invalid update version 2 for feature transaction.version. Broker 3 only supports versions 0-1"
    )
    assert refusal(NOW, FeatureUpdate("group.version", 1), registered=nodes) == (
        "Invalid update version 1 for feature group.version. Broker 3 does not support this feature."
    )
    # What a node does not name it does not support; what an earlier release supports is the least there is.
    assert refusal(NOW, FeatureUpdate(TV, 2), registered={4: {}}).endswith(
        "Broker 4 does not support this feature."
    )
    assert refusal(NOW, FeatureUpdate(MV, 26), registered={5: None}).endswith(
        "Broker 5 only supports versions 7"
    )
    assert updated(NOW, [FeatureUpdate(TV, 2)], KAFKA, 1, {2: KAFKA})[TV] == 2


def test_the_first_that_cannot_be_is_named_and_nothing_changes() -> None:
    good, bad, worse = FeatureUpdate("group.version", 1), FeatureUpdate(TV, 0), FeatureUpdate("x", 1)
    assert "transaction.version" in refusal(NOW, good, bad, worse)
    assert "feature x" in refusal(NOW, good, worse, bad)


def test_of_a_feature_that_is_named_twice_the_last_counts() -> None:
    assert updated(NOW, [FeatureUpdate(TV, 99), FeatureUpdate(TV, 2)], KAFKA, 1, {})[TV] == 2
    assert "99" in refusal(NOW, FeatureUpdate(TV, 2), FeatureUpdate(TV, 99))


def test_a_name_as_long_as_a_request_is_not_repeated_whole() -> None:
    for level in (0, 1):
        assert len(refusal(NOW, FeatureUpdate("x" * 32_000, level))) < 1_000


@st.composite
def changes(draw: st.DrawFn) -> list[FeatureUpdate]:
    names = st.sampled_from([*KAFKA, "no.such"])
    kinds = st.sampled_from([0, UP, SAFE, UNSAFE, 7])
    return draw(st.lists(st.builds(FeatureUpdate, names, st.integers(-2, 34), kinds), max_size=5))


@given(
    st.fixed_dictionaries({name: st.integers(*levels) for name, levels in KAFKA.items()}),
    changes(),
)
def test_whatever_is_taken_is_what_was_asked_for_and_supported(
    levels: dict[str, int], updates: list[FeatureUpdate]
) -> None:
    before = Features(levels)
    try:
        made = updated(before, updates, KAFKA, 1, {2: KAFKA})
    except KafkaError as error:
        assert error.code is ErrorCode.invalid_update_version
        return
    after = Features(made)
    asked = {update.name: update for update in updates}
    assert not beyond(after, KAFKA)
    for name in KAFKA:
        if name not in asked:
            assert after.level(name) == before.level(name)
            continue
        assert after.level(name) == asked[name].level
        if after.level(name) > before.level(name):
            assert asked[name].upgrade_type == UP
        if after.level(name) < before.level(name):
            assert asked[name].upgrade_type in (SAFE, UNSAFE) and name != KRAFT
    assert after.level(MV) >= before.level(MV) or not was_metadata_changed(before.level(MV), after.level(MV))
    if ELR in asked and after.level(ELR):
        assert after.level(MV) >= 23


@given(st.sampled_from([TV, "group.version", "share.version", "streams.version"]), st.integers(0, 2))
def test_up_and_down_again_is_where_it_began(name: str, level: int) -> None:
    begin = {MV: 30}
    level = min(level, KAFKA[name].max)
    up = updated(Features(begin), [FeatureUpdate(name, level, UP)], KAFKA, 1, {})
    assert updated(Features(up), [FeatureUpdate(name, 0, SAFE)], KAFKA, 1, {}) == begin
