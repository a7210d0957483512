"""Consumers that wait for the same get the same, which is looked up, read and written once.

What is appended to a partition wakes all that wait for it at once (`Turn`). Where two of them have asked for
the same, in the same version, their answers differ in the correlation id and the session's id alone.
"""

from __future__ import annotations

from typing import Any, Final, final

from ottla.broker.api.records.fetch.encoding import Template
from ottla.broker.api.records.fetch.reader import Collected, Limits, Reader
from ottla.broker.api.records.fetch.rights import may_read
from ottla.broker.api.records.fetch.session import Session, Want
from ottla.broker.request import RequestContext
from ottla.replication.partition import Partition
from ottla.wire.messages import RequestHeader

# Partitions of which answers are kept until the turn is over, and how many of each; each of so many bytes at
# most: those who wait for more do so for longer than it takes to make it.
PARTITIONS_MAX: Final = 64
ANSWERS_MAX: Final = 8
ANSWER_BYTES_MAX: Final = 256 * 1024


@final
class Alike:
    """An answer to a consumer that was given records of one partition, and all that it follows from."""

    __slots__ = (
        "_answer", "_committed", "_current_leader_epoch", "_fetch_offset", "_high_watermark",
        "_last_fetched_epoch", "_leader_epoch", "_leads", "_log_start", "_max_bytes", "_min_bytes",
        "_partition_epoch", "_stable", "_template", "_topic", "_version", "size",
    )  # fmt: skip

    def __init__(
        self, version: int, partition: Partition, want: Want, limits: Limits, max_bytes: int
    ) -> None:
        self._version = version
        self._topic = want.topic
        self._fetch_offset = want.fetch_offset
        self._current_leader_epoch = want.current_leader_epoch
        self._last_fetched_epoch = want.last_fetched_epoch
        self._min_bytes = limits.min_bytes
        self._max_bytes = max_bytes
        self._committed = limits.committed
        state = partition.state
        self._leads = partition.leading is not None
        self._leader_epoch = state.leader_epoch
        self._partition_epoch = state.partition_epoch
        self._high_watermark = partition.high_watermark
        self._stable = partition.last_stable_offset
        self._log_start = partition.log.log_start_offset
        # What it says of the partition, and the whole of it, once it is made.
        self._answer: dict[str, Any] = {}
        # Bytes of its records.
        self.size = 0
        self._template: Template | None = None

    def is_for(self, version: int, partition: Partition, want: Want, limits: Limits, max_bytes: int) -> bool:
        """Whether it is what would be answered now to another who asks so. A client that got it may have sent
        something since that has changed the partition."""
        state = partition.state
        return (
            self._fetch_offset == want.fetch_offset
            and self._high_watermark == partition.high_watermark
            and self._version == version
            and self._max_bytes == max_bytes
            and self._min_bytes == limits.min_bytes
            and self._committed == limits.committed
            and self._current_leader_epoch == want.current_leader_epoch
            and self._last_fetched_epoch == want.last_fetched_epoch
            and self._stable == partition.last_stable_offset
            and self._log_start == partition.log.log_start_offset
            and self._leader_epoch == state.leader_epoch
            and self._partition_epoch == state.partition_epoch
            and self._leads == (partition.leading is not None)
            and self._topic == want.topic
        )

    def made(self, answer: dict[str, Any], pieces: list[Any]) -> None:
        self._answer, self._template = answer, Template(pieces, self._version)

    def pieces_for(self, header: RequestHeader, session: Session | None, want: Want) -> list[Any]:
        """The same for another, who has been told what it says then."""
        template = self._template
        assert template is not None
        if session is None:
            return template.pieces_for(header.correlation_id, 0)
        session.gives(want, self._answer)
        return template.pieces_for(header.correlation_id, session.session_id)


# By their partitions.
Answers = dict[Partition, list[Alike]]


def place_of(ctx: RequestContext, reader: Reader, session: Session | None) -> Want | None:
    """The one partition of which a consumer is to be told; None for others, and for a follower.

    Whoever says where it stands may be sent to a nearer replica, which is for the moment to decide.
    """
    wants = reader.wants
    if len(wants) != 1 or not reader.may_share or (session is not None and session.ended):
        return None
    want = wants[0]
    partition = want.replica
    if partition is None or partition.removed or not may_read(ctx, want):
        return None
    return want


def bytes_max(ctx: RequestContext, want: Want, limits: Limits) -> int:
    return min(want.max_bytes, limits.max_bytes, ctx.services.memory.room_bytes)


def find(answers: Answers, ctx: RequestContext, reader: Reader, want: Want) -> Alike | None:
    """The answer that another got, if this one is to get the same."""
    partition = want.replica
    assert partition is not None
    known = answers.get(partition)
    if known is None:
        return None
    version, limits = ctx.header.api_version, reader.limits
    max_bytes = bytes_max(ctx, want, limits)
    for one in known:
        if one.is_for(version, partition, want, limits, max_bytes):
            return one
    return None


def begin(answers: Answers, ctx: RequestContext, reader: Reader, want: Want) -> Alike | None:
    """What an answer that is about to be made follows from; None where there are many already."""
    partition = want.replica
    assert partition is not None
    if len(answers) >= PARTITIONS_MAX or len(answers.get(partition, ())) >= ANSWERS_MAX:
        return None
    limits = reader.limits
    return Alike(ctx.header.api_version, partition, want, limits, bytes_max(ctx, want, limits))


def keep(answers: Answers, alike: Alike, collected: Collected, limits: Limits, pieces: list[Any]) -> None:
    """Keep an answer for others, where it is for all: it has records, and as many as are waited for."""
    if (
        collected.final
        or len(collected.found) != 1
        or not max(limits.min_bytes, 1) <= collected.size <= ANSWER_BYTES_MAX
    ):
        return
    found = collected.found[0]
    partition = found.want.replica
    if partition is None or found.answer["error_code"]:
        return
    alike.size = collected.size
    alike.made(found.answer, pieces)
    answers.setdefault(partition, []).append(alike)
