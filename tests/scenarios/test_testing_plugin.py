"""The pytest plugin as a project that uses Ottla sees it: whole pytest runs in a directory of their own."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import cast

import pytest

from ottla.testing import Broker, plugin

PRELUDE = """
from confluent_kafka import Producer

def send(broker, topic, value):
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
    producer.produce(topic, value, partition=0)
    assert producer.flush(20) == 0
"""


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """A run in a process of its own, with no plugin but ours and those named."""
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *args, timeout=120)


def test_fixtures_are_there_without_any_configuration(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        PRELUDE
        + """
import pytest

addresses = set()

def test_a_message(ottla_broker, ottla_topic):
    addresses.add(ottla_broker.bootstrap_servers)
    send(ottla_broker, ottla_topic, b"1")
    assert [r.value for r in ottla_broker.records(ottla_topic)] == [b"1"]
    assert ottla_topic.startswith("test_a_message")

def test_each_test_has_a_fresh_topic_and_the_session_one_broker(ottla_broker, ottla_topic):
    addresses.add(ottla_broker.bootstrap_servers)
    assert ottla_broker.records(ottla_topic) == []
    assert len(addresses) == 1

@pytest.mark.parametrize("value", ["a/b c", "..", "x" * 300, "é"])
def test_any_parameter(ottla_broker, ottla_topic, value):
    assert ottla_topic in ottla_broker.topics()

@pytest.mark.ottla(partitions=3, config={"max.message.bytes": 100})
def test_marked(ottla_broker, ottla_topic):
    assert ottla_broker.topics()[ottla_topic] == 3

@pytest.mark.xfail(strict=True, raises=AssertionError)
def test_faults_begin(ottla_broker, ottla_faults):
    ottla_faults.refuse_connections()
    assert False

def test_faults_ended_with_their_test(ottla_broker, ottla_faults, ottla_topic):
    assert ottla_faults.rules == () and ottla_faults.requests == ()
    send(ottla_broker, ottla_topic, b"1")
    assert ottla_faults.seen("Produce", topic=ottla_topic)
"""
    )
    run(pytester, "--strict-markers").assert_outcomes(passed=8, xfailed=1)


def test_settings_from_the_ini_file_and_the_command_line(pytester: pytest.Pytester) -> None:
    pytester.makeini(
        """
        [pytest]
        ottla_config =
            message.max.bytes=1000
            num.partitions = 3
        """
    )
    pytester.makepyfile(
        """
def test_settings(ottla_broker):
    config = ottla_broker._node.config
    assert (config.get("message.max.bytes"), config.get("num.partitions")) == (2000, 3)
"""
    )
    run(pytester, "--ottla-config", "message.max.bytes=2000").assert_outcomes(passed=1)


def test_a_setting_that_is_no_pair_is_explained(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(ottla_broker): pass")
    result = run(pytester, "--ottla-config", "nonsense")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*'nonsense' is not NAME=VALUE*"])


def test_data_are_kept_where_asked(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(ottla_topic): pass")
    run(pytester, "--ottla-data", "kept").assert_outcomes(passed=1)
    assert (pytester.path / "kept" / "meta.properties").exists()
    assert (pytester.path / "kept" / "test_it-1-0").is_dir()


def test_each_xdist_worker_has_its_own_broker(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        PRELUDE
        + """
import os, pathlib, pytest

@pytest.mark.parametrize("number", range(6))
def test_it(ottla_broker, ottla_topic, number):
    send(ottla_broker, ottla_topic, b"1")
    assert len(ottla_broker.records(ottla_topic)) == 1
    pathlib.Path(os.environ["PYTEST_XDIST_WORKER"] + "." + str(ottla_broker.port)).touch()
"""
    )
    run(pytester, "-n", "2", "--dist", "each", "--ottla-data", "kept").assert_outcomes(passed=12)
    seen = sorted(path.name for path in pytester.path.glob("gw*"))
    workers, ports = zip(*(name.split(".") for name in seen), strict=True)
    assert workers == ("gw0", "gw1")
    assert len(set(ports)) == 2
    assert sorted(path.name for path in (pytester.path / "kept").iterdir()) == ["gw0", "gw1"]


def test_a_run_that_does_not_use_it_does_not_load_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import sys

def test_it():
    loaded = {name for name in sys.modules if name.startswith("ottla")}
    assert loaded == {"ottla", "ottla.implementation", "ottla.testing", "ottla.testing.plugin"}
    assert "kio" not in sys.modules and "uvloop" not in sys.modules
"""
    )
    run(pytester).assert_outcomes(passed=1)


def test_it_can_be_turned_off(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(ottla_broker): pass")
    run(pytester, "-p", "no:ottla").assert_outcomes(errors=1)


def test_help_names_the_options(pytester: pytest.Pytester) -> None:
    done = pytester.run(sys.executable, "-m", "pytest", "--help")
    done.stdout.fnmatch_lines(["*--ottla-port=PORT*", "*--ottla-data=DIR*", "*--ottla-config=NAME=VALUE*"])


def test_brokers_of_a_test_alone_and_a_cluster(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nottla_config = num.partitions=3")
    pytester.makepyfile(
        PRELUDE
        + """
brokers = []

def test_one(ottla_own_broker, ottla_broker):
    assert ottla_own_broker is not ottla_broker
    brokers.append(ottla_own_broker)
    assert ottla_own_broker._node.config.get("num.partitions") == 3

def test_two(ottla_make_broker):
    assert not brokers[0].running
    one = ottla_make_broker(topics=["a"], config={"num.partitions": 5})
    other = ottla_make_broker(topics=["b"])
    assert (one.topics(), other.topics()) == ({"a": 1}, {"b": 1})
    assert one._node.config.get("num.partitions") == 5

def test_a_cluster(ottla_cluster):
    ottla_cluster.create_topic("orders")
    ottla_cluster.kill(2)

def test_it_is_as_it_was(ottla_cluster):
    assert ottla_cluster.running == (1, 2, 3)
    assert ottla_cluster.topics() == {}
"""
    )
    run(pytester).assert_outcomes(passed=4)


OUTSIDE = (
    PRELUDE
    + """
import pytest

@pytest.mark.ottla(partitions=2)
def test_topic(ottla_broker, ottla_topic):
    send(ottla_broker, ottla_topic, b"1")
    assert [r.value for r in ottla_broker.wait_for_records(ottla_topic)] == [b"1"]
    assert ottla_broker.topics()[ottla_topic] == 2
    with pytest.raises(AttributeError, match="'restart' needs a broker in the test's process"):
        ottla_broker.restart()

def test_faults(ottla_faults): ...
def test_own(ottla_own_broker): ...
def test_cluster(ottla_cluster): ...
"""
)


def test_a_broker_outside(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(OUTSIDE)
    with Broker() as broker:
        ran = run(pytester, "-rs", f"--ottla-bootstrap={broker.bootstrap_servers}")
        ran.assert_outcomes(passed=1, skipped=3)
        ran.stdout.fnmatch_lines(
            [
                f"ottla: the tests use the broker at {broker.bootstrap_servers}",
                "*ottla_faults needs a broker in the test's process, and the tests use that at 127.0.0.1:*",
            ]
        )
        # Nothing is left of the tests.
        assert broker.topics() == {}


def config(**options: object) -> pytest.Config:
    """What the plugin reads of pytest's configuration."""
    asked = {"--ottla-bootstrap": None, "--ottla-config": [], "--ottla-data": None, "--ottla-port": 0}
    asked |= {f"--ottla-{name}": value for name, value in options.items()}
    return cast(pytest.Config, SimpleNamespace(getoption=asked.__getitem__))


def test_where_a_broker_outside_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTTLA_TEST_BOOTSTRAP", raising=False)
    # That of the commands may be of a cluster in which no test is to create and delete topics.
    monkeypatch.setenv("OTTLA_BOOTSTRAP", "production:9092")
    assert plugin.outside(config(port=9092)) is None
    monkeypatch.setenv("OTTLA_TEST_BOOTSTRAP", "from.env:9092")
    assert plugin.outside(config()) == "from.env:9092"
    assert plugin.outside(config(bootstrap="asked:9092")) == "asked:9092"
    with pytest.raises(pytest.UsageError, match="--ottla-port has no effect on the broker outside"):
        plugin.outside(config(port=9092))


def test_an_option_that_the_marker_does_not_have() -> None:
    assert plugin.topic_options(pytest.mark.ottla(partitions=3).mark) == {"partitions": 3}
    assert plugin.topic_options(None) == {}
    with pytest.raises(pytest.UsageError, match=r"has no option 'partition'\. Did you mean 'partitions'"):
        plugin.topic_options(pytest.mark.ottla(partition=3).mark)
    with pytest.raises(pytest.UsageError, match=r"has no option 'x'\. The options are 'config', 'p"):
        plugin.topic_options(pytest.mark.ottla(x=3).mark)
