"""A broker inside the test's process: started in a blink, in a directory that goes away with it.

The broker runs on an event loop of its own, in a thread of its own, for ``with`` and for ``async with``
alike. A test that blocks its thread, as every synchronous client does, or that keeps its own event loop busy
can so never starve the broker it waits for; and it is the same broker, behind the same TCP port, that
``ottla serve`` runs.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar
from uuid import UUID

import uvloop

from ottla.config import check_known
from ottla.env.disk import Disk, RealDisk
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import OFFSETS_TOPIC
from ottla.metadata.topics import NewTopic
from ottla.node import Node, NodeSettings
from ottla.replication.internal_topic import InternalTopicLog
from ottla.testing import transactions
from ottla.testing.faults import Faults, Request
from ottla.testing.transactions import Transaction
from ottla.types import Record, TopicPartition
from ottla.wire.records import build_batch, iter_batches, iter_records

if TYPE_CHECKING:
    from ottla.testing.security import Acl, Security

T = TypeVar("T")

# How long starting, stopping and each helper may take before the test fails instead of hanging.
CALL_TIMEOUT_S = 30.0

# Where tests are better served by another value than Kafka's default: nobody waits for more members to
# join a group, the topics of coordinators have one partition instead of 50, and each Fetch names all its
# topics, since it has no session that remembers them. ``config`` overrides these.
CONFIG: Mapping[str, str] = {
    "group.initial.rebalance.delay.ms": "0",
    "max.incremental.fetch.session.cache.slots": "0",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
}


class StoredRecord(NamedTuple):
    """A record as it lies in a topic. ``timestamp_ms`` is since the Unix epoch."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class Broker:
    """A Kafka broker for tests.

        with Broker(topics={"orders": 3}) as broker:
            producer = Producer({"bootstrap.servers": broker.bootstrap_servers})

    ``topics`` are created at the start if they are missing: names, or names with partitions. ``config`` are
    broker settings under Kafka's names. ``data`` keeps the data in a directory of yours; otherwise it is in
    a temporary one until the broker is stopped for good. ``port`` 0 takes any free port, and keeps it
    across `restart`. ``tls`` has clients speak TLS, ``users`` (names and passwords) has them log in, ``acls``
    lets them do nothing else; `client_properties` says how they come in.

    What cannot be done raises: ``ottla.config.ConfigError`` at once for a name that is no setting;
    it and ``ottla.node.StartError`` at the start; ``ottla.errors.KafkaError`` from the helpers. All methods
    may be called from any thread.
    """

    def __init__(
        self,
        *,
        topics: Mapping[str, int] | Iterable[str] = (),
        config: Mapping[str, str | int | bool] | None = None,
        data: Path | str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        node_id: int = 1,
        tls: bool = False,
        users: Mapping[str, str] | None = None,
        acls: Iterable[Acl] | None = None,
    ) -> None:
        check_known(config or ())
        if isinstance(topics, str):
            # Its characters would each be a topic.
            raise TypeError(f"topics={topics!r}: give a list of names, or names with partitions")
        self.host = host
        self.port = port
        self.node_id = node_id
        self.faults = Faults(self._topic_name)
        self._topics = dict(topics) if isinstance(topics, Mapping) else dict.fromkeys(topics, 1)
        self._config = {**CONFIG, **{name: _text(value) for name, value in (config or {}).items()}}
        self._data = Path(data) if data is not None else None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._key_folder: tempfile.TemporaryDirectory[str] | None = None
        self._running: _Running | None = None
        self._security: Security | None = None
        if tls or users is not None or acls is not None:
            # Most tests have nobody log in, and start without it.
            from ottla.testing.security import Security

            self._security = Security(tls=tls, users=users, acls=acls, host=host)

    # ------------------------------------------------------------ its life

    def start(self) -> Self:
        """Start, and return once clients can connect."""
        if self._running is not None:
            raise RuntimeError("the broker runs already")
        security = self._security
        settings = NodeSettings(
            data=str(self.data),
            host=self.host,
            port=self.port,
            node_id=self.node_id,
            properties=self._config | (security.properties(self._keys) if security is not None else {}),
        )
        self._running = _Running(lambda disk: Node(settings, disk=disk, faults=self.faults))
        try:
            self.port = self._running.start()
            if security is not None:
                self._call(security.found)
            existing = self.topics()
            for name, partitions in self._topics.items():
                if name not in existing:
                    self.create_topic(name, partitions)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop as on SIGTERM, and remove the data if they are temporary. Harmless when it is stopped."""
        try:
            self._end(kill=False)
        finally:
            if self._temporary is not None:
                self._temporary.cleanup()
                self._temporary = None

    def kill(self) -> None:
        """Stop as on SIGKILL: nothing is answered, flushed or written down any more. `start` recovers."""
        self._end(kill=True)

    def restart(self) -> None:
        """Stop cleanly unless it is stopped or killed already, and start again with the same data and port.

        Clients see their connections close, and find the broker again under the same address.
        """
        self._end(kill=False)
        self.start()

    @property
    def running(self) -> bool:
        """Whether clients can connect, as far as no fault hinders them."""
        return self._running is not None

    @property
    def bootstrap_servers(self) -> str:
        """The address for the clients' setting of that name. RuntimeError before the first start."""
        if not self.port:
            raise RuntimeError("the broker has no port before it is started")
        return f"{self.host}:{self.port}"

    @property
    def data(self) -> Path:
        """The directory of the data."""
        if self._data is not None:
            return self._data
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="ottla-")
        return Path(self._temporary.name)

    def client_properties(self, user: str | None = None, mechanism: str = "SCRAM-SHA-256") -> dict[str, str]:
        """What a client of librdkafka needs to come in as ``user``: who logs in, where there are ``users``;
        else who a certificate is made out to. ValueError where there is no such user."""
        servers = {"bootstrap.servers": self.bootstrap_servers}
        if self._security is None:
            return servers | {"security.protocol": "PLAINTEXT"}
        return servers | self._security.client_properties(self._keys, user, mechanism)

    def _keys(self) -> Path:
        """Where keys and certificates are."""
        if self._key_folder is None:
            self._key_folder = tempfile.TemporaryDirectory(prefix="ottla-keys-")
        return Path(self._key_folder.name)

    def __repr__(self) -> str:
        return f"<Broker {self.host}:{self.port}{'' if self.running else ', not running'}>"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    def _end(self, *, kill: bool) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.end(kill=kill)

    # ------------------------------------------------------------ what is in it

    def create_topic(
        self, name: str, partitions: int = 1, config: Mapping[str, str | int | bool] | None = None
    ) -> None:
        """Create a topic, ready to be used when this returns. KafkaError where it cannot be."""
        configs = {name: _text(value) for name, value in (config or {}).items()}
        self._call(lambda node: _create_topic(node, name, partitions, configs))

    def topics(self) -> dict[str, int]:
        """The topics and their numbers of partitions, without Kafka's internal ones."""
        image = self._node.services.metadata.image
        return {
            name: len(topic.partitions) for name, topic in image.topics.items() if not name.startswith("__")
        }

    def produce(
        self,
        topic: str,
        *values: str | bytes | None,
        key: str | bytes | None = None,
        partition: int = 0,
        headers: Mapping[str, str | bytes | None] | None = None,
        timestamp_ms: int | None = None,
    ) -> int:
        """Append records with these values as one batch, and return the offset of the first.

        They share key, headers and timestamp (now). KafkaError where a client would get one.
        """
        at_ms = self._node.services.clock.now_ms() if timestamp_ms is None else timestamp_ms
        packed = tuple((name, _bytes(value)) for name, value in (headers or {}).items())
        batch = build_batch(
            [Record(0, at_ms, _bytes(key), _bytes(value), packed) for value in values],
        )
        return self._call(lambda node: _append(node, topic, partition, batch))

    def records(
        self, topic: str, partition: int | None = None, *, read_committed: bool = False
    ) -> list[StoredRecord]:
        """What lies in a topic, or in one partition of it, by partition and offset. KafkaError if unknown.

        ``read_committed``: without what was aborted, and up to the first transaction that is open.
        """
        return self._call(lambda node: _records(node, topic, partition, read_committed))

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """The offsets that a group has committed; empty where it has none. Keys equal plain pairs of topic
        and partition."""
        return self._call(lambda node: _committed(node, group))

    def transactions(self) -> dict[str, Transaction]:
        """All transactional ids, with their producers and the states of their transactions."""
        return self._call(transactions.transactions)

    def abort(self, transactional_id: str) -> None:
        """Abort the open transaction of an id, and fence its producer, as the next one of that id does.

        KafkaError TRANSACTIONAL_ID_NOT_FOUND. Nothing happens where no transaction is open.
        """
        self._call(lambda node: transactions.abort(node, transactional_id))

    @property
    def requests(self) -> tuple[Request, ...]:
        """The requests it has seen, oldest first: ``faults.requests``."""
        return self.faults.requests

    @property
    def connections(self) -> int:
        """How many connections clients have now."""
        return self._node.connection_count

    def disconnect(self) -> None:
        """Close every connection that there is, at once and without a word."""
        self._call(_disconnect)

    # ------------------------------------------------------------ across the threads

    @property
    def _node(self) -> Node:
        if self._running is None:
            raise RuntimeError("the broker is not running")
        return self._running.node

    def _call(self, work: Callable[[Node], Coroutine[Any, Any, T]]) -> T:
        if self._running is None:
            raise RuntimeError("the broker is not running")
        return self._running.call(work)

    def _topic_name(self, topic_id: UUID) -> str | None:
        topic = self._node.services.metadata.image.topics_by_id.get(topic_id)
        return None if topic is None else topic.name


class _Running:
    """A node that runs on an event loop in a thread, from `start` to `end`."""

    def __init__(self, make: Callable[[Disk], Node]) -> None:
        self.node: Node
        self._make = make
        self._loop = uvloop.new_event_loop()
        self._started: Future[int] = Future()
        self._ending: asyncio.Event
        self._kill = False
        self._ended: Future[None] = Future()
        # A test that forgets to stop the broker must still be able to end.
        self._thread = threading.Thread(target=self._run, name="ottla", daemon=True)

    def start(self) -> int:
        """Start the node; the port that it listens on. Raises what the node raises."""
        self._thread.start()
        return self._started.result(CALL_TIMEOUT_S)

    def end(self, *, kill: bool) -> None:
        """End the node and the thread. Raises what the node raises."""
        if self._started.exception() is None:
            self._kill = kill
            self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(CALL_TIMEOUT_S)
        self._ended.result(0)

    def call(self, work: Callable[[Node], Coroutine[Any, Any, T]]) -> T:
        """Run on the node's loop, and wait for the result."""
        return asyncio.run_coroutine_threadsafe(work(self.node), self._loop).result(CALL_TIMEOUT_S)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)

    async def _serve(self) -> None:
        self._ending = asyncio.Event()
        disk = RealDisk()
        try:
            self.node = self._make(disk)
            await self.node.start()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
            self._started.set_exception(error)
        else:
            self._started.set_result(self.node.address[1])
            await self._ending.wait()
            await (self.node.kill() if self._kill else self.node.stop())
        finally:
            disk.close()


async def _create_topic(node: Node, name: str, partitions: int, configs: dict[str, str]) -> None:
    new = NewTopic(name, num_partitions=partitions, configs=configs)
    (result,) = await node.services.metadata.controller.create_topics([new])
    if result.error is not None:
        raise result.error


def _check_exists(node: Node, topic: str, partition: int) -> None:
    """KafkaError as a client would get it, but with a message that says what is missing."""
    image = node.services.metadata.image.topics.get(topic)
    if image is None:
        raise KafkaError(
            ErrorCode.unknown_topic_or_partition, f"Topic {topic!r} does not exist: create it first."
        )
    count = len(image.partitions)
    if not 0 <= partition < count:
        raise KafkaError(
            ErrorCode.unknown_topic_or_partition,
            f"Topic {topic!r} has no partition {partition}: it has {count}, from 0.",
        )


async def _append(node: Node, topic: str, partition: int, batch: bytes) -> int:
    services = node.services
    _check_exists(node, topic, partition)
    replica = services.replicas.get(topic, partition)
    return replica.append(batch, now_ms=services.clock.now_ms(), acks=-1).base_offset


async def _records(node: Node, topic: str, partition: int | None, read_committed: bool) -> list[StoredRecord]:
    services = node.services
    _check_exists(node, topic, partition or 0)
    count = len(services.metadata.image.topics[topic].partitions)
    log = InternalTopicLog(topic, services.replicas, services.clock, services.disk)
    found: list[StoredRecord] = []
    for index in range(count) if partition is None else (partition,):
        start = services.replicas.get(topic, index).log.log_start_offset
        batches = [one async for piece in log.read_all(index) for one in iter_batches(piece)]
        for header, batch in transactions.read_committed(batches) if read_committed else batches:
            if not header.is_control:
                found += (
                    StoredRecord(index, *record) for record in iter_records(batch) if record.offset >= start
                )
    return found


async def _committed(node: Node, group: str) -> dict[TopicPartition, int]:
    if OFFSETS_TOPIC not in node.services.metadata.image.topics:
        return {}
    topics = node.services.groups.fetch(group, None, require_stable=False)
    return {TopicPartition(t.topic, p.partition): p.offset for t in topics for p in t.partitions}


async def _disconnect(node: Node) -> None:
    node.disconnect()


def _text(value: str | int | bool) -> str:
    """A setting's value as Kafka writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _bytes(value: str | bytes | None) -> bytes | None:
    if isinstance(value, str):
        return value.encode()
    if value is None or isinstance(value, bytes):
        return value
    raise TypeError(f"give bytes, str or None, not {type(value).__name__}")
