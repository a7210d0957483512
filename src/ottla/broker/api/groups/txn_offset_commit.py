"""TxnOffsetCommit: store where a group is in its partitions, once a transaction is committed (KIP-98).

v2 leader epochs; v3 the consumer's member and generation, which are checked (KIP-447), flexible; v4
TRANSACTION_ABORTABLE; v5 the partition of `__consumer_offsets` is added to the transaction by this
(KIP-890); v6 topic ids in place of names, and GROUP_ID_NOT_FOUND (KIP-1319).

The transaction's coordinator is asked whether it is open before the first of its offsets is written. Offsets
count from the marker on; until then OffsetFetch with require_stable gets UNSTABLE_OFFSET_COMMIT. Topics and
partitions that do not exist get UNKNOWN_TOPIC_OR_PARTITION, or UNKNOWN_TOPIC_ID; the others are committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ottla.broker.api.groups.commits import Answer, commit_existing
from ottla.broker.request import RequestContext
from ottla.coordinators.groups.requests import CommitRequest, PartitionErrors, TopicToCommit
from ottla.coordinators.runtime.step import Producer, append_error
from ottla.coordinators.transactions.verification import FINAL, Errors, Operation, of_offset_commit
from ottla.env.deferred import Deferred
from ottla.errors import ErrorCode, KafkaError
from ottla.log.verification import EXEMPT, VerificationGuard
from ottla.metadata.image import OFFSETS_TOPIC
from ottla.types import TopicPartition
from ottla.wire.records import NO_SEQUENCE

FIRST_VERSION_WITH_LOAD_IN_PROGRESS = 2
FIRST_VERSION_WITH_TOPIC_IDS = 6
FIRST_VERSION_WITH_GROUP_ID_NOT_FOUND = 6


def handle(ctx: RequestContext, request: Any) -> Answer:
    by_id = ctx.api_version >= FIRST_VERSION_WITH_TOPIC_IDS
    return commit_existing(ctx, request, partial(_commit, ctx, request), by_id=by_id)


def _commit(ctx: RequestContext, request: Any, topics: Sequence[TopicToCommit]) -> Deferred[PartitionErrors]:
    answer: Deferred[PartitionErrors] = Deferred()
    try:
        _verify(ctx, request, topics, answer)
    except KafkaError as error:
        _refuse(ctx, answer, error.code)
    return answer


def _verify(
    ctx: RequestContext, request: Any, topics: Sequence[TopicToCommit], answer: Deferred[PartitionErrors]
) -> None:
    """Commit once the transaction's coordinator knows of it. KafkaError where that cannot begin."""
    if not request.group_id:
        raise KafkaError(ErrorCode.invalid_group_id)
    if request.producer_id < 0:
        raise KafkaError(ErrorCode.invalid_producer_id_mapping)
    services = ctx.services
    groups = services.groups
    groups.check_served(request.group_id)
    where = TopicPartition(OFFSETS_TOPIC, groups.partition_for(request.group_id))
    operation = of_offset_commit(ctx.api_version)
    guard = _guard(ctx, request, where, operation)
    if guard is EXEMPT and request.producer_epoch < 0:
        # Otherwise the coordinator refuses it, who knows whether it is of that producer.
        raise KafkaError(ErrorCode.invalid_producer_epoch)
    if guard is None or guard is EXEMPT:
        _commit_verified(ctx, request, topics, answer, guard)
        return

    def told(errors: Errors) -> None:
        code = errors.get(where, ErrorCode.none)
        if code != ErrorCode.none:
            partition = services.replicas.partitions.get(where)
            if code in FINAL and partition is not None:
                partition.log.producers.verifications.forget(request.producer_id, guard)
            _refuse(ctx, answer, code)
        else:
            _commit_verified(ctx, request, topics, answer, guard)

    services.verification.ask(
        request.transactional_id,
        request.producer_id,
        request.producer_epoch,
        frozenset((where,)),
        operation,
        told,
    )


def _guard(
    ctx: RequestContext, request: Any, where: TopicPartition, operation: Operation
) -> VerificationGuard | None:
    """What the commit is to come with; None where the transaction is open in the partition already."""
    services = ctx.services
    adds = operation is Operation.ADD_PARTITION
    if not adds and not services.config.get("transaction.partition.verification.enable"):
        return EXEMPT
    partition = services.replicas.get(where.topic, where.partition)
    return partition.begin_verification(
        request.producer_id,
        request.producer_epoch,
        NO_SEQUENCE,
        services.clock.now_ms(),
        bumps_epoch=adds,
    )


def _commit_verified(
    ctx: RequestContext,
    request: Any,
    topics: Sequence[TopicToCommit],
    answer: Deferred[PartitionErrors],
    guard: VerificationGuard | None,
) -> None:
    def committed(done: Deferred[PartitionErrors]) -> None:
        error = done.error
        if error is None:
            answer.resolve(done.result())
        elif isinstance(error, KafkaError):
            _refuse(ctx, answer, error.code)
        else:
            answer.fail(error)

    ctx.services.groups.commit(
        CommitRequest(
            group_id=request.group_id,
            generation_id=getattr(request, "generation_id", -1),
            member_id=getattr(request, "member_id", ""),
            group_instance_id=getattr(request, "group_instance_id", None),
            retention_time_ms=-1,
            knows_group_id_not_found=ctx.api_version >= FIRST_VERSION_WITH_GROUP_ID_NOT_FOUND,
            topics=topics,
            producer=Producer(request.producer_id, request.producer_epoch, guard),
        )
    ).listen(committed)


def _refuse(ctx: RequestContext, answer: Deferred[PartitionErrors], code: int) -> None:
    error = append_error(ErrorCode(code))
    if (
        error is ErrorCode.coordinator_load_in_progress
        and ctx.api_version < FIRST_VERSION_WITH_LOAD_IN_PROGRESS
    ):
        # Clients before 2.0 fail for good where they are told that (KAFKA-7296).
        error = ErrorCode.coordinator_not_available
    answer.fail(KafkaError(error))
