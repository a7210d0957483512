"""Carries a schedule out: strikes nodes and programs, and ends what lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product

from ottla.explore.real.processes import Program
from ottla.explore.real.schedule import FROM_ALL, FROM_CLIENTS, FROM_NODES, Strike
from ottla.explore.real.target import Node, Target

Undo = Callable[[], None]
# What is to end, and how.
Ending = tuple[tuple[str, ...], Undo]


class NotNow(Exception):
    """A strike has no meaning at this moment, and this is why."""


@dataclass(frozen=True, slots=True)
class Lasting:
    """Something that is to end. ``key``: what lasts of whom; the same twice at a time has no meaning."""

    key: tuple[str, ...]
    end_s: float
    undo: Undo


class Striking:
    """``strike``, and ``look`` now and then: what is due ends. ``end_all`` ends whatever lasts."""

    def __init__(self, target: Target, programs: Mapping[str, Program], tell: Callable[[str], None]) -> None:
        self._target = target
        self._programs = programs
        self._tell = tell
        self._lasting: list[Lasting] = []
        # How often each kind has been carried out.
        self.counts: dict[str, int] = {}

    def strike(self, strike: Strike, now_s: float) -> None:
        """Carry it out, if that has a meaning now."""
        try:
            for key, undo in STRIKES[strike.kind](self, strike):
                self._lasting.append(Lasting(key, now_s + strike.lasts_s, undo))
        except NotNow as why:
            self._tell(f"({strike}: not done, {why})")
        else:
            self.counts[strike.kind] = self.counts.get(strike.kind, 0) + 1
            self._tell(f"{strike}")

    def look(self, now_s: float) -> None:
        """End what is due."""
        due = [one for one in self._lasting if one.end_s <= now_s]
        self._lasting = [one for one in self._lasting if one.end_s > now_s]
        for one in due:
            one.undo()

    def end_all(self) -> None:
        """End whatever lasts: nodes and programs that are down start, what is cut is healed."""
        lasting, self._lasting = self._lasting, []
        # A node that starts is to reach the store.
        for one in sorted(lasting, key=lambda one: one.key[0] == "down"):
            one.undo()

    # ------------------------------------------------------------ nodes

    def kill(self, strike: Strike) -> Iterator[Ending]:
        """A node ends as by SIGKILL, or several do."""
        up = [name for name in strike.on if self._node(name).running]
        if not up:
            raise NotNow("down already")
        for name in up:
            self._target.kill(_id(name))
            yield ("down", name), partial(self._start, name)

    def restart(self, strike: Strike) -> Iterator[Ending]:
        """A node is told to stop, and is started again."""
        (name,) = strike.on
        if not self._node(name).running:
            raise NotNow("down already")
        if self._lasts("cut", name):
            raise NotNow("it could not hand over what it leads, since it is cut off")
        self._target.stop(_id(name))
        yield ("down", name), partial(self._start, name)

    def _start(self, name: str) -> None:
        if not self._node(name).running:
            # It needs the store to start.
            self._target.heal(_id(name))
            self._target.start(_id(name))
            self._tell(f"{name} starts")

    def break_connections(self, strike: Strike) -> Iterator[Ending]:
        """All connections of a node are reset."""
        self._target.disconnect(_id(self._up(strike)))
        return iter(())

    def isolate(self, strike: Strike) -> Iterator[Ending]:
        """A node is cut off from the other nodes and the store, from clients, or from all of them."""
        name = self._up(strike)
        if strike.cut_off != FROM_CLIENTS:
            yield self._isolated(name)
        if strike.cut_off != FROM_NODES:
            # What a client asks is neither done nor answered.
            yield ("clients", name), self._node(name).faults.drop(None).end
        if strike.cut_off == FROM_ALL:
            self._target.disconnect(_id(name))

    def pause(self, strike: Strike) -> Iterator[Ending]:
        """A node does nothing for other nodes and the store, and is as late for clients as it lasts."""
        name = self._up(strike)
        yield self._isolated(name)
        yield ("slow", name), self._node(name).faults.delay(None, strike.lasts_s * 1000).end

    def _isolated(self, name: str) -> Ending:
        if self._lasts("cut", name):
            raise NotNow("cut off already")
        self._target.isolate(_id(name))
        return ("cut", name), partial(self._target.heal, _id(name))

    def split(self, strike: Strike) -> Iterator[Ending]:
        """The nodes are in two parts that do not see each other; all see the store."""
        for pair in product(strike.on, strike.others):
            one, other = sorted(pair)
            if not self._lasts("link", one, other):
                self._target.cut(_id(one), _id(other))
                yield ("link", one, other), partial(self._target.heal, _id(one), _id(other))

    def slow_link(self, strike: Strike) -> Iterator[Ending]:
        """Each request of a client to a node takes longer."""
        name = self._up(strike)
        yield ("slow", name), self._node(name).faults.delay(None, strike.delay_ms).end

    def lose(self, strike: Strike) -> Iterator[Ending]:
        """A node does what a client asks, and the answer is lost with the connection."""
        name = self._up(strike)
        rule = self._node(name).faults.drop(strike.api, after=True, times=strike.times)
        yield ("lose", name), rule.end

    def errors(self, strike: Strike) -> Iterator[Ending]:
        """A node answers with an error that a client asks again after."""
        name = self._up(strike)
        rule = self._node(name).faults.fail(strike.api, strike.error, times=strike.times)
        yield ("errors", name), rule.end

    # ------------------------------------------------------------ programs

    def kill_program(self, strike: Strike) -> Iterator[Ending]:
        """A program ends as by SIGKILL, and is started again."""
        program = self._program(strike)
        program.kill()
        yield ("down", program.name), program.start

    def pause_program(self, strike: Strike) -> Iterator[Ending]:
        """A program stands still, perhaps for longer than its session lasts."""
        program = self._program(strike)
        if self._lasts("paused", program.name):
            raise NotNow("paused already")
        program.pause()
        yield ("paused", program.name), program.resume

    # ------------------------------------------------------------ whom

    def _node(self, name: str) -> Node:
        return self._target.nodes[_id(name)]

    def _up(self, strike: Strike) -> str:
        (name,) = strike.on
        if not self._node(name).running:
            raise NotNow("the node is down")
        return name

    def _program(self, strike: Strike) -> Program:
        program = self._programs[strike.on[0]]
        if not program.running:
            raise NotNow("it has ended" if program.done else "it is down")
        return program

    def _lasts(self, *key: str) -> bool:
        return any(one.key == key for one in self._lasting)


def _id(name: str) -> int:
    """The id of node ``n2``."""
    return int(name[1:])


STRIKES: Mapping[str, Callable[[Striking, Strike], Iterator[Ending]]] = {
    "kill": Striking.kill,
    "kill-many": Striking.kill,
    "pause": Striking.pause,
    "restart": Striking.restart,
    "isolate": Striking.isolate,
    "split": Striking.split,
    "slow-link": Striking.slow_link,
    "break": Striking.break_connections,
    "lose": Striking.lose,
    "errors": Striking.errors,
    "program-kill": Striking.kill_program,
    "program-pause": Striking.pause_program,
}
