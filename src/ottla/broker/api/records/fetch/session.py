"""Fetch sessions: what a client fetches is remembered, so that it only sends what changed (KIP-227).

A session belongs to a client by its id, which is hard to guess, and its epoch counts the requests: a request
with another epoch than the next one is refused, since what it changes would be unknown.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Final
from uuid import UUID

from ottla.errors import KafkaError
from ottla.replication.divergence import Divergence
from ottla.replication.isr import Follower, Presence
from ottla.replication.partition import Partition

# The request's epoch that opens a session, and the one that ends or does without one.
INITIAL_EPOCH: Final = 0
FINAL_EPOCH: Final = -1
# Partitions of which the client knows all, and that are looked at all the same, by one request in so long.
AUDITED_MAX: Final = 100
AUDIT_EVERY_MS: Final = 100

# A topic by its name (up to Fetch v12) or by its id.
TopicKey = str | UUID
Key = tuple[TopicKey, int]
# The same in a session, with the number of a topic's id: an OrderedDict asks each key for its hash whenever
# one goes through it, and a UUID's is made by Python code.
Place = tuple[str | int, int]


def place_of(topic: TopicKey, partition: int) -> Place:
    return (topic.int if isinstance(topic, UUID) else topic, partition)


class Listener:
    """Who hears that something has happened to wants: those that have to be looked at are ``due``."""

    __slots__ = ("due", "ended", "waiter")

    def __init__(self) -> None:
        # A dict, since it is gone through in order.
        self.due: dict[Want, None] = {}
        # A request that is under way may still look at it.
        self.ended = False
        # Whom to tell that something is due.
        self.waiter: Callable[[], None] | None = None


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
        "listens_to",
        "log_start_offset",
        "max_bytes",
        "partition",
        "place",
        "refused",
        "replica",
        "sent",
        "session",
        "stands",
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
        # Where it stands among those that are asked for each time without a session.
        self.place = -1
        # The session that it is of, or who listens otherwise, if anybody, and the partition that it hears of.
        self.session: Listener | None = None
        self.listens_to: Partition | None = None
        # The partition as it was last found.
        self.replica: Partition | None = None
        # A follower's want: what its leader knows of it, or why it cannot be given what it asks for.
        self.follower: Follower | None = None
        self.refused: KafkaError | Divergence | None = None
        # A follower asked for the log's end again, as it did before.
        self.stands = False

    def join(self, session: Session) -> None:
        self.session, self.sent = session, Sent()

    def take(self, later: Want) -> None:
        """Want what a later request does. In another leader epoch whoever asks has dropped what it was told
        in the one before."""
        if self.follower is not None:
            self.follower.stop_standing()
        self.fetch_offset = later.fetch_offset
        self.max_bytes = later.max_bytes
        self.last_fetched_epoch = later.last_fetched_epoch
        self.log_start_offset = later.log_start_offset
        self.follower = self.refused = None
        self.stands = False
        if self.current_leader_epoch != later.current_leader_epoch:
            self.current_leader_epoch = later.current_leader_epoch
            self.sent, self.replica = Sent(), None

    def listen(self, *, follower: bool, both: bool) -> None:
        """Hear when the partition, which was found, has grown or changed its role. ``follower``: what is not
        committed counts, and what is if ``both``. In a session that has ended there is nobody to hear it."""
        partition, session = self.replica, self.session
        if self.listens_to is partition or partition is None or session is None or session.ended:
            return
        self._hear_nothing()
        self.listens_to = partition
        partition.add_waiter(self, follower=follower)
        if both:
            partition.add_waiter(self)

    def _hear_nothing(self) -> None:
        if self.listens_to is not None:
            self.listens_to.remove_waiter(self)
            self.listens_to = None

    def __call__(self) -> None:
        """The partition that it listens to has changed."""
        session = self.session
        if session is None or self.listens_to is None:
            return
        if self.follower is not None:
            self.follower.stop_standing()
        if session.waiter is not None:
            session.due[self] = None
            session.waiter()
        elif self in session.due:
            # Nobody has asked since it changed before. A session that is not used costs nothing after that.
            self._hear_nothing()
        else:
            session.due[self] = None

    def rouse(self) -> None:
        """It has to be looked at."""
        if self.session is not None:
            if self.follower is not None:
                self.follower.stop_standing()
            self.session.due[self] = None

    def leave(self) -> None:
        """The session goes on without it, or ends: later requests say nothing of it."""
        self._hear_nothing()
        if self.follower is not None:
            self.follower.stop_standing()
        self.session = None


class Sent:
    """What a client was last told of a partition in a session."""

    __slots__ = ("high_watermark", "last_stable_offset", "log_start_offset")

    def __init__(self) -> None:
        self.high_watermark = self.last_stable_offset = self.log_start_offset = -1

    def update(self, answer: dict[str, Any]) -> bool:
        """Take over an answer; whether there is anything in it that the client does not know."""
        troubled = bool(answer["error_code"]) or "diverging_epoch" in answer
        news = troubled or bool(answer["records"]) or "preferred_read_replica" in answer
        told = answer["high_watermark"], answer["last_stable_offset"], answer.get("log_start_offset", -1)
        if told != (self.high_watermark, self.last_stable_offset, self.log_start_offset):
            self.high_watermark, self.last_stable_offset, self.log_start_offset = told
            news = True
        if troubled:
            # The client has to hear of it again until it is over; a follower whose log parts from ours takes
            # nothing else from the answer.
            self.high_watermark = -1
        return news


class Session(Listener):
    """A client's partitions, in the order in which they are next to be served.

    ``due`` are those that have to be looked at: the client does not know all that is to be told of them. The
    others rest: they listen to their partitions, and are due again once something happens to one. So a
    session costs by what happens, not by how many partitions it has.
    """

    __slots__ = (
        "_audited_ms",
        "_reader",
        "by_id",
        "created_ms",
        "epoch",
        "is_follower",
        "is_old",
        "presence",
        "session_id",
        "used_ms",
        "wants",
    )

    def __init__(self, session_id: int, by_id: bool, now_ms: int, *, is_follower: bool = False) -> None:
        super().__init__()
        self.session_id = session_id
        self.by_id = by_id
        self.is_follower = is_follower
        self.epoch = 1
        self.created_ms = self.used_ms = self._audited_ms = now_ms
        # Whether it was old enough, when it was last used, to give way to one that is worth more.
        self.is_old = False
        self.wants: OrderedDict[Place, Want] = OrderedDict()
        # When a follower last asked for all that rests.
        self.presence = Presence()
        # As what the client reads: what one knows of a partition, another may have to be told.
        self._reader: object = None

    def update(self, wants: Iterable[Want], forgotten: Iterable[Key]) -> None:
        """Apply a request's changes: forgetting comes last, as in Kafka's FetchSession.update."""
        for want in wants:
            place = place_of(want.topic, want.partition)
            known = self.wants.get(place)
            if known is None:
                self.wants[place] = known = want
                want.join(self)
            else:
                known.take(want)
            self.due[known] = None
        for topic, partition in forgotten:
            gone = self.wants.pop(place_of(topic, partition), None)
            if gone is not None:
                gone.leave()
                self.due.pop(gone, None)

    def read_as(self, reader: object) -> None:
        """Whoever reads in this session now; if it is another than before, everything is due."""
        if reader != self._reader:
            if self._reader is not None:
                for want in self.wants.values():
                    want.rouse()
            self._reader = reader

    def candidates(self, now_ms: int) -> list[Want]:
        """What a request has to look at. Of those that rest some are looked at all the same, in turn, which
        finds what nobody told of, such as a log's start that retention has moved; of a small session all.
        Not by each request: a busy client sends thousands a second."""
        if now_ms - self._audited_ms < AUDIT_EVERY_MS:
            return self.roused()
        self._audited_ms = now_ms
        wants = self.wants
        if len(wants) <= AUDITED_MAX:
            return list(wants.values())
        chosen = self.due.copy()
        for _ in range(AUDITED_MAX):
            place, want = next(iter(wants.items()))
            wants.move_to_end(place)
            chosen[want] = None
        return list(chosen)

    def roused(self) -> list[Want]:
        """What is due, those that were served last at the end."""
        due = self.due
        if len(due) > 1 and len(self.wants) <= AUDITED_MAX:
            return [want for want in self.wants.values() if want in due]
        return list(due)

    def rest(self, want: Want, *, follower: bool, both: bool) -> None:
        """The client knows all of a partition that was found: it is due once something happens to it."""
        want.listen(follower=follower, both=both)
        if follower and want.follower is not None:
            want.follower.stand(self.presence)
        self.due.pop(want, None)

    def wait(self, waiter: Callable[[], None]) -> None:
        """Tell ``waiter`` from now on whenever something is due."""
        self.waiter = waiter

    def stop_waiting(self, waiter: Callable[[], None]) -> None:
        if self.waiter == waiter:
            self.waiter = None

    def end(self) -> None:
        """Nobody goes on with it: listen to nothing more. A request that waits would hear of nothing."""
        self.ended = True
        for want in self.wants.values():
            want.leave()
        if self.waiter is not None:
            self.waiter()

    def gives(self, want: Want, answer: dict[str, Any]) -> None:
        """The client is given records of a partition that is due, and of no other: what `news` does then."""
        if want.sent is not None:
            want.sent.update(answer)
        if len(self.wants) > 1:
            self.wants.move_to_end(place_of(want.topic, want.partition))
        if len(self.due) > 1 and self.due.pop(want, 0) is None:
            self.due[want] = None

    def news(self, answers: list[tuple[Want, dict[str, Any]]]) -> list[tuple[Want, dict[str, Any]]]:
        """The answers that tell the client something. Partitions that gave records go to the end of the
        line, so that those before them do not starve the others."""
        told = []
        for want, answer in answers:
            place = place_of(want.topic, want.partition)
            known = self.wants.get(place)
            if known is not None and known.sent is not None and known.sent.update(answer):
                told.append((want, answer))
                if answer["records"]:
                    self.wants.move_to_end(place)
                    if self.due.pop(known, 0) is None:
                        self.due[known] = None
        return told
