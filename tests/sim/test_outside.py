"""Libraries in C with threads and sockets of their own do not leave a run that then passes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ottla.explore.plan import Plan
from ottla.explore.workers import Workers

OUTSIDE = Path(__file__).with_name("outside.py")


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(str(OUTSIDE)) as made:
        yield made


def error_of(workers: Workers, test: str) -> str:
    (run,) = workers.runs([Plan(test=test, seed=1)])
    return run.error


@pytest.mark.parametrize(
    ("test", "line"),
    [
        ("consumer", "Consumer(NOWHERE).poll"),
        ("producer", "SerializingProducer(NOWHERE)"),
        ("admin", "AdminClient(NOWHERE)"),
        ("asynchronous", "AIOProducer(NOWHERE)"),
        ("asynchronous_consumer", "AIOConsumer(NOWHERE)"),
        ("made_before", "MADE.produce("),
        ("by_the_test", "    confluent_kafka.Producer(NOWHERE)"),
    ],
)
def test_a_client_of_librdkafkas_is_refused_at_the_users_line(workers: Workers, test: str, line: str) -> None:
    (number,) = [at for at, text in enumerate(OUTSIDE.read_text().splitlines(), 1) if line in text]
    error = error_of(workers, test)
    assert error.startswith(f"NotSimulated: {OUTSIDE}:{number}"), error
    assert error.endswith("with `ottla.explore.explore_real`") and "librdkafka" in error


def test_what_a_package_tries_when_it_is_imported_is_refused_and_fails_no_run(workers: Workers) -> None:
    assert error_of(workers, "imports_what_tries") == ""


def test_what_else_its_package_has_is_served(workers: Workers) -> None:
    assert error_of(workers, "imported") == ""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which threads there are")
@pytest.mark.parametrize("test", ["talks", "talks_at_the_end", "talks_while_all_settles"])
def test_threads_in_c_that_talk_to_others_fail_the_run(workers: Workers, test: str) -> None:
    error = error_of(workers, test)
    assert error.startswith("NotSimulated: real threads with sockets or pipes of their own run beside")


@pytest.mark.parametrize("test", ["computes", "opens"])
def test_threads_that_compute_and_files_without_threads_are_let_be(workers: Workers, test: str) -> None:
    assert error_of(workers, test) == ""
