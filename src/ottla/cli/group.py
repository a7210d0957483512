"""`ottla group`: consumer groups, their lag, and where they go on from."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from ottla.cli import group_admin, output, positions, ranges
from ottla.cli import members as group_members
from ottla.cli.client import REQUEST_TIMEOUT_S, Cluster, connect
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.members import Group, Member
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Json, Properties, whole_number
from ottla.cli.positions import Kind, Position
from ottla.cli.rights import Right
from ottla.cli.values import check_group, shown
from ottla.numbers import LONG_MAX
from ottla.types import TopicPartition

app = typer.Typer(no_args_is_help=True, help="List, describe, rewind and delete groups, and remove members.")

Name = Annotated[str, typer.Argument(metavar="GROUP", help="The group's id.")]
Names = Annotated[list[str], typer.Argument(metavar="GROUP", help="The groups' ids.")]


@app.command(name="list")
@examples(
    ("ottla group list", "List the groups and their states."),
    ("ottla group list --json", "List them as JSON."),
)
def list_(json: Json = False, bootstrap: Bootstrap = BOOTSTRAP_DEFAULT, property: Properties = None) -> None:
    """List consumer groups and their states."""
    cluster = connect(bootstrap, property)
    found = group_members.listed(cluster)
    output.listing(
        [one._asdict() for one in found],
        ("group", "state", "type"),
        found,
        json,
        none="no groups yet; 'ottla consume TOPIC --group NAME' makes one",
    )


@app.command()
@examples(
    ("ottla group describe billing", "Show the committed offset and the lag of each partition."),
    ("ottla group describe billing --members", "Show the members of a group."),
)
def describe(
    group: Names,
    members: Annotated[bool, typer.Option("--members", help="Show members instead of offsets.")] = False,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Show groups: the committed offset, the end and the lag of each partition, and who reads it."""
    cluster = connect(bootstrap, property)
    described = [_describe(cluster, name) for name in group]
    if json:
        output.print_json(described)
        return
    for position, found in enumerate(described):
        if position:
            output.say()
        assignor = f", assignor {found['assignor']}" if found["assignor"] else ""
        count = output.counted(len(found["members"]), "member")
        output.say(
            f"{found['group']}: {found['state']}, {count}, lag {found['lag']}, "
            f"coordinator {found['coordinator']}{assignor}"
        )
        if members and found["members"]:
            _print_members(found["members"])
        elif found["partitions"] and not members:
            _print_partitions(found["partitions"], has_members=bool(found["members"]))


def _print_partitions(partitions: list[dict[str, Any]], *, has_members: bool) -> None:
    output.table(
        ("topic", "partition", "committed", "end", "lag", "client", "host", "trouble"),
        [
            (
                p["topic"],
                p["partition"],
                p["committed_offset"],
                p["end_offset"],
                output.marked(p["lag"], output.WARNING, when=bool(p["lag"])),
                p["client_id"],
                p["host"],
                _trouble(p, has_members=has_members),
            )
            for p in partitions
        ],
    )


def _trouble(partition: dict[str, Any], *, has_members: bool) -> output.Cell:
    """What is the matter with a partition, in words."""
    words = []
    if partition["end_offset"] is None:
        words.append("offline or deleted")
    if partition["committed_offset"] is None:
        words.append("no committed offset")
    elif partition["lag"]:
        words.append(f"lag {partition['lag']}")
    if has_members and partition["member_id"] is None:
        words.append("no member")
    if not words:
        return None
    is_alarm = partition["end_offset"] is None
    return output.Marked(", ".join(words), output.ALARM if is_alarm else output.WARNING)


def _print_members(members: list[dict[str, Any]]) -> None:
    output.table(
        ("member", "instance", "client", "host", "partitions"),
        [
            (m["member_id"], m["instance_id"], m["client_id"], m["host"], _assigned(m["partitions"]))
            for m in members
        ],
    )


def _assigned(partitions: list[str] | None) -> str:
    if partitions is None:
        return "(not a consumer's)"
    return " ".join(ranges.compressed_names(partitions)) or "-"


@app.command(name="reset-offsets")
@examples(
    (
        "ottla group reset-offsets billing --topic orders --to 2h",
        "Show what would change if the group read the last two hours again.",
    ),
    (
        "ottla group reset-offsets billing --topic orders --to beginning --execute",
        "Have the group read a topic from its beginning.",
    ),
    (
        "ottla group reset-offsets billing --topic orders:0,1 --shift -10 --execute",
        "Move back by ten messages in two partitions.",
    ),
)
def reset_offsets(
    group: Name,
    topic: Annotated[
        list[str] | None,
        typer.Option(
            "--topic", "-t", metavar="TOPIC[:N,N-N]", help="A topic, or partitions of it. Repeatable."
        ),
    ] = None,
    all_topics: Annotated[
        bool, typer.Option("--all-topics", help="Every topic that the group has offsets for.")
    ] = False,
    to: Annotated[
        str | None, typer.Option(metavar="POSITION", help=f"Where to go on from: {positions.GRAMMAR}.")
    ] = None,
    shift: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            parser=whole_number(-LONG_MAX, LONG_MAX),
            help="Move by N messages from the committed offset; back if negative.",
        ),
    ] = None,
    execute: Annotated[bool, typer.Option("--execute", help="Do it. Without this, only show it.")] = False,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Move a group's committed offsets. Shows what would change; changes it with --execute.

    The group must have no members: stop its consumers first. A group that does not exist is made.
    """
    if (to is None) == (shift is None):
        output.fail_usage("give either --to or --shift")
    if bool(topic) == all_topics:
        output.fail_usage("give either --topic or --all-topics")
    target = None if to is None else positions.parse("--to", to, int(time.time() * 1000))
    cluster = connect(bootstrap, property)
    _check_idle(cluster, group)
    committed = group_members.committed(cluster, group)
    chosen = sorted(committed) if all_topics else _chosen(cluster, topic or [])
    if not chosen:
        raise CliError(f"group {group!r} has no offsets; name a --topic", ExitCode.NOT_FOUND)
    wanted = _targets(cluster, chosen, committed, target, shift or 0)
    if execute:
        _commit(cluster, group, wanted)
    rows = [(*key, committed.get(key), offset) for key, offset in wanted.items()]
    if json:
        names = ("topic", "partition", "committed_offset", "new_offset")
        output.print_json(
            {
                "group": group,
                "executed": execute,
                "partitions": [dict(zip(names, row, strict=True)) for row in rows],
            }
        )
        return
    output.table(("topic", "partition", "committed", "new"), rows)
    if execute:
        output.say(f"{group}: the new offsets are committed")
    else:
        output.warn("nothing was changed; add --execute to do it")


app.command(name="remove-member")(group_admin.remove_member)
app.command(name="delete-offsets")(group_admin.delete_offsets)


@app.command()
@examples(
    ("ottla group delete billing", "Delete a group that has no members, and its offsets."),
    ("ottla group delete billing --if-exists", "Succeed if there is no such group."),
)
def delete(
    group: Names,
    if_exists: Annotated[bool, typer.Option("--if-exists", help="Succeed where there is none.")] = False,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Delete groups that have no members, and their offsets."""
    for name in group:
        check_group(name)
    cluster = connect(bootstrap, property)
    futures = cluster.admin.delete_consumer_groups(group, request_timeout=REQUEST_TIMEOUT_S)
    forgiven = {ExitCode.NOT_FOUND: "does not exist"} if if_exists else {}
    output.report("group", *cluster.outcomes("group", futures, "deleted", forgiven, "delete"), json)


def _describe(cluster: Cluster, group: str) -> dict[str, Any]:
    found = group_members.describe(cluster, group)
    committed = group_members.committed(cluster, group)
    # Brokers describe a group that does not exist as a dead one without members.
    if found.state == group_members.DEAD and not committed:
        raise CliError(f"group {group!r} does not exist; see 'ottla group list'", ExitCode.NOT_FOUND)
    owners = _owners(found)
    keys = sorted(committed.keys() | owners.keys(), key=lambda key: (*ranges.users_first(key.topic), key))
    ends = cluster.offsets([key for key in keys if _has_leader(cluster, key)], Position(Kind.END))
    partitions = []
    for key in keys:
        offset, end, owner = committed.get(key), ends.get(key), owners.get(key)
        partitions.append(
            {
                "topic": key.topic,
                "partition": key.partition,
                "committed_offset": offset,
                "end_offset": end,
                "lag": None if offset is None or end is None else max(0, end - offset),
                "member_id": owner.member_id if owner else None,
                "client_id": owner.client_id if owner else None,
                "host": owner.host if owner else None,
            }
        )
    return {
        "group": group,
        "state": found.state,
        "type": found.type,
        "assignor": found.assignor,
        "coordinator": found.coordinator,
        "lag": sum(p["lag"] or 0 for p in partitions),
        "members": [
            {
                "member_id": member.member_id,
                "instance_id": member.instance_id,
                "client_id": member.client_id,
                "host": member.host,
                # null: its assignment is not what consumers have.
                "partitions": None if member.partitions is None else [str(p) for p in member.partitions],
            }
            for member in found.members
        ],
        "partitions": partitions,
    }


def _has_leader(cluster: Cluster, key: TopicPartition) -> bool:
    topic = cluster.metadata.topics.get(key.topic)
    partition = None if topic is None else topic.partitions.get(key.partition)
    return partition is not None and partition.leader >= 0


def _owners(found: Group) -> dict[TopicPartition, Member]:
    return {partition: member for member in found.members for partition in member.partitions or ()}


def _check_idle(cluster: Cluster, group: str) -> None:
    found = group_members.describe(cluster, group)
    if found.members:
        state = f"{found.state} with {output.counted(len(found.members), 'member')}"
        raise CliError(f"group {group!r} is {state}; stop its consumers first")


def _chosen(cluster: Cluster, topics: list[str]) -> list[TopicPartition]:
    chosen: set[TopicPartition] = set()
    for text in topics:
        name, colon, numbers = text.partition(":")
        if not name or (colon and not numbers.strip()):
            output.fail_usage(f"--topic {shown(text)}: give TOPIC or TOPIC:0-5,8")
        known = sorted(cluster.topic(name).partitions)
        wanted = ranges.parse(f"--topic {shown(text)}", numbers, known) if colon else known
        chosen.update(TopicPartition(name, number) for number in wanted)
    return sorted(chosen)


def _targets(
    cluster: Cluster,
    chosen: list[TopicPartition],
    committed: dict[TopicPartition, int],
    target: Position | None,
    shift: int,
) -> dict[TopicPartition, int]:
    """The new offset of each partition, cut to what its log holds, as Kafka's tool does."""
    for key in chosen:
        cluster.partitions(key.topic, [key.partition])
    if target is not None:
        return cluster.offsets(chosen, target)
    for key in chosen:
        if key not in committed:
            raise CliError(f"--shift: the group has no offset for {key}; use --to", ExitCode.NOT_FOUND)
    starts = cluster.offsets(chosen, Position(Kind.BEGINNING))
    ends = cluster.offsets(chosen, Position(Kind.END))
    return {key: max(starts[key], min(ends[key], committed[key] + shift)) for key in chosen}


def _commit(cluster: Cluster, group: str, offsets: dict[TopicPartition, int]) -> None:
    from confluent_kafka import ConsumerGroupTopicPartitions
    from confluent_kafka import TopicPartition as ClientPartition

    futures = cluster.admin.alter_consumer_group_offsets(
        [
            ConsumerGroupTopicPartitions(
                group, [ClientPartition(*key, offset) for key, offset in offsets.items()]
            )
        ],
        request_timeout=REQUEST_TIMEOUT_S,
    )
    result = cluster.wait(futures[group], f"group {group!r}", Right("read", "group", group))
    for partition in result.topic_partitions:
        if partition.error is not None:
            raise CliError(
                f"group {group!r}, {partition.topic}-{partition.partition}: {partition.error.str()}"
            )
