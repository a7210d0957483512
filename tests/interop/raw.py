"""A client that speaks the protocol byte by byte, so that tests can say what no real client would."""

from __future__ import annotations

import itertools
import socket
import struct
import time
from types import TracebackType
from typing import Any

from ottla.types import Record
from ottla.wire import records
from ottla.wire.apis import APIS, BY_NAME
from ottla.wire.messages import decode_response, encode_request, response_header_flexible

TIMEOUT_S = 20.0


def request_header(
    api_key: int,
    version: int,
    correlation_id: int = 1,
    *,
    client_id: str | None = "raw",
    flexible: bool = False,
) -> bytes:
    """A request header of version 1, or 2 with no tagged fields if `flexible`."""
    header = struct.pack(">hhi", api_key, version, correlation_id)
    if client_id is None:
        header += b"\xff\xff"
    else:
        encoded = client_id.encode()
        header += struct.pack(">h", len(encoded)) + encoded
    return header + (b"\0" if flexible else b"")


def flexible(api_key: int, version: int) -> bool:
    """Whether requests of this version have tagged fields."""
    return (api_key == 18 and version >= 3) or (api_key != 18 and response_header_flexible(api_key, version))


def framed(payload: bytes) -> bytes:
    return struct.pack(">i", len(payload)) + payload


class RawClient:
    """One connection. `call` encodes and decodes; `send` and `receive` move what the test made itself."""

    def __init__(self, address: str, timeout_s: float = TIMEOUT_S) -> None:
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout_s)
        self._ids = itertools.count(1)

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive_exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise ConnectionError(f"closed after {len(data)} of {size} bytes")
            data += piece
        return data

    def receive(self) -> bytes:
        """The payload of the next frame."""
        (size,) = struct.unpack(">i", self.receive_exactly(4))
        return self.receive_exactly(size)

    def frame(self, api: str, version: int, fields: dict[str, Any], correlation_id: int = 1) -> bytes:
        """A whole request as bytes."""
        key = BY_NAME[api].key
        header = request_header(key, version, correlation_id, flexible=flexible(key, version))
        return framed(header + encode_request(key, version, fields))

    def call(self, api: str, version: int | None = None, **fields: Any) -> Any:
        """Send a request and decode its response."""
        key = BY_NAME[api].key
        version = APIS[key].version_max if version is None else version
        correlation_id = next(self._ids)
        self.send(self.frame(api, version, fields, correlation_id))
        return self.answer(api, version, correlation_id)

    def answer(self, api: str, version: int, correlation_id: int) -> Any:
        """The next response, which must be the one to that request."""
        key = BY_NAME[api].key
        payload = self.receive()
        assert payload[:4] == struct.pack(">i", correlation_id)
        return decode_response(key, version, payload, 5 if response_header_flexible(key, version) else 4)

    def closed(self) -> bool:
        """Whether the broker closes this connection (within the time limit), sending nothing more."""
        try:
            rest = self.socket.recv(1)
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
        assert rest == b"", f"an answer where none was due: {rest!r}"
        return True

    # ------------------------------------------------------------ the requests that tests use most

    def create_topic(self, name: str, partitions: int = 1, **configs: str) -> Any:
        """Create a topic; `configs` have underscores for dots. Gives the topic's result."""
        topic = {
            "name": name,
            "num_partitions": partitions,
            "replication_factor": 1,
            "assignments": [],
            "configs": [{"name": k.replace("_", "."), "value": v} for k, v in configs.items()],
        }
        answer = self.call("CreateTopics", topics=[topic], timeout_ms=10_000, validate_only=False)
        return answer.topics[0]

    def produce(
        self, topic: str, data: bytes, *, partition: int = 0, acks: int = -1, version: int = 9
    ) -> Any:
        """Send `data` as the records of one partition; gives that partition's answer."""
        answer = self.call("Produce", version, **produce_fields(topic, data, partition=partition, acks=acks))
        return answer.responses[0].partition_responses[0]

    def fetch(
        self,
        topic: str,
        offset: int = 0,
        *,
        partition: int = 0,
        max_bytes: int = 1 << 20,
        max_wait_ms: int = 0,
    ) -> Any:
        """Read one partition; gives that partition's answer."""
        fields = fetch_fields(
            topic, offset, partition=partition, max_bytes=max_bytes, max_wait_ms=max_wait_ms
        )
        return self.call("Fetch", 12, **fields).responses[0].partitions[0]

    def values(self, topic: str, *, partition: int = 0, offset: int = 0) -> list[bytes | None]:
        """The values of a partition's records from `offset` on, by as many fetches as it takes."""
        out: list[bytes | None] = []
        while True:
            answer = self.fetch(topic, offset, partition=partition)
            assert answer.error_code == 0, answer
            found = [r for _, b in records.iter_batches(answer.records) for r in records.iter_records(b)]
            found = [record for record in found if record.offset >= offset]
            if not found:
                assert offset == answer.high_watermark
                return out
            out.extend(bytes(r.value) if r.value is not None else None for r in found)
            offset = found[-1].offset + 1


def produce_fields(topic: str, data: bytes, *, partition: int = 0, acks: int = -1) -> dict[str, Any]:
    return {
        "transactional_id": None,
        "acks": acks,
        "timeout_ms": 10_000,
        "topic_data": [{"name": topic, "partition_data": [{"index": partition, "records": data}]}],
    }


def fetch_fields(
    topic: str,
    offset: int = 0,
    *,
    partition: int = 0,
    max_bytes: int = 1 << 20,
    max_wait_ms: int = 0,
    min_bytes: int = 1,
) -> dict[str, Any]:
    return {
        "replica_id": -1,
        "max_wait_ms": max_wait_ms,
        "min_bytes": min_bytes,
        "max_bytes": max_bytes,
        "isolation_level": 0,
        "session_id": 0,
        "session_epoch": -1,
        "topics": [
            {
                "topic": topic,
                "partitions": [
                    {
                        "partition": partition,
                        "current_leader_epoch": -1,
                        "fetch_offset": offset,
                        "last_fetched_epoch": -1,
                        "log_start_offset": -1,
                        "partition_max_bytes": max_bytes,
                    }
                ],
            }
        ],
        "forgotten_topics_data": [],
        "rack_id": "",
    }


def batch(*values: bytes | None, timestamp_ms: int | None = None, **options: Any) -> bytes:
    """A record batch of `values`, stamped now unless told."""
    now_ms = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms
    return records.build_batch([Record(0, now_ms, None, value, ()) for value in values], **options)
