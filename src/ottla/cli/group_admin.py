"""`ottla group remove-member` and `delete-offsets`: members that leave by an administrator (LeaveGroup,
KIP-345), and committed offsets that are forgotten (OffsetDelete, KIP-496)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Annotated, Any, NamedTuple

import typer

from ottla.cli import members as group_members
from ottla.cli import output, ranges
from ottla.cli.client import Cluster, connect
from ottla.cli.direct import DirectCluster, check, error_name
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Json, Properties
from ottla.cli.requests import GROUP, NO_COORDINATOR, ClusterRequests, by_topic, retry
from ottla.cli.rights import Right
from ottla.cli.values import check_group, shown
from ottla.errors import ErrorCode
from ottla.types import TopicPartition

# The first version of LeaveGroup with several members, and with instance ids.
MEMBERS_VERSION = 3
REASON_DEFAULT = "removed by an administrator"

GroupArgument = Annotated[str, typer.Argument(metavar="GROUP", help="The group's id.")]


class Leaving(NamedTuple):
    """A member that is to leave: a dynamic one by its member id, a static one by its instance id."""

    member_id: str
    instance_id: str | None

    @property
    def name(self) -> str:
        return self.member_id if self.instance_id is None else self.instance_id


class GroupRequests(ClusterRequests):
    """Asks the coordinator of a group."""

    def leave(self, group: str, leaving: Sequence[Leaving], reason: str) -> dict[Leaving, int]:
        """Remove members; the error code of each."""
        return self._persist(partial(self._leave, group, leaving, reason))

    def delete_offsets(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Forget the committed offsets of partitions; the error code of each."""
        return self._persist(partial(self._delete_offsets, group, partitions))

    def _ask(self, group: str, name: str, fields: Mapping[str, Any], version_min: int = 0) -> Any:
        ((node, _),) = self._coordinators(GROUP, [group], _what).items()
        return self._cluster.ask_node(node, name, fields, version_min=version_min)

    def _leave(self, group: str, leaving: Sequence[Leaving], reason: str) -> dict[Leaving, int]:
        members = [
            {"member_id": one.member_id, "group_instance_id": one.instance_id, "reason": reason}
            for one in leaving
        ]
        fields = {"group_id": group, "members": members}
        answer = self._ask(group, "LeaveGroup", fields, MEMBERS_VERSION)
        retry(answer.error_code, NO_COORDINATOR, _what(group))
        check(answer.error_code, None, _what(group), Right("read", "group", group))
        codes = [int(one.error_code) for one in answer.members]
        return dict(zip(leaving, codes, strict=True))

    def _delete_offsets(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        topics = [
            {"name": name, "partitions": [{"partition_index": index} for index in indexes]}
            for name, indexes in by_topic(partitions).items()
        ]
        answer = self._ask(group, "OffsetDelete", {"group_id": group, "topics": topics})
        retry(answer.error_code, NO_COORDINATOR, _what(group))
        if answer.error_code == ErrorCode.non_empty_group:
            text = "it has members that are no consumers of topics; stop them first"
            raise CliError(f"{_what(group)}: {text}")
        check(answer.error_code, None, _what(group), Right("delete", "group", group))
        return {
            TopicPartition(topic.name, one.partition_index): int(one.error_code)
            for topic in answer.topics
            for one in topic.partitions
        }


@examples(
    ("ottla group remove-member billing --member consumer-1-6e0f", "Remove a member by its member id."),
    ("ottla group remove-member billing --instance till-7", "Remove a static member by its instance id."),
    ("ottla group remove-member billing --all", "Remove all members."),
)
def remove_member(
    group: GroupArgument,
    member: Annotated[
        list[str] | None,
        typer.Option("--member", "-m", metavar="ID", help="The id of a dynamic member. Repeatable."),
    ] = None,
    instance: Annotated[
        list[str] | None,
        typer.Option(
            "--instance",
            "-i",
            metavar="ID",
            help="The instance id (group.instance.id) of a static member. Repeatable.",
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All members.")] = False,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="The reason, for the coordinator's log.")
    ] = REASON_DEFAULT,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Remove members from a group; the others take over their partitions.

    A consumer that still runs joins again: stop it first. 'ottla group describe GROUP --members' shows the
    ids. This needs the right to read the group.
    """
    check_group(group)
    if all_ == bool(member or instance):
        output.fail_usage("name members with --member or --instance, or give --all" + "; not both" * all_)
    leaving = [Leaving(one, None) for one in dict.fromkeys(member or ())]
    leaving += [Leaving("", one) for one in dict.fromkeys(instance or ())]
    if all_:
        found = group_members.describe(connect(bootstrap, property), group)
        leaving = [
            Leaving(one.member_id, None) if one.instance_id is None else Leaving("", one.instance_id)
            for one in found.members
        ]
    codes: dict[Leaving, int] = {}
    if leaving:
        with closing(DirectCluster(bootstrap, property)) as cluster:
            codes = GroupRequests(cluster).leave(group, leaving, reason)
    else:
        output.warn(f"group {group!r} has no members")
    done = [one for one, code in codes.items() if not code]
    output.say_done(
        {
            "group": group,
            "removed": [{"member_id": one.member_id or None, "instance_id": one.instance_id} for one in done],
        },
        [f"{one.name}: removed from group {group}" for one in done],
        json,
    )
    output.raise_last([_not_removed(group, one, code) for one, code in codes.items() if code])


def _not_removed(group: str, one: Leaving, code: int) -> CliError:
    kind = "member" if one.instance_id is None else "static member"
    if code == ErrorCode.unknown_member_id:
        text = (
            f"group {group!r} has no {kind} {one.name!r}; 'ottla group describe GROUP --members' shows them"
        )
        return CliError(text, ExitCode.NOT_FOUND)
    return CliError(f"{kind} {one.name!r} of group {group!r}: {error_name(code)}")


@examples(
    ("ottla group delete-offsets billing --topic orders", "Forget where the group is in a topic."),
    ("ottla group delete-offsets billing --topic orders:0-2 --topic bills", "Forget it in some partitions."),
)
def delete_offsets(
    group: GroupArgument,
    topic: Annotated[
        list[str],
        typer.Option(
            "--topic", "-t", metavar="TOPIC[:N,N-N]", help="A topic, or partitions of it. Repeatable."
        ),
    ],
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Delete a group's committed offsets of topics or partitions, which none of its members may read.

    A consumer of the group that reads them later begins where auto.offset.reset says. This needs the rights
    to delete the group and to read the topics.
    """
    check_group(group)
    cluster = connect(bootstrap, property)
    committed = group_members.committed(cluster, group)
    chosen = _chosen(cluster, group, topic, committed)
    with closing(DirectCluster(bootstrap, property)) as direct:
        codes = GroupRequests(direct).delete_offsets(group, chosen)
    done = [where for where in chosen if not codes.get(where)]
    output.say_done(
        {
            "group": group,
            "partitions": [{**where._asdict(), "committed_offset": committed[where]} for where in done],
        },
        [f"{name}: offsets deleted" for name in ranges.compressed(done)],
        json,
    )
    output.raise_last(_not_deleted(group, {where: code for where, code in codes.items() if code}))


def _chosen(
    cluster: Cluster, group: str, topics: Sequence[str], committed: Mapping[TopicPartition, int]
) -> list[TopicPartition]:
    """The partitions with a committed offset that ``topics`` names."""
    chosen: set[TopicPartition] = set()
    for text in topics:
        name, colon, numbers = text.partition(":")
        if not name or (colon and not numbers.strip()):
            output.fail_usage(f"--topic {shown(text)}: give TOPIC or TOPIC:0-5,8")
        here = sorted(where.partition for where in committed if where.topic == name)
        # A topic that was deleted a moment ago may still have offsets.
        there = cluster.metadata.topics.get(name) if colon and here else None
        known = sorted({*here, *(there.partitions if there is not None else ())})
        wanted = here if not colon or not here else ranges.parse(f"--topic {shown(text)}", numbers, known)
        lacking = [TopicPartition(name, number) for number in wanted if number not in here]
        if lacking or not wanted:
            where = f"topic {name!r}" if not lacking else " ".join(ranges.compressed(lacking))
            raise CliError(f"group {group!r} has no committed offset for {where}", ExitCode.NOT_FOUND)
        chosen.update(TopicPartition(name, number) for number in wanted)
    return sorted(chosen)


def _not_deleted(group: str, codes: Mapping[TopicPartition, int]) -> list[CliError]:
    """One error for the partitions that have the same one."""
    partitions: dict[int, list[TopicPartition]] = {}
    for where, code in codes.items():
        partitions.setdefault(code, []).append(where)
    errors = []
    for code, found in partitions.items():
        names = " ".join(ranges.compressed(found))
        if code == ErrorCode.group_subscribed_to_topic:
            errors.append(CliError(f"{names}: members of group {group!r} read the topic; stop them first"))
            continue
        try:
            check(code, None, names, Right("read", "topic", found[0].topic))
        except CliError as error:
            errors.append(error)
    return errors


def _what(group: str) -> str:
    return f"group {group!r}"
