"""`ottla transaction`, and transactions of `ottla produce` and `consume`, against a real broker."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from cli_support import Ottla
from test_transactions_versions import Transactional

from interop.process import BrokerProcess, wait_until
from interop.raw import RawClient


@pytest.fixture(scope="module")
def broker(ottla_process_module: Callable[..., BrokerProcess]) -> BrokerProcess:
    return ottla_process_module({"transaction.state.log.num.partitions": "1"})


@pytest.fixture
def ottla(broker: BrokerProcess) -> Ottla:
    return Ottla(broker.bootstrap)


def produced(ottla: Ottla, topic: str, *words: str) -> str:
    """Send five lines in transactions; what was said."""
    options = ("--transactional-id", topic, *words)
    return ottla("produce", topic, *options, stdin=b"0\n1\n2\n3\n4\n").out


def test_what_is_open_is_listed_described_and_terminated(
    broker: BrokerProcess, ottla: Ottla, name: str
) -> None:
    with RawClient(broker.bootstrap) as client:
        transactional = Transactional(client, name)
        producer = transactional.begin()
        transactional.add(producer, 0, 1)
    words = ("transaction", "list", "--json", "--transactional-id-pattern", f"{name}.*", "--state")
    one = {"transactional_id": name, "coordinator_id": 1, "producer_id": producer[0], "state": "Ongoing"}
    assert ottla(*words, "Ongoing").json == [one]
    assert ottla(*words, "Empty").json == []
    assert ottla("transaction", "list", "--json", "--duration-filter", "9999999").json == []
    described = ottla("transaction", "describe", name, "--json").json
    assert (
        described.items() >= {**one, "timeout_ms": 60_000, "partitions": [f"{name}-0", f"{name}-1"]}.items()
    )
    assert described["duration_ms"] >= 0
    said = ottla("transaction", "force-terminate", name).out
    assert said == f"{name}: nothing is open any more, and its producer is fenced\n"
    after = ottla("transaction", "describe", name, "--json").json
    assert after["partitions"] == []
    assert after["producer_epoch"] > producer[1]
    assert "is not known" in ottla.fails(4, "transaction", "describe", f"{name}-x").err


def test_what_hangs_is_found_and_aborted(broker: BrokerProcess, ottla: Ottla, name: str) -> None:
    """One that the coordinator knows is no such; it can be aborted in its partition all the same."""
    ottla("topic", "create", name)
    producing = ottla.start("produce", name, "--transactional-id", name, stdin=subprocess.PIPE)
    assert producing.stdin is not None
    producing.stdin.write(b"one\n")
    producing.stdin.flush()
    place = ("-t", name, "-p", "0")

    def started() -> Any:
        states = ottla("transaction", "describe-producers", *place, "--json").json
        return next((one for one in states if one["start_offset"] is not None), None)

    try:
        wait_until(lambda: started() is not None)
        found = started()
        assert (found["start_offset"], found["last_sequence"]) == (0, 0)
        assert (
            ottla("transaction", "find-hanging", *place, "--max-transaction-timeout", "0", "--json").json
            == []
        )
        assert ottla("consume", name).out == ""
        assert ottla("consume", name, "--isolation", "read_uncommitted").out == "one\n"
        assert (
            "no transaction that begins"
            in ottla.fails(4, "transaction", "abort", *place, "--start-offset", "5").err
        )
        ottla("transaction", "abort", *place, "--start-offset", "0")
        assert started() is None
    finally:
        producing.kill()
        producing.communicate()


def test_lines_go_in_transactions(ottla: Ottla, name: str) -> None:
    ottla("topic", "create", name)
    assert produced(ottla, name, "--transaction-messages", "2") == ""
    # Each of the three transactions has a marker behind it.
    assert ottla("consume", name, "--format", "{offset}:{value}").out.split() == [
        "0:0",
        "1:1",
        "3:2",
        "4:3",
        "6:4",
    ]
    assert ottla("transaction", "describe", name, "--json").json["state"] == "CompleteCommit"


def test_what_is_open_at_an_error_is_aborted(ottla: Ottla, name: str) -> None:
    ottla("topic", "create", name)
    options = ("--transactional-id", name, "--transaction-messages", "2", "--json", "--report")
    lines = b'{"value": "a"}\n{"value": "b"}\n{"value": "c"}\nnonsense\n'
    ran = ottla.fails(2, "produce", name, *options, stdin=lines)
    assert "line 4: " in ran.err
    assert ran.err.endswith("(2 messages in 1 transaction committed, 1 aborted)\n")
    assert [place["offset"] for place in ran.json_lines] == [0, 1]
    assert ottla("consume", name).out == "a\nb\n"


def interrupted(ottla: Ottla, name: str, *options: str, level: str) -> str:
    """What is said at Ctrl-C, once the one line that was sent can be read at an isolation level."""
    ottla("topic", "create", name)
    producing = ottla.start("produce", name, "--transactional-id", name, *options, stdin=subprocess.PIPE)
    assert producing.stdin is not None
    producing.stdin.write(b"one\n")
    producing.stdin.flush()
    try:
        wait_until(lambda: ottla("consume", name, "--isolation", level).out == "one\n")
        producing.send_signal(signal.SIGINT)
        _, said = producing.communicate(timeout=60)
    finally:
        producing.kill()
    assert producing.returncode == 130
    return said.decode().strip()


def test_an_interruption_aborts_what_is_open(ottla: Ottla, name: str) -> None:
    said = interrupted(ottla, name, level="read_uncommitted")
    assert said == "ottla: nothing was committed, 1 aborted"
    assert ottla("consume", name).out == ""


def test_a_transaction_ends_in_time_though_nothing_comes(ottla: Ottla, name: str) -> None:
    said = interrupted(ottla, name, "--transaction-seconds", "0.2", level="read_committed")
    assert said == "ottla: 1 message in 1 transaction committed"
    assert ottla("consume", name).out == "one\n"


def test_transactions_are_dumped(broker: BrokerProcess, ottla: Ottla, name: str) -> None:
    ottla("topic", "create", name)
    produced(ottla, name)

    def records(partition: str) -> list[dict[str, Any]]:
        words = ("log", "dump", str(broker.data / partition), "--type", "log", "--records", "--json")
        return [one for entry in ottla(*words).json_lines for one in entry["records"]]

    found = records("__transaction_state-0")
    states = [one["value"]["state"] for one in found if one.get("transactional_id") == name]
    assert states[-1] == "CompleteCommit"
    assert "Ongoing" in states
    marker = records(f"{name}-0")[-1]
    assert marker["control"] == "commit"
    assert marker["coordinator_epoch"] >= 0
