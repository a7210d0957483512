"""One step of a coordinator machine: the time it happens at, and what it asks of the shell.

Machines keep no clock and do no I/O. A step brings them the time; into it they put replies to requests
that were waiting, and records to append. The shell appends the records, lets the machine replay them once
they are committed, and only then runs the write's `committed`; or `failed`, if they can never be.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, Final, NamedTuple, final

from ottla.errors import ErrorCode
from ottla.wire.records import NO_PRODUCER_ID

_new: Final = tuple.__new__

# A deadline that never comes.
NEVER_MS: Final = 2**63 - 1

# Whoever waits for a reply. Opaque to the machines: the shell hands in promises, tests whatever they like.
Waiter = object


class Reply(NamedTuple):
    """An answer, and who waits for it."""

    waiter: Waiter
    response: Any


class Producer(NamedTuple):
    """The transactional producer in whose transaction records are written."""

    producer_id: int
    epoch: int
    # Its coordinator was asked whether it is open: what the log wants to see of that, opaque here.
    guard: object | None = None


@final
class Write:
    """Records that go into the log together, and what follows from it."""

    __slots__ = ("about", "committed", "failed", "producer", "producer_id", "records")

    def __init__(
        self,
        records: tuple[Any, ...],
        committed: Callable[[Any], None],
        failed: Callable[[ErrorCode, Any], None],
        about: str | None = None,
        producer: Producer | None = None,
    ) -> None:
        self.records = records
        # Both are given a step of the machine's own.
        self.committed = committed
        self.failed = failed
        # Whatever the machine wants to know of it while it is on its way.
        self.about = about
        # In whose transaction it is written: it counts once that is committed. None for plain records.
        self.producer = producer
        # As ``Machine.replay`` takes it: -1 for plain records.
        self.producer_id = NO_PRODUCER_ID if producer is None else producer.producer_id


class Step:
    """``now_ms`` is monotonic, for deadlines; ``wall_ms`` is the Unix time that goes into records."""

    __slots__ = ("effects", "later", "now_ms", "replies", "wall_ms", "writes")

    def __init__(self, now_ms: int, wall_ms: int) -> None:
        self.now_ms = now_ms
        self.wall_ms = wall_ms
        self.replies: list[Reply] = []
        # Replies that are many, each made when its turn comes: from what was noted in this step, since the
        # machine may have gone on by then.
        self.later: list[Iterator[Reply]] = []
        self.writes: list[Write] = []
        # What else the shell is to do, in the machine's own words: see `Host`.
        self.effects: list[Any] = []

    def reply(self, waiter: Waiter, response: object) -> None:
        self.replies.append(_new(Reply, (waiter, response)))

    def reply_later(self, replies: Iterator[Reply]) -> None:
        self.later.append(replies)

    def write(
        self,
        records: tuple[Any, ...],
        committed: Callable[[Any], None],
        failed: Callable[[ErrorCode, Any], None],
        about: str | None = None,
        producer: Producer | None = None,
    ) -> None:
        self.writes.append(Write(records, committed, failed, about, producer))


# Work that is done in pieces, so that nothing else has to wait for long: a generator that is sent a step for
# each piece (once it was started with `next`), and yields when the piece is done.
Pieces = Generator[None, Any, None]

# What a failed append means to a client (Kafka's CoordinatorOperationExceptionHelper).
_APPEND_ERRORS = {
    # Whether a transaction is open could not be asked of its coordinator: the client is to try again here.
    ErrorCode.network_exception: ErrorCode.coordinator_load_in_progress,
    ErrorCode.unknown_topic_or_partition: ErrorCode.coordinator_not_available,
    ErrorCode.not_enough_replicas: ErrorCode.coordinator_not_available,
    ErrorCode.not_enough_replicas_after_append: ErrorCode.coordinator_not_available,
    ErrorCode.request_timed_out: ErrorCode.coordinator_not_available,
    ErrorCode.not_leader_or_follower: ErrorCode.not_coordinator,
    ErrorCode.kafka_storage_error: ErrorCode.not_coordinator,
    ErrorCode.message_too_large: ErrorCode.unknown_server_error,
    ErrorCode.record_list_too_large: ErrorCode.unknown_server_error,
    ErrorCode.invalid_fetch_size: ErrorCode.unknown_server_error,
}


def append_error(code: ErrorCode) -> ErrorCode:
    """The error that a client is told where the append of its records failed with ``code``."""
    return _APPEND_ERRORS.get(code, code)
