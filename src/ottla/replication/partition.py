"""A partition on this node: its log, its role, its high watermark, and who waits for it to move.

A replica leads, follows, or does neither (its leader is gone, or it is about to be told). What it is follows
from the state in the metadata image, and from nothing else: see docs/decisions/0009-cluster.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from uuid import UUID

from ottla.env.disk import Disk
from ottla.errors import ErrorCode, KafkaError
from ottla.log.log import Log
from ottla.log.markers import EndMarker, build_marker
from ottla.log.segments import Slice
from ottla.log.settings import Origin
from ottla.log.validation import Appended, Prepared
from ottla.log.verification import VerificationGuard
from ottla.log.writing import Then
from ottla.metadata.elections import effective_min_isr, with_isr
from ottla.metadata.image import PartitionState
from ottla.replication import divergence
from ottla.replication.commits import Commits, Committed
from ottla.replication.deletions import Deleted, Deletions
from ottla.replication.group_commit import GroupCommit
from ottla.replication.isr import Follower, Leading
from ottla.replication.moved_marks import MovedMarks
from ottla.replication.surroundings import Cluster, Position
from ottla.replication.traffic import Traffic
from ottla.replication.waiters import Waiter, tell
from ottla.types import Buffer, TopicPartition

log = logging.getLogger(__name__)


class Partition:
    """A replica of a partition. All calls are made on the event loop; none of them blocks."""

    __slots__ = (
        "_append_waiters",
        "_cluster",
        "_flushes",
        "_moved_marks",
        "_noted_in",
        "_transactions",
        "_waiters",
        "commits",
        "deletions",
        "high_watermark",
        "leading",
        "log",
        "node_id",
        "removed",
        "state",
        "topic_id",
        "topic_partition",
        "traffic",
    )

    def __init__(
        self,
        topic_partition: TopicPartition,
        topic_id: UUID,
        state: PartitionState,
        log: Log,
        *,
        node_id: int,
        disk: Disk,
        cluster: Cluster,
        high_watermark: int = 0,
        moved_marks: MovedMarks | None = None,
    ) -> None:
        """``high_watermark``: what the last run wrote down. It has no role until ``apply``."""
        self.topic_partition = topic_partition
        self.topic_id = topic_id
        self.state = state
        self.log = log
        self._transactions = log.producers.transactions
        self.node_id = node_id
        # It is held here no more.
        self.removed = False
        # While this node leads, in the state's leader epoch.
        self.leading: Leading | None = None
        self._moved_marks, self._noted_in = moved_marks or MovedMarks(), 0
        # The first offset that consumers may not see yet.
        self._is_committed_to(min(max(high_watermark, log.log_start_offset), log.log_end_offset))
        self._cluster = cluster
        # Dicts, since they are gone through in order: who waits for what consumers may see, and for appends.
        self._waiters: dict[Waiter, None] = {}
        self._append_waiters: dict[Waiter, None] = {}
        # Producers that wait for their batches to be committed.
        self.commits = Commits()
        # DeleteRecords that wait until each living replica begins at an offset.
        self.deletions = Deletions()
        self._flushes = GroupCommit(disk, log)
        self.traffic = Traffic()

    @property
    def leader_epoch(self) -> int:
        return self.state.leader_epoch

    @property
    def last_stable_offset(self) -> int:
        """The first offset that a read_committed consumer may not see yet: what is before it is committed,
        and in no transaction whose end is not. It moves with the high watermark, and with the log's start.
        """
        unstable = self._transactions.first_unstable_offset
        if unstable >= self.high_watermark:
            return self.high_watermark
        return max(unstable, self.log.log_start_offset)

    def _is_committed_to(self, high_watermark: int) -> None:
        """Everything before it is committed, and can be read."""
        self.high_watermark = high_watermark
        self._noted_in = self._moved_marks.note(self.topic_partition, self._noted_in)
        if self._transactions.awaits_commit:
            self.log.producers.committed_to(high_watermark)

    # ------------------------------------------------------------ roles

    def apply(self, state: PartitionState, *, may_lead: bool = True) -> None:
        """Take on the role that ``state``, from the image, gives this node; not that of the leader unless it
        ``may_lead``."""
        leads = may_lead and state.leader == self.node_id
        if not leads or state.leader_epoch != self.state.leader_epoch:
            # What has been numbered in one leader's epoch is not to follow what the next one begins with.
            self.log.settle()
        before, self.state = self.state, state
        if leads:
            if self.leading is None or before.leader_epoch != state.leader_epoch:
                now_ms = self._cluster.monotonic_ms()
                self.leading = Leading(self.node_id, state, self.log.log_end_offset, now_ms)
            else:
                self.leading.update(state, self._cluster.monotonic_ms())
            self.advance()
            if self.deletions:
                self._tell_deletions()
        else:
            self.resign()
        self.wake()

    def resign(self) -> None:
        """Lead no more: whoever waits for a commit, or a deletion, is sent to the next leader."""
        self.log.settle()
        self.leading = None
        self.commits.end(KafkaError(ErrorCode.not_leader_or_follower))
        self.deletions.end(KafkaError(ErrorCode.not_leader_or_follower))

    def remove(self) -> None:
        """It is held here no more: whoever waits for it looks elsewhere."""
        self.removed = True
        self._noted_in = self._moved_marks.note(self.topic_partition, self._noted_in)
        self.resign()
        self.wake()

    def check_leader(self, current_leader_epoch: int = -1) -> None:
        """Refuse unless this node leads, in the epoch that the client believes in (KIP-320; -1: any)."""
        self.check_epoch(current_leader_epoch)
        if self.leading is None:
            raise KafkaError(ErrorCode.not_leader_or_follower)

    def check_epoch(self, current_leader_epoch: int) -> None:
        """Refuse who believes in another leader epoch than this node knows of (-1: any)."""
        if current_leader_epoch < 0 or current_leader_epoch == self.state.leader_epoch:
            return
        if current_leader_epoch < self.state.leader_epoch:
            raise KafkaError(ErrorCode.fenced_leader_epoch)
        raise KafkaError(ErrorCode.unknown_leader_epoch)

    # ------------------------------------------------------------ leading: appends and commits

    def append(
        self,
        records: Buffer,
        *,
        now_ms: int,
        acks: int = 1,
        origin: Origin = Origin.CLIENT,
        prepared: Prepared | None = None,
        then: Then | None = None,
        guard: VerificationGuard | None = None,
        transaction_version: int = 0,
    ) -> Appended:
        """Append as the leader and wake who waits for data. ``prepared`` and the rest: see ``Log.append``.

        Raises what ``Log.append`` does, NOT_LEADER_OR_FOLLOWER, and NOT_ENOUGH_REPLICAS where ``acks`` is all
        (-1) and fewer replicas are in sync than min.insync.replicas, or all that there are.
        """
        state = self.state
        leading = self.leading
        if leading is None:
            raise KafkaError(ErrorCode.not_leader_or_follower)
        log = self.log
        min_isr = log.config.min_insync_replicas
        if acks == -1 and len(state.isr) < min_isr and len(state.isr) < len(state.replicas):
            why = f"{len(state.isr)} replicas are in sync and min.insync.replicas is {min_isr}"
            raise KafkaError(ErrorCode.not_enough_replicas, why)
        appended = log.append(
            records,
            leader_epoch=state.leader_epoch,
            now_ms=now_ms,
            origin=origin,
            prepared=prepared,
            then=None if then is None else partial(self._written, leading, then),
            guard=guard,
            transaction_version=transaction_version,
        )
        if not appended.duplicate:
            self.traffic.appended(appended.last_offset - appended.base_offset + 1, len(records))
        if then is None:
            self._grown(leading)
        return appended

    def _written(self, leading: Leading, then: Then, error: KafkaError | None) -> None:
        if error is None:
            self._grown(leading)
        then(error)

    def append_marker(
        self, marker: EndMarker, producer_id: int, epoch: int, *, now_ms: int, transaction_version: int
    ) -> Appended:
        """End a producer's transaction here, as its coordinator says (WriteTxnMarkers): as ``append`` with
        acks=all. A late one is refused: ``Producers.check_marker``, also for ``transaction_version``."""
        batch, origin = build_marker(marker, producer_id, epoch, now_ms), Origin.COORDINATOR
        return self.append(
            batch, now_ms=now_ms, acks=-1, origin=origin, transaction_version=transaction_version
        )

    def begin_verification(
        self, producer_id: int, epoch: int, base_sequence: int, now_ms: int, *, bumps_epoch: bool
    ) -> VerificationGuard | None:
        """For a transactional batch: ``Producers.begin_verification``. NOT_LEADER_OR_FOLLOWER."""
        if self.leading is None:
            raise KafkaError(ErrorCode.not_leader_or_follower)
        return self.log.producers.begin_verification(
            producer_id, epoch, base_sequence, now_ms, bumps_epoch=bumps_epoch
        )

    def _grown(self, leading: Leading) -> None:
        """Something has been appended."""
        if len(leading.maximal_isr) == 1:
            self.advance()
        if self._append_waiters:
            tell(tuple(self._append_waiters))

    def advance(self) -> None:
        """Move the high watermark as far as what is known allows; tell whom that concerns."""
        leading = self.leading
        if leading is None:
            return
        end = self.log.log_end_offset
        if leading.followers:
            end = leading.high_watermark(
                end,
                self.log.config.min_insync_replicas,
                self._cluster.monotonic_ms(),
                self._cluster.lag_ms_max,
                self._is_eligible,
            )
        if end <= self.high_watermark:
            return
        self._is_committed_to(end)
        if self.commits.waiting:
            self._tell_commits(end)
        if self._waiters:
            tell(tuple(self._waiters))

    def _is_eligible(self, node_id: int, follower: Follower) -> bool:
        return self._cluster.is_eligible(node_id, follower.broker_epoch)

    def _tell_commits(self, end: int) -> None:
        assert self.leading is not None
        error = None
        min_isr = effective_min_isr(self.log.config.min_insync_replicas, self.state.replicas)
        if len(self.leading.maximal_isr) < min_isr:
            error = KafkaError(ErrorCode.not_enough_replicas_after_append)
        self.commits.reached(end, error)

    def when_committed(self, offset: int, committed: Committed) -> None:
        """Call ``committed`` once everything before ``offset`` is: NOT_ENOUGH_REPLICAS_AFTER_APPEND where
        too few replicas are in sync by then, NOT_LEADER_OR_FOLLOWER where this node stops leading first.

        Only while this node leads. At once where it is committed by now.
        """
        self.commits.add(offset, committed)
        if offset <= self.high_watermark:
            self._tell_commits(self.high_watermark)

    def forget_commit(self, committed: Committed) -> bool:
        """Nobody waits for this one any more; whether it had still to be told."""
        return self.commits.forget(committed)

    # ------------------------------------------------------------ leading: followers

    def follower_fetched(
        self,
        node_id: int,
        broker_epoch: int,
        offset: int,
        last_epoch: int,
        log_start_offset: int,
        *,
        current_leader_epoch: int,
    ) -> Follower:
        """A follower asks for ``offset``: it has what is before it, the last of it from ``last_epoch``.

        Divergence where its log is not a prefix of ours; KafkaError OFFSET_OUT_OF_RANGE where that cannot be
        told. For one that is no replica UNKNOWN_LEADER_EPOCH, since it may know of a reassignment before we
        do, and NOT_LEADER_OR_FOLLOWER where it names no epoch. None of it counts as progress.
        """
        leading = self.leading
        follower = leading.followers.get(node_id) if leading is not None else None
        if leading is None or follower is None:
            knows_us = leading is not None and current_leader_epoch >= 0
            raise KafkaError(ErrorCode.unknown_leader_epoch if knows_us else ErrorCode.not_leader_or_follower)
        if broker_epoch < max(follower.broker_epoch, 0):
            # Sent by a process that has ended since, or has lost its registration, perhaps to another one of
            # its id: what it had, the present one may not have (KIP-903).
            raise KafkaError(ErrorCode.not_leader_or_follower, "a request from no present registration")
        end = self.log.log_end_offset
        self.check_divergence(offset, last_epoch)
        if not self.log.log_start_offset <= offset <= end:
            raise KafkaError(ErrorCode.offset_out_of_range)
        follower.fetched(offset, log_start_offset, broker_epoch, end, self._cluster.monotonic_ms())
        if leading.may_join(node_id, self.high_watermark) and leading.pending is None:
            self._admit(node_id)
        self.advance()
        if self.deletions:
            self._tell_deletions()
        return follower

    def follower_stands(
        self, node_id: int, broker_epoch: int, follower: Follower, asked: Position, now_ms: int
    ) -> bool:
        """Whether a member of the ISR asks again for the log's end, and nothing has happened since it was
        last there: that is noted, and ``follower_fetched`` would do no more."""
        leading, log = self.leading, self.log
        end = log.log_end_offset
        if (
            asked.fetch_offset != end
            or self.high_watermark != end
            or follower.log_end_offset != end
            or follower.broker_epoch != broker_epoch
            or follower.log_start_offset != asked.log_start_offset
            or leading is None
            or leading.followers.get(node_id) is not follower
            or node_id not in leading.maximal_isr
            or asked.current_leader_epoch != self.state.leader_epoch
            or asked.last_fetched_epoch != log.latest_epoch
            or self.deletions
        ):
            return False
        follower.stands_at_end(now_ms)
        return True

    def check_divergence(self, offset: int, last_epoch: int) -> None:
        """Refuse who asks for ``offset`` and has read up to there from ``last_epoch`` (-1: it does not say),
        if that is not what this log has before it (Partition.readRecords).

        Divergence; KafkaError OFFSET_OUT_OF_RANGE where it cannot be told, or is before the log's start.
        """
        if last_epoch < 0:
            return
        epoch, end_offset = self.epoch_end_offset(last_epoch)
        divergence.check(self.log, offset, last_epoch, epoch, end_offset)

    def _admit(self, node_id: int) -> None:
        assert self.leading is not None
        if self._is_eligible(node_id, self.leading.followers[node_id]):
            self._propose(tuple(r for r in self.state.replicas if r in self.state.isr or r == node_id))

    def look_again(self) -> None:
        """Nodes came or went, or time did: a follower that is gone, or too far behind to join, holds nothing
        back."""
        if self.leading is not None:
            if self.high_watermark < self.log.log_end_offset:
                self.advance()
            if self.deletions:
                self._tell_deletions()

    def shrink(self) -> None:
        """Take followers that have not kept up out of the ISR (Kafka's maybeShrinkIsr)."""
        leading = self.leading
        if leading is None or leading.pending is not None:
            return
        out = leading.out_of_sync(
            self.log.log_end_offset, self._cluster.monotonic_ms(), self._cluster.lag_ms_max
        )
        if out:
            log.info("%s: %s not keeping up: leaving the in-sync replicas", self.topic_partition, out)
            self._propose(tuple(node for node in self.state.isr if node not in out))

    def propose_due(self) -> None:
        """Propose what the present ISR and configuration ask for, such as an ELR that is not needed now."""
        leading = self.leading
        if leading is not None and leading.pending is None and self.state.elr:
            wanted = with_isr(self.state, self.state.isr, self.log.config.min_insync_replicas)
            if (wanted.elr, wanted.last_elr) != (self.state.elr, self.state.last_elr):
                self._propose(self.state.isr)

    def _propose(self, isr: tuple[int, ...]) -> None:
        assert self.leading is not None
        state = with_isr(self.state, isr, self.log.config.min_insync_replicas)
        self.leading.propose(state)
        self._cluster.propose(self, state)

    def awaits(self, state: PartitionState) -> bool:
        """Whether it still leads, and waits for what becomes of a proposal."""
        return self.leading is not None and self.leading.pending is state

    def proposal_failed(self, state: PartitionState) -> None:
        """A proposal is known not to be in force, and the image is as new as what it lost against."""
        if self.leading is not None and self.leading.pending is state:
            self.leading.withdraw()
            self.advance()

    # ------------------------------------------------------------ leading: deletions

    def low_watermark(self) -> int:
        """The least log start of this leader and its living followers; -1 while one has not said it."""
        lowest = self.log.log_start_offset
        if self.leading is not None:
            for node_id, follower in self.leading.followers.items():
                if follower.log_start_offset < lowest and self._cluster.is_alive(node_id):
                    lowest = follower.log_start_offset
        return lowest

    def when_deleted(self, offset: int, deleted: Deleted) -> None:
        """Call ``deleted`` once no living replica has records before ``offset``. Not at once: whoever finds
        ``low_watermark`` there need not ask."""
        self.deletions.add(offset, deleted)

    def forget_deletion(self, deleted: Deleted) -> bool:
        """Nobody waits for this one any more; whether it had still to be told."""
        return self.deletions.forget(deleted)

    def _tell_deletions(self) -> None:
        self.deletions.reached(self.low_watermark())

    # ------------------------------------------------------------ following

    def append_as_follower(
        self, records: Buffer, leader_high_watermark: int, leader_log_start_offset: int, now_ms: int
    ) -> None:
        """Append what the leader sent in the present leader epoch, and go along with its high watermark and
        log start.

        Raises KafkaError as ``Log.append_as_follower`` does.
        """
        log = self.log
        if len(records):
            log.append_as_follower(records, now_ms=now_ms, leader_epoch=self.state.leader_epoch)
            self.traffic.follower_bytes_in += len(records)
        if leader_log_start_offset > log.log_start_offset:
            log.follow_log_start(leader_log_start_offset, now_ms)
        # A leader that is new may not know yet that what lies before its log's start is committed.
        committed = max(min(leader_high_watermark, log.log_end_offset), log.log_start_offset)
        if committed > self.high_watermark:
            self._is_committed_to(committed)
            tell(tuple(self._waiters))

    def truncate_to(self, offset: int, now_ms: int) -> None:
        """Cut off what the leader does not have. OSError where the disk fails."""
        if offset < self.high_watermark:
            what = "%s: truncating to %d, below the high watermark %d"
            log.warning(what, self.topic_partition, offset, self.high_watermark)
        self.log.truncate_to(offset, now_ms)
        self._is_committed_to(min(self.high_watermark, self.log.log_end_offset))
        self.wake()

    def restart_at(self, offset: int, now_ms: int) -> None:
        """Begin again, empty, at ``offset``: the leader has nothing before it any more. OSError."""
        self.log.truncate_fully_to(offset, now_ms)
        self._is_committed_to(offset)
        self.wake()

    # ------------------------------------------------------------ reading and waiting

    def read(self, offset: int, max_bytes: int, *, min_one: bool) -> Slice | None:
        """Where the visible records from ``offset`` lie; None where there are none yet.

        Raises KafkaError(OFFSET_OUT_OF_RANGE).
        """
        return self.log.read(offset, max_bytes, end_offset=self.high_watermark, min_one=min_one)

    def read_committed(
        self, offset: int, max_bytes: int, *, min_one: bool
    ) -> tuple[Slice | None, Sequence[tuple[int, int]]]:
        """The same up to the last stable offset, with the aborted transactions that records there may be of:
        (producer id, first offset)."""
        end, log = self.last_stable_offset, self.log
        piece = log.read(offset, max_bytes, end_offset=end, min_one=min_one)
        if piece is None:
            return None, ()
        return piece, log.aborted_in(offset, end, piece)

    def read_uncommitted(self, offset: int, max_bytes: int, *, min_one: bool) -> Slice | None:
        """The same up to the log's end, for followers."""
        return self.log.read(offset, max_bytes, end_offset=self.log.log_end_offset, min_one=min_one)

    def add_waiter(self, waiter: Waiter, *, follower: bool = False) -> None:
        """Call ``waiter`` whenever there may be more to read, or this replica's role has changed.

        ``follower``: it reads up to the log's end, others up to the high watermark.
        """
        (self._append_waiters if follower else self._waiters)[waiter] = None

    def remove_waiter(self, waiter: Waiter) -> None:
        self._waiters.pop(waiter, None)
        self._append_waiters.pop(waiter, None)

    def wake(self) -> None:
        tell((*self._waiters, *self._append_waiters))

    def epoch_end_offset(self, epoch: int) -> tuple[int, int]:
        """(epoch, end offset) of the largest epoch up to ``epoch``, (-1, -1) where it is not known."""
        return divergence.epoch_end(self.log, epoch, self.leader_epoch if self.leading is not None else None)

    def flushed(self) -> asyncio.Future[None]:
        """A future of all that is appended by now being on the disk: ``GroupCommit.flushed``."""
        return self._flushes.flushed()
