"""DescribeTransactions: one of many partitions that is asked for many times over."""

from __future__ import annotations

from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from ottla.broker.api.transactions import describe_transactions
from ottla.broker.large import AT_ONCE_MAX
from ottla.coordinators.transactions.requests import DescribedTransaction
from ottla.errors import ErrorCode
from ottla.types import TopicPartition


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


@pytest.mark.parametrize("count", [AT_ONCE_MAX // 2, AT_ONCE_MAX // 2 + 1])
def test_what_is_much_is_described_when_its_turn_comes(count: int) -> None:
    transactions = Transactions()
    ctx: Any = SimpleNamespace(services=SimpleNamespace(transactions=transactions), elements=count)
    request = SimpleNamespace(transactional_ids=["tx"] * count)
    answer = describe_transactions.handle(ctx, request)
    if isinstance(answer, Coroutine):
        answer.close()
        assert count > AT_ONCE_MAX // 2
        assert not transactions.described
    else:
        assert transactions.described == count == len(answer["transaction_states"])
