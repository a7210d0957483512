"""The pytest plugin: a broker for the session, a fresh topic for each test, faults that end with the test.

pytest loads this module in every run of every project that has Ottla installed, so it imports nothing until
a fixture is asked for.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from ottla.testing.broker import Broker
    from ottla.testing.faults import Faults

MARKER = "ottla(partitions=1, config={}): how the topic of `ottla_topic` is created for this test"

# Kafka allows topic names of 249 characters; ours stay short enough to read.
_NAME_LENGTH_MAX = 80
_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options; each but the port can also stand in the ini file."""
    group = parser.getgroup("ottla", "Ottla, the embedded Kafka broker")
    group.addoption(
        "--ottla-port",
        type=int,
        default=0,
        metavar="PORT",
        help="port of the broker; xdist's second worker takes the next, and so on (default: any free port)",
    )
    group.addoption(
        "--ottla-data",
        metavar="DIR",
        help="keep the broker's data in this directory (default: a temporary one, removed at the end)",
    )
    group.addoption(
        "--ottla-config",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a broker setting, named as in Kafka; may be given several times",
    )
    parser.addini("ottla_config", "broker settings, one NAME=VALUE a line", type="linelist", default=[])


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", MARKER)


class Worker(NamedTuple):
    """Which of xdist's workers this is; number 0 without xdist."""

    name: str
    number: int


def worker_of(config: pytest.Config) -> Worker:
    """The xdist worker that this process is."""
    name = getattr(config, "workerinput", {}).get("workerid", "")
    return Worker(name, int(re.sub(r"\D", "", name) or 0))


def broker_settings(config: pytest.Config) -> dict[str, str]:
    """The settings of the ini file, then those of the command line. UsageError where one is no pair."""
    pairs: dict[str, str] = {}
    for line in [*config.getini("ottla_config"), *config.getoption("--ottla-config")]:
        name, equals, value = line.partition("=")
        if not equals or not name.strip():
            raise pytest.UsageError(f"ottla_config: {line!r} is not NAME=VALUE")
        pairs[name.strip()] = value.strip()
    return pairs


def topic_name(test: str, number: int, worker: str) -> str:
    """A topic name that says which test it is for and that no other test of the run has."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", test).strip("-")[:_NAME_LENGTH_MAX]
    return "-".join(filter(None, (readable, worker, str(number))))


@pytest.fixture(scope="session")
def ottla_broker(pytestconfig: pytest.Config) -> Iterator[Broker]:
    """A broker that lives as long as the session: `ottla.testing.Broker`, started."""
    from pathlib import Path

    from ottla.testing.broker import Broker

    worker = worker_of(pytestconfig)
    port = pytestconfig.getoption("--ottla-port")
    data = pytestconfig.getoption("--ottla-data")
    with Broker(
        config=broker_settings(pytestconfig),
        port=port + worker.number if port else 0,
        data=Path(data, worker.name) if data else None,
    ) as broker:
        yield broker


@pytest.fixture
def ottla_topic(ottla_broker: Broker, request: pytest.FixtureRequest) -> str:
    """The name of a topic made for this test alone; ``@pytest.mark.ottla(partitions=3)`` says how."""
    marker = request.node.get_closest_marker("ottla")
    options = marker.kwargs if marker is not None else {}
    name = topic_name(request.node.name, next(_numbers), worker_of(request.config).name)
    ottla_broker.create_topic(name, **options)
    return name


@pytest.fixture
def ottla_faults(ottla_broker: Broker) -> Iterator[Faults]:
    """The broker's faults; those that the test starts end with it, and `requests` begins empty."""
    faults = ottla_broker.faults
    faults.forget()
    yield faults
    faults.clear()
