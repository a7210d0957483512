"""What ACLs are about, as the options of commands name it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from ottla.cli import output
from ottla.cli.options import takes
from ottla.cli.values import shown
from ottla.security.acl_bindings import CLUSTER_NAME, Operation, ResourceType

TopicOption = Annotated[
    list[str] | None, typer.Option("--topic", metavar="TOPIC", help="A topic. Repeatable.")
]
GroupOption = Annotated[
    list[str] | None, typer.Option("--group", metavar="GROUP", help="A group. Repeatable.")
]
TransactionalIdOption = Annotated[
    list[str] | None,
    typer.Option("--transactional-id", metavar="ID", help="A transactional id. Repeatable."),
]
UserOption = Annotated[
    list[str] | None,
    typer.Option(
        "--user-principal",
        metavar="PRINCIPAL",
        help="Delegation tokens of this user, such as User:alice. Repeatable.",
    ),
]
TokenOption = Annotated[
    list[str] | None,
    typer.Option("--delegation-token", metavar="ID", help="A delegation token. Repeatable."),
]
ClusterOption = Annotated[bool, typer.Option("--cluster", help="The cluster as a whole.")]

Resource = tuple[ResourceType, str]

# Operations by their names on a command line.
OPERATIONS = {each.name.lower().replace("_", "-"): each for each in Operation if each > Operation.ANY}


def _named(
    topic: Sequence[str] | None,
    group: Sequence[str] | None,
    transactional_id: Sequence[str] | None,
    user_principal: Sequence[str] | None,
    delegation_token: Sequence[str] | None,
    cluster: bool,
) -> list[Resource]:
    found: list[Resource] = [(ResourceType.TOPIC, name) for name in topic or ()]
    found += [(ResourceType.GROUP, name) for name in group or ()]
    found += [(ResourceType.TRANSACTIONAL_ID, name) for name in transactional_id or ()]
    found += [(ResourceType.USER, name) for name in user_principal or ()]
    found += [(ResourceType.DELEGATION_TOKEN, name) for name in delegation_token or ()]
    if cluster:
        found.append((ResourceType.CLUSTER, CLUSTER_NAME))
    return found


# A command that has it gets the resources that its options name as ``resources``.
takes_resources = takes(
    "resources",
    {
        "topic": (TopicOption, None),
        "group": (GroupOption, None),
        "transactional_id": (TransactionalIdOption, None),
        "user_principal": (UserOption, None),
        "delegation_token": (TokenOption, None),
        "cluster": (ClusterOption, False),
    },
    _named,
)


def operation_of(text: str) -> Operation:
    """An operation; CliError (usage) where there is none of that name."""
    found = OPERATIONS.get(text.lower().replace("_", "-"))
    if found is None:
        output.fail_usage(f"--operation {shown(text)}: give one of {', '.join(OPERATIONS)}")
    return found


def kind_of(resource_type: ResourceType) -> str:
    """A type of resource in a table."""
    return resource_type.name.lower().replace("_", "-")


def principal_of(text: str) -> str:
    """A principal; a name alone is that of a user. CliError (usage) where it is empty."""
    if not text:
        output.fail_usage("a principal has a name, such as User:alice")
    return text if ":" in text else f"User:{text}"
