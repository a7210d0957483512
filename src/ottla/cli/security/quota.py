"""`ottla quota`: how much clients may use, as kafka-configs.sh sets it for users, clients and ips."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Annotated

import typer

from ottla.cli import output
from ottla.cli.direct import DirectCluster, check
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Json, Properties, parse_pairs, takes
from ottla.cli.values import check_text, shown
from ottla.numbers import parse_double
from ottla.security.quota_entities import (
    CLIENT_ID,
    IP,
    USER,
    Entity,
    invalid_entity,
    invalid_value,
)

app = typer.Typer(no_args_is_help=True, help="Show and set how much clients may use.")

_EXACT, _DEFAULT, _SPECIFIED = 0, 1, 2

UserOption = Annotated[str | None, typer.Option("--user", metavar="USER", help="This user.")]
ClientOption = Annotated[str | None, typer.Option("--client-id", metavar="ID", help="This client id.")]
IpOption = Annotated[
    str | None, typer.Option("--ip", metavar="ADDRESS", help="Connections from this address.")
]
DefaultUser = Annotated[bool, typer.Option("--default-user", help="Each user without a quota of their own.")]
DefaultClient = Annotated[
    bool, typer.Option("--default-client-id", help="Each client id without a quota of its own.")
]
DefaultIp = Annotated[bool, typer.Option("--default-ip", help="Each address without a quota of its own.")]


# Whom options name, by the kind: None for whoever has no quota of their own.
Names = Mapping[str, str | None]
NOBODY: Names = {}


def _names(
    user: str | None,
    client_id: str | None,
    ip: str | None,
    default_user: bool,
    default_client_id: bool,
    default_ip: bool,
) -> Names:
    """The entity that the options name, None for a default; CliError (usage) where they contradict."""
    names: dict[str, str | None] = {}
    for kind, name, default in (
        (USER, user, default_user),
        (CLIENT_ID, client_id, default_client_id),
        (IP, ip, default_ip),
    ):
        if name is not None and default:
            output.fail_usage(f"give either --{kind} or --default-{kind}")
        if name is not None:
            check_text(f"--{kind}", name)
        if name is not None or default:
            names[kind] = name
    return names


# A command that has it gets whom its options name as ``names``.
takes_names = takes(
    "names",
    {
        "user": (UserOption, None),
        "client_id": (ClientOption, None),
        "ip": (IpOption, None),
        "default_user": (DefaultUser, False),
        "default_client_id": (DefaultClient, False),
        "default_ip": (DefaultIp, False),
    },
    _names,
)


@app.command(name="set")
@takes_names
@examples(
    (
        "ottla quota set producer_byte_rate=1000000 --client-id shop",
        "Let the clients with one client id send 1 MB a second to each broker.",
    ),
    (
        "ottla quota set consumer_byte_rate=5000000 --user alice --client-id shop",
        "Set a quota of one user with one client id.",
    ),
    (
        "ottla quota set request_percentage=50 --default-user",
        "Set a quota of all users who have none of their own.",
    ),
)
def set_(
    quota: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=VALUE",
            help="producer_byte_rate, consumer_byte_rate (bytes per second), request_percentage, "
            "controller_mutation_rate (partitions per second), or for an address connection_creation_rate "
            "(per second).",
        ),
    ],
    names: Names = NOBODY,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the broker check, and change nothing.")
    ] = False,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Set quotas of a user, a client id, both together, or an address.

    Of those that fit a client the most specific one holds: user and client id, then user, then client id.
    """
    entity = _entity(names)
    values = {}
    for name, text in parse_pairs("NAME=VALUE", quota).items():
        number = parse_double(text)
        if number is None:
            output.fail_usage(f"{name}={shown(text)}: give a number")
        if fault := invalid_value(entity, name, number):
            output.fail_usage(fault)
        values[name] = number
    _alter(bootstrap, property, entity, values, dry_run)
    _say_done(entity, {**values}, "checked" if dry_run else "set", json)


@app.command(name="list")
@takes_names
@examples(
    ("ottla quota list", "List all quotas."),
    ("ottla quota list --client-id shop --json", "List the quotas of one client id as JSON."),
)
def list_(
    names: Names = NOBODY,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """List quotas: all, or those of everything that is named."""
    with closing(DirectCluster(bootstrap, property)) as brokers:
        found = _described(brokers, names, strict=False)
    rows = sorted(
        (str(entity), name, value) for entity, values in found.items() for name, value in values.items()
    )
    documents = [{"entity": entity.names, "quotas": values} for entity, values in found.items()]
    shown_rows = [(of, name, _text(value)) for of, name, value in rows]
    none = "no quotas" + (" that match" if names else " yet")
    output.listing(documents, ("entity", "quota", "value"), shown_rows, json, none=none)


@app.command()
@takes_names
@examples(
    ("ottla quota remove producer_byte_rate --client-id shop", "Remove one quota of a client id."),
    ("ottla quota remove --user alice --client-id shop", "Remove all quotas of a user with a client id."),
)
def remove(
    quota: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Quotas to remove; all of the entity's, where none is named."),
    ] = None,
    names: Names = NOBODY,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Remove quotas of a user, a client id, both together, or an address."""
    entity = _entity(names)
    with closing(DirectCluster(bootstrap, property)) as brokers:
        there = _described(brokers, entity.names, strict=True).get(entity, {})
    missing = [name for name in quota or () if name not in there]
    if missing or not there:
        what = missing[0] if missing else "quotas"
        raise CliError(f"{entity} has no {what}; see 'ottla quota list'", ExitCode.NOT_FOUND)
    wanted = dict.fromkeys(quota or there)
    _alter(bootstrap, property, entity, wanted, False)
    _say_done(entity, wanted, "removed", json)


def _entity(names: Names) -> Entity:
    entity = Entity.of(names)
    if not entity.parts:
        output.fail_usage("give whom it is for: --user, --client-id, --ip, or a --default-…")
    if fault := invalid_entity(entity.parts):
        output.fail_usage(fault)
    return entity


def _described(
    brokers: DirectCluster, names: Mapping[str, str | None], *, strict: bool
) -> dict[Entity, dict[str, float]]:
    components = [
        {"entity_type": kind, "match_type": _DEFAULT if name is None else _EXACT, "match": name}
        for kind, name in names.items()
    ]
    answer = brokers.ask("DescribeClientQuotas", {"components": components, "strict": strict})
    check(answer.error_code, answer.error_message, "quotas")
    return {
        Entity.of({part.entity_type: part.entity_name for part in entry.entity}): {
            value.key: value.value for value in entry.values
        }
        for entry in answer.entries or ()
    }


def _alter(
    bootstrap: str,
    property: list[str] | None,
    entity: Entity,
    values: Mapping[str, float | None],
    dry_run: bool,
) -> None:
    ops = [{"key": key, "value": value or 0.0, "remove": value is None} for key, value in values.items()]
    parts = [{"entity_type": kind, "entity_name": name} for kind, name in entity.parts]
    fields = {"entries": [{"entity": parts, "ops": ops}], "validate_only": dry_run}
    with closing(DirectCluster(bootstrap, property)) as brokers:
        for entry in brokers.ask("AlterClientQuotas", fields).entries:
            check(entry.error_code, entry.error_message, str(entity))


def _text(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _say_done(entity: Entity, values: Mapping[str, float | None], what: str, json: bool) -> None:
    document = {"entity": entity.names, "quotas": list(values), "result": what}
    lines = [
        f"{entity}: {name}{'' if value is None else f'={_text(value)}'} {what}"
        for name, value in values.items()
    ]
    output.say_done(document, lines, json)
