"""What happens because time goes by: transactions that take too long, ids that nobody uses, writes to repeat.

Kafka looks at every id from time to time. Here only those are looked at that are open, or whose transactional
ids might have expired; a coordinator without either never wakes.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from ottla.coordinators.runtime.pieces import PIECE
from ottla.coordinators.runtime.step import NEVER_MS
from ottla.coordinators.transactions import endings
from ottla.coordinators.transactions.metadata import NO_TIMEOUT_MS, TransactionMetadata
from ottla.coordinators.transactions.settings import TransactionConfig
from ottla.coordinators.transactions.states import AT_REST, ONGOING
from ottla.coordinators.transactions.step import Pieces, Step
from ottla.coordinators.transactions.tables import TransactionTables
from ottla.errors import ErrorCode

log = logging.getLogger(__name__)

# Ids that are written in one piece: of each comes an append, and markers.
WRITTEN_AT_ONCE = 50


class Expiry:
    """See the module's docstring."""

    def __init__(self, tables: TransactionTables, config: TransactionConfig) -> None:
        self._tables = tables
        self._config = config
        # When open transactions are looked at, and when all ids (monotonic).
        self._abort_ms = NEVER_MS
        self._removal_ms = NEVER_MS
        self._work: deque[Pieces] = deque()

    def arm(self, now_ms: int) -> None:
        """See that what there is by now is looked at when the time comes."""
        if self._abort_ms == NEVER_MS and self._tables.ongoing:
            self._abort_ms = now_ms + self._config.abort_timed_out_interval_ms
        if self._removal_ms == NEVER_MS and self._tables.metadata:
            self._removal_ms = now_ms + self._config.remove_expired_interval_ms

    @property
    def wake_ms(self) -> int:
        return min(self._abort_ms, self._removal_ms, self._tables.wake_ms)

    def expire(self, step: Step) -> None:
        """Begin what is due."""
        tables = self._tables
        due = [one for one, at_ms in tables.retries.items() if at_ms <= step.now_ms]
        for transactional_id in due[:WRITTEN_AT_ONCE]:
            tables.complete(transactional_id, step)
        waited = [one for one, waiting in tables.waiting.items() if waiting.until_ms <= step.now_ms]
        for transactional_id in waited[:PIECE]:
            step.reply(tables.waiting.pop(transactional_id).waiter, ErrorCode.concurrent_transactions)
        if self._abort_ms <= step.now_ms:
            self._abort_ms = NEVER_MS
            self._begin(list(tables.ongoing), self._abort)
        if self._removal_ms <= step.now_ms:
            self._removal_ms = NEVER_MS
            self._begin(list(tables.metadata), self._remove)
        self.arm(step.now_ms)

    # -- work in pieces

    def _begin(self, ids: list[str], look: Callable[[str, TransactionMetadata, Step], bool]) -> None:
        pieces = self._pieces(ids, look)
        next(pieces)
        self._work.append(pieces)

    def _pieces(self, ids: list[str], look: Callable[[str, TransactionMetadata, Step], bool]) -> Pieces:
        step = yield
        tables = self._tables
        written = 0
        for number, transactional_id in enumerate(ids, 1):
            value = tables.metadata.get(transactional_id)
            if value is not None and transactional_id not in tables.pending:
                written += look(transactional_id, value, step)
            if written == WRITTEN_AT_ONCE or number % PIECE == 0:
                written = 0
                step = yield

    @property
    def has_work(self) -> bool:
        return bool(self._work)

    def work(self, step: Step) -> None:
        """Look at a piece of what is to be looked at."""
        try:
            self._work[0].send(step)
        except StopIteration:
            self._work.popleft()

    def abandon(self) -> None:
        """Another node takes over: look at nothing any more."""
        self._work.clear()
        self._abort_ms = self._removal_ms = NEVER_MS

    def _abort(self, transactional_id: str, value: TransactionMetadata, step: Step) -> bool:
        """TransactionStateManager.timedOutTransactions; whether it is one."""
        is_due = (
            value.state is ONGOING
            and value.timeout_ms != NO_TIMEOUT_MS
            and value.start_ms + value.timeout_ms < step.wall_ms
        )
        if is_due:

            def then(code: ErrorCode, step: Step) -> None:
                if code == ErrorCode.none:
                    log.info("transactional id %s: its transaction took too long", transactional_id)
                else:
                    log.warning(
                        "transactional id %s: its transaction took too long, and cannot be aborted now: %s",
                        transactional_id,
                        code.name,
                    )

            endings.abort(self._tables, transactional_id, then, step)
        return is_due

    def _remove(self, transactional_id: str, value: TransactionMetadata, step: Step) -> bool:
        """TransactionStateManager.shouldExpire."""
        expired_ms = step.wall_ms - self._config.transactional_id_expiration_ms
        is_due = value.state in AT_REST and value.last_update_ms <= expired_ms
        if is_due:
            self._tables.write(transactional_id, None, _nothing, _later, step)
        return is_due


def _nothing(value: TransactionMetadata, step: Step) -> None:
    """Nothing follows."""


def _later(code: ErrorCode, step: Step) -> None:
    """What has expired is found again the next time."""
