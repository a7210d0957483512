"""Reaching a cluster, or saying plainly and soon that it cannot be reached; tables and reports."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from measuring import at_most
from ottla.cli import output
from ottla.cli.client import Cluster, connect, parse_bootstrap
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.main import main


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("h:1", [("h", 1)]),
        ("h", [("h", 9092)]),
        ("a:1, b:2,", [("a", 1), ("b", 2)]),
        ("PLAINTEXT://h:1", [("h", 1)]),
        ("[::1]:9092", [("::1", 9092)]),
        ("[::1]", [("::1", 9092)]),
    ],
)
def test_bootstrap_lists(text: str, addresses: list[tuple[str, int]]) -> None:
    assert parse_bootstrap(text) == addresses


@pytest.mark.parametrize("text", ["", ",", "h:x", "h:0", "h:65536", ":9092", "h:1,:2"])
def test_malformed_bootstrap_lists(text: str) -> None:
    with pytest.raises(CliError, match="--bootstrap") as caught:
        parse_bootstrap(text)
    assert caught.value.code is ExitCode.USAGE


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


COMMANDS = [
    ["topic", "list"],
    ["topic", "create", "t"],
    ["topic", "describe", "t"],
    ["topic", "alter", "t", "--partitions", "2"],
    ["topic", "delete", "t"],
    ["produce", "t"],
    ["consume", "t", "--follow"],
    ["group", "list"],
    ["group", "describe", "g"],
    ["group", "reset-offsets", "g", "--topic", "t", "--to", "end"],
    ["group", "delete", "g"],
    ["cluster", "describe"],
    ["config", "describe", "topic", "t"],
    ["config", "set", "broker", "default", "a=b"],
    ["config", "delete", "broker", "0", "a"],
    ["bench", "produce"],
    ["bench", "consume"],
    ["bench", "latency"],
    ["bench", "requests"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_broker_is_said_at_once_in_one_line(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for attempt in at_most(3.0, "s"):
        capsys.readouterr()
        with attempt.wall(), pytest.raises(SystemExit) as end:
            main([*command, "--bootstrap", f"127.0.0.1:{unused_port()}"])
        assert end.value.code == ExitCode.UNREACHABLE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "connection refused" in captured.err
    assert "ottla serve" in captured.err


@pytest.fixture
def mute_port() -> Iterator[int]:
    """A port that accepts connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def http_port() -> Iterator[int]:
    """A port where something else than a broker answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(100)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("fixture", ["mute_port", "http_port"])
def test_what_is_no_broker_is_given_up_within_five_seconds(
    fixture: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    port = request.getfixturevalue(fixture)
    for attempt in at_most(6.0, "s"):
        with attempt.wall(), pytest.raises(SystemExit) as end:
            main(["topic", "list", "--bootstrap", f"127.0.0.1:{port}"])
    assert end.value.code == ExitCode.UNREACHABLE
    assert "does not answer as a Kafka broker" in capsys.readouterr().err


def test_one_address_of_several_is_enough(mute_port: int) -> None:
    with pytest.raises(CliError, match="does not answer as a Kafka broker"):
        connect(f"127.0.0.1:{unused_port()},127.0.0.1:{mute_port}")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nope=1", "there is no client property 'nope'"),
        ("parse.key=true", "there is no client property 'parse.key': give --key-separator"),
        ("print.offset=true", "there is no client property 'print.offset': give --format, or --json"),
        ("security.protocol=X", 'Invalid value "X" for configuration property "security.protocol"'),
        (
            "ssl.ca.location=/nowhere",
            "ssl.ca.location: the file cannot be read, or",
        ),
    ],
)
def test_a_wrong_client_property_is_a_usage_error_in_our_words(given: str, said: str) -> None:
    tls = [] if given.startswith("security") else ["security.protocol=SSL"]
    with pytest.raises(CliError) as caught:
        Cluster("127.0.0.1:1", [*tls, given]).producer()
    assert caught.value.code is ExitCode.USAGE
    assert str(caught.value).startswith(f"client properties (-X): {said}")
    assert "error:" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["nope"], "there is no command 'nope' in 'ottla'. See 'ottla --help'."),
        (["topic", "nope"], "there is no command 'nope' in 'ottla topic'."),
        (["topic", "create"], "'ottla topic create' needs TOPIC: The topics' names. See"),
        (["topic", "list", "--nope"], "there is no option '--nope' in 'ottla topic list'. See"),
        (["topic", "list", "--jason"], "in 'ottla topic list'. Did you mean --json? See"),
        (["topic", "list", "more"], "'ottla topic list' takes no further argument, such as 'more'. See"),
        (["topic", "list", "-b"], "-b needs a value. See 'ottla topic list --help'."),
        (["topic", "list", "-b", "http://h:1"], "--bootstrap 'http://h:1': give HOST:PORT"),
        (
            ["user", "create", "alice", "-p", "x"],
            "there is no option '-p' in 'ottla user create': give --pass",
        ),
        (["consume", "t", "-f", "%k %s"], "such as '%k %s': give a format as --format '{key} {value}'"),
        (["config", "describe", "grup", "g"], "KIND: 'grup' is not one of 'topic'"),
        (["group", "describe", "g", "--member"], "Did you mean --members?"),
        (["topic", "create", "t", "--partitions", "0"], "--partitions"),
        (["topic", "create", "t", "--partitions", "x"], "--partitions"),
        (["topic", "create", "t", "--config", "x"], "--config 'x': give NAME=VALUE"),
        (["topic", "alter", "t"], "give --partitions, --config or --delete-config"),
        (["config", "describe", "planet", "earth"], "topic"),
        (["group", "reset-offsets", "g"], "either --to or --shift"),
        (["group", "reset-offsets", "g", "--to", "end", "--shift", "1"], "either --to or --shift"),
        (["group", "reset-offsets", "g", "--to", "end"], "either --topic or --all-topics"),
        (["consume", "t", "--from", "soon"], "--from 'soon': give 'beginning'"),
        (["consume", "t", "--group", "g", "--partition", "1"], "--group and --partition"),
        (["consume", "t", "--group", "g", "--from", "5"], "reset-offsets"),
        (["consume", "t", "--json", "--format", "x"], "give one of them"),
        (["consume", "t", "--format", "{x}"], "--format"),
        (["produce", "t", "--acks", "2"], "--acks"),
        (["produce", "t", "--compression", "rar"], "--compression"),
        (["produce", "t", "--header", "=x"], "--header"),
        (["bench", "requests", "--acks", "0"], "--acks 0"),
        (["bench", "latency", "--beside", "produce", "--acks", "0"], "--acks 0"),
        (["bench", "latency", "--beside", "produce", "--rate", "9"], "--rate"),
        (["topic", "list", "--bootstrap", "h:x"], "--bootstrap 'h:x'"),
        (["topic", "list", "-X", "x"], "--property 'x': give NAME=VALUE"),
    ],
)
def test_usage_errors_are_one_line_and_code_2(
    command: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(command)
    captured = capsys.readouterr()
    assert end.value.code == ExitCode.USAGE
    assert reason in captured.err
    assert captured.err.startswith("ottla: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("command", [[], ["topic"], ["bench"]])
def test_a_group_alone_shows_its_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(command)
    captured = capsys.readouterr()
    assert end.value.code == ExitCode.USAGE
    assert "Usage: ottla" in captured.out + captured.err


def test_a_misspelt_command_is_told_which_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["topic", "lst"])
    assert end.value.code == ExitCode.USAGE
    said = capsys.readouterr().err
    assert said == "ottla: there is no command 'lst' in 'ottla topic'. Did you mean 'ottla topic list'?\n"


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    from ottla import __version__, implementation

    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == ExitCode.OK
    assert capsys.readouterr().out == f"ottla {__version__} ({implementation.name()})\n"


def test_a_plain_table_lines_up_and_cuts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("name", "count", "rack"), [("a" * 200, 1, None), ("b", 1000, None)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "NAME" + " " * 198 + "COUNT  RACK"
    assert lines[1] == "a" * 200 + "  " + "    1  -"
    assert lines[2] == "b" + " " * 201 + " 1000  -"


def test_a_report_says_what_was_done_before_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    errors = [CliError("first", ExitCode.EXISTS), CliError("second", ExitCode.NOT_FOUND)]
    with pytest.raises(CliError, match="second"):
        output.report("topic", [("t", "created")], errors, json=False)
    captured = capsys.readouterr()
    assert captured.out == "t: created\n"
    assert captured.err == "ottla: first\n"
