"""`ottla config`: show and change configurations, whatever has them."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from ottla.cli import output
from ottla.cli.client import REQUEST_TIMEOUT_S, Cluster, admin_api, connect
from ottla.cli.direct import DirectConnection, security_of
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Json, Properties, parse_pairs
from ottla.cli.rights import Right
from ottla.cli.values import shown
from ottla.config import BROKER
from ottla.config.unknown import advice
from ottla.numbers import INT_MAX, parse_whole

app = typer.Typer(
    no_args_is_help=True,
    help="Show and change the configurations of topics, brokers, loggers, groups and client metrics.",
)

# Where a value comes from, in a word or two; the names are librdkafka's.
SOURCES = {
    "DYNAMIC_TOPIC_CONFIG": "topic",
    "DYNAMIC_BROKER_CONFIG": "broker",
    "DYNAMIC_DEFAULT_BROKER_CONFIG": "all brokers",
    "STATIC_BROKER_CONFIG": "static",
    "DEFAULT_CONFIG": "default",
    "UNKNOWN_CONFIG": "unknown",
}
# How long a request may take that librdkafka cannot ask.
PLAIN_TIMEOUT_S = 5.0
# The name that stands for all brokers of the cluster. In the protocol it is the empty one.
ALL_BROKERS = "default"


class Kind(StrEnum):
    """What has configurations."""

    TOPIC = "topic"
    BROKER = "broker"
    GROUP = "group"
    CLIENT_METRICS = "client-metrics"
    LOGGER = "logger"


KindArgument = Annotated[Kind, typer.Argument(metavar="KIND", help="What to configure.")]
Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The name of the topic, group, or subscription to client metrics; or the node id of the broker "
        "(its loggers'), or 'default' for all brokers.",
    ),
]


@app.command()
@examples(
    (
        "ottla config describe topic orders",
        "Show the configurations of a topic that differ from their defaults.",
    ),
    ("ottla config describe broker 1 --all", "Show all configurations of the broker with node id 1."),
    (
        "ottla config describe broker default",
        "Show the configurations that are set for all brokers together.",
    ),
)
def describe(
    kind: KindArgument,
    name: Name,
    all_: Annotated[bool, typer.Option("--all", "-a", help="Also what has its default value.")] = False,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Show the configurations that differ from their defaults, and where each comes from."""
    cluster = connect(bootstrap, property)
    check_exists(cluster, kind.value, name)
    entries = describe_configs(cluster, kind.value, name, all_=all_)
    if json:
        output.print_json(entries)
    elif entries:
        output.table(
            ("name", "value", "source"),
            [
                (
                    entry["name"],
                    "(hidden)" if entry["sensitive"] else entry["value"],
                    entry["source"] + (", read-only" if entry["read_only"] else ""),
                )
                for entry in entries
            ],
        )
    else:
        output.note("everything has its default value; --all shows it")


@app.command(name="set")
@examples(
    ("ottla config set topic orders max.message.bytes=2000000", "Let a topic take larger messages."),
    ("ottla config set broker default log.retention.ms=86400000", "Set a configuration of all brokers."),
    (
        "ottla config set topic orders cleanup.policy=compact --dry-run",
        "Have the broker check a change, and change nothing.",
    ),
)
def set_(
    kind: KindArgument,
    name: Name,
    config: Annotated[
        list[str], typer.Argument(metavar="CONFIG=VALUE", help="Configurations and their new values.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the broker check, and change nothing.")
    ] = False,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Set configurations; all of them or none."""
    _alter(kind.value, name, {**parse_pairs("config", config)}, dry_run, json, bootstrap, property)


@app.command()
@examples(
    (
        "ottla config delete topic orders max.message.bytes",
        "Return a configuration of a topic to its default.",
    ),
    (
        "ottla config delete broker default log.retention.ms",
        "Return a configuration of all brokers to its default.",
    ),
)
def delete(
    kind: KindArgument,
    name: Name,
    config: Annotated[
        list[str], typer.Argument(metavar="CONFIG", help="Configurations to return to their defaults.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the broker check, and change nothing.")
    ] = False,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Return configurations to their defaults."""
    _alter(kind.value, name, dict.fromkeys(config), dry_run, json, bootstrap, property)


def _alter(
    kind: str,
    name: str,
    configs: dict[str, str | None],
    dry_run: bool,
    json: bool,
    bootstrap: str,
    properties: list[str] | None,
) -> None:
    cluster = connect(bootstrap, properties)
    check_exists(cluster, kind, name)
    alter_configs(cluster, kind, name, configs, dry_run=dry_run)
    if kind == "broker":
        _warn_of_unknown(cluster, name, [config for config, value in configs.items() if value is not None])
    if json:
        output.print_json({"kind": kind, "name": name, "configs": configs, "dry_run": dry_run})
        return
    would = "would be " if dry_run else ""
    for config, value in configs.items():
        output.say(f"{config}: {would}" + ("returned to its default" if value is None else f"set to {value}"))


def _warn_of_unknown(cluster: Cluster, name: str, configs: list[str]) -> None:
    """Say which configurations of a broker it does not know. It keeps them, as Kafka's do."""
    asked = str(min(cluster.metadata.brokers)) if name == ALL_BROKERS else name
    known = {
        entry["name"] for entry in describe_configs(cluster, "broker", asked) if entry["value"] is not None
    }
    known |= BROKER.keys()
    for config in configs:
        if config not in known and not config.startswith("listener.name."):
            said = f"brokers have no configuration {shown(config)}: the value is kept, and has no effect."
            output.warn(said + advice(config, known))


def check_exists(cluster: Cluster, kind: str, name: str) -> None:
    """CliError where the topic or broker is not in the cluster. The others may be yet to come."""
    if kind == "topic":
        cluster.topic(name)
    elif kind in ("group", "client-metrics") or (kind == "broker" and name == ALL_BROKERS):
        return
    elif parse_whole(name, 0, INT_MAX) not in cluster.metadata.brokers:
        known = ", ".join(map(str, sorted(cluster.metadata.brokers)))
        others = f", or '{ALL_BROKERS}'" if kind == "broker" else ""
        raise CliError(f"broker {name!r} does not exist; give one of {known}{others}", ExitCode.NOT_FOUND)


def _resource(kind: str, name: str, changes: list[Any] | None = None) -> Any:
    api = admin_api()
    resource_type = api.ResourceType.TOPIC if kind == "topic" else api.ResourceType.BROKER
    return api.ConfigResource(resource_type, name, incremental_configs=changes)


def _plain(cluster: Cluster, kind: str, name: str) -> tuple[tuple[str, int], str] | None:
    """Whom to ask over a plain connection, and for which name, where librdkafka cannot."""
    if kind == "broker" and name == ALL_BROKERS:
        return cluster.controller(), ""
    if kind == "logger":
        broker = cluster.metadata.brokers[parse_whole(name, 0, INT_MAX)]
        return (broker.host, broker.port), name
    return (cluster.controller(), name) if kind in ("group", "client-metrics") else None


def _connecting(cluster: Cluster, address: tuple[str, int]) -> Callable[[], DirectConnection]:
    return lambda: DirectConnection(address, PLAIN_TIMEOUT_S, security_of(cluster.given))


def describe_configs(cluster: Cluster, kind: str, name: str, *, all_: bool = True) -> list[dict[str, Any]]:
    """Configurations, by name, as JSON-ready dicts; without ``all_`` only those that differ from their
    defaults, and for all brokers those that are set."""
    asked = _plain(cluster, kind, name)
    if asked is not None:
        from ottla.cli import plain

        address, plain_name = asked
        return plain.describe(_connecting(cluster, address), kind, plain_name, all_=all_)
    api = admin_api()
    futures = cluster.admin.describe_configs([_resource(kind, name)], request_timeout=REQUEST_TIMEOUT_S)
    (future,) = futures.values()
    right = Right("describe-configs", *(("topic", name) if kind == "topic" else ("cluster",)))
    entries = cluster.wait(future, f"{kind} {name!r}", right)
    return [
        {
            "name": entry.name,
            "value": entry.value,
            "source": SOURCES.get(api.ConfigSource(entry.source).name, "unknown"),
            "read_only": bool(entry.is_read_only),
            "sensitive": bool(entry.is_sensitive),
        }
        for entry in sorted(entries.values(), key=lambda entry: entry.name)
        if all_ or not _is_default(entry)
    ]


def _is_default(entry: Any) -> bool:
    """Whether an entry has its default, be it that somebody said so for all brokers: every cluster has a
    record of its min.insync.replicas."""
    sources = admin_api().ConfigSource
    if entry.source == sources.DYNAMIC_DEFAULT_BROKER_CONFIG.value:
        return any(
            same.source == sources.DEFAULT_CONFIG.value and same.value == entry.value
            for same in entry.synonyms.values()
        )
    return bool(entry.source == sources.DEFAULT_CONFIG.value)


def alter_configs(
    cluster: Cluster, kind: str, name: str, configs: dict[str, str | None], *, dry_run: bool
) -> None:
    """Set configurations, or return those whose value is None to their defaults (KIP-339)."""
    asked = _plain(cluster, kind, name)
    if asked is not None:
        from ottla.cli import plain

        address, plain_name = asked
        plain.alter(_connecting(cluster, address), kind, plain_name, configs, dry_run=dry_run)
        return
    api = admin_api()
    operations = api.AlterConfigOpType
    changes = [
        api.ConfigEntry(
            config,
            value,
            incremental_operation=operations.DELETE if value is None else operations.SET,
        )
        for config, value in configs.items()
    ]
    futures = cluster.admin.incremental_alter_configs(
        [_resource(kind, name, changes)], validate_only=dry_run, request_timeout=REQUEST_TIMEOUT_S
    )
    (future,) = futures.values()
    right = Right("alter-configs", *(("topic", name) if kind == "topic" else ("cluster",)))
    cluster.wait(future, f"{kind} {name!r}", right)
