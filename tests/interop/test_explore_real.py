"""Programs on librdkafka in worlds in real time: bugs are found with few seeds, and the mended twins pass."""

from __future__ import annotations

from typing import Any

import pytest

from interop import real_shop
from ottla.explore import Broken

# As many as somebody would try. Most runs find the bug, but none has to: time is real.
SEEDS = 6


def first_failure(explored: Any) -> AssertionError:
    for seed in range(1, SEEDS + 1):
        try:
            explored.exploration.run(seed)
        except AssertionError as error:
            (note,) = error.__notes__
            assert note.startswith(f"seed {seed}, in real time.")
            return error
    pytest.fail(f"none of {SEEDS} seeds has found it")


def test_a_commit_before_the_work_is_found() -> None:
    error = first_failure(real_shop.commit_first)
    assert isinstance(error, Broken) and "lost" in str(error)
    assert "program-kill shipping" in error.__notes__[0]


def test_a_commit_after_the_work_passes() -> None:
    real_shop.commit_last.exploration.run(1)


def test_a_producer_that_is_not_flushed_is_found() -> None:
    error = first_failure(real_shop.no_flush)
    assert not isinstance(error, Broken)
    assert "shop.1 has ended" in error.__notes__[0]


def test_a_producer_that_is_flushed_passes() -> None:
    real_shop.flush.exploration.run(2)
