"""The composition root: builds a node from its parts and the real clock, disk and network."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from ottla.broker.context import Services
from ottla.broker.deferred import Turn
from ottla.broker.dispatch import Dispatcher
from ottla.broker.faults import FaultHook
from ottla.broker.fetch_sessions import FetchSessions
from ottla.broker.producer_ids import ProducerIds
from ottla.broker.server import Server, ServerLimits
from ottla.config import BrokerConfig, ConfigError, parse_properties
from ottla.coordinators.runtime import GroupCoordinator
from ottla.coordinators.settings import GroupConfig
from ottla.env.clock import Clock, SystemClock
from ottla.env.disk import Disk, RealDisk, raise_open_files_max
from ottla.env.network import Network, TcpNetwork
from ottla.errors import KafkaError
from ottla.log.manager import LogManager
from ottla.metadata.image import ClusterImage
from ottla.metadata.service import Metadata
from ottla.metadata.sqlite import SqliteStore
from ottla.metadata.store import StoreError
from ottla.replication.internal_topic import InternalTopicLog
from ottla.replication.manager import ReplicaManager

log = logging.getLogger(__name__)

OFFSETS_TOPIC = "__consumer_offsets"
LISTENER = "PLAINTEXT"


class StartError(Exception):
    """The node cannot start; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """What a node is started with. Names of ``properties`` are Kafka's."""

    data: str
    host: str = "127.0.0.1"
    port: int = 9092  # 0: any free one
    node_id: int | None = None
    advertise: tuple[str, int] | None = None
    properties: Mapping[str, str] = field(default_factory=dict)


class Node:
    """One broker. ``start``, then ``stop``; not to be started again."""

    def __init__(
        self,
        settings: NodeSettings,
        *,
        clock: Clock | None = None,
        disk: Disk | None = None,
        network: Network | None = None,
        faults: FaultHook | None = None,
    ) -> None:
        self.config = BrokerConfig(_properties(settings))
        self.services: Services
        self.address: tuple[str, int]
        self._settings = settings
        self._clock = clock or SystemClock()
        self._disk = disk or RealDisk()
        self._network = network or TcpNetwork()
        self._faults = faults
        self._turn = Turn()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: Server
        self._store: SqliteStore
        self._metadata: Metadata
        self._logs: LogManager
        self._replicas: ReplicaManager
        self._groups: GroupCoordinator

    @property
    def node_id(self) -> int:
        return self.config.node_id

    async def start(self) -> None:
        """Take the data directory, read it, and serve. StartError says what is in the way."""
        for warning in self.config.warnings:
            log.warning("%s", warning)
        self._server = Server(
            self._limits(),
            self._clock,
            self._network,
            self._turn,
            refuses=self._faults.refuses_connections if self._faults else None,
        )
        try:
            self.address = await self._server.bind(self._settings.host, self._settings.port)
        except OSError as error:
            where = f"{self._settings.host}:{self._settings.port}"
            raise StartError(f"cannot listen on {where}: {error.strerror or error}") from error
        await self._open_data()
        advertised = self._settings.advertise or self.address
        await self._metadata.controller.register_broker(
            self.node_id, {LISTENER: advertised}, self.config.get("broker.rack")
        )
        self._compose()
        await self._server.start()
        log.info("node %d serves %s:%d with its data in %s", self.node_id, *self.address, self._settings.data)

    async def stop(self) -> None:
        """Accept no more, finish what is in flight, flush, and leave the data as after a clean stop."""
        self._replicas.wake_all()
        self._groups.close()
        await self._server.stop()
        await self._logs.close()
        await self._metadata.close()
        await self._store.close()

    async def kill(self) -> None:
        """Stop as a crash would: nothing more is answered, flushed or written down."""
        self._server.abort()
        self._groups.close()
        self._logs.abandon()
        await self._metadata.close()
        await self._store.close()

    @property
    def connection_count(self) -> int:
        """How many clients are connected."""
        return len(self._server.connections)

    def disconnect(self) -> None:
        """Close every client's connection at once; they may come back."""
        self._server.disconnect()

    async def _open_data(self) -> None:
        """Lock and load the data directory: metadata first, then the logs that it names."""
        self._logs = LogManager(
            self._disk, self._settings.data, self.config, self._clock, node_id=self.node_id
        )
        await self._logs.start()
        self._store = await SqliteStore.open(os.path.join(self._settings.data, "metadata.db"), self._clock)
        self._metadata = Metadata(self._store, self.config, self.node_id)
        await self._metadata.start()
        self._logs.set_cluster_id(self._metadata.image.cluster_id)
        self._replicas = ReplicaManager(self.node_id, self._logs, self.config, self._clock, self._disk)
        self._replicas.apply(None, self._metadata.image)
        self._metadata.subscribe(self._replicas.apply)

    def _compose(self) -> None:
        """Build what serves requests upon the partitions."""
        offsets = InternalTopicLog(OFFSETS_TOPIC, self._replicas, self._clock, self._disk)
        self._groups = GroupCoordinator(offsets, self._clock, GroupConfig.from_config(self.config))
        self._lead_groups(None, self._metadata.image)
        self._metadata.subscribe(self._lead_groups)
        self.services = Services(
            node_id=self.node_id,
            config=self.config,
            clock=self._clock,
            disk=self._disk,
            metadata=self._metadata,
            replicas=self._replicas,
            groups=self._groups,
            log_manager=self._logs,
            fetch_sessions=FetchSessions(
                self._clock, slots_max=self.config.get("max.incremental.fetch.session.cache.slots")
            ),
            turn=self._turn,
            producer_ids=ProducerIds(self._metadata.controller.reserve_producer_ids),
            faults=self._faults,
        )
        self._server.dispatch = Dispatcher(self.services)
        self.config.subscribe(lambda changed: self._server.limit(self._limits()))

    def _lead_groups(self, old: ClusterImage | None, new: ClusterImage) -> None:
        """Tell the group coordinator which of its partitions this node leads, and which topics are gone."""
        before = old.topics.get(OFFSETS_TOPIC) if old is not None else None
        after = new.topics.get(OFFSETS_TOPIC)
        if after is not before:
            for index, state in enumerate(after.partitions if after is not None else ()):
                if state.leader == self.node_id:
                    self._spawn(self._load_groups(index, state.leader_epoch))
                else:
                    self._groups.unload(index, state.leader_epoch)
        if old is not None and old.topics is not new.topics:
            for name in old.topics.keys() - new.topics.keys():
                self._groups.on_topic_deleted(name)

    async def _load_groups(self, partition: int, epoch: int) -> None:
        try:
            await self._groups.load(partition, epoch)
        except KafkaError as error:
            log.error("the groups of %s-%d cannot be read: %s", OFFSETS_TOPIC, partition, error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` beside; it is held here so that it is not collected before it is done."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _limits(self) -> ServerLimits:
        get = self.config.get
        return ServerLimits(
            request_bytes_max=get("socket.request.max.bytes"),
            idle_ms_max=get("connections.max.idle.ms"),
            connections_max=get("max.connections"),
            connections_per_host_max=get("max.connections.per.ip"),
        )


def _properties(settings: NodeSettings) -> dict[str, str]:
    """The settings as Kafka properties, so that DescribeConfigs tells what is in force."""
    properties = dict(settings.properties)
    if settings.node_id is not None:
        properties |= {"node.id": str(settings.node_id)}
        properties.pop("broker.id", None)
    properties |= {
        "listeners": f"PLAINTEXT://{settings.host}:{settings.port}",
        "log.dirs": settings.data,
    }
    if settings.advertise is not None:
        host, port = settings.advertise
        properties["advertised.listeners"] = f"PLAINTEXT://{host}:{port}"
    return properties


# ---------------------------------------------------------------- the process


def run(
    *,
    data: str,
    listen: str,
    node_id: int,
    advertise: str | None,
    config_file: str | None,
    overrides: Mapping[str, str],
    log_format: str,
    log_level: str,
) -> int:
    """Serve until SIGTERM or SIGINT. The exit code: 0 after a clean stop, 1 where it cannot start."""
    import uvloop

    from ottla.env.memory import keep_freed_memory
    from ottla.logging_setup import set_up

    set_up(log_format, log_level)
    raise_open_files_max()
    keep_freed_memory()
    try:
        properties = dict(overrides)
        if config_file is not None:
            with open(config_file, encoding="utf-8") as file:
                properties = parse_properties(file.read()) | properties
        host, port = _address(listen)
        settings = NodeSettings(
            data=data,
            host=host,
            port=port,
            node_id=node_id,
            advertise=_address(advertise) if advertise else None,
            properties=properties,
        )
        return uvloop.run(_serve(settings))
    except (ConfigError, StartError, StoreError, OSError) as error:
        print(f"ottla: {error}", file=sys.stderr)  # noqa: T201 - the one line that says why
        return 1


async def _serve(settings: NodeSettings) -> int:
    node = Node(settings)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    await node.start()
    host, port = node.address
    print(f"ottla: listening on {host}:{port}", flush=True)  # noqa: T201 - what scripts wait for
    await stopping.wait()
    log.info("stopping: finishing what is in flight")
    await node.stop()
    log.info("stopped")
    return 0


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
