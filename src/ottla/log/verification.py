"""Whether a producer's transaction is known to its coordinator, before its first batch comes (KIP-890). Pure.

A part of Kafka's ProducerStateManager (VerificationStateEntry, VerificationGuard). Before the first batch of
a transaction is appended, the leader begins a verification, asks the coordinator, and appends with the guard
that it was given. A marker that is written meanwhile takes the guard's force: an earlier answer of the
coordinator is not valid any more. So no transaction begins of which the coordinator knows nothing, and none
hangs.
"""

from __future__ import annotations

from typing import Final, final

from ottla.wire.records import CONTROL_BIT, BatchHeader

# Verifications under way for one log: a client may name any producer. The oldest gives way.
WAITING_MAX: Final = 10_000


@final
class VerificationGuard:
    """What one verification is told from another by: itself."""

    __slots__ = ()


# For who may append without: transaction.partition.verification.enable is false.
EXEMPT: Final = VerificationGuard()


@final
class Verification:
    """One producer's verification under way (Kafka's VerificationStateEntry)."""

    __slots__ = ("begun_ms", "bumps_epoch", "epoch", "guard", "lowest_sequence")

    def __init__(self, begun_ms: int, epoch: int, lowest_sequence: int, bumps_epoch: bool) -> None:
        self.begun_ms = begun_ms
        self.guard = VerificationGuard()
        self.epoch = epoch
        # No batch with a higher one is taken: one with this was refused, for a while, and comes again.
        self.lowest_sequence = lowest_sequence
        # Whether its client has the epoch go up with each transaction (transaction.version 2).
        self.bumps_epoch = bumps_epoch

    def ask_again(self, epoch: int, sequence: int) -> None:
        """Another batch is to be verified, or the same again."""
        if epoch > self.epoch:
            self.epoch, self.lowest_sequence = epoch, sequence
        elif epoch == self.epoch and sequence < self.lowest_sequence:
            self.lowest_sequence = sequence


@final
class Verifications:
    """Those under way for one log, by producer ids, the oldest first."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: dict[int, Verification] = {}

    def begin(
        self, producer_id: int, epoch: int, sequence: int, now_ms: int, bumps_epoch: bool
    ) -> VerificationGuard:
        """Begin one, or go on with it; what the append is to come with."""
        waiting = self.waiting
        known = waiting.get(producer_id)
        if known is None:
            if len(waiting) >= WAITING_MAX:
                del waiting[next(iter(waiting))]
            known = waiting[producer_id] = Verification(now_ms, epoch, sequence, bumps_epoch)
        else:
            known.ask_again(epoch, sequence)
        return known.guard

    def forget(self, producer_id: int, guard: VerificationGuard) -> None:
        """The coordinator has refused, for good, what a guard was given for."""
        known = self.waiting.get(producer_id)
        if known is not None and known.guard is guard:
            del self.waiting[producer_id]

    def is_verified(self, producer_id: int, guard: VerificationGuard | None) -> bool:
        """Whether a guard is that of the verification that is under way."""
        if guard is None or guard is EXEMPT:
            return guard is EXEMPT
        known = self.waiting.get(producer_id)
        return known is not None and known.guard is guard

    def appended(self, header: BatchHeader) -> None:
        """A transactional batch came into the log: the transaction is open now, or has ended.

        A marker in the epoch of a verification that bumps epochs is that of the transaction before, which
        ended by raising it: what is being verified is the next one.
        """
        known = self.waiting.get(header.producer_id)
        if known is None:
            return
        is_next = (
            known.bumps_epoch and header.attributes & CONTROL_BIT and header.producer_epoch == known.epoch
        )
        if not is_next:
            del self.waiting[header.producer_id]

    def expire(self, now_ms: int, expiration_ms: int) -> None:
        """Forget those that were begun so long ago."""
        waiting = self.waiting
        while waiting:
            producer_id, oldest = next(iter(waiting.items()))
            if now_ms - oldest.begun_ms < expiration_ms:
                return
            del waiting[producer_id]
