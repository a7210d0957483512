"""A broker inside the test's process: started in a blink, in a directory that goes away with it.

The broker runs on an event loop of its own, in a thread of its own, for ``with`` and for ``async with``
alike. A test that blocks its thread, as every synchronous client does, or that keeps its own event loop busy
can so never starve the broker it waits for; and it is the same broker, behind the same TCP port, that
``ottla serve`` runs.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

from ottla.config import check_known
from ottla.env.disk import RealDisk
from ottla.env.network import show_address
from ottla.metadata.store import StoreError
from ottla.node import Node, NodeSettings, StartError
from ottla.testing import contents, groups, topics
from ottla.testing.faults import Faults, Request
from ottla.testing.inside import Inside, to_text, topic_counts
from ottla.testing.ports import HeldPort
from ottla.testing.running import RunningNodes
from ottla.testing.thread import CALL_TIMEOUT_S, LoopThread

if TYPE_CHECKING:
    from ottla.testing.control.server import Control
    from ottla.testing.security import Acl, Security

T = TypeVar("T")

CONTROL_HOST = "127.0.0.1"

# Where tests are better served by another value than Kafka's default: nobody waits for more members to
# join a group, the topics of coordinators have one partition instead of 50, and each Fetch names all its
# topics, since it has no session that remembers them. ``config`` overrides these.
CONFIG: Mapping[str, str] = {
    "group.initial.rebalance.delay.ms": "0",
    "max.incremental.fetch.session.cache.slots": "0",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
}


class Broker(Inside):
    """A Kafka broker for tests.

        with Broker(topics={"orders": 3}) as broker:
            producer = Producer({"bootstrap.servers": broker.bootstrap_servers})

    ``topics`` are created at the start if they are missing: names, or names with partitions. ``config`` are
    broker settings under Kafka's names. ``data`` keeps the data in a directory of yours; otherwise it is in
    a temporary one until the broker is stopped for good. ``port`` 0 takes any free port, and keeps it
    across `restart`. ``tls`` has clients speak TLS, ``users`` (names and passwords) has them log in, ``acls``
    lets them do nothing else; `client_properties` says how they come in. ``metrics``: serve them at
    `metrics_address`. ``socket``: have `ottla trace --data` find it by its directory. ``control``: have
    programs in other languages drive it by HTTP at `control_address`.

    Errors are those of ``ottla.testing``: ConfigError at once for a name that is no setting; it and
    StartError at the start; KafkaError from the helpers. All methods may be called from any thread.
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
        metrics: bool = False,
        socket: bool = False,
        control: bool = False,
    ) -> None:
        check_known(config or ())
        self.host = host
        self.port = port
        self.node_id = node_id
        self.faults = Faults(self._topic_name)
        self._topics = topic_counts(topics)
        self._config = {**CONFIG, **{name: to_text(value) for name, value in (config or {}).items()}}
        if metrics:
            self._config.setdefault("metrics.listener", f"{host}:0")
        self._socket = socket
        # Where the control port is to be, the same after each start; None: there is none.
        self._control_port = 0 if control else None
        self._control: Control | None = None
        self._data = Path(data) if data is not None else None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._key_folder: tempfile.TemporaryDirectory[str] | None = None
        self._thread: LoopThread | None = None
        self._nodes = RunningNodes()
        self._disk: RealDisk
        self._held_port: HeldPort | None = None
        self._security: Security | None = None
        if tls or users is not None or acls is not None:
            # Most tests have nobody log in, and start without it.
            from ottla.testing.security import Security

            self._security = Security(tls=tls, users=users, acls=acls, host=host)

    # ------------------------------------------------------------ its life

    def start(self) -> Self:
        """Start, and return once clients can connect."""
        if self._thread is not None:
            raise RuntimeError("the broker runs already")
        if not self.port:
            # Nobody is to have it while the broker is down for a moment, such as a client's own end of a
            # connection.
            try:
                self._held_port = HeldPort(self.host)
            except OSError as error:
                raise StartError(f"cannot listen on {self.host}: {error.strerror or error}") from error
            self.port = self._held_port.number
        self._thread = LoopThread()
        try:
            self._thread.call(self._start_node())
            if (security := self._security) is not None:
                self._call(lambda nodes: security.found(nodes.any))
            if self._control_port is not None:
                self._call(self._open_control)
            self._create_missing()
        except BaseException:
            self.stop()
            raise
        return self

    async def _start_node(self) -> None:
        settings = NodeSettings(
            data=str(self.data),
            host=self.host,
            port=self.port,
            node_id=self.node_id,
            socket=self._socket,
            properties=self._config | (self._security.properties(self._keys) if self._security else {}),
        )
        self._disk = RealDisk()
        try:
            node = Node(settings, disk=self._disk, faults=self.faults)
            await node.start()
        except (OSError, StoreError, UnicodeError) as error:
            self._disk.close()
            raise StartError(f"the broker cannot start: {error}") from error
        except BaseException:
            self._disk.close()
            raise
        self.port = node.address[1]
        self._nodes.add(node)

    def _create_missing(self) -> None:
        existing = self.topics()
        for name, partitions in self._topics.items():
            if name not in existing:
                self.create_topic(name, partitions)

    def stop(self) -> None:
        """Stop as on SIGTERM, and remove the data if they are temporary. Harmless when it is stopped."""
        try:
            self._end(kill=False)
        finally:
            if self._held_port is not None:
                self._held_port.release()
                self._held_port = None
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
        return bool(self._nodes.nodes)

    @property
    def bootstrap_servers(self) -> str:
        """The address for the clients' setting of that name. RuntimeError before the first start."""
        if not self.port:
            raise RuntimeError("the broker has no port before it is started")
        return f"{self.host}:{self.port}"

    @property
    def metrics_address(self) -> str:
        """HOST:PORT where /metrics, /healthz and /readyz are served. RuntimeError where they are not."""
        address = self._node.metrics_address
        if address is None:
            raise RuntimeError("metrics are not served: give Broker metrics=True")
        return show_address(*address)

    @property
    def control_address(self) -> str:
        """HOST:PORT of the control port, which is on this machine. RuntimeError where there is none."""
        if self._control is None:
            raise RuntimeError("there is no control port: give Broker control=True, and start it")
        return show_address(*self._control.address)

    async def _open_control(self, nodes: RunningNodes) -> None:
        from ottla.testing.control.server import Control

        assert self._control_port is not None
        control = Control((CONTROL_HOST, self._control_port), faults=self.faults)
        await control.bind()
        await control.start(nodes.any)
        self._control, self._control_port = control, control.address[1]

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
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            if self._nodes.nodes:
                thread.call(self._end_node(kill=kill))
        finally:
            thread.close()

    async def _end_node(self, *, kill: bool) -> None:
        node = self._node
        if self._control is not None:
            self._control.close()
        self._nodes.remove(self.node_id)
        try:
            await (node.kill() if kill else node.stop())
        finally:
            self._disk.close()

    # ------------------------------------------------------------ what is in it

    def create_topic(
        self, name: str, partitions: int = 1, config: Mapping[str, str | int | bool] | None = None
    ) -> None:
        """Create a topic, ready to be used when this returns. KafkaError where it cannot be."""
        configs = {name: to_text(value) for name, value in (config or {}).items()}
        self._call(lambda nodes: topics.create(nodes, name, partitions, -1, configs))

    def reset(self) -> None:
        """Make it as it was after the start, for the next test: faults end, ``requests`` is empty, all topics
        and groups are deleted, and the ``topics`` that it was made with are made anew.

        Groups that have members now stay, without offsets.
        """
        self.faults.clear()
        for name in self.topics():
            self.delete_topic(name)
        self._call(groups.delete_empty)
        self._create_missing()
        self.faults.forget()

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
        self._call(lambda nodes: contents.disconnect(nodes.any))

    # ------------------------------------------------------------ across the threads

    @property
    def _node(self) -> Node:
        if not self._nodes.nodes:
            raise RuntimeError("the broker is not running")
        return self._nodes.any

    def _call(self, work: Callable[[RunningNodes], Coroutine[Any, Any, T]], timeout_s: float = 0) -> T:
        thread = self._thread
        if thread is None or not self._nodes.nodes:
            raise RuntimeError("the broker is not running")
        return thread.call(on_loop(work, self._nodes), CALL_TIMEOUT_S + timeout_s)

    def _topic_name(self, topic_id: UUID) -> str | None:
        # Requests also come while the node starts and while it stops.
        topic = self._nodes.image.topics_by_id.get(topic_id)
        return None if topic is None else topic.name


async def on_loop(work: Callable[[RunningNodes], Coroutine[Any, Any, T]], nodes: RunningNodes) -> T:
    """Have also what makes the coroutine run on the loop of the nodes."""
    return await work(nodes)
