"""Which replicas go where: as few moves as will do, racks used evenly, load and leaders balanced (pure).

A partition's first replica is its preferred leader. Nodes of one rack that hold a partition together are a
*crowd*; the number of such pairs is what the plan keeps small. Nodes without a rack are of one rack together,
as in the placement of new topics.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from ottla.types import TopicPartition

Assignment = Mapping[TopicPartition, Sequence[int]]
Step = tuple[int, int, TopicPartition]


class PlanError(ValueError):
    """There is no such plan; the message says why."""


def plan(
    current: Assignment,
    racks: Mapping[int, str | None],
    *,
    replication_factor: int | None = None,
    balance: bool = True,
    allow_fewer: bool = False,
    keep: Collection[int] = (),
    others: Mapping[int, int] | None = None,
) -> dict[TopicPartition, tuple[int, ...]]:
    """The new replicas of those partitions of ``current`` that are to change.

    ``racks`` are the nodes that may hold replicas, and where they stand. With ``balance`` the partitions are
    spread evenly over them, else only what is elsewhere comes to them. ``others`` counts the replicas that
    each node holds of partitions that are not planned. Nodes of ``keep`` keep what they have, and
    get nothing. With ``allow_fewer`` a partition has no more replicas than there are nodes for it. PlanError
    where nodes are too few.
    """
    assert not (balance and keep), "what is to be even cannot stay"
    board = _Board(racks, keep, others or {})
    for partition in sorted(current):
        factor = len(current[partition]) if replication_factor is None else replication_factor
        room = len(racks) + len(set(current[partition]) & set(keep) - racks.keys())
        if factor > room and allow_fewer and room:
            factor = room
        if factor > room:
            raise PlanError(
                f"{partition} is to have {factor} replicas, and there "
                f"{'is 1 node' if room == 1 else f'are {room} nodes'} to hold them"
            )
        board.add(partition, current[partition], factor)
    for partition in board.replicas:
        board.trim(partition)
    for partition in board.replicas:
        board.fill(partition)
    if balance:
        for partition in board.replicas:
            board.spread(partition)
        board.even_out()
        board.even_out_leaders()
    return {
        partition: tuple(replicas)
        for partition, replicas in board.replicas.items()
        if tuple(replicas) != tuple(current[partition])
    }


def copies(current: Assignment, planned: Assignment) -> int:
    """How many replicas a plan has copied to nodes that do not have them."""
    return sum(len(set(replicas) - set(current[partition])) for partition, replicas in planned.items())


class _Board:
    """The partitions as they stand while the plan is made, and what each node has of them."""

    def __init__(
        self, racks: Mapping[int, str | None], keep: Collection[int], others: Mapping[int, int]
    ) -> None:
        self.racks = {node: racks.get(node) for node in sorted({*racks, *keep})}
        self._takers = sorted(racks)
        self.replicas: dict[TopicPartition, list[int]] = {}
        self._others = others
        self._factor: dict[TopicPartition, int] = {}
        # What each node holds, by topic; the inner dicts serve as ordered sets.
        self._held: dict[int, dict[str, dict[TopicPartition, None]]] = {node: {} for node in self.racks}
        self._load = dict.fromkeys(self.racks, 0)
        self._led: dict[int, dict[TopicPartition, None]] = {node: {} for node in self.racks}

    # -- bookkeeping --------------------------------------------------------------------------------------

    def add(self, partition: TopicPartition, replicas: Sequence[int], factor: int) -> None:
        """A partition, as far as it is on nodes that may hold it. Its leader, if it goes, is another replica
        that has the data."""
        kept = [node for node in replicas if node in self.racks]
        self.replicas[partition] = kept
        self._factor[partition] = factor
        for node in kept:
            self._hold(node, partition)
        if kept:
            first = kept[0]
            if replicas[0] != first:
                first = min(
                    kept,
                    key=lambda node: (node not in self._takers, len(self._led[node]), kept.index(node)),
                )
                kept.remove(first)
                kept.insert(0, first)
            self._led[first][partition] = None

    def _hold(self, node: int, partition: TopicPartition) -> None:
        self._held[node].setdefault(partition.topic, {})[partition] = None
        self._load[node] += 1

    def _drop(self, node: int, partition: TopicPartition) -> None:
        del self._held[node][partition.topic][partition]
        self._load[node] -= 1

    def _of_topic(self, node: int, topic: str) -> int:
        return len(self._held[node].get(topic, ()))

    def _crowd(self, replicas: Iterable[int], rack: str | None) -> int:
        """How many of the replicas are in a rack."""
        return sum(self.racks[node] == rack for node in replicas)

    def _cost(self, node: int, partition: TopicPartition, replicas: Iterable[int]) -> tuple[int, ...]:
        """How little it suits that the node takes a replica, where the others are ``replicas``."""
        return (
            self._crowd(replicas, self.racks[node]),
            self._load[node],
            self._of_topic(node, partition.topic),
            self._others.get(node, 0),
            node,
        )

    def _move(self, partition: TopicPartition, old: int, new: int) -> None:
        """Give a replica to another node, in the same place of the list."""
        replicas = self.replicas[partition]
        position = replicas.index(old)
        replicas[position] = new
        self._drop(old, partition)
        self._hold(new, partition)
        if position == 0:
            del self._led[old][partition]
            self._led[new][partition] = None

    # -- each partition -----------------------------------------------------------------------------------

    def trim(self, partition: TopicPartition) -> None:
        """Drop what is more than the replicas wanted: of the fullest rack and node, the leader last."""
        replicas = self.replicas[partition]
        while len(replicas) > self._factor[partition]:
            victim = max(
                replicas[1:],
                key=lambda node: (self._crowd(replicas, self.racks[node]), self._load[node], node),
            )
            replicas.remove(victim)
            self._drop(victim, partition)

    def fill(self, partition: TopicPartition) -> None:
        """Add what is missing, each where it suits best."""
        replicas = self.replicas[partition]
        while len(replicas) < self._factor[partition]:
            free = (node for node in self._takers if node not in replicas)
            node = min(free, key=lambda node: self._cost(node, partition, replicas))
            replicas.append(node)
            self._hold(node, partition)
            if len(replicas) == 1:
                self._led[node][partition] = None

    def spread(self, partition: TopicPartition) -> None:
        """Move replicas out of crowded racks as long as another rack has more room."""
        replicas = self.replicas[partition]
        while True:
            old = max(
                replicas,
                key=lambda node: (self._crowd(replicas, self.racks[node]), self._load[node], node),
            )
            rest = [node for node in replicas if node != old]
            free = [node for node in self.racks if node not in replicas]
            if not free:
                return
            new = min(free, key=lambda node: self._cost(node, partition, rest))
            if self._crowd(rest, self.racks[new]) >= self._crowd(rest, self.racks[old]):
                return
            self._move(partition, old, new)

    # -- all of them --------------------------------------------------------------------------------------

    def even_out(self) -> None:
        """Move replicas until no node holds two more than another, as far as racks allow."""
        _even_out(list(self.racks), self._load.__getitem__, self._replica_step, self._take_replica)

    def _replica_step(self, old: int, new: int) -> Step | None:
        """A replica that ``old`` can give to ``new`` without crowding a rack more.

        Of the topic of which the one has most more than the other, and rather not a leader.
        """
        topics = sorted(
            self._held[old], key=lambda topic: self._of_topic(new, topic) - self._of_topic(old, topic)
        )
        same_rack = self.racks[old] == self.racks[new]
        for topic in topics:
            leading = None
            for partition in self._held[old][topic]:
                replicas = self.replicas[partition]
                if new in replicas:
                    continue
                if not same_rack:
                    rest = [node for node in replicas if node != old]
                    if self._crowd(rest, self.racks[new]) > self._crowd(rest, self.racks[old]):
                        continue
                if replicas[0] != old:
                    return old, new, partition
                leading = leading or partition
            if leading is not None:
                return old, new, leading
        return None

    def _take_replica(self, step: Step) -> None:
        old, new, partition = step
        self._move(partition, old, new)

    def even_out_leaders(self) -> None:
        """Put other replicas first until no node leads two more than another, as far as replicas allow."""
        _even_out(list(self.racks), lambda node: len(self._led[node]), self._leader_step, self._take_leader)

    def _leader_step(self, old: int, new: int) -> Step | None:
        shared = (partition for partition in self._led[old] if new in self.replicas[partition])
        partition = next(shared, None)
        return None if partition is None else (old, new, partition)

    def _take_leader(self, step: Step) -> None:
        old, new, partition = step
        replicas = self.replicas[partition]
        replicas.remove(new)
        replicas.insert(0, new)
        del self._led[old][partition]
        self._led[new][partition] = None


def _even_out(
    nodes: Sequence[int],
    load: Callable[[int], int],
    step: Callable[[int, int], Step | None],
    take: Callable[[Step], None],
) -> None:
    """Pass things from the fullest node to emptier ones, over others where there is no direct way.

    Each round lowers the sum of the squares of loads, so there is an end.
    """
    stuck: set[int] = set()
    while True:
        full = max(
            (node for node in nodes if node not in stuck), key=lambda node: (load(node), -node), default=None
        )
        if full is None:
            return
        path = _path(full, nodes, load, step)
        if path is None:
            stuck.add(full)
            continue
        for one in path:
            take(one)


def _path(
    full: int,
    nodes: Sequence[int],
    load: Callable[[int], int],
    step: Callable[[int, int], Step | None],
) -> list[Step] | None:
    """The shortest way from a node to one that has two less at least; None where there is none.

    Of the nodes equally far the emptiest is taken. Each step is of another partition.
    """
    goal = load(full) - 2
    came: dict[int, list[Step]] = {full: []}
    queue = deque([full])
    by_load = sorted(nodes, key=lambda node: (load(node), node))
    if load(by_load[0]) > goal:
        return None
    while queue:
        at = queue.popleft()
        for to in by_load:
            if to in came:
                continue
            found = step(at, to)
            if found is None or any(found[2] == before[2] for before in came[at]):
                continue
            came[to] = [*came[at], found]
            if load(to) <= goal:
                return came[to]
            queue.append(to)
    return None
