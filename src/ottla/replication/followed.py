"""The partitions that are fetched from one leader, and what its fetch session knows of them (pure; Kafka's
``FetchSessionHandler`` and ``PartitionFetchState``). Times are monotonic milliseconds."""

from __future__ import annotations

from itertools import islice
from typing import Any
from uuid import UUID

from ottla.replication.partition import Partition

# The first wait after a failure; it doubles up to replica.fetch.backoff.ms.
BACKOFF_MS_MIN = 20
# What one request names at most, so that no leader refuses it as too large (see Fetch in ``wire.apis``):
# partitions, each of which may be of a topic of its own, and those that are not to be fetched any more.
ASKED_MAX = 5_000
FORGOTTEN_MAX = 1_000
# Partitions of which is found out at once whether they are settled, at 0.3 microseconds each.
SETTLED_AT_ONCE_MAX = 5_000
NO_SESSION, FIRST_EPOCH, LAST_EPOCH = 0, 0, 2**31 - 1

Key = tuple[UUID, int]
Fields = dict[str, Any]


class Following:
    """One partition that is fetched, in one leader epoch."""

    __slots__ = ("backoff_ms", "behind", "key", "leader_epoch", "partition", "sent", "sent_start")

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.key: Key = (partition.topic_id, partition.topic_partition.partition)
        self.leader_epoch = partition.leader_epoch
        # The offset that the session fetches from, -1 where the session does not have this partition.
        self.sent = -1
        # The log start that the session was last told.
        self.sent_start = -1
        # Whether it has not all that is committed, as far as is known: only then it is held to a rate.
        self.behind = True
        self.backoff_ms = BACKOFF_MS_MIN

    @property
    def is_asked_for(self) -> bool:
        """Whether what a leader sends for it is an answer to what it wants: it was not put aside since, has
        no other leader epoch by now, and does not lead."""
        partition = self.partition
        return self.sent >= 0 and self.leader_epoch == partition.leader_epoch and partition.leading is None

    @property
    def is_known(self) -> bool:
        """Whether the session knows where it is to be fetched from."""
        log = self.partition.log
        return (log.log_end_offset, log.log_start_offset) == (self.sent, self.sent_start)

    def is_settled(self, node_id: int) -> bool:
        """Whether its leader will have nothing to tell but what it tells at once: all is committed, and this
        node in sync."""
        partition = self.partition
        return partition.high_watermark == partition.log.log_end_offset and node_id in partition.state.isr

    def ask(self, max_bytes: int) -> Fields:
        """What a request says of it."""
        log = self.partition.log
        self.sent, self.sent_start = log.log_end_offset, log.log_start_offset
        return {
            "partition": self.key[1],
            "current_leader_epoch": self.leader_epoch,
            "fetch_offset": self.sent,
            "last_fetched_epoch": log.latest_epoch,
            "log_start_offset": self.sent_start,
            "partition_max_bytes": max_bytes,
        }


class Followed:
    """What is followed, and the session."""

    __slots__ = (
        "_changed",
        "_forgotten",
        "_partitions",
        "_resting",
        "_unsettled",
        "session_epoch",
        "session_id",
    )

    def __init__(self) -> None:
        self.session_id = NO_SESSION
        self.session_epoch = FIRST_EPOCH
        self._partitions: dict[Key, Following] = {}
        # Those of them that the session does not know as they are now; those that have to wait, until when.
        self._changed: dict[Key, Following] = {}
        self._resting: dict[Key, int] = {}
        # Keys that the leader's session has and that are not to be fetched any more.
        self._forgotten: dict[Key, None] = {}
        # Those of which it is not known whether they are settled; the one that is not comes last.
        self._unsettled: list[Following] = []

    def __len__(self) -> int:
        return len(self._partitions)

    def get(self, key: Key) -> Following | None:
        return self._partitions.get(key)

    def has(self, following: Following) -> bool:
        """Whether it is still fetched from here, in that leader epoch."""
        return self._partitions.get(following.key) is following

    def is_settled(self, node_id: int, *, anew: bool) -> bool:
        """Whether each of them is (``Following.is_settled``). Of many some are looked at by each call, until
        one is not, or all are; ``anew`` where something may have changed since the last one."""
        if anew:
            self._unsettled = list(self._partitions.values())
        left = self._unsettled
        for _ in range(min(SETTLED_AT_ONCE_MAX, len(left))):
            if self.has(left[-1]) and not left[-1].is_settled(node_id):
                return False
            left.pop()
        return not left

    def add(self, partition: Partition) -> bool:
        """Fetch a partition in its present leader epoch; whether it was not already."""
        made = Following(partition)
        known = self._partitions.get(made.key)
        if known is not None and known.leader_epoch == made.leader_epoch:
            return False
        if known is not None and known.sent >= 0:
            # Should it have to wait before it is asked for: the session has it in an epoch that is over.
            self._forgotten[made.key] = None
        self._partitions[made.key] = self._changed[made.key] = made
        self._resting.pop(made.key, None)
        return True

    def drop(self, partition: Partition) -> None:
        """Fetch a partition no more."""
        key = (partition.topic_id, partition.topic_partition.partition)
        if self._partitions.pop(key, None) is not None:
            self._changed.pop(key, None)
            self._resting.pop(key, None)
            self._forgotten[key] = None

    # The session

    def begin_anew(self) -> None:
        """There is no session: the next request tells everything."""
        self.session_id, self.session_epoch = NO_SESSION, FIRST_EPOCH
        self._forgotten.clear()
        self._changed.clear()
        for key, following in self._partitions.items():
            following.sent = -1
            if key not in self._resting:
                self._changed[key] = following

    def answered(self, session_id: int) -> None:
        """The request was answered in this session."""
        self.session_id = session_id
        self.session_epoch = 1 if self.session_epoch == LAST_EPOCH else self.session_epoch + 1

    def change(self, following: Following) -> None:
        """The session is to be told of it."""
        self._changed[following.key] = following

    def told(self, following: Following) -> None:
        """The session knows of it, if it does."""
        if following.is_known:
            self._changed.pop(following.key, None)

    def ask_last(self, following: Following) -> None:
        """Others must not go without for its sake."""
        self._partitions[following.key] = self._partitions.pop(following.key)

    @property
    def changed(self) -> list[Following]:
        """What the session is to be told of next."""
        return list(islice(self._changed.values(), ASKED_MAX))

    @property
    def has_more(self) -> bool:
        """Whether there is something left to tell, which did not fit into the last request."""
        return bool(self._changed or self._forgotten)

    def ask(self, following: Following, topics: dict[UUID, list[Fields]], max_bytes: int) -> None:
        """Put into ``topics`` what the next request says of it."""
        asked = following.ask(max_bytes)
        del self._changed[following.key]
        self._forgotten.pop(following.key, None)
        topics.setdefault(following.key[0], []).append(asked)
        if self.session_id == NO_SESSION and len(self._partitions) > ASKED_MAX:
            # Where there never is a session, all have to be asked for in turn.
            self.ask_last(following)

    def take_forgotten(self) -> list[Fields]:
        """What the next request says is not to be fetched any more."""
        forgotten: dict[UUID, list[int]] = {}
        for key in list(islice(self._forgotten, FORGOTTEN_MAX)):
            del self._forgotten[key]
            forgotten.setdefault(key[0], []).append(key[1])
        return [{"topic_id": key, "partitions": value} for key, value in forgotten.items()]

    # Rests

    def rest(self, following: Following, until_ms: int) -> None:
        """Leave a partition out for a while."""
        if not self.has(following):
            return
        self._resting[following.key] = until_ms
        self._changed.pop(following.key, None)
        if following.sent >= 0:
            following.sent = -1
            self._forgotten[following.key] = None

    def wake_rested(self, now_ms: int) -> None:
        """Fetch again what has waited for long enough."""
        if self._resting:
            for key in [key for key, until_ms in self._resting.items() if until_ms <= now_ms]:
                del self._resting[key]
                self._changed[key] = self._partitions[key]

    def end_rests(self) -> bool:
        """Let nobody wait any longer; whether somebody did."""
        rested = bool(self._resting)
        self._resting = dict.fromkeys(self._resting, 0)
        return rested

    def rest_ms(self, now_ms: int) -> int | None:
        """How long until the next rest ends; None where nobody rests."""
        return max(min(self._resting.values()) - now_ms, 1) if self._resting else None

    @property
    def all_rest(self) -> bool:
        return len(self._resting) == len(self._partitions)
