"""Following one other node: fetch from it all partitions that it leads and we hold, for as long as that is so
(Kafka's ``ReplicaFetcherThread``).

One request at a time, in a fetch session (KIP-227), with our broker epoch and each partition's leader epoch.
A partition that fails is left out for a while; a connection that fails is made again. Everything happens in
callbacks of the connection and of timers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from ottla.config import BrokerConfig
from ottla.env.clock import Clock, Timer
from ottla.env.network import Network
from ottla.errors import ErrorCode, KafkaError
from ottla.replication.flushing import Flushes
from ottla.replication.partition import Partition
from ottla.replication.peer import Peer
from ottla.wire.apis import FETCH, LIST_OFFSETS

log = logging.getLogger(__name__)

# What nodes speak among each other: raised only to what the release before this one serves, too.
FETCH_VERSION, LIST_OFFSETS_VERSION = 17, 9
EARLIEST, LATEST = -2, -1

# The first wait after a failure; it doubles up to replica.fetch.backoff.ms.
BACKOFF_MS_MIN = 20
# A connection that is not made within this time is given up, and tried again.
CONNECT_MS_MAX = 5_000
NO_SESSION, FIRST_EPOCH, LAST_EPOCH = 0, 0, 2**31 - 1

# What passes by itself: the leader does not know yet that it leads, or we do not know yet that it does not.
_PASSING = frozenset(
    {
        ErrorCode.not_leader_or_follower,
        ErrorCode.fenced_leader_epoch,
        ErrorCode.unknown_leader_epoch,
        ErrorCode.unknown_topic_or_partition,
        ErrorCode.unknown_topic_id,
        ErrorCode.inconsistent_topic_id,
    }
)

Key = tuple[UUID, int]


def _error(code: int) -> KafkaError:
    """What a leader refuses with, which may be of a later version than ours."""
    try:
        return KafkaError(ErrorCode(code))
    except ValueError:
        return KafkaError(ErrorCode.unknown_server_error, f"error code {code}")


class Surroundings(Protocol):
    """What a fetcher asks of the node that it belongs to."""

    def broker_epoch(self) -> int: ...

    def endpoint(self, node_id: int) -> tuple[str, int] | None:
        """Where a node listens for others; None while it does not live."""
        ...

    def received(self, partition: Partition, size: int) -> None:
        """Count what was fetched."""
        ...

    def held_ms(self, partition: Partition) -> int:
        """For how long a partition that is behind is not to be fetched
        (follower.replication.throttled.rate); 0 where it may be."""
        ...


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


class Fetcher:
    """The fetch loop for one leader node. ``follow`` and ``forget`` at any time; ``close`` at the end."""

    def __init__(
        self,
        node_id: int,
        leader_id: int,
        surroundings: Surroundings,
        network: Network,
        clock: Clock,
        config: BrokerConfig,
    ) -> None:
        self._node_id = node_id
        self._leader_id = leader_id
        self._node = surroundings
        self._network = network
        self._clock = clock
        self._config = config
        self._following: dict[Key, Following] = {}
        # Those of them that the session does not know as they are now; those that have to wait, until when.
        self._changed: dict[Key, Following] = {}
        self._resting: dict[Key, int] = {}
        # Keys that the leader's session has and that are not to be fetched any more.
        self._forgotten: dict[Key, None] = {}
        self._peer: Peer | None = None
        self._connecting: asyncio.Task[None] | None = None
        # Counts attempts to connect: what comes of earlier ones is not wanted any more.
        self._attempt = 0
        self._session_id = NO_SESSION
        self._session_epoch = FIRST_EPOCH
        self._in_flight = False
        self._flushes = Flushes(self._wake)
        self._scheduled = False
        self._timer: Timer | None = None
        # Ends a connection that does not answer: when the last request was sent, and when to look at that.
        self._asked_ms = 0
        self._patience: Timer | None = None
        self._backoff_ms = BACKOFF_MS_MIN
        self._complained = False
        self._closed = False

    def __len__(self) -> int:
        return len(self._following)

    # ------------------------------------------------------------ what is followed

    def follow(self, partition: Partition) -> None:
        """Fetch a partition from now on, in its present leader epoch."""
        key = (partition.topic_id, partition.topic_partition.partition)
        known = self._following.get(key)
        if known is not None and known.leader_epoch == partition.leader_epoch:
            return
        self._following[key] = self._changed[key] = Following(partition)
        self._resting.pop(key, None)
        self._soon()

    def forget(self, partition: Partition) -> None:
        """Fetch a partition no more. What is on its way is dropped when it comes."""
        key = (partition.topic_id, partition.topic_partition.partition)
        if self._following.pop(key, None) is not None:
            self._changed.pop(key, None)
            self._resting.pop(key, None)
            self._forgotten[key] = None

    def close(self) -> None:
        self._closed = True
        for timer in (self._timer, self._patience):
            if timer is not None:
                timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._peer is not None:
            self._peer.close()

    # ------------------------------------------------------------ the connection

    def reconnect(self) -> None:
        """The leader has registered anew, perhaps elsewhere: do not wait for the old connection to end."""
        self._backoff_ms = BACKOFF_MS_MIN
        if self._peer is not None:
            self._peer.close()
            return
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
            self._attempt += 1
        self._soon()

    async def _connect(self, attempt: int) -> None:
        endpoint = self._node.endpoint(self._leader_id)
        peer = Peer(f"broker-{self._node_id}-fetcher-{self._leader_id}", lambda: self._lost(peer))
        failure: Exception | None = None
        try:
            if endpoint is None:
                raise ConnectionError("it is not registered")
            await asyncio.wait_for(self._network.connect(lambda: peer, *endpoint), CONNECT_MS_MAX / 1000)
        except (OSError, TimeoutError) as error:
            failure = error
        except asyncio.CancelledError:
            peer.close()
            raise
        if self._closed or attempt != self._attempt:
            peer.close()
            return
        self._connecting = None
        if not peer.connected:
            if not self._complained:
                self._complained = True
                log.warning("node %d cannot be reached: %s", self._leader_id, failure or "it hangs up")
            self._retry()
            return
        if self._complained:
            log.info("node %d is reached again", self._leader_id)
        self._complained = False
        self._backoff_ms = BACKOFF_MS_MIN
        self._peer = peer
        self._send()

    def _lost(self, peer: Peer) -> None:
        if peer is not self._peer:
            return
        self._peer = None
        self._in_flight = False
        self._forget_session()
        if not self._closed:
            self._retry()

    def _retry(self) -> None:
        """Go on after a pause, which grows as long as nothing works."""
        self._wake_in(self._backoff_ms)
        self._backoff_ms = min(2 * self._backoff_ms, self._backoff_ms_max())

    def _backoff_ms_max(self) -> int:
        configured: int = self._config.get("replica.fetch.backoff.ms")
        return max(BACKOFF_MS_MIN, configured)

    def _forget_session(self) -> None:
        self._session_id, self._session_epoch = NO_SESSION, FIRST_EPOCH
        self._forgotten.clear()
        self._changed.clear()
        for key, following in self._following.items():
            following.sent = -1
            if key not in self._resting:
                self._changed[key] = following

    # ------------------------------------------------------------ requests

    def _soon(self) -> None:
        """Send in the event loop's next turn, so that all changes of this one go into one request."""
        if not self._scheduled and not self._in_flight and not self._closed:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._wake)

    def _wake_in(self, delay_ms: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_later(delay_ms, self._wake)

    def _wake(self) -> None:
        self._scheduled = False
        if not self._in_flight and not self._closed:
            self._send()

    def _send(self) -> None:
        if not self._following or self._flushes:
            return
        if self._peer is None:
            if self._connecting is None:
                self._attempt += 1
                self._connecting = asyncio.ensure_future(self._connect(self._attempt))
            return
        self._wake_rested()
        for following in self._changed.values():
            self._flushes.begin(following.partition, partial(self._put_off, following))
        fields = None if self._flushes else self._request()
        if fields is not None:
            self._ask(FETCH, FETCH_VERSION, fields, self._answered)

    def _ask(
        self, api_key: int, version: int, fields: dict[str, Any], answered: Callable[[Any], None]
    ) -> None:
        peer = self._peer
        assert peer is not None
        self._in_flight = True
        self._asked_ms = self._clock.monotonic_ms()
        if self._patience is None:
            self._look_at_patience()

        def arrived(response: Any) -> None:
            self._in_flight = False
            if not self._closed:
                answered(response)

        peer.send(api_key, version, fields, arrived)

    def _look_at_patience(self) -> None:
        """Close a connection whose leader has not answered for replica.socket.timeout.ms."""
        patience_ms = self._config.get("replica.socket.timeout.ms")
        waited_ms = self._clock.monotonic_ms() - self._asked_ms if self._in_flight else 0
        if waited_ms >= patience_ms and self._peer is not None:
            log.warning("node %d does not answer: connecting anew", self._leader_id)
            self._peer.close()
        # One timer for all requests, since each of them is answered soon as a rule.
        self._patience = self._clock.call_later(max(patience_ms - waited_ms, 1), self._look_at_patience)

    def _request(self) -> dict[str, Any] | None:
        """What to fetch next; None where every partition has to wait."""
        max_bytes = self._config.get("replica.fetch.max.bytes")
        topics: dict[UUID, list[dict[str, Any]]] = {}
        for key, following in list(self._changed.items()):
            if following.behind and (held_ms := self._node.held_ms(following.partition)):
                self._rest(following, held_ms)
                continue
            replica = following.partition.log
            following.sent, following.sent_start = replica.log_end_offset, replica.log_start_offset
            self._forgotten.pop(key, None)
            topics.setdefault(key[0], []).append(
                {
                    "partition": key[1],
                    "current_leader_epoch": following.leader_epoch,
                    "fetch_offset": following.sent,
                    "last_fetched_epoch": replica.latest_epoch,
                    "log_start_offset": following.sent_start,
                    "partition_max_bytes": max_bytes,
                }
            )
        self._changed.clear()
        rest_ms = None
        if self._resting:
            rest_ms = max(min(self._resting.values()) - self._clock.monotonic_ms(), 1)
            self._wake_in(rest_ms)
            if len(self._resting) == len(self._following):
                return None
        return self._fields(topics, rest_ms)

    def _wake_rested(self) -> None:
        """Fetch again what has waited for long enough."""
        if self._resting:
            now_ms = self._clock.monotonic_ms()
            for key in [key for key, until_ms in self._resting.items() if until_ms <= now_ms]:
                del self._resting[key]
                self._changed[key] = self._following[key]

    def end_rests(self) -> None:
        """Let nobody wait any longer: there is reason to try again now."""
        if self._resting:
            self._resting = dict.fromkeys(self._resting, 0)
            self._soon()

    def _rest(self, following: Following, delay_ms: int) -> None:
        """Leave a partition out for a while."""
        if self._following.get(following.key) is not following:
            return
        self._resting[following.key] = self._clock.monotonic_ms() + delay_ms
        self._changed.pop(following.key, None)
        if following.sent >= 0:
            following.sent = -1
            self._forgotten[following.key] = None

    def _fields(self, topics: dict[UUID, list[dict[str, Any]]], rest_ms: int | None) -> dict[str, Any]:
        forgotten: dict[UUID, list[int]] = {}
        for topic_id, index in self._forgotten:
            forgotten.setdefault(topic_id, []).append(index)
        self._forgotten.clear()
        get = self._config.get
        max_wait_ms = get("replica.fetch.wait.max.ms")
        if rest_ms is not None:
            # The request must not hold up those that may be fetched again soon.
            max_wait_ms = min(max_wait_ms, max(rest_ms, 2 * BACKOFF_MS_MIN))
        return {
            "replica_state": {"replica_id": self._node_id, "replica_epoch": self._node.broker_epoch()},
            "max_wait_ms": max_wait_ms,
            "min_bytes": get("replica.fetch.min.bytes"),
            "max_bytes": get("replica.fetch.response.max.bytes"),
            "isolation_level": 0,
            "session_id": self._session_id,
            "session_epoch": self._session_epoch,
            "topics": [{"topic_id": key, "partitions": value} for key, value in topics.items()],
            "forgotten_topics_data": [
                {"topic_id": key, "partitions": value} for key, value in forgotten.items()
            ],
            "rack_id": "",
        }

    # ------------------------------------------------------------ responses

    def _answered(self, response: Any) -> None:
        if response.error_code:
            # The session is gone, most of all: the next request begins another.
            log.debug("node %d refuses a fetch: %s", self._leader_id, _error(response.error_code))
            self._forget_session()
            self._retry()
            return
        self._backoff_ms = BACKOFF_MS_MIN
        self._session_id = response.session_id
        self._session_epoch = 1 if self._session_epoch == LAST_EPOCH else self._session_epoch + 1
        out_of_range = None
        for topic in response.responses:
            for data in topic.partitions:
                following = self._following.get((topic.topic_id, data.partition_index))
                if following is not None and self._take(following, data):
                    out_of_range = following
        if response.session_id == NO_SESSION:
            # The leader has no room for one: what it sent counts, and it is asked for everything again.
            self._forget_session()
        if out_of_range is not None:
            self._ask_for_offsets(out_of_range)
        else:
            self._send()

    def _take(self, following: Following, data: Any) -> bool:
        """Take over what came for one partition; whether its offset is out of the leader's range."""
        partition = following.partition
        if following.leader_epoch != partition.leader_epoch or partition.leading is not None:
            return False
        if following.sent < 0:
            # Asked for before it was put aside, or in an earlier epoch.
            return False
        try:
            if data.error_code == ErrorCode.offset_out_of_range:
                return True
            if data.error_code:
                raise _error(data.error_code)
            self._changed[following.key] = following
            if data.diverging_epoch.epoch >= 0:
                self._truncate(partition, data.diverging_epoch.epoch, data.diverging_epoch.end_offset)
                return False
            records = data.records or b""
            if len(records):
                self._node.received(partition, len(records))
                if self._session_id == NO_SESSION:
                    # Asked for last next time: the others must not go without for its sake.
                    self._following[following.key] = self._following.pop(following.key)
            partition.append_as_follower(
                records, data.high_watermark, data.log_start_offset, self._clock.now_ms()
            )
        except (KafkaError, OSError) as error:
            self._put_off(following, error)
            return False
        following.backoff_ms = BACKOFF_MS_MIN
        replica = partition.log
        following.behind = replica.log_end_offset < data.high_watermark
        if (replica.log_end_offset, replica.log_start_offset) == (following.sent, following.sent_start):
            # Nothing but a high watermark: the session still knows what we want.
            del self._changed[following.key]
        return False

    def _truncate(self, partition: Partition, epoch: int, end_offset: int) -> None:
        offset = partition.divergence_offset(epoch, end_offset)
        log.info(
            "%s: parts from its leader's log after epoch %d: truncating from %d to %d",
            partition.topic_partition, epoch, partition.log.log_end_offset, offset,
        )  # fmt: skip
        partition.truncate_to(offset, self._clock.now_ms())

    def _put_off(self, following: Following, error: KafkaError | OSError) -> None:
        if not isinstance(error, KafkaError) or error.code not in _PASSING:
            log.error("%s: cannot be followed: %s", following.partition.topic_partition, error)
        self._rest(following, following.backoff_ms)
        following.backoff_ms = min(2 * following.backoff_ms, self._backoff_ms_max())

    # ------------------------------------------------------------ offsets out of range

    def _ask_for_offsets(self, following: Following) -> None:
        """Ask where the leader's log begins and ends, one after the other."""
        found: list[int] = []

        def answered(response: Any) -> None:
            if self._following.get(following.key) is not following:
                # It is fetched from elsewhere by now, or in another leader epoch.
                self._send()
                return
            answer = response.topics[0].partitions[0]
            if answer.error_code:
                self._put_off(following, _error(answer.error_code))
                self._send()
                return
            found.append(answer.offset)
            if len(found) == 1:
                self._list_offset(following, LATEST, answered)
                return
            self._realign(following, *found)
            self._send()

        self._list_offset(following, EARLIEST, answered)

    def _list_offset(self, following: Following, timestamp: int, answered: Callable[[Any], None]) -> None:
        topic, index = following.partition.topic_partition
        asked = {
            "partition_index": index,
            "current_leader_epoch": following.leader_epoch,
            "timestamp": timestamp,
        }
        fields = {
            "replica_id": self._node_id,
            "isolation_level": 0,
            "topics": [{"name": topic, "partitions": [asked]}],
        }
        self._ask(LIST_OFFSETS, LIST_OFFSETS_VERSION, fields, answered)

    def _realign(self, following: Following, start: int, end: int) -> None:
        """Our end is not within the leader's log (AbstractFetcherThread.fetchOffsetAndTruncate): it is behind
        the leader's, after an unclean election, or everything between has been deleted."""
        partition = following.partition
        self._changed[following.key] = following
        own = partition.log.log_end_offset
        now_ms = self._clock.now_ms()
        try:
            if end < own:
                log.warning("%s: the leader's log ends at %d: truncating", partition.topic_partition, end)
                partition.truncate_to(end, now_ms)
            elif start > own:
                log.info(
                    "%s: the leader's log begins at %d: beginning there", partition.topic_partition, start
                )
                partition.restart_at(start, now_ms)
            else:
                # It is in range by now. If the leader does not know our last epoch, nothing here can help.
                self._put_off(following, KafkaError(ErrorCode.offset_out_of_range))
        except OSError as error:
            self._put_off(following, error)
