"""Reads partitions and prints their messages until it is done; a batch of messages at a time."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from ottla.cli import messages, output
from ottla.cli.client import explain
from ottla.cli.errors import CliError
from ottla.cli.messages import Message
from ottla.cli.rights import Right
from ottla.cli.streams import fewer_collections
from ottla.types import TopicPartition

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError

FETCH_MESSAGES_MAX = 1_000
POLL_S = 0.2
# How long a group may take to assign partitions, which --timeout does not count: a new one waits for members.
JOIN_S_MAX = 60.0
# How often topics are looked for that a regular expression means and that were not there before.
NEW_TOPICS_S = 3.0
# The client's types of timestamps, in Kafka's words.
TIMESTAMP_TYPES = {1: "CreateTime", 2: "LogAppendTime"}

# Lines of the client's messages, which are all of one partition.
Render = Callable[[list[Any]], list[bytes]]


def render_values(items: list[Any]) -> list[bytes]:
    """The values alone; null is an empty line."""
    return [item.value() or b"" for item in items]


def render_keys(separator: bytes) -> Render:
    """Key, separator, value."""

    def render(items: list[Any]) -> list[bytes]:
        return [(item.key() or b"") + separator + (item.value() or b"") for item in items]

    return render


def render_each(line: Callable[[Message], bytes], with_headers: bool) -> Render:
    """Whatever ``line`` makes of a message. Without ``with_headers`` nobody looks at headers."""
    return lambda items: [line(_message(item, with_headers)) for item in items]


def _message(item: Any, with_headers: bool) -> Message:
    kind, timestamp_ms = item.timestamp()
    return Message(
        item.key(),
        item.value(),
        _headers(item) if with_headers else (),
        item.topic(),
        item.partition(),
        item.offset(),
        timestamp_ms if kind else -1,
        TIMESTAMP_TYPES.get(kind),
    )


def _headers(item: Any) -> tuple[messages.Header, ...]:
    try:
        return tuple(item.headers() or ())
    except (UnicodeDecodeError, SystemError) as error:
        # The binding makes a SystemError of the other one.
        if not isinstance(error.__cause__ or error, UnicodeDecodeError):
            raise
        place = f"{item.topic()}-{item.partition()}, offset {item.offset()}"
        raise CliError(f"{place}: the name of a header is not UTF-8, and cannot be shown") from None


@dataclass
class Reader:
    """Reads until it is done, and knows when that is."""

    consumer: Consumer
    render: Render
    follow: bool
    count_max: int | None
    idle_s_max: float | None
    # The one to join; None: partitions are assigned by `assign`, and nothing is committed.
    group: str | None
    # First offsets not to print, by partition; empty when following.
    ends: dict[TopicPartition, int] = field(default_factory=dict)
    # What finds partitions that are to be read and were not there before; None if there can be none.
    find: Callable[[], list[TopicPartition]] | None = None
    # Partitions assigned and not yet read to their end; None until there is an assignment.
    pending: set[TopicPartition] | None = None
    topics: set[str] = field(default_factory=set)
    stopped: bool = False
    count: int = 0

    @property
    def commits(self) -> bool:
        return self.group is not None

    def assign(self, starts: dict[TopicPartition, int]) -> None:
        """Read these partitions from these offsets, without a group."""
        from confluent_kafka import TopicPartition as ClientPartition

        self.topics = {key.topic for key in starts}
        self.pending = {key for key, offset in starts.items() if self.follow or offset < self.ends[key]}
        self.consumer.assign([ClientPartition(*key, starts[key]) for key in starts if key in self.pending])

    def subscribe(self, topics: Iterable[str]) -> None:
        """Join the group and read what it assigns."""
        output.note("joining the group")
        self._subscribe(topics)

    def _subscribe(self, topics: Iterable[str]) -> None:
        def assigned(consumer: Consumer, partitions: list[Any]) -> None:
            self.pending = (self.pending or set()) | {
                TopicPartition(p.topic, p.partition) for p in partitions
            }

        def revoked(consumer: Consumer, partitions: list[Any]) -> None:
            self.pending = (self.pending or set()) - {
                TopicPartition(p.topic, p.partition) for p in partitions
            }

        self.topics = set(topics)
        self.consumer.subscribe(sorted(self.topics), on_assign=assigned, on_revoke=revoked)

    def run(self, show: Callable[[int], None]) -> None:
        """Print until the end, the limit, the idle time, or a signal."""
        previous = [(number, signal.signal(number, self._stop)) for number in (signal.SIGINT, signal.SIGTERM)]
        try:
            with fewer_collections():
                self._run(show)
        finally:
            self.consumer.close()
            for number, handler in previous:
                signal.signal(number, handler)

    def _run(self, show: Callable[[int], None]) -> None:
        begin_s = last_s = looked_s = time.monotonic()
        while not self._finished():
            before = self.count
            self._batch()
            show(self.count)
            now = time.monotonic()
            if self.find is not None and now - looked_s >= NEW_TOPICS_S:
                self._add(self.find())
                looked_s = now
            if self.count != before or (self.pending is None and now - begin_s < JOIN_S_MAX):
                last_s = now
            elif self.idle_s_max is not None and now - last_s >= self.idle_s_max:
                break

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True

    def _finished(self) -> bool:
        if self.stopped or (self.count_max is not None and self.count >= self.count_max):
            return True
        return not self.follow and self.pending is not None and not self.pending

    def _add(self, found: list[TopicPartition]) -> None:
        """Read those of ``found`` whose topics are new, from their beginning."""
        from confluent_kafka import OFFSET_BEGINNING
        from confluent_kafka import TopicPartition as ClientPartition

        new = [partition for partition in found if partition.topic not in self.topics]
        if not new:
            return
        if self.commits:
            self._subscribe(self.topics | {partition.topic for partition in new})
            return
        self.topics |= {partition.topic for partition in new}
        self.pending = (self.pending or set()) | set(new)
        self.consumer.incremental_assign([ClientPartition(*key, OFFSET_BEGINNING) for key in new])

    def _batch(self) -> None:
        from confluent_kafka import Message as ClientMessage

        limit = FETCH_MESSAGES_MAX
        if self.count_max is not None:
            limit = min(limit, self.count_max - self.count)
        # One that we wait for, and those that are there already: nothing is held back to fill a batch.
        batch: list[Any] = self.consumer.consume(1, POLL_S)
        if batch and limit > 1:
            batch += self.consumer.consume(limit - 1, 0)
        events = []
        if any(map(ClientMessage.error, batch)):
            events = [item for item in batch if item.error() is not None]
            batch = [item for item in batch if item.error() is None]
        lines: list[bytes] = []
        last: list[Any] = []
        topic_of: Callable[[Any], str] = cast(Any, ClientMessage.topic)
        partition_of: Callable[[Any], int] = cast(Any, ClientMessage.partition)
        for topic, of_topic in groupby(batch, topic_of):
            for partition, run in groupby(of_topic, partition_of):
                items = self._within(TopicPartition(topic, partition), list(run))
                if items:
                    lines += self.render(items)
                    last.append(items[-1])
        self._print(lines)
        if self.commits:
            # Only what has left this process is committed: a reader that dies sees it again.
            self._store(last)
        for item in events:
            self._event(item)

    def _within(self, partition: TopicPartition, items: list[Any]) -> list[Any]:
        """The messages of a partition that are before its end."""
        end = self.ends.get(partition)
        if end is None or self.pending is None or items[-1].offset() < end - 1:
            return items
        self.pending.discard(partition)
        return [item for item in items if item.offset() < end]

    def _print(self, lines: list[bytes]) -> None:
        if lines:
            self.count += len(lines)
            lines.append(b"")
            sys.stdout.buffer.write(b"\n".join(lines))
            sys.stdout.buffer.flush()

    def _store(self, last: list[Any]) -> None:
        from confluent_kafka import KafkaException

        for item in last:
            # A partition that has gone to another member meanwhile is its to commit.
            with suppress(KafkaException):
                self.consumer.store_offsets(item)

    def _event(self, item: Any) -> None:
        error = item.error()
        if error.name() == "_PARTITION_EOF":
            if self.pending is not None and not self.follow:
                self.pending.discard(TopicPartition(item.topic(), item.partition()))
        elif self.group is None and error.name() == "GROUP_AUTHORIZATION_FAILED":
            # librdkafka looks for the coordinator of the group that it must have been given; nothing here
            # needs one.
            return
        elif not error.retriable() or error.fatal():
            raise self._explained(error, item.topic())

    def _explained(self, error: KafkaError, topic: str | None) -> CliError:
        if topic is not None:
            return explain(error, f"topic {topic!r}", Right("read", "topic", topic))
        if self.group is not None:
            return explain(error, f"group {self.group!r}", Right("read", "group", self.group))
        return explain(error, "consume")
