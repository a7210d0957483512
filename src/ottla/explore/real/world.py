"""The world of a test in real time: a cluster, users' programs as processes, and faults that strike both."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ottla.explore.decorated import check_program
from ottla.explore.faults.choice import Faults
from ottla.explore.real.processes import Guard, Main, Program
from ottla.explore.real.schedule import Schedule, Strike
from ottla.explore.real.striking import Striking
from ottla.explore.real.target import Looking, Seen, target_of
from ottla.testing.broker import Broker
from ottla.testing.cluster import Cluster
from ottla.testing.contents import StoredRecord
from ottla.text import printable_lines
from ottla.types import TopicPartition

# Nothing happens any more if nothing was written for so long, where groups have members and have read all,
# and where not: a client that could not connect for a while waits for up to 15 s before it tries again.
IDLE_S, IDLE_BEHIND_S = 3.0, 20.0
# Nothing was written for so long where no program runs that could write.
IDLE_ENDED_S = 0.5
SETTLE_S = 180.0
# How often it looks whether something is due.
LOOK_S, SETTLE_LOOK_S = 0.01, 0.1
# Of what has happened, and of what each program has printed, so many lines are shown.
EVENTS_MAX, PRINTED_MAX = 100, 15
NOT_EXACT = (
    "The seed fixes which faults strike whom, and when. It does not fix the timing of programs and nodes: "
    "real time does not repeat exactly, so the test may fail in another way, or pass."
)


class ProgramFailed(AssertionError):
    """A program has ended by an error, and was not to be started again."""


class NotSettled(AssertionError):
    """All faults have ended, and the cluster or a program is not well again in time."""


class RealWorld:
    """What a test under exploration in real time is given. A context manager: all ends with it.

        with RealWorld(seed=1, topics={"orders": 3, "shipped": 3}) as world:
            world.program("shop", ["./shop", world.bootstrap], restarts=True)
            world.run(seconds=10)
            world.settle()
            checks.nothing_lost(world.records("orders"), world.records("shipped"))

    ``cluster``: a `Cluster` or a `Broker` that runs already, and goes on after the world; None: one of
    ``nodes`` nodes for this world. ``faults``: as for `explore_real`. ``folder``: where to keep what programs
    print, each in NAME.out. An exception that leaves the block gets a report as a note.

    ``schedule`` has the strikes of all ``run`` so far, ``events`` what has happened, by seconds.
    """

    def __init__(
        self,
        seed: int,
        *,
        nodes: int = 3,
        topics: Mapping[str, int] | None = None,
        faults: Faults = None,
        config: Mapping[str, str] | None = None,
        cluster: Cluster | Broker | None = None,
        folder: Path | str | None = None,
        repeat: str = "",
    ) -> None:
        """``repeat``: the command that repeats it, for the report."""
        self.seed = seed
        self.cluster = Cluster(nodes, config=config) if cluster is None else cluster
        self.programs: dict[str, Program] = {}
        self.schedule: list[Strike] = []
        self.events: list[tuple[float, str]] = []
        # The programs that faults strike.
        self._struck: list[str] = []
        self._own = cluster is None
        self._topics = dict(topics or {})
        self._folder = None if folder is None else Path(folder)
        self._repeat = repeat
        self._runs = 0
        target = target_of(self.cluster)
        self._schedule = Schedule(seed, faults, [f"n{node_id}" for node_id in target.nodes])
        self._striking = Striking(target, self.programs, self._tell)
        self._begin_s = time.monotonic()
        self._guard: Guard | None = None

    # ------------------------------------------------------------ its life

    def __enter__(self) -> Self:
        try:
            if self._own:
                self.cluster.start()
            there = self.cluster.topics()
            for name, partitions in self._topics.items():
                if name not in there:
                    self.cluster.create_topic(name, partitions)
            self._guard = Guard(self._folder)
        except BaseException:
            self.close()
            raise
        self._begin_s = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None and not isinstance(error, KeyboardInterrupt):
                error.add_note(self.report())
        finally:
            self.close()

    def close(self) -> None:
        """Kill all programs, end all faults, and stop the cluster if it is the world's."""
        try:
            for program in self.programs.values():
                program.close()
        finally:
            guard, self._guard = self._guard, None
            if guard is not None:
                guard.close()
            if self._own and isinstance(self.cluster, Cluster):
                self.cluster.close()
            elif not self._own:
                self._striking.end_all()

    @property
    def bootstrap(self) -> str:
        """The addresses of the nodes, for clients."""
        return self.cluster.bootstrap_servers

    @property
    def now_s(self) -> float:
        """Seconds since the world began."""
        return time.monotonic() - self._begin_s

    # ------------------------------------------------------------ what a test does

    def program(
        self,
        name: str,
        main: Main,
        *arguments: Any,
        restarts: bool = False,
        spared: bool = False,
        environment: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
    ) -> Program:
        """Start a command (a list), or ``main(*arguments)`` in a process of its own, under this name.

        The function is one of a module, or a coroutine function. ``restarts``: start it again if it ends by
        an error, as a service manager would. ``spared``: no fault strikes it. ``environment`` is added to
        that of the test. ValueError: there is such a program, or the name is no plain word. TypeError,
        OSError: it cannot be started.
        """
        if self._guard is None:
            raise RuntimeError("the world has not begun: write `with RealWorld(...) as world:`")
        check_program(name, main)
        if name in self.programs or not re.fullmatch(r"[\w-]+", name):
            raise ValueError(f"a program has a name of its own, of letters and digits, not {name!r}")
        made = Program(
            name,
            main,
            arguments,
            self._guard,
            self._tell,
            restarts=restarts,
            environment=environment,
            cwd=cwd,
        )
        made.start()
        self.programs[name] = made
        if not spared:
            self._struck.append(name)
        return made

    def run(self, seconds: float) -> None:
        """Let time go by while faults strike. ProgramFailed for a program that is not to end by an error."""
        strikes = self._schedule.strikes(self._runs, seconds, self._struck)
        self._runs += 1
        self.schedule += strikes
        begin_s = self.now_s
        for strike in strikes:
            self._wait_until(begin_s + strike.at_s)
            self._striking.strike(strike, self.now_s)
        self._wait_until(begin_s + seconds)

    def settle(
        self,
        *,
        groups: Sequence[str] = (),
        idle_s: float = IDLE_S,
        behind_s: float = IDLE_BEHIND_S,
        timeout_s: float = SETTLE_S,
    ) -> None:
        """End all faults, and wait until all is well and nothing happens any more.

        Every replica is in sync then, programs without ``restarts`` have ended with 0, ``groups`` have
        members, and no group has a dead one. For ``idle_s`` no topic got a record, and no group another
        offset. That is ``behind_s`` where a group has not read all there is, or has no members, or there is
        none: name the groups, so that nobody has to guess whether one is yet to come. NotSettled after
        ``timeout_s``.
        """
        self._tell("all faults end")
        self._striking.end_all()
        for program in self.programs.values():
            program.resume()
            program.start()
        looking = Looking(self.cluster)
        looking.begin()
        try:
            self._until_idle(looking, groups, idle_s, behind_s, timeout_s)
        finally:
            looking.end()

    def records(self, topic: str, *, read_committed: bool = True) -> list[StoredRecord]:
        """What lies in a topic, by partition and offset. KafkaError while a partition has no leader."""
        return self.cluster.records(topic, read_committed=read_committed)

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """The offsets that a group has committed."""
        return self.cluster.committed(group)

    def report(self) -> str:
        """The seed, what was done and when, what programs printed last, and how to do it again."""
        repeat = self._repeat or f"RealWorld(seed={self.seed}, ...) with the same faults and programs"
        left_out = len(self.events) - EVENTS_MAX
        lines = [f"seed {self.seed}, in real time. The same faults again:", f"    {repeat}", NOT_EXACT, ""]
        lines += ["What happened, by seconds:"]
        lines += [f"    ({left_out} earlier events)"] if left_out > 0 else []
        lines += [f"    {at_s:8.3f} {text}" for at_s, text in self.events[-EVENTS_MAX:]]
        for program in self.programs.values():
            lines += ["", f"What {program.name} has printed last:"]
            lines += [f"    {line}" for line in _shown(program)]
        return "\n".join(lines)

    # ------------------------------------------------------------ inside

    def _tell(self, text: str) -> None:
        self.events.append((self.now_s, text))

    def _wait_until(self, until_s: float) -> None:
        """Let time go by, and do what is due meanwhile."""
        while True:
            self._striking.look(self.now_s)
            self._look_at_programs()
            left_s = until_s - self.now_s
            if left_s <= 0:
                return
            time.sleep(min(LOOK_S, left_s))

    def _look_at_programs(self) -> None:
        for program in self.programs.values():
            code = program.look(self.now_s)
            if code is not None:
                said = "\n".join(f"    {line}" for line in _shown(program))
                raise ProgramFailed(
                    f"the program {program.name} ended with {code} after {self.now_s:.1f} s, and is not to "
                    f"be started again (restarts=True). It has printed last:\n{said}"
                )

    def _until_idle(
        self, looking: Looking, groups: Sequence[str], idle_s: float, behind_s: float, timeout_s: float
    ) -> None:
        begin_s = idle_since_s = self.now_s
        before: Seen | None = None
        while True:
            self._wait_until(self.now_s + SETTLE_LOOK_S)
            seen = looking.look()
            waits = self._waits_for(seen, looking, groups)
            if waits or before is None or seen.ends != before.ends:
                idle_since_s = self.now_s
            before = seen
            if all(program.done for program in self.programs.values()):
                needed_s = IDLE_ENDED_S
            else:
                needed_s = idle_s if seen.all_read else behind_s
            if self.now_s - idle_since_s >= needed_s:
                return
            if self.now_s - begin_s > timeout_s:
                why = waits or "records or offsets are still written"
                raise NotSettled(f"after {timeout_s:.0f} s without faults: {why}")

    def _waits_for(self, seen: Seen, looking: Looking, groups: Sequence[str]) -> str:
        """What is not well yet; empty if all is."""
        if seen.out_of_sync:
            return f"not every replica is in sync: {', '.join(seen.out_of_sync)}"
        running = [str(one) for one in self.programs.values() if not one.done and not one.restarts]
        if running:
            return f"these programs have not ended: {', '.join(running)}"
        if missing := set(groups) - {group for group, _ in seen.members}:
            return f"these groups have no members: {', '.join(sorted(missing))}"
        if dead := sorted({group for group, _ in seen.members - looking.heard}):
            return f"these groups have members that nothing is heard of: {', '.join(dead)}"
        return ""


def _shown(program: Program) -> list[str]:
    """What a program has printed last, with nothing in it that changes a terminal."""
    return [line for printed in program.last_lines(PRINTED_MAX) for line in printable_lines(printed)]
