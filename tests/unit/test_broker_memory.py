"""What all clients hold together: who waits for room, who goes on, and who is told when there is some."""

from __future__ import annotations

from ottla.broker.memory import (
    SMALL_REQUEST_BYTES,
    SMALL_RESPONSE_BYTES,
    TOLD_AGAIN,
    UNSENT_BYTES_MAX,
    Memory,
)

LARGE = SMALL_REQUEST_BYTES + 1


class Holder:
    """Someone who holds bytes, and asks again when told that there is room."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.held = 0
        self.goes_on = True
        self.told = 0

    def hold(self, held: int) -> None:
        change, self.held = held - self.held, held
        self.memory.keep(self, change, held)
        self.memory_is_free()
        self.told -= 1

    def memory_is_free(self) -> None:
        self.told += 1
        self.goes_on = self.memory.may_hold(self, self.held)


def test_one_goes_on_and_the_others_wait_for_room() -> None:
    memory = Memory(3 * LARGE)
    holders = [Holder(memory) for _ in range(5)]
    for holder in holders:
        holder.hold(LARGE)
    # The third has filled it.
    assert [holder.goes_on for holder in holders] == [True, True, True, False, False]
    for holder in holders:
        holder.hold(2 * LARGE)
    assert [holder.goes_on for holder in holders] == [False, False, True, False, False]
    # It is done, and the memory is as full as before: the one that has waited longest goes on alone.
    holders[2].hold(0)
    assert [holder.goes_on for holder in holders] == [False, False, True, True, False]
    assert (holders[3].told, holders[0].told) == (1, 0)
    holders[3].hold(0)
    assert [holder.goes_on for holder in holders] == [False, False, True, True, True]
    holders[4].hold(0)
    assert memory.request_bytes == 4 * LARGE and [holder.goes_on for holder in holders[:2]] == [True, False]
    holders[1].hold(0)
    assert memory.request_bytes == 2 * LARGE and all(holder.goes_on for holder in holders)


def test_of_thousands_those_are_told_for_whom_there_is_room() -> None:
    memory = Memory(LARGE)
    first, small = Holder(memory), Holder(memory)
    waiting = [Holder(memory) for _ in range(1_000)]
    for holder in (first, *waiting):
        holder.hold(LARGE)
    # Each request that is done while one goes on alone wakes nobody in vain.
    for _ in range(10):
        small.hold(10)
        small.hold(0)
    assert sum(holder.told for holder in waiting) == 0
    first.hold(0)
    assert [holder.told for holder in waiting[:3]] == [1, 0, 0]
    assert waiting[0].goes_on
    # Room for three and a bit.
    memory.request_bytes_max = memory.request_bytes + 3 * SMALL_REQUEST_BYTES
    small.hold(10)
    assert sum(holder.told for holder in waiting) == 4
    assert [holder.goes_on for holder in waiting[:5]] == [True] * 4 + [False]
    # Those that are told and take nothing keep nobody from the room for longer than until the next request.
    for _ in range(500):
        small.hold(0)
        small.hold(10)
    assert all(holder.goes_on for holder in waiting)


def test_who_waits_behind_those_that_take_nothing_is_told_after_a_while() -> None:
    """Those that are told may have nothing to send, and then nothing else happens."""
    memory = Memory(LARGE)
    first = Holder(memory)
    waiting = [Holder(memory) for _ in range(2 * TOLD_AGAIN)]
    for holder in (first, *waiting):
        holder.hold(LARGE)
    memory.tell_again()
    assert not any(holder.told for holder in waiting)
    memory.request_bytes_max = memory.request_bytes + 10
    memory.tell_again()
    assert [holder.told for holder in waiting] == [1] * TOLD_AGAIN + [0] * TOLD_AGAIN
    memory.tell_again()
    assert all(holder.goes_on for holder in waiting)


def test_one_that_holds_little_by_now_does_not_go_on_in_another_s_place() -> None:
    memory = Memory(1)
    first, second, third = (Holder(memory) for _ in range(3))
    for holder in (first, second, third):
        holder.hold(LARGE)
    second.held = 1
    memory.request_bytes -= LARGE - 1
    first.hold(0)
    assert third.told == 1 and third.goes_on


def test_who_holds_little_goes_on_however_full_it_is() -> None:
    """A follower's fetches, say, for which those wait that hold much."""
    memory = Memory(1)
    first, second, small = Holder(memory), Holder(memory), Holder(memory)
    for holder in (first, second):
        holder.hold(LARGE)
    small.hold(SMALL_REQUEST_BYTES)
    assert first.goes_on and not second.goes_on and small.goes_on


def test_one_that_is_gone_is_told_nothing() -> None:
    memory = Memory(1)
    first, second = Holder(memory), Holder(memory)
    for holder in (first, second):
        holder.hold(LARGE)
    memory.keep(second, -LARGE, 0)
    memory.forget(second)
    told = second.told
    first.hold(0)
    assert second.told == told and not memory.request_bytes


def test_room_for_answers_is_never_less_than_a_small_one() -> None:
    memory = Memory()
    assert memory.room_bytes == UNSENT_BYTES_MAX
    memory.unsent_bytes += UNSENT_BYTES_MAX - 1
    assert memory.room_bytes == SMALL_RESPONSE_BYTES
