"""What Kafka's requests and answers say, in words and numbers for people (pure).

Nothing here trusts what it reads: what cannot be read is `Unreadable`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import UUID

from ottla.errors import KafkaError
from ottla.explore.recording.recording import TEXT_MAX
from ottla.observe.described import bounded, error_codes, name_of
from ottla.types import Buffer, Record
from ottla.wire.apis import API_VERSIONS, APIS, BY_NAME, FETCH, OFFSET_COMMIT, PRODUCE, SERVED
from ottla.wire.messages import (
    MalformedMessage,
    decode_request,
    decode_response,
    read_header,
    read_response_header,
)
from ottla.wire.primitives import READ_ERRORS
from ottla.wire.records import BatchHeader, iter_batches, iter_records

TXN_OFFSET_COMMIT = BY_NAME["TxnOffsetCommit"].key
END_TXN = BY_NAME["EndTxn"].key
INIT_PRODUCER_ID = BY_NAME["InitProducerId"].key
JOIN_GROUP = BY_NAME["JoinGroup"].key
SYNC_GROUP = BY_NAME["SyncGroup"].key
OFFSET_FETCH = BY_NAME["OffsetFetch"].key
FIND_COORDINATOR = BY_NAME["FindCoordinator"].key
CONSUMER_GROUP_HEARTBEAT = BY_NAME["ConsumerGroupHeartbeat"].key

# Elements of arrays that are read of one message.
ELEMENTS_MAX = 20_000
# Partitions that are named of one request.
NAMED_MAX = 8
OK = "ok"

# The name of a topic by its id.
Names = Callable[[UUID], str]
# A topic and its index.
Where = tuple[str, int]


class Unreadable(ValueError):
    """What came is not what it is to be."""


class Request(NamedTuple):
    """A request with its header. ``fields`` None: its version is not served, or it is too large."""

    api_key: int
    version: int
    correlation_id: int
    fields: Any

    @property
    def name(self) -> str:
        api = APIS.get(self.api_key)
        return f"key {self.api_key}" if api is None else api.name


def read_request(data: bytes, *, is_whole: bool) -> Request:
    """The request in a frame, of which only the beginning may be there. Unreadable."""
    try:
        header = read_header(data)
        fields = None
        if is_whole and (header.api_key, header.api_version) in SERVED:
            fields = decode_request(
                header.api_key, header.api_version, data, header.body_offset, elements_max=ELEMENTS_MAX
            )
    except MalformedMessage as error:
        raise Unreadable(str(error)) from error
    return Request(header.api_key, header.api_version, header.correlation_id, fields)


def correlation_of(data: bytes) -> int:
    """The correlation id of an answer. Unreadable."""
    if len(data) < 4:
        raise Unreadable("an answer of less than four bytes")
    return int.from_bytes(data[:4], signed=True)


def read_answer(request: Request, data: bytes) -> Any:
    """The fields of the answer to a request. Unreadable."""
    versions = [request.version]
    if request.api_key == API_VERSIONS:
        # One that is too high is answered in the first.
        versions.append(0)
    for version in versions:
        if (request.api_key, version) in SERVED:
            try:
                _, offset = read_response_header(request.api_key, version, data)
                return decode_response(request.api_key, version, data, offset, elements_max=ELEMENTS_MAX)
            except MalformedMessage:
                continue
    raise Unreadable(f"an answer to {request.name} cannot be read")


def result_of(answer: Any) -> str:
    """The errors in an answer by their names, each once; ``ok`` where there is none."""
    names = dict.fromkeys(map(name_of, error_codes(answer)))
    return bounded(", ".join(names)) if names else OK


# ------------------------------------------------------------ records and offsets


def topic_of(element: Any, names: Names) -> str:
    """The topic that an element of an array is about."""
    for field in ("name", "topic"):
        name = getattr(element, field, None)
        if name:
            return bounded(name)
    topic_id = getattr(element, "topic_id", None)
    return "?" if topic_id is None else names(topic_id)


def produced(fields: Any, names: Names) -> Iterator[tuple[Where, Buffer]]:
    """The batches of a Produce by their partitions."""
    for topic in fields.topic_data:
        for partition in topic.partition_data:
            yield (topic_of(topic, names), partition.index), partition.records or b""


def stored(answer: Any, names: Names) -> Iterator[tuple[Where, int, str]]:
    """What a Produce's answer says of each partition: the first offset, and its result."""
    for topic in answer.responses:
        for partition in topic.partition_responses:
            result = name_of(partition.error_code) if partition.error_code else OK
            yield (topic_of(topic, names), partition.index), partition.base_offset, result


def asked_from(fields: Any, names: Names) -> dict[Where, int]:
    """Where a Fetch begins in each partition that it names."""
    return {
        (topic_of(topic, names), partition.partition): partition.fetch_offset
        for topic in fields.topics
        for partition in topic.partitions
    }


def fetched(answer: Any, names: Names) -> Iterator[tuple[Where, int, int]]:
    """The first and the last offset of what a Fetch's answer has of each partition. Unreadable.

    Control batches and those of aborted transactions do not count: no client hands them on.
    """
    for topic in answer.responses:
        for partition in topic.partitions:
            aborted = [(one.first_offset, one.producer_id) for one in partition.aborted_transactions or ()]
            batches = list(_kept(partition.records or b"", aborted))
            if batches:
                where = topic_of(topic, names), partition.partition_index
                yield where, batches[0].base_offset, batches[-1].last_offset


def _kept(records: Buffer, aborted: list[tuple[int, int]]) -> Iterator[BatchHeader]:
    for header in _headers(records):
        if header.is_control:
            # It ends the transaction that was open there.
            aborted = [one for one in aborted if one[1] != header.producer_id or one[0] > header.base_offset]
        elif not header.is_transactional or not any(
            first_offset <= header.base_offset and producer_id == header.producer_id
            for first_offset, producer_id in aborted
        ):
            yield header


def _headers(records: Buffer) -> Iterator[BatchHeader]:
    try:
        for header, _ in iter_batches(records):
            yield header
    except KafkaError as error:
        raise Unreadable(str(error)) from error


def records_of(batches: Buffer) -> Iterator[Record]:
    """The records of a Produce's batches, unpacked. Unreadable."""
    try:
        for _, batch in iter_batches(batches):
            yield from iter_records(batch)
    except KafkaError as error:
        raise Unreadable(str(error)) from error


def committed(fields: Any, names: Names) -> Iterator[tuple[Where, int]]:
    """The offsets that are to be committed."""
    for topic in fields.topics:
        for partition in topic.partitions:
            yield (topic_of(topic, names), partition.partition_index), partition.committed_offset


def commit_results(answer: Any, names: Names) -> dict[Where, str]:
    return {
        (topic_of(topic, names), partition.partition_index): name_of(partition.error_code)
        if partition.error_code
        else OK
        for topic in answer.topics
        for partition in topic.partitions
    }


# ------------------------------------------------------------ in words


def about(request: Request, names: Names) -> str:
    """What a request is about."""
    fields = request.fields
    if fields is None:
        return (
            "" if (request.api_key, request.version) in SERVED else f"version {request.version}, not served"
        )
    if request.api_key == PRODUCE:
        said = [_named(where, _count_text(batches)) for where, batches in produced(fields, names)]
    elif request.api_key == FETCH:
        said = [_named(where, f" from {offset}") for where, offset in asked_from(fields, names).items()]
    elif request.api_key in (OFFSET_COMMIT, TXN_OFFSET_COMMIT):
        said = [f"group {fields.group_id}"]
        said += [_named(where, f" to {offset}") for where, offset in committed(fields, names)]
    else:
        said = _plain(request, names)
    return _joined(said)


def _count_text(batches: Buffer) -> str:
    try:
        count = sum(header.record_count for header in _headers(batches))
    except Unreadable:
        return " (unreadable)"
    return f" ({count} record{'' if count == 1 else 's'})"


def _named(where: Where, what: str) -> str:
    return f"{where[0]}-{where[1]}{what}"


def _joined(said: list[str]) -> str:
    more = len(said) - NAMED_MAX
    text = ", ".join(said[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
    return text if len(text) <= TEXT_MAX else f"{text[: TEXT_MAX - 1]}…"


# Fields that say what a request is about, and the words before them.
_FIELDS = {
    "group_id": "group ",
    "transactional_id": "transaction ",
    "v3_and_below_transactional_id": "transaction ",
    "key": "",
    "generation_id": "generation ",
    "generation_id_or_member_epoch": "generation ",
    "member_epoch": "epoch ",
}


def _plain(request: Request, names: Names) -> list[str]:
    fields = request.fields
    said = []
    for field, words in _FIELDS.items():
        value = getattr(fields, field, None)
        if value not in (None, "", -1):
            said.append(f"{words}{value}")
    said += [str(key) for key in getattr(fields, "coordinator_keys", ())]
    said += [f"group {one.group_id}" for one in getattr(fields, "groups", ()) if hasattr(one, "group_id")]
    if request.api_key == END_TXN:
        said.append("commit" if fields.committed else "abort")
    for topic in getattr(fields, "topics", None) or ():
        if isinstance(topic, str):
            said.append(topic)
        elif getattr(topic, "partitions", ()):
            name = topic_of(topic, names)
            said += [f"{name}-{getattr(one, 'partition_index', one)}" for one in topic.partitions]
        else:
            said.append(topic_of(topic, names))
    return said


def told(request: Request, answer: Any, names: Names) -> str:
    """What an answer says that a person wants to know; empty for most."""
    said: list[str] = []
    if request.api_key == JOIN_GROUP:
        leads = ", as its leader" if answer.leader and answer.leader == answer.member_id else ""
        said = [f"generation {answer.generation_id}{leads}"] if answer.generation_id >= 0 else []
    elif request.api_key == SYNC_GROUP:
        said = _assigned(answer.assignment)
    elif request.api_key == CONSUMER_GROUP_HEARTBEAT and answer.assignment is not None:
        said = [
            f"{topic_of(one, names)}-{index}"
            for one in answer.assignment.topic_partitions
            for index in one.partitions
        ] or ["nothing"]
    elif request.api_key == OFFSET_FETCH:
        groups = getattr(answer, "groups", None) or [answer]
        said = [
            f"{topic_of(topic, names)}-{one.partition_index} at {one.committed_offset}"
            for group in groups
            for topic in group.topics
            for one in topic.partitions
            if not one.error_code and one.committed_offset >= 0
        ]
    elif request.api_key == INIT_PRODUCER_ID and answer.producer_id >= 0:
        said = [f"producer {answer.producer_id}, epoch {answer.producer_epoch}"]
    elif request.api_key == FIND_COORDINATOR:
        nodes = [one.node_id for one in getattr(answer, "coordinators", (answer,))]
        said = [f"node {node}" for node in nodes if node >= 0]
    return _joined(said)


def _assigned(assignment: bytes) -> list[str]:
    """The partitions in an assignment of the consumers' protocol; nothing where it is of another one."""
    said: list[str] = []
    if not assignment:
        return said
    try:
        position = 2
        topics, position = _int(assignment, position)
        for _ in range(min(topics, ELEMENTS_MAX)):
            size = int.from_bytes(assignment[position : position + 2])
            name = assignment[position + 2 : position + 2 + size].decode()
            indexes, position = _int(assignment, position + 2 + size)
            for _ in range(min(indexes, ELEMENTS_MAX)):
                index, position = _int(assignment, position)
                said.append(f"{name}-{index}")
    except READ_ERRORS:
        return []
    return said or ["nothing"]


def _int(data: bytes, position: int) -> tuple[int, int]:
    if position + 4 > len(data):
        raise IndexError("the assignment ends too soon")
    return int.from_bytes(data[position : position + 4], signed=True), position + 4
