"""Messages in transactions, one after another: what is committed is committed, and the rest is aborted."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from ottla.cli import output
from ottla.cli.client import explain
from ottla.cli.errors import CliError
from ottla.cli.sender import DELIVERY_TIMEOUT_MS, Sender

if TYPE_CHECKING:
    from confluent_kafka import Producer

# librdkafka goes on with a step that was not done in time when it is asked again; in between Ctrl-C is heard.
STEP_S = 1.0
READ_BYTES = 64 * 1024


class TransactionalSender(Sender):
    """Begins a transaction with its first message, and ends it as the limits say, or at the end of input.

    ``messages_max`` and ``seconds_max`` limit a transaction; None: they do not.
    """

    def __init__(
        self,
        producer: Producer,
        topic: str,
        report: bool,
        messages_max: int | None,
        seconds_max: float | None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(producer, topic, report)
        self._messages_max, self._seconds_max = messages_max, seconds_max
        self._clock_s = clock_s
        # When the open transaction began; None while there is none.
        self._began_s: float | None = None
        self._is_committing = False
        # Messages sent before it, transactions and messages that were committed.
        self._sent_before = self._transactions = self._committed = 0
        # Where messages of the open transaction are, to be told once it is committed.
        self._places: list[dict[str, Any]] = []

    def _start(self) -> None:
        self._persist(self._producer.init_transactions)

    def _send(self, message: Any) -> None:
        from confluent_kafka import KafkaException

        if self._began_s is None:
            try:
                self._producer.begin_transaction()
            except KafkaException as error:
                raise explain(error.args[0], self._what) from None
            self._began_s = self._clock_s()
            self._sent_before = self._sent
        super()._send(message)
        count = self._sent - self._sent_before
        if self._left_s() == 0 or count == self._messages_max:
            self._commit()

    def _read_lines(self, stream: BinaryIO) -> Iterator[bytes]:
        if self._seconds_max is None:
            yield from super()._read_lines(stream)
            return
        # A transaction ends in time although nothing comes.
        for line in timed_lines(stream.fileno(), self._left_s):
            if line is None:
                self._commit()
            else:
                yield line

    def _left_s(self) -> float | None:
        """How long the open transaction may go on; None: as long as it likes."""
        if self._began_s is None or self._seconds_max is None:
            return None
        return max(0.0, self._began_s + self._seconds_max - self._clock_s())

    def _commit(self) -> None:
        self._producer.flush()
        self._raise()
        self._is_committing = True
        self._persist(self._producer.commit_transaction)
        self._is_committing = False
        self._began_s = None
        self._transactions += 1
        self._committed = self._done
        for place in self._places:
            output.print_json(place)
        self._places.clear()

    def _finish(self) -> None:
        if self._began_s is not None:
            self._commit()

    def _give_up(self, error: BaseException) -> None:
        """Abort what is open, and say what is not."""
        lost = self._sent - self._committed
        aborted = self._abort() if self._began_s is not None else True
        said = f"{self._sum()} committed" if self._committed else "nothing was committed"
        if lost and aborted:
            said += f", {lost} aborted"
        elif lost and self._is_committing:
            said += f", {lost} perhaps: their commit was under way"
        elif lost:
            said += f", {lost} left to the broker, which aborts them in time"
        if isinstance(error, CliError):
            raise CliError(f"{error} ({said})", error.code) from None
        output.warn(said)

    def _abort(self) -> bool:
        """Whether the open transaction could be aborted: whoever is fenced cannot."""
        try:
            self._persist(self._producer.abort_transaction)
        except CliError:
            return False
        return True

    def _sum(self) -> str:
        messages = output.counted(self._committed, "message")
        return f"{messages} in {output.counted(self._transactions, 'transaction')}"

    def _raise(self) -> None:
        if self._failure is not None:
            raise explain(self._failure, f"topic {self._topic!r}")

    def _read(self, source: Any, line: bytes, number: int) -> Any:
        return source.read(line, number)

    def _tell(self, place: dict[str, Any]) -> None:
        self._places.append(place)

    @property
    def _what(self) -> str:
        return f"topic {self._topic!r}, in a transaction"

    def _persist(self, call: Callable[[float], None]) -> None:
        """Have a step of a transaction done. CliError where it fails, or is not done in time."""
        from confluent_kafka import KafkaException

        deadline_s = time.monotonic() + DELIVERY_TIMEOUT_MS / 1000
        while True:
            try:
                call(STEP_S)
                return
            except KafkaException as caught:
                error = caught.args[0]
                if not error.retriable() or time.monotonic() >= deadline_s:
                    raise explain(error, self._what) from None


def timed_lines(descriptor: int, left_s: Callable[[], float | None]) -> Iterator[bytes | None]:
    """The lines of a file, pipe or terminal, and None whenever ``left_s`` seconds go by without one."""
    pending = bytearray()
    while True:
        ready, _, _ = select.select([descriptor], [], [], left_s())
        if not ready:
            yield None
            continue
        piece = os.read(descriptor, READ_BYTES)
        if not piece:
            break
        whole, newline, rest = piece.rpartition(b"\n")
        if not newline:
            pending += piece
            continue
        pending += whole
        yield from bytes(pending).split(b"\n")
        pending = bytearray(rest)
    if pending:
        yield bytes(pending)
