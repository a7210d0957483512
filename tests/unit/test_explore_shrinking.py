"""The smallest run that still fails in the same way: found whatever it is, and never one that does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.explore.finding import command, left
from ottla.explore.plan import Plan, Run
from ottla.explore.shrinking import Shrinking

Fails = Callable[[Plan], bool]
STRIKES, NODES, LONGEST_S = 27, 3, 20.0


class Tried:
    """Runs of which `fails` says whether they fail in the same way; counts them."""

    def __init__(self, fails: Fails, at_most: int = 10**6) -> None:
        self.fails, self.left = fails, at_most
        self.plans: list[Plan] = []

    def run(self, plan: Plan) -> Run:
        kept = range(1, STRIKES + 1) if plan.strikes is None else plan.strikes
        return Run(
            seed=plan.seed,
            error="lost",
            strikes=[(number, "kill", 1.0, "") for number in kept],
            nodes=plan.nodes or NODES,
            longest_run_s=min(LONGEST_S, plan.run_max_s or LONGEST_S),
        )

    def first_failing(self, plans: Sequence[Plan]) -> tuple[int, Run] | None:
        for index, plan in enumerate(plans):
            if not self.left:
                raise TimeoutError
            self.left -= 1
            assert plan not in self.plans, "tried twice"
            self.plans.append(plan)
            if self.fails(plan):
                return index, self.run(plan)
        return None

    def shrinking(self) -> Shrinking:
        plan = Plan(test="test", seed=7)
        return Shrinking(plan, self.run(plan), self.first_failing)


def smallest(fails: Fails) -> tuple[Plan, Tried]:
    tried = Tried(fails)
    shrinking = tried.shrinking()
    shrinking.go()
    return shrinking.plan, tried


def kept(plan: Plan) -> set[int]:
    return set(range(1, STRIKES + 1)) if plan.strikes is None else set(plan.strikes)


@given(
    needed=st.sets(st.integers(1, STRIKES), max_size=6),
    nodes=st.integers(1, NODES),
    seconds=st.floats(0.1, LONGEST_S),
)
def test_what_is_needed_is_found_and_nothing_else(needed: set[int], nodes: int, seconds: float) -> None:
    def fails(plan: Plan) -> bool:
        is_enough = (plan.nodes or NODES) >= nodes and (plan.run_max_s or LONGEST_S) >= seconds
        return is_enough and kept(plan) >= needed

    plan, tried = smallest(fails)
    assert kept(plan) == needed
    assert (plan.nodes or NODES) == nodes
    assert seconds <= (plan.run_max_s or LONGEST_S) <= 4 / 3 * seconds + 0.2
    assert plan.seed == 7 and len(tried.plans) < 200


@given(of=st.sets(st.integers(1, STRIKES), min_size=2, max_size=6))
def test_of_several_that_do_one_is_kept(of: set[int]) -> None:
    plan, _ = smallest(lambda plan: bool(kept(plan) & of))
    assert len(kept(plan)) == 1 and kept(plan) <= of


@given(st.randoms(use_true_random=False))
def test_whatever_fails_the_smallest_does_too_and_no_strike_of_it_can_be_left_out(random: object) -> None:
    verdicts: dict[Plan, bool] = {}

    def fails(plan: Plan) -> bool:
        return verdicts.setdefault(plan, random.random() < 0.4)  # type: ignore[attr-defined]

    plan, tried = smallest(fails)
    assert plan == Plan(test="test", seed=7) or fails(plan)
    before = len(tried.plans)
    shrinking = Shrinking(plan, tried.run(plan), tried.first_failing)
    shrinking._passed.update(one for one, failed in verdicts.items() if not failed)
    shrinking.go()
    assert shrinking.plan == plan and len(tried.plans) == before


@pytest.mark.parametrize("at_most", [0, 1, 5, 12])
def test_the_smallest_so_far_is_there_when_time_is_over(at_most: int) -> None:
    tried = Tried(lambda plan: 17 in kept(plan), at_most)
    shrinking = tried.shrinking()
    with pytest.raises(TimeoutError):
        shrinking.go()
    assert 17 in kept(shrinking.plan)
    assert len(kept(shrinking.plan)) < STRIKES or at_most <= 1


def test_what_is_left_and_its_command_are_said() -> None:
    whole, plan = Tried(lambda plan: True).run(Plan(test="t", seed=4)), Plan(test="t", seed=4)
    assert command("a.py::t", plan) == "ottla explore a.py::t --seed 4"
    assert left(whole, whole) == "27 faults, 3 nodes, 20 seconds"
    small = Plan(test="t", seed=4, strikes=(3, 17), nodes=1, run_max_s=2.5)
    assert (
        command("a.py::t", small) == "ottla explore a.py::t --seed 4 --strikes 3,17 --nodes 1 --seconds 2.5"
    )
    assert (
        left(whole, Tried(lambda plan: True).run(small)) == "2 of 27 faults, 1 of 3 nodes, 2.5 of 20 seconds"
    )
    assert command("a.py::t", Plan(test="t", seed=4, strikes=())).endswith("--strikes none")
    assert command("my tests/a.py::t", plan) == "ottla explore 'my tests/a.py::t' --seed 4"
