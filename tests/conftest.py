"""Fixtures that all tests share: real `ottla serve` processes, and how hard hypothesis looks.

A test that needs a broker to itself starts one with `ottla_process`; tests that get along with one another
share `ottla_server`, one process for each xdist worker. Tests of ottla as a library for tests use the
fixtures of its own pytest plugin (`ottla_broker`, `ottla_topic`).
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import soak
from interop.process import BrokerProcess
from ottla.logging_setup import Limiter

# Three workers share two cores with the brokers that they start: slowness is no finding, wrong is.
_CALM = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.differing_executors],
}
settings.register_profile("ottla", max_examples=soak.EXAMPLES, **_CALM)
settings.load_profile("ottla")

# Commands go by the profile of whoever runs the tests, if there is one: there is none.
os.environ["XDG_CONFIG_HOME"] = os.devnull

# A shell has what it runs in the background ignore Ctrl-C, and so would the processes that are tested by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Start = Callable[..., BrokerProcess]


@contextmanager
def _processes(directory: Callable[[], Path]) -> Iterator[Start]:
    started: list[BrokerProcess] = []

    def start(
        settings: dict[str, str] | None = None, *, data: Path | None = None, **limits: int
    ) -> BrokerProcess:
        broker = BrokerProcess(directory(), settings, data=data, **limits)
        started.append(broker)
        return broker.start()

    try:
        yield start
    finally:
        for broker in started:
            if broker.alive():
                broker.stop()
            print(f"--- stderr of the broker in {broker.directory}:\n{broker.log()}")


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """What a command that ran in this process did to signals ends with its test: processes that are started
    later would ignore, as `ottla serve` does in its end, what is to stop them. And what Ctrl-C has it ignore
    from then on (`Interrupts`), pytest is to notice in later tests."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    unraisable = sys.unraisablehook
    yield
    sys.unraisablehook = unraisable
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture
def ottla_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start a broker: ``ottla_process(settings={name: value}, data=directory)`` gives a `BrokerProcess` that
    serves on a free port. It is stopped after the test, which may also stop, kill and start it itself."""
    with _processes(lambda: tmp_path_factory.mktemp("broker")) as start:
        yield start


@pytest.fixture(scope="module")
def ottla_process_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """`ottla_process` for brokers that live as long as the module's tests."""
    with _processes(lambda: tmp_path_factory.mktemp("broker")) as start:
        yield start


@pytest.fixture(scope="session")
def ottla_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """One broker with the usual settings, for tests that do not mind each other's topics."""
    with _processes(lambda: tmp_path_factory.mktemp("broker")) as start:
        yield start()


@pytest.fixture(autouse=True)
def _nothing_of_a_process() -> Iterator[None]:
    """Take away what an `ottla serve` in this process leaves: its log, whose stream is closed when the test
    has ended, and garbage that it has frozen, which a later test of garbage would take for its own."""
    root = logging.getLogger()
    level = root.level
    yield
    gc.unfreeze()
    for handler in list(root.handlers):
        if any(isinstance(one, Limiter) for one in handler.filters):
            root.removeHandler(handler)
            root.setLevel(level)
