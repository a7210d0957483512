"""Messages in transactions, one after another: what is committed is committed, and the rest is aborted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ottla.cli import output
from ottla.cli.client import explain
from ottla.cli.errors import CliError
from ottla.cli.sender import DELIVERY_TIMEOUT_MS, Delivered, Row, Sender, Source

if TYPE_CHECKING:
    from confluent_kafka import Producer

# librdkafka goes on with a step that was not done in time when it is asked again; in between Ctrl-C is heard.
STEP_S = 1.0
# How many lines are sent until the clock is looked at.
LINES_AT_ONCE = 1_000


class TransactionalSender(Sender):
    """Begins a transaction with its first message, and ends it as the limits say, or at the end of input.

    ``messages_max`` and ``seconds_max`` limit a transaction; None: they do not.
    """

    def __init__(
        self,
        make: Callable[[Delivered], Producer],
        topic: str,
        report: bool,
        messages_max: int | None,
        seconds_max: float | None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(make, topic, report)
        self._messages_max, self._seconds_max = messages_max, seconds_max
        self._clock_s = clock_s
        # When the open transaction began; None while there is none.
        self._began_s: float | None = None
        self._is_committing = False
        # Messages sent before it, transactions and messages that were committed.
        self._sent_before = self._transactions = self._committed = 0

    def _start(self) -> None:
        self._persist(self._producer.init_transactions)

    def _send_lines(self, source: Source, lines: list[bytes], number: int) -> None:
        done = 0
        while done < len(lines):
            count = LINES_AT_ONCE if self._messages_max is None else self._messages_max - self._open_count
            piece = lines[done : done + min(count, LINES_AT_ONCE)]
            super()._send_lines(source, piece, number + done)
            done += len(piece)
            if self._left_s() == 0 or self._open_count == self._messages_max:
                self._commit()
        # A transaction ends in time although no line comes.
        if self._left_s() == 0:
            self._commit()

    def _send(self, rows: Sequence[Row]) -> None:
        if rows and self._began_s is None:
            self._begin()
        super()._send(rows)

    def _begin(self) -> None:
        from confluent_kafka import KafkaException

        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            raise explain(error.args[0], self._what) from None
        self._began_s = self._clock_s()
        self._sent_before = self._sent

    @property
    def _open_count(self) -> int:
        """Messages in the open transaction."""
        return 0 if self._began_s is None else self._sent - self._sent_before

    def _wait_s(self) -> float | None:
        left_s, notice_s = self._left_s(), super()._wait_s()
        if left_s is None or notice_s is None:
            return notice_s if left_s is None else left_s
        return min(left_s, notice_s)

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
        self._committed = self._sent
        super()._tell()

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

    def _malformed(self, error: CliError) -> CliError:
        return error

    def _tell(self) -> None:
        """Not yet: places are those of messages once their transaction is committed."""

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
