"""Ways of breaking transactions on purpose; ``mutations`` has those of everything else."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from ottla.broker.api.records.fetch import reader
from ottla.broker.api.records.produce import transactional
from ottla.coordinators.groups.offsets import Offsets
from ottla.coordinators.transactions import producers
from ottla.coordinators.transactions.expiry import Expiry
from ottla.coordinators.transactions.markers import Markers, Sending
from ottla.coordinators.transactions.metadata import TransactionMetadata
from ottla.coordinators.transactions.schemas import TransactionRecord
from ottla.coordinators.transactions.tables import TransactionTables
from ottla.coordinators.transactions.transaction_machine import TransactionMachine
from ottla.explore.campaign.mutations import Mutation, replaced
from ottla.explore.campaign.txn_protocol import CLASSIC
from ottla.log.producers import Producers
from ottla.log.verification import EXEMPT
from ottla.replication.partition import Partition


def no_bump_at_the_end(stack: ExitStack) -> None:
    """A transaction ends with the epoch that it had."""
    decided_with_bump = TransactionMetadata.decided_with_bump

    def decided(self: TransactionMetadata, *args: Any, **options: Any) -> TransactionMetadata:
        return decided_with_bump(self, *args, **options)._replace(producer_epoch=self.producer_epoch)

    stack.enter_context(replaced(TransactionMetadata, "decided_with_bump", decided))


def no_bump_at_the_start(stack: ExitStack) -> None:
    """A producer that begins has the epoch of the one before it."""
    begun = producers._begun

    def beginning(value: Any, *args: Any) -> Any:
        after = begun(value, *args)
        return after if value is None else after._replace(producer_epoch=value.producer_epoch)

    stack.enter_context(replaced(producers, "_begun", beginning))


def markers_to_some(stack: ExitStack) -> None:
    """A leader that does not take its marker at once goes without."""

    def give_up(self: Markers, sending: Sending, partitions: Any) -> None:
        self._clock.call_later(1, lambda: sending.done(set(partitions)))

    stack.enter_context(replaced(Markers, "_retry", give_up))


def stable_is_committed(stack: ExitStack) -> None:
    """The last stable offset is the high watermark."""
    watermark = property(lambda self: self.high_watermark)
    stack.enter_context(replaced(Partition, "last_stable_offset", watermark))


def nothing_was_aborted(stack: ExitStack) -> None:
    """Consumers are not told what was aborted."""
    read_committed = reader._read_committed

    def reading(want: Any, partition: Any, answer: dict[str, Any], *args: Any, **options: Any) -> Any:
        return read_committed(want, partition, _Deaf(answer), *args, **options)

    stack.enter_context(replaced(reader, "_read_committed", reading))


class _Deaf(dict[str, Any]):
    """An answer that takes no aborted transactions."""

    def __setitem__(self, key: str, value: Any) -> None:
        if key != "aborted_transactions":
            super().__setitem__(key, value)


def no_verification(stack: ExitStack) -> None:
    """A batch is appended without waiting for what the coordinator says of its transaction."""

    def begin(ctx: Any, where: Any, sequence: int, producer: Any, operation: Any, verified: Any) -> None:
        verified.begun(where, EXEMPT)

    def go_on(self: Any) -> Any:
        self._ctx.services.verification.ask(
            self._request.transactional_id,
            *self._producer,
            self._verified.asked,
            self._operation,
            lambda errors: None,
        )
        return self._go_on()

    stack.enter_context(replaced(transactional, "_begin", begin))
    stack.enter_context(replaced(transactional._Question, "begin", go_on))


def answer_before_commit(stack: ExitStack) -> None:
    """What a transactional id becomes counts, and is answered, before its record is committed."""

    def write(self: TransactionTables, name: str, value: Any, then: Any, failed: Any, step: Any) -> None:
        record = TransactionRecord(name, value, 1)
        step.write((record,), lambda step: None, lambda code, step: None)
        self.replay(record)
        self.pending.pop(name, None)
        if value is not None:
            then(value, step)

    stack.enter_context(replaced(TransactionTables, "write", write))


def forget_the_decided(stack: ExitStack) -> None:
    """A coordinator that loads its ids does not go on with those that are decided."""

    def loading(self: TransactionMachine) -> Any:
        step = yield
        self.expiry.arm(step.now_ms)

    stack.enter_context(replaced(TransactionMachine, "loading", loading))


def offsets_at_once(stack: ExitStack) -> None:
    """Offsets of transactions count before the transaction ends."""
    replay = Offsets.replay
    stack.enter_context(
        replaced(Offsets, "replay", lambda self, record, producer_id=-1: replay(self, record))
    )


def old_coordinators_markers(stack: ExitStack) -> None:
    """A log takes the markers of a coordinator that is none any more."""
    check_marker = Producers.check_marker

    def checking(self: Producers, header: Any, marker: Any, *args: Any) -> None:
        check_marker(self, header, marker._replace(coordinator_epoch=2**31 - 1), *args)

    stack.enter_context(replaced(Producers, "check_marker", checking))


def timeouts_without_bump(stack: ExitStack) -> None:
    """A transaction that takes too long is aborted with the epoch that its producer has."""
    stack.enter_context(replaced(Expiry, "_abort", _with_the_epoch_it_has(Expiry._abort)))


def _with_the_epoch_it_has(aborting: Any) -> Any:
    def abort(self: Expiry, *args: Any) -> None:
        with ExitStack() as stack:
            no_bump_at_the_end(stack)
            fenced = TransactionMetadata.fenced

            def not_fenced(value: TransactionMetadata, now_ms: int) -> TransactionMetadata:
                return fenced(value, now_ms)._replace(producer_epoch=value.producer_epoch)

            stack.enter_context(replaced(TransactionMetadata, "fenced", not_fenced))
            aborting(self, *args)

    return abort


CALM = ("lose", "slow-link", "break")
LATE = ("late-markers",)
CHANGES = ("kill", "kill-many", "isolate", "split", "restart", "lease", "elect")

TRANSACTION_MUTATIONS: dict[str, Mutation] = {
    "no-bump-at-the-end": Mutation(no_bump_at_the_end, CALM, nodes=1, shown_by=(2,)),
    "no-bump-at-the-start": Mutation(no_bump_at_the_start, CALM, nodes=1),
    "stable-is-committed": Mutation(stable_is_committed, CALM, nodes=1),
    "nothing-was-aborted": Mutation(nothing_was_aborted, CALM, nodes=1),
    "no-verification": Mutation(no_verification, CALM, nodes=1, shown_by=(2,)),
    "offsets-at-once": Mutation(offsets_at_once, CALM, nodes=1),
    "markers-to-some": Mutation(markers_to_some, LATE, nodes=3),
    "forget-the-decided": Mutation(
        forget_the_decided, ("kill", "slow-link", "disk-slow"), nodes=1, shown_by=(10,)
    ),
    "timeouts-without-bump": Mutation(timeouts_without_bump, CALM, nodes=1, shown_by=(2,)),
    # Where each transaction has an epoch of its own, that refuses them.
    "old-coordinators-markers": Mutation(
        old_coordinators_markers, LATE, nodes=3, given={"protocols": (CLASSIC,)}, shown_by=(11,)
    ),
    "answer-before-commit": Mutation(answer_before_commit, CHANGES, nodes=3, shown_by=(7,)),
}
