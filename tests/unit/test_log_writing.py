"""Large batches that a thread writes: nobody finds them before, and what comes meanwhile waits for them."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from log_support import NOW_MS, append, batch, open_log, values
from memory_disk import MemoryDisk
from replication_support import make_partition

from measuring import HANG_S
from ottla.env.disk import Begun, RealDisk
from ottla.errors import ErrorCode, KafkaError
from ottla.log.files import InPlace
from ottla.log.log import Log
from ottla.log.settings import LogConfig
from ottla.log.validation import Appended
from ottla.log.writing import LET_IN_AT_ONCE_MAX
from ottla.metadata.image import PartitionState
from ottla.types import TopicPartition

NO_SPACE = OSError(errno.ENOSPC, "No space left on device")
LATER_MS = NOW_MS + 10_000


class Held(InPlace):
    """Writes wait until the test, or whatever needs them, has them made."""

    def __init__(self, disk: MemoryDisk) -> None:
        self.disk = disk
        disk.held = True

    def begin_write(self, work: Callable[[], None], done: Callable[[], None]) -> Begun:
        return self.disk.begin_write(work, done)


class Bench:
    """A log whose first batch is there, and the errors that those who wait for the second are told."""

    def __init__(self, config: LogConfig | None = None, **options: Any) -> None:
        self.disk = MemoryDisk()
        self.log = open_log(self.disk, config, background=Held(self.disk), **options)
        self.told: list[KafkaError | None] = []
        append(self.log, "a")

    def begin(self, *content: str, epoch: int = 0, **options: Any) -> Appended:
        return self.log.append(
            batch(*content, **options), leader_epoch=epoch, now_ms=NOW_MS, then=self.told.append
        )

    def make(self) -> None:
        self.disk.begun[0].make()

    def reopened(self) -> list[bytes | None]:
        return values(open_log(self.disk, self.log.config))

    def log_bytes(self) -> int:
        return sum(len(i.data) for path, i in self.disk.files.items() if path.endswith(".log"))


def test_nobody_finds_a_batch_before_it_is_written() -> None:
    bench = Bench()
    log = bench.log
    before = log.log_end_offset, log.size_bytes, log.latest_epoch, log.unflushed_messages
    numbered = {"producer_id": 7, "producer_epoch": 0, "base_sequence": 0}
    begun = bench.begin("b", "c", epoch=4, **numbered)
    assert (begun.base_offset, begun.last_offset) == (1, 2)
    assert (log.log_end_offset, log.size_bytes, log.latest_epoch, log.unflushed_messages) == before
    assert log.producers.get(7) is None and values(log) == [b"a"] and bench.told == []
    # A flush says nothing of it.
    log.flush()
    assert log.recovery_point == 1
    bench.make()
    assert bench.told == [None] and log.writing is None
    assert (log.log_end_offset, log.latest_epoch, log.recovery_point) == (3, 4, 1)
    assert log.producers.get(7) is not None and log.size_bytes == bench.log_bytes()
    assert values(log) == [b"a", b"b", b"c"] == bench.reopened()
    assert append(log, "d").base_offset == 3


def test_a_failed_write_takes_back_the_numbers_and_the_bytes() -> None:
    bench = Bench()
    bench.disk.capacity = sum(len(inode.data) for inode in bench.disk.files.values()) + 10
    size = bench.log.size_bytes
    assert bench.begin("b" * 500).base_offset == 1
    bench.make()
    assert [error.code for error in bench.told if error] == [ErrorCode.kafka_storage_error]
    assert not bench.log.taken
    assert bench.log.log_end_offset == 1 and bench.log.size_bytes == bench.log_bytes() == size
    bench.disk.capacity = 1 << 40
    assert append(bench.log, "c").base_offset == 1
    assert values(bench.log) == [b"a", b"c"] == bench.reopened()


def test_what_cannot_be_begun_is_refused_at_once() -> None:
    bench = Bench()
    bench.disk.fail_with["append"] = NO_SPACE
    bench.disk.fail_with["truncate"] = NO_SPACE
    with pytest.raises(KafkaError):
        append(bench.log, "b")
    with pytest.raises(KafkaError) as raised:
        bench.begin("c")
    assert raised.value.code is ErrorCode.kafka_storage_error
    assert bench.told == [] and bench.log.writing is None and not bench.disk.begun


def test_a_repeated_batch_is_not_written_again() -> None:
    bench = Bench()
    numbered = {"producer_id": 7, "producer_epoch": 0, "base_sequence": 0}
    bench.begin("b", **numbered)
    bench.make()
    again = bench.begin("b", **numbered)
    assert again.duplicate and again.base_offset == 1
    assert bench.log.writing is None and bench.told == [None]


def follower_appends(log: Log) -> None:
    source = open_log(MemoryDisk())
    append(source, "x", "y")
    append(source, "d")
    piece = source.read(2, 1 << 20, end_offset=3, min_one=True)
    assert piece is not None
    log.append_as_follower(piece.file.read(piece.position, piece.size), now_ms=NOW_MS)


# What is done while "b" is being written behind "a", and what the log holds after it.
MEANWHILE: dict[str, tuple[Callable[[Log], object], list[bytes]]] = {
    "append": (lambda log: append(log, "c"), [b"a", b"b", b"c"]),
    "append as a follower": (follower_appends, [b"a", b"b", b"d"]),
    "roll": (lambda log: log.roll(NOW_MS), [b"a", b"b"]),
    "truncate before it": (lambda log: log.truncate_to(1, NOW_MS), [b"a"]),
    "truncate behind it": (lambda log: log.truncate_to(2, NOW_MS), [b"a", b"b"]),
    "truncate fully": (lambda log: log.truncate_fully_to(1, NOW_MS), []),
    "begin where the leader does": (lambda log: log.follow_log_start(9, NOW_MS), []),
    "retention": (lambda log: log.apply_retention(LATER_MS), []),
    "retention that keeps it": (lambda log: log.apply_retention(LATER_MS, 1), [b"a", b"b"]),
    "close": (lambda log: log.close(), [b"a", b"b"]),
    "settle": (lambda log: log.settle(), [b"a", b"b"]),
}


@pytest.mark.parametrize("what", MEANWHILE)
def test_whatever_concerns_the_end_waits_for_it(what: str) -> None:
    act, expected = MEANWHILE[what]
    bench = Bench(LogConfig(retention_ms=1_000))
    bench.begin("b")
    (begun,) = bench.disk.begun
    act(bench.log)
    assert bench.told == [None] and bench.log.writing is None
    # The thread's own report comes late.
    begun.make()
    assert bench.told == [None]
    if what != "close":
        assert values(bench.log) == expected
    assert bench.reopened() == expected


def test_a_failed_write_that_something_waits_for_does_not_stop_it() -> None:
    bench = Bench()
    bench.begin("b" * 500)
    bench.disk.capacity = bench.log_bytes() + 1_000
    bench.disk.fail_with["append"] = NO_SPACE
    bench.log.truncate_to(1, NOW_MS)
    assert [error.code for error in bench.told if error] == [ErrorCode.kafka_storage_error]
    bench.disk.fail_with.clear()
    assert append(bench.log, "c").base_offset == 1
    assert bench.reopened() == [b"a", b"c"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_partition_that_goes_does_not_get_it(fails: bool) -> None:
    bench = Bench()
    bench.begin("b")
    if fails:
        bench.disk.fail_with["append"] = NO_SPACE
    bench.log.retire()
    assert [error.code for error in bench.told if error] == [ErrorCode.unknown_topic_or_partition]
    assert not bench.disk.begun and bench.log.writing is None and bench.log.log_end_offset == 1


def test_an_end_as_by_a_crash_leaves_what_a_crash_may() -> None:
    bench = Bench()
    bench.begin("b")
    bench.log.abandon()
    assert [error is not None for error in bench.told] == [True] and not bench.disk.begun
    assert bench.reopened() in ([b"a"], [b"a", b"b"])


def test_one_that_does_not_fit_begins_a_segment_first() -> None:
    bench = Bench(LogConfig(segment_bytes=700))
    bench.begin("b" * 600)
    assert [segment.base_offset for segment in bench.log.segments] == [0, 1]
    bench.make()
    assert bench.told == [None] and values(bench.log) == [b"a", b"b" * 600] == bench.reopened()


def test_a_file_that_was_opened_again_meanwhile_is_not_gone_on_with(tmp_path: Path) -> None:
    """Few files are open at a time: the log's may be let go of, and opened again for a reader."""
    log = open_log(RealDisk(), directory=str(tmp_path / "t-0"))
    append(log, "a")
    told: list[KafkaError | None] = []
    log.append(batch("b"), leader_epoch=0, now_ms=NOW_MS, then=told.append)
    log.segments[-1].let_go()
    assert values(log) == [b"a"]
    log.settle()
    append(log, "c")
    assert told == [None] and values(log) == [b"a", b"b", b"c"]
    assert values(open_log(RealDisk(), directory=str(tmp_path / "t-0"))) == [b"a", b"b", b"c"]


def test_a_role_does_not_change_before_it_is_written() -> None:
    """Records of an epoch are all before those of the next, where its leader says that it begins."""

    def state(leader: int, epoch: int, *isr: int) -> PartitionState:
        return PartitionState(
            leader=leader, leader_epoch=epoch, partition_epoch=epoch, replicas=(1, 2), isr=isr or (1,)
        )

    disk = MemoryDisk()
    it = make_partition(disk, state(1, 0), background=Held(disk))
    for epoch, leader in ((1, 1), (2, 2), (3, 1)):
        told: list[KafkaError | None] = []
        if it.leading is not None:
            it.append(batch("v"), now_ms=NOW_MS, then=told.append)
            assert it.log.writing is not None and told == []
            end = it.log.log_end_offset
            it.apply(state(leader, epoch))
            assert told == [None] and it.log.log_end_offset == end + 1
        else:
            it.apply(state(leader, epoch))
        if it.leading is not None:
            assert it.leading.epoch_start_offset == it.log.log_end_offset
    it.append(batch("v"), now_ms=NOW_MS, then=told.append)
    # Who is in sync is another matter, and a change of that does not wait for a disk.
    it.apply(state(1, 3, 1, 2))
    assert it.log.writing is not None and it.log.log_end_offset == 2
    it.resign()
    assert it.log.writing is None and it.log.log_end_offset == 3


def test_waiters_and_commits_are_told_once_it_is_written() -> None:
    disk = MemoryDisk()
    alone = PartitionState(leader=1, leader_epoch=0, partition_epoch=0, replicas=(1,), isr=(1,))
    it = make_partition(disk, alone, background=Held(disk))
    woken: list[str] = []
    it.add_waiter(lambda: woken.append("consumer"))
    it.add_waiter(lambda: woken.append("follower"), follower=True)
    it.append(batch("v"), now_ms=NOW_MS, then=lambda error: woken.append(f"producer {error}"))
    assert woken == [] and it.high_watermark == 0
    assert it.read_uncommitted(0, 1_000, min_one=True) is None
    disk.begun[0].make()
    assert woken == ["consumer", "follower", "producer None"] and it.high_watermark == 1
    # A write that fails wakes nobody.
    woken.clear()
    it.append(batch("w"), now_ms=NOW_MS, then=lambda error: woken.append("failed" if error else ""))
    disk.fail_with["append"] = NO_SPACE
    disk.begun[0].make()
    assert woken == ["failed"] and it.high_watermark == 1


@pytest.mark.parametrize("where", ["append", "told"])
def test_an_unexpected_failure_leaves_nobody_waiting(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For memory, say: the log goes on behind what is known to be written."""
    bench = Bench()
    told: list[KafkaError | None] = []

    def hears(error: KafkaError | None) -> None:
        told.append(error)
        if where == "told":
            raise MemoryError

    def fails(buffers: Any) -> int:
        monkeypatch.undo()
        raise MemoryError

    def let_in(_: None) -> None:
        append(bench.log, "c")
        raise MemoryError

    async def body() -> None:
        bench.log.append(batch("b"), leader_epoch=0, now_ms=NOW_MS, then=hears)
        assert bench.log.writing is not None
        bench.log.wait(let_in, is_large=False)
        bench.log.wait(lambda _: append(bench.log, "d"), is_large=False)
        if where == "append":
            monkeypatch.setattr(bench.log.writing.file, "append", fails)
        bench.make()
        await asyncio.sleep(0)
        assert bench.log.writing is None and not bench.log.taken

    asyncio.run(body())
    assert [error is not None for error in told] == [where == "append"]
    expected = [b"a", *([b"b"] if where == "told" else []), b"c", b"d"]
    assert values(bench.log) == expected == bench.reopened()


class Queue:
    """Producers with one batch each, who stand in line while the log is taken, and what became of them."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.let_in: list[int] = []
        self.appended: list[int] = []
        self.loop = asyncio.get_running_loop()

    def comes(self, number: int, *, is_large: bool = False) -> None:
        """As a request does: it goes on in a callback of the loop, when it is let in."""
        if not self.bench.log.taken:
            self.append(number, is_large)
            return

        def let_in(_: None) -> None:
            self.let_in.append(number)
            self.loop.call_soon(self.append, number, is_large)

        self.bench.log.wait(let_in, is_large=is_large)

    def append(self, number: int, is_large: bool) -> None:
        assert self.bench.log.writing is None, "nobody is let in to wait again"
        self.appended.append(number)
        if is_large:
            self.bench.begin(str(number))
        else:
            append(self.bench.log, str(number))

    async def goes_on(self) -> int:
        """Let the loop turn until all have appended, and finish writes; the most that appended in a turn."""
        most = 0
        for _ in range(200):
            before = len(self.appended)
            await asyncio.sleep(0)
            most = max(most, len(self.appended) - before)
            if len(self.appended) == before and self.bench.log.writing is not None:
                self.bench.make()
        return most

    def content(self) -> list[int]:
        return [int(value or b"") for value in values(self.bench.log)[1:]]


@pytest.mark.parametrize("large_every", [3_001, 500, 7])
def test_thousands_who_wait_are_let_in_once_in_order_and_some_at_a_time(large_every: int) -> None:
    count = 3_000 if large_every > 7 else 600

    async def body() -> None:
        queue = Queue()
        queue.comes(0, is_large=True)
        for number in range(1, count):
            queue.comes(number, is_large=number % large_every == 0)
        assert queue.bench.log.waiting == count - 1
        queue.bench.make()
        most = await queue.goes_on()
        assert 0 < most <= LET_IN_AT_ONCE_MAX
        assert queue.let_in == list(range(1, count)), "each once"
        assert queue.content() == queue.appended == list(range(count))
        assert not queue.bench.log.taken and not queue.bench.log.waiting

    asyncio.run(body())


def test_who_comes_while_others_are_let_in_comes_behind_them() -> None:
    async def body() -> None:
        queue = Queue()
        queue.comes(0, is_large=True)
        for number in range(1, LET_IN_AT_ONCE_MAX + 2):
            queue.comes(number)
        queue.bench.make()
        await asyncio.sleep(0)
        assert queue.bench.log.taken and queue.bench.log.writing is None
        queue.comes(1_000)
        await queue.goes_on()
        assert queue.content() == [*range(LET_IN_AT_ONCE_MAX + 2), 1_000]

    asyncio.run(body())


def test_who_waits_is_let_in_where_the_log_is_given_up() -> None:
    """To find that out: it is another log's matter, or nobody's."""

    async def body() -> None:
        queue = Queue()
        queue.comes(0, is_large=True)
        let_in: list[None] = []
        for number in range(LET_IN_AT_ONCE_MAX + 1):
            queue.bench.log.wait(let_in.append, is_large=number == 0)
        queue.bench.log.abandon()
        for _ in range(4):
            await asyncio.sleep(0)
        assert len(let_in) == LET_IN_AT_ONCE_MAX + 1 and not queue.bench.log.taken

    asyncio.run(body())


# -- with threads ------------------------------------------------------------------------------------------


class Slow(RealDisk):
    """A disk that keeps its writes waiting in their threads."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.begun = threading.Semaphore(0)

    def begin_write(self, work: Callable[[], None], done: Callable[[], None]) -> Begun:
        def slowly() -> None:
            self.begun.release()
            assert self.go_on.wait(30)
            work()

        return super().begin_write(slowly, done)


def on_real_disk(body: Callable[[Slow], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        disk = Slow()
        try:
            await asyncio.wait_for(body(disk), HANG_S)
        finally:
            disk.go_on.set()
            disk.close()

    asyncio.run(main())


class InThreads(InPlace):
    def __init__(self, disk: RealDisk) -> None:
        self.disk = disk

    def begin_write(self, work: Callable[[], None], done: Callable[[], None]) -> Begun:
        return self.disk.begin_write(work, done)


def make_log(disk: RealDisk, path: Path, index: int) -> Log:
    return Log.open(
        disk, str(path / f"t-{index}"), LogConfig(), topic_partition=TopicPartition("t", index),
        now_ms=NOW_MS, clean=False, background=InThreads(disk),
    )  # fmt: skip


def test_a_thread_writes_while_the_loop_goes_on(tmp_path: Path) -> None:
    async def body(disk: Slow) -> None:
        log = make_log(disk, tmp_path, 0)
        told: asyncio.Future[KafkaError | None] = asyncio.get_running_loop().create_future()
        log.append(batch("b"), leader_epoch=0, now_ms=NOW_MS, then=told.set_result)
        await asyncio.to_thread(disk.begun.acquire)
        await asyncio.sleep(0)
        assert not told.done() and log.log_end_offset == 0
        disk.go_on.set()
        assert await told is None and log.log_end_offset == 1
        log.close()

    on_real_disk(body)


@pytest.mark.parametrize("threads", [0, 1])
def test_where_no_thread_can_be_started_it_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """The system may allow no more of them. An executor has queued the work by then, and one of its threads
    that is there comes to it later: it must not write it once more."""

    async def body(disk: Slow) -> None:
        logs = [make_log(disk, tmp_path, index) for index in range(threads + 1)]
        told: list[KafkaError | None] = []

        def begin(log: Log) -> None:
            log.append(batch("b"), leader_epoch=0, now_ms=NOW_MS, then=told.append)

        for log in logs[:threads]:
            begin(log)
            await asyncio.to_thread(disk.begun.acquire)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", cannot_start)
            begin(logs[-1])
        assert told == []
        disk.go_on.set()
        while len(told) <= threads:
            await asyncio.sleep(0.001)
        disk.close()
        assert told == [None] * (threads + 1)
        for log in logs:
            append(log, "c")
            assert values(log) == [b"b", b"c"]
            assert values(open_log(disk, directory=log.directory)) == [b"b", b"c"]

    on_real_disk(body)


def cannot_start(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_what_no_thread_has_come_to_is_written_by_who_waits(tmp_path: Path) -> None:
    """As many as there are threads hang; others are not held up by them."""

    async def body(disk: Slow) -> None:
        logs = [make_log(disk, tmp_path, index) for index in range(3)]
        told: list[int] = []
        for index, log in enumerate(logs):
            log.append(
                batch("b"), leader_epoch=0, now_ms=NOW_MS, then=lambda _, index=index: told.append(index)
            )
        await asyncio.to_thread(disk.begun.acquire)
        await asyncio.to_thread(disk.begun.acquire)
        disk.go_on.set()
        logs[2].settle()
        assert 2 in told and values(logs[2]) == [b"b"]
        for log in logs:
            log.close()
        assert sorted(told) == [0, 1, 2]
        await asyncio.sleep(0.01)
        assert sorted(told) == [0, 1, 2]

    on_real_disk(body)
