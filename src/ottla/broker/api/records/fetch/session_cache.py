"""This node's fetch sessions: how many there are, how large, and who gives way to whom (KIP-227)."""

from __future__ import annotations

import os
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from ottla.broker.api.records.fetch.habits import Habits
from ottla.broker.api.records.fetch.large_waits import LargeWaits
from ottla.broker.api.records.fetch.session import Key, Session, Want
from ottla.env.clock import Clock
from ottla.errors import ErrorCode, KafkaError

_EPOCH_MAX = 2**31 - 1
# Partitions of one session, and of all: half a kilobyte each. Kafka has no such limit; a client that wants
# more goes without a session.
SESSION_PARTITIONS_MAX = 50_000
PARTITIONS_MAX = 400_000

# What a session is worth: followers' are worth more, then larger ones, then later ones (EvictableKey).
Worth = tuple[bool, int, int]


def _random_id() -> int:
    """31 bits that nobody guesses, and not 0: whoever has a session's id may end it."""
    return int.from_bytes(os.urandom(4)) >> 1 or 1


class FetchSessions:
    """This node's sessions (Kafka's FetchSessionCacheShard)."""

    def __init__(
        self,
        clock: Clock,
        *,
        slots_max: int = 1000,
        eviction_ms_min: int = 120_000,
        session_partitions_max: int = SESSION_PARTITIONS_MAX,
        partitions_max: int = PARTITIONS_MAX,
        new_id: Callable[[], int] = _random_id,
    ) -> None:
        """``eviction_ms_min``: a session gives way when it has not been used for so long, and to one that is
        worth more when it has been there for so long."""
        self._clock = clock
        self._slots_max = slots_max
        self._eviction_ms_min = eviction_ms_min
        self._session_partitions_max = session_partitions_max
        self._partitions_max = partitions_max
        self._new_id = new_id
        # The one that was used least recently comes first.
        self._sessions: OrderedDict[int, Session] = OrderedDict()
        # Partitions of all sessions.
        self.partitions = 0
        # Fetches that wait for more records, with a session or without.
        self.waiting = 0
        # How many gave way to others.
        self.evicted = 0
        # Clients that go without one.
        self.without = LargeWaits()
        # What is kept of them, where they ask for the same each time.
        self.habits = Habits()
        # Each session's worth as of its last use; sorted, those that may give way to whoever is worth more,
        # and those that may to a follower.
        self._worth: dict[int, Worth] = {}
        self._evictable_by_all: list[Worth] = []
        self._evictable_by_followers: list[Worth] = []

    def __len__(self) -> int:
        return len(self._sessions)

    def open(
        self, by_id: bool, wants: Sequence[Want], *, is_follower: bool = False, size: int = 0
    ) -> Session | None:
        """A new session for these partitions, or None where there is no room: the client goes without.

        ``size``: how many it will have, where these are only the first (``grown``)."""
        now_ms = self._clock.monotonic_ms()
        size = max(size, len(wants))
        if size > self._session_partitions_max:
            return None
        while len(self._sessions) >= self._slots_max or self.partitions + size > self._partitions_max:
            if not self._evict((is_follower, size, 0), now_ms):
                return None
        session_id = self._new_id()
        while session_id in self._sessions:
            session_id = self._new_id()
        session = Session(session_id, by_id, now_ms, is_follower=is_follower)
        session.update(wants, ())
        self._sessions[session_id] = session
        self._used(session, now_ms)
        return session

    def resume(
        self, session_id: int, epoch: int, by_id: bool, wants: Iterable[Want], forgotten: Iterable[Key]
    ) -> Session:
        """The session with this request's changes applied.

        KafkaError: FETCH_SESSION_ID_NOT_FOUND, also where it would become too large; it is gone then.
        INVALID_FETCH_SESSION_EPOCH; FETCH_SESSION_TOPIC_ID_ERROR where a session that began with names goes
        on with ids, or the other way round.
        """
        session = self._sessions.get(session_id)
        if session is None:
            raise KafkaError(ErrorCode.fetch_session_id_not_found)
        if session.epoch != epoch:
            raise KafkaError(ErrorCode.invalid_fetch_session_epoch)
        if session.by_id != by_id:
            raise KafkaError(ErrorCode.fetch_session_topic_id_error)
        session.update(wants, forgotten)
        session.epoch = 1 if epoch == _EPOCH_MAX else epoch + 1
        self._sessions.move_to_end(session_id)
        self.grown(session)
        return session

    def grown(self, session: Session) -> None:
        """A session has got more partitions, or fewer. KafkaError FETCH_SESSION_ID_NOT_FOUND where they are
        too many; it is gone then."""
        if self._sessions.get(session.session_id) is not session:
            return
        self._used(session, self._clock.monotonic_ms())
        if len(session.wants) > self._session_partitions_max or self.partitions > self._partitions_max:
            self.close(session.session_id)
            raise KafkaError(ErrorCode.fetch_session_id_not_found, "the session has too many partitions")

    def close(self, session_id: int) -> None:
        session = self._sessions.pop(session_id, None)
        if session is None:
            return
        worth = self._worth.pop(session_id)
        self.partitions -= worth[1]
        for evictable in (self._evictable_by_all, self._evictable_by_followers):
            _discard(evictable, worth)
        session.end()

    def _used(self, session: Session, now_ms: int) -> None:
        """Note what it is worth now, and to whom it may give way (FetchSessionCacheShard.touch)."""
        session.used_ms = now_ms
        worth = (session.is_follower, len(session.wants), session.session_id)
        before = self._worth.get(session.session_id)
        old = now_ms - session.created_ms > self._eviction_ms_min
        if worth == before and session.is_old == old:
            return
        if before is not None:
            self.partitions -= before[1]
            for evictable in (self._evictable_by_all, self._evictable_by_followers):
                _discard(evictable, before)
        self.partitions += worth[1]
        self._worth[session.session_id] = worth
        session.is_old = old
        if old:
            insort(self._evictable_by_all, worth)
        if old or not session.is_follower:
            insort(self._evictable_by_followers, worth)

    def _evict(self, worth: Worth, now_ms: int) -> bool:
        """Have one give way to a session that is worth so much (FetchSessionCacheShard.tryEvict)."""
        oldest = next(iter(self._sessions.values()), None)
        if oldest is None:
            return False
        if now_ms - oldest.used_ms > self._eviction_ms_min:
            self._give_way(oldest.session_id)
            return True
        evictable = self._evictable_by_followers if worth[0] else self._evictable_by_all
        if not evictable or worth < evictable[0]:
            return False
        self._give_way(evictable[0][2])
        return True

    def _give_way(self, session_id: int) -> None:
        self.evicted += 1
        self.close(session_id)


def _discard(evictable: list[Worth], worth: Worth) -> None:
    at = bisect_left(evictable, worth)
    if at < len(evictable) and evictable[at] == worth:
        del evictable[at]
