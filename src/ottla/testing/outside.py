"""A broker that a test is pointed at: Apache Kafka, say, or an Ottla that others have started.

It offers what a client can do without a login: topics, records, committed offsets. Requests go over plain
connections, with versions that every broker since Kafka 2.4 serves, so that no client library is needed.
"""

from __future__ import annotations

import itertools
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from ottla.addresses import parse_address
from ottla.errors import ErrorCode, KafkaError
from ottla.testing import transactions
from ottla.testing.contents import StoredRecord
from ottla.testing.inside import WAIT_TIMEOUT_S, to_bytes, to_text
from ottla.testing.names import did_you_mean, listed
from ottla.types import Record, TopicPartition
from ottla.wire.apis import BY_NAME
from ottla.wire.messages import decode_response, frame_request, read_response_header
from ottla.wire.records import build_batch, iter_batches, iter_records

T = TypeVar("T")

CLIENT_ID = "ottla-testing"
REQUEST_TIMEOUT_S = 20.0
# How long changes of topics may take to be known, and how long something that moves is asked for again.
SETTLE_S = 20.0
PAUSE_S = 0.1
FETCH_BYTES_MAX = 8 * 1024 * 1024
EARLIEST, LATEST = -2, -1

_VERSIONS: Final[Mapping[str, int]] = {
    "CreateTopics": 4,
    "DeleteTopics": 3,
    "DeleteRecords": 1,
    "Fetch": 11,
    "FindCoordinator": 2,
    "ListOffsets": 5,
    "Metadata": 8,
    "OffsetFetch": 5,
    "Produce": 8,
}
# What another attempt may get past.
_PASSING = frozenset(
    {
        ErrorCode.leader_not_available,
        ErrorCode.not_leader_or_follower,
        ErrorCode.coordinator_not_available,
        ErrorCode.coordinator_load_in_progress,
        ErrorCode.not_coordinator,
        ErrorCode.unknown_topic_or_partition,
    }
)


class Topic(NamedTuple):
    """A topic's leaders by partition; -1 where there is none."""

    leaders: dict[int, int]
    internal: bool


class OutsideBroker:
    """The part of `Broker` that works with any broker; what does not raises AttributeError and says so."""

    def __init__(self, bootstrap_servers: str) -> None:
        """``bootstrap_servers``: HOST:PORT, or several with commas. ValueError where it is something else."""
        self.bootstrap_servers = bootstrap_servers
        self._bootstrap = [_address(text) for text in bootstrap_servers.split(",")]
        self._addresses: dict[int, tuple[str, int]] = {}
        self._controller = -1

    def __getattr__(self, name: str) -> Any:
        from ottla.testing.broker import Broker

        if (not name.startswith("_") and hasattr(Broker, name)) or name == "faults":
            raise AttributeError(
                f"{name!r} needs a broker in the test's process: {self.bootstrap_servers} is outside of it"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"<OutsideBroker {self.bootstrap_servers}>"

    def client_properties(self) -> dict[str, str]:
        """What a client of librdkafka needs."""
        return {"bootstrap.servers": self.bootstrap_servers, "security.protocol": "PLAINTEXT"}

    # ------------------------------------------------------------ topics and records

    def topics(self) -> dict[str, int]:
        """The topics and their numbers of partitions, without Kafka's internal ones."""
        return {name: len(topic.leaders) for name, topic in self._metadata().items() if not topic.internal}

    def create_topic(
        self, name: str, partitions: int = 1, config: Mapping[str, str | int | bool] | None = None
    ) -> None:
        """Create a topic with the cluster's default of replicas; its partitions have leaders when this
        returns. KafkaError."""
        topic = {
            "name": name,
            "num_partitions": partitions,
            "replication_factor": -1,
            "assignments": (),
            "configs": [{"name": key, "value": to_text(value)} for key, value in (config or {}).items()],
        }
        fields = {"topics": [topic], "timeout_ms": int(SETTLE_S * 1000), "validate_only": False}
        answer = self._ask_controller("CreateTopics", fields)
        _raise(answer.topics[0].error_code, answer.topics[0].error_message)
        self._until(lambda: self._is_led(name), f"topic {name!r} had not all leaders")

    def delete_topic(self, name: str) -> None:
        """Delete a topic with its records; it is gone when this returns. KafkaError."""
        self._topic(name)
        fields = {"topic_names": [name], "timeout_ms": int(SETTLE_S * 1000)}
        answer = self._ask_controller("DeleteTopics", fields)
        _raise(answer.responses[0].error_code)
        self._until(lambda: name not in self._metadata(), f"topic {name!r} was still there")

    def delete_records(self, topic: str, partition: int | None = None) -> None:
        """Delete the records of a topic, or of one partition of it. KafkaError."""
        for index in self._indexes(topic, partition):
            part = {"partition_index": index, "offset": -1}
            fields = {"topics": [{"name": topic, "partitions": [part]}], "timeout_ms": 10_000}
            answer = self._ask_leader(topic, index, "DeleteRecords", fields)
            _raise(answer.topics[0].partitions[0].error_code)

    def produce(
        self,
        topic: str,
        *values: str | bytes | None,
        key: str | bytes | None = None,
        partition: int = 0,
        headers: Mapping[str, str | bytes | None] | None = None,
        timestamp_ms: int | None = None,
    ) -> int:
        """As `Broker.produce`, with acks=all."""
        self._indexes(topic, partition)
        at_ms = time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
        packed = tuple((name, to_bytes(value)) for name, value in (headers or {}).items())
        batch = build_batch([Record(0, at_ms, to_bytes(key), to_bytes(value), packed) for value in values])
        part = {"index": partition, "records": batch}
        fields = {
            "transactional_id": None,
            "acks": -1,
            "timeout_ms": 10_000,
            "topic_data": [{"name": topic, "partition_data": [part]}],
        }
        answer = self._ask_leader(topic, partition, "Produce", fields).responses[0].partition_responses[0]
        _raise(answer.error_code, answer.error_message)
        return int(answer.base_offset)

    def records(
        self, topic: str, partition: int | None = None, *, read_committed: bool = False
    ) -> list[StoredRecord]:
        """As `Broker.records`."""
        return [
            record
            for index in self._indexes(topic, partition)
            for record in self._read(topic, index, read_committed)
        ]

    def wait_for_records(
        self,
        topic: str,
        count: int = 1,
        *,
        partition: int | None = None,
        read_committed: bool = False,
        timeout_s: float = WAIT_TIMEOUT_S,
    ) -> list[StoredRecord]:
        """As `Broker.wait_for_records`; it asks ten times a second."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                found = self.records(topic, partition, read_committed=read_committed)
                said = f"{len(found)} of {count} records of {topic!r} were there after {timeout_s:g} s."
            except KafkaError as error:
                found, said = [], f"no record of {topic!r} could be read after {timeout_s:g} s: {error.text}"
            else:
                if len(found) >= count:
                    return found
            if time.monotonic() >= deadline_s:
                raise TimeoutError(said)
            time.sleep(PAUSE_S)

    # ------------------------------------------------------------ groups

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """As `Broker.committed`."""
        answer = self._ask_coordinator(group, "OffsetFetch", {"group_id": group, "topics": None})
        _raise(answer.error_code)
        return {
            TopicPartition(topic.name, part.partition_index): part.committed_offset
            for topic in answer.topics
            for part in topic.partitions
            if part.committed_offset >= 0
        }

    def wait_until_consumed(
        self, group: str, topic: str | None = None, *, timeout_s: float = WAIT_TIMEOUT_S
    ) -> None:
        """As `Broker.wait_until_consumed`; it asks ten times a second."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                left = self._left(group, topic)
            except KafkaError as error:
                # The topic may be created meanwhile, and leaders and coordinators move.
                left = [error.text]
            if not left:
                return
            if time.monotonic() >= deadline_s:
                what = "its topics" if topic is None else repr(topic)
                raise TimeoutError(
                    f"Group {group!r} had not consumed {what} after {timeout_s:g} s: " + "; ".join(left)
                )
            time.sleep(PAUSE_S)

    def _left(self, group: str, topic: str | None) -> list[str]:
        """Where the group has still to read, for people."""
        offsets = self.committed(group)
        names = sorted({each.topic for each in offsets}) if topic is None else [topic]
        left = [] if names else ["the group has committed nothing"]
        for name in names:
            for index in self._indexes(name, None):
                at = offsets.get(TopicPartition(name, index), -1)
                end = self._offset(name, index, LATEST)
                if at < end and any(one.offset >= at for one in self._read(name, index, True)):
                    what = "nothing is committed" if at < 0 else f"{at} is committed"
                    left.append(f"{name}-{index}: {what}, the end is {end}")
        return left

    # ------------------------------------------------------------ what is asked

    def _metadata(self) -> dict[str, Topic]:
        fields = {
            "topics": None,
            "allow_auto_topic_creation": False,
            "include_cluster_authorized_operations": False,
            "include_topic_authorized_operations": False,
        }
        answer = self._ask_any("Metadata", fields)
        self._addresses = {each.node_id: (each.host, each.port) for each in answer.brokers}
        self._controller = answer.controller_id
        return {
            topic.name: Topic(
                {each.partition_index: each.leader_id for each in topic.partitions},
                topic.is_internal or topic.name.startswith("__"),
            )
            for topic in answer.topics
        }

    def _topic(self, name: str) -> Topic:
        found = self._metadata()
        if name not in found:
            user = [each for each, topic in found.items() if not topic.internal]
            there = did_you_mean(name, user) or (f" The topics are {listed(user)}." if user else "")
            raise KafkaError(ErrorCode.unknown_topic_or_partition, f"Topic {name!r} does not exist.{there}")
        return found[name]

    def _indexes(self, topic: str, partition: int | None) -> list[int]:
        leaders = self._topic(topic).leaders
        if partition is None:
            return sorted(leaders)
        if partition not in leaders:
            raise KafkaError(
                ErrorCode.unknown_topic_or_partition,
                f"Topic {topic!r} has no partition {partition}: it has {len(leaders)}, from 0.",
            )
        return [partition]

    def _is_led(self, name: str) -> bool:
        topic = self._metadata().get(name)
        if topic is None or min(topic.leaders.values(), default=-1) < 0:
            return False
        for index in topic.leaders:
            try:
                self._offset(name, index, LATEST)
            except KafkaError:
                return False
        return True

    def _offset(self, topic: str, index: int, which: int) -> int:
        part = {"partition_index": index, "current_leader_epoch": -1, "timestamp": which}
        fields = {
            "replica_id": -1,
            "isolation_level": 0,
            "topics": [{"name": topic, "partitions": [part]}],
        }
        answer = self._ask_leader(topic, index, "ListOffsets", fields).topics[0].partitions[0]
        _raise(answer.error_code)
        return int(answer.offset)

    def _read(self, topic: str, index: int, read_committed: bool) -> list[StoredRecord]:
        start, end = self._offset(topic, index, EARLIEST), self._offset(topic, index, LATEST)
        batches = list(self._batches(topic, index, start, end))
        return [
            StoredRecord(index, *record)
            for header, batch in (transactions.read_committed(batches) if read_committed else batches)
            if not header.is_control
            for record in iter_records(batch)
            if record.offset >= start
        ]

    def _batches(self, topic: str, index: int, start: int, end: int) -> Iterator[Any]:
        offset = start
        while offset < end:
            part = {
                "partition": index,
                "current_leader_epoch": -1,
                "fetch_offset": offset,
                "log_start_offset": -1,
                "partition_max_bytes": FETCH_BYTES_MAX,
            }
            fields = {
                "replica_id": -1,
                "max_wait_ms": 500,
                "min_bytes": 1,
                "max_bytes": FETCH_BYTES_MAX,
                "isolation_level": 0,
                "session_id": 0,
                "session_epoch": -1,
                "topics": [{"topic": topic, "partitions": [part]}],
                "forgotten_topics_data": (),
                "rack_id": "",
            }
            answer = self._ask_leader(topic, index, "Fetch", fields).responses[0].partitions[0]
            _raise(answer.error_code)
            before = offset
            for header, batch in iter_batches(answer.records or b""):
                offset = header.next_offset
                yield header, batch
            if offset == before:
                return

    # ------------------------------------------------------------ whom it is asked

    def _ask_any(self, api: str, fields: dict[str, Any]) -> Any:
        failure: OSError | None = None
        for address in [*self._bootstrap, *self._addresses.values()]:
            try:
                return _ask(address, api, fields)
            except OSError as error:
                failure = error
        raise ConnectionError(f"no broker of {self.bootstrap_servers} can be reached: {failure}") from failure

    def _ask_controller(self, api: str, fields: dict[str, Any]) -> Any:
        self._metadata()
        if self._controller not in self._addresses:
            raise KafkaError(ErrorCode.broker_not_available, "The cluster has no controller now.")
        return _ask(self._addresses[self._controller], api, fields)

    def _ask_leader(self, topic: str, index: int, api: str, fields: dict[str, Any]) -> Any:
        leader = self._topic(topic).leaders.get(index, -1)
        if leader not in self._addresses:
            raise KafkaError(ErrorCode.leader_not_available, f"Partition {topic}-{index} has no leader.")
        return _ask(self._addresses[leader], api, fields)

    def _ask_coordinator(self, group: str, api: str, fields: dict[str, Any]) -> Any:
        deadline_s = time.monotonic() + SETTLE_S
        while True:
            found = self._ask_any("FindCoordinator", {"key": group, "key_type": 0})
            code = ErrorCode(found.error_code)
            if code is ErrorCode.none:
                answer = _ask((found.host, found.port), api, fields)
                code = ErrorCode(answer.error_code)
                if code not in _PASSING:
                    return answer
            if code not in _PASSING or time.monotonic() >= deadline_s:
                raise KafkaError(code, found.error_message)
            time.sleep(PAUSE_S)

    def _until(self, done: Callable[[], bool], otherwise: str) -> None:
        deadline_s = time.monotonic() + SETTLE_S
        while not done():
            if time.monotonic() >= deadline_s:
                raise TimeoutError(f"{otherwise} after {SETTLE_S:g} s")
            time.sleep(PAUSE_S)


_numbers = itertools.count(1)


def _ask(address: tuple[str, int], api: str, fields: dict[str, Any]) -> Any:
    """The response to one request, on a connection of its own. OSError."""
    key, version = BY_NAME[api].key, _VERSIONS[api]
    with socket.create_connection(address, REQUEST_TIMEOUT_S) as connection:
        connection.sendall(frame_request(key, version, next(_numbers) & 0x7FFFFFFF, CLIENT_ID, fields))
        (size,) = struct.unpack(">i", _exactly(connection, 4))
        frame = _exactly(connection, size)
    _, offset = read_response_header(key, version, frame)
    return decode_response(key, version, frame, offset)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(min(size - len(data), 1 << 20))
        if not piece:
            raise ConnectionError("the broker closed the connection instead of answering")
        data += piece
    return bytes(data)


def _raise(code: int, message: str | None = None) -> None:
    if code:
        raise KafkaError(ErrorCode(code), message)


def _address(text: str) -> tuple[str, int]:
    found = parse_address(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return found
