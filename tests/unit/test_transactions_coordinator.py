"""The transaction coordinator's shell: producer ids that have to be reserved, markers, its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from coordinators_support import ManualClock, MemoryLog, settle
from transactions_support import T0, T1

from ottla.coordinators.transactions.coordinator import TransactionCoordinator
from ottla.coordinators.transactions.metadata import TV_2
from ottla.coordinators.transactions.requests import AddRequest, EndRequest, InitRequest, MarkersToSend
from ottla.coordinators.transactions.settings import TransactionConfig
from ottla.errors import ErrorCode, KafkaError
from ottla.types import TopicPartition


class Ids:
    """Producer ids in blocks of two."""

    def __init__(self) -> None:
        self.free: list[int] = []
        self.next = 0
        self.error: KafkaError | None = None

    @property
    def is_at_hand(self) -> bool:
        return bool(self.free)

    def at_once(self) -> int | None:
        return self.free.pop(0) if self.free else None

    async def reserve(self) -> None:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.free += [self.next, self.next + 1]
        self.next += 2


class Bench:
    def __init__(self) -> None:
        self.log = MemoryLog()
        self.clock = ManualClock()
        self.ids = Ids()
        self.sent: list[
            tuple[MarkersToSend, int, Callable[[set[TopicPartition]], None], Callable[[], bool]]
        ] = []
        self.coordinator = self.made()

    def made(self) -> TransactionCoordinator:
        config = TransactionConfig(transaction_state_log_num_partitions=1)
        return TransactionCoordinator(self.log, self.clock, config, self.ids, self)

    def send(self, *asked: Any) -> None:
        self.sent.append(asked)

    async def init(self, name: str = "tx") -> tuple[ErrorCode, int, int]:
        return await self.coordinator.init(InitRequest(name, 60_000))

    async def begin(self, *partitions: TopicPartition) -> tuple[int, int]:
        _, producer_id, epoch = await self.init()
        asked = AddRequest("tx", producer_id, epoch, frozenset(partitions), TV_2)
        assert await self.coordinator.add(asked) == ErrorCode.none
        return producer_id, epoch

    async def end(self, producer: tuple[int, int]) -> ErrorCode:
        answer = await self.coordinator.end(EndRequest("tx", *producer, True, TV_2))
        return answer.error

    def state(self) -> str:
        return self.coordinator.describe("tx").state


def story(tell: Callable[[Bench], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def test() -> None:
        async def main() -> None:
            bench = Bench()
            await bench.coordinator.load(0, 4)
            await tell(bench)
            bench.coordinator.close()

        asyncio.run(main())

    return test


@story
async def test_producer_ids_are_reserved_before_somebody_needs_one(bench: Bench) -> None:
    found = [(await bench.init(f"tx-{number}"))[1] for number in range(5)]
    assert found == [0, 1, 2, 3, 4]


@story
async def test_without_producer_ids_clients_are_told_so(bench: Bench) -> None:
    bench.ids.error = KafkaError(ErrorCode.coordinator_not_available)
    assert (await bench.init())[0] == ErrorCode.coordinator_not_available
    bench.ids.error = None
    assert await bench.init() == (ErrorCode.none, 0, 0)


@story
async def test_who_has_a_producer_id_waits_for_none(bench: Bench) -> None:
    assert await bench.init() == (ErrorCode.none, 0, 0)
    bench.ids.error = KafkaError(ErrorCode.coordinator_not_available)
    assert await bench.init() == (ErrorCode.none, 0, 1)


@story
async def test_markers_go_out_with_the_coordinators_epoch_and_come_back(bench: Bench) -> None:
    producer = await bench.begin(T0, T1)
    assert await bench.end(producer) == ErrorCode.none
    ((markers, epoch, done, is_wanted),) = bench.sent
    assert epoch == 4
    assert (markers.transactional_id, markers.partitions) == ("tx", {T0, T1})
    assert is_wanted()
    done({T0})
    assert bench.state() == "PrepareCommit"
    done({T1})
    await settle()
    assert bench.state() == "CompleteCommit"


@story
async def test_who_takes_over_sends_them_again_and_the_one_before_no_more(bench: Bench) -> None:
    producer = await bench.begin(T0)
    await bench.end(producer)
    ((_, _, done, is_wanted),) = bench.sent
    bench.coordinator.unload(0, 5)
    assert not is_wanted()
    done({T0})
    await settle()
    await bench.coordinator.load(0, 6)
    (_, (markers, epoch, done_again, _)) = bench.sent
    assert (epoch, markers.producer_epoch) == (6, 1)
    done_again({T0})
    await settle()
    assert bench.state() == "CompleteCommit"
    assert await bench.end(producer) == ErrorCode.none


@story
async def test_ids_of_partitions_that_are_led_elsewhere(bench: Bench) -> None:
    bench.coordinator.unload(0)
    asked = AddRequest("tx", 1, 0, frozenset({T0}), TV_2)
    for ask in (
        bench.init,
        lambda: bench.coordinator.add(asked),
        lambda: bench.coordinator.end(EndRequest("tx", 1, 0, True, TV_2)),
    ):
        with pytest.raises(KafkaError) as refused:
            await ask()
        assert refused.value.code is ErrorCode.not_coordinator
    assert bench.coordinator.verify(asked) == {T0: ErrorCode.not_coordinator}
    assert bench.coordinator.describe("tx").error is ErrorCode.not_coordinator
    assert list(bench.coordinator.transactions()) == []


@story
async def test_what_is_wrong_whoever_coordinates(bench: Bench) -> None:
    bench.coordinator.unload(0)
    invalid = ErrorCode.invalid_request
    assert (await bench.init(""))[0] is invalid
    nobody = AddRequest("", 1, 0, frozenset({T0}), TV_2)
    assert await bench.coordinator.add(nobody) is invalid
    assert bench.coordinator.verify(nobody) == {T0: invalid}
    assert (await bench.coordinator.end(EndRequest("", 1, 0, True, TV_2))).error is invalid
    assert bench.coordinator.describe("").error is invalid


@story
async def test_many_ids_are_loaded(bench: Bench) -> None:
    for number in range(1_200):
        await bench.init(f"tx-{number}")
    bench.coordinator.close()
    bench.coordinator = bench.made()
    await bench.coordinator.load(0, 5)
    assert len(list(bench.coordinator.transactions())) == 1_200
    assert bench.coordinator.partition_count("tx-7") == 0


@story
async def test_deleting_its_topic_forgets_all_ids(bench: Bench) -> None:
    await bench.init()
    bench.coordinator.on_topics_deleted([("other", None)])  # type: ignore[list-item]
    assert bench.state() == "Empty"
    bench.coordinator.on_topics_deleted([("__transaction_state", None)])  # type: ignore[list-item]
    assert bench.coordinator.describe("tx").error is ErrorCode.not_coordinator
