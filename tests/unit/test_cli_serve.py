"""`ottla serve`: the quick way in and the Typer app agree, and it imports little."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ottla.cli import app, serve
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.serve import Serve, parse

EVERYTHING = [
    "--data=/d",
    "--listen",
    "0.0.0.0:0",
    "--node-id",
    "7",
    "--advertise",
    "[::1]:9092",
    "--config",
    "server.properties",
    "--set",
    "a=1",
    "--set",
    "b = x=y ",
    "--log-format",
    "json",
    "--log-level",
    "debug",
]


def test_every_option_is_understood() -> None:
    assert parse(EVERYTHING) == Serve(
        data="/d",
        listen="0.0.0.0:0",
        node_id=7,
        advertise="[::1]:9092",
        config_file="server.properties",
        overrides={"a": "1", "b": "x=y"},
        log_format="json",
        log_level="debug",
    )
    assert parse([]) == Serve()


@pytest.mark.parametrize("arguments", [EVERYTHING, [], ["--set", "a=1", "--set", "a=2"]])
def test_the_typer_app_understands_the_same(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[Serve] = []
    monkeypatch.setattr(serve, "run", lambda options: got.append(options) or 3)
    assert app.run(["serve", *arguments]) == 3
    assert got == [parse(arguments)]


@pytest.mark.parametrize("arguments", [["--help"], ["--nope"], ["extra"], ["--data"], ["--node-id", "x"]])
def test_the_unusual_is_left_to_the_typer_app(arguments: list[str]) -> None:
    assert parse(arguments) is None


@pytest.mark.parametrize(
    ("options", "option"),
    [
        (Serve(listen="nope"), "--listen"),
        (Serve(listen=":9092"), "--listen"),
        (Serve(listen="h:65536"), "--listen"),
        (Serve(listen="h:-1"), "--listen"),
        (Serve(listen="SSL://:9092"), "--listen"),
        (Serve(advertise="h:0"), "--advertise"),
        (Serve(node_id=-1), "--node-id"),
        (Serve(log_format="xml"), "--log-format"),
        (Serve(log_level="loud"), "--log-level"),
    ],
)
def test_malformed_values_are_usage_errors(options: Serve, option: str) -> None:
    with pytest.raises(CliError, match=f"^{option} ") as caught:
        options.check()
    assert caught.value.code is ExitCode.USAGE


@pytest.mark.parametrize("pair", ["", "x", "=1", " =1"])
def test_an_override_needs_a_name_and_a_value(pair: str) -> None:
    with pytest.raises(CliError, match="--set"):
        parse(["--set", pair])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--config", "{dir}/none.properties"], "none.properties cannot be read: no such file or directory"),
        (["--config", "{dir}"], "cannot be read: is a directory"),
        (
            ["--data", "{dir}/file", "--listen", "127.0.0.1:0"],
            "the data directory {dir}/file is not a directory",
        ),
        (["--set", "authorizer.class.name=a.B"], "not supported here: no authorizer"),
    ],
)
def test_what_hinders_the_start_is_one_line_for_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    (tmp_path / "file").write_text("")
    given = parse([option.format(dir=tmp_path) for option in options])
    assert given is not None
    assert serve.run(given) == ExitCode.FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ottla: ")
    assert said.format(dir=tmp_path) in line
    assert "Errno" not in line


def test_serving_imports_none_of_what_the_other_commands_need() -> None:
    program = (
        "import sys, types\n"
        "node = types.ModuleType('ottla.process')\n"
        "node.run = lambda **options: 0\n"
        "sys.modules['ottla.process'] = node\n"
        "from ottla.cli.main import main\n"
        "try: main(['serve', '--listen', '127.0.0.1:0'])\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "heavy = {'typer', 'click', 'rich', 'confluent_kafka', 'argparse'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
