"""Reading for a Fetch: what each of its partitions has for whoever asks, a consumer or a follower.

A consumer reads up to the high watermark, a read_committed one up to the last stable offset and with a list
of aborted transactions, from the leader, or from any replica if its request says where it stands (KIP-392).
A follower reads up to the leader's log end; that it asks for an offset tells that it has
what is before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from ottla.broker.api.records.fetch.rights import may_read
from ottla.broker.api.records.fetch.session import Session, Want
from ottla.broker.request import RequestContext
from ottla.broker.views.leader import leader_fields, leader_nodes
from ottla.errors import ErrorCode, KafkaError
from ottla.log.segments import Slice
from ottla.replication.claims import NOBODY
from ottla.replication.divergence import Divergence
from ottla.replication.manager import ReplicaManager
from ottla.replication.partition import Partition

log = logging.getLogger(__name__)

# What is not known of a partition that could not be read.
_UNKNOWN: Final = {"high_watermark": -1, "last_stable_offset": -1, "log_start_offset": -1, "records": b""}
_UNKNOWN_NAMES: Final = (
    ErrorCode.unknown_topic_or_partition,
    ErrorCode.unknown_topic_id,
    ErrorCode.topic_authorization_failed,
)
_UNREADABLE: Final = ErrorCode.topic_authorization_failed
# How much is read on the event loop at a stretch, from memory: a millisecond to copy.
READ_AT_ONCE_BYTES_MAX: Final = 8 * 1024 * 1024
# Aborted transactions of a partition that are told at once: some milliseconds' work. Where there are more,
# less is read, but not less than so much: they may all have begun before that.
ABORTED_MAX: Final = 5_000
READ_BYTES_MIN: Final = 16 * 1024
# A consumer's request says from here on where it stands, and may be served by any replica.
ANY_REPLICA_SINCE: Final = 11


class Limits(NamedTuple):
    """What a request sets for the whole of its response."""

    max_bytes: int
    min_bytes: int
    max_wait_ms: int
    committed: bool
    # The follower that it is from, with the broker epoch of its registration; -1 for a consumer.
    follower_id: int
    follower_epoch: int
    # A consumer's rack, empty where it names none, and whether any replica may serve it.
    rack: str
    any_replica: bool


# Where in them begins what tells one reader from another.
WHO_READS: Final = Limits._fields.index("committed")


class Found(NamedTuple):
    """What was found for one partition: where its records lie, and the rest of its answer."""

    want: Want
    slice: Slice | None
    answer: dict[str, Any]


class Collected:
    """One look at all of a request's partitions, so far."""

    __slots__ = ("final", "found", "size")

    def __init__(self, found: list[Found], size: int = 0, *, final: bool = False) -> None:
        self.found = found
        self.size = size
        # Waiting for more would be of no use: an error is to be told, or there is no room for so much.
        self.final = final


class Reader:
    """One request's looks at its partitions: the first one when it comes, more while it waits.

    In a session only at what is due; without one at all of them each time.
    """

    __slots__ = ("_ctx", "_is_follower", "_is_limited", "_session", "_skips", "limits", "wants")

    def __init__(
        self,
        ctx: RequestContext,
        session: Session | None,
        wants: list[Want],
        limits: Limits,
        *,
        notes: bool = True,
    ) -> None:
        """``notes``: note what a follower has by now; otherwise ``note_progress`` is to be called."""
        self.limits = limits
        self._ctx = ctx
        self._session = session
        self._is_follower = limits.follower_id >= 0
        # Whether a partition of which the client knows all may be passed over without being read, which would
        # find a nearer replica.
        self._skips = not (limits.rack and ctx.services.replicas.followers_serve)
        # Whether a consumer may not read all topics; of followers the handler has asked what they may.
        self._is_limited = not self._is_follower and ctx.client.permissions is not None
        if session is not None:
            wants = session.candidates(ctx.services.clock.monotonic_ms())
        self.wants = wants
        if notes and self._is_follower:
            due = 0 if session is None else len(session.due)
            self.note_progress(wants)
            if session is not None and len(session.due) > due:
                # What is committed by this has led to something else that is appended here, such as the end
                # of a transaction: nobody tells of that later.
                self.wants = list(dict.fromkeys([*wants, *session.due]))

    @property
    def may_share(self) -> bool:
        """Whether what is found for this one may be given to others: to consumers, and where none may be sent
        to a nearer replica, which is for the moment to decide."""
        return not self._is_follower and not (
            self.limits.rack and self._ctx.services.replicas.followers_serve
        )

    def note_progress(self, wants: Iterable[Want]) -> None:
        """Note what a follower has by now, once for each request."""
        if not self._is_follower:
            return
        limits = self.limits
        node_id, epoch = limits.follower_id, limits.follower_epoch
        now_ms = self._ctx.services.clock.monotonic_ms()
        if self._session is not None and epoch != NOBODY:
            self._session.presence.asked_ms = now_ms
        for want in wants:
            want.refused = None
            replica = want.replica
            want.stands = (
                replica is not None
                and want.follower is not None
                and replica.follower_stands(node_id, epoch, want.follower, want, now_ms)
            )
            if want.stands:
                continue
            try:
                want.follower = self.find(want).follower_fetched(
                    node_id,
                    epoch,
                    want.fetch_offset,
                    want.last_fetched_epoch,
                    want.log_start_offset,
                    current_leader_epoch=want.current_leader_epoch,
                )
            except (KafkaError, Divergence) as error:
                want.follower, want.refused = None, error

    def find(self, want: Want) -> Partition:
        """The partition, if this node may serve this reader from it. KafkaError as ReplicaManager.get."""
        known = want.replica
        if known is not None and known.leading is not None:
            known.check_epoch(want.current_leader_epoch)
            return known
        replicas: ReplicaManager = self._ctx.services.replicas
        topic = want.topic
        name = topic if type(topic) is str else replicas.topic_name(topic)  # type: ignore[arg-type]
        partition = replicas.get(name, want.partition)
        # A state that names this node, which does not lead, is of a registration that has ended: the log may
        # be another one by now, and the reader be told that its offset is out of range.
        if (
            partition.leading is None
            and self.limits.any_replica
            and partition.state.leader != partition.node_id
        ):
            partition.check_epoch(want.current_leader_epoch)
        else:
            partition.check_leader(want.current_leader_epoch)
        want.replica = partition
        return partition

    def found_partitions(self) -> list[Partition]:
        """The partitions that this node may serve this reader from."""
        partitions = []
        for want in self.wants:
            try:
                partitions.append(self.find(want))
            except KafkaError:
                # It is told of when the request is answered.
                continue
        return partitions

    def listen(self, session: Session) -> None:
        """Hear of what is due in a session when more of it comes, or another role."""
        both = self._is_follower and self._ctx.services.replicas.followers_serve
        for want in session.due:
            if want.listens_to is None or want.listens_to is not want.replica:
                self._listen_to(want, both=both)

    def _listen_to(self, want: Want, *, both: bool) -> None:
        try:
            self.find(want)
        except KafkaError:
            # It is told of when the request is answered.
            return
        want.listen(follower=self._is_follower, both=both)

    def listen_to(self, wants: Iterable[Want]) -> None:
        """The same for some partitions."""
        both = self._is_follower and self._ctx.services.replicas.followers_serve
        for want in wants:
            self._listen_to(want, both=both)

    def look_again(self) -> None:
        """Look at what is due by now in a session."""
        if self._session is not None:
            self.wants = self._session.roused()

    def _let_rest(self, want: Want) -> None:
        """There is nothing to look for in a partition of the session until something happens to it; unless
        its follower has to be looked after."""
        if self._session is not None and (want.stands or not self._is_follower):
            both = self._is_follower and self._ctx.services.replicas.followers_serve
            self._session.rest(want, follower=self._is_follower, both=both)

    def _knows_all(self, want: Want) -> bool:
        """Whether the client has been told all that there is to tell of a partition."""
        sent, partition = want.sent, want.replica
        if sent is None or partition is None:
            return False
        if partition.leading is None and (
            not self.limits.any_replica or partition.removed or partition.state.leader == partition.node_id
        ):
            return False
        log = partition.log
        high_watermark = partition.high_watermark
        if self._is_follower:
            follower, end = want.follower, log.log_end_offset
            if (
                follower is None
                or follower.told_high_watermark != high_watermark
                or follower.told_log_start != log.log_start_offset
            ):
                return False
        else:
            end = partition.last_stable_offset if self.limits.committed else high_watermark
        leader_epoch, last_epoch = want.current_leader_epoch, want.last_fetched_epoch
        return (
            want.fetch_offset == end
            and sent.high_watermark == high_watermark
            and sent.last_stable_offset == partition.last_stable_offset
            and sent.log_start_offset == log.log_start_offset
            and (leader_epoch == partition.state.leader_epoch or leader_epoch == -1)
            and (last_epoch == -1 or last_epoch == log.latest_epoch)
        )

    def collect(self) -> Collected:
        """Look at all partitions. ColdRead where a part of a log has to be read first."""
        collected = Collected([])
        self.look_at(self.wants, collected)
        self.conclude(collected)
        return collected

    def conclude(self, collected: Collected) -> None:
        """All partitions have been looked at."""
        if collected.final:
            return
        is_full = 0 < collected.size < self.limits.min_bytes and self._bytes_max() < self.limits.min_bytes
        if is_full or (self._is_follower and self._owes_news(collected.found)):
            collected.final = True

    def _bytes_max(self) -> int:
        return min(self.limits.max_bytes, self._ctx.services.memory.room_bytes)

    def look_at(self, wants: Iterable[Want], collected: Collected) -> None:
        """Look at some partitions; what they give goes to what others gave. ColdRead: nothing of it counts
        then."""
        found, size = collected.found, collected.size
        final = False
        max_bytes = self._bytes_max()
        session, skips = self._session, self._skips
        due: Mapping[Want, None] = session.due if session is not None else {}
        is_limited = self._is_limited
        for want in wants:
            if is_limited and not may_read(self._ctx, want):
                final = True
                if session is not None and want not in due:
                    want.rouse()
                found.append(Found(want, None, self.refusal(want, KafkaError(_UNREADABLE))))
                continue
            if skips and self._knows_all(want):
                if want in due:
                    self._let_rest(want)
                continue
            if session is not None and want not in due:
                want.rouse()
            room = max_bytes - size
            try:
                item = self._read(want, min(want.max_bytes, max(room, 0)), room > 0 or not size, not size)
            except Divergence as divergence:
                final = True
                found.append(Found(want, None, self._diverging(want, divergence)))
                continue
            except KafkaError as error:
                final = True
                found.append(Found(want, None, self.refusal(want, error)))
                continue
            if item.slice is not None:
                size += item.slice.size
            elif "preferred_read_replica" in item.answer:
                final = True
            elif not skips and want in due and self._knows_all(want):
                self._let_rest(want)
            found.append(item)
        collected.size = size
        collected.final = collected.final or final

    def _read(self, want: Want, max_bytes: int, has_room: bool, min_one: bool) -> Found:
        limits = self.limits
        partition = self.find(want)
        answer = self._answer(want, partition)
        if self._is_follower:
            if want.refused is not None:
                raise want.refused
            if not has_room or not self._ctx.services.replicas.may_send(partition, limits.follower_id):
                return Found(want, None, answer)
            return Found(
                want, partition.read_uncommitted(want.fetch_offset, max_bytes, min_one=min_one), answer
            )
        if limits.rack and partition.leading is not None:
            preferred = self._ctx.services.replicas.preferred_replica(
                partition, limits.rack, want.fetch_offset, self._ctx.listener
            )
            if preferred is not None:
                answer["preferred_read_replica"] = preferred
                return Found(want, None, answer)
        if want.last_fetched_epoch >= 0:
            partition.check_divergence(want.fetch_offset, want.last_fetched_epoch)
        if not has_room:
            return Found(want, None, answer)
        if limits.committed:
            return _read_committed(want, partition, answer, max_bytes, min_one)
        return Found(want, partition.read(want.fetch_offset, max_bytes, min_one=min_one), answer)

    def _owes_news(self, found: list[Found]) -> bool:
        """Whether a follower is to hear of something at once: of a new high watermark if consumers may read
        from it, of a new log start while a DeleteRecords waits for it."""
        replicas = self._ctx.services.replicas
        serve, deleting = replicas.followers_serve, replicas.deletions > 0
        if not serve and not deleting:
            return False
        for item in found:
            follower = item.want.follower
            if follower is None:
                continue
            if serve and item.answer["high_watermark"] > follower.told_high_watermark:
                return True
            if deleting and item.answer["log_start_offset"] > follower.told_log_start:
                return True
        return False

    def told(self, collected: Collected) -> None:
        """A response goes out: its follower knows high watermarks and log starts then."""
        replicas = self._ctx.services.replicas
        for item in collected.found:
            follower, replica = item.want.follower, item.want.replica
            if follower is not None:
                follower.told_high_watermark = item.answer["high_watermark"]
                follower.told_log_start = item.answer["log_start_offset"]
                if item.slice is not None and replica is not None:
                    replicas.sent(replica, item.slice.size)

    def _answer(self, want: Want, partition: Partition) -> dict[str, Any]:
        return {
            "partition_index": want.partition,
            "error_code": 0,
            "high_watermark": partition.high_watermark,
            "last_stable_offset": partition.last_stable_offset,
            "log_start_offset": partition.log.log_start_offset,
            "aborted_transactions": () if self.limits.committed else None,
            "records": b"",
        }

    def _diverging(self, want: Want, divergence: Divergence) -> dict[str, Any]:
        where = {"epoch": divergence.epoch, "end_offset": divergence.end_offset}
        return self._answer(want, self.find(want)) | {"diverging_epoch": where, "aborted_transactions": None}

    def refusal(self, want: Want, error: KafkaError) -> dict[str, Any]:
        """The answer for a partition that cannot be read; it names the leader where that is another."""
        answer = _UNKNOWN | {
            "partition_index": want.partition,
            "error_code": int(error.code),
            # As in Kafka: an empty list where the names say enough, null where the log is asked.
            "aborted_transactions": () if error.code in _UNKNOWN_NAMES else None,
        }
        leader = leader_fields(self._ctx, want.topic, want.partition, error)
        if leader is not None:
            answer["current_leader"] = leader
        return answer

    def respond(
        self, session: Session | None, collected: Collected
    ) -> dict[str, Any] | asyncio.Future[dict[str, Any]]:
        """Read what was found: what is in memory at once, or in pieces if it is much, and the rest off the
        event loop."""
        if self._is_follower:
            self.told(collected)
        later, cold = [], []
        size = 0
        for item in collected.found:
            if item.slice is not None:
                if item.want.replica is not None:
                    item.want.replica.traffic.sent(item.slice.size, to_follower=self._is_follower)
                size += item.slice.size
                if size > READ_AT_ONCE_BYTES_MAX:
                    later.append(item)
                elif not _is_read(item):
                    cold.append(item)
        if later or cold:
            return asyncio.ensure_future(self._respond_later(session, collected, later, cold))
        return self._response(session, collected)

    async def _respond_later(
        self, session: Session | None, collected: Collected, later: list[Found], cold: list[Found]
    ) -> dict[str, Any]:
        services = self._ctx.services
        services.memory.unsent_bytes += collected.size
        try:
            size = READ_AT_ONCE_BYTES_MAX
            for item in later:
                assert item.slice is not None
                size += item.slice.size
                if size > READ_AT_ONCE_BYTES_MAX:
                    await services.slices.pause()
                    size = item.slice.size
                if size > READ_AT_ONCE_BYTES_MAX or not _is_read(item):
                    cold.append(item)
            if cold:
                await services.disk.run(lambda: _read_all(cold))
        finally:
            services.memory.unsent_bytes -= collected.size
        return self._response(session, collected)

    def _response(self, session: Session | None, collected: Collected) -> dict[str, Any]:
        answers = [(item.want, item.answer) for item in collected.found]
        if session is not None:
            news = session.news(answers)
            # The first response of a session tells everything (its epoch moved on if this is a later one).
            answers = answers if session.epoch == 1 else news
        topics: list[dict[str, Any]] = []
        previous: object = None
        for want, answer in answers:
            if want.topic != previous:
                previous = want.topic
                topics.append({"topic": want.topic, "topic_id": want.topic, "partitions": []})
            topics[-1]["partitions"].append(answer)
        return {
            "error_code": 0,
            "session_id": session.session_id if session is not None else 0,
            "responses": topics,
            "throttle_time_ms": 0,
            "node_endpoints": leader_nodes(self._ctx, [a for _, a in answers]) if collected.final else (),
        }


def _is_read(item: Found) -> bool:
    """Read what the kernel holds in memory; False where it does not."""
    assert item.slice is not None
    try:
        data = item.slice.file.read_resident(item.slice.position, item.slice.size)
    except OSError as error:
        _reading_failed(item, error)
        return True
    if data is not None:
        item.answer["records"] = data
    return data is not None


def _read_all(cold: Iterable[Found]) -> None:
    """Read from the disk. Blocks."""
    for item in cold:
        assert item.slice is not None
        try:
            item.answer["records"] = item.slice.file.read(item.slice.position, item.slice.size)
        except OSError as error:
            _reading_failed(item, error)


def _reading_failed(item: Found, error: OSError) -> None:
    """The disk failed, or the segment was deleted and closed meanwhile: the client asks again."""
    log.error("%s-%d: cannot be read: %s", item.want.topic, item.want.partition, error)
    item.answer.update(_UNKNOWN, error_code=int(ErrorCode.kafka_storage_error))


def _read_committed(
    want: Want, partition: Partition, answer: dict[str, Any], max_bytes: int, min_one: bool
) -> Found:
    """What a read_committed consumer gets, with the aborted transactions that it may be of; less of it where
    those are very many."""
    while True:
        piece, aborted = partition.read_committed(want.fetch_offset, max_bytes, min_one=min_one)
        if piece is None or len(aborted) <= ABORTED_MAX or max_bytes <= READ_BYTES_MIN:
            break
        max_bytes //= 4
    if aborted:
        answer["aborted_transactions"] = [
            {"producer_id": producer_id, "first_offset": first_offset}
            for producer_id, first_offset in aborted
        ]
    return Found(want, piece, answer)
