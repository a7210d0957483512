"""Transactions of one record, one after the other, over raw sockets: a client that costs little.

What a client of Kafka's sends for each: in KIP-890's protocol a Produce, which adds its partition, and
EndTxn; in the classic one AddPartitionsToTxn, Produce and EndTxn. Without transactions, for comparison, the
Produce of an idempotent producer, acks=all. Plain connections only.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ottla.checksum import crc32c
from ottla.cli.bench.raw import FRAME
from ottla.cli.bench.workers import Done, Start, values
from ottla.cli.errors import CliError
from ottla.errors import ErrorCode
from ottla.types import Record
from ottla.wire.apis import ADD_PARTITIONS_TO_TXN, API_VERSIONS, BY_NAME, PRODUCE
from ottla.wire.messages import decode_response, frame_request, read_response_header
from ottla.wire.records import build_batch

CLIENT_ID: Final = "ottla-bench"
TIMEOUT_S: Final = 30.0
FIND_COORDINATOR: Final = BY_NAME["FindCoordinator"].key
INIT_PRODUCER_ID: Final = BY_NAME["InitProducerId"].key
END_TXN: Final = BY_NAME["EndTxn"].key
API_VERSIONS_VERSION: Final = 3
FIND_COORDINATOR_VERSION: Final = 2
INIT_VERSION: Final = 4
ADD_VERSION: Final = 3
# What is coordinated by that key.
TRANSACTION: Final = 1
# (Produce, EndTxn) of the two protocols, and the level of the cluster's feature from which on the second is.
CLASSIC_VERSIONS: Final = (11, 3)
KIP_890_VERSIONS: Final = (12, 5)
KIP_890_LEVEL: Final = 2
# Behind an error that passes: a new coordinator, and the transaction before, as Kafka's own clients wait.
RETRY_S: Final = 0.02
READY_S: Final = 60.0
_PASSING: Final = frozenset(
    {
        ErrorCode.coordinator_load_in_progress,
        ErrorCode.coordinator_not_available,
        ErrorCode.not_coordinator,
        ErrorCode.concurrent_transactions,
        ErrorCode.not_enough_replicas,
    }
)
# Of a batch: where its checksum is, what that is of, and the producer's epoch and sequence number.
CRC_AT: Final = 17
CHECKED_AT: Final = 21
EPOCH_AT: Final = 51
_CRC: Final = struct.Struct(">I")
_EPOCH: Final = struct.Struct(">hi")


@dataclass(frozen=True, slots=True)
class SingleLoad:
    """What one process does. ``transactional_id``: None for a producer without transactions."""

    bootstrap: tuple[str, int]
    leader: tuple[str, int]
    topic: str
    partition: int
    size: int
    seconds: float
    warmup_s: float
    transactional_id: str | None


class _Connection:
    """One request after the other. OSError where it breaks."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb")

    def exchange(self, request: bytes | bytearray) -> bytes:
        """The response, without its size."""
        self._socket.sendall(request)
        head = self._stream.read(FRAME.size)
        body = self._stream.read(FRAME.unpack(head)[0]) if len(head) == FRAME.size else b""
        if not body:
            raise ConnectionError("the broker closed the connection")
        return body

    def ask(self, api_key: int, version: int, fields: dict[str, Any]) -> Any:
        request = frame_request(api_key, version, 1, CLIENT_ID, fields)
        return decoded(api_key, version, self.exchange(request))

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


def decoded(api_key: int, version: int, response: bytes) -> Any:
    return decode_response(api_key, version, response, read_response_header(api_key, version, response)[1])


def is_kip_890(answer: Any) -> bool:
    """Whether a broker's ApiVersions lets clients have an epoch for each transaction."""
    last: dict[int, int] = {api.api_key: api.max_version for api in answer.api_keys}
    levels: dict[str, int] = {
        feature.name: feature.max_version_level for feature in answer.finalized_features
    }
    produce, end = KIP_890_VERSIONS
    return (
        levels.get("transaction.version", 0) >= KIP_890_LEVEL
        and last.get(PRODUCE, 0) >= produce
        and last.get(END_TXN, 0) >= end
    )


class ProduceRequest:
    """A Produce of one record, made once: each time with the producer's epoch and the next number."""

    def __init__(self, load: SingleLoad, version: int, producer_id: int) -> None:
        now_ms = int(time.time() * 1000)
        records = [Record(0, now_ms, None, values(1, load.size, 1)[0])]
        is_transactional = load.transactional_id is not None
        batch = build_batch(
            records,
            producer_id=producer_id,
            producer_epoch=0,
            base_sequence=0,
            transactional=is_transactional,
        )
        partition = {"index": load.partition, "records": batch}
        fields = {
            "transactional_id": load.transactional_id,
            "acks": -1,
            "timeout_ms": 30_000,
            "topic_data": [{"name": load.topic, "partition_data": [partition]}],
        }
        self._data = bytearray(frame_request(PRODUCE, version, 1, CLIENT_ID, fields))
        self._at, self._end = self._data.index(batch), self._data.index(batch) + len(batch)

    def numbered(self, epoch: int, sequence: int) -> bytearray:
        data, at = self._data, self._at
        _EPOCH.pack_into(data, at + EPOCH_AT, epoch, sequence)
        _CRC.pack_into(data, at + CRC_AT, crc32c(memoryview(data)[at + CHECKED_AT : self._end]))
        return data


class _Producer:
    """One producer, and what it has measured."""

    def __init__(self, load: SingleLoad) -> None:
        self._load = load
        first = _Connection(load.bootstrap)
        self._opened = [first]
        self.has_bumps = is_kip_890(first.ask(API_VERSIONS, API_VERSIONS_VERSION, _named()))
        self._produce_version, self._end_version = KIP_890_VERSIONS if self.has_bumps else CLASSIC_VERSIONS
        self._coordinator = first
        if load.transactional_id is not None:
            self._coordinator = self._find(first, load.transactional_id)
        self._leader = self._connect(load.leader)
        self.producer_id, self._epoch = self._init()
        self._request = ProduceRequest(load, self._produce_version, self.producer_id)
        self._sequence = self.count = self.retries = 0
        self.latencies_s: list[float] = []
        self.commits_s: list[float] = []

    def _connect(self, address: tuple[str, int]) -> _Connection:
        self._opened.append(_Connection(address))
        return self._opened[-1]

    def close(self) -> None:
        for one in self._opened:
            one.close()

    # -- before

    def _find(self, connection: _Connection, transactional_id: str) -> _Connection:
        fields = {"key": transactional_id, "key_type": TRANSACTION}
        answer = _until(
            "FindCoordinator",
            lambda: connection.ask(FIND_COORDINATOR, FIND_COORDINATOR_VERSION, fields),
        )
        return self._connect((answer.host, answer.port))

    def _init(self) -> tuple[int, int]:
        fields = {
            "transactional_id": self._load.transactional_id,
            "transaction_timeout_ms": 60_000,
            "producer_id": -1,
            "producer_epoch": -1,
        }
        ask = self._coordinator.ask
        answer = _until("InitProducerId", lambda: ask(INIT_PRODUCER_ID, INIT_VERSION, fields))
        return answer.producer_id, answer.producer_epoch

    # -- meanwhile

    def run(self, seconds: float, show: Callable[[int], None] = lambda count: None) -> None:
        end_s = time.monotonic() + seconds
        work = self._transact if self._load.transactional_id is not None else self._produce
        while time.monotonic() < end_s:
            began_s = time.perf_counter()
            work()
            self.latencies_s.append(time.perf_counter() - began_s)
            self.count += 1
            show(self.count)

    def forget(self) -> None:
        """Leave out of the figures what was done so far."""
        self.count = self.retries = 0
        self.latencies_s.clear()
        self.commits_s.clear()

    def _transact(self) -> None:
        if not self.has_bumps:
            self._add()
        self._produce()
        began_s = time.perf_counter()
        answer = self._again("EndTxn", self._end)
        self.commits_s.append(time.perf_counter() - began_s)
        if self.has_bumps:
            if answer.producer_id != self.producer_id:
                self.producer_id = answer.producer_id
                self._request = ProduceRequest(self._load, self._produce_version, self.producer_id)
            self._epoch, self._sequence = answer.producer_epoch, 0

    def _add(self) -> None:
        load = self._load
        fields = {
            "v3_and_below_transactional_id": load.transactional_id,
            "v3_and_below_producer_id": self.producer_id,
            "v3_and_below_producer_epoch": self._epoch,
            "v3_and_below_topics": [{"name": load.topic, "partitions": [load.partition]}],
        }

        def ask() -> Any:
            answer = self._coordinator.ask(ADD_PARTITIONS_TO_TXN, ADD_VERSION, fields)
            return answer.results_by_topic_v3_and_below[0].results_by_partition[0]

        self._again("AddPartitionsToTxn", ask, "partition_error_code")

    def _produce(self) -> None:
        def ask() -> Any:
            response = self._leader.exchange(self._request.numbered(self._epoch, self._sequence))
            return decoded(PRODUCE, self._produce_version, response).responses[0].partition_responses[0]

        self._again("Produce", ask)
        self._sequence += 1

    def _end(self) -> Any:
        fields = {
            "transactional_id": self._load.transactional_id,
            "producer_id": self.producer_id,
            "producer_epoch": self._epoch,
            "committed": True,
        }
        return self._coordinator.ask(END_TXN, self._end_version, fields)

    def _again(self, what: str, ask: Callable[[], Any], error: str = "error_code") -> Any:
        answer = ask()
        while getattr(answer, error) in _PASSING:
            self.retries += 1
            time.sleep(RETRY_S)
            answer = ask()
        _check(what, getattr(answer, error))
        return answer


def _named() -> dict[str, Any]:
    return {"client_software_name": CLIENT_ID, "client_software_version": "1"}


def _check(what: str, code: int) -> None:
    if code:
        raise CliError(f"{what}: {ErrorCode(code).name}")


def _until(what: str, ask: Callable[[], Any]) -> Any:
    """The answer, once what has only begun is ready."""
    deadline_s = time.monotonic() + READY_S
    while (answer := ask()).error_code in _PASSING and time.monotonic() < deadline_s:
        time.sleep(RETRY_S)
    _check(what, answer.error_code)
    return answer


def run(load: SingleLoad, start: Start, progress: Any, index: int) -> Done:
    """Warm up, meet the others at ``start``, then write for the time given."""
    producer = _Producer(load)
    try:
        producer.run(load.warmup_s)
        start.wait()
        producer.forget()
        began_s, cpu_s = time.monotonic(), time.process_time()
        producer.run(load.seconds, lambda count: progress.__setitem__(index, count))
        ended_s, used_s = time.monotonic(), time.process_time() - cpu_s
    finally:
        producer.close()
    return Done(
        producer.count,
        producer.count * load.size,
        0,
        began_s,
        ended_s,
        used_s,
        tuple(producer.latencies_s),
        commits_s=tuple(producer.commits_s),
        retried=producer.retries,
    )
