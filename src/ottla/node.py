"""The composition root: builds a node from its parts and the real clock, disk and network."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ottla.broker.api.records.fetch.session_cache import FetchSessions
from ottla.broker.entrances import Entrances
from ottla.broker.followed_quotas import follow_quotas
from ottla.broker.gate import Gate, load_handlers
from ottla.broker.kept_topics import KeptTopics
from ottla.broker.listeners import Listeners
from ottla.broker.memory import REQUEST_BYTES_MAX, Memory
from ottla.broker.producer_ids import ProducerIds
from ottla.broker.quotas import NodeQuotas
from ottla.broker.services import Services
from ottla.broker.turn import Turn
from ottla.config import BrokerConfig
from ottla.config.exposure import exposed
from ottla.config.node import NodeSettings as NodeSettings
from ottla.config.node import StartError as StartError
from ottla.coordinators.hosted import Coordinators
from ottla.env.clock import Clock, SystemClock
from ottla.env.deadlines import Deadlines
from ottla.env.disk import Disk, RealDisk
from ottla.env.lag import LoopLag
from ottla.env.network import Network, TcpNetwork, show_address
from ottla.env.slices import Slices
from ottla.errors import ErrorCode, KafkaError
from ottla.log.data_dir import RegistrationMark, others_with_data
from ottla.log.manager import LogManager
from ottla.metadata.alone import elsewhere, stand_alone, was_one_of_several
from ottla.metadata.feature_gate import FeatureGate
from ottla.metadata.features import SUPPORTED, Supported, obstacle
from ottla.metadata.identity import check_alone, check_unknown
from ottla.metadata.image import TopicImage
from ottla.metadata.measured import MeasuredStore
from ottla.metadata.service import Metadata
from ottla.metadata.sqlite import SqliteStore
from ottla.metadata.store import MetadataStore, StoreError
from ottla.observe.switch import Observed, Switch
from ottla.replication.high_watermarks import HighWatermarks
from ottla.replication.manager import ReplicaManager
from ottla.types import TopicPartition

if TYPE_CHECKING:
    from ottla.broker.faults import FaultHook
    from ottla.env.pulse import Pulse
    from ottla.metadata.delegation_tokens import Tokens
    from ottla.metadata.leadership import Leadership
    from ottla.metadata.liveness import Liveness
    from ottla.metadata.membership import Membership
    from ottla.security.acl import Authorizer

log = logging.getLogger(__name__)

T = TypeVar("T")

# Folders that are looked for on the event loop: some 10 microseconds each.
LOOKED_AT_ONCE_MAX = 10
# How long until a metadata store that cannot be reached at the start is tried again.
STORE_RETRY_MS = 500
# How long a node waits for others of the same command before clients come to the port that they share: topics
# that are made meanwhile would all be on those that were faster.
SIBLINGS_MS_MAX = 10_000


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
        lag: LoopLag | None = None,
        supported: Supported = SUPPORTED,
    ) -> None:
        """``store``: one that is open already, of a cluster; it is closed with the node. ``lag``: measures
        the loop as long as the node serves. ``supported``: the levels of features."""
        self.config = BrokerConfig(settings.to_properties())
        self.services: Services
        # Where the first listener was bound.
        self.address: tuple[str, int]
        # How late the event loop was, where that is measured.
        self.lag = lag
        # Set when the node cannot go on: whoever runs it had better ``kill`` it, and start another.
        self.failed = asyncio.Event()
        self._failing: asyncio.Future[None] | None = None
        # What its start has left to wait for its cluster.
        self._patience_ms: float = self.config.get("initial.broker.registration.timeout.ms")
        self._clock = clock or SystemClock()
        self._disk = disk or RealDisk()
        self._network = network or TcpNetwork()
        self._faults = faults
        self._slices = Slices()
        self._turn = Turn(self._clock, self._slices)
        limit = self.config.get("queued.max.request.bytes")
        self._memory = Memory(limit if limit > 0 else REQUEST_BYTES_MAX)
        self._entrances = self._make_entrances()
        self._quotas = NodeQuotas(self.config.get)
        self._listeners = Listeners(
            self.config,
            self._clock,
            self._network,
            self._turn,
            self._memory,
            speaking=self._entrances.listening,
            quotas=self._quotas,
            refuses=faults.refuses_connections if faults else None,
        )
        # How to let go, in haste, of what the node has taken so far.
        self._held = AsyncExitStack()
        self._settings = settings
        self._given_store = store
        self._supported = supported
        # Whether there are other nodes: then this one has to join them.
        self._clustered = store is not None or settings.store is not None
        self._store: MeasuredStore
        self._membership: Membership
        self._leadership: Leadership
        self._liveness: Liveness
        self._pulse: Pulse
        self._metadata: Metadata
        self._logs: LogManager
        self._replicas: ReplicaManager
        self._coordinators: Coordinators
        self._gate: Gate
        self._observation = Switch(self.config, self._network, self._observed, by_socket=settings.socket)

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
        endpoints = await self._listeners.bind(self._settings.shared)
        self.address = next(iter(endpoints.values()))
        await self._open_data()
        self._report_config()
        self._compose()
        # Before it joins: others look for it at once, and take it for dead where nobody listens. Requests
        # wait, as in Kafka: clients forget a broker that is not in its own metadata.
        await self._listeners.start_own()
        self._held.push_async_callback(self._observation.close)
        await self._observation.start()
        self._entrances.start()
        self._held.callback(self._entrances.close)
        await self._join(self._listeners.advertised(endpoints), self.config.get("broker.rack"))
        self._listeners.open()
        await self._slices.run(self._replicas.activate())
        self._coordinators.apply(None, self._metadata.image)
        await self._await_siblings()
        await self._listeners.start_shared()
        if self.lag is not None:
            self.lag.start()
            self._held.callback(self.lag.close)
        address = show_address(*self.address)
        log.info("node %d serves %s with its data in %s", self.node_id, address, self.config.data_dir)

    async def _await_siblings(self) -> None:
        """Return once the other nodes of this command are in the cluster, or that takes too long."""
        deadline_ms = self._clock.monotonic_ms() + SIBLINGS_MS_MAX
        changed = asyncio.Event()
        self._metadata.subscribe(lambda old, new: changed.set())
        while missing := [one for one in self._settings.siblings if one not in self._metadata.image.brokers]:
            changed.clear()
            left_ms = deadline_ms - self._clock.monotonic_ms()
            try:
                await asyncio.wait_for(changed.wait(), max(left_ms, 0) / 1000)
            except TimeoutError:
                log.warning(
                    "starting without nodes that have not registered: %s", ", ".join(map(str, missing))
                )
                return

    def _report_config(self) -> None:
        """Say what of the configuration has no effect; not before a refusal to start, which it would bury."""
        if self.node_id != min(self._settings.siblings, default=self.node_id):
            # They have one configuration and one log.
            return
        for warning in self.config.warnings:
            log.warning("%s", warning)
        if found := exposed(self.config):
            log.warning(
                "listener %s is open: clients need no login and have all rights; see docs/SECURITY.md",
                ", ".join(found),
            )
        if self.config.idle:
            log.info("settings without effect here: %s", ", ".join(self.config.idle))

    async def stop(self) -> None:
        """Hand over, accept no more, finish what is in flight, flush; the data is as after a clean stop."""
        try:
            if self._clustered:
                await self._leave()
            await self._slices.run(self._replicas.wake_all())
            self._replicas.close()
            self._coordinators.close()
            await self._listeners.stop()
            all_kept = await self._logs.close()
            if self._clustered:
                await (self._membership.mark_clean() if all_kept else self._membership.mark_doubtful())
        finally:
            await self._held.aclose()

    def _fail(self, what: str) -> None:
        """The disk has failed, and a restart has to see what is left: others had better lead meanwhile."""
        log.error("the disk failed, the node stops: %s", what)
        self._failing = asyncio.ensure_future(self._membership.mark_doubtful())
        self._failing.add_done_callback(lambda _: self.failed.set())

    def _outdated(self, why: str) -> None:
        """The cluster has agreed on what this release does not know: it must not go on by what it knows."""
        log.error("node %d stops: %s", self.node_id, why)
        self.failed.set()

    async def kill(self) -> None:
        """Stop as a crash would: nothing more is answered, flushed or written down."""
        self._listeners.abort()
        await self._held.aclose()

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Where metrics are served; None where they are not."""
        return self._observation.address

    @property
    def connection_count(self) -> int:
        """How many clients are connected."""
        return self._listeners.connection_count

    def disconnect(self) -> None:
        """Close every client's connection at once; they may come back."""
        self._listeners.disconnect()

    async def _open_data(self) -> None:
        """Lock and load the data directory: metadata first, then the logs that it names."""
        data = self.config.data_dir
        self._logs = LogManager(
            self._disk, data, self.config, self._clock, node_id=self.node_id, slices=self._slices
        )
        await self._logs.start()
        self._held.callback(self._logs.abandon)
        if not self._settings.siblings:
            check_alone(dict.fromkeys(others_with_data(self._disk, data), 0), self.node_id, data)
        self._store = MeasuredStore(await self._open_store(data), self._clock)
        self._held.push_async_callback(self._store.close)
        self._metadata = Metadata(
            self._store, self.config, self.node_id, slices=self._slices, supported=self._supported
        )
        self._held.push_async_callback(self._metadata.close)
        await self._when_available(self._metadata.start)
        self._check_features()
        if self._clustered and self._logs.is_new and not self._settings.replace:
            check_unknown(self._metadata.image, self.node_id, data)
        self._logs.set_cluster_id(self._metadata.image.cluster_id)
        if not self._clustered and was_one_of_several(self._metadata.image):
            check_alone(elsewhere(self._metadata.image, (self.node_id,)), self.node_id, data)
            await self._metadata.reached(await stand_alone(self._store, self._metadata.image, self.node_id))
        self._replicas = self._make_replicas()
        self._held.callback(self._replicas.close)
        self._logs.high_watermarks = HighWatermarks(self._replicas.partitions, self._replicas.moved_marks)
        self._replicas.apply(None, self._metadata.image)
        self._logs.set_strays_aside(self._replicas.assigned())
        self._metadata.controller.obstacle = self._obstacle
        self._metadata.subscribe(self._replicas.follow)
        await self._pass_producer_ids()
        if not self._clustered:
            written_epochs = {where: opened.latest_epoch for where, opened in self._logs.logs.items()}
            await self._metadata.controller.lead_anew(self.node_id, written_epochs)

    def _check_features(self) -> None:
        """StartError where the metadata is at levels that this release does not support; later on they end
        it."""
        features = self._metadata.image.features
        if (why := obstacle(features, self._supported)) is not None:
            raise StartError(f"node {self.node_id} cannot start: {why}")
        if not features.revision:
            log.info(
                "the finalized features of the cluster have the levels of an earlier release: "
                "when all nodes have this release, run 'ottla feature upgrade'"
            )
        gate = FeatureGate(self.node_id, self._supported, self._outdated)
        self._metadata.subscribe(gate.follow)

    async def _pass_producer_ids(self) -> None:
        """Have no producer get the id of one that logs know: metadata of an earlier time would give it again,
        and what the new one sends could pass for what the old one had sent."""
        known = {one.producer_id for opened in self._logs.logs.values() for one in opened.producers}
        if not known:
            return
        reserve = partial(self._metadata.controller.reserve_producer_ids, known)
        if behind := await self._when_available(reserve):
            log.warning("the metadata is older than the logs: producer ids continue at %d", behind[0])

    async def _obstacle(self, topic: TopicImage, first: int) -> str | None:
        """What is in the way of a topic's partitions, from a number on, that are to be on this node."""

        def look() -> str | None:
            for index in range(first, len(topic.partitions)):
                if self.node_id in topic.partitions[index].replicas:
                    why = self._logs.obstacle(TopicPartition(topic.name, index))
                    if why is not None:
                        return why
            return None

        few = len(topic.partitions) - first <= LOOKED_AT_ONCE_MAX
        return look() if few else await self._disk.run(look)

    async def _open_store(self, data: str) -> MetadataStore:
        if self._given_store is not None:
            return self._given_store
        if self._settings.store is None:
            return await SqliteStore.open(os.path.join(data, "metadata.db"), self._clock)
        from ottla.metadata.stores import open_store

        try:
            return await open_store(self._settings.store, cluster=self._settings.cluster, clock=self._clock)
        except (ValueError, StoreError) as error:
            raise StartError(str(error)) from error

    async def _when_available(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the metadata store something. A cluster's is waited for: it may start after its nodes, or be
        away just now."""
        started_ms = self._clock.monotonic_ms()
        said = ""
        try:
            async with asyncio.timeout(self._patience_ms / 1000 if self._clustered else None) as deadline:
                while True:
                    try:
                        return await ask()
                    except (StoreError, KafkaError) as error:
                        is_away = isinstance(error, StoreError) or error.code is ErrorCode.request_timed_out
                        if not self._clustered or not is_away:
                            raise
                        if not said:
                            log.warning("waiting for the metadata store: %s", error)
                        said = str(error)
                    await asyncio.sleep(STORE_RETRY_MS / 1000)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            why = said or "it does not answer"
            raise StartError(f"the metadata store cannot be used: {why}") from error
        finally:
            self._patience_ms = max(0, self._patience_ms - (self._clock.monotonic_ms() - started_ms))

    def _make_replicas(self) -> ReplicaManager:
        """The replicas, which follow others and propose to the store where there are others."""
        parts = (self.node_id, self._logs, self.config, self._clock, self._disk)
        if not self._clustered:
            return ReplicaManager(*parts)
        # A node that is alone starts without what it takes to be one of several, here and below.
        from ottla.metadata.leadership import Leadership
        from ottla.metadata.liveness import Liveness
        from ottla.metadata.membership import Membership
        from ottla.replication.fetchers import Fetchers

        mark = RegistrationMark(self._disk, self.config.data_dir)
        self._membership = member = Membership(
            self._store, self._metadata, self.config, self._disk, mark, self.node_id
        )
        self._held.push_async_callback(member.close)
        listener, network = self.config.inter_broker_listener, self._entrances.among_nodes
        self._leadership = Leadership(self._store, self._metadata, self.config, member)
        self._held.push_async_callback(self._leadership.close)
        self._liveness = Liveness(self._store, self._metadata, network, self.node_id, listener)
        self._held.push_async_callback(self._liveness.close)
        fetchers = Fetchers(
            self.node_id, network, self._clock, self.config, lambda: member.broker_epoch, listener
        )
        commit = self._metadata.controller.change_partitions
        replicas = ReplicaManager(*parts, fetchers=fetchers, commit=commit)
        replicas.disk_failed = self._fail
        replicas.is_own = member.is_own
        return replicas

    async def _join(self, endpoints: Mapping[str, tuple[str, int]], rack: str | None) -> None:
        """Take this node's place: alone, as its own controller, or among others."""
        if not self._clustered:
            await self._metadata.controller.register_broker(self.node_id, endpoints, rack)
            return
        from ottla.metadata.membership import MembershipError

        try:
            await self._membership.join(endpoints, rack, self._patience_ms)
        except MembershipError as error:
            raise StartError(str(error)) from error
        self._leadership.start()
        self._liveness.start()
        self._pulse.start()

    async def _leave(self) -> None:
        """Have others lead what this node leads, while it still serves, and leave their cluster."""
        await self._membership.leave()
        await self._liveness.close()
        await self._leadership.close()

    def _step_down(self) -> None:
        """The store says that this node is no member any more: lead and coordinate nothing."""
        self._replicas.step_down()
        self._coordinators.step_down()

    def _compose(self) -> None:
        """Build what serves requests upon the partitions."""
        deadlines = Deadlines(self._clock)
        self._held.callback(deadlines.close)
        producer_ids = ProducerIds(self._metadata.controller.reserve_producer_ids)
        self._coordinators = hosted = Coordinators(
            self.node_id, self.config, self._metadata, self._replicas, producer_ids, self._clock, self._disk,
            self._slices, deadlines, self._entrances.among_nodes if self._clustered else None,
            None if self._faults is None else self._faults.holds_marker,
        )  # fmt: skip
        self._held.callback(hosted.close)
        self._metadata.subscribe(hosted.apply)
        if self._clustered:
            self._membership.on_ended = self._step_down
        self.services = Services(
            node_id=self.node_id,
            config=self.config,
            clock=self._clock,
            deadlines=deadlines,
            disk=self._disk,
            metadata=self._metadata,
            replicas=self._replicas,
            groups=hosted.groups,
            transactions=hosted.transactions,
            marker_writer=hosted.marker_writer,
            verification=hosted.verification,
            log_manager=self._logs,
            fetch_sessions=FetchSessions(
                self._clock, slots_max=self.config.get("max.incremental.fetch.session.cache.slots")
            ),
            topics=KeptTopics(),
            turn=self._turn,
            memory=self._memory,
            slices=self._slices,
            producer_ids=producer_ids,
            quotas=self._quotas,
            tokens=self._make_tokens(),
            pulse=self._make_pulse() if self._clustered else None,
        )
        self._memory.on_shortage = self.services.fetch_sessions.habits.let_go
        handlers = load_handlers()
        if self._faults is not None:
            # Only brokers for tests have any.
            from ottla.broker.faults import with_faults

            handlers = with_faults(handlers, self._faults)
        self._gate = gate = Gate(self.services, handlers, repeats=self._faults is None)
        follow_quotas(self._quotas, self._metadata, self._clock, gate.switch_throttling)
        self._entrances.lead_to(gate, self._make_authorizer(), lambda: self._metadata.image)
        self._listeners.serve(self._entrances.guard)

    def _make_entrances(self) -> Entrances:
        """ConfigError says what of the listeners' settings cannot be used."""
        if all(endpoint.protocol == "PLAINTEXT" for endpoint in self.config.listeners()):
            return Entrances(self._network)
        # A node that is not secured starts without it.
        from ottla.broker.secured import SecuredEntrances

        return SecuredEntrances(self.config, self._clock, self._network)

    def _make_authorizer(self) -> Authorizer | None:
        """Who decides what clients may do, where anybody does."""
        if not self.config.get("authorizer.class.name"):
            return None
        # A node that lets everybody do everything starts without it.
        from ottla.metadata.authorization import authorizer_of, say_whether_nodes_may

        made = authorizer_of(self.config, self._metadata, self._entrances.principal)
        self.services.authorizer = made
        seen = self._entrances.seen_as() if self._clustered else None
        if seen is not None:
            say_whether_nodes_may(made, self._metadata.image, seen, self.config.inter_broker_listener)
        return made

    def _make_tokens(self) -> Tokens | None:
        """The delegation tokens, where clients can have any."""
        if type(self._entrances) is Entrances:
            return None
        from ottla.metadata.delegation_tokens import Tokens

        made = Tokens(self.config, self._metadata, self._clock, self.node_id)
        made.start()
        self._held.callback(made.close)
        self._entrances.tokens = made.view
        return made

    def _observed(self) -> Observed:
        member = self._membership if self._clustered else None
        return Observed(
            self.services, self._gate, self._listeners, self._entrances, self._store, self.lag, member
        )

    def _make_pulse(self) -> Pulse:
        from ottla.env.pulse import Pulse

        session_ms = self.config.get("broker.session.timeout.ms")
        # A lease is renewed three times in its life: to stand still for less cannot cost it.
        self._pulse = Pulse(self._clock, session_ms * 2 // 3, self._membership.stood_still)
        self._held.callback(self._pulse.close)
        return self._pulse
