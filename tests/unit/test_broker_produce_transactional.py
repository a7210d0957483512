"""Produce with a transactional id while the transaction's coordinator, another node, is asked."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from ottla.broker.api.records.produce.transactional import Verified, when_verified
from ottla.broker.pending import Unbegun
from ottla.errors import ErrorCode, KafkaError
from ottla.log.verification import VerificationGuard
from ottla.types import Record, TopicPartition
from ottla.wire.produce import OneBatch
from ottla.wire.records import build_batch

WHERE = TopicPartition("t", 0)
GUARD = VerificationGuard()
RECORDS = build_batch([Record(0, 1_000, None, b"v")], transactional=True, producer_id=7, base_sequence=0)


def test_what_follows_on_the_connection_waits_until_the_coordinator_has_answered() -> None:
    """Or it would be appended first, and be refused as out of order."""
    asked: list[Any] = []
    then_with: list[Verified] = []
    partition = SimpleNamespace(begin_verification=lambda *given, **named: GUARD)
    replicas = SimpleNamespace(unopened=False, partitions={WHERE: partition})
    ctx: Any = SimpleNamespace(
        client=SimpleNamespace(permissions=None),
        elements=2,
        header=SimpleNamespace(api_version=11),
        services=SimpleNamespace(
            replicas=replicas,
            config={"transaction.partition.verification.enable": True},
            clock=SimpleNamespace(now_ms=lambda: 0, monotonic_ms=lambda: 0),
            verification=SimpleNamespace(ask=lambda *given: asked.append(given)),
        ),
    )
    data = SimpleNamespace(index=0, records=RECORDS)
    topic = SimpleNamespace(name="t", partition_data=[data])
    request = SimpleNamespace(transactional_id="tx", topic_data=[topic])

    async def main() -> None:
        answer = when_verified(ctx, request, lambda ctx, request, verified: then_with.append(verified))
        assert type(answer) is Unbegun and not answer.done and not then_with
        ((*_, told),) = asked
        told({})
        assert answer.done
        assert then_with[0].guard(WHERE) is GUARD

    asyncio.run(main())


@pytest.mark.parametrize(
    ("code", "is_forgotten"),
    [
        (ErrorCode.invalid_txn_state, True),
        (ErrorCode.transaction_abortable, True),
        (ErrorCode.invalid_producer_epoch, True),
        (ErrorCode.invalid_producer_id_mapping, True),
        # The same batch may come again, and must before those behind it.
        (ErrorCode.network_exception, False),
        (ErrorCode.concurrent_transactions, False),
        (ErrorCode.unknown_topic_or_partition, False),
    ],
)
def test_what_ends_a_transaction_ends_its_verification(code: ErrorCode, is_forgotten: bool) -> None:
    forgotten: list[Any] = []
    verifications = SimpleNamespace(forget=lambda *given: forgotten.append(given))
    partition = SimpleNamespace(
        begin_verification=lambda *given, **named: GUARD,
        log=SimpleNamespace(producers=SimpleNamespace(verifications=verifications)),
    )
    ctx: Any = SimpleNamespace(
        client=SimpleNamespace(permissions=None),
        elements=2,
        header=SimpleNamespace(api_version=11),
        services=SimpleNamespace(
            replicas=SimpleNamespace(unopened=False, partitions={WHERE: partition}),
            config={"transaction.partition.verification.enable": True},
            clock=SimpleNamespace(now_ms=lambda: 0, monotonic_ms=lambda: 0),
            verification=SimpleNamespace(ask=lambda *given: given[-1]({WHERE: code})),
        ),
    )
    request = OneBatch(-1, 5, "t", 0, RECORDS, "tx")
    verified = when_verified(ctx, request, lambda ctx, request, verified: verified)
    with pytest.raises(KafkaError):
        verified.guard(WHERE)
    assert forgotten == ([(7, GUARD)] if is_forgotten else [])
