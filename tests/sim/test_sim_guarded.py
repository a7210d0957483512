"""Nodes with an authorizer and quotas, under faults: rights hold everywhere within a second, and nothing else
is held up by them."""

from __future__ import annotations

import pytest

import soak
from ottla.explore.campaign.cluster import Options
from ottla.explore.campaign.guarded import run_guarded
from ottla.explore.campaign.guarded_mutations import GUARDED_MUTATIONS

SECONDS = 8.0


@pytest.mark.parametrize("seed", range(1, 3 * soak.FACTOR + 1))
def test_rights_hold_everywhere_within_a_second(seed: int) -> None:
    result = run_guarded(Options(seed, 3, SECONDS))
    assert result.violation is None
    guest = result.summary["guest"]
    assert result.summary["rights"] > 3 and guest["acked"] and guest["denied"]


def test_each_mutation_is_noticed() -> None:
    # Several are looked for in the same runs.
    unbroken: dict[tuple[int, tuple[str, ...]], object] = {}
    for name, mutation in GUARDED_MUTATIONS.items():
        for seed in mutation.seeds():
            options = Options(seed, mutation.nodes, SECONDS, list(mutation.faults))
            with mutation.active():
                if run_guarded(options).violation is None:
                    continue
            key = seed, mutation.faults
            if key not in unbroken:
                unbroken[key] = run_guarded(options).violation
            assert unbroken[key] is None, f"seed {seed} fails without {name} too"
            break
        else:
            pytest.fail(f"{name}: {mutation.seeds_max} seeds passed")
