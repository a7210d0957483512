"""A client that asks one broker, one request after the other: what the benchmarks need of Kafka's protocol.

Versions are the newest ones without tagged fields, which Kafka 4 and brokers of its kind serve, so that a
request and its response can be timed, and looked into, as bytes.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ottla.cli.bench.raw import FRAME, frame
from ottla.errors import ErrorCode
from ottla.types import Record
from ottla.wire.apis import BY_NAME
from ottla.wire.messages import decode_response, encode_request
from ottla.wire.records import build_batch

TIMEOUT_S = 120.0
# How long a broker may need for what it does behind an answer: leaders of new partitions, a coordinator.
READY_S = 60.0
STEP_S = 0.02
REGISTERED_S = 5.0
VERSIONS = {
    "Produce": 8,
    "Fetch": 11,
    "ListOffsets": 5,
    "Metadata": 7,
    "OffsetCommit": 7,
    "OffsetFetch": 5,
    "FindCoordinator": 2,
    "ListGroups": 2,
    "InitProducerId": 1,
    "ApiVersions": 0,
    "CreateTopics": 4,
    "DeleteTopics": 3,
    "DeleteGroups": 1,
}
# A request makes so many partitions at most: Kafka takes 10,000 in one.
PARTITIONS_AT_ONCE = 2000
FILL_AT_ONCE = 500
GROUPS_AT_ONCE = 200
# What FindCoordinator is asked for.
GROUP, TRANSACTION = 0, 1
# Where things are in a response, counted from behind its size.
CORRELATION, THROTTLE, COUNT, SHORT, LONG = 4, 4, 4, 2, 8


class Refused(Exception):
    """A broker did not do what was asked; the message says what and why."""


class Connection:
    """One connection. OSError where it breaks."""

    def __init__(self, host: str, port: int, timeout_s: float = TIMEOUT_S) -> None:
        self.host, self.port = host, port
        self._socket = socket.create_connection((host, port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb", 1 << 20)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> bytes:
        """The next response, without its size."""
        head = self._stream.read(4)
        size = FRAME.unpack(head)[0] if len(head) == 4 else 0
        body: bytes = self._stream.read(size)
        if not size or len(body) < size:
            raise ConnectionError(f"{self.host}:{self.port} closed the connection")
        return body

    def exchange(self, request: bytes) -> bytes:
        self.send(request)
        return self.receive()

    def ask(self, name: str, **fields: Any) -> Any:
        """The response to a request of this name."""
        answer = self.exchange(request(name, **fields))
        return decode_response(BY_NAME[name].key, VERSIONS[name], answer, CORRELATION)


def request(name: str, **fields: Any) -> bytes:
    """A request as it is sent, with its size."""
    key, version = BY_NAME[name].key, VERSIONS[name]
    return frame(key, version, encode_request(key, version, fields))


def batch(count: int, size: int, at_ms: int | None = None) -> bytes:
    """A batch of so many messages of as many bytes each, of a time, or now."""
    value = b"a message of so many bytes "
    if at_ms is None:
        at_ms = int(time.time() * 1000)
    record = Record(0, at_ms, None, (value * (size // len(value) + 1))[:size])
    return build_batch([record] * count)


def produce(batches: Mapping[str, Iterable[tuple[int, bytes]]], acks: int = 1) -> bytes:
    """A Produce request: for each topic partitions, and what goes there."""
    data = [
        {"name": topic, "partition_data": [{"index": p, "records": records} for p, records in partitions]}
        for topic, partitions in batches.items()
    ]
    return request("Produce", transactional_id=None, acks=acks, timeout_ms=30_000, topic_data=data)


def produce_error_at(topic: str) -> int:
    """Where the error code of its first partition is in a response to ``produce``."""
    return CORRELATION + COUNT + SHORT + len(topic) + COUNT + 4


def fetch(
    offsets: Mapping[str, Mapping[int, int]],
    *,
    wait_ms: int = 0,
    session: tuple[int, int] = (0, -1),
    max_bytes: int = 50 << 20,
) -> bytes:
    """A Fetch request from these offsets. ``session``: id and epoch of a fetch session, none by default."""
    topics = [
        {
            "topic": topic,
            "partitions": [
                {
                    "partition": p,
                    "current_leader_epoch": -1,
                    "fetch_offset": offset,
                    "log_start_offset": -1,
                    "partition_max_bytes": min(max_bytes, 1 << 20),
                }
                for p, offset in partitions.items()
            ],
        }
        for topic, partitions in offsets.items()
    ]
    return request(
        "Fetch",
        replica_id=-1,
        isolation_level=0,
        max_wait_ms=wait_ms,
        min_bytes=1,
        max_bytes=max_bytes,
        session_id=session[0],
        session_epoch=session[1],
        topics=topics,
        forgotten_topics_data=[],
        rack_id="",
    )


def fetch_error_at() -> int:
    return CORRELATION + THROTTLE


def fetch_session_at() -> int:
    """Where the id of its session is in a response to ``fetch``."""
    return CORRELATION + THROTTLE + SHORT


def fetch_session(response: bytes) -> int:
    """The id of the session that a response to ``fetch`` is of."""
    at = fetch_session_at()
    return int.from_bytes(response[at : at + 4], "big")


def fetch_end_at(topic: str) -> int:
    """Where a response to ``fetch`` has the end (the high watermark) of its only partition."""
    session = 4
    topics = COUNT + SHORT + len(topic)
    return CORRELATION + THROTTLE + SHORT + session + topics + COUNT + 4 + SHORT


def fetched_bytes(response: bytes, topic: str) -> int:
    """How many bytes of records a response to ``fetch`` has of its only partition."""
    aborted, replica = COUNT, 4
    at = fetch_end_at(topic) + 3 * LONG + aborted + replica
    return max(0, int.from_bytes(response[at : at + 4], "big", signed=True))


def fetch_offset_at(topic: str, partition: int = 0) -> int:
    """Where the offset is in a ``fetch`` of one partition, its size included."""
    marker = 0x0123456789ABCDEF
    return fetch({topic: {partition: marker}}).index(marker.to_bytes(8, "big"))


def session_at() -> int:
    """Where the id of its session is in a ``fetch``, its size included; the epoch comes behind it."""
    marker = 0x1234567
    return fetch({}, session=(marker, 0)).index(marker.to_bytes(4, "big"))


def commit(group: str, topic: str, offset: int) -> bytes:
    """An OffsetCommit of a group without members, for partition 0."""
    partition = {
        "partition_index": 0,
        "committed_offset": offset,
        "committed_leader_epoch": -1,
        "committed_metadata": None,
    }
    return request(
        "OffsetCommit",
        group_id=group,
        generation_id_or_member_epoch=-1,
        member_id="",
        group_instance_id=None,
        topics=[{"name": topic, "partitions": [partition]}],
    )


def commit_error_at(topic: str) -> int:
    """Where the error code of its first partition is in a response to ``commit``."""
    return CORRELATION + THROTTLE + COUNT + SHORT + len(topic) + COUNT + 4


def init_producer(transactional_id: str) -> bytes:
    """An InitProducerId request: the id's next epoch."""
    return request("InitProducerId", transactional_id=transactional_id, transaction_timeout_ms=60_000)


def init_error_at() -> int:
    """Where the error code is in a response to ``init_producer``."""
    return CORRELATION + THROTTLE


def lookup(topic: str, at_ms: int) -> bytes:
    """A ListOffsets request for partition 0: the first offset of that time, or later."""
    wanted = {"partition_index": 0, "current_leader_epoch": -1, "timestamp": at_ms}
    named = [{"name": topic, "partitions": [wanted]}]
    return request("ListOffsets", replica_id=-1, isolation_level=0, topics=named)


def metadata(topics: Sequence[str] | None) -> bytes:
    """A Metadata request for these topics, or all."""
    named = None if topics is None else [{"name": name} for name in topics]
    return request("Metadata", topics=named, allow_auto_topic_creation=False)


def check(what: str, code: ErrorCode | int) -> None:
    """Refused where there is an error."""
    if code:
        raise Refused(f"{what}: {ErrorCode(code).name}")


def until(what: str, is_ready: Callable[[], bool], timeout_s: float = READY_S) -> None:
    """Ask until the answer is yes. Refused where that takes too long."""
    deadline_s = time.monotonic() + timeout_s
    while not is_ready():
        if time.monotonic() > deadline_s:
            raise Refused(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(STEP_S)


def make_topics(connection: Connection, topics: Mapping[str, int], replicas: int = -1) -> None:
    """Make topics of so many partitions each, and wait until each partition has a leader, and the replicas
    that were asked for; -1: as many as the broker gives."""
    left = dict(topics)
    while left:
        chunk: dict[str, int] = {}
        while left and (not chunk or sum(chunk.values()) + next(iter(left.values())) <= PARTITIONS_AT_ONCE):
            name = next(iter(left))
            chunk[name] = left.pop(name)
        wanted = [
            {
                "name": name,
                "num_partitions": count,
                "replication_factor": replicas,
                "assignments": [],
                "configs": [],
            }
            for name, count in chunk.items()
        ]
        _create(connection, wanted)

    def led() -> bool:
        answer = connection.ask(
            "Metadata", topics=[{"name": name} for name in topics], allow_auto_topic_creation=False
        )
        found = [partition for topic in answer.topics for partition in topic.partitions]
        complete = all(p.leader_id >= 0 and len(p.isr_nodes) >= replicas for p in found)
        return len(found) == sum(topics.values()) and complete

    until("leaders of new partitions", led)


def leaders(connection: Connection, topic: str) -> dict[int, tuple[str, int]]:
    """Where the leader of each partition listens."""
    answer = connection.ask("Metadata", topics=[{"name": topic}], allow_auto_topic_creation=False)
    where = {broker.node_id: (broker.host, broker.port) for broker in answer.brokers}
    return {p.partition_index: where[p.leader_id] for p in answer.topics[0].partitions}


def _create(connection: Connection, topics: Sequence[Mapping[str, Any]]) -> None:
    left = {str(topic["name"]): topic for topic in topics}

    def made() -> bool:
        asked = list(left.values())
        answer = connection.ask("CreateTopics", topics=asked, timeout_ms=60_000, validate_only=False)
        for topic in answer.topics:
            # A broker that has just been started may answer before it counts as one that can hold a replica.
            if topic.error_code != ErrorCode.invalid_replication_factor:
                check(f"CreateTopics {topic.name}", topic.error_code)
                del left[topic.name]
        return not left

    until("CreateTopics: invalid_replication_factor", made, REGISTERED_S)


def delete_topics(connection: Connection, topics: Sequence[str]) -> None:
    """Delete topics that are ours. Refused where one stays."""
    for at in range(0, len(topics), 100):
        names = list(topics[at : at + 100])
        answer = connection.ask("DeleteTopics", topic_names=names, timeout_ms=60_000)
        for one in answer.responses:
            if one.error_code != ErrorCode.unknown_topic_or_partition:
                check(f"DeleteTopics {one.name}", one.error_code)


def fill(connection: Connection, topics: Mapping[str, int], records: bytes) -> None:
    """Write a batch to each partition."""
    where = [(topic, partition) for topic, count in topics.items() for partition in range(count)]
    for at in range(0, len(where), FILL_AT_ONCE):
        batches: dict[str, list[tuple[int, bytes]]] = {}
        for topic, partition in where[at : at + FILL_AT_ONCE]:
            batches.setdefault(topic, []).append((partition, records))
        key = BY_NAME["Produce"].key
        answer = decode_response(key, VERSIONS["Produce"], connection.exchange(produce(batches)), CORRELATION)
        for one in answer.responses:
            for partition in one.partition_responses:
                check(f"Produce {one.name}-{partition.index}", partition.error_code)


def find_coordinator(connection: Connection, name: str, kind: int = GROUP) -> None:
    """Wait until the coordinator of a group, or of a transactional id, is there."""

    def found() -> bool:
        return not connection.ask("FindCoordinator", key=name, key_type=kind).error_code

    until(f"coordinator of {name}", found)


def commit_each(connection: Connection, groups: Sequence[str], topic: str) -> None:
    """An offset for each of the groups, many at a time. Refused where one is."""
    find_coordinator(connection, groups[0])
    requests = {group: commit(group, topic, 0) for group in groups}
    _each(connection, "OffsetCommit", requests, commit_error_at(topic))


def init_each(connection: Connection, ids: Sequence[str]) -> None:
    """A producer for each of the transactional ids, many at a time. Refused where one is."""
    find_coordinator(connection, ids[0], TRANSACTION)
    _each(connection, "InitProducerId", {one: init_producer(one) for one in ids}, init_error_at())


def _each(connection: Connection, what: str, requests: Mapping[str, bytes], error_at: int) -> None:
    """Ask a coordinator for each name."""

    def code(response: bytes) -> int:
        return int.from_bytes(response[error_at : error_at + 2], "big", signed=True)

    names = list(requests)
    # The first one waits for the coordinator to have loaded what it has to know.
    loading = (ErrorCode.coordinator_load_in_progress, ErrorCode.not_coordinator)
    until(f"{what} of {names[0]}", lambda: code(connection.exchange(requests[names[0]])) not in loading)
    for start in range(0, len(names), GROUPS_AT_ONCE):
        chunk = names[start : start + GROUPS_AT_ONCE]
        connection.send(b"".join(requests[name] for name in chunk))
        for name in chunk:
            check(f"{what} of {name}", code(connection.receive()))


def delete_groups(connection: Connection, groups: Sequence[str]) -> None:
    for at in range(0, len(groups), 1000):
        answer = connection.ask("DeleteGroups", groups_names=list(groups[at : at + 1000]))
        for one in answer.results:
            # Not all may have come to be.
            if one.error_code != ErrorCode.group_id_not_found:
                check(f"DeleteGroups {one.group_id}", one.error_code)
