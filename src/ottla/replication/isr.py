"""What a leader knows of its followers, and what follows from it: the high watermark, who joins and who
leaves the in-sync replicas (pure; Kafka's ``Replica`` and the arithmetic of ``Partition``).

docs/decisions/0009-cluster.md has the rules that are kept here.
"""

from __future__ import annotations

from collections.abc import Callable

from ottla.metadata.image import PartitionState

UNKNOWN_OFFSET = -1
UNKNOWN_EPOCH = -1


class Presence:
    """When a follower last asked for all of those partitions in which it stands, as a whole. Monotonic
    milliseconds."""

    __slots__ = ("asked_ms",)

    def __init__(self) -> None:
        self.asked_ms = 0


class Follower:
    """What a leader has heard from one follower in its present leader epoch (Kafka's ``ReplicaState``)."""

    __slots__ = (
        "_caught_up_ms",
        "_fetched_ms",
        "_presence",
        "broker_epoch",
        "leader_end_offset",
        "log_end_offset",
        "log_start_offset",
        "told_high_watermark",
        "told_log_start",
    )

    def __init__(self, caught_up_ms: int) -> None:
        # It has everything before this offset; -1 until it has fetched.
        self.log_end_offset = UNKNOWN_OFFSET
        self.log_start_offset = UNKNOWN_OFFSET
        # The registration that it fetches with, as the image has it.
        self.broker_epoch = UNKNOWN_EPOCH
        # When it last had all that the leader had; when it last fetched, and where the leader's log ended.
        self._caught_up_ms = caught_up_ms
        self._fetched_ms = 0
        # While it stands at the leader's end: it is there at each request, which tells so for all at once.
        self._presence: Presence | None = None
        self.leader_end_offset = UNKNOWN_OFFSET
        # The last high watermark and log start that a response told it.
        self.told_high_watermark = UNKNOWN_OFFSET
        self.told_log_start = UNKNOWN_OFFSET

    @property
    def caught_up_ms(self) -> int:
        presence = self._presence
        return self._caught_up_ms if presence is None else max(self._caught_up_ms, presence.asked_ms)

    @property
    def fetched_ms(self) -> int:
        presence = self._presence
        return self._fetched_ms if presence is None else max(self._fetched_ms, presence.asked_ms)

    def stands_at_end(self, now_ms: int) -> None:
        """It asks for the leader's end, where it was before."""
        self._caught_up_ms = self._fetched_ms = now_ms

    def stand(self, presence: Presence) -> None:
        """It has all that there is, and is there whenever ``presence`` is."""
        self._presence = presence

    def stop_standing(self) -> None:
        """It stands no more, for the leader is going on: what its presence said until now is noted."""
        if self._presence is not None:
            self._caught_up_ms, self._fetched_ms = self.caught_up_ms, self.fetched_ms
            self._presence = None

    def fetched(
        self, offset: int, log_start_offset: int, broker_epoch: int, leader_end_offset: int, now_ms: int
    ) -> None:
        """It asked for ``offset``, so it has everything before it."""
        self.stop_standing()
        if offset >= leader_end_offset:
            self._caught_up_ms = now_ms
        elif offset >= self.leader_end_offset >= 0:
            # It has by now what the leader had at its last fetch.
            self._caught_up_ms = max(self._caught_up_ms, self._fetched_ms)
        self.log_end_offset = offset
        self.log_start_offset = log_start_offset
        self.broker_epoch = broker_epoch
        self.leader_end_offset = leader_end_offset
        self._fetched_ms = now_ms

    def is_caught_up(self, leader_end_offset: int, now_ms: int, lag_ms_max: int) -> bool:
        return self.log_end_offset == leader_end_offset or now_ms - self.caught_up_ms <= lag_ms_max


class Leading:
    """A leader's part in one partition for one leader epoch. Times are monotonic milliseconds."""

    __slots__ = ("epoch_start_offset", "followers", "maximal_isr", "node_id", "pending", "state")

    def __init__(self, node_id: int, state: PartitionState, log_end_offset: int, now_ms: int) -> None:
        self.node_id = node_id
        self.state = state
        # Where its own records begin: followers must have what came before to count as in sync.
        self.epoch_start_offset = log_end_offset
        # A change of the ISR that was proposed and may be in force.
        self.pending: PartitionState | None = None
        self.followers: dict[int, Follower] = {}
        self.maximal_isr: tuple[int, ...] = ()
        self._take(state, now_ms)

    def update(self, state: PartitionState, now_ms: int) -> None:
        """The partition's state is another one, of the same leader epoch."""
        if self.pending is not None and state.partition_epoch >= self.pending.partition_epoch:
            self.pending = None
        self._take(state, now_ms)

    def _take(self, state: PartitionState, now_ms: int) -> None:
        self.state = state
        for node_id in list(self.followers):
            if node_id not in state.replicas:
                del self.followers[node_id]
        for node_id in state.replicas:
            if node_id != self.node_id and node_id not in self.followers:
                # Whoever is in sync has a lag's time to show it; others begin as far behind as can be.
                self.followers[node_id] = Follower(now_ms if node_id in state.isr else -(2**62))
        self._measure()

    def propose(self, state: PartitionState) -> None:
        """A new ISR is on its way to the store: until its fate is known both count."""
        self.pending = state
        self._measure()

    def withdraw(self) -> None:
        """The proposal is known not to be in force."""
        self.pending = None
        self._measure()

    def _measure(self) -> None:
        isr = self.state.isr
        if self.pending is not None:
            isr = tuple(dict.fromkeys(isr + self.pending.isr))
        self.maximal_isr = isr

    def high_watermark(
        self,
        log_end_offset: int,
        min_isr: int,
        now_ms: int,
        lag_ms_max: int,
        eligible: Callable[[int, Follower], bool],
    ) -> int:
        """The offset before which everything is committed, as far as is known; -1 where nothing can be said.

        It stands still while too few replicas are in sync, and while there are eligible leaders outside the
        ISR: those must not miss what is committed (KIP-966). As in Kafka it waits for a replica that is about
        to join the ISR, which otherwise a busy leader would always stay ahead of.
        """
        state = self.state
        if state.elr or len(state.isr) < min(min_isr, len(state.replicas)):
            return UNKNOWN_OFFSET
        lowest = log_end_offset
        maximal = self.maximal_isr
        for node_id, follower in self.followers.items():
            end = follower.log_end_offset
            if end < lowest and (
                node_id in maximal
                or (
                    end >= 0
                    and follower.is_caught_up(log_end_offset, now_ms, lag_ms_max)
                    and eligible(node_id, follower)
                )
            ):
                lowest = end
        return lowest

    def may_join(self, node_id: int, high_watermark: int) -> bool:
        """Whether a follower has all that a member of the ISR must have."""
        follower = self.followers.get(node_id)
        return (
            follower is not None
            and node_id not in self.maximal_isr
            and follower.log_end_offset >= max(high_watermark, self.epoch_start_offset)
        )

    def out_of_sync(self, log_end_offset: int, now_ms: int, lag_ms_max: int) -> list[int]:
        """The members of the ISR that have not kept up."""
        return [
            node_id
            for node_id in self.state.isr
            if node_id != self.node_id
            and not self.followers[node_id].is_caught_up(log_end_offset, now_ms, lag_ms_max)
        ]
