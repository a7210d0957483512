"""docs/FROM-KAFKA.md: each line of Ottla and of kcat runs, in the page's order, against one broker.

Ottla's lines run in this process, which takes milliseconds each.
"""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ottla.cli.app import run
from ottla.testing import Broker
from pages.page import ROOT

PAGE = ROOT / "docs" / "FROM-KAFKA.md"
ADDRESS = "localhost:9092"
CODE = re.compile(r"`([^`]+)`")
AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
}

# Lines that are not run here, by how they begin, and the test that runs them.
NOT_RUN = {
    "ottla serve": "tests/pages/test_pages.py, of other pages",
    "ottla cluster up": "tests/scenarios/test_cli_cluster_up.py",
    "ottla cluster drain": "tests/scenarios/test_cli_cluster.py",
    "ottla bench": "tests/scenarios/test_bench.py; it starts processes",
    "ottla token": "tests/security/test_token_command.py; it needs a login",
}


def lines() -> Iterator[tuple[str, str]]:
    """(tool, line) of each command that is to be run, in the page's order; those of kcat first in a row."""
    for row in PAGE.read_text().splitlines():
        if not row.startswith("| ") or row.startswith(("| Job", "| ---")):
            continue
        cells = [cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        for cell in cells[1:-1]:
            for line in CODE.findall(cell):
                # A whole line, not a part of one.
                if re.search(r"\bkcat\b", line) and ADDRESS in line:
                    yield "kcat", line
        found = CODE.findall(cells[-1])
        assert found or cells[-1].endswith("."), f"no line of Ottla: {row}"
        for line in found:
            yield "ottla", line


def shell(line: str, broker: Broker, folder: Path, stdin: bytes = b"") -> bytes:
    """What bash makes of a line."""
    done = subprocess.run(
        ["bash", "-c", line.replace(ADDRESS, broker.bootstrap_servers)],
        cwd=folder,
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (line, done.stderr.decode())
    return done.stdout


def ottla(words: list[str], stdin: bytes, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What a command prints that must succeed."""
    with tempfile.TemporaryFile() as given:
        given.write(stdin)
        given.seek(0)
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdin", io.TextIOWrapper(given))
            patched.setattr(sys, "stdout", out)
            code = run(words)
        assert code == 0, words
        return out.buffer.getvalue()  # type: ignore[attr-defined]


def follow(line: str, broker: Broker, folder: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Run a line as a shell would: commands of ours here, what else there is in it by bash."""
    piped = b""
    for part in re.split(r" \| ", line):
        if part.startswith("ottla "):
            piped = ottla(shlex.split(part)[1:], piped, monkeypatch)
        else:
            piped = shell(part, broker, folder, piped)
    return piped


def test_each_line_of_ours_and_of_kcat_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has_kcat = shutil.which("kcat") is not None
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    ran = 0
    with Broker(config=AUTHORIZER, data=tmp_path / "data") as broker:
        monkeypatch.setenv("OTTLA_BOOTSTRAP", broker.bootstrap_servers)
        for tool, line in lines():
            if any(line.startswith(begin) for begin in NOT_RUN):
                continue
            if tool == "kcat":
                if has_kcat:
                    shell(line, broker, tmp_path)
                continue
            if line.startswith("ottla log verify"):
                assert broker.topics().keys() >= {"orders", "copied"}
                broker.stop()
            follow(line, broker, tmp_path, monkeypatch)
            ran += 1
    assert ran > 70


def test_what_is_not_run_is_there() -> None:
    ours = [line for tool, line in lines() if tool == "ottla"]
    assert all(any(line.startswith(begin) for line in ours) for begin in NOT_RUN)


def test_a_line_that_fails_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Broker() as broker:
        monkeypatch.setenv("OTTLA_BOOTSTRAP", broker.bootstrap_servers)
        assert follow("echo one | ottla produce t --report", broker, tmp_path, monkeypatch)
        with pytest.raises(AssertionError):
            follow("kcat -C -b localhost:9092 -t none -o nonsense", broker, tmp_path, monkeypatch)
        with pytest.raises(Exception, match="does not exist"):
            follow("ottla consume none", broker, tmp_path, monkeypatch)
