"""Transactions under faults, seed by seed; and that each way of breaking them is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest
from sim_support import replay

import soak
from ottla.explore.campaign import txn_protocol
from ottla.explore.campaign.cluster import Options, Result
from ottla.explore.campaign.mutations import Mutation
from ottla.explore.campaign.txn_cluster import run_transactions
from ottla.explore.campaign.txn_mutations import TRANSACTION_MUTATIONS

SECONDS = 8.0
SINGLE_SEEDS = 6 * soak.FACTOR
CLUSTER_SEEDS = 10 * soak.FACTOR


def check(result: Result, nodes: int) -> None:
    if result.violation is not None:
        again = f"ottla simulate --transactions --seed {result.seed} --nodes {nodes} --seconds {SECONDS:.0f}"
        pytest.fail("\n".join([f"{result.violation}", f"again: {again}", *result.lines[-40:]]))


@pytest.mark.parametrize("seed", range(1, 1 + SINGLE_SEEDS))
def test_one_node(seed: int) -> None:
    check(run_transactions(Options(seed, 1, SECONDS)), 1)


@pytest.mark.parametrize("seed", range(1, 1 + CLUSTER_SEEDS))
def test_three_nodes(seed: int) -> None:
    check(run_transactions(Options(seed, 3, SECONDS)), 3)


def test_a_calm_run_has_all_kinds_of_transactions() -> None:
    """And it repeats exactly."""
    given = {"level": 2, "protocols": (txn_protocol.KIP_890,), "members": False, "last_epochs": True}
    options = Options(4, 1, SECONDS, [], given=given)
    result = run_transactions(options)
    check(result, 1)
    assert result.summary["rotations"] > 0
    assert result.summary["transactions"]["committed"] > 50
    assert result.summary["transactions"]["aborted"] > 20
    assert result.summary["zombies"] > 2
    assert result.summary["fenced"] > 0
    assert run_transactions(options).digest == result.digest


@pytest.mark.parametrize("protocol", ["KIP_890", "CLASSIC", "FIRST"])
def test_each_generation_of_clients_works(protocol: str) -> None:
    """And where they are members of a group, its generations fence them."""
    for members in (False, True):
        given = {"level": 2, "members": members, "protocols": (getattr(txn_protocol, protocol),)}
        if protocol == "FIRST" and members:
            given["protocols"] = (txn_protocol.FIRST, txn_protocol.CLASSIC)
        result = run_transactions(Options(3, 1, SECONDS, [], given=given))
        check(result, 1)
        assert result.summary["transactions"]["committed"] > 20


def test_a_seed_repeats_exactly_in_any_process(tmp_path: Path) -> None:
    digests = [replay(1, hash_seed, tmp_path, "--transactions", "--nodes", "3")[0] for hash_seed in "12"]
    assert digests[0] == digests[1]


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
