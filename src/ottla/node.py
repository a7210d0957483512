"""The composition root: builds a node from its parts and the real clock, disk and network."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from ottla.broker.context import Services
from ottla.broker.deferred import Turn
from ottla.broker.dispatch import Dispatcher
from ottla.broker.faults import FaultHook
from ottla.broker.fetch_sessions import FetchSessions
from ottla.broker.producer_ids import ProducerIds
from ottla.broker.server import Server, ServerLimits
from ottla.config import BrokerConfig, Endpoint
from ottla.coordinators.failover import GroupFailover
from ottla.coordinators.runtime import GroupCoordinator
from ottla.coordinators.settings import GroupConfig
from ottla.env.clock import Clock, SystemClock
from ottla.env.deadlines import Deadlines
from ottla.env.disk import Disk, RealDisk
from ottla.env.network import Network, TcpNetwork, show_address
from ottla.log.data_dir import RegistrationMark
from ottla.log.manager import LogManager
from ottla.metadata.leadership import Leadership
from ottla.metadata.liveness import Liveness
from ottla.metadata.membership import Membership, MembershipError
from ottla.metadata.service import Metadata
from ottla.metadata.sqlite import SqliteStore
from ottla.metadata.store import MetadataStore, StoreError
from ottla.metadata.stores import open_store
from ottla.replication.fetchers import Fetchers
from ottla.replication.internal_topic import InternalTopicLog
from ottla.replication.manager import ReplicaManager

log = logging.getLogger(__name__)

OFFSETS_TOPIC = "__consumer_offsets"
# How long until a metadata store that cannot be reached at the start is tried again.
STORE_RETRY_MS = 500
LISTENER = "PLAINTEXT"
HOST_DEFAULT, PORT_DEFAULT, DATA_DEFAULT = "127.0.0.1", 9092, "data"
# Addresses to listen on that nobody can connect to.
WILDCARDS = ("", "0.0.0.0", "::")


class StartError(Exception):
    """The node cannot start; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """What a node is started with. What is None is as ``properties`` (Kafka's names) say, or its default."""

    data: str | None = None
    host: str | None = None
    port: int | None = None  # 0: any free one
    node_id: int | None = None
    advertise: tuple[str, int] | None = None
    # Where the cluster's metadata is, such as etcd://h1:2379,h2:2379,h3:2379. None: a node by itself.
    store: str | None = None
    # The cluster's name in the store, which may hold several.
    cluster: str = "ottla"
    rack: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)

    def to_properties(self) -> dict[str, str]:
        """Everything as Kafka properties, so that DescribeConfigs tells what is in force."""
        properties = dict(self.properties)
        if self.node_id is not None:
            properties["node.id"] = str(self.node_id)
            properties.pop("broker.id", None)
        if self.rack is not None:
            properties["broker.rack"] = self.rack
        if self.host is not None or self.port is not None or "listeners" not in properties:
            host = HOST_DEFAULT if self.host is None else self.host
            port = PORT_DEFAULT if self.port is None else self.port
            properties["listeners"] = f"{LISTENER}://{host}:{port}"
        if self.data is not None or not properties.keys() & {"log.dirs", "log.dir"}:
            properties.pop("log.dir", None)
            properties["log.dirs"] = self.data or DATA_DEFAULT
        if self.advertise is not None:
            host, port = self.advertise
            properties["advertised.listeners"] = f"{LISTENER}://{host}:{port}"
        return properties


class Node:
    """One broker. ``start``, then ``stop``; not to be started again."""

    def __init__(
        self,
        settings: NodeSettings,
        *,
        clock: Clock | None = None,
        disk: Disk | None = None,
        network: Network | None = None,
        store: MetadataStore | None = None,
        faults: FaultHook | None = None,
    ) -> None:
        """``store``: one that is open already, of a cluster; it is closed with the node."""
        self.config = BrokerConfig(settings.to_properties())
        self.services: Services
        # Where the first listener was bound.
        self.address: tuple[str, int]
        # Set when the node cannot go on: whoever runs it had better ``kill`` it, and start another.
        self.failed = asyncio.Event()
        self._failing: asyncio.Future[None] | None = None
        self._clock = clock or SystemClock()
        self._disk = disk or RealDisk()
        self._network = network or TcpNetwork()
        self._faults = faults
        self._turn = Turn()
        self._servers: list[Server] = []
        # How to let go, in haste, of what the node has taken so far.
        self._held = AsyncExitStack()
        self._settings = settings
        self._given_store = store
        # Whether there are other nodes: then this one has to join them.
        self._clustered = store is not None or settings.store is not None
        self._store: MetadataStore
        self._membership: Membership
        self._leadership: Leadership
        self._liveness: Liveness
        self._metadata: Metadata
        self._logs: LogManager
        self._replicas: ReplicaManager
        self._groups: GroupCoordinator
        self._failover: GroupFailover

    @property
    def node_id(self) -> int:
        return self.config.node_id

    async def start(self) -> None:
        """Take the data directory, read it, and serve. StartError says what is in the way, or what the part
        raises that cannot start; nothing is held then."""
        try:
            await self._start()
        except BaseException:
            await self.kill()
            raise

    async def _start(self) -> None:
        endpoints = {e.listener: await self._bind(e) for e in self.config.listeners()}
        self.address = next(iter(endpoints.values()))
        await self._open_data()
        self._report_config()
        self._compose()
        # Before it joins: others look for it at once, and take it for dead where nobody listens.
        for server in self._servers:
            await server.start()
        await self._join(self._advertised(endpoints), self.config.get("broker.rack"))
        self._replicas.activate()
        self._failover.apply(None, self._metadata.image)
        address = show_address(*self.address)
        log.info("node %d serves %s with its data in %s", self.node_id, address, self.config.data_dir)

    def _report_config(self) -> None:
        """Say what of the configuration has no effect; not before a refusal to start, which it would bury."""
        for warning in self.config.warnings:
            log.warning("%s", warning)
        if self.config.idle:
            log.info("set, but nothing here depends on it: %s", ", ".join(self.config.idle))

    async def _bind(self, endpoint: Endpoint) -> tuple[str, int]:
        server = Server(
            self._limits(),
            self._clock,
            self._network,
            self._turn,
            listener=endpoint.listener,
            refuses=self._faults.refuses_connections if self._faults else None,
        )
        self._servers.append(server)
        try:
            return await server.bind(endpoint.host, endpoint.port)
        except OSError as error:
            where = f"{endpoint.host}:{endpoint.port}"
            # asyncio repeats the address in its own words; the bare reason says enough.
            reason = (
                os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
            )
            raise StartError(f"cannot listen on {where}: {reason.lower()}") from error

    def _advertised(self, bound: Mapping[str, tuple[str, int]]) -> dict[str, tuple[str, int]]:
        """Where clients of each listener are told to connect."""
        advertised = {e.listener: (e.host, e.port) for e in self.config.advertised_listeners()}
        found = {}
        for listener, (bound_host, bound_port) in bound.items():
            host, port = advertised.get(listener, (bound_host, bound_port))
            port = port or bound_port
            if host in WILDCARDS:
                # As Kafka does. A container's name, for one, is not known outside.
                host = socket.gethostname()
                log.info(
                    "clients of listener %s are told to connect to this machine's name, %s:%d; where they "
                    "do not know it, give --advertise (advertised.listeners)",
                    listener,
                    host,
                    port,
                )
            found[listener] = (host, port)
        return found

    async def stop(self) -> None:
        """Hand over, accept no more, finish what is in flight, flush; the data is as after a clean stop."""
        try:
            if self._clustered:
                await self._leave()
            self._replicas.wake_all()
            self._replicas.close()
            self._groups.close()
            self._failover.close()
            await asyncio.gather(*(server.stop() for server in self._servers))
            all_kept = await self._logs.close()
            if self._clustered:
                await (self._membership.mark_clean() if all_kept else self._membership.mark_doubtful())
        finally:
            await self._held.aclose()

    def _fail(self, what: str) -> None:
        """The disk has failed, and a restart has to see what is left: others had better lead meanwhile."""
        log.error("the disk fails, this node gives up: %s", what)
        self._failing = asyncio.ensure_future(self._membership.mark_doubtful())
        self._failing.add_done_callback(lambda _: self.failed.set())

    async def kill(self) -> None:
        """Stop as a crash would: nothing more is answered, flushed or written down."""
        for server in self._servers:
            server.abort()
        await self._held.aclose()

    @property
    def connection_count(self) -> int:
        """How many clients are connected."""
        return sum(len(server.connections) for server in self._servers)

    def disconnect(self) -> None:
        """Close every client's connection at once; they may come back."""
        for server in self._servers:
            server.disconnect()

    async def _open_data(self) -> None:
        """Lock and load the data directory: metadata first, then the logs that it names."""
        data = self.config.data_dir
        self._logs = LogManager(self._disk, data, self.config, self._clock, node_id=self.node_id)
        await self._logs.start()
        self._held.callback(self._logs.abandon)
        self._store = await self._open_store(data)
        self._held.push_async_callback(self._store.close)
        self._metadata = Metadata(self._store, self.config, self.node_id)
        self._held.push_async_callback(self._metadata.close)
        await self._read_metadata()
        self._logs.set_cluster_id(self._metadata.image.cluster_id)
        self._replicas = self._make_replicas()
        self._held.callback(self._replicas.close)
        self._logs.high_watermarks = self._replicas.high_watermarks
        self._replicas.apply(None, self._metadata.image)
        for folder in self._logs.strays():
            log.warning("%s/%s is of no topic that is known: it is left alone", data, folder)
        self._metadata.subscribe(self._replicas.apply)

    async def _open_store(self, data: str) -> MetadataStore:
        if self._given_store is not None:
            return self._given_store
        if self._settings.store is None:
            return await SqliteStore.open(os.path.join(data, "metadata.db"), self._clock)
        try:
            return await open_store(self._settings.store, cluster=self._settings.cluster, clock=self._clock)
        except (ValueError, StoreError) as error:
            raise StartError(str(error)) from error

    async def _read_metadata(self) -> None:
        """Read the image. A cluster's store is waited for: it may start after its nodes."""
        deadline_ms = self._clock.monotonic_ms() + self.config.get("initial.broker.registration.timeout.ms")
        said = False
        while True:
            try:
                await self._metadata.start()
                return
            except StoreError as error:
                if not self._clustered:
                    raise
                if self._clock.monotonic_ms() >= deadline_ms:
                    raise StartError(f"the metadata store cannot be used: {error}") from error
                if not said:
                    said = True
                    log.warning("waiting for the metadata store: %s", error)
            await asyncio.sleep(STORE_RETRY_MS / 1000)

    def _make_replicas(self) -> ReplicaManager:
        """The replicas, which follow others and propose to the store where there are others."""
        parts = (self.node_id, self._logs, self.config, self._clock, self._disk)
        if not self._clustered:
            return ReplicaManager(*parts)
        mark = RegistrationMark(self._disk, self.config.data_dir)
        self._membership = member = Membership(
            self._store, self._metadata, self.config, self._disk, mark, self.node_id
        )
        self._held.push_async_callback(member.close)
        listener = self.config.get("inter.broker.listener.name") or self.config.listeners()[0].listener
        self._leadership = Leadership(self._store, self._metadata, self.config, member)
        self._held.push_async_callback(self._leadership.close)
        self._liveness = Liveness(self._store, self._metadata, self._network, self.node_id, listener)
        self._held.push_async_callback(self._liveness.close)
        fetchers = Fetchers(
            self.node_id, self._network, self._clock, self.config, lambda: member.broker_epoch, listener
        )
        commit = self._metadata.controller.change_partitions
        replicas = ReplicaManager(*parts, fetchers=fetchers, commit=commit)
        replicas.disk_failed = self._fail
        return replicas

    async def _join(self, endpoints: Mapping[str, tuple[str, int]], rack: str | None) -> None:
        """Take this node's place: alone, as its own controller, or among others."""
        if not self._clustered:
            await self._metadata.controller.register_broker(self.node_id, endpoints, rack)
            return
        try:
            await self._membership.join(endpoints, rack)
        except MembershipError as error:
            raise StartError(str(error)) from error
        self._leadership.start()
        self._liveness.start()

    async def _leave(self) -> None:
        """Have others lead what this node leads, while it still serves, and leave their cluster."""
        await self._membership.leave()
        await self._liveness.close()
        await self._leadership.close()

    def _step_down(self) -> None:
        """The store says that this node is no member any more: lead and coordinate nothing."""
        self._replicas.step_down()
        self._failover.step_down()

    def _compose(self) -> None:
        """Build what serves requests upon the partitions."""
        offsets = InternalTopicLog(OFFSETS_TOPIC, self._replicas, self._clock, self._disk)
        self._groups = GroupCoordinator(offsets, self._clock, GroupConfig.from_config(self.config))
        self._held.callback(self._groups.close)
        self._failover = GroupFailover(self.node_id, self._groups)
        self._held.callback(self._failover.close)
        self._metadata.subscribe(self._failover.apply)
        if self._clustered:
            self._membership.on_ended = self._step_down
        deadlines = Deadlines(self._clock)
        self._held.callback(deadlines.close)
        self.services = Services(
            node_id=self.node_id,
            config=self.config,
            clock=self._clock,
            deadlines=deadlines,
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
        dispatcher = Dispatcher(self.services)
        for server in self._servers:
            server.dispatch = dispatcher
        self.config.subscribe(self._apply_limits)

    def _apply_limits(self, changed: frozenset[str]) -> None:
        for server in self._servers:
            server.limit(self._limits())

    def _limits(self) -> ServerLimits:
        get = self.config.get
        return ServerLimits(
            request_bytes_max=get("socket.request.max.bytes"),
            idle_ms_max=get("connections.max.idle.ms"),
            connections_max=get("max.connections"),
            connections_per_host_max=get("max.connections.per.ip"),
        )
