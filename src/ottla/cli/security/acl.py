"""`ottla acl`: who may do what, as kafka-acls.sh shows and changes it, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Annotated, Any

import typer

from ottla.cli import output
from ottla.cli.direct import DirectCluster, check
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Json, Properties
from ottla.cli.security.resources import Resource, kind_of, operation_of, principal_of, takes_resources
from ottla.security.acl import Authorizer, super_users
from ottla.security.acl_bindings import (
    EVERYBODY,
    WILDCARD,
    AclBinding,
    AclFilter,
    Operation,
    PatternType,
    Permission,
    ResourceType,
)

app = typer.Typer(no_args_is_help=True, help="Show and change who may do what, and find out why.")

# ACLs, or filters, that go into one request.
AT_ONCE = 500
_BROKER = 4

PrincipalArgument = Annotated[
    str, typer.Argument(metavar="PRINCIPAL", help="Who, such as User:alice; a name alone is a user's.")
]
OperationOption = Annotated[
    list[str] | None,
    typer.Option("--operation", "-o", metavar="OPERATION", help="What, such as read. Repeatable."),
]
Prefixed = Annotated[
    bool, typer.Option("--prefixed", help="Whatever has a name that begins like this, not this alone.")
]
Deny = Annotated[bool, typer.Option("--deny", help="Deny it, whatever else allows it.")]
PrincipalOption = Annotated[
    str | None, typer.Option("--principal", metavar="PRINCIPAL", help="Only ACLs of this principal.")
]
HostFilter = Annotated[str | None, typer.Option("--host", metavar="HOST", help="Only ACLs for this host.")]
Match = Annotated[
    bool,
    typer.Option("--match", help="Also ACLs that have to do with the resource by a prefix, or by '*'."),
]


@app.command()
@takes_resources
@examples(
    (
        "ottla acl add alice --operation read --topic orders --group billing",
        "Let a user consume from a topic with a group.",
    ),
    (
        "ottla acl add alice --operation write --topic orders- --prefixed",
        "Let a user produce to all topics whose names begin with 'orders-'.",
    ),
    ("ottla acl add 'User:*' --operation read --topic payments --deny", "Deny everybody to read a topic."),
)
def add(
    principal: PrincipalArgument,
    operation: OperationOption = None,
    resources: Sequence[Resource] = (),
    prefixed: Prefixed = False,
    host: Annotated[
        list[str] | None,
        typer.Option(
            "--host", metavar="HOST", help="Only from this address, or network as 10.0.0.0/8. Repeatable."
        ),
    ] = None,
    deny: Deny = False,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Allow somebody something, or with --deny forbid it; without --operation everything.

    A name of '*' stands for every resource of its kind, and the principal 'User:*' for everybody.
    """
    if not resources:
        output.fail_usage("give what it is about: --topic, --group, --transactional-id, --cluster …")
    pattern = PatternType.PREFIXED if prefixed else PatternType.LITERAL
    permission = Permission.DENY if deny else Permission.ALLOW
    acls = [
        AclBinding(kind, name, pattern, principal_of(principal), where, what, permission)
        for kind, name in resources
        for where in host or (WILDCARD,)
        for what in map(operation_of, operation or ("all",))
    ]
    errors: list[CliError] = []
    added = []
    with closing(DirectCluster(bootstrap, property)) as brokers:
        for some in _chunks(acls):
            answer = brokers.ask("CreateAcls", {"creations": [_creation(acl) for acl in some]})
            for acl, result in zip(some, answer.results, strict=True):
                try:
                    check(result.error_code, result.error_message, str(acl))
                    added.append(acl)
                except CliError as error:
                    errors.append(error)
    _say_done("added", added, json)
    output.raise_last(errors)


@app.command(name="list")
@takes_resources
@examples(
    ("ottla acl list", "List all ACLs."),
    (
        "ottla acl list --topic orders-eu --match",
        "List all ACLs that have to do with a topic, those of prefixes too.",
    ),
)
def list_(
    principal: PrincipalOption = None,
    operation: OperationOption = None,
    resources: Sequence[Resource] = (),
    match: Match = False,
    host: HostFilter = None,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """List ACLs, all or those that are asked for."""
    filters = _filters(resources, principal, operation, host, match=match)
    with closing(DirectCluster(bootstrap, property)) as brokers:
        found = list(dict.fromkeys(acl for each in filters for acl in _described(brokers, each)))
    found.sort(key=lambda acl: (acl.resource_type, acl.resource_name, acl.principal, acl.operation))
    none = "no ACLs" + (" that match" if filters != [AclFilter()] else " yet")
    output.listing(list(map(_json, found)), _COLUMNS, list(map(_row, found)), json, none=none)


@app.command()
@takes_resources
@examples(
    ("ottla acl remove --principal alice --operation read --topic orders", "Remove one rule."),
    ("ottla acl remove --principal alice", "Remove all rules of a user."),
)
def remove(
    principal: PrincipalOption = None,
    operation: OperationOption = None,
    resources: Sequence[Resource] = (),
    host: HostFilter = None,
    all_: Annotated[bool, typer.Option("--all", help="All ACLs that there are.")] = False,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Remove ACLs: all those that fit everything that is given. 'ottla acl list' shows which these are."""
    filters = _filters(resources, principal, operation, host, match=False)
    if (filters == [AclFilter()]) is not all_:
        output.fail_usage("give which ACLs, or --all alone")
    removed: list[AclBinding] = []
    with closing(DirectCluster(bootstrap, property)) as brokers:
        for some in _chunks(filters):
            answer = brokers.ask("DeleteAcls", {"filters": [_filter_fields(each) for each in some]})
            for result in answer.filter_results:
                check(result.error_code, result.error_message, "ACLs")
                for acl in result.matching_acls:
                    check(acl.error_code, acl.error_message, "an ACL")
                    removed.append(AclBinding.of(acl.resource_type, acl.resource_name, acl.pattern_type, acl))
    _say_done("removed", list(dict.fromkeys(removed)), json)
    if not removed:
        raise CliError("no ACLs match", ExitCode.NOT_FOUND)


@app.command(name="check")
@takes_resources
@examples(
    (
        "ottla acl check alice --operation read --topic orders --group billing",
        "Show whether a user may consume, and which rule decides.",
    ),
    (
        "ottla acl check alice --operation write --topic orders-eu --host 10.0.0.7",
        "Check a user who comes from a certain address.",
    ),
)
def check_(
    principal: PrincipalArgument,
    operation: Annotated[
        list[str],
        typer.Option("--operation", "-o", metavar="OPERATION", help="What, such as read. Repeatable."),
    ],
    resources: Sequence[Resource] = (),
    host: Annotated[
        str, typer.Option("--host", metavar="HOST", help="The address that the client comes from.")
    ] = "127.0.0.1",
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Say whether somebody may do something, and which rule decides.

    Ends with 1 where anything is denied. Rules are read from the cluster, and super.users and
    allow.everyone.if.no.acl.found from the broker that answers.
    """
    if not resources:
        output.fail_usage("give what it is about: --topic, --group, --transactional-id, --cluster …")
    with closing(DirectCluster(bootstrap, property)) as brokers:
        authorizer = _authorizer(brokers)
        authorizer.change(added=_described(brokers, AclFilter()))
    client = authorizer.client(principal_of(principal), host)
    rows = []
    for kind, name in resources:
        for what in map(operation_of, operation):
            decision = client.decide(what, kind, name)
            rows.append((what, kind, name, decision.allowed, str(decision.rule)))
    documents = [
        {
            "operation": what.name,
            "resource_type": kind.name,
            "resource_name": name,
            "allowed": allowed,
            "rule": rule,
        }
        for what, kind, name, allowed, rule in rows
    ]
    table = [
        (what.name.lower(), kind_of(kind), name, "yes" if allowed else "no", rule)
        for what, kind, name, allowed, rule in rows
    ]
    columns = ("operation", "kind", "name", "allowed", "rule")
    output.listing(documents, columns, table, json, none="nothing was asked for")
    if not all(row[3] for row in rows):
        raise typer.Exit(ExitCode.FAILED)


# Requests -----------------------------------------------


def _authorizer(brokers: DirectCluster) -> Authorizer:
    """What decides in the cluster, without its ACLs yet. CliError where nothing does."""
    metadata = brokers.ask("Metadata", {"topics": (), "allow_auto_topic_creation": False} | _NO_OPERATIONS)
    brokers.learn(metadata)
    node = metadata.brokers[0].node_id
    wanted = ("super.users", "allow.everyone.if.no.acl.found", "authorizer.class.name")
    asked = {"resource_type": _BROKER, "resource_name": str(node), "configuration_keys": wanted}
    fields = {"resources": [asked], "include_synonyms": False, "include_documentation": False}
    (result,) = brokers.ask_node(node, "DescribeConfigs", fields).results
    check(result.error_code, result.error_message, f"broker {node}")
    values = {config.name: config.value for config in result.configs}
    if not values.get("authorizer.class.name"):
        raise CliError(f"broker {node} has no authorizer: everybody may do everything")
    everyone = values.get("allow.everyone.if.no.acl.found") == "true"
    return Authorizer(super_users(values.get("super.users")), allow_if_no_acl=everyone)


_NO_OPERATIONS = {
    "include_cluster_authorized_operations": False,
    "include_topic_authorized_operations": False,
}


def _filters(
    resources: Sequence[tuple[ResourceType, str]],
    principal: str | None,
    operation: Sequence[str] | None,
    host: str | None,
    *,
    match: bool,
) -> list[AclFilter]:
    who = None if principal is None else principal_of(principal)
    pattern = PatternType.MATCH if match else PatternType.ANY
    operations = [operation_of(each) for each in operation or ()] or [Operation.ANY]
    wanted: list[tuple[ResourceType, str | None]] = [*resources] or [(ResourceType.ANY, None)]
    return [
        AclFilter(kind, name, pattern, who, host, what, Permission.ANY)
        for kind, name in wanted
        for what in operations
    ]


def _described(brokers: DirectCluster, wanted: AclFilter) -> list[AclBinding]:
    answer = brokers.ask("DescribeAcls", _filter_fields(wanted))
    check(answer.error_code, answer.error_message, "ACLs")
    return [
        AclBinding.of(resource.resource_type, resource.resource_name, resource.pattern_type, acl)
        for resource in answer.resources
        for acl in resource.acls
    ]


def _creation(acl: AclBinding) -> dict[str, Any]:
    return {
        "resource_type": acl.resource_type,
        "resource_name": acl.resource_name,
        "resource_pattern_type": acl.pattern_type,
        "principal": acl.principal,
        "host": acl.host,
        "operation": acl.operation,
        "permission_type": acl.permission,
    }


def _filter_fields(wanted: AclFilter) -> dict[str, Any]:
    return {
        "resource_type_filter": wanted.resource_type,
        "resource_name_filter": wanted.resource_name,
        "pattern_type_filter": wanted.pattern_type,
        "principal_filter": wanted.principal,
        "host_filter": wanted.host,
        "operation": wanted.operation,
        "permission_type": wanted.permission,
    }


def _chunks(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[first : first + AT_ONCE] for first in range(0, len(items), AT_ONCE))


# Words --------------------------------------------------


def _json(acl: AclBinding) -> dict[str, str]:
    return {
        "resource_type": acl.resource_type.name,
        "resource_name": acl.resource_name,
        "pattern_type": acl.pattern_type.name,
        "principal": acl.principal,
        "host": acl.host,
        "operation": acl.operation.name,
        "permission": acl.permission.name,
    }


_COLUMNS = ("kind", "name", "pattern", "permission", "principal", "operation", "host")


def _row(acl: AclBinding) -> tuple[str, ...]:
    return (
        kind_of(acl.resource_type),
        acl.resource_name,
        acl.pattern_type.name.lower(),
        acl.permission.name.lower(),
        "everybody" if acl.principal == EVERYBODY else acl.principal,
        acl.operation.name.lower(),
        acl.host,
    )


def _say_done(what: str, acls: Sequence[AclBinding], json: bool) -> None:
    output.say_done([_json(acl) | {"result": what} for acl in acls], [f"{what}: {acl}" for acl in acls], json)
