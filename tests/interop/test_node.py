"""The clients in Node.js, through the small programs in `node/`: kafkajs and @platformatic/kafka; and a test
in Node.js that drives a broker by its control port.

scripts/interop-deps.sh installs the packages beside the programs.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ottla.testing import Broker

NODE = Path(__file__).parent / "node"
RUN_TIMEOUT_S = 120


@pytest.fixture
def node(bootstrap: str, name: str) -> Callable[[str, str], Any]:
    """node(program, subcommand) gives what the program printed; its topic and group are called `name`."""
    assert (NODE / "node_modules" / "kafkajs").exists(), "no packages: run scripts/interop-deps.sh"

    def run(program: str, subcommand: str) -> Any:
        command = ["node", str(NODE / program), bootstrap, subcommand, name]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=RUN_TIMEOUT_S)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


Node = Callable[[str, str], Any]


def test_a_broker_is_driven_by_its_control_port(name: str) -> None:
    with Broker(control=True) as broker:
        program = str(NODE / "control.mjs")
        command = ["node", program, broker.bootstrap_servers, broker.control_address, name]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=RUN_TIMEOUT_S)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {
            "faults": ["NOT_ENOUGH_REPLICAS", "NOT_ENOUGH_REPLICAS", None],
            "hits": 2,
            "ended": True,
            "count": 3,
            "values": ["an order", "sent again", "sent again"],
            "refused": "UNKNOWN_FAULT: There is no fault 'fial'. Did you mean 'fail'?",
        }


def test_kafkajs_records(node: Node) -> None:
    assert node("kafkajs.cjs", "records") == {"read": 260}


def test_kafkajs_group(node: Node) -> None:
    assert node("kafkajs.cjs", "group") == {
        "read": 120,
        "state": "Stable",
        "protocol": "RoundRobinAssigner",
        "members": 2,
        "committed": [30, 30, 30, 30],
    }


def test_kafkajs_admin(node: Node, bootstrap: str) -> None:
    assert node("kafkajs.cjs", "admin") == {
        "again": False,
        "bad": "INVALID_TOPIC_EXCEPTION",
        "partitions": 3,
        "retention": "-1",
        "byTime": "5",
        "low": "3",
        "offset": "5",
        "listed": True,
        "deleted": 0,
        "missing": "GROUP_ID_NOT_FOUND",
        "brokers": [bootstrap],
        "topics": False,
    }


def test_platformatic_records(node: Node) -> None:
    assert node("platformatic.mjs", "records") == {"read": True}


def test_platformatic_group(node: Node) -> None:
    assert node("platformatic.mjs", "group") == {"read": 120, "state": "STABLE", "members": 2}


def test_platformatic_admin(node: Node) -> None:
    assert node("platformatic.mjs", "admin") == {
        "listed": True,
        "retention": "777777",
        "partitions": 3,
        "low": 3,
        "offset": 5,
        "group": True,
        "left": False,
    }


# Of six transactions every other one is aborted; then one is fenced, and one committed.
COMMITTED = ["0", "2", "4", "last"]
UNCOMMITTED = ["0", "1", "2", "3", "4", "5", "of the zombie", "last"]


def test_kafkajs_transactions(node: Node) -> None:
    assert node("kafkajs.cjs", "transactions") == {
        "fenced": "INVALID_PRODUCER_EPOCH",
        "committed": [COMMITTED] * 2,
        "uncommitted": [UNCOMMITTED] * 2,
        "offset": "5",
    }


def test_platformatic_transactions(node: Node) -> None:
    """It has EndTxn up to version 4, so the transactions of transaction.version 1 on a cluster that has 2."""
    assert node("platformatic.mjs", "transactions") == {
        "fenced": "PRODUCER_FENCED",
        "committed": [["0", "1", "last"]] * 2,
        "uncommitted": [["0", "1", "2", "last"]] * 2,
        "offset": 2,
        "settled": [8, 8],
    }
