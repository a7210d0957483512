"""Deadlines that share timers: none is lost, none comes early, none comes more than a tick late."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from test_metadata_store_contract import ManualClock

from ottla.env.deadlines import RUN_AT_ONCE_MAX, TICK_MS, Deadline, Deadlines


def test_deadlines_come_in_order_and_once() -> None:
    clock = ManualClock()
    deadlines = Deadlines(clock)
    ran: list[str] = []
    deadlines.add(30, lambda: ran.append("late"))
    deadlines.add(10, lambda: ran.append("early"))
    deadlines.add(10, lambda: ran.append("early too"))
    for _ in range(100):
        clock.advance(1)
    assert ran == ["early", "early too", "late"]


def test_one_that_is_cancelled_does_not_come() -> None:
    clock = ManualClock()
    deadlines = Deadlines(clock)
    ran: list[str] = []
    first = deadlines.add(10, lambda: (ran.append("first"), second.cancel()))
    second = deadlines.add(10, lambda: ran.append("second"))
    third = deadlines.add(20, lambda: ran.append("third"))
    third.cancel()
    third.cancel()
    clock.advance(100)
    assert ran == ["first"]
    first.cancel()


def test_one_that_fails_does_not_stop_the_others() -> None:
    clock = ManualClock()
    deadlines = Deadlines(clock)
    ran: list[str] = []

    def fail() -> None:
        raise RuntimeError("a bug")

    for delay_ms in (10, 20):
        deadlines.add(delay_ms, fail)
        deadlines.add(delay_ms, lambda: ran.append("other"))
    clock.advance(100)
    assert ran == ["other", "other"]


def test_a_callback_may_add_another() -> None:
    clock = ManualClock()
    deadlines = Deadlines(clock)
    ran: list[str] = []
    deadlines.add(10, lambda: deadlines.add(0, lambda: ran.append("again")))
    clock.advance(20)
    clock.advance(TICK_MS)
    assert ran == ["again"]


def test_nothing_comes_after_a_close() -> None:
    clock = ManualClock()
    deadlines = Deadlines(clock)
    ran: list[str] = []
    deadlines.add(10, lambda: ran.append("never"))
    deadlines.close()
    clock.advance(100)
    assert not ran


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 300), st.integers(0, 300)), max_size=40))
def test_every_deadline_comes_in_its_time(plans: list[tuple[int, int, int]]) -> None:
    """(added at, delay, cancelled at) of each; those cancelled in time do not come."""
    clock = ManualClock()
    start = clock.time_ms
    deadlines = Deadlines(clock)
    added: dict[int, Deadline] = {}
    came: dict[int, int] = {}
    for now in range(520):
        for number, (at, delay, cancelled) in enumerate(plans):
            if at == now:
                added[number] = deadlines.add(
                    delay, lambda number=number: came.setdefault(number, clock.time_ms - start)
                )
            if cancelled == now and number in added:
                added[number].cancel()
        clock.advance(1)
    for number, (at, delay, cancelled) in enumerate(plans):
        in_time = at <= cancelled < at + delay
        if number in came:
            assert at + delay <= came[number] <= at + delay + TICK_MS + 1
            assert not in_time
        else:
            assert at <= cancelled <= at + delay + TICK_MS + 1


def test_many_that_are_due_at_once_come_in_several_turns() -> None:
    clock = ManualClock()
    deadlines = Deadlines(clock)
    ran: list[int] = []
    count = 2 * RUN_AT_ONCE_MAX + 10
    made = [deadlines.add(10, lambda number=number: ran.append(number)) for number in range(count)]  # type: ignore[misc]
    deadlines.add(30, lambda: ran.append(-1))
    clock.advance(20)
    seen = []
    while len(ran) < count - 1:
        seen.append(len(ran))
        made[-1].cancel()
        clock.advance(0)
    assert seen == [RUN_AT_ONCE_MAX, 2 * RUN_AT_ONCE_MAX]
    clock.advance(20)
    assert ran == [*range(count - 1), -1]
