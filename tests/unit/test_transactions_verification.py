"""What leaders ask of coordinators on other nodes: who is told, when, and what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ottla.coordinators.transactions.verification import TOLD_AT_ONCE, Operation, Verification
from ottla.errors import ErrorCode
from ottla.metadata.image import TRANSACTION_STATE_TOPIC
from ottla.types import TopicPartition

HERE, THERE = 1, 2
WHERE = TopicPartition("t", 0)


class Asked:
    """`Nodes`, whose answers the test gives."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, Any], Callable[[Any], None]]] = []

    def ask(
        self, node_id: int, key: int, version: int, fields: dict[str, Any], answered: Callable[[Any], None]
    ) -> None:
        assert node_id == THERE
        self.requests.append((fields, answered))

    def answer(self, code: ErrorCode = ErrorCode.none) -> None:
        """The oldest request: the same of each partition."""
        fields, answered = self.requests.pop(0)
        results = [
            SimpleNamespace(
                transactional_id=one["transactional_id"],
                topic_results=[
                    SimpleNamespace(
                        name=topic["name"],
                        results_by_partition=[
                            SimpleNamespace(partition_index=index, partition_error_code=int(code))
                            for index in topic["partitions"]
                        ],
                    )
                    for topic in one["topics"]
                ],
            )
            for one in fields["transactions"]
        ]
        answered(SimpleNamespace(error_code=0, results_by_transaction=results))


class Bench:
    def __init__(self) -> None:
        self.nodes = Asked()
        topic = SimpleNamespace(partitions=[SimpleNamespace(leader=THERE)])
        image = SimpleNamespace(topics={TRANSACTION_STATE_TOPIC: topic}, brokers={THERE: None})
        coordinator = SimpleNamespace(partition_for=lambda name: 0)
        self.verification = Verification(
            HERE,
            cast("Any", SimpleNamespace(image=image)),
            cast("Any", coordinator),
            cast("Any", self.nodes),
        )
        self.told: list[tuple[str, dict[TopicPartition, ErrorCode]]] = []

    def ask(self, name: str, epoch: int = 0) -> None:
        def told(errors: Any) -> None:
            self.told.append((name, dict(errors)))
            if name == "raises":
                raise RuntimeError(name)

        self.verification.ask(name, 7, epoch, frozenset([WHERE]), Operation.ADD_PARTITION, told)


def test_who_waits_is_told_some_in_each_turn() -> None:
    async def story() -> None:
        bench = Bench()
        bench.ask("first")
        names = [f"id-{number}" for number in range(2 * TOLD_AT_ONCE + 20)]
        for name in names:
            bench.ask(name)
        # One request at a time goes to a node; the next has all that came meanwhile.
        assert len(bench.nodes.requests) == 1
        bench.nodes.answer()
        assert bench.told == [("first", {})]
        bench.nodes.answer(ErrorCode.producer_fenced)
        fenced = {WHERE: ErrorCode.invalid_producer_epoch}
        for count in (1, 2):
            assert bench.told[1:] == [(name, fenced) for name in names[: count * TOLD_AT_ONCE]]
            await asyncio.sleep(0)
        assert bench.told[1:] == [(name, fenced) for name in names]

    asyncio.run(story())


def test_one_whose_batches_fail_does_not_keep_the_others_from_hearing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story() -> None:
        bench = Bench()
        bench.ask("first")
        for name in ("a", "raises", "b"):
            bench.ask(name)
        bench.nodes.answer()
        bench.nodes.answer()
        assert [name for name, _ in bench.told] == ["first", "a", "raises", "b"]
        # And the node is asked again.
        bench.ask("later")
        assert len(bench.nodes.requests) == 1

    asyncio.run(story())
    assert "transactional id raises: its batches were left" in caplog.text


def test_nobody_is_told_once_it_is_closed() -> None:
    async def story() -> None:
        bench = Bench()
        for number in range(TOLD_AT_ONCE + 2):
            bench.ask(f"id-{number}")
        bench.nodes.answer()
        bench.nodes.answer()
        count = len(bench.told)
        bench.verification.close()
        await asyncio.sleep(0)
        assert len(bench.told) == count < TOLD_AT_ONCE + 2

    asyncio.run(story())


def test_a_retry_takes_the_place_of_what_still_waits() -> None:
    async def story() -> None:
        bench = Bench()
        bench.ask("first")
        bench.ask("a")
        bench.ask("a")
        assert bench.told == [("a", {WHERE: ErrorCode.network_exception})]
        bench.ask("a", epoch=1)
        assert bench.told[1:] == [("a", {WHERE: ErrorCode.invalid_producer_epoch})]
        bench.ask("a", epoch=0)
        assert bench.told[2:] == [("a", {WHERE: ErrorCode.invalid_producer_epoch})]

    asyncio.run(story())
