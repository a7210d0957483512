"""Following one other node: fetch from it all partitions that it leads and we hold, for as long as that is so
(Kafka's ``ReplicaFetcherThread``).

One request at a time, in a fetch session (KIP-227), with our registration's key and each partition's leader
epoch. A partition that fails, in whatever way, is left out for a while; a connection that fails is made
again. Everything happens in callbacks of the connection and of timers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from ottla.config import BrokerConfig
from ottla.env.clock import Clock, Timer
from ottla.env.network import Network
from ottla.errors import ErrorCode, KafkaError
from ottla.replication import divergence
from ottla.replication.flushing import Flushes
from ottla.replication.followed import BACKOFF_MS_MIN, NO_SESSION, Fields, Followed, Following
from ottla.replication.partition import Partition
from ottla.replication.peer import Peer
from ottla.replication.quiet import Quiet
from ottla.wire.apis import API_VERSIONS, FETCH, LIST_OFFSETS

log = logging.getLogger(__name__)

# What nodes speak among each other: raised only to what the release before this one serves, too.
FETCH_VERSION, LIST_OFFSETS_VERSION = 17, 9
EARLIEST, LATEST = -2, -1

# A connection that is not made within this time is given up, and tried again.
CONNECT_MS_MAX = 5_000

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


class State(Enum):
    """How a fetcher and its leader stand."""

    # Not connected; a timer, or the next partition to follow, begins the next attempt.
    APART = "apart"
    CONNECTING = "connecting"
    # Connected, and nothing is asked: there is nothing to fetch now, or flushes are waited for.
    READY = "ready"
    # A request waits for its answer.
    ASKING = "asking"
    CLOSED = "closed"


def _error(code: int) -> KafkaError:
    """What a leader refuses with, which may be of a later version than ours."""
    try:
        return KafkaError(ErrorCode(code))
    except ValueError:
        return KafkaError(ErrorCode.unknown_server_error, f"error code {code}")


class Surroundings(Protocol):
    """What a fetcher asks of the node that it belongs to."""

    def claim(self, leader_id: int) -> int:
        """What shows a leader that a fetch is from this node's registration; -1 while there is none."""
        ...

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
        self._state = State.APART
        self._followed = Followed()
        self._quiet = Quiet(node_id, config, clock)
        self._flushes = Flushes(self._wake)
        self._peer: Peer | None = None
        self._connecting: asyncio.Task[None] | None = None
        # Counts attempts to connect: what comes of earlier ones is not wanted any more.
        self._attempt = 0
        # What wakes it: in the loop's next turn, and later.
        self._soon_handle: asyncio.Handle | None = None
        self._timer: Timer | None = None
        # Ends a connection that does not answer: when the last request was sent, and when to look at that.
        self._asked_ms = 0
        self._patience: Timer | None = None
        self._backoff_ms = BACKOFF_MS_MIN
        # That the leader cannot be reached has been said.
        self._complained = False

    def __len__(self) -> int:
        return len(self._followed)

    # ------------------------------------------------------------ what is followed

    def follow(self, partition: Partition) -> None:
        """Fetch a partition from now on, in its present leader epoch; or its state is another one."""
        self._quiet.disturb()
        is_new = self._followed.add(partition)
        # It joins the ISR by asking, and perhaps with another registration than the request that waits.
        if is_new or self._node_id not in partition.state.isr:
            self._hurry()
        if is_new:
            self._soon()

    def _hurry(self) -> None:
        """Have the request that waits for long, if one does, answered now."""
        if self._state is State.ASKING and self._peer is not None and self._quiet.hurries():
            # Nothing is wanted of it, but that it comes behind the one that waits.
            self._peer.send(API_VERSIONS, 0, {}, lambda _: None)

    def forget(self, partition: Partition) -> None:
        """Fetch a partition no more. What is on its way is dropped when it comes."""
        self._followed.drop(partition)

    def end_rests(self) -> None:
        """Let nobody wait any longer: there is reason to try again now."""
        if self._followed.end_rests():
            self._soon()

    def close(self) -> None:
        self._state = State.CLOSED
        for timer in (self._timer, self._patience, self._soon_handle):
            if timer is not None:
                timer.cancel()
        self._timer = self._patience = self._soon_handle = None
        self._flushes.close()
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
        if self._state is State.CONNECTING:
            self._give_up_connecting()
        self._soon()

    def _give_up_connecting(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        self._attempt += 1
        self._state = State.APART

    async def _connect(self, attempt: int) -> None:
        peer = Peer(f"broker-{self._node_id}-fetcher-{self._leader_id}", self._lost)
        # Not the exception: by its traceback that leads to this call, and back to itself. So it does where
        # ``wait_for`` makes a task of its own, hence ``timeout``.
        failure = "it hangs up"
        try:
            endpoint = self._node.endpoint(self._leader_id)
            if endpoint is None:
                raise ConnectionError("it is not registered")
            async with asyncio.timeout(CONNECT_MS_MAX / 1000):
                await self._network.connect(lambda: peer, *endpoint)
        except asyncio.CancelledError:
            peer.close()
            raise
        except Exception as error:  # noqa: BLE001 - a name that is none, for one, is no OSError; it is said
            failure = str(error) or type(error).__name__
        if self._state is not State.CONNECTING or attempt != self._attempt:
            peer.close()
            return
        self._connecting = None
        if not peer.connected:
            self._state = State.APART
            if not self._complained:
                self._complained = True
                log.warning("node %d cannot be reached: %s", self._leader_id, failure)
            self._retry()
            return
        if self._complained:
            log.info("node %d can be reached again", self._leader_id)
        self._complained = False
        self._backoff_ms = BACKOFF_MS_MIN
        self._peer = peer
        self._quiet.connected()
        self._state = State.READY
        self._send()

    def _lost(self, peer: Peer) -> None:
        if peer is not self._peer:
            return
        self._peer = None
        if self._state is not State.CLOSED:
            self._state = State.APART
            self._followed.begin_anew()
            self._retry()

    def _retry(self) -> None:
        """Go on after a pause, which grows as long as nothing works."""
        self._wake_in(self._backoff_ms)
        self._backoff_ms = min(2 * self._backoff_ms, self._backoff_ms_max())

    def _backoff_ms_max(self) -> int:
        configured: int = self._config.get("replica.fetch.backoff.ms")
        return max(BACKOFF_MS_MIN, configured)

    # ------------------------------------------------------------ requests

    def _soon(self) -> None:
        """Send in the event loop's next turn, so that all changes of this one go into one request."""
        if self._soon_handle is None and self._state in (State.APART, State.READY):
            self._soon_handle = asyncio.get_running_loop().call_soon(self._wake)

    def _wake_in(self, delay_ms: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_later(delay_ms, self._wake)

    def _wake(self) -> None:
        self._soon_handle = None
        self._send()

    def _send(self) -> None:
        """Go on, if there is anything to go on with."""
        try:
            if self._state is State.APART and len(self._followed) and not self._flushes:
                self._attempt += 1
                self._state = State.CONNECTING
                self._connecting = asyncio.ensure_future(self._connect(self._attempt))
            elif self._state is State.READY and len(self._followed) and not self._flushes:
                self._fetch()
        except Exception:
            log.exception("a fetch request to node %d cannot be made, retrying", self._leader_id)
            self._followed.begin_anew()
            self._retry()

    def _fetch(self) -> None:
        self._followed.wake_rested(self._clock.monotonic_ms())
        for following in self._followed.changed:
            try:
                self._flushes.begin(following.partition, partial(self._put_off, following))
            except Exception as error:  # noqa: BLE001 - it is said, and the other partitions are fetched
                self._put_off(following, error)
        fields = None if self._flushes else self._request()
        if fields is not None:
            self._ask(FETCH, FETCH_VERSION, fields, self._answered)

    def _ask(self, api_key: int, version: int, fields: Fields, answered: Callable[[Any], None]) -> None:
        peer = self._peer
        assert peer is not None and self._state is State.READY
        self._state = State.ASKING
        self._asked_ms = self._clock.monotonic_ms()
        if self._patience is None:
            self._look_at_patience()

        def arrived(response: Any) -> None:
            if self._state is not State.ASKING:
                return
            self._state = State.READY
            self._quiet.answered()
            try:
                answered(response)
            except Exception:
                log.exception("a fetch response of node %d cannot be processed, retrying", self._leader_id)
                self._followed.begin_anew()
                self._retry()

        peer.send(api_key, version, fields, arrived)

    def _look_at_patience(self) -> None:
        """Close a connection whose leader has not answered for replica.socket.timeout.ms."""
        patience_ms = self._config.get("replica.socket.timeout.ms")
        waited_ms = self._clock.monotonic_ms() - self._asked_ms if self._state is State.ASKING else 0
        # One timer for all requests, since each of them is answered soon as a rule.
        again_ms = max(patience_ms - waited_ms, 1)
        self._patience = self._clock.call_later(again_ms, self._look_at_patience)
        if waited_ms >= patience_ms and self._peer is not None:
            log.warning("node %d does not answer: connecting again", self._leader_id)
            self._peer.close()

    def _request(self) -> Fields | None:
        """What to fetch next; None where every partition has to wait."""
        max_bytes = self._config.get("replica.fetch.max.bytes")
        topics: dict[UUID, list[Fields]] = {}
        for following in self._followed.changed:
            try:
                if following.behind and (held_ms := self._node.held_ms(following.partition)):
                    self._rest(following, held_ms)
                else:
                    self._followed.ask(following, topics, max_bytes)
            except Exception as error:  # noqa: BLE001 - it is said, and the other partitions are fetched
                self._put_off(following, error)
        rest_ms = self._followed.rest_ms(self._clock.monotonic_ms())
        if rest_ms is not None:
            self._wake_in(rest_ms)
            if self._followed.all_rest:
                return None
        return self._fields(topics, rest_ms)

    def _rest(self, following: Following, delay_ms: int) -> None:
        self._followed.rest(following, self._clock.monotonic_ms() + delay_ms)

    def _fields(self, topics: dict[UUID, list[Fields]], rest_ms: int | None) -> Fields:
        get = self._config.get
        max_wait_ms = self._quiet.wait_ms(self._followed, told=bool(topics))
        if rest_ms is not None:
            # The request must not hold up those that may be fetched again soon.
            max_wait_ms = min(max_wait_ms, max(rest_ms, 2 * BACKOFF_MS_MIN))
        forgotten = self._followed.take_forgotten()
        if self._followed.has_more:
            # Nor those that did not fit into it.
            max_wait_ms = min(max_wait_ms, 2 * BACKOFF_MS_MIN)
        return {
            "replica_state": {
                "replica_id": self._node_id,
                "replica_epoch": self._node.claim(self._leader_id),
            },
            "max_wait_ms": max_wait_ms,
            "min_bytes": get("replica.fetch.min.bytes"),
            "max_bytes": get("replica.fetch.response.max.bytes"),
            "isolation_level": 0,
            "session_id": self._followed.session_id,
            "session_epoch": self._followed.session_epoch,
            "topics": [{"topic_id": key, "partitions": value} for key, value in topics.items()],
            "forgotten_topics_data": forgotten,
            "rack_id": "",
        }

    # ------------------------------------------------------------ responses

    def _answered(self, response: Any) -> None:
        if response.error_code:
            # The session is gone, most of all: the next request begins another.
            log.debug("node %d refuses a fetch: %s", self._leader_id, _error(response.error_code))
            self._followed.begin_anew()
            self._retry()
            return
        self._backoff_ms = BACKOFF_MS_MIN
        self._quiet.heard(bool(response.responses))
        self._followed.answered(response.session_id)
        out_of_range = None
        for topic in response.responses:
            for data in topic.partitions:
                following = self._followed.get((topic.topic_id, data.partition_index))
                if following is not None and following.is_asked_for and self._take(following, data):
                    out_of_range = following
        if response.session_id == NO_SESSION:
            # The leader has no room for one: what it sent counts, and it is asked for everything again.
            self._followed.begin_anew()
        if out_of_range is not None:
            self._ask_for_offsets(out_of_range)
        else:
            self._send()

    def _take(self, following: Following, data: Any) -> bool:
        """Take over what came for one partition; whether its offset is out of the leader's range."""
        partition = following.partition
        try:
            if data.error_code == ErrorCode.offset_out_of_range:
                return True
            if data.error_code:
                raise _error(data.error_code)
            self._followed.change(following)
            if data.diverging_epoch.epoch >= 0:
                self._truncate(partition, data.diverging_epoch.epoch, data.diverging_epoch.end_offset)
                return False
            records = data.records or b""
            if len(records):
                self._node.received(partition, len(records))
                if self._followed.session_id == NO_SESSION:
                    self._followed.ask_last(following)
            partition.append_as_follower(
                records, data.high_watermark, data.log_start_offset, self._clock.now_ms()
            )
        except Exception as error:  # noqa: BLE001 - it is said, and the other partitions go on
            self._put_off(following, error)
            return False
        following.backoff_ms = BACKOFF_MS_MIN
        following.behind = partition.log.log_end_offset < data.high_watermark
        # Where it was nothing but a high watermark.
        self._followed.told(following)
        return False

    def _truncate(self, partition: Partition, epoch: int, end_offset: int) -> None:
        offset = divergence.where_to_cut(partition.log, epoch, end_offset)
        log.info(
            "%s: the log diverges from the leader's after epoch %d: truncating from %d to %d",
            partition.topic_partition, epoch, partition.log.log_end_offset, offset,
        )  # fmt: skip
        partition.truncate_to(offset, self._clock.now_ms())

    def _put_off(self, following: Following, error: Exception) -> None:
        """Leave a partition out for a while, ever longer, whatever is wrong with it."""
        where = following.partition.topic_partition
        if not isinstance(error, KafkaError | OSError):
            log.error("%s: cannot follow the leader", where, exc_info=error)
        elif not isinstance(error, KafkaError) or error.code not in _PASSING:
            log.error("%s: cannot follow the leader: %s", where, error)
        self._rest(following, following.backoff_ms)
        following.backoff_ms = min(2 * following.backoff_ms, self._backoff_ms_max())

    # ------------------------------------------------------------ offsets out of range

    def _ask_for_offsets(self, following: Following) -> None:
        """Ask where the leader's log begins and ends, one after the other."""
        found: list[int] = []

        def answered(response: Any) -> None:
            # Otherwise it is fetched from elsewhere by now, or in another leader epoch.
            if self._followed.has(following):
                try:
                    found.append(_offset_in(response))
                    if len(found) == 1:
                        self._list_offset(following, LATEST, answered)
                        return
                    self._realign(following, *found)
                except Exception as error:  # noqa: BLE001 - it is said, and the other partitions go on
                    self._put_off(following, error)
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
        self._followed.change(following)
        own = partition.log.log_end_offset
        now_ms = self._clock.now_ms()
        if end < own:
            log.warning(
                "%s: truncating to the log end offset of the leader: %d", partition.topic_partition, end
            )
            partition.truncate_to(end, now_ms)
        elif start > own:
            log.info(
                "%s: starting again at the log start offset of the leader: %d",
                partition.topic_partition,
                start,
            )
            partition.restart_at(start, now_ms)
        else:
            # It is in range by now. If the leader does not know our last epoch, nothing here can help.
            raise KafkaError(ErrorCode.offset_out_of_range)


def _offset_in(response: Any) -> int:
    """The offset that a leader tells of one partition; KafkaError where it does not."""
    answer = response.topics[0].partitions[0]
    if answer.error_code:
        raise _error(answer.error_code)
    offset: int = answer.offset
    return offset
