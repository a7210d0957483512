"""`ottla config`: show and change the configurations of topics and brokers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from ottla.cli import output
from ottla.cli.client import REQUEST_TIMEOUT_S, Cluster, admin_api, connect
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Json, Properties, parse_pairs

app = typer.Typer(no_args_is_help=True, help="Show and change the configurations of topics and brokers.")

# Where a value comes from, in a word or two; the names are librdkafka's.
SOURCES = {
    "DYNAMIC_TOPIC_CONFIG": "topic",
    "DYNAMIC_BROKER_CONFIG": "broker",
    "DYNAMIC_DEFAULT_BROKER_CONFIG": "all brokers",
    "STATIC_BROKER_CONFIG": "static",
    "DEFAULT_CONFIG": "default",
    "UNKNOWN_CONFIG": "unknown",
}
# The name that stands for all brokers of the cluster. In the protocol it is the empty one.
ALL_BROKERS = "default"


class Kind(StrEnum):
    """What has configurations."""

    TOPIC = "topic"
    BROKER = "broker"


KindArgument = Annotated[Kind, typer.Argument(metavar="KIND", help="What to configure.")]
Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The topic's name; or the broker's node id, or 'default' for all brokers."
    ),
]


@app.command()
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
    entries = [
        entry for entry in describe_configs(cluster, kind.value, name) if all_ or entry["source"] != "default"
    ]
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
    if json:
        output.print_json({"kind": kind, "name": name, "configs": configs, "dry_run": dry_run})
        return
    would = "would be " if dry_run else ""
    for config, value in configs.items():
        print(f"{config}: {would}" + ("returned to its default" if value is None else f"set to {value}"))


def check_exists(cluster: Cluster, kind: str, name: str) -> None:
    """CliError where the topic or broker is not in the cluster."""
    if kind == "topic":
        cluster.topic(name)
    elif name != ALL_BROKERS and (not name.isdecimal() or int(name) not in cluster.metadata.brokers):
        known = ", ".join(map(str, sorted(cluster.metadata.brokers)))
        raise CliError(
            f"broker {name!r} does not exist; give one of {known}, or '{ALL_BROKERS}'", ExitCode.NOT_FOUND
        )


def _resource(kind: str, name: str, changes: list[Any] | None = None) -> Any:
    api = admin_api()
    resource_type = api.ResourceType.TOPIC if kind == "topic" else api.ResourceType.BROKER
    return api.ConfigResource(resource_type, name, incremental_configs=changes)


def _is_all_brokers(kind: str, name: str) -> bool:
    return kind == "broker" and name == ALL_BROKERS


def describe_configs(cluster: Cluster, kind: str, name: str) -> list[dict[str, Any]]:
    """All configurations of a topic or broker, by name, as JSON-ready dicts."""
    if _is_all_brokers(kind, name):
        from ottla.cli import plain

        return plain.describe_all_brokers(cluster.controller())
    api = admin_api()
    futures = cluster.admin.describe_configs([_resource(kind, name)], request_timeout=REQUEST_TIMEOUT_S)
    (future,) = futures.values()
    entries = cluster.wait(future, f"{kind} {name!r}")
    return [
        {
            "name": entry.name,
            "value": entry.value,
            "source": SOURCES.get(api.ConfigSource(entry.source).name, "unknown"),
            "read_only": bool(entry.is_read_only),
            "sensitive": bool(entry.is_sensitive),
        }
        for entry in sorted(entries.values(), key=lambda entry: entry.name)
    ]


def alter_configs(
    cluster: Cluster, kind: str, name: str, configs: dict[str, str | None], *, dry_run: bool
) -> None:
    """Set configurations, or return those whose value is None to their defaults (KIP-339)."""
    if _is_all_brokers(kind, name):
        from ottla.cli import plain

        plain.alter_all_brokers(cluster.controller(), configs, dry_run=dry_run)
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
    cluster.wait(future, f"{kind} {name!r}")
