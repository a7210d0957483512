"""`ottla serve`: the quick way in and the Typer app agree, and it imports little."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from ottla import process
from ottla.cli import app, serve
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.serve import Serve, parse
from ottla.config import ConfigError
from ottla.config.node import NodeSettings

EVERYTHING = [
    "--data=/d",
    "--listen",
    "0.0.0.0:0",
    "--node-id",
    "7",
    "--advertise",
    "[::1]:9092",
    "--store=etcds://h1:2379,h2:2379",
    "--cluster",
    "blue.1",
    "--rack",
    "zone b",
    "--replace",
    "--processes",
    "auto",
    "--metrics",
    "127.0.0.1:9308",
    "--slow-request-ms",
    "250",
    "--control",
    "127.0.0.1:0",
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
        store="etcds://h1:2379,h2:2379",
        cluster="blue.1",
        rack="zone b",
        replace=True,
        processes="auto",
        metrics="127.0.0.1:9308",
        slow_request_ms=250,
        control="127.0.0.1:0",
        config_file="server.properties",
        overrides={"a": "1", "b": "x=y"},
        log_format="json",
        log_level="debug",
    )
    assert parse([]) == Serve()


@pytest.mark.parametrize("arguments", [EVERYTHING, [], ["--set", "a=1", "--set", "a=2"], ["--processes=3"]])
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
        (Serve(metrics="9308"), "--metrics"),
        (Serve(metrics=""), "--metrics"),
        (Serve(node_id=-1), "--node-id"),
        (Serve(rack=" "), "--rack"),
        (Serve(cluster="x"), "--cluster"),
        (Serve(replace=True), "--replace"),
        (Serve(store="etcd://h:1", node_id=1, cluster="a/b"), "--cluster"),
        (Serve(store="etcd://h:1", node_id=1, cluster=""), "--cluster"),
        (Serve(store="h1:2379", node_id=1), "--store"),
        (Serve(store="http://h1:2379", node_id=1), "--store"),
        (Serve(store="etcd://", node_id=1), "--store"),
        (Serve(store="etcd://h1:1, h2:1", node_id=1), "--store"),
        (Serve(log_format="xml"), "--log-format"),
        (Serve(log_level="loud"), "--log-level"),
    ],
)
def test_malformed_values_are_usage_errors(options: Serve, option: str) -> None:
    with pytest.raises(CliError, match=f"^{option} ") as caught:
        options.check()
    assert caught.value.code is ExitCode.USAGE


@pytest.mark.parametrize("overrides", [{}, {"broker.rack": "a"}])
def test_a_store_needs_a_node_id(overrides: dict[str, str]) -> None:
    with pytest.raises(CliError, match=r"^--store: .* give --node-id N") as caught:
        Serve(store="etcd://h:1", overrides=overrides).check()
    assert caught.value.code is ExitCode.USAGE


@pytest.mark.parametrize(
    "options",
    [
        Serve(store="etcd://h:1", node_id=0),
        Serve(store="etcd://h:1", overrides={"node.id": "3"}),
        Serve(store="etcd://h:1", overrides={"broker.id": "3"}),
        Serve(store="etcd://h:1", config_file="server.properties"),
        Serve(store="etcd://[::1]:2379,h:2379", node_id=0, cluster="a"),
        Serve(rack="a"),
    ],
)
def test_a_node_of_a_cluster_is_accepted(options: Serve) -> None:
    options.check()


def test_a_file_without_a_node_id_is_not_enough_for_a_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "server.properties"
    file.write_text("broker.rack=a\n")
    assert serve.run(Serve(store="etcd://127.0.0.1:1", config_file=str(file))) == ExitCode.FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert "give --node-id N" in line


def test_the_rack_is_a_property_like_any_other() -> None:
    from ottla.node import NodeSettings

    properties = NodeSettings(rack="b", properties={"broker.rack": "a"}).to_properties()
    assert properties["broker.rack"] == "b"
    assert NodeSettings(properties={"broker.rack": "a"}).to_properties()["broker.rack"] == "a"


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
        (["--set", "authorizer.class.name=a.B"], "authorizer.class.name"),
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


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "d/meta.properties"),
            "d/meta.properties: permission denied",
        ),
        (OSError(errno.EMFILE, "Too many open files"), "too many open files"),
        (OSError("in words of ours"), "in words of ours"),
    ],
)
def test_what_the_system_refuses_is_said_without_its_number(
    capsys: pytest.CaptureFixture[str], error: OSError, said: str
) -> None:
    def work(settings: object) -> int:
        raise error

    options = dict.fromkeys(("store", "node_id", "listen", "advertise", "data", "cluster", "rack", "replace"))
    assert process.with_settings(work, None, {}, options) == ExitCode.FAILED
    assert capsys.readouterr().err == f"ottla: {said}\n"


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
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_refused_start_tells_of_names_that_are_no_configuration(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The cause may be among them."""

    def work(settings: NodeSettings) -> int:
        raise ConfigError("no")

    given = {"num.partition": "3", "listener.name.client.ssl.client.auth": "none", "log.retention.ms": "5"}
    options = dict.fromkeys(("store", "node_id", "listen", "advertise", "data", "cluster", "rack", "replace"))
    assert process.with_settings(work, None, given, options) == ExitCode.FAILED
    first, last = capsys.readouterr().err.splitlines()
    assert last == "ottla: no"
    assert "'num.partition' was supplied" in first and first.endswith("Did you mean 'num.partitions'?")
