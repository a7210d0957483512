"""`explore_real`: a test that runs once for each of a few seeds, in worlds in real time, until one fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ottla.explore import decorated
from ottla.explore.faults.choice import Faults, weights_of
from ottla.explore.real.schedule import IN_REAL_TIME, KINDS

if TYPE_CHECKING:
    from ottla.explore.real.world import RealWorld

Test = Callable[["RealWorld"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RealExploration:
    """A test, and the worlds in real time that it is run in."""

    test: Test
    seeds: int
    nodes: int
    topics: Mapping[str, int]
    faults: Faults
    config: Mapping[str, str]

    @property
    def target(self) -> str:
        """FILE::NAME, for the command line."""
        return decorated.target_of(self.test)

    def run(self, seed: int) -> RealWorld:
        """One run. Raises what the test raises, with the report as a note. The world, which has ended."""
        __tracebackhide__ = True
        # A program that is a function of the test's module starts faster without.
        from ottla.explore.real.world import RealWorld

        world = RealWorld(
            seed,
            nodes=self.nodes,
            topics=self.topics,
            faults=self.faults,
            config=self.config,
            repeat=f"ottla explore {self.target} --seed {seed}",
        )
        with world:
            self.test(world)
        return world


def explore_real(
    _test: None = None,
    /,
    *,
    seeds: int = 5,
    nodes: int = 3,
    topics: Mapping[str, int] | None = None,
    faults: Faults = None,
    config: decorated.Config = None,
) -> Callable[[Test], Callable[[], None]]:
    """Make a function that takes a `RealWorld` a test which runs it with the seeds 1 to ``seeds``, in turn.

    ``topics`` are created with their partitions before the test begins. ``faults``: a preset's name, kinds,
    or weights by kind; None for a mixture that each seed draws. ``config``: broker settings by Kafka's names.
    What the test raises has a report as a note. ValueError for values that no world has.
    """
    # For pytest: the user's own line says it all.
    __tracebackhide__ = True
    decorated.check_brackets(_test, "explore_real")
    settings = decorated.texts(config)
    decorated.check(seeds, nodes, topics, settings)
    weights_of(faults, KINDS, IN_REAL_TIME)

    def decorate(test: Test) -> Callable[[], None]:
        __tracebackhide__ = True
        decorated.check_test(test, "explore_real", is_async=False)
        exploration = RealExploration(
            test=test,
            seeds=seeds,
            nodes=nodes,
            topics=dict(topics or {}),
            faults=faults,
            config=settings,
        )

        def explored() -> None:
            __tracebackhide__ = True
            for seed in range(1, seeds + 1):
                exploration.run(seed)

        decorated.stand_for(test, explored, exploration)
        return explored

    return decorate
