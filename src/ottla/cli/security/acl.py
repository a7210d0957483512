"""`ottla acl`: who may do what, as kafka-acls.sh shows and changes it, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Annotated, Any

import typer

from ottla.cli import output
from ottla.cli.direct import DirectCluster, check
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Json, Properties
from ottla.cli.security.resources import (
    ClusterOption,
    GroupOption,
    TokenOption,
    TopicOption,
    TransactionalIdOption,
    UserOption,
    kind_of,
    named,
    operation_of,
    principal_of,
)
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
def add(
    principal: PrincipalArgument,
    operation: OperationOption = None,
    topic: TopicOption = None,
    group: GroupOption = None,
    transactional_id: TransactionalIdOption = None,
    user_principal: UserOption = None,
    delegation_token: TokenOption = None,
    cluster: ClusterOption = False,
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
    resources = named(topic, group, transactional_id, user_principal, delegation_token, cluster=cluster)
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
    for each in errors[:-1]:
        output.warn(str(each))
    if errors:
        raise errors[-1]


@app.command(name="list")
def list_(
    principal: PrincipalOption = None,
    operation: OperationOption = None,
    topic: TopicOption = None,
    group: GroupOption = None,
    transactional_id: TransactionalIdOption = None,
    user_principal: UserOption = None,
    delegation_token: TokenOption = None,
    cluster: ClusterOption = False,
    match: Match = False,
    host: HostFilter = None,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """List ACLs, all or those that are asked for."""
    resources = named(topic, group, transactional_id, user_principal, delegation_token, cluster=cluster)
    filters = _filters(resources, principal, operation, host, match=match)
    with closing(DirectCluster(bootstrap, property)) as brokers:
        found = list(dict.fromkeys(acl for each in filters for acl in _described(brokers, each)))
    found.sort(key=lambda acl: (acl.resource_type, acl.resource_name, acl.principal, acl.operation))
    if json:
        output.print_json([_json(acl) for acl in found])
    elif found:
        _table(found)
    else:
        output.note("no ACLs" + (" that match" if filters != [AclFilter()] else " yet"))


@app.command()
def remove(
    principal: PrincipalOption = None,
    operation: OperationOption = None,
    topic: TopicOption = None,
    group: GroupOption = None,
    transactional_id: TransactionalIdOption = None,
    user_principal: UserOption = None,
    delegation_token: TokenOption = None,
    cluster: ClusterOption = False,
    host: HostFilter = None,
    all_: Annotated[bool, typer.Option("--all", help="All ACLs that there are.")] = False,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Remove ACLs: all those that fit everything that is given. 'ottla acl list' shows which these are."""
    resources = named(topic, group, transactional_id, user_principal, delegation_token, cluster=cluster)
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
                    removed.append(_binding(acl, acl))
    _say_done("removed", list(dict.fromkeys(removed)), json)
    if not removed:
        raise CliError("no ACLs match", ExitCode.NOT_FOUND)


@app.command(name="check")
def check_(
    principal: PrincipalArgument,
    operation: Annotated[
        list[str],
        typer.Option("--operation", "-o", metavar="OPERATION", help="What, such as read. Repeatable."),
    ],
    topic: TopicOption = None,
    group: GroupOption = None,
    transactional_id: TransactionalIdOption = None,
    user_principal: UserOption = None,
    delegation_token: TokenOption = None,
    cluster: ClusterOption = False,
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
    resources = named(topic, group, transactional_id, user_principal, delegation_token, cluster=cluster)
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
    if json:
        output.print_json(
            [
                {
                    "operation": what.name,
                    "resource_type": kind.name,
                    "resource_name": name,
                    "allowed": allowed,
                    "rule": rule,
                }
                for what, kind, name, allowed, rule in rows
            ]
        )
    else:
        output.table(
            ("operation", "kind", "name", "allowed", "rule"),
            [
                (what.name.lower(), kind_of(kind), name, "yes" if allowed else "no", rule)
                for what, kind, name, allowed, rule in rows
            ],
        )
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
    return [_binding(resource, acl) for resource in answer.resources for acl in resource.acls]


def _binding(resource: Any, acl: Any) -> AclBinding:
    return AclBinding(
        ResourceType.of(resource.resource_type),
        resource.resource_name,
        PatternType.of(resource.pattern_type),
        acl.principal,
        acl.host,
        Operation.of(acl.operation),
        Permission.of(acl.permission_type),
    )


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


def _table(acls: Sequence[AclBinding]) -> None:
    output.table(
        ("kind", "name", "pattern", "permission", "principal", "operation", "host"),
        [
            (
                kind_of(acl.resource_type),
                acl.resource_name,
                acl.pattern_type.name.lower(),
                acl.permission.name.lower(),
                "everybody" if acl.principal == EVERYBODY else acl.principal,
                acl.operation.name.lower(),
                acl.host,
            )
            for acl in acls
        ],
    )


def _say_done(what: str, acls: Sequence[AclBinding], json: bool) -> None:
    if json:
        output.print_json([_json(acl) | {"result": what} for acl in acls])
    else:
        for acl in acls:
            output.say(f"{what}: {acl}")
