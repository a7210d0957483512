"""Exactly once with real processes: a pipeline whose brokers and workers are killed, halted, started again.

What it reads, what it writes and how far it has come move together or not at all, so its output holds each
record of the input once. OTTLA_CRASH_SEED repeats a run's choices, though not its timing; `make soak` does
more than sixty things to each.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from cluster_support import Cluster, running
from exactly_once.pipeline import BROKER_SETTINGS, PARTITIONS, Pipeline

from interop.process import BrokerProcess
from interop.raw import RawClient

SOAK = bool(os.environ.get("OTTLA_SOAK"))
Step = Callable[[], None]


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("OTTLA_CRASH_SEED") or random.getrandbits(32))
    print(f"OTTLA_CRASH_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    settings = {
        **BROKER_SETTINGS,
        "transaction.state.log.replication.factor": "3",
        "min.insync.replicas": "2",
    }
    with running(tmp_path / "cluster", settings) as made:
        yield made


def kill_broker(pipeline: Pipeline, chance: random.Random, choose: Callable[[], BrokerProcess]) -> None:
    """SIGKILL at some moment, and a start; now and then it is killed while it starts, too."""
    time.sleep(chance.uniform(0, 0.7))
    broker = choose()
    broker.kill()
    while chance.random() < 0.2:
        broker.spawn()
        time.sleep(chance.uniform(0.05, 0.8))
        broker.kill()
    broker.start()


def kill_worker(pipeline: Pipeline, chance: random.Random) -> None:
    time.sleep(chance.uniform(0, 0.3))
    pipeline.kill(chance.choice(pipeline.names))


def kill_both(pipeline: Pipeline, chance: random.Random, choose: Callable[[], BrokerProcess]) -> None:
    kill_worker(pipeline, chance)
    kill_broker(pipeline, chance, choose)


def steps(pipeline: Pipeline, chance: random.Random, choose: Callable[[], BrokerProcess]) -> list[Step]:
    """What is done to it: some of everything, in any order."""
    some: list[Step] = [
        *[partial(kill_broker, pipeline, chance, choose)] * 3,
        partial(kill_both, pipeline, chance, choose),
        *[partial(kill_worker, pipeline, chance)] * 2,
    ]
    some *= 10 if SOAK else 1
    for replaced in (True, False) * (3 if SOAK else 1):
        some.append(partial(pipeline.zombie, chance.choice(pipeline.names), replaced=replaced))
    chance.shuffle(some)
    return some


@pytest.mark.timeout(1800 if SOAK else 300)
def test_on_one_node(
    ottla_process: Callable[..., BrokerProcess], chance: random.Random, tmp_path: Path
) -> None:
    broker = ottla_process(BROKER_SETTINGS)

    def create(topic: str) -> None:
        with RawClient(broker.bootstrap) as client:
            assert client.create_topic(topic, PARTITIONS).error_code == 0

    pipeline = Pipeline(tmp_path, [broker])
    try:
        print(pipeline.run(steps(pipeline, chance, lambda: broker), create))
    finally:
        pipeline.close()


@pytest.mark.skipif(shutil.which("etcd") is None, reason="there is no etcd")
@pytest.mark.timeout(1800 if SOAK else 300)
def test_on_three_nodes(cluster: Cluster, chance: random.Random, tmp_path: Path) -> None:
    led = ("__transaction_state", "__consumer_offsets", "output")

    def choose() -> BrokerProcess:
        """Who coordinates transactions, the group, or leads what they write to."""
        leader = cluster.leader(chance.choice(led), chance.randrange(3))
        return cluster.nodes[leader if leader != -1 else chance.choice(list(cluster.nodes))]

    pipeline = Pipeline(tmp_path, list(cluster.nodes.values()))
    try:
        print(
            pipeline.run(
                steps(pipeline, chance, choose), lambda topic: cluster.create(topic, partitions=PARTITIONS)
            )
        )
    finally:
        pipeline.close()
