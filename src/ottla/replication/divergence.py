"""The offset at which a follower's log diverges from its leader's, by leader epochs (KIP-101, KIP-595).

Offsets are absolute; epochs and ends are -1 where they are not known.
"""

from __future__ import annotations

from ottla.errors import ErrorCode, KafkaError
from ottla.log.log import Log


class Divergence(Exception):
    """A follower's log parts from ours: the last epoch that both may have, and where it ends here."""

    def __init__(self, epoch: int, end_offset: int) -> None:
        super().__init__(f"epoch {epoch} ends at {end_offset}")
        self.epoch = epoch
        self.end_offset = end_offset


def check(log: Log, offset: int, last_epoch: int, epoch: int, end_offset: int) -> None:
    """Refuse who asks for ``offset`` and has read up to there from ``last_epoch``. Of the epochs up to that
    one ``epoch`` is the last in the log, and ends at ``end_offset``. As ``Partition.check_divergence``."""
    if end_offset < 0:
        raise KafkaError(ErrorCode.offset_out_of_range, f"epoch {last_epoch} is not known any more")
    if offset < log.log_start_offset:
        raise KafkaError(ErrorCode.offset_out_of_range)
    if epoch < last_epoch or end_offset < offset:
        raise Divergence(epoch, end_offset)


def epoch_end(log: Log, epoch: int, leads_in: int | None) -> tuple[int, int]:
    """(epoch, end offset) of the largest epoch up to ``epoch``, (-1, -1) where it is not known. ``leads_in``:
    the epoch of who leads from this log. It begins, as in Kafka, where the log ends until its first record is
    there.
    """
    end = log.log_end_offset
    latest = log.latest_epoch
    if leads_in is not None and latest < epoch <= leads_in:
        return (latest if latest >= 0 and epoch < leads_in else epoch), end
    if leads_in is not None and latest < 0 and epoch < -1:
        # What is no epoch is before the first one, which begins here.
        return epoch, end
    return log.epoch_end_offset(epoch)


def where_to_cut(log: Log, epoch: int, end_offset: int) -> int:
    """The offset at which a log agrees with a leader whose ``epoch`` ends at ``end_offset``
    (AbstractFetcherThread.getOffsetTruncationState)."""
    if not log.epochs.entries:
        return min(end_offset, log.log_end_offset)
    own_epoch, own_end = log.epoch_end_offset(epoch)
    if own_end < 0:
        # Everything that we have is of epochs up to that one.
        own_epoch, own_end = log.latest_epoch, log.log_end_offset
    if own_epoch != epoch:
        return min(own_end, log.log_end_offset)
    return min(own_end, end_offset, log.log_end_offset)
