"""The pytest plugin: a broker for the session, a fresh topic for each test, faults that end with the test.

pytest loads this module in every run of every project that has Ottla installed, so it imports nothing until
a fixture is asked for.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from ottla.testing.broker import Broker
    from ottla.testing.cluster import Cluster
    from ottla.testing.faults import Faults

MARKER = "ottla(partitions=1, config={}): how the topic of `ottla_topic` is created for this test"

MARKER_OPTIONS = ("partitions", "config")
# It is not OTTLA_BOOTSTRAP, the address for the commands: tests must not create and delete topics in a
# cluster that somebody only wanted to look at.
BOOTSTRAP_VARIABLE = "OTTLA_TEST_BOOTSTRAP"
CLUSTER_NODES = 3

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
    group.addoption(
        "--ottla-bootstrap",
        metavar="HOST:PORT",
        help="use this broker outside of the test's process, such as Apache Kafka; tests that need faults or "
        f"a broker of their own are skipped (default: {BOOTSTRAP_VARIABLE} of the environment, or none)",
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


def outside(config: pytest.Config) -> str | None:
    """The address of the broker outside that the tests are to use. UsageError with options that it has no use
    for."""
    found: str | None = config.getoption("--ottla-bootstrap") or os.environ.get(BOOTSTRAP_VARIABLE) or None
    if found is not None:
        for option in ("--ottla-config", "--ottla-data", "--ottla-port"):
            if config.getoption(option):
                raise pytest.UsageError(f"{option} has no effect on the broker outside, at {found}")
    return found


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say which broker is used, unless it is one of the tests."""
    found = outside(config)
    return None if found is None else f"ottla: the tests use the broker at {found}"


def _skip_outside(config: pytest.Config, what: str) -> None:
    found = outside(config)
    if found is not None:
        pytest.skip(f"{what} needs a broker in the test's process, and the tests use that at {found}")


def topic_options(marker: pytest.Mark | None) -> dict[str, Any]:
    """How the topic of a test is created. UsageError for an option that does not exist."""
    options = {} if marker is None else marker.kwargs
    for name in options:
        if name not in MARKER_OPTIONS:
            from ottla.testing.names import did_you_mean, listed

            near = did_you_mean(name, MARKER_OPTIONS) or f" The options are {listed(MARKER_OPTIONS)}."
            raise pytest.UsageError(f"@pytest.mark.ottla has no option {name!r}.{near}")
    return dict(options)


@pytest.fixture(scope="session")
def ottla_broker(pytestconfig: pytest.Config) -> Iterator[Broker]:
    """A broker that lives as long as the session: `ottla.testing.Broker`, started; with --ottla-bootstrap an
    `OutsideBroker`."""
    from pathlib import Path

    if (address := outside(pytestconfig)) is not None:
        from ottla.testing.outside import OutsideBroker

        try:
            yield OutsideBroker(address)  # type: ignore[misc]
        except ValueError as error:
            raise pytest.UsageError(f"--ottla-bootstrap: {error}") from None
        return

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
def ottla_topic(ottla_broker: Broker, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a topic made for this test alone; ``@pytest.mark.ottla(partitions=3)`` says how."""
    options = topic_options(request.node.get_closest_marker("ottla"))
    name = topic_name(request.node.name, next(_numbers), worker_of(request.config).name)
    is_outside = outside(request.config) is not None
    if is_outside:
        # Other runs may use it at the same time, and nothing may stay there.
        name += f"-{os.urandom(4).hex()}"
    ottla_broker.create_topic(name, **options)
    yield name
    if is_outside and name in ottla_broker.topics():
        ottla_broker.delete_topic(name)


@pytest.fixture
def ottla_faults(request: pytest.FixtureRequest) -> Iterator[Faults]:
    """The broker's faults; those that the test starts end with it, and `requests` begins empty."""
    _skip_outside(request.config, "ottla_faults")
    faults = request.getfixturevalue("ottla_broker").faults
    faults.forget()
    yield faults
    faults.clear()


@pytest.fixture
def ottla_make_broker(pytestconfig: pytest.Config) -> Iterator[Callable[..., Broker]]:
    """Makes brokers for this test alone: ``ottla_make_broker(topics=["orders"])`` is a started `Broker` with
    these options and the settings of ``ottla_config``; it stops with the test."""
    _skip_outside(pytestconfig, "ottla_make_broker")
    from ottla.testing.broker import Broker

    settings = broker_settings(pytestconfig)
    with ExitStack() as made:

        def make(**options: Any) -> Broker:
            return made.enter_context(Broker(**options | {"config": settings | options.get("config", {})}))

        yield make


@pytest.fixture
def ottla_own_broker(ottla_make_broker: Callable[..., Broker]) -> Broker:
    """A broker for this test alone."""
    return ottla_make_broker()


@pytest.fixture(scope="session")
def _ottla_session_cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    _skip_outside(pytestconfig, "ottla_cluster")
    from ottla.testing.cluster import Cluster

    with Cluster(CLUSTER_NODES, config=broker_settings(pytestconfig)) as cluster:
        yield cluster


@pytest.fixture
def ottla_cluster(_ottla_session_cluster: Cluster) -> Cluster:
    """A cluster of three nodes: `ottla.testing.Cluster`. It is started once in the session, and reset before
    each test that uses it."""
    _ottla_session_cluster.reset()
    return _ottla_session_cluster
