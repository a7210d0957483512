"""The product broken on purpose: the simulator notices each way, and says nothing where nothing is broken."""

from __future__ import annotations

import pytest

import soak
from ottla.explore.campaign.cluster import Options, run
from ottla.explore.campaign.mutations import MUTATIONS, Mutation

SECONDS = 12.0
# Of each mixture of faults, with nothing broken; the seeds that notice a mutation are run without it, too.
UNBROKEN_SEEDS = soak.amount(3, 40)


def options(mutation: Mutation, seed: int) -> Options:
    return Options(seed, mutation.nodes, SECONDS, list(mutation.faults), given=mutation.given)


def test_there_are_enough() -> None:
    assert len(MUTATIONS) >= 10


# Where the seeds that have shown it show it no more, many are run.
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_noticed(name: str) -> None:
    mutation = MUTATIONS[name]
    for seed in mutation.seeds():
        with mutation.active():
            result = run(options(mutation, seed))
        if result.violation is not None:
            unbroken = run(options(mutation, seed))
            assert unbroken.violation is None, f"seed {seed} fails without the mutation too"
            return
    pytest.fail(f"{mutation.seeds_max} seeds passed")


@pytest.mark.parametrize(
    "faults", sorted({(mutation.faults, mutation.nodes) for mutation in MUTATIONS.values()})
)
def test_nothing_is_noticed_where_nothing_is_broken(faults: tuple[tuple[str, ...], int]) -> None:
    kinds, nodes = faults
    for seed in range(1, 1 + UNBROKEN_SEEDS):
        result = run(Options(seed, nodes, SECONDS, list(kinds)))
        assert result.violation is None, f"seed {seed}: {result.violation}"
