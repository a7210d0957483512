"""Fetch sessions: what a client fetches is remembered, so that it only sends what changed (KIP-227).

A session belongs to a client by its id, which is hard to guess, and its epoch counts the requests: a request
with another epoch than the next one is refused, since what it changes would be unknown. Sessions are kept up
to a number; a new one then takes the place of the one that was used least recently, if that was long ago.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from ottla.env.clock import Clock
from ottla.errors import ErrorCode, KafkaError
from ottla.replication.isr import Follower
from ottla.replication.partition import Divergence, Partition

# The request's epoch that opens a session, and the one that ends or does without one.
INITIAL_EPOCH, FINAL_EPOCH = 0, -1
_EPOCH_MAX = 2**31 - 1

# A topic by its name (up to Fetch v12) or by its id.
TopicKey = str | UUID
Key = tuple[TopicKey, int]


class Want:
    """One partition that a client wants to read, and from where; followers say what they have besides.

    With it stands what this node found for it, so that a partition to which nothing happens costs a few
    comparisons and no look-up: a follower asks for hundreds of them each time.
    """

    __slots__ = (
        "current_leader_epoch",
        "fetch_offset",
        "follower",
        "last_fetched_epoch",
        "log_start_offset",
        "max_bytes",
        "partition",
        "refused",
        "replica",
        "sent",
        "topic",
    )

    def __init__(
        self,
        topic: TopicKey,
        partition: int,
        fetch_offset: int,
        max_bytes: int,
        current_leader_epoch: int,
        last_fetched_epoch: int = -1,
        log_start_offset: int = -1,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.fetch_offset = fetch_offset
        self.max_bytes = max_bytes
        self.current_leader_epoch = current_leader_epoch
        self.last_fetched_epoch = last_fetched_epoch
        self.log_start_offset = log_start_offset
        # What the client was last told, in a session.
        self.sent: Sent | None = None
        # The partition that this node led when it last looked.
        self.replica: Partition | None = None
        # A follower's want: what its leader knows of it, or why it cannot be given what it asks for.
        self.follower: Follower | None = None
        self.refused: KafkaError | Divergence | None = None


class Sent:
    """What a client was last told of a partition in a session."""

    __slots__ = ("high_watermark", "last_stable_offset", "log_start_offset")

    def __init__(self) -> None:
        self.high_watermark = self.last_stable_offset = self.log_start_offset = -1

    def update(self, answer: dict[str, Any]) -> bool:
        """Take over an answer; whether there is anything in it that the client does not know."""
        troubled = bool(answer["error_code"]) or "diverging_epoch" in answer
        news = troubled or bool(answer["records"]) or "preferred_read_replica" in answer
        for name in self.__slots__:
            value = answer.get(name, -1)
            if value != getattr(self, name):
                setattr(self, name, value)
                news = True
        if troubled:
            # The client has to hear of it again until it is over; a follower whose log parts from ours takes
            # nothing else from the answer.
            self.high_watermark = -1
        return news


class Session:
    """A client's partitions, in the order in which they are next to be served."""

    __slots__ = ("by_id", "epoch", "is_follower", "session_id", "used_ms", "wants")

    def __init__(self, session_id: int, by_id: bool, now_ms: int, *, is_follower: bool = False) -> None:
        self.session_id = session_id
        self.by_id = by_id
        self.is_follower = is_follower
        self.epoch = 1
        self.used_ms = now_ms
        self.wants: OrderedDict[Key, Want] = OrderedDict()

    def update(self, wants: Iterable[Want], forgotten: Iterable[Key]) -> None:
        """Apply a request's changes: forgetting comes last, as in Kafka's FetchSession.update."""
        for want in wants:
            key = (want.topic, want.partition)
            before = self.wants.get(key)
            self.wants[key] = want
            if before is not None and before.current_leader_epoch == want.current_leader_epoch:
                want.sent, want.replica = before.sent, before.replica
            else:
                # In another leader epoch whoever asks has dropped what it was told in the one before.
                want.sent = Sent()
        for key in forgotten:
            self.wants.pop(key, None)

    def news(self, answers: list[tuple[Want, dict[str, Any]]]) -> list[tuple[Want, dict[str, Any]]]:
        """The answers that tell the client something. Partitions that gave records go to the end of the
        line, so that those before them do not starve the others."""
        told = []
        for want, answer in answers:
            key = (want.topic, want.partition)
            known = self.wants.get(key)
            if known is not None and known.sent is not None and known.sent.update(answer):
                told.append((want, answer))
                if answer["records"]:
                    self.wants.move_to_end(key)
        return told


class FetchSessions:
    """This node's sessions (Kafka's FetchSessionCache)."""

    def __init__(
        self,
        clock: Clock,
        *,
        slots_max: int = 1000,
        eviction_ms_min: int = 120_000,
        new_id: Callable[[], int] = lambda: random.getrandbits(31) or 1,
    ) -> None:
        self._clock = clock
        self._slots_max = slots_max
        self._eviction_ms_min = eviction_ms_min
        self._new_id = new_id
        # The one that was used least recently comes first.
        self._sessions: OrderedDict[int, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, by_id: bool, wants: Iterable[Want], *, is_follower: bool = False) -> Session | None:
        """A new session for these partitions, or None where there is no room: the client goes without.

        A follower has a consumer's place then: it asks for most partitions, and all the time.
        """
        now_ms = self._clock.monotonic_ms()
        if len(self._sessions) >= self._slots_max and not self._evict(is_follower, now_ms):
            return None
        session_id = self._new_id()
        while session_id in self._sessions:
            session_id = self._new_id()
        session = Session(session_id, by_id, now_ms, is_follower=is_follower)
        session.update(wants, ())
        self._sessions[session_id] = session
        return session

    def resume(
        self, session_id: int, epoch: int, by_id: bool, wants: Iterable[Want], forgotten: Iterable[Key]
    ) -> Session:
        """The session with this request's changes applied.

        KafkaError: FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH, or FETCH_SESSION_TOPIC_ID_ERROR
        where a session that began with names goes on with ids, or the other way round.
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
        session.used_ms = self._clock.monotonic_ms()
        self._sessions.move_to_end(session_id)
        return session

    def close(self, session_id: int) -> None:
        self._sessions.pop(session_id, None)

    def _evict(self, for_follower: bool, now_ms: int) -> bool:
        oldest = next(iter(self._sessions.values()), None)
        if oldest is not None and now_ms - oldest.used_ms < self._eviction_ms_min:
            consumers = (one for one in self._sessions.values() if not one.is_follower)
            oldest = next(consumers, None) if for_follower else None
        if oldest is None:
            return False
        del self._sessions[oldest.session_id]
        return True
