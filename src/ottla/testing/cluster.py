"""A cluster of several nodes inside the test's process, with real TCP between them and to clients.

The nodes are those of ``ottla serve``: they elect a controller and leaders, replicate, and fail over. Only
the metadata store is another one, in memory, so that nothing else has to run. All nodes share one event loop,
in a thread of its own.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast
from uuid import UUID

from ottla.broker.faults import Fault
from ottla.broker.request import RequestContext
from ottla.config import check_known
from ottla.env.clock import SystemClock
from ottla.metadata.memory import MemoryServer, MemoryStore
from ottla.metadata.store import StoreError
from ottla.node import Node, NodeSettings, StartError
from ottla.testing import broker, contents, groups, partitions, topics
from ottla.testing.faults import Faults, Request, combine
from ottla.testing.inside import WAIT_TIMEOUT_S, Inside, or_timeout, to_text, topic_counts
from ottla.testing.lives import CURRENT, Life, task_of_life
from ottla.testing.ports import HeldPort
from ottla.testing.running import RunningNodes
from ottla.testing.thread import CALL_TIMEOUT_S, LoopThread
from ottla.testing.wires import StoreWay, Wires

if TYPE_CHECKING:
    from ottla.testing.security import Acl, Security

T = TypeVar("T")

NODES_MAX = 9
# Kafka's own defaults would have a test wait for 9 s until an isolated node is given up, and for 30 s until a
# follower that is cut off leaves the ISR.
SESSION_MS, LAG_MS = "3000", "3000"


class ClusterNode:
    """One node of a `Cluster`; ``cluster.nodes[2]`` is node 2."""

    def __init__(self, cluster: Cluster, node_id: int, host: str, port: HeldPort) -> None:
        self.node_id = node_id
        self.host = host
        self.port = port.number
        # Faults of this node alone, and the requests that came to it.
        self.faults = Faults(cluster._topic_name, spares=is_of_node)
        self._cluster = cluster

    @property
    def bootstrap_servers(self) -> str:
        """The address of this node. Clients learn from it where the others are."""
        return f"{self.host}:{self.port}"

    @property
    def running(self) -> bool:
        """Whether it has been started, and neither stopped nor killed since."""
        return self.node_id in self._cluster._lives

    @property
    def data(self) -> Path:
        """The directory of its data."""
        return self._cluster._folder / f"node-{self.node_id}"

    @property
    def requests(self) -> tuple[Request, ...]:
        """The requests of clients that it has seen, oldest first: ``faults.requests``."""
        return self.faults.requests

    @property
    def connections(self) -> int:
        """How many connections clients and other nodes have to it now."""
        return self._cluster._life_of(self.node_id).node.connection_count

    def __repr__(self) -> str:
        return (
            f"<ClusterNode {self.node_id} {self.bootstrap_servers}{'' if self.running else ', not running'}>"
        )


class Cluster(Inside):
    """Several nodes for tests.

        with Cluster(nodes=3, topics={"orders": 3}) as cluster:
            producer = Producer({"bootstrap.servers": cluster.bootstrap_servers, "acks": "all"})
            cluster.kill(cluster.leader("orders", 0))

    The nodes have the ids from 1 on, each a port of its own, which it keeps, and a rack of its own (``r1``,
    ``r2``, ...) unless ``racks`` says otherwise. ``topics`` are created at the start with
    ``replication_factor`` replicas, which is also the default of other topics; without it there are three, or
    as many as there are nodes. ``config`` are broker settings under Kafka's names, for all nodes. ``tls``,
    ``users`` and ``acls`` are those of `Broker`; nodes have a login or a certificate of their own, so that
    ``acls`` need ``users`` or ``tls``. The data go with the cluster.

    Errors are as with `Broker`; ValueError: there is no such node. All methods may be called from any thread.
    """

    def __init__(
        self,
        nodes: int = 3,
        *,
        topics: Mapping[str, int] | Iterable[str] = (),
        replication_factor: int | None = None,
        config: Mapping[str, str | int | bool] | None = None,
        host: str = "127.0.0.1",
        racks: Sequence[str] | None = None,
        tls: bool = False,
        users: Mapping[str, str] | None = None,
        acls: Iterable[Acl] | None = None,
    ) -> None:
        check_known(config or ())
        if not 1 <= nodes <= NODES_MAX:
            raise ValueError(f"nodes={nodes}: a cluster for tests has 1 to {NODES_MAX} nodes")
        replicas = min(nodes, 3) if replication_factor is None else replication_factor
        if not 1 <= replicas <= nodes:
            raise ValueError(f"replication_factor={replicas}: with {nodes} nodes it is 1 to {nodes}")
        if racks is not None and len(racks) != nodes:
            raise ValueError(f"racks={racks!r}: give one for each of the {nodes} nodes")
        if acls is not None and not tls and users is None:
            raise ValueError(
                "acls: give users or tls, too; without them the nodes may not talk to each other"
            )
        self._topics = topic_counts(topics)
        self._config = settings_of(nodes, replicas) | {
            name: to_text(value) for name, value in (config or {}).items()
        }
        self._racks = racks or [f"r{number}" for number in range(1, nodes + 1)]
        self._ports = {number: HeldPort(host) for number in range(1, nodes + 1)}
        # Faults of all nodes, and the requests that came to any of them.
        self.faults = Faults(self._topic_name, spares=is_of_node)
        self.nodes: Mapping[int, ClusterNode] = {
            number: ClusterNode(self, number, host, port) for number, port in self._ports.items()
        }
        self._running = RunningNodes()
        self._lives: dict[int, Life] = {}
        self._thread: LoopThread | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._key_folder: tempfile.TemporaryDirectory[str] | None = None
        self._security: Security | None = None
        if tls or users is not None or acls is not None:
            # Most tests have nobody log in, and start without it.
            from ottla.testing.security import Security

            self._security = Security(tls=tls, users=users, acls=acls, host=host)
        self._store: MemoryServer
        self._wires: Wires

    # ------------------------------------------------------------ its life

    def start(self, node_id: int | None = None) -> Self:
        """Start a node that is stopped or was killed, or the whole cluster: every node that does not run.

        Clients can connect when this returns. StartError.
        """
        wanted = [self._checked(node_id)] if node_id is not None else [*self.nodes]
        missing = [each for each in wanted if each not in self._lives]
        if node_id is not None and not missing:
            raise RuntimeError(f"node {node_id} runs already")
        begins = self._thread is None
        if self._thread is None:
            self._thread = LoopThread()
            self._temporary = tempfile.TemporaryDirectory(prefix="ottla-cluster-")
        try:
            self._thread.call(self._start_nodes(missing, begins=begins))
            if begins:
                if (security := self._security) is not None:
                    self._call(lambda nodes: security.found(nodes.any))
                self._create_missing()
        except BaseException:
            if begins:
                self.stop()
            raise
        return self

    def stop(self, node_id: int | None = None) -> None:
        """Stop a node as on SIGTERM: others lead what it led before it ends. Without ``node_id``: stop the
        cluster, and remove its data; harmless when it is stopped."""
        if node_id is not None:
            self._end(self._checked(node_id), kill=False)
            return
        thread, self._thread = self._thread, None
        try:
            if thread is not None:
                try:
                    # Nobody needs their data any more.
                    thread.call(self._end_nodes([*self._lives], kill=True))
                finally:
                    thread.close()
        finally:
            self._lives.clear()
            if self._temporary is not None:
                self._temporary.cleanup()
                self._temporary = None

    def kill(self, node_id: int) -> None:
        """Stop a node as on SIGKILL: nothing is answered, flushed, handed over or written down any more.

        The other nodes notice it by its port, as on one machine; `start` recovers it.
        """
        self._end(self._checked(node_id), kill=True)

    def restart(self, node_id: int) -> None:
        """Stop a node cleanly unless it is stopped or killed already, and start it again."""
        if self._checked(node_id) in self._lives:
            self.stop(node_id)
        self.start(node_id)

    @property
    def running(self) -> tuple[int, ...]:
        """The ids of the nodes that run."""
        return tuple(sorted(self._lives))

    @property
    def bootstrap_servers(self) -> str:
        """The addresses of all nodes, for the clients' setting of that name."""
        return ",".join(node.bootstrap_servers for node in self.nodes.values())

    def client_properties(self, user: str | None = None, mechanism: str = "SCRAM-SHA-256") -> dict[str, str]:
        """What a client of librdkafka needs to come in as ``user``, as for `Broker`."""
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
        running = ", ".join(map(str, self.running)) or "none"
        return f"<Cluster of {len(self.nodes)} nodes, running: {running}>"

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            # Nobody else gives the ports back: a block that is not entered is not left.
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """`stop`, and give the ports back: the cluster is not to be started again."""
        try:
            self.stop()
        finally:
            for port in self._ports.values():
                port.release()

    def _checked(self, node_id: int) -> int:
        if node_id not in self.nodes:
            known = ", ".join(map(str, self.nodes))
            raise ValueError(f"there is no node {node_id!r}: the nodes are {known}")
        return node_id

    @property
    def _folder(self) -> Path:
        if self._temporary is None:
            raise RuntimeError("the cluster is not running")
        return Path(self._temporary.name)

    def _life_of(self, node_id: int) -> Life:
        life = self._lives.get(node_id)
        if life is None:
            raise RuntimeError(f"node {node_id} is not running")
        return life

    async def _start_nodes(self, node_ids: Sequence[int], *, begins: bool) -> None:
        if begins:
            asyncio.get_running_loop().set_task_factory(cast(Any, task_of_life))
            self._store = MemoryServer(SystemClock())
            self._wires = Wires({number: node.port for number, node in self.nodes.items()})
        outcomes = await asyncio.gather(
            *(self._start_node(node_id) for node_id in node_ids), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _start_node(self, node_id: int) -> None:
        own = self.nodes[node_id]
        settings = NodeSettings(
            data=str(own.data),
            host=own.host,
            port=own.port,
            node_id=node_id,
            rack=self._racks[node_id - 1],
            properties=self._config | (self._security.properties(self._keys) if self._security else {}),
        )
        life = Life()
        CURRENT.set(life)
        try:
            life.node = Node(
                settings,
                disk=life.disk,
                network=self._wires.network(node_id),
                store=MemoryStore(self._store, StoreWay(self._wires, node_id)),
                faults=_NodeFaults(self.faults, own.faults),
            )
            await life.node.start()
        except (OSError, StoreError, UnicodeError) as error:
            await life.end()
            raise StartError(f"node {node_id} cannot start: {error}") from error
        except BaseException:
            await life.end()
            raise
        self._lives[node_id] = life
        self._running.add(life.node)

    def _end(self, node_id: int, *, kill: bool) -> None:
        if node_id in self._lives and self._thread is not None:
            self._thread.call(self._end_nodes([node_id], kill=kill))

    async def _end_nodes(self, node_ids: Sequence[int], *, kill: bool) -> None:
        for node_id in node_ids:
            life = self._lives.pop(node_id)
            self._running.remove(node_id)
            try:
                await (life.node.kill() if kill else life.node.stop())
            finally:
                await life.end()

    # ------------------------------------------------------------ what is in it

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        replication_factor: int | None = None,
        config: Mapping[str, str | int | bool] | None = None,
    ) -> None:
        """Create a topic; each partition has a leader, and all nodes that run know it, when this returns.
        KafkaError where it cannot be."""
        configs = {name: to_text(value) for name, value in (config or {}).items()}
        factor = -1 if replication_factor is None else replication_factor
        self._call(lambda nodes: topics.create(nodes, name, partitions, factor, configs))

    def reset(self) -> None:
        """Make it as it was after the start, for the next test: all nodes run, all cuts are healed, faults
        end, ``requests`` are empty, all topics and groups are deleted, and the ``topics`` that it was made
        with are made anew."""
        each = [self.faults, *(node.faults for node in self.nodes.values())]
        for faults in each:
            faults.clear()
        self.heal()
        self.start()
        for name in self.topics():
            self.delete_topic(name)
        self._call(groups.delete_empty)
        self._create_missing()
        for faults in each:
            faults.forget()

    def _create_missing(self) -> None:
        existing = self.topics()
        for name, count in self._topics.items():
            if name not in existing:
                self.create_topic(name, count)

    def leader(self, topic: str, partition: int = 0) -> int:
        """The node that leads a partition. KafkaError LEADER_NOT_AVAILABLE while none that runs does."""
        return self._call(lambda nodes: partitions.leader(nodes, topic, partition))

    def wait_for_leader(
        self,
        topic: str,
        partition: int = 0,
        *,
        other_than: int | None = None,
        timeout_s: float = WAIT_TIMEOUT_S,
    ) -> int:
        """Wait until a node leads a partition, one ``other_than`` this, and return its id. TimeoutError."""
        return or_timeout(
            self._call(
                lambda nodes: partitions.wait_for_leader(nodes, topic, partition, other_than, timeout_s),
                timeout_s,
            )
        )

    def isr(self, topic: str, partition: int = 0) -> tuple[int, ...]:
        """The nodes whose replicas of a partition are in sync, in order of their ids. KafkaError if there is
        no such partition."""
        return self._call(lambda nodes: partitions.isr(nodes, topic, partition))

    def wait_for_isr(
        self,
        topic: str,
        nodes: Iterable[int] | None = None,
        partition: int | None = None,
        *,
        timeout_s: float = WAIT_TIMEOUT_S,
    ) -> None:
        """Wait until exactly these nodes are in sync, or without ``nodes`` all replicas; in each partition of
        the topic unless told. TimeoutError: it says which are."""
        wanted = None if nodes is None else tuple(sorted(map(self._checked, nodes)))
        or_timeout(
            self._call(
                lambda running: partitions.wait_for_isr(running, topic, wanted, partition, timeout_s),
                timeout_s,
            )
        )

    @property
    def controller(self) -> int:
        """The node that is the controller now; -1 while there is none."""
        return self._call(partitions.controller)

    @property
    def requests(self) -> tuple[Request, ...]:
        """The requests of clients that any node has seen, oldest first: ``faults.requests``."""
        return self.faults.requests

    # ------------------------------------------------------------ its network

    def isolate(self, node_id: int) -> None:
        """Cut a node off from the other nodes and from the metadata store, until `heal`. Clients reach it.

        The others give it up after its session (``broker.session.timeout.ms``, 3 s here).
        """
        self._checked(node_id)
        self._call(lambda nodes: _now(lambda: self._wires.isolate(node_id)))

    def cut(self, one: int, other: int) -> None:
        """Cut two nodes off from each other, until `heal`. Both reach the metadata store and clients.

        A follower that cannot fetch from its leader leaves the ISR after ``replica.lag.time.max.ms``, 3 s
        here.
        """
        self._checked(one), self._checked(other)
        self._call(lambda nodes: _now(lambda: self._wires.cut(one, other)))

    def heal(self, *node_ids: int) -> None:
        """End what `isolate` and `cut` began: all of it, the ``isolate`` of a node, or the ``cut`` of two."""
        ends = frozenset(map(self._checked, node_ids))
        if len(ends) != len(node_ids) or len(ends) > 2:
            raise ValueError(f"heal{node_ids}: give a node that is isolated, two that are cut, or none")
        self._call(lambda nodes: _now(lambda: self._wires.heal(ends)))

    def disconnect(self, node_id: int) -> None:
        """Close every connection to a node at once, of clients and of other nodes; they may come back."""
        node = self._life_of(self._checked(node_id)).node
        self._call(lambda nodes: contents.disconnect(node))

    # ------------------------------------------------------------ across the threads

    def _call(self, work: Callable[[RunningNodes], Coroutine[Any, Any, T]], timeout_s: float = 0) -> T:
        if self._thread is None:
            raise RuntimeError("the cluster is not running")
        return self._thread.call(broker.on_loop(work, self._running), CALL_TIMEOUT_S + timeout_s)

    def _topic_name(self, topic_id: UUID) -> str | None:
        topic = self._running.image.topics_by_id.get(topic_id)
        return None if topic is None else topic.name


class _NodeFaults:
    """``FaultHook`` of a node: the faults of the cluster, and those of the node."""

    def __init__(self, cluster: Faults, node: Faults) -> None:
        self._each = (cluster, node)

    def before(self, ctx: RequestContext, request: Any) -> Fault | None:
        found = [faults.before(ctx, request) for faults in self._each]
        return combine(fault for fault in found if fault is not None)

    def refuses_connections(self) -> bool:
        # Each of them counts.
        found = [faults.refuses_connections() for faults in self._each]
        return any(found)

    def holds_marker(self, topic: str) -> bool:
        found = [faults.holds_marker(topic) for faults in self._each]
        return any(found)


def is_of_node(client_id: str) -> bool:
    """Whether a request is of another node, such as broker-2-fetcher-1."""
    kind, _, rest = client_id.partition("-")
    node_id, _, rest = rest.partition("-")
    purpose, _, other = rest.partition("-")
    return kind == "broker" and node_id.isdecimal() and bool(purpose) and other.isdecimal()


def settings_of(nodes: int, replicas: int) -> dict[str, str]:
    """The settings that differ from Kafka's defaults."""
    return dict(broker.CONFIG) | {
        "auto.leader.rebalance.enable": "false",
        "broker.session.timeout.ms": SESSION_MS,
        "default.replication.factor": str(replicas),
        "min.insync.replicas": str(min(replicas, 2)),
        "offsets.topic.replication.factor": str(min(nodes, 3)),
        "replica.lag.time.max.ms": LAG_MS,
        "transaction.state.log.min.isr": str(min(nodes, 2)),
        "transaction.state.log.replication.factor": str(min(nodes, 3)),
    }


async def _now(work: Callable[[], None]) -> None:
    work()
