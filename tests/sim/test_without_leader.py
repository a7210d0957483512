"""A bug of aiokafka that exploring found: a producer with idempotence is stuck after a time without a leader.

The symptom was known without a cause (https://github.com/aio-libs/aiokafka/issues/1017).
"""

from __future__ import annotations

from pathlib import Path

import soak
from ottla.explore.exploring import runs

FILE = Path(__file__).with_name("without_leader.py")


def test_numbers_of_records_that_were_given_up_are_missing() -> None:
    """Where this fails because nothing is found, aiokafka may have mended it."""
    found = next(run.error for run in runs(f"{FILE}::given_up", 1, 100) if run.error)
    assert found.startswith("OutOfOrderSequenceNumber"), found


def test_a_record_that_is_not_given_up_leaves_no_gap() -> None:
    for name in ("patient", "never_given_up"):
        for run in runs(f"{FILE}::{name}", 1, soak.amount(4, 200)):
            assert not run.error, f"{name}, seed {run.seed}: {run.error}"
