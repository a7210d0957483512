"""The README does what it says: its commands and its programs are run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from interop.process import BrokerProcess

ROOT = Path(__file__).parents[2]
ADDRESS = "127.0.0.1:9092"


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def block(page: str, language: str, having: str) -> str:
    (found,) = (text for text in blocks(page, language) if having in text)
    return found


def test_the_commands_write_and_read_the_first_messages(ottla_server: BrokerProcess) -> None:
    commands = block("README.md", "sh", "ottla produce").replace(".venv/bin/ottla", "ottla")
    done = subprocess.run(
        ["sh", "-ec", commands],
        env=os.environ
        | {
            "OTTLA_BOOTSTRAP": ottla_server.bootstrap,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["one", "two", "three"]


def test_the_client_program_reads_what_it_wrote(ottla_process: Any) -> None:
    broker = ottla_process()
    program = block("README.md", "python", "consumer.poll")
    assert ADDRESS in program
    done = subprocess.run(
        [sys.executable, "-c", program.replace(ADDRESS, broker.bootstrap)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "b'me' b'hello' at offset 0\n"


def test_the_test_passes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(block("README.md", "python", "broker.faults"))
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_the_serving_examples_name_options_that_exist() -> None:
    help_text = subprocess.run(
        [Path(sys.executable).parent / "ottla", "serve", "--help"],
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    examples = [text for text in blocks("README.md", "sh") if "ottla serve" in text]
    assert len(examples) == 3
    for option in re.findall(r"--[a-z-]+", "".join(examples)):
        assert option in help_text


def test_the_examples_of_the_testing_guide_run() -> None:
    """Those that stand on their own, one after the other on one broker."""
    from ottla.testing import Broker

    helpers = block("docs/TESTING.md", "python", "broker.create_topic")
    faults = block("docs/TESTING.md", "python", "broker.faults.delay")
    with Broker() as broker:
        exec(compile(helpers, "TESTING.md", "exec"), {"broker": broker})
        assert broker.topics() == {"orders": 3}
        assert [record.value for record in broker.records("orders")] == [b"first", b"second"]
        exec(compile(faults, "TESTING.md", "exec"), {"broker": broker})
        assert len(broker.faults.rules) == 6
