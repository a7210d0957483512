"""The seeds of one test, as `ottla explore` runs them: with progress, and with its failures told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ottla.cli import output
from ottla.cli.errors import CliError
from ottla.explore.checked import Checked
from ottla.explore.decorated import SEEDS_MAX
from ottla.explore.finding import INTERRUPTED, Finding, document, find, left, report
from ottla.explore.plan import Plan, Run
from ottla.explore.workers import Workers

# So many seeds are named, of those that failed.
NAMED_MAX = 10
HOUR_S = 3600


@dataclass(slots=True, kw_only=True)
class Explored:
    """What is to be run, and what has become of it so far. ``plan``: that of each seed, but for the seed."""

    workers: Workers
    target: str
    plan: Plan
    first: int
    last: int
    goes_on: bool = False
    shrink_s: float = 0.0
    picture: str = ""
    is_json: bool = False
    done: int = 0
    virtual_s: float = 0.0
    # Whether there is a picture.
    is_drawn: bool = False
    # The first run that failed of each kind, and the seeds of all of them: runs are large, and may be many.
    failed: dict[str, Run] = field(default_factory=dict)
    seeds: dict[str, list[int]] = field(default_factory=dict)
    checked: Checked = field(default_factory=Checked)

    def explore(self) -> bool:
        """Run the seeds, and tell what failed; whether any did. Ctrl-C ends it with what was found.

        KeyboardInterrupt is raised once that is said.
        """
        is_interrupted = False
        try:
            self._run()
        except KeyboardInterrupt:
            is_interrupted = True
        picture = self.picture
        for kind, run in self.failed.items():
            finding = self._found(run, picture, is_interrupted)
            is_interrupted = is_interrupted or finding.is_interrupted
            self.is_drawn = self.is_drawn or bool(finding.picture)
            picture = ""
            self._tell(finding, self.seeds[kind][1:])
        problem = "" if self.failed or is_interrupted else self.checked.problem()
        self._tell_summary(problem, is_interrupted=is_interrupted)
        if not self.failed and not is_interrupted and (doubt := self.checked.doubt()):
            output.warn(f"{self.target}: {doubt}")
        if is_interrupted:
            raise KeyboardInterrupt
        return bool(self.failed or problem)

    def _run(self) -> None:
        """All seeds, or up to the first one that fails."""
        total = self.last - self.first + 1
        with output.progress("seeds", total if total <= SEEDS_MAX else None) as show:
            for run in self.workers.runs(self._plans()):
                self.done += 1
                self.virtual_s += run.virtual_s
                self.checked.add(run)
                if not run.error and run.no_picture:
                    raise CliError(f"the run passes, and there is no picture of it: {run.no_picture}")
                self._tell_strikes(run)
                if not run.error and self._draws_all:
                    self.is_drawn = True
                if run.error:
                    self.failed.setdefault(run.kind, run)
                    self.seeds.setdefault(run.kind, []).append(run.seed)
                    if not self.goes_on:
                        return
                show(self.done, self._progress())

    @property
    def _draws_all(self) -> bool:
        """Of one run there is a picture whether it fails or not."""
        return bool(self.picture) and self.first == self.last

    def _plans(self) -> Iterator[Plan]:
        plan = self.plan
        if self._draws_all:
            plan = replace(plan, is_told=True, picture=self.picture)
        return (replace(plan, seed=seed) for seed in range(self.first, self.last + 1))

    def _progress(self) -> str:
        """What fits into 80 columns beside the bar."""
        failed = sum(map(len, self.seeds.values()))
        return f"{failed or 'none'} failed, {self.virtual_s / HOUR_S:.1f} virtual hours; seeds"

    def _found(self, run: Run, picture: str, is_interrupted: bool) -> Finding:
        """The failure, made smaller if there is time."""
        plan = replace(self.plan, seed=run.seed, picture=picture)
        if is_interrupted:
            no_picture = INTERRUPTED if picture else ""
            return Finding(target=self.target, whole=run, plan=plan, run=run, tried=0, no_picture=no_picture)
        tried = 0
        with output.progress(f"Looking for less than seed {run.seed}; runs") as show:

            def said(_plan: Plan, smaller: Run) -> None:
                nonlocal tried
                tried += 1
                show(tried, f"Seed {run.seed}: {left(run, smaller)}; runs")

            return find(self.workers, self.target, plan, run, self.shrink_s, said)

    def _tell(self, finding: Finding, others: list[int]) -> None:
        if self.is_json:
            output.print_json_line(document(finding) | {"other_seeds": others}, flush=True)
            return
        for line in report(finding).split("\n"):
            output.say(line)
        if others:
            output.say(f"So fail {output.counted(len(others), 'other seed')}: {_named(others)}")
        if finding.picture:
            output.say()
            output.say(f"Its picture is {finding.picture}")
        output.say(flush=True)
        if finding.no_picture:
            output.warn(f"no picture: {finding.no_picture}")

    def _tell_strikes(self, run: Run) -> None:
        """Numbers of strikes that were given and are of none in the run."""
        unknown = sorted({*(self.plan.strikes or ())}.difference(number for number, *_ in run.strikes))
        if unknown:
            output.warn(f"--strikes: nothing has struck in this run by {_named(unknown)}")

    def _tell_summary(self, problem: str, *, is_interrupted: bool) -> None:
        failed = sorted(seed for seeds in self.seeds.values() for seed in seeds)
        if self.is_json:
            output.print_json_line(
                {
                    "test": self.target,
                    "seeds": self.done,
                    "virtual_s": self.virtual_s,
                    "failed": failed,
                    "problem": problem,
                    "is_interrupted": is_interrupted,
                },
                flush=True,
            )
            return
        if self.is_drawn and not failed:
            output.say(f"The picture of seed {self.first} is {self.picture}")
        what = f"failed on {_named(failed)}" if failed else problem or "none failed"
        when = "interrupted after " if is_interrupted else ""
        output.say(
            f"{self.target}: {when}{output.counted(self.done, 'seed')}, "
            f"{self.virtual_s / HOUR_S:.1f} virtual hours; {what}",
            flush=True,
        )


def _named(seeds: list[int]) -> str:
    named = ", ".join(map(str, seeds[:NAMED_MAX]))
    more = len(seeds) - NAMED_MAX
    return f"{named} and {more} more" if more > 0 else named
