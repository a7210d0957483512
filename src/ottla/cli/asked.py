"""What `ottla explore` is asked for: which tests of a file that is, and each of them run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ottla.cli import output
from ottla.cli.errors import CliError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ottla.explore.plan import Plan
    from ottla.explore.real.exploring import RealExploration
    from ottla.explore.workers import Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """``plan``: of each run, but for the seed; its test is empty for all of the file.

    ``simulated``: the options that were given and have no meaning in real time.
    """

    file: str
    plan: Plan
    seeds: tuple[int, int] | None
    cpu_s: float | None
    jobs: int
    goes_on: bool
    shrink_s: float
    picture: str
    is_json: bool
    simulated: tuple[str, ...]

    def run(self) -> bool:
        """Run the test, or all tests of the file; whether any failed. CliError where there is none."""
        from ottla.explore import mistakes
        from ottla.explore.real import running

        with _told_failures(self.file):
            mistakes.import_conftests(self.file)
            real = running.found(self.file)
        name = self.plan.test
        if name in real:
            if self.simulated:
                options = ", ".join(self.simulated)
                raise CliError(
                    f"{options}: only for tests with @explore; {name} runs in real time", ExitCode.USAGE
                )
            return self._run_real(real[name])
        has_failed = self._run_simulated(real)
        if name:
            return has_failed
        if real and self.simulated:
            output.warn(
                f"left out, since {', '.join(self.simulated)} is not for real time: {', '.join(real)}."
                f" Run them by ottla explore {self.file}::{next(iter(real))}"
            )
            return has_failed
        for exploration in real.values():
            output.say(f"{exploration.target}, in real time:", flush=True)
            has_failed = self._run_real(exploration) or has_failed
        return has_failed

    def _run_real(self, exploration: RealExploration) -> bool:
        from ottla.explore.real import running

        first, last = self.seeds or (1, exploration.seeds)
        return bool(running.run(exploration, first, last, keep_going=self.goes_on, say=output.say))

    def _run_simulated(self, real: Mapping[str, RealExploration]) -> bool:
        """The tests with @explore; none of them is fine where there are some in ``real`` time."""
        from ottla.cli.explored import Explored
        from ottla.explore.workers import Workers

        has_failed, picture = False, self.picture
        with _told_failures(self.file), Workers(self.file, self.jobs) as workers:
            for test in self._chosen(workers, real):
                known = workers.tests[test]
                first, last = self.seeds or (1, int(known["seeds"]))
                explored = Explored(
                    workers=workers,
                    target=f"{self.file}::{test}",
                    plan=replace(self.plan, test=test, seed=first, cpu_max_s=self.cpu_s),
                    first=first,
                    last=last,
                    goes_on=self.goes_on,
                    shrink_s=self.shrink_s,
                    picture=picture,
                    is_json=self.is_json,
                )
                has_failed = explored.explore() or has_failed
                if explored.is_drawn:
                    # The pictures of other tests would take its place.
                    picture = ""
        if picture and not has_failed:
            output.warn("no picture: no run has failed; --seed N has the run of one seed drawn")
        return has_failed

    def _chosen(self, workers: Workers, real: Mapping[str, RealExploration]) -> list[str]:
        """The test of that name, or all."""
        name, tests = self.plan.test, workers.tests
        if not tests and not real:
            raise CliError(
                f"{self.file} has no test that is decorated with @explore or @explore_real",
                ExitCode.NOT_FOUND,
            )
        if not name:
            return list(tests)
        if name not in tests:
            raise CliError(
                f"{self.file} has no test {name} that is decorated with @explore; it has "
                f"{', '.join((*tests, *real))}",
                ExitCode.NOT_FOUND,
            )
        return [name]


@contextmanager
def _told_failures(file: str) -> Iterator[None]:
    """What is wrong with the file ends the command: the last line of it, behind the others."""
    from ottla.explore.workers import CannotRun

    try:
        yield
    except (CannotRun, SystemExit) as error:
        *before, problem = str(error).strip().split("\n")
        for line in before:
            output.warn(line)
        if not before and problem.startswith(file):
            raise CliError(problem, ExitCode.NOT_FOUND) from None
        raise CliError(f"{file} could not be run: {problem}", ExitCode.NOT_FOUND) from None
