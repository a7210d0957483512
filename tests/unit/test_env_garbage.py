"""Collections of garbage that stay short."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from ottla.env.clock import thread_cpu_ms
from ottla.env.garbage import OLDEST, ShortCollections


class Thing:
    """Something that the collector looks through."""

    def __init__(self) -> None:
        self.parts: list[object] = [{}, []]


@pytest.fixture
def collections() -> Iterator[ShortCollections]:
    made = ShortCollections(thread_cpu_ms)
    made.start()
    yield made
    made.stop()
    gc.unfreeze()


@pytest.mark.parametrize("turn", [1, 2])
def test_what_a_test_freezes_is_looked_at_again_in_the_next(turn: int) -> None:
    """As what an `ottla serve` within a test has frozen: whoever looks for garbage later would find its."""
    assert gc.get_freeze_count() == 0
    gc.freeze()
    assert gc.get_freeze_count() > 0


def test_the_collector_is_left_as_it_was() -> None:
    thresholds, callbacks = gc.get_threshold(), list(gc.callbacks)
    made = ShortCollections(thread_cpu_ms)
    made.start()
    assert gc.get_threshold() != thresholds and len(gc.callbacks) == len(callbacks) + 1
    made.stop()
    gc.unfreeze()
    assert gc.get_threshold() == thresholds and gc.callbacks == callbacks


def test_a_full_collection_looks_through_what_is_new(collections: ShortCollections) -> None:
    """However much there is, and without being asked for one."""
    things = [Thing() for _ in range(100_000)]
    assert collections.pauses.count > 100
    # Of 400,000 objects and more.
    assert len(gc.get_objects()) < 50_000
    assert len(things) == 100_000


def test_garbage_is_collected_and_what_is_frozen_goes_when_it_is_let_go(
    collections: ShortCollections,
) -> None:
    circle, alive = Thing(), Thing()
    circle.parts.append(circle)
    watched, kept = weakref.ref(circle), weakref.ref(alive)
    del circle
    gc.collect()
    assert watched() is None
    assert not any(one is alive for one in gc.get_objects())
    del alive
    assert kept() is None


def test_pauses_are_counted_by_cpu_time() -> None:
    cpu_ms = [0.0]
    made = ShortCollections(lambda: cpu_ms[0])
    made.start()
    counted = made.pauses.count

    def takes(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == OLDEST:
            cpu_ms[0] += 15.0

    gc.callbacks.append(takes)
    gc.collect()
    gc.callbacks.remove(takes)
    made.stop()
    gc.unfreeze()
    assert (made.pauses.count - counted, made.pauses.max_ms) == (1, 15.0)
