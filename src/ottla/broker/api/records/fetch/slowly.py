"""Looking at thousands of partitions in pieces, and waiting for what has to be read from the disk first.

Not compiled: a compiled coroutine holds on to what it went through until it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from ottla.broker.api.records.fetch.asked import PIECE
from ottla.broker.api.records.fetch.encoding import PartitionWriter
from ottla.broker.api.records.fetch.habit import Habit
from ottla.broker.api.records.fetch.reader import Collected, Found, Reader
from ottla.broker.api.records.fetch.session import Want
from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.log.lookups import COLD_READS_MAX
from ottla.log.segment_file import ColdRead

T = TypeVar("T")


def pieces(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + PIECE] for start in range(0, len(items), PIECE)]


def taken(found: list[T]) -> list[T]:
    """The next ones, which are not in the list any more: to forget thousands at once takes long."""
    piece = found[:PIECE]
    del found[:PIECE]
    return piece


class Looks:
    """The looks of one request."""

    __slots__ = ("_cold_reads", "_ctx", "_reader")

    def __init__(self, ctx: RequestContext, reader: Reader) -> None:
        self._ctx = ctx
        self._reader = reader
        self._cold_reads = 0

    async def look_at(self, piece: Sequence[Want], collected: Collected) -> None:
        """KafkaError KAFKA_STORAGE_ERROR where the disk cannot be read, or is too busy."""
        while True:
            begun = len(collected.found)
            try:
                self._reader.look_at(piece, collected)
                return
            except ColdRead as cold:
                del collected.found[begun:]
                await self._warm(cold)

    async def _warm(self, cold: ColdRead) -> None:
        self._cold_reads += 1
        if self._cold_reads > COLD_READS_MAX:
            raise KafkaError(ErrorCode.kafka_storage_error, "the disk is too busy to be read")
        try:
            await self._ctx.services.disk.run(cold.warm)
        except OSError as error:
            raise KafkaError(ErrorCode.kafka_storage_error, f"reading failed: {error}") from error


class Told:
    """What is to be told to a client of partitions that have something new."""

    __slots__ = ("_writer", "pieces", "refused")

    def __init__(self, writer: PartitionWriter) -> None:
        self._writer = writer
        # Of each, by its place; and the answers that are errors.
        self.pieces: dict[int, list[Any]] = {}
        self.refused: list[dict[str, Any]] = []

    def add(self, found: Iterable[Found]) -> None:
        for one in found:
            self.pieces[one.want.place] = self._writer.write(one.answer)
            if one.answer["error_code"]:
                self.refused.append(one.answer)


async def look_and_read(
    ctx: RequestContext, habit: Habit, reader: Reader, is_enough: Callable[[Collected], bool]
) -> Told | None:
    """What is to be told to a client; None: too little for now. KafkaError as `Looks`."""
    slices = ctx.services.slices
    changes, habit.changed = habit.changed, []
    for changed in pieces(changes):
        habit.take_changes(changed)
        await slices.pause()
    looks, collected = Looks(ctx, reader), Collected([])
    for wants in pieces(habit.in_order()):
        begun = len(collected.found)
        await looks.look_at(wants, collected)
        collected.found[begun:] = habit.note(collected.found[begun:])
        await slices.pause()
    reader.conclude(collected)
    if not is_enough(collected):
        return None
    told = Told(habit.writer)
    memory = ctx.services.memory
    memory.unsent_bytes += collected.size
    try:
        while collected.found:
            found = taken(collected.found)
            read: Any = reader.respond(None, Collected(found))
            if not isinstance(read, dict):
                await read
            told.add(found)
            await slices.pause()
    finally:
        memory.unsent_bytes -= collected.size
    return told
