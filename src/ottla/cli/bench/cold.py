"""A consumer of what the broker's machine does not hold in memory: the kernel forgets it before each pass.

For brokers on this machine, whose files we may open.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape, glob
from typing import Any

from ottla.cli.bench import raw, runner
from ottla.cli.bench.workers import Done, Start
from ottla.cli.client import Cluster
from ottla.cli.errors import CliError
from ottla.errors import ErrorCode
from ottla.types import TopicPartition

FETCH, FETCH_VERSION = 1, 11
LOG_DIRS, LOG_DIRS_VERSION = 35, 1
# What a pass reads, in batches of 1 MB; and at a time, as consumers ask unless they are told to.
BATCHES, BATCH_RECORDS, BATCH_RECORD_BYTES = 128, 1000, 1000
FETCH_BYTES, PARTITION_BYTES = 50 << 20, 1 << 20
WAIT_MS = 500
# Stands for the offset in a request that is built once.
MARKER = 0x0123456789ABCDEF
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class ColdLoad:
    """What is read, again and again: a partition from 0 to ``end``, which is in these files."""

    host: str
    port: int
    topic: str
    partition: int
    end: int
    files: tuple[str, ...]
    seconds: float
    warmup_s: float


def prepare(cluster: Cluster, partition: TopicPartition, seconds: float, warmup_s: float) -> ColdLoad:
    """Fill a partition and find its files. CliError where they are not here, or are somebody else's."""
    host, port = runner.leader(cluster, partition)
    request = raw.produce_request(partition.topic, partition.partition, BATCH_RECORDS, BATCH_RECORD_BYTES, 1)
    at = 4 + raw.produce_error_position(partition.topic)
    with _Exchange(host, port) as exchange:
        for _ in range(BATCHES):
            code = int.from_bytes(exchange.ask(request)[at - 4 : at - 2], "big", signed=True)
            if code:
                raise CliError(f"{partition} cannot be filled: {ErrorCode(code).name}")
        files = tuple(_files(exchange, partition))
    forget(files)
    end = BATCHES * BATCH_RECORDS
    return ColdLoad(host, port, partition.topic, partition.partition, end, files, seconds, warmup_s)


def _files(exchange: _Exchange, partition: TopicPartition) -> Sequence[str]:
    from ottla.wire.messages import decode_response, encode_request

    fields = {"topics": [{"topic": partition.topic, "partitions": [partition.partition]}]}
    request = encode_request(LOG_DIRS, LOG_DIRS_VERSION, fields)
    answer = exchange.ask(raw.frame(LOG_DIRS, LOG_DIRS_VERSION, request))
    folders = decode_response(LOG_DIRS, LOG_DIRS_VERSION, answer, 4).results
    found = [path for folder in folders for path in glob(f"{escape(folder.log_dir)}/{partition}/*.log")]
    if not found:
        raise CliError(
            f"{partition} is not in a folder of this machine: only here can its files be put out of memory"
        )
    return found


def forget(files: Sequence[str]) -> None:
    """Have the kernel drop what it holds of these files. CliError: they cannot be opened."""
    if not hasattr(os, "posix_fadvise"):
        raise CliError("files cannot be put out of memory here: that takes posix_fadvise, which Linux has")
    for path in files:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise CliError(f"{path} cannot be put out of memory: {error.strerror}") from error
        try:
            # What is not written yet stays.
            os.fdatasync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


class _Exchange:
    """One request after the other on one connection. OSError where it breaks."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb", 1 << 20)

    def __enter__(self) -> _Exchange:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()
        self._socket.close()

    def ask(self, request: bytes) -> bytes:
        """The response to a request, without its size."""
        self._socket.sendall(request)
        head = self._stream.read(4)
        size = raw.FRAME.unpack(head)[0] if len(head) == 4 else 0
        body: bytes = self._stream.read(size)
        if not size or len(body) < size:
            raise ConnectionError("the broker closed the connection")
        return body


def fetch_request(topic: str, partition: int) -> bytes:
    """A Fetch of one partition, without a session, from the offset ``MARKER``."""
    from ottla.wire.messages import encode_request

    wanted = {
        "partition": partition,
        "current_leader_epoch": -1,
        "fetch_offset": MARKER,
        "log_start_offset": -1,
        "partition_max_bytes": PARTITION_BYTES,
    }
    fields = {
        "replica_id": -1,
        "max_wait_ms": WAIT_MS,
        "min_bytes": 1,
        "max_bytes": FETCH_BYTES,
        "isolation_level": 0,
        "session_id": 0,
        "session_epoch": -1,
        "topics": [{"topic": topic, "partitions": [wanted]}],
        "forgotten_topics_data": [],
        "rack_id": "",
    }
    return raw.frame(FETCH, FETCH_VERSION, encode_request(FETCH, FETCH_VERSION, fields))


class _Reader:
    """Goes through the partition again and again, each time from the disk."""

    def __init__(self, load: ColdLoad, exchange: _Exchange) -> None:
        self._load = load
        self._exchange = exchange
        self._request = bytearray(fetch_request(load.topic, load.partition))
        self._offset_at = self._request.index(MARKER.to_bytes(8, "big"))
        self._offset = load.end
        self.bytes = 0
        self.latencies_s: list[float] = []

    def fetch(self) -> None:
        """Ask once. CliError where nothing comes, OSError where the connection breaks."""
        from ottla.wire.messages import decode_response
        from ottla.wire.records import iter_batches

        if self._offset >= self._load.end:
            forget(self._load.files)
            self._offset = 0
        self._request[self._offset_at : self._offset_at + 8] = self._offset.to_bytes(8, "big")
        asked_s = time.monotonic()
        answer = self._exchange.ask(bytes(self._request))
        self.latencies_s.append(time.monotonic() - asked_s)
        found = decode_response(FETCH, FETCH_VERSION, answer, 4).responses[0].partitions[0]
        before = self._offset
        for header, whole in iter_batches(found.records or b""):
            self._offset = header.next_offset
            self.bytes += len(whole)
        if self._offset == before:
            code = ErrorCode(found.error_code).name
            raise CliError(f"a Fetch from offset {before} brought no batch ({code})")

    def run(self, seconds: float, progress: Any = None, index: int = 0) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.fetch()
            if progress is not None:
                progress[index] = len(self.latencies_s)


def run(load: ColdLoad, start: Start, progress: Any, index: int) -> Done:
    """Warm up, meet the others at ``start``, then read for the time given."""
    with _Exchange(load.host, load.port) as exchange:
        reader = _Reader(load, exchange)
        error = None
        reader.run(load.warmup_s)
        start.wait()
        reader.bytes = 0
        reader.latencies_s.clear()
        began_s, cpu_s = time.monotonic(), time.process_time()
        try:
            reader.run(load.seconds, progress, index)
        except (CliError, OSError) as failure:
            error = str(failure)
        used_s, ended_s = time.process_time() - cpu_s, time.monotonic()
    done, latencies_s = len(reader.latencies_s), tuple(reader.latencies_s)
    return Done(done, reader.bytes, int(error is not None), began_s, ended_s, used_s, latencies_s, error)
