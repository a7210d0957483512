"""Partitions that are to be on this node and are not open yet.

Each has its turn, some at a time. A request that names one before that need not wait for the others: who may
wait has it opened off the event loop (``open``), who may not at once (``get``).
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Protocol
from uuid import UUID

from ottla.env.clock import Clock
from ottla.errors import ErrorCode, KafkaError
from ottla.log.manager import LogManager
from ottla.log.new_folders import NewFolder
from ottla.log.settings import LogConfig
from ottla.metadata.image import TopicImage
from ottla.replication.attempts import attempt
from ottla.replication.partition import Partition
from ottla.types import TopicPartition

log = logging.getLogger(__name__)

# Partitions that are opened in one turn of the event loop, a quarter of a millisecond each where the disk is
# fast; where it is not, no more once so much time is over. As many are made together in a thread.
OPENED_AT_ONCE_MAX = 20
# Partitions of which it is looked up in one turn whether they have to be: some microseconds each.
LOOKED_AT_ONCE_MAX = 500
OPENED_FOR_MS_MAX = 5
# A partition that could not be opened is tried again after so long; where it takes long to find that out,
# since all of its log is read, after so many times as long.
OPENED_AGAIN_AFTER_MS = 1_000
OPENED_AGAIN_AFTER_TIMES = 50

Key = tuple[str, int]
# By its topic's id: its name may be another topic's by the time that it has its turn.
Unopened = tuple[UUID, int]


class Host(Protocol):
    """Who has the partitions that are open."""

    stopping: bool

    @property
    def partitions(self) -> Mapping[Key, Partition]: ...

    def get(self, topic: str, index: int) -> Partition: ...

    def exists(self, topic_id: UUID) -> bool:
        """Whether there is such a topic."""
        ...

    def absent(self, name: str, index: int) -> TopicImage:
        """The topic of a partition that is to be here. KafkaError as ``get``."""
        ...

    def readable_config(self, topic: TopicImage) -> LogConfig | None:
        """What its logs are configured with; None where that cannot be understood."""
        ...

    def make(self, topic: TopicImage, index: int) -> Partition:
        """Open a partition, or raise whatever stands in the way."""
        ...

    def hand_over(self, topic: TopicImage, index: int) -> None:
        """Have another node lead what cannot be opened."""
        ...


class Openings:
    """Those that have not had their turn, and those that failed."""

    def __init__(self, host: Host, logs: LogManager, clock: Clock) -> None:
        self._host = host
        self._logs = logs
        self._clock = clock
        # Each once, however often its topic changes meanwhile.
        self._waiting: OrderedDict[Unopened, TopicImage] = OrderedDict()
        # Those that the disk could not take, to be tried again from time to time.
        self._failing: dict[Unopened, TopicImage] = {}
        # Why they could not, and when they may be tried again.
        self._refused: dict[Key, tuple[str, int]] = {}
        # What goes on whether who asked for it still waits or not.
        self._tasks: dict[asyncio.Task[None], None] = {}
        # Opens those that wait; None: nothing does.
        self._at_work: asyncio.Task[None] | None = None

    @property
    def pending(self) -> bool:
        """Whether there may be partitions that are not open."""
        return bool(self._waiting or self._failing or self._at_work or self._tasks)

    @property
    def refused_count(self) -> int:
        """How many could not be opened."""
        return len(self._refused)

    def add(self, topic: TopicImage, index: int) -> None:
        self._waiting[topic.topic_id, index] = topic

    def _next(self) -> tuple[TopicImage, int]:
        (_, index), topic = self._waiting.popitem(last=False)
        return topic, index

    def all_at_once(self) -> None:
        """Open all: the node starts."""
        while self._waiting:
            self._try_to_open(*self._next())

    def some(self) -> None:
        """Open so many that other clients do not have to wait; the rest soon, off the event loop."""
        ends_ms = self._clock.monotonic_ms() + OPENED_FOR_MS_MAX
        for _ in range(min(OPENED_AT_ONCE_MAX, len(self._waiting))):
            (topic_id, index), topic = self._waiting.popitem(last=False)
            if self._logs.must_erase(TopicPartition(topic.name, index)):
                # In a thread, as all of the rest.
                self._waiting[topic_id, index] = topic
                break
            self._try_to_open(topic, index)
            if self._clock.monotonic_ms() >= ends_ms:
                break
        if self._waiting and not self._host.stopping:
            self._clock.call_later(0, self._go_on)

    def _go_on(self) -> None:
        if self._waiting and self._at_work is None:
            self._at_work = asyncio.ensure_future(self._open_rest())

    async def _open_rest(self) -> None:
        try:
            while self._waiting and not self._host.stopping:
                some = [self._next() for _ in range(min(OPENED_AT_ONCE_MAX, len(self._waiting)))]
                await self.open((topic.name, index) for topic, index in some)
                ends_ms = self._clock.monotonic_ms() + OPENED_FOR_MS_MAX
                for topic, index in some:
                    # Those that are open are passed over; the others are no new ones, or have failed.
                    self._try_to_open(topic, index)
                    if self._clock.monotonic_ms() >= ends_ms:
                        await asyncio.sleep(0)
                        ends_ms = self._clock.monotonic_ms() + OPENED_FOR_MS_MAX
                await asyncio.sleep(0)
        finally:
            self._at_work = None

    async def finish(self) -> None:
        """Wait until all have had their turn; those that failed are not waited for."""
        self._go_on()
        if self._at_work is not None:
            await asyncio.wait({self._at_work})

    def try_again(self) -> None:
        """Those that failed: by now the disk may have room."""
        if self._failing:
            failing, self._failing = self._failing, {}
            self._waiting.update(failing)
            self.some()

    def forget(self, name: str, index: int) -> None:
        """A partition is to be here no more: it does not matter why it could not be opened."""
        self._refused.pop((name, index), None)

    def _try_to_open(self, topic: TopicImage, index: int) -> None:
        try:
            if self._host.exists(topic.topic_id):
                self._host.get(topic.name, index)
        except KafkaError as error:
            # Otherwise it is gone again. Clients may not ask for a partition that is led elsewhere.
            if error.code is ErrorCode.kafka_storage_error:
                self._failing[topic.topic_id, index] = topic
        except Exception:
            log.exception("%s-%d cannot be opened", topic.name, index)
            self._failing[topic.topic_id, index] = topic

    # ------------------------------------------------------------ one that is asked for

    def get(self, name: str, index: int) -> Partition:
        """Open a partition that is not. KafkaError as ``Host.absent``; KAFKA_STORAGE_ERROR where it cannot be
        made, or could not a moment ago."""
        topic = self._host.absent(name, index)
        why, again_ms = self._refused.get((name, index), ("", 0))
        if self._clock.monotonic_ms() < again_ms:
            raise KafkaError(ErrorCode.kafka_storage_error, why)
        begun_ms = self._clock.monotonic_ms()
        try:
            partition = self._host.make(topic, index)
        except Exception as error:
            refusal = self._cannot_open(name, index, error, begun_ms)
            attempt(partial(self._host.hand_over, topic, index), "%s-%d cannot be handed over", name, index)
            raise refusal from error
        self._refused.pop((name, index), None)
        return partition

    def _cannot_open(self, name: str, index: int, error: Exception, begun_ms: int) -> KafkaError:
        """Whatever lies in one partition's folder, the others serve. Says why, once while it stays so."""
        message = f"{name}-{index} cannot be opened: {error}"
        before, _ = self._refused.get((name, index), ("", 0))
        now_ms = self._clock.monotonic_ms()
        pause_ms = max(OPENED_AGAIN_AFTER_MS, OPENED_AGAIN_AFTER_TIMES * (now_ms - begun_ms))
        self._refused[name, index] = message, now_ms + pause_ms
        if message != before:
            expected = isinstance(error, OSError | KafkaError)
            log.error("%s", message, exc_info=None if expected else error)
        return KafkaError(ErrorCode.kafka_storage_error, message)

    # ------------------------------------------------------------ several, off the event loop

    async def open(self, wanted: Iterable[Key]) -> None:
        """Have partitions open that are not, and are to be here: their folders are made in a thread.

        Which of them could be is not told: ``get`` knows, as it does of what is no new partition.
        """
        partitions = self._host.partitions
        keys = iter(wanted)
        while some := list(islice(keys, LOOKED_AT_ONCE_MAX)):
            absent = [key for key in some if key not in partitions]
            if absent:
                await self._open_absent(absent)
            if len(some) == LOOKED_AT_ONCE_MAX:
                await asyncio.sleep(0)

    async def _open_absent(self, absent: list[Key]) -> None:
        with suppress(OSError):
            # It is told to whoever asks for them.
            await self._logs.erase(TopicPartition(*key) for key in absent)
        new = self._begin(absent)
        while begun := list(islice(new, OPENED_AT_ONCE_MAX)):
            # Who asked may go away; what was begun is ended.
            task = asyncio.ensure_future(self._open(begun))
            self._tasks[task] = None
            task.add_done_callback(self._tasks.pop)
            await asyncio.shield(task)

    def _begin(self, absent: Iterable[Key]) -> Iterator[tuple[Key, NewFolder]]:
        for name, index in absent:
            try:
                topic = self._host.absent(name, index)
            except KafkaError:
                continue
            config = self._host.readable_config(topic)
            if config is None or self._clock.monotonic_ms() < self._refused.get((name, index), ("", 0))[1]:
                continue
            folder = self._logs.new_folders.begin(TopicPartition(name, index), topic.topic_id, config)
            if folder is not None:
                yield (name, index), folder

    async def _open(self, begun: list[tuple[Key, NewFolder]]) -> None:
        await self._logs.new_folders.make([folder for _, folder in begun])
        if self._host.stopping:
            # Logs are closed from now on. Who asked, and is answered yet, goes on with what is there.
            return
        for (name, index), folder in begun:
            with suppress(KafkaError):
                # It is told to whoever asks for it.
                self._host.get(name, index)
            # The topic may be gone by now.
            self._logs.new_folders.drop(TopicPartition(name, index), folder)
