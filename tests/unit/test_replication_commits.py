"""Producers that wait: who gives up costs nobody anything, and each of the others is told once."""

from __future__ import annotations

import asyncio
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from measuring import HANG_S
from ottla.errors import ErrorCode, KafkaError
from ottla.replication.commits import LEFT_BEHIND_MAX, TOLD_AT_ONCE_MAX, Commits

STEP = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 20)),
    st.tuples(st.just("forget"), st.integers(0, 40)),
    st.tuples(st.just("reached"), st.integers(0, 20)),
    st.tuples(st.just("end"), st.just(0)),
)


@given(st.lists(STEP, max_size=200))
def test_each_is_told_once_in_the_order_of_offsets(steps: list[tuple[str, int]]) -> None:
    commits, told = Commits(), list[tuple[int, bool]]()
    model: dict[int, int] = {}
    waiting = {}
    for number, (step, value) in enumerate(steps):
        told.clear()
        if step == "add":
            model[number] = value
            waiting[number] = partial(lambda number, error: told.append((number, error is None)), number)
            commits.add(value, waiting[number])
        elif step == "forget":
            known = [key for key in waiting if key % 41 == value]
            for key in known:
                assert commits.forget(waiting[key]) == (key in model)
                model.pop(key, None)
        else:
            ends = step == "end"
            commits.reached(value, None) if not ends else commits.end(KafkaError(ErrorCode.none))
            due = [key for key, offset in model.items() if ends or offset <= value]
            assert told == [(key, not ends) for key in sorted(due, key=lambda key: (model[key], key))]
            for key in due:
                del model[key]
        assert len(commits) == len(model)


def test_who_gives_up_leaves_little_behind() -> None:
    commits = Commits()
    given_up = [partial(print, number) for number in range(1_000)]
    for number, committed in enumerate(given_up):
        commits.add(number, committed)
    for committed in given_up[1:]:
        commits.forget(committed)
        assert len(commits._queue) <= 2 * len(commits) + LEFT_BEHIND_MAX


def test_many_that_give_up_cost_as_much_each_as_one() -> None:
    """By what is copied, so that the machine does not matter."""
    count, copied = 20_000, 0
    commits = Commits()
    made = [partial(print, number) for number in range(count)]
    for number, committed in enumerate(made):
        commits.add(number, committed)
    for committed in made:
        queue = commits._queue
        assert commits.forget(committed)
        copied += len(commits._queue) if commits._queue is not queue else 0
    assert copied <= 2 * count


def test_many_are_told_in_turns_with_others_work_and_may_still_give_up() -> None:
    async def main() -> None:
        commits, told, turns = Commits(), list[int](), [0]
        count = 4 * TOLD_AT_ONCE_MAX
        made = [partial(lambda number, error: told.append(number), number) for number in range(count)]

        async def others() -> None:
            while len(told) < count - 1:
                turns[0] += 1
                await asyncio.sleep(0)

        for number, committed in enumerate(made):
            commits.add(number, committed)
        commits.reached(count, None)
        assert len(told) == TOLD_AT_ONCE_MAX
        assert commits.forget(made[-1]) and not commits.forget(made[0])
        await asyncio.wait_for(others(), HANG_S)
        assert turns[0] >= 2 and told == list(range(count - 1)) and len(commits) == 0

    asyncio.run(main())


def test_one_that_fails_keeps_the_others_from_nothing() -> None:
    commits, told = Commits(), list[str]()

    def fails(error: KafkaError | None) -> None:
        raise ValueError("unexpected")

    commits.add(1, fails)
    commits.add(1, lambda error: told.append("a"))
    commits.reached(1, None)
    commits.add(2, lambda error: told.append("b"))
    commits.reached(2, None)
    assert told == ["a", "b"]


def test_whoever_is_told_may_add_and_have_others_told() -> None:
    commits, told = Commits(), list[str]()

    def first(error: KafkaError | None) -> None:
        told.append("first")
        commits.add(1, lambda error: told.append("late"))
        commits.reached(5, None)

    commits.add(1, first)
    commits.add(2, lambda error: told.append("second"))
    commits.reached(2, None)
    assert told == ["first", "second", "late"]
