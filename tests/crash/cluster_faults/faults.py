"""The faults that a cluster has to survive, as docs/FAULTS-IN-DETAIL.md states them ("A cluster").

Each does its harm, waits, and takes it back: at its end every process runs and every way is free. It does not
wait for the cluster to be well again, so that the next one may find it still at work; only a disk is lost
where the other copies are known to be whole, and then it is waited for.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cluster_faults.machines import CLIENTS, NODES, Cluster, Node

OFFSETS = "__consumer_offsets"
WELL_TIMEOUT_S = 60.0
# How soon a node that was cut off or paused has heard what it is now.
DOUBTFUL_S = 3.0
# How often a client dies in the middle of a fault.
CLIENT_DIES = 0.3


@dataclass(slots=True)
class Stage:
    """Where faults happen. ``session_s`` is the time after which a silent node is taken for dead."""

    cluster: Cluster
    chance: random.Random
    session_s: float
    topics: dict[str, int]
    groups: tuple[str, ...]
    # Called in the middle of some faults: a client dies.
    kill_client: Callable[[], None]
    # (when, what), of the monotonic clock.
    timeline: list[tuple[float, str]] = field(default_factory=list)
    # While a node may believe that it still is what it was: cut off or paused, and a little longer.
    doubtful: list[tuple[float, float]] = field(default_factory=list)

    def say(self, what: str) -> None:
        self.timeline.append((time.monotonic(), what))

    def sleep(self, least_s: float, most_s: float) -> None:
        length_s = self.chance.uniform(least_s, most_s)
        if length_s > 0.5 and self.chance.random() < CLIENT_DIES:
            time.sleep(length_s / 2)
            self.kill_client()
            length_s /= 2
        time.sleep(length_s)

    # Whom to harm

    def node(self) -> Node:
        return self.cluster.nodes[self.chance.choice(NODES)]

    def leader(self) -> Node:
        """The leader of some partition."""
        topic = self.chance.choice(sorted(self.topics))
        return self._leads(topic, self.chance.randrange(self.topics[topic]))

    def controller(self) -> Node:
        found = self.cluster.controller()
        return self.node() if found is None else self.cluster.nodes[found]

    def coordinator(self) -> Node:
        """The coordinator of some group."""
        group = self.chance.choice(self.groups)
        count = sum(1 for topic, _ in self.cluster.partitions() if topic == OFFSETS)
        return self._leads(OFFSETS, java_hash(group) % count) if count else self.node()

    def victim(self) -> Node:
        return self.chance.choice((self.node, self.leader, self.controller, self.coordinator))()

    def _leads(self, topic: str, partition: int) -> Node:
        state = self.cluster.partitions().get((topic, partition), {"leader": -1})
        return self.cluster.nodes.get(state["leader"]) or self.node()

    # Taking it back

    @contextmanager
    def down(self, *nodes: Node) -> Iterator[None]:
        """SIGKILL, all at once as nearly as can be; started again at the end."""
        for node in nodes:
            self.say(f"SIGKILL to node {node.node_id}")
            node.kill()
        yield
        for node in nodes:
            self.say(f"node {node.node_id} is started")
            node.spawn()
        for node in nodes:
            node.wait_ready()

    @contextmanager
    def paused(self, node: Node) -> Iterator[None]:
        self.say(f"SIGSTOP to node {node.node_id}")
        node.pause()
        begun = time.monotonic()
        yield
        node.resume()
        self.say(f"SIGCONT to node {node.node_id}")
        self.doubtful.append((begun, time.monotonic() + DOUBTFUL_S))

    @contextmanager
    def cut(self, ways: list[tuple[str, str]], *, both: bool = True) -> Iterator[None]:
        network = self.cluster.network
        assert network is not None
        self.say("cut: " + ", ".join(f"{a} {'<->' if both else '->'} {b}" for a, b in ways))
        for source, target in ways:
            network.cut(source, target, both=both)
        begun = time.monotonic()
        yield
        network.mend()
        self.say("all ways are free")
        self.doubtful.append((begun, time.monotonic() + DOUBTFUL_S))


def java_hash(text: str) -> int:
    """As Kafka maps groups to partitions: String.hashCode without its sign."""
    value = 0
    for character in text:
        value = (value * 31 + ord(character)) & 0xFFFFFFFF
    value = value - (1 << 32) if value >= 1 << 31 else value
    return abs(value) if value != -(1 << 31) else 0


# ------------------------------------------------------------ processes


def kill_leader(stage: Stage) -> None:
    with stage.down(stage.leader()):
        stage.sleep(0.0, 3.0)


def kill_controller(stage: Stage) -> None:
    with stage.down(stage.controller()):
        stage.sleep(0.0, 3.0)


def kill_coordinator(stage: Stage) -> None:
    with stage.down(stage.coordinator()):
        stage.sleep(0.0, 3.0)


def kill_one_while_it_starts(stage: Stage) -> None:
    node = stage.victim()
    with stage.down(node):
        for _ in range(2):
            stage.sleep(0.0, 0.5)
            node.spawn()
            stage.sleep(0.1, 0.8)
            stage.say(f"SIGKILL to node {node.node_id}, which is starting")
            node.kill()


def kill_two(stage: Stage) -> None:
    first = stage.leader()
    with stage.down(first, stage.chance.choice([n for n in stage.cluster.nodes.values() if n is not first])):
        stage.sleep(0.0, 2.0)


def kill_one_after_the_other(stage: Stage) -> None:
    """Down to the last, so that its records are the only ones that have all: it comes back first or last."""
    nodes = list(stage.cluster.nodes.values())
    stage.chance.shuffle(nodes)
    for node in nodes:
        stage.say(f"SIGKILL to node {node.node_id}")
        node.kill()
        stage.sleep(0.2, 1.2)
    stage.chance.shuffle(nodes)
    for node in nodes:
        stage.say(f"node {node.node_id} is started")
        node.spawn()
        stage.sleep(0.0, 1.0)
    for node in nodes:
        node.wait_ready()


def kill_all(stage: Stage) -> None:
    with stage.down(*stage.cluster.nodes.values()):
        stage.sleep(0.0, 1.0)


def pause_shortly(stage: Stage) -> None:
    with stage.paused(stage.victim()):
        stage.sleep(0.3, 0.6 * stage.session_s)


def pause_leader_beyond_its_session(stage: Stage) -> None:
    with stage.paused(stage.leader()):
        stage.sleep(stage.session_s + 0.5, stage.session_s + 2)


def pause_controller_beyond_its_session(stage: Stage) -> None:
    with stage.paused(stage.controller()):
        stage.sleep(stage.session_s + 0.5, stage.session_s + 2)


def wipe(stage: Stage) -> None:
    stage.cluster.wait_well(WELL_TIMEOUT_S)
    node = stage.victim()
    stage.say(f"SIGKILL to node {node.node_id}, and its disk is lost")
    node.kill()
    node.wipe()
    stage.sleep(0.0, 2.0)
    node.spawn()
    node.wait_ready()
    stage.say(f"node {node.node_id} is started with an empty disk")
    stage.cluster.wait_well(WELL_TIMEOUT_S)


def stop_and_start(stage: Stage) -> None:
    _restart(stage, stage.victim())


def restart_in_turn(stage: Stage) -> None:
    """A rolling restart, as for a new version: each waits for the one before to be in sync again."""
    for node in stage.cluster.nodes.values():
        stage.cluster.wait_well(WELL_TIMEOUT_S)
        _restart(stage, node)


def _restart(stage: Stage, node: Node) -> None:
    stage.say(f"SIGTERM to node {node.node_id}")
    node.terminate()
    node.wait_stopped()
    stage.say(f"node {node.node_id} has stopped, and is started")
    node.spawn()
    node.wait_ready()


# ------------------------------------------------------------ the network


def _machine(node: Node) -> str:
    return f"node-{node.node_id}"


def _others(node: Node) -> list[str]:
    return [f"node-{other}" for other in NODES if other != node.node_id]


_ETCD = [f"etcd-{index}" for index in range(3)]


def _from(node: Node, others: list[str]) -> list[tuple[str, str]]:
    return [(_machine(node), other) for other in others]


def cut_off(stage: Stage) -> None:
    """From everybody."""
    node = stage.victim()
    with stage.cut(_from(node, [*_others(node), *_ETCD, CLIENTS])):
        stage.sleep(1.0, stage.session_s + 3)


def cut_off_from_nodes_and_etcd(stage: Stage) -> None:
    """Clients still reach it, and it may believe that it leads."""
    node = stage.leader()
    with stage.cut(_from(node, [*_others(node), *_ETCD])):
        stage.sleep(stage.session_s, stage.session_s + 3)


def cut_off_from_nodes(stage: Stage) -> None:
    """Its lease lasts, so it leads, and its followers cannot follow."""
    node = stage.victim()
    with stage.cut(_from(node, _others(node))):
        stage.sleep(1.0, stage.session_s + 3)


def cut_off_from_one_node(stage: Stage) -> None:
    node = stage.victim()
    with stage.cut(_from(node, [stage.chance.choice(_others(node))])):
        stage.sleep(1.0, stage.session_s + 3)


def cut_off_from_etcd(stage: Stage) -> None:
    """Others are elected in its place, and it hears of it from nobody."""
    node = stage.victim()
    with stage.cut(_from(node, _ETCD)):
        stage.sleep(1.0, stage.session_s + 3)


def cut_off_from_clients(stage: Stage) -> None:
    with stage.cut(_from(stage.victim(), [CLIENTS])):
        stage.sleep(0.5, 3.0)


def cut_off_one_way(stage: Stage) -> None:
    """It hears and is not heard, or the other way round."""
    node = stage.victim()
    ways = _from(node, [*_others(node), *stage.chance.choice(([], _ETCD, [*_ETCD, CLIENTS]))])
    if stage.chance.random() < 0.5:
        ways = [(target, source) for source, target in ways]
    with stage.cut(ways, both=False):
        stage.sleep(1.0, stage.session_s + 3)


# ------------------------------------------------------------ etcd


def kill_etcd_member(stage: Stage) -> None:
    _kill_etcd(stage, [stage.chance.randrange(3)], 0.5, 3.0)


def kill_etcd_leader(stage: Stage) -> None:
    _kill_etcd(stage, [stage.cluster.etcd.leader()], 0.5, 3.0)


def etcd_outage(stage: Stage) -> None:
    """All of etcd is gone, for longer than sessions last."""
    _kill_etcd(stage, [0, 1, 2], 1.0, stage.session_s + 2)


def etcd_outage_and_kill(stage: Stage) -> None:
    """A node dies while nobody can be elected in its place."""
    with stage.down(stage.victim()):
        _kill_etcd(stage, [0, 1, 2], 0.5, 3.0)


def _kill_etcd(stage: Stage, members: list[int], least_s: float, most_s: float) -> None:
    etcd = stage.cluster.etcd
    for index in members:
        stage.say(f"SIGKILL to etcd {index}")
        etcd.kill(index)
    stage.sleep(least_s, most_s)
    for index in members:
        etcd.start_member(index, wait=False)
    etcd.wait_healthy()
    stage.say("etcd is whole")


def pause_etcd_member(stage: Stage) -> None:
    etcd = stage.cluster.etcd
    index = etcd.leader() if stage.chance.random() < 0.5 else stage.chance.randrange(3)
    stage.say(f"SIGSTOP to etcd {index}")
    etcd.pause(index)
    stage.sleep(0.5, stage.session_s + 1)
    etcd.resume(index)
    etcd.wait_healthy()
    stage.say("etcd is whole")


def cut_off_etcd_leader(stage: Stage) -> None:
    """From its own kind; nodes still reach it, and it cannot answer."""
    index = stage.cluster.etcd.leader()
    with stage.cut([(f"etcd-{index}", other) for other in _ETCD if other != f"etcd-{index}"]):
        stage.sleep(1.0, stage.session_s + 1)
    stage.cluster.etcd.wait_healthy()


Fault = Callable[[Stage], None]

PROCESS_FAULTS: tuple[Fault, ...] = (
    kill_leader,
    kill_controller,
    kill_coordinator,
    kill_one_while_it_starts,
    kill_two,
    kill_one_after_the_other,
    kill_all,
    pause_shortly,
    pause_leader_beyond_its_session,
    pause_controller_beyond_its_session,
    wipe,
    stop_and_start,
    restart_in_turn,
    kill_etcd_member,
    kill_etcd_leader,
    etcd_outage,
    etcd_outage_and_kill,
    pause_etcd_member,
)
NETWORK_FAULTS: tuple[Fault, ...] = (
    cut_off,
    cut_off_from_nodes_and_etcd,
    cut_off_from_nodes,
    cut_off_from_one_node,
    cut_off_from_etcd,
    cut_off_from_clients,
    cut_off_one_way,
    cut_off_etcd_leader,
)


def plan(chance: random.Random, count: int, *, cuts: bool) -> list[Fault]:
    """So many faults in random order: each kind once at least, where there is room."""
    kinds = [*PROCESS_FAULTS, *(NETWORK_FAULTS if cuts else ())]
    chosen: list[Fault] = []
    while len(chosen) < count:
        chance.shuffle(kinds)
        chosen += kinds
    return chosen[:count]
