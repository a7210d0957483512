"""Hands messages to a producer, and knows what became of them."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import starmap
from operator import length_hint
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from ottla.cli import output
from ottla.cli.client import explain
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.lines import read_lines
from ottla.cli.streams import fewer_collections

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer

# How long a message may take from the line that was read to the broker's acknowledgement.
DELIVERY_TIMEOUT_MS = 30_000
# librdkafka empties a full queue in some tenths of a second, and calls back for failures alone.
FULL_QUEUE_POLL_S = 0.005
# How soon a delivery, or its failure, is noticed while no line comes.
NOTICE_S = 0.1

# The arguments of Producer.produce, in its order.
Row = tuple[Any, ...]
Delivered = Callable[["KafkaError | None", Any], None]


class Source(Protocol):
    """How lines become messages."""

    def rows(self, topic: str, lines: list[bytes], number: int) -> tuple[list[Row], CliError | None]:
        """The messages of ``lines``, up to the first line that is none, and the error that says why.

        ``number`` is that of the first line.
        """
        ...


class Sender:
    """Hands lines to librdkafka in bulk; the first failure ends the command.

    A message costs no Python code of its own: librdkafka calls back for failures alone, except where places
    are to be reported. What is delivered is what was sent without what librdkafka still has.
    """

    def __init__(self, make: Callable[[Delivered], Producer], topic: str, report: bool) -> None:
        """``make`` makes the producer, which calls what it is given about deliveries."""
        self._topic, self._report = topic, report
        self._taken = self._failed = 0
        # Of the messages that were taken, those that librdkafka does not have yet; and whether one has left
        # the iterator for which there was no room.
        self._left: Iterator[Row] = iter(())
        self._refused = 0
        self._failure: KafkaError | None = None
        # Partitions and offsets of messages, to be reported.
        self._places: list[tuple[int, int]] = []
        self._topic_json = json.dumps(topic)
        self._show: Callable[[int], None] = lambda count: None
        self._producer = make(self._delivered)

    def run(self, stream: BinaryIO, source: Source) -> None:
        """Send all lines. CliError where one is no message, or is not delivered."""
        interactive = stream.isatty()
        if interactive:
            output.note("type a message and press Enter; Ctrl-D ends")
        with (
            output.progress(
                f"Producing to {self._topic}", prints=self._report, typed=interactive
            ) as self._show,
            fewer_collections(),
        ):
            try:
                self._start()
                number = 1
                for lines in read_lines(stream.fileno(), self._wait_s):
                    self._send_lines(source, lines, number)
                    number += len(lines)
                    if interactive:
                        self._producer.flush()
                    self._notice()
                self._finish()
            except BaseException as error:
                self._give_up(error)
                raise
        output.note(f"{self._sum()} to {self._topic}")

    def _start(self) -> None:
        """Before the first line."""

    def _finish(self) -> None:
        """Behind the last line. CliError where anything was not delivered."""
        self._producer.flush()
        self._notice()

    def _give_up(self, error: BaseException) -> None:
        """Something failed, or was interrupted: what was read before is still delivered."""
        try:
            self._producer.flush(DELIVERY_TIMEOUT_MS / 1000)
        finally:
            # If Ctrl-C comes again, it ends the wait.
            self._tell()
            if isinstance(error, KeyboardInterrupt):
                left = len(self._producer)
                rest = f", {left} sent without an acknowledgement so far" if left else ""
                output.warn(f"interrupted: {self._sum()} to {self._topic} delivered{rest}")

    def _sum(self) -> str:
        return output.counted(self._done, "message")

    @property
    def _sent(self) -> int:
        """The messages that librdkafka has got. They are right at any moment: Ctrl-C may come at any."""
        return self._taken - length_hint(self._left) - self._refused

    @property
    def _done(self) -> int:
        return max(0, self._sent - self._failed - len(self._producer))

    def _wait_s(self) -> float | None:
        """How long to wait for lines until ``_notice`` is due; None: for ever."""
        return NOTICE_S if len(self._producer) else None

    def _notice(self) -> None:
        """Hear of deliveries. CliError where one has failed."""
        self._producer.poll(0)
        self._raise()
        self._show(self._done)
        self._tell()

    def _send_lines(self, source: Source, lines: list[bytes], number: int) -> None:
        """Send lines, of which the first is line ``number``; none where none came in time. CliError where
        one is no message."""
        rows, error = source.rows(self._topic, lines, number)
        self._send(rows)
        if error is not None:
            raise self._malformed(error)

    def _malformed(self, error: CliError) -> CliError:
        self._producer.flush(DELIVERY_TIMEOUT_MS / 1000)
        return CliError(f"{error} (after {self._sum()} sent)", error.code)

    def _send(self, rows: Sequence[Row]) -> None:
        """Hand messages to librdkafka, in order; where its queue is full, wait until there is room."""
        from confluent_kafka import KafkaException

        count, left = len(rows), iter(rows)
        # Ctrl-C is heard after calls, of which there is none between these two.
        self._left = left
        self._taken += count
        while True:
            try:
                deque(starmap(self._producer.produce, self._left), maxlen=0)
                return
            except BufferError:
                self._refused = 1
                rows = rows[len(rows) - length_hint(self._left) - 1 :]
                self._wait_for_room()
                left = iter(rows)
                self._left = left
                self._refused = 0
            except KafkaException as error:
                self._refused = 1
                raise explain(error.args[0], f"topic {self._topic!r}") from None

    def _wait_for_room(self) -> None:
        if not len(self._producer):
            raise CliError(
                f"topic {self._topic!r}: a message is larger than the whole queue of messages to send; "
                "give -X queue.buffering.max.kbytes=NUMBER",
                ExitCode.USAGE,
            )
        self._producer.poll(FULL_QUEUE_POLL_S)
        self._notice()

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self._failed += 1
            self._failure = self._failure or error
        elif self._report:
            self._places.append((message.partition(), message.offset()))

    def _tell(self) -> None:
        """Report the places that are to be."""
        # Taken before they are written: Ctrl-C may come while they are, and each is reported once.
        places, self._places = self._places, []
        if places:
            output.write_lines(
                f'{{"topic": {self._topic_json}, "partition": {partition}, "offset": {offset}}}'
                for partition, offset in places
            )

    def _raise(self) -> None:
        if self._failure is not None:
            self._producer.purge()
            # What was purged comes back as failed, so that the count is exact.
            self._producer.flush(DELIVERY_TIMEOUT_MS / 1000)
            what = f"topic {self._topic!r}: {self._done} of {self._sent} messages delivered, then"
            raise explain(self._failure, what)
