"""Committing, fetching and deleting a group's offsets (the requests of Kafka's OffsetMetadataManager).

Functions take the partition's tables and a `Step`, into which replies and writes go. What is durable changes
when the shell replays a committed write. A request may name very many partitions: what is made of them is
made piece by piece before the group is asked, or in pieces that each look anew.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Final, final

from ottla.coordinators.groups.classic_group import (
    COMPLETING_REBALANCE,
    EMPTY,
    PREPARING_REBALANCE,
    STABLE,
    ClassicGroup,
)
from ottla.coordinators.groups.offsets import OffsetKey
from ottla.coordinators.groups.requests import (
    CommitRequest,
    DeletedOffsets,
    FetchedOffset,
    FetchTopic,
    PartitionError,
    PartitionErrors,
    TopicToCommit,
)
from ottla.coordinators.groups.schemas import NO_TIMESTAMP, CommittedOffset, OffsetRecord
from ottla.coordinators.groups.settings import GroupConfig
from ottla.coordinators.groups.step import Step
from ottla.coordinators.groups.tables import GroupTables
from ottla.coordinators.runtime.pieces import PIECE
from ottla.coordinators.runtime.step import Waiter, append_error
from ottla.errors import ErrorCode, KafkaError
from ottla.wire.commits import OffsetToCommit
from ottla.wire.primitives import UUID_ZERO

NONE: Final = ErrorCode.none
_new: Final = tuple.__new__


# -- committing


@final
class PreparedCommit:
    """What a request would store, and what its answer would be."""

    __slots__ = ("records", "results")

    def __init__(self, records: tuple[OffsetRecord, ...], results: PartitionErrors) -> None:
        self.records = records
        self.results = results


def prepare_commit(
    request: CommitRequest, wall_ms: int, config: GroupConfig
) -> Generator[None, None, PreparedCommit]:
    """Make the records of an OffsetCommit; yields after each piece."""
    records: list[OffsetRecord] = []
    results: PartitionErrors = []
    count = 0
    for topic in request.topics:
        errors: list[PartitionError] = []
        for start in range(0, len(topic.partitions), PIECE):
            piece = topic.partitions[start : start + PIECE]
            _prepare(request, topic, piece, wall_ms, config, records, errors)
            count += len(piece)
            if count >= PIECE:
                count = 0
                yield
        results.append((topic.topic, errors))
    return PreparedCommit(tuple(records), results)


def prepare_small(request: CommitRequest, wall_ms: int, config: GroupConfig) -> PreparedCommit:
    """As `prepare_commit`, all at once."""
    records: list[OffsetRecord] = []
    results: PartitionErrors = []
    for topic in request.topics:
        errors: list[PartitionError] = []
        _prepare(request, topic, topic.partitions, wall_ms, config, records, errors)
        results.append((topic.topic, errors))
    return PreparedCommit(tuple(records), results)


def _prepare(
    request: CommitRequest,
    commits: TopicToCommit,
    partitions: Sequence[OffsetToCommit],
    wall_ms: int,
    config: GroupConfig,
    records: list[OffsetRecord],
    errors: list[PartitionError],
) -> None:
    topic, topic_id, group_id = commits.topic, commits.topic_id, request.group_id
    retention_ms = request.retention_time_ms
    expire_ms = NO_TIMESTAMP if retention_ms < 0 else wall_ms + retention_ms
    for partition, offset, leader_epoch, metadata in partitions:
        if metadata and is_longer(metadata, config.offset_metadata_max_bytes):
            errors.append(PartitionError(partition, ErrorCode.offset_metadata_too_large))
            continue
        # Named tuples are made twice as fast as they make themselves.
        value = _new(CommittedOffset, (offset, leader_epoch, metadata or "", wall_ms, expire_ms, topic_id))
        records.append(_new(OffsetRecord, (group_id, topic, partition, value)))
        errors.append(_new(PartitionError, (partition, NONE)))


def commit(
    tables: GroupTables, request: CommitRequest, prepared: PreparedCommit, waiter: Waiter, step: Step
) -> None:
    """Commit offsets; the reply, `PartitionErrors`, waits until they are stored. Raises KafkaError."""
    check_commit(tables, request, step.now_ms)
    if not prepared.records:
        step.reply(waiter, prepared.results)
        return

    def failed(code: ErrorCode, step: Step) -> None:
        step.reply(waiter, KafkaError(append_error(code)))

    step.write(
        prepared.records,
        lambda step: step.reply(waiter, prepared.results),
        failed,
        about=request.group_id,
        producer=request.producer,
    )


def check_commit(tables: GroupTables, request: CommitRequest, now_ms: int) -> None:
    """KafkaError where the group would not take the commit now."""
    tables.check_not_deleting(request.group_id)
    group = tables.groups.get(request.group_id)
    if group is not None:
        _check_member(group, request, now_ms)
    elif request.generation_id >= 0:
        raise KafkaError(
            ErrorCode.group_id_not_found if request.knows_group_id_not_found else ErrorCode.illegal_generation
        )


def _check_member(group: ClassicGroup, request: CommitRequest, now_ms: int) -> None:
    """Kafka's ClassicGroup.validateOffsetCommit."""
    generation_id, member_id = request.generation_id, request.member_id
    if generation_id < 0 and group.state is EMPTY:
        return
    if generation_id < 0 and not member_id and request.group_instance_id is None:
        if request.producer is not None:
            # Clients before KIP-447 do not say who they are: their transactional ids fence them.
            return
        raise KafkaError(ErrorCode.unknown_member_id)
    member = group.check_member(member_id, request.group_instance_id)
    if generation_id != group.generation_id:
        raise KafkaError(ErrorCode.illegal_generation)
    if request.producer is not None:
        # The members' rebalance does not concern it, nor is it a sign of life.
        return
    if group.state is COMPLETING_REBALANCE:
        # The member knows the generation but not yet its partitions.
        raise KafkaError(ErrorCode.rebalance_in_progress)
    if group.state is STABLE or group.state is PREPARING_REBALANCE:
        group.extend_session(member, now_ms)


def is_longer(text: str, units_max: int) -> bool:
    """Whether ``text`` takes more UTF-16 code units than that."""
    if len(text) > units_max:
        return True
    return 2 * len(text) > units_max and len(text.encode("utf-16-le")) // 2 > units_max


# -- fetching


def all_topics(tables: GroupTables, group_id: str) -> list[FetchTopic]:
    """What a group has offsets of."""
    topics = tables.offsets.by_group.get(group_id, {})
    return [FetchTopic(topic, UUID_ZERO, tuple(partitions)) for topic, partitions in topics.items()]


def fetch_one(
    tables: GroupTables, group_id: str, topic: FetchTopic, partition: int, *, require_stable: bool
) -> FetchedOffset:
    """A group's offset of a partition; -1 where it has none."""
    name, topic_id, _ = topic
    if require_stable and tables.offsets.is_unstable(group_id, name, partition):
        return FetchedOffset(partition, error=ErrorCode.unstable_offset_commit)
    kept = tables.offsets.kept(group_id, name, partition)
    if kept is None:
        return FetchedOffset(partition)
    offset, leader_epoch, metadata, _, _, kept_id = kept
    if kept_id and topic_id is not UUID_ZERO and topic_id.int not in (0, kept_id):
        # It was committed to an earlier topic of the same name.
        return FetchedOffset(partition)
    return FetchedOffset(partition, offset, leader_epoch, metadata)


# -- deleting


def delete_offsets(
    tables: GroupTables,
    group_id: str,
    topics: Iterable[tuple[str, Sequence[int]]],
    waiter: Waiter,
    step: Step,
) -> None:
    """Handle an OffsetDelete; the reply is `DeletedOffsets`."""
    group = tables.groups.get(group_id)
    if group is None:
        step.reply(waiter, DeletedOffsets(ErrorCode.group_id_not_found, []))
        return
    if group.state is not EMPTY and not group.uses_consumer_protocol:
        step.reply(waiter, DeletedOffsets(ErrorCode.non_empty_group, []))
        return
    in_flight = frozenset(tables.keys_in_flight(group_id))
    offsets = tables.offsets
    records: list[OffsetRecord] = []
    results: PartitionErrors = []
    for topic, partitions in topics:
        subscribed = group.is_subscribed_to(topic)
        error = ErrorCode.group_subscribed_to_topic if subscribed else NONE
        results.append((topic, [PartitionError(each, error) for each in partitions]))
        if subscribed:
            continue
        for each in dict.fromkeys(partitions):
            key = OffsetKey(group_id, topic, each)
            if key in in_flight or offsets.get(*key) is not None or offsets.is_unstable(*key):
                records.append(OffsetRecord(*key, None))
    response = DeletedOffsets(NONE, results)
    if not records:
        step.reply(waiter, response)
        return

    def failed(code: ErrorCode, step: Step) -> None:
        step.reply(waiter, DeletedOffsets(append_error(code), []))

    step.write(tuple(records), lambda step: step.reply(waiter, response), failed)
