"""Every example of every command's help is run, in order, by one process against one broker."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from interop.process import BrokerProcess
from ottla.cli.app import app_of, run
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples_of

SETTINGS = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
    "group.initial.rebalance.delay.ms": "0",
}
# Examples, by how they begin, that one broker by itself cannot run, or not in the time of this test. Where a
# test of their own does, it is named.
NOT_RUN = {
    "ottla serve": "a broker is running: test_broker_process.py",
    "ottla consume orders --follow": "it does not end: test_cli_terminal.py",
    "ottla consume orders --group billing --max 100": "there are no 100 messages",
    "ottla top": "test_cli_top.py",
    "ottla trace": "test_trace.py",
    "ottla simulate": "the tests of ottla.explore",
    "ottla explore": "it needs a program: docs/EXPLORE.md",
    "ottla profile": "test_cli_profiles.py",
    "ottla token": "it asks for a login: test_token_command.py",
    "ottla user create": "it asks for a password, or needs a file: test_users.py",
    "ottla user delete": "there is no user",
    "ottla group remove-member": "there is no member of this name: test_cli_admin.py",
    "ottla topic trim orders --before 1000": "there are no 1000 messages: test_cli_admin.py",
    "ottla group delete-offsets billing --topic orders:0-2": "the example before it has deleted them",
    "ottla transaction abort": "nothing hangs: test_cli_transactions.py",
    "ottla feature upgrade --feature": "test_features.py",
    "ottla feature downgrade": "test_features.py",
    "ottla cluster": "it takes several nodes: test_cli_cluster.py, test_cli_cluster_up.py",
    "ottla log": "no broker may run, or its files are needed: test_cli_tools.py, test_strays.py",
    "ottla bench": "test_bench.py",
}
RUN = {"ottla cluster describe", "ottla cluster elect", "ottla cluster wait", "ottla cluster reassign --all"}
# What is there before the examples of a command.
BEFORE = {
    "ottla produce": ["ottla topic create orders orders-eu --partitions 6"],
    "ottla topic create": ["ottla topic delete orders orders-eu payments refunds --if-exists"],
    "ottla topic describe": ["printf 'a\\nb\\n' | ottla produce orders"],
    "ottla user list": ["printf 'secret\\n' | ottla user create alice --mechanism SCRAM-SHA-256"],
    "ottla group list": [
        "ottla topic create payments --if-not-exists",
        "ottla consume orders --group billing --timeout 0.2",
    ],
}


def commands(group: typer.Typer, path: str = "ottla") -> dict[str, Callable[..., object]]:
    found: dict[str, Callable[..., object]] = {}
    for command in group.registered_commands:
        assert command.callback is not None
        found[f"{path} {command.name or command.callback.__name__}"] = command.callback
    for child in group.registered_groups:
        assert child.typer_instance is not None
        found |= commands(child.typer_instance, f"{path} {child.name}")
    return found


def is_run(line: str) -> bool:
    ours = f"{line[line.index('ottla ') :]} "
    if any(ours.startswith(f"{one} ") for one in RUN) and "--to 1,2,3" not in ours:
        return True
    return not any(ours.startswith(f"{one} ") for one in NOT_RUN)


def typed(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Run a command line as a shell would: what comes before a pipe by a shell, the command in here. Returns
    what went wrong."""
    before, pipe, ours = line.rpartition(" | ")
    words = shlex.split(ours.partition(" < ")[0])
    data = folder / "stdin"
    made = subprocess.run(["sh", "-c", before], capture_output=True, check=True).stdout if pipe else b"a\nb\n"
    data.write_bytes(made)
    with open(data) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        try:
            code = run(words[1:])
        except CliError as error:
            return f"{line}: {error}"
    # A check ends with 1 where something is denied.
    return None if code == ExitCode.OK or words[1:3] == ["acl", "check"] else f"{line}: code {code}"


def test_every_example_does_what_it_says_it_does(
    ottla_process: Callable[..., BrokerProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OTTLA_BOOTSTRAP", ottla_process(SETTINGS).bootstrap)
    monkeypatch.chdir(tmp_path)
    wrong = []
    for path, function in commands(app_of()).items():
        lines = filter(is_run, (example.line for example in examples_of(function)))
        for line in (*BEFORE.get(path, ()), *lines):
            wrong.append(typed(line, tmp_path, monkeypatch))
    assert "\n".join(filter(None, wrong)) == ""
    assert "hello" in capfd.readouterr().out


def test_what_is_not_run_is_there() -> None:
    lines = [one.line for function in commands(app_of()).values() for one in examples_of(function)]
    for beginning in (*NOT_RUN, *RUN):
        assert any(beginning in line for line in lines), beginning
    assert sum(map(is_run, lines)) >= 80
