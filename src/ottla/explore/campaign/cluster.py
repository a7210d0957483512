"""A whole run: the cluster is built, clients work on it, faults strike; then all is healed and checked."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

from ottla.broker.api.records.produce import handler
from ottla.errors import KafkaError
from ottla.explore.campaign.admin import Admin
from ottla.explore.campaign.client import Client
from ottla.explore.campaign.consumer import LATEST, Consumer, GroupConsumer, Reader
from ottla.explore.campaign.model import IDENTICAL, NO_INTERNAL_ERROR, RECOVERS, WHOLE, Model, Violation
from ottla.explore.campaign.observer import Observer, values_of
from ottla.explore.campaign.producer import HastyProducer, PlainProducer, Producer
from ottla.explore.faults.kinds import Faults
from ottla.explore.world.loop import Deadlock, OutOfTime, VirtualLoop
from ottla.explore.world.machines import Machines
from ottla.explore.world.nodes import PORT, SimNode
from ottla.types import TopicPartition

# How long the cluster may take to recover once all faults have ended, in virtual seconds.
RECOVERY_S = 60.0
# A run has so many steps at most; one that takes more spins somewhere.
STEPS_MAX = 3_000_000
OFFSETS_TOPIC = "__consumer_offsets"

PROPERTIES = {
    "auto.create.topics.enable": "false",
    "broker.session.timeout.ms": "2000",
    "default.replication.factor": "3",
    "group.initial.rebalance.delay.ms": "200",
    "group.min.session.timeout.ms": "1000",
    "leader.imbalance.check.interval.seconds": "10",
    "min.insync.replicas": "2",
    "offsets.topic.num.partitions": "2",
    "offsets.topic.replication.factor": "3",
    "replica.fetch.backoff.ms": "200",
    "replica.lag.time.max.ms": "3000",
    "replica.socket.timeout.ms": "3000",
}
# What differs from run to run, all nodes being alike in it.
DRAWN = {
    "log.roll.ms": ("604800000", "604800000", "1500"),
    "replica.fetch.max.bytes": ("1048576", "3000"),
    "replica.fetch.wait.max.ms": ("500", "100"),
    "log.flush.offset.checkpoint.interval.ms": ("60000", "2000", "1000"),
}
# The same of topics. Segments of a few batches, so that rolls fall upon recovery points, upon truncations and
# between a write and its sync.
DRAWN_OF_TOPICS = {
    "internal.segment.bytes": ("", "2000", "3000", "9000"),
    "flush.messages": ("", "", "5"),
}
# Whether all batches are of one size, so that logs that part roll at the same offsets.
DRAWN_EVEN = (False, False, True)
# From which size on batches are written in threads, so that other things fall into such a write.
DRAWN_WRITTEN_ASIDE_BYTES = (handler.WRITTEN_ASIDE_BYTES, 200, 1)
# How often idempotent producers begin again with the next epoch.
DRAWN_RESTLESS = (0.0, 0.02, 0.1)


@dataclass(slots=True)
class Options:
    """What one run is like. ``seconds`` is how long faults strike, in virtual time."""

    seed: int
    nodes: int = 5
    seconds: float = 20.0
    # Kinds of faults; None: those that the seed chooses.
    faults: list[str] | None = None
    trace: TextIO | None = None
    verbose: bool = False
    # Of what is drawn, what is given instead: ``DRAWN``, ``DRAWN_OF_TOPICS``, "even".
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Result:
    """What became of a run. ``violation`` None: everything held."""

    seed: int
    digest: str = ""
    violation: Violation | None = None
    virtual_s: float = 0.0
    steps: int = 0
    lines: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)


class Cluster(Machines):
    """Nodes, store, clients and the network between them, on one virtual loop."""

    # The topics that clients work on, and how many partitions each has.
    topic_sizes: Mapping[str, int] = {"a": 2, "b": 1}
    # Of the nodes' configuration, what differs from ``PROPERTIES``.
    properties: Mapping[str, str] = {}

    def __init__(self, options: Options) -> None:
        super().__init__(VirtualLoop(), options.seed, options.trace)  # type: ignore[abstract]
        self.options = options
        self.model = Model(self._violated)
        self.violation: Violation | None = None
        rng = self._rng("settings")
        given = options.given
        self.drawn = {name: given.get(name, rng.choice(values)) for name, values in DRAWN.items()}
        drawn = {name: given.get(name, rng.choice(values)) for name, values in DRAWN_OF_TOPICS.items()}
        self.drawn_of_topics = {name: value for name, value in drawn.items() if value}
        self.even = given.get("even", rng.choice(DRAWN_EVEN))
        self.written_aside_bytes: int = self._rng("writes").choice(DRAWN_WRITTEN_ASIDE_BYTES)
        self.restless = given.get("restless", rng.choice(DRAWN_RESTLESS))
        for node_id in range(1, options.nodes + 1):
            self._add_node(node_id)
        self.observer = Observer(self.nodes, self.model)
        self.clients: list[Client] = []
        self.topics = list(self.topic_sizes)
        self.admin = self._client(Admin, "admin", topics=self.topics)
        self.faults = Faults(self, self._rng("faults"), options.faults)
        self._seen_failures = 0
        self.loop.on_steps = self._look

    def _add_node(self, node_id: int) -> None:
        factor = min(3, self.options.nodes)
        properties = {**PROPERTIES, **self.drawn, **self.properties}
        properties["default.replication.factor"] = str(factor)
        properties["offsets.topic.replication.factor"] = str(factor)
        properties["min.insync.replicas"] = str(self.min_insync)
        if self.options.nodes == 1:
            # One copy survives a loss of power only where it was flushed.
            properties["log.flush.interval.messages"] = "1"
        self.add_node(node_id, properties)

    @property
    def min_insync(self) -> int:
        return 2 if self.options.nodes >= 3 else 1

    def _client(self, kind: type[Any], name: str, **kwargs: Any) -> Any:
        machine = self.machine(name, f"10.0.2.{len(self.client_hosts) + 1}")
        self.client_hosts.append(machine.host)
        bootstrap = [(node.machine.host, PORT) for node in self.nodes.values()]
        made = kind(name, machine.begin(), self.fabric, bootstrap, self._rng(name), self.model, **kwargs)
        self.clients.append(made)
        return made

    def more_summary(self) -> dict[str, Any]:
        """What was done beyond what each run does."""
        return {}

    # ------------------------------------------------------------ what is looked at all the time

    def _violated(self, violation: Violation) -> None:
        self.trace("VIOLATION", str(violation))
        if self.violation is None:
            self.violation = violation
            self.loop.end(violation)

    def _look(self) -> None:
        self.observer.look()
        if len(self.loop.failures) > self._seen_failures:
            self._seen_failures = len(self.loop.failures)
            self.model.violate(NO_INTERNAL_ERROR, self.loop.failures[-1])

    def make_twin(self, node_id: int) -> SimNode:
        twin = super().make_twin(node_id)
        self.observer.also_look_at(twin)
        return twin

    def note_power_loss(self, node: SimNode) -> None:
        super().note_power_loss(node)
        if len(self.nodes) == 1:
            # Consumers see a record before it is flushed; what they saw beyond that may go.
            self.model.forget_seen()
            self.observer.forget_committed()

    # ------------------------------------------------------------ a run

    async def main(self) -> None:
        for node in self.nodes.values():
            node.start()
        await self._prepare()
        factor = min(3, self.options.nodes)
        for topic, partitions in self.topic_sizes.items():
            configs = {"min.insync.replicas": str(self.min_insync), **self.drawn_of_topics}
            if len(self.nodes) == 1:
                # One copy survives a loss of power only where it was flushed.
                configs.pop("flush.messages", None)
            await self._within(
                self._as_admin(self.admin.create(topic, partitions, factor, configs)), "topics"
            )
        running = self._start_clients()
        striking = asyncio.create_task(self.faults.run())
        await asyncio.sleep(self.options.seconds)
        self.quiet = True
        if striking.done():
            # By an error no more faults would have struck.
            striking.result()
        striking.cancel()
        self._heal()
        await self._finish(running)

    async def _prepare(self) -> None:
        """What comes before there are topics."""

    def _start_clients(self) -> list[asyncio.Task[None]]:
        rng = self._rng("clients")
        kinds: list[type[Producer]] = [Producer, rng.choice((Producer, HastyProducer))]
        kinds.append(rng.choice((PlainProducer, HastyProducer)))
        made: list[Any] = []
        for number, kind in enumerate(kinds):
            producer = self._client(kind, f"p{number}", topics=self.topics)
            producer.interval_ms = rng.choice((40, 100, 250))
            producer.even = self.even
            producer.restless = self.restless
            made.append(producer)
        made.append(self._client(Consumer, "c0", topics=self.topics))
        for number in range(rng.choice((1, 2, 3))):
            made.append(self._client(GroupConsumer, f"g{number}", topics=self.topics, group="group"))
        return [self.loop.spawn(client.process, client.run()) for client in made]

    def _as_admin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self.loop.spawn(self.admin.process, work)

    async def ask_admin(self, work: Coroutine[Any, Any, None]) -> None:
        await asyncio.wait([self._as_admin(work)], timeout=20)

    def _heal(self) -> None:
        """Everything works again."""
        self.trace("cluster", "heals")
        self.faults.end_all()
        self.heal()

    async def _within(self, work: asyncio.Task[Any], what: str) -> None:
        """Wait for something that must come about."""
        await asyncio.wait([work], timeout=RECOVERY_S)
        if not work.done():
            self.model.violate(RECOVERS, f"{what} not done after {RECOVERY_S:.0f} s{self._state()}")
        work.result()

    def _state(self) -> str:
        wrong = [f"{name}-{index}: {state}" for name, index, state in self.states()]
        down = [str(node) for node in self.nodes.values() if not node.serving]
        return f"; down: {down}; " + "; ".join(wrong)

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        end = self.loop.time() + RECOVERY_S
        while not condition():
            if self.loop.time() > end:
                self.model.violate(RECOVERS, f"{what} not so after {RECOVERY_S:.0f} s{self._state()}")
            await asyncio.sleep(0.1)

    async def _finish(self, running: list[asyncio.Task[None]]) -> None:
        """Have all answered, all in sync and all read, and compare."""
        await self._until(self.all_in_sync, "all replicas in sync")
        workers = list(zip(self.clients[1:], running, strict=True))
        for client, _ in workers:
            client.stopping = isinstance(client, Producer)
        for client, task in workers:
            if isinstance(client, Producer):
                await self._within(task, f"all that {client.name} wrote answered")
        for client, task in workers:
            if not isinstance(client, Producer):
                client.stopping = True
                await self._within(task, f"{client.name} ended")
        await self._until(self.all_in_sync, "all replicas in sync")
        await self._until(self._all_committed, "all high watermarks at the ends")
        await self._read_all()
        self._check_logs()
        self.observer.look()

    def _all_committed(self) -> bool:
        """Whether every replica has everything and knows that it is committed."""
        for topic, index, state in self.states():
            ends = set()
            for node_id in state["replicas"]:
                node = self.nodes[node_id].node
                partition = node._replicas.partitions.get((topic, index)) if node is not None else None
                if partition is None:
                    return False
                ends |= {partition.log.log_end_offset, partition.high_watermark}
            if len(ends) != 1:
                return False
        return True

    async def _read_all(self) -> None:
        """A fresh consumer reads everything from the start to the end."""
        reader: Reader = self._client(Reader, "r0", topics=self.topics)

        async def read() -> None:
            await reader.refresh()
            ends: dict[TopicPartition, int] = {}
            wheres = reader.all_partitions()
            while len(ends) < len(wheres):
                for where in wheres:
                    end = await reader.list_offset(where, LATEST)
                    if end is not None:
                        ends[where] = end
                await reader.refresh()
            while behind := [w for w in wheres if reader.positions.get(w, -1) < ends[w]]:
                await reader.fetch_some(behind)

        await self._within(self.loop.spawn(reader.process, read()), "everything read")

    def _check_logs(self) -> None:
        for topic, index, state in self.states():
            self.observer.compare_replicas(topic, index, state["replicas"])
            leader = self.nodes[state["leader"]].node
            if topic in self.topics:
                partition = leader._replicas.partitions.get((topic, index)) if leader is not None else None
                if partition is None:
                    self.model.violate(IDENTICAL, f"{topic}-{index}: its leader does not hold it")
                    continue
                where = TopicPartition(topic, index)
                self.model.check_log(where, partition.log.log_start_offset, values_of(partition))


class _LogHandler(logging.Handler):
    """What nodes log goes into the trace's lines; an exception that they log is a finding."""

    def __init__(self, cluster: Cluster, verbose: bool) -> None:
        super().__init__(logging.INFO if verbose else logging.WARNING)
        self._cluster = cluster

    def emit(self, record: logging.LogRecord) -> None:
        from ottla.explore.world.loop import CURRENT

        self._cluster.trace.note(f"{CURRENT.get()} {record.levelname} {record.getMessage()}")
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            self._cluster.loop.failures.append(f"{CURRENT.get()} {record.getMessage()}: {error!r}")
            self._cluster.trace.note(logging.Formatter().formatException(record.exc_info))


@contextmanager
def _surroundings(cluster: Cluster) -> Iterator[None]:
    """Have everything that the product draws come from the seed, and its log lines into the trace."""
    rng = cluster._rng("product")
    state, urandom = random.getstate(), os.urandom
    random.seed(f"{cluster.options.seed} random")
    os.urandom = rng.randbytes
    written_aside_bytes = handler.WRITTEN_ASIDE_BYTES
    handler.WRITTEN_ASIDE_BYTES = cluster.written_aside_bytes
    logger = logging.getLogger("ottla")
    level, propagate = logger.level, logger.propagate
    log_handler = _LogHandler(cluster, cluster.options.verbose or cluster.options.trace is not None)
    logger.addHandler(log_handler)
    logger.setLevel(log_handler.level)
    logger.propagate = False
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        logger.removeHandler(log_handler)
        handler.WRITTEN_ASIDE_BYTES = written_aside_bytes
        logger.setLevel(level)
        logger.propagate = propagate
        random.setstate(state)
        os.urandom = urandom


def run(options: Options, kind: type[Cluster] = Cluster) -> Result:
    """Run one seed."""
    cluster = kind(options)
    result = Result(options.seed)
    with _surroundings(cluster):
        try:
            cluster.loop.run(cluster.main(), time_max_s=options.seconds + 8 * RECOVERY_S, steps_max=STEPS_MAX)
            cluster._look()
        except Violation:
            pass
        except (Deadlock, OutOfTime) as error:
            cluster.model.violate(RECOVERS, str(error))
        except KafkaError as error:
            # It is the observer who reads a log past its checks.
            cluster.model.violate(WHOLE, str(error))
        finally:
            cluster.loop.close()
    model = cluster.model
    result.violation = cluster.violation
    result.virtual_s = cluster.loop.time()
    result.steps = cluster.loop.steps
    cluster.trace("steps", str(cluster.loop.steps))
    result.digest = cluster.trace.digest()
    result.lines = list(cluster.trace.lines)
    result.summary = {
        "acknowledged": model.acked_count,
        "unknown": model.unknown_count,
        "seen": model.seen_count,
        "commits": model.commit_count,
        "generations": model.generation_count,
        "elections": cluster.observer.elections,
        "node starts": sum(node.starts for node in cluster.nodes.values()),
        "revisions": cluster.store_server.revision,
        "faults": dict(sorted(cluster.faults.counts.items())),
        **cluster.more_summary(),
    }
    return result
