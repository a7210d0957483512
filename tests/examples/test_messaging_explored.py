"""The order service of the messaging example keeps its promise on a cluster whose nodes fail."""

from __future__ import annotations

from pathlib import Path

import soak
from ottla.explore.exploring import runs

EXPLORED = Path(__file__).with_name("orders_explored.py")
SEEDS = soak.amount(4, 500)


def test_every_order_is_taken_once() -> None:
    for run in runs(f"{EXPLORED}::every_order_is_taken_once", 1, SEEDS):
        assert not run.error, f"seed {run.seed}: {run.error}"


def test_a_service_that_asks_once_is_found() -> None:
    """The mistake that asking again under the same id is there for: an answer that is lost is waited for."""
    errors = (run.error for run in runs(f"{EXPLORED}::questions_are_asked_once", 1, 40))
    assert "orders" in next(error for error in errors if error)
