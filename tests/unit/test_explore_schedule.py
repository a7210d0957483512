"""The schedule of faults in real time: a seed fixes it, before anything runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.explore.faults import kinds
from ottla.explore.faults.choice import PRESETS, Faults
from ottla.explore.programs import striking as simulated
from ottla.explore.real.schedule import KINDS, PROGRAM_KINDS, Schedule, Strike
from ottla.explore.real.striking import STRIKES

SEEDS = st.integers(0, 10**9)
NODES = st.integers(1, 9).map(lambda count: [f"n{node_id}" for node_id in range(1, count + 1)])
PROGRAMS = st.lists(st.sampled_from(["shop", "shipping", "billing"]), unique=True)
CHOICES = st.none() | st.sampled_from([*PRESETS, "everything"]) | st.lists(st.sampled_from([*KINDS]))


def strikes(
    seed: int = 1,
    faults: Faults = "everything",
    nodes: Sequence[str] = ("n1", "n2", "n3"),
    programs: Sequence[str] = ("shop",),
    seconds: float = 30.0,
    number: int = 0,
) -> list[Strike]:
    return Schedule(seed, faults, nodes).strikes(number, seconds, programs)


@given(SEEDS, CHOICES, NODES, PROGRAMS, st.floats(0, 60), st.integers(0, 3))
def test_a_seed_has_one_schedule_and_a_longer_run_begins_with_it(
    seed: int, faults: Faults, nodes: list[str], programs: list[str], seconds: float, number: int
) -> None:
    drawn = strikes(seed, faults, nodes, programs, seconds, number)
    assert drawn == strikes(seed, faults, nodes, programs, seconds, number)
    longer = strikes(seed, faults, nodes, programs, seconds + 20, number)
    assert longer[: len(drawn)] == drawn
    assert all(strike.at_s >= seconds for strike in longer[len(drawn) :])


@given(SEEDS, CHOICES, NODES, PROGRAMS, st.floats(0, 60))
def test_strikes_are_of_the_chosen_kinds_and_on_whom_there_is(
    seed: int, faults: Faults, nodes: list[str], programs: list[str], seconds: float
) -> None:
    drawn = strikes(seed, faults, nodes, programs, seconds)
    times_s = [strike.at_s for strike in drawn]
    assert times_s == sorted(times_s)
    assert all(0 <= at_s < seconds for at_s in times_s)
    if isinstance(faults, list):
        assert {strike.kind for strike in drawn} <= set(faults)
    for strike in drawn:
        assert strike.on
        assert set(strike.on) <= set(programs if strike.kind in PROGRAM_KINDS else nodes)
        assert set(strike.others) <= set(nodes) - set(strike.on)
        assert bool(strike.others) == (strike.kind == "split")
        assert strike.lasts_s > 0 or strike.kind == "break"
        assert strike.kind in str(strike) and strike.on[0] in str(strike)
        if len(nodes) == 1:
            assert strike.cut_off in ("", "from clients")


def test_each_kind_strikes_and_seeds_differ() -> None:
    assert {strike.kind for seed in range(20) for strike in strikes(seed)} == {*KINDS}
    assert strikes(1) != strikes(2)
    assert strikes(1) != strikes(1, number=1)


def test_weights_are_kept_to() -> None:
    weights = {"kill": 0, "break": 9, "restart": 1}
    drawn = [strike.kind for seed in range(50) for strike in strikes(seed, weights)]
    assert drawn.count("kill") == 0
    assert 0.8 < drawn.count("break") / len(drawn) < 0.97


def test_the_schedule_is_the_same_in_another_process() -> None:
    code = (
        "from ottla.explore.real.schedule import Schedule\n"
        "drawn = Schedule(7, None, ['n1', 'n2', 'n3']).strikes(0, 30.0, ['shop'])\n"
        "print(*map(repr, drawn), sep='\\n')"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert said.splitlines() == [repr(strike) for strike in strikes(7, None)]


def test_names_are_those_of_simulated_worlds_and_each_is_carried_out() -> None:
    known = {*kinds.KINDS, *simulated.PROGRAM_KINDS}
    assert set(KINDS) - known == {"errors"}
    assert STRIKES.keys() == KINDS.keys()
    assert {name for names in PRESETS.values() for name in names} <= known


@pytest.mark.parametrize(
    ("faults", "problem"),
    [
        (["kill", "power"], "there is no fault 'power' in real time: choose of break, errors, "),
        ({"clock": 1}, "there is no fault 'clock' in real time: choose of break, errors, "),
        ("stormy", "there is no preset 'stormy': choose of calm, "),
    ],
)
def test_a_fault_without_a_meaning_in_real_time_is_refused(faults: Faults, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Schedule(1, faults, ["n1"])


@pytest.mark.parametrize(
    ("faults", "kept"),
    [
        ("calm", {}),
        ("rolling restart", {"restart": 1.0}),
        ("flaky network", {"break": 1.0, "lose": 1.0, "isolate": 1.0, "slow-link": 1.0}),
    ],
)
def test_of_a_preset_is_taken_what_has_a_meaning(faults: Faults, kept: Mapping[str, float]) -> None:
    assert Schedule(1, faults, ["n1"]).weights == kept
