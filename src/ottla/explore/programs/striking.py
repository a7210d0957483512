"""Faults of users' programs, beside those of the cluster: killed, paused, cut off from nodes or from all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from random import Random

from ottla.explore.faults.choice import Faults as Choice
from ottla.explore.faults.choice import weights_of
from ottla.explore.faults.kinds import KINDS, Faults
from ottla.explore.faults.striking import Target
from ottla.explore.programs.program import Program

# Kinds that need an administrator among the clients, or somebody who looks at internal topics.
NOT_HERE = frozenset(
    {"config", "delete-records", "reassign", "elect", "late-markers", "twin", "clock", "wipe", "damage"}
)
# Seconds between two faults, on average, in the calmest and in the wildest run.
INTERVALS_S = (0.5, 1.5, 4.0)
# After how many steps of its own at most a program is struck; 0: at once, in the middle of a wait mostly.
STEPS = (0, 30, 300, 3_000)


class ProgramFaults(Faults):
    """The faults of one run. ``kinds`` maps names to weights; None: a mixture that the seed draws."""

    def __init__(
        self, cluster: Target, programs: Mapping[str, Program], rng: Random, kinds: Mapping[str, float] | None
    ) -> None:
        super().__init__(cluster, rng, [])
        self._programs = programs
        names = [*(name for name in KINDS if name not in NOT_HERE), *PROGRAM_KINDS]
        if kinds is None:
            chosen = [name for name in names if rng.random() < 0.6] or names
            kinds = dict.fromkeys(chosen, 1.0)
        self.kinds = list(kinds)
        self._weights = list(kinds.values())
        self._interval_s = rng.choice(INTERVALS_S)

    def _draw(self) -> tuple[str, Callable[[], bool]]:
        (name,) = self._rng.choices(self.kinds, self._weights)
        strike = PROGRAM_KINDS[name] if name in PROGRAM_KINDS else KINDS[name]
        return name, partial(strike, self)

    def _some_program(self, is_with_directory: bool = False) -> Program | None:
        running = [
            program
            for program in self._programs.values()
            if program.running and (program.directory.is_made or not is_with_directory)
        ]
        return self._rng.choice(running) if running else None

    def kill_program(self) -> bool:
        """A program ends at whatever it awaits, and is started again."""
        return self._strike(self._some_program(), "killed", self._kill)

    def pause_program(self) -> bool:
        """A program stands still, perhaps for longer than its session lasts."""
        return self._strike(self._some_program(), "paused", self._pause)

    def lose_program_disk(self) -> bool:
        """The machine of a program dies with what is in its directory, and is replaced by an empty one."""
        return self._strike(self._some_program(True), "killed, and loses its directory", self._lose_disk)

    def _strike(self, program: Program | None, how: str, strike: Callable[[Program], None]) -> bool:
        """Strike a program now, or after some of its steps: most of them are where it has work to do."""
        if program is None:
            return False
        steps = int(self._rng.choice(STEPS) * self._rng.random())
        if not steps:
            strike(program)
            return True
        self._note(f"{program} is to be {how}, {steps} steps later", program.name)

        def strike_later() -> None:
            if not self._cluster.quiet:
                self._guarded(partial(strike, program))

        program.after_steps(steps, strike_later)
        return True

    def _kill(self, program: Program) -> None:
        program.kill()
        self._for_a_while(program.start, 0.05, self._rng.choice((0.3, 3, 15)))

    def _pause(self, program: Program) -> None:
        program.pause()
        self._for_a_while(program.resume, 0.05, self._rng.choice((1, 8, 40)))

    def _lose_disk(self, program: Program) -> None:
        self._kill(program)
        self._note(f"{program} has lost its directory", program.name)
        program.directory.empty()

    def cut_program(self) -> bool:
        """The machine of a program does not reach one node, or none."""
        program = self._some_program()
        if program is None:
            return False
        host, hosts = program.machine.host, self._hosts()
        others = hosts if self._rng.random() < 0.5 else [self._rng.choice(hosts)]
        self._note(f"{program} is cut off from {self._names(others)}", program.name)
        self._cut(
            [way for other in others for way in ((host, other), (other, host))], self._rng.choice((1, 8, 30))
        )
        return True


PROGRAM_KINDS: dict[str, Callable[[ProgramFaults], bool]] = {
    "program-kill": ProgramFaults.kill_program,
    "program-pause": ProgramFaults.pause_program,
    "program-cut": ProgramFaults.cut_program,
    "program-disk": ProgramFaults.lose_program_disk,
}


def kinds_of(faults: Choice) -> Mapping[str, float] | None:
    """Names and weights of a preset, a list of kinds, or weights. ValueError for a name that is none."""
    return weights_of(faults, {*KINDS, *PROGRAM_KINDS} - NOT_HERE)
