"""Start the load processes, let them begin together, and measure the broker while they work."""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from threading import BrokenBarrierError
from typing import Any, NamedTuple
from uuid import uuid4

from ottla.cli import output
from ottla.cli.bench import processes
from ottla.cli.bench.processes import Usage
from ottla.cli.bench.workers import Done
from ottla.cli.client import REQUEST_TIMEOUT_S, Cluster, admin_api
from ottla.cli.errors import CliError
from ottla.types import TopicPartition

START_TIMEOUT_S = 60.0
WATCH_S = 0.05

Worker = Callable[[Any, Any, Any, int], Done]

# Set in each load process by _join, because a barrier can only be inherited, not sent.
_barrier: Any = None
_progress: Any = None


class Measured(NamedTuple):
    """What all load processes did together, and what it cost the broker, if we can see it."""

    done: Sequence[Done]
    before: Usage | None
    after: Usage | None

    @property
    def seconds(self) -> float:
        """From when the first began to when the last ended."""
        return max(d.ended_s for d in self.done) - min(d.began_s for d in self.done)


def _join(barrier: Any, progress: Any) -> None:
    global _barrier, _progress
    _barrier, _progress = barrier, progress


def _call(worker: Worker, load: Any, index: int) -> Done:
    try:
        return worker(load, _barrier, _progress, index)
    except BaseException:
        # The others must not wait at the barrier for one that will never come.
        _barrier.abort()
        raise


def run(
    label: str,
    jobs: Sequence[tuple[Worker, Any]],
    brokers: frozenset[int],
    total: int,
    *,
    warmup_s: float | None = None,
) -> Measured:
    """Run each job in a process of its own. CliError where one fails.

    They meet before they begin; where ``warmup_s`` is given once more, after they have warmed up together.
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(len(jobs) + 1)
    progress = context.Array("q", len(jobs), lock=False)
    with (
        ProcessPoolExecutor(len(jobs), context, initializer=_join, initargs=(barrier, progress)) as pool,
        output.progress(label, total) as show,
    ):
        futures = [pool.submit(_call, worker, load, i) for i, (worker, load) in enumerate(jobs)]
        try:
            barrier.wait(START_TIMEOUT_S)
            if warmup_s is not None:
                barrier.wait(START_TIMEOUT_S + warmup_s)
            before = processes.usage(brokers)
            # The load may be over before it is looked at: the bar stands from its beginning on.
            show(0)
            while not all(future.done() for future in futures):
                time.sleep(WATCH_S)
                show(sum(progress))
        except BrokenBarrierError:
            raise CliError(f"{label}: {_reason(futures)}") from None
        after = processes.usage(brokers)
        try:
            done = [future.result() for future in futures]
        except (BrokenProcessPool, OSError) as error:
            raise CliError(f"{label}: {error}") from None
    return Measured(done, before, after)


def _reason(futures: Iterable[Future[Done]]) -> str:
    """Why a load process could not begin."""
    for future in futures:
        error = future.exception(timeout=5)
        if error is not None and not isinstance(error, BrokenBarrierError):
            return str(error)
    return "the load processes did not start in time"


def broker_processes(cluster: Cluster, named: Sequence[int] | None = None) -> frozenset[int]:
    """The processes of the cluster's brokers, where they run on this machine and we may see them: those that
    were named, else whatever listens at their ports."""
    if named:
        return frozenset(named)
    ports = {broker.port for broker in cluster.metadata.brokers.values() if is_local(broker.host)}
    return processes.listeners(ports) if ports else frozenset()


def is_local(host: str) -> bool:
    """Whether an address of ``host`` belongs to this machine."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            try:
                # Only an address of our own can be bound.
                probe.bind((address[0], 0))
                return True
            except OSError:
                continue
    return False


@contextmanager
def topic(cluster: Cluster, name: str | None, partitions: int, replicas: int = -1) -> Iterator[str]:
    """The topic to use: the one named, or a new one that is deleted in the end, with as many replicas as
    asked for, or as the cluster gives a topic by itself."""
    if name is not None:
        cluster.topic(name)
        yield name
        return
    made = f"ottla-bench-{uuid4().hex[:8]}"
    futures = cluster.admin.create_topics(
        [admin_api().NewTopic(made, partitions, replicas)],
        operation_timeout=10,
        request_timeout=REQUEST_TIMEOUT_S,
    )
    cluster.wait(futures[made], f"topic {made!r}")
    with ExitStack() as cleanup:
        cleanup.callback(_drop, cluster, made)
        _await_leaders(cluster, made, partitions)
        yield made


def _await_leaders(cluster: Cluster, name: str, partitions: int) -> None:
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        cluster.refresh()
        found = cluster.metadata.topics.get(name)
        ready = found is not None and len(found.partitions) == partitions
        if ready and all(partition.leader >= 0 for partition in found.partitions.values()):
            return
        time.sleep(WATCH_S)
    raise CliError(f"topic {name!r}: the partitions have no leaders after 10 s")


def _drop(cluster: Cluster, name: str) -> None:
    futures = cluster.admin.delete_topics([name], request_timeout=REQUEST_TIMEOUT_S)
    try:
        cluster.wait(futures[name], f"topic {name!r}")
    except CliError as error:
        # Some peers cannot delete; the figures stand.
        output.warn(f"could not delete the topic of the benchmark: {error}")


def leader(cluster: Cluster, partition: TopicPartition) -> tuple[str, int]:
    """Where the leader of a partition listens."""
    found = cluster.topic(partition.topic).partitions[partition.partition]
    broker = cluster.metadata.brokers.get(found.leader)
    if broker is None:
        raise CliError(f"{partition} has no leader")
    return broker.host, broker.port
