"""Transactions under faults, seed by seed; and that each way of breaking them is noticed."""

from __future__ import annotations

import pytest

import soak
from sim.cluster import Options, Result
from sim.mutations import Mutation
from sim.txn_cluster import run_transactions
from sim.txn_mutations import TRANSACTION_MUTATIONS

SECONDS = 8.0
SINGLE_SEEDS = 6 * soak.FACTOR
CLUSTER_SEEDS = 4 * soak.FACTOR


def check(result: Result, nodes: int) -> None:
    if result.violation is not None:
        again = f"python -m sim --transactions --seed {result.seed} --nodes {nodes} --seconds {SECONDS:.0f}"
        pytest.fail("\n".join([f"{result.violation}", f"again: {again}", *result.lines[-40:]]))


@pytest.mark.parametrize("seed", range(1, 1 + SINGLE_SEEDS))
def test_one_node(seed: int) -> None:
    check(run_transactions(Options(seed, 1, SECONDS)), 1)


@pytest.mark.parametrize("seed", range(1, 1 + CLUSTER_SEEDS))
def test_three_nodes(seed: int) -> None:
    check(run_transactions(Options(seed, 3, SECONDS)), 3)


def test_a_calm_run_has_all_kinds_of_transactions() -> None:
    """And it repeats exactly."""
    options = Options(6, 1, SECONDS, [])
    result = run_transactions(options)
    check(result, 1)
    assert result.summary["transactions"]["committed"] > 50
    assert result.summary["transactions"]["aborted"] > 20
    assert result.summary["zombies"] > 2
    assert result.summary["fenced"] > 0
    assert run_transactions(options).digest == result.digest


def options(mutation: Mutation, seed: int) -> Options:
    return Options(seed, mutation.nodes, SECONDS, list(mutation.faults), given=mutation.given)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", TRANSACTION_MUTATIONS)
def test_a_mutation_is_noticed(name: str) -> None:
    mutation = TRANSACTION_MUTATIONS[name]
    for seed in mutation.seeds():
        with mutation.active():
            result = run_transactions(options(mutation, seed))
        if result.violation is not None:
            unbroken = run_transactions(options(mutation, seed))
            assert unbroken.violation is None, f"seed {seed} fails without the mutation too"
            return
    pytest.fail(f"{mutation.seeds_max} seeds passed")
