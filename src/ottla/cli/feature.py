"""`ottla feature`: the levels that a cluster has agreed on, as kafka-features.sh shows and moves them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Annotated, Any, NamedTuple

import typer

from ottla import __version__
from ottla.cli import output
from ottla.cli.direct import DirectCluster, Unanswered, check
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Json, Properties, parse_pairs, whole_number
from ottla.cli.values import shown
from ottla.metadata.feature_levels import METADATA_VERSION, find_release, levels_of, release_of
from ottla.numbers import parse_whole

app = typer.Typer(
    no_args_is_help=True, help="Show and move the levels that all nodes of a cluster have agreed on."
)

LEVEL_MAX = 2**15 - 1
UPDATE_TIMEOUT_MS = 30_000
UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE = 1, 2, 3

FeatureOption = Annotated[
    list[str] | None,
    typer.Option("--feature", "-f", metavar="NAME=LEVEL", help="A feature and its new level. Repeatable."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Let the broker check, and change nothing.")]


class Feature(NamedTuple):
    """A feature as a broker shows it: the levels that it supports, and the one in force."""

    name: str
    low: int
    high: int
    level: int


class Shown(NamedTuple):
    """What a broker says of features; ``epoch`` is None where it does not know the levels in force."""

    epoch: int | None
    features: list[Feature]


@app.command()
@examples(
    ("ottla feature describe", "Show the level of each feature that is in force."),
    ("ottla feature describe --node-id 1 --json", "Ask node 1, and print JSON."),
)
def describe(
    node_id: Annotated[
        int | None,
        typer.Option(
            "--node-id", metavar="N", parser=whole_number(0), show_default="any", help="Ask this node."
        ),
    ] = None,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Show each feature, the levels of it that the broker supports, and the one that is in force."""
    with closing(DirectCluster(bootstrap, property)) as cluster:
        found = ask(cluster, node_id)
    if json:
        features = [_json(feature) for feature in found.features]
        output.print_json({"epoch": found.epoch, "features": features})
        return
    output.table(
        ("feature", "supported from", "to", "in force", "epoch"),
        [
            (one.name, *(_word(one.name, n) for n in (one.low, one.high, one.level)), found.epoch)
            for one in found.features
        ],
        right=(1, 2, 3),
    )


@app.command()
@examples(
    (
        "ottla feature upgrade --release-version 4.3 --dry-run",
        "Have the broker check whether all features can have the levels of Kafka 4.3.",
    ),
    ("ottla feature upgrade --feature transaction.version=2", "Upgrade one feature."),
)
def upgrade(
    feature: FeatureOption = None,
    release_version: Annotated[
        str | None,
        typer.Option(
            "--release-version",
            metavar="RELEASE",
            help="Upgrade every feature to what new clusters of this release of Kafka have, such as 4.3.",
        ),
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Upgrade features, all of them or none, once every node runs a release that supports the levels.

    Nodes of a release that does not cannot join any more.
    """
    wanted = _wanted(feature, release_version)
    with closing(DirectCluster(bootstrap, property)) as cluster:
        if release_version is not None:
            # Level 0 is no upgrade.
            wanted = {name: n for name, n in _within(ask(cluster).features, wanted).items() if n}
        _update(cluster, wanted, UPGRADE, dry_run)
    _say("upgraded", wanted, dry_run, json)


@app.command()
@examples(
    (
        "ottla feature downgrade --feature transaction.version=1 --dry-run",
        "Have the broker check whether a feature can have a lower level.",
    ),
    (
        "ottla feature downgrade --release-version 4.0",
        "Downgrade all features before the nodes go back to Kafka 4.0.",
    ),
)
def downgrade(
    feature: FeatureOption = None,
    release_version: Annotated[
        str | None,
        typer.Option(
            "--release-version",
            metavar="RELEASE",
            help="Downgrade every feature to what new clusters of this release of Kafka had, such as 4.0.",
        ),
    ] = None,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Also where metadata may be lost by it for good.")
    ] = False,
    dry_run: DryRun = False,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Downgrade features, all of them or none; level 0 turns one off.

    Do it before nodes go back to a release that does not support the levels in force.
    """
    wanted = _wanted(feature, release_version)
    with closing(DirectCluster(bootstrap, property)) as cluster:
        if release_version is not None:
            wanted = _within(ask(cluster).features, wanted)
        _update(cluster, wanted, UNSAFE_DOWNGRADE if unsafe else SAFE_DOWNGRADE, dry_run)
    _say("downgraded", wanted, dry_run, json)


def ask(cluster: DirectCluster, node_id: int | None = None) -> Shown:
    """What a node, or any, says of features."""
    fields = {
        "client_software_name": "ottla",
        "client_software_version": __version__,
        "cluster_id": None,
        "node_id": -1,
    }
    if node_id is None:
        answer = cluster.ask("ApiVersions", fields)
    else:
        nothing = {"allow_auto_topic_creation": False, "include_topic_authorized_operations": False}
        metadata = cluster.ask("Metadata", {"topics": [], **nothing})
        if all(broker.node_id != node_id for broker in metadata.brokers):
            raise CliError(f"node {node_id} is not there", ExitCode.NOT_FOUND)
        cluster.learn(metadata)
        try:
            answer = cluster.ask_node(node_id, "ApiVersions", fields)
        except Unanswered as error:
            raise CliError(f"node {node_id} does not answer: {error}", ExitCode.UNREACHABLE) from None
    check(answer.error_code, None, "features")
    if not hasattr(answer, "supported_features"):
        raise CliError("the broker says nothing of features: it is of an old release")
    levels = {one.name: one.max_version_level for one in answer.finalized_features}
    ranges = {one.name: (one.min_version, one.max_version) for one in answer.supported_features}
    epoch = answer.finalized_features_epoch
    return Shown(
        epoch if epoch >= 0 else None,
        [
            Feature(name, *ranges.get(name, (0, 0)), levels.get(name, 0))
            for name in sorted({*ranges, *levels})
        ],
    )


def _wanted(features: list[str] | None, release: str | None) -> dict[str, int]:
    """The levels that are asked for."""
    if bool(features) == (release is not None):
        output.fail_usage("name features with --feature, or give --release-version")
    if release is not None:
        try:
            return levels_of(find_release(release))
        except ValueError as error:
            output.fail_usage(f"--release-version: {error}")
    levels = {}
    for name, text in parse_pairs("--feature", features).items():
        level = parse_whole(text.strip(), 0, LEVEL_MAX)
        if level is None:
            output.fail_usage(f"--feature {shown(name)}: {shown(text)} is no level: a whole number from 0 on")
        levels[name.strip()] = level
    if len(levels) < len(features or ()):
        output.fail_usage("--feature: one is named twice")
    return levels


def _within(features: Iterable[Feature], wanted: Mapping[str, int]) -> dict[str, int]:
    """A release's levels as far as the broker supports them: the others are said."""
    ranges = {one.name: one for one in features}
    found = {}
    for name, level in wanted.items():
        one = ranges.get(name)
        if one is None:
            if level:
                output.warn(f"{name}: the release has level {level}; the broker does not know it: left out")
            continue
        found[name] = min(max(level, one.low), one.high)
        if found[name] != level:
            output.warn(f"{name}: the release has level {level}; the broker supports {found[name]}")
    return found


def _update(cluster: DirectCluster, wanted: Mapping[str, int], kind: int, dry_run: bool) -> None:
    updates = [
        {
            "feature": name,
            "max_version_level": level,
            "upgrade_type": kind,
            "allow_downgrade": kind != UPGRADE,
        }
        for name, level in wanted.items()
    ]
    answer = cluster.ask(
        "UpdateFeatures",
        {"timeout": UPDATE_TIMEOUT_MS, "feature_updates": updates, "validate_only": dry_run},
    )
    if answer.error_code and answer.error_message:
        # It names the feature.
        raise CliError(answer.error_message)
    check(answer.error_code, None, "features")
    for result in getattr(answer, "results", ()):
        # Of an older release of Kafka.
        check(result.error_code, result.error_message, result.feature)


def _say(verb: str, wanted: Mapping[str, int], dry_run: bool, json: bool) -> None:
    if json:
        output.print_json({"features": wanted, "dry_run": dry_run})
        return
    done = "can be" if dry_run else "was"
    for name, level in sorted(wanted.items()):
        output.say(f"{name} {done} {verb} to {_level(name, level)}")


def _word(name: str, level: int) -> str:
    """A level as one word: of metadata.version it is the release."""
    release = release_of(level) if name == METADATA_VERSION else None
    return str(level) if release is None else release.name


def _level(name: str, level: int) -> str:
    word = _word(name, level)
    return f"{level} ({word})" if word != str(level) else word


def _json(feature: Feature) -> dict[str, Any]:
    release = release_of(feature.level) if feature.name == METADATA_VERSION else None
    return {
        "feature": feature.name,
        "supported_min": feature.low,
        "supported_max": feature.high,
        "level": feature.level,
        **({} if release is None else {"release": release.name}),
    }
