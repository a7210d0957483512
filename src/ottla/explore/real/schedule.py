"""What is to strike in real time, and when: drawn from the seed before the run begins, as data.

The same seed, faults, nodes and programs give the same schedule, and a longer run begins as a shorter one.
What becomes of a strike (`striking`) is of the run: a node that is down already cannot be killed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from ottla.explore.faults.choice import Faults, weights_of

# What is said of a fault that is none here.
IN_REAL_TIME = " in real time"
# Seconds between two faults, on average, in the calmest and in the wildest run.
INTERVALS_S = (0.4, 0.8, 1.6)
# How long what is down or cut off may be so, at most, and a program that is paused.
DOWN_S = (0.3, 1.0, 3.0)
PAUSED_S = (0.3, 1.5, 8.0)
LEAST_S = 0.05
# Requests of clients wait so long where a link is slow.
SLOW_MS = (20, 100, 400)
# From whom a node is cut off.
FROM_NODES, FROM_CLIENTS, FROM_ALL = "from nodes", "from clients", "from all"
# What a client may be answered at any time, and asks again after.
ERRORS = (
    ("Produce", "NOT_LEADER_OR_FOLLOWER"),
    ("Produce", "NOT_ENOUGH_REPLICAS"),
    ("Fetch", "NOT_LEADER_OR_FOLLOWER"),
    ("FindCoordinator", "COORDINATOR_NOT_AVAILABLE"),
    ("JoinGroup", "COORDINATOR_LOAD_IN_PROGRESS"),
    ("Heartbeat", "NOT_COORDINATOR"),
    ("OffsetCommit", "COORDINATOR_LOAD_IN_PROGRESS"),
)
# Whose answers get lost after the request was executed.
LOST = ("Produce", "OffsetCommit", "Fetch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """One fault: at which second of the run, what, whom, for how long, and what else its kind has."""

    at_s: float
    kind: str
    # Names of nodes (``n1``), or of one program.
    on: tuple[str, ...]
    # 0: it is over at once.
    lasts_s: float = 0.0
    # isolate: from whom. lose, errors: the API. errors: its answer.
    cut_off: str = ""
    api: str = ""
    error: str = ""
    # split: the nodes on the other side.
    others: tuple[str, ...] = ()
    # slow-link: how long each request waits.
    delay_ms: int = 0
    # lose, errors: so many requests.
    times: int = 0

    def __str__(self) -> str:
        details = [
            " and ".join(self.on),
            f"from {' and '.join(self.others)}" if self.others else "",
            self.cut_off,
            f"by {self.delay_ms} ms" if self.delay_ms else "",
            f"({self.api} {self.error or 'without answer'}, {self.times} times)" if self.api else "",
            f"for {self.lasts_s:.1f} s" if self.lasts_s else "",
        ]
        return " ".join([self.kind, *filter(None, details)])


class Drawing:
    """The draws of one run, in their order."""

    def __init__(self, rng: Random, nodes: Sequence[str], programs: Sequence[str]) -> None:
        self.rng = rng
        self.nodes = nodes
        self.programs = programs

    def node(self) -> tuple[str, ...]:
        return (self.rng.choice(self.nodes),)

    def program(self) -> tuple[str, ...]:
        return (self.rng.choice(self.programs),)

    def lasts(self, most_s: Sequence[float]) -> float:
        return round(self.rng.uniform(LEAST_S, self.rng.choice(most_s)), 3)


def _node(draw: Drawing) -> dict[str, Any]:
    return {"on": draw.node(), "lasts_s": draw.lasts(DOWN_S)}


def _nodes(draw: Drawing) -> dict[str, Any]:
    count = draw.rng.randint(1, len(draw.nodes))
    return {"on": tuple(sorted(draw.rng.sample(draw.nodes, count))), "lasts_s": draw.lasts(DOWN_S)}


def _break(draw: Drawing) -> dict[str, Any]:
    return {"on": draw.node()}


def _isolate(draw: Drawing) -> dict[str, Any]:
    # A node by itself has nobody else.
    cut_off = draw.rng.choice((FROM_NODES, FROM_CLIENTS, FROM_ALL)) if len(draw.nodes) > 1 else FROM_CLIENTS
    return _node(draw) | {"cut_off": cut_off}


def _split(draw: Drawing) -> dict[str, Any]:
    nodes = draw.rng.sample(draw.nodes, len(draw.nodes))
    size = draw.rng.randint(1, len(nodes) - 1)
    sides = {"on": tuple(sorted(nodes[:size])), "others": tuple(sorted(nodes[size:]))}
    return sides | {"lasts_s": draw.lasts(DOWN_S)}


def _slow(draw: Drawing) -> dict[str, Any]:
    return _node(draw) | {"delay_ms": draw.rng.choice(SLOW_MS)}


def _lose(draw: Drawing) -> dict[str, Any]:
    return _node(draw) | {"api": draw.rng.choice(LOST), "times": draw.rng.randint(1, 3)}


def _errors(draw: Drawing) -> dict[str, Any]:
    api, error = draw.rng.choice(ERRORS)
    return _node(draw) | {"api": api, "error": error, "times": draw.rng.randint(1, 5)}


def _program(draw: Drawing) -> dict[str, Any]:
    return {"on": draw.program(), "lasts_s": draw.lasts(DOWN_S)}


def _paused_program(draw: Drawing) -> dict[str, Any]:
    return {"on": draw.program(), "lasts_s": draw.lasts(PAUSED_S)}


# Those that have a meaning in real time. `errors` is the only one that simulated worlds do not have.
NODE_KINDS: Mapping[str, Callable[[Drawing], dict[str, Any]]] = {
    "kill": _node,
    "kill-many": _nodes,
    "pause": _node,
    "restart": _node,
    "isolate": _isolate,
    "split": _split,
    "slow-link": _slow,
    "break": _break,
    "lose": _lose,
    "errors": _errors,
}
PROGRAM_KINDS: Mapping[str, Callable[[Drawing], dict[str, Any]]] = {
    "program-kill": _program,
    "program-pause": _paused_program,
}
KINDS = {**NODE_KINDS, **PROGRAM_KINDS}


class Schedule:
    """All that one seed has in store. ``faults`` as for `ottla.explore.explore_real`.

    ValueError for a fault that has no meaning in real time: the message has those that have one.
    """

    def __init__(self, seed: int, faults: Faults, nodes: Sequence[str]) -> None:
        self._seed = seed
        self._nodes = tuple(nodes)
        rng = Random(f"{seed}/mixture")
        chosen = weights_of(faults, KINDS, IN_REAL_TIME)
        names = [name for name in KINDS if rng.random() < 0.6] or list(KINDS)
        self.weights = dict.fromkeys(names, 1.0) if chosen is None else dict(chosen)
        self.interval_s = rng.choice(INTERVALS_S)

    def strikes(self, number: int, seconds: float, programs: Sequence[str]) -> list[Strike]:
        """The strikes of run ``number`` of a world, of so many seconds, on these programs and the nodes."""
        drawn = Drawing(Random(f"{self._seed}/run {number}"), self._nodes, tuple(programs))
        names = [
            name for name, weight in self.weights.items() if weight > 0 and self._strikes(name, programs)
        ]
        weights = [self.weights[name] for name in names]
        found: list[Strike] = []
        at_s = 0.0
        while names:
            at_s = round(at_s + drawn.rng.expovariate(1) * self.interval_s, 3)
            if at_s >= seconds:
                break
            (kind,) = drawn.rng.choices(names, weights)
            found.append(Strike(at_s=at_s, kind=kind, **KINDS[kind](drawn)))
        return found

    def _strikes(self, name: str, programs: Sequence[str]) -> bool:
        if name in PROGRAM_KINDS:
            return bool(programs)
        return name != "split" or len(self._nodes) > 1
