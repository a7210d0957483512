"""DescribeTransactions: one of many partitions that is asked for many times over."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from client_support import let_in

from ottla.broker.api.transactions import describe_transactions
from ottla.broker.large import AT_ONCE_MAX, USUAL_LENGTH_MAX
from ottla.broker.request import RequestContext
from ottla.coordinators.transactions.requests import DescribedTransaction
from ottla.errors import ErrorCode
from ottla.types import TopicPartition
from ottla.wire.apis import BY_NAME
from ottla.wire.messages import RequestHeader


class Transactions:
    """Each of two partitions."""

    def __init__(self) -> None:
        self.described = 0

    def partition_count(self, transactional_id: str) -> int:
        return 2

    def describe(self, transactional_id: str) -> DescribedTransaction:
        self.described += 1
        partitions = frozenset({TopicPartition("t", 0), TopicPartition("t", 1)})
        return DescribedTransaction(transactional_id, ErrorCode.none, "Ongoing", partitions=partitions)


def context(services: Any, elements: int) -> RequestContext:
    header = RequestHeader(BY_NAME["DescribeTransactions"].key, 0, 1, "client", 0)
    return RequestContext(header, let_in(), services, elements)


@pytest.mark.parametrize("count", [AT_ONCE_MAX // 2, AT_ONCE_MAX // 2 + 1])
def test_what_is_much_is_described_when_its_turn_comes(count: int) -> None:
    transactions = Transactions()
    ctx = context(SimpleNamespace(transactions=transactions), count)
    request = SimpleNamespace(transactional_ids=["tx"] * count)
    answer = describe_transactions.handle(ctx, request)
    if isinstance(answer, Coroutine):
        answer.close()
        assert count > AT_ONCE_MAX // 2
        assert not transactions.described
    else:
        assert transactions.described == count == len(answer["transaction_states"])


def test_one_long_id_does_not_have_the_partitions_of_the_others_gone_through_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []
    written: list[Any] = []

    async def in_pieces(ctx: Any, fields: Any) -> None:
        assert not made
        written.extend(fields["transaction_states"])

    def fields(ctx: RequestContext, described: DescribedTransaction) -> str:
        made.append(described.transactional_id)
        return described.transactional_id

    paused: list[int] = []

    async def pause() -> None:
        paused.append(transactions.described)

    monkeypatch.setattr(describe_transactions, "in_pieces", in_pieces)
    monkeypatch.setattr(describe_transactions, "_fields", fields)
    transactions = Transactions()
    turn = SimpleNamespace(deadline_ms=lambda: 0, is_over=lambda ends_ms: True)
    services = SimpleNamespace(transactions=transactions, slices=SimpleNamespace(pause=pause), turn=turn)
    ids = ["x" * (USUAL_LENGTH_MAX + 1), *["tx"] * (AT_ONCE_MAX - 1)]
    ctx = context(services, len(ids))
    answer: Any = describe_transactions.handle(ctx, SimpleNamespace(transactional_ids=ids))
    asyncio.run(answer)
    assert written == made == ids
    # Each is looked up once; and others have their turn where that takes long.
    assert paused == [1, 2]
