"""Mistakes on the command line: one line that says what is wrong, whatever is in it, and no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import typer

from ottla.cli import main, output, plain
from ottla.cli.app import app_of, run
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.members import decode_assignment
from ottla.cli.messages import from_json
from ottla.cli.moves import plan_file
from ottla.cli.serve import Serve, parse
from ottla.cli.streams import Interrupts
from ottla.cli.values import check_group, is_host
from ottla.types import TopicPartition

NOT_UTF_8 = "\udcff"
MANY_DIGITS = "9" * 5000
ESCAPE = "\x1b[31mred"

NUMBERS = [
    ("topic", "create", "t", "-p"),
    ("topic", "create", "t", "-r"),
    ("topic", "alter", "t", "-p"),
    ("consume", "t", "--max"),
    ("consume", "t", "--timeout"),
    ("consume", "t", "-p"),
    ("consume", "t", "--from"),
    ("produce", "t", "--partition"),
    ("group", "reset-offsets", "g", "-t", "t", "--shift"),
    ("group", "reset-offsets", "g", "-t", "t", "--to"),
    ("cluster", "drain"),
    ("cluster", "reassign", "--all", "--throttle"),
    ("cluster", "wait", "--timeout"),
    ("cluster", "wait", "-n"),
    ("cluster", "elect", "t", "-p"),
    ("cluster", "up", "--port"),
    ("cluster", "up", "--nodes"),
    ("feature", "describe", "--node-id"),
    ("transaction", "list", "--duration-filter"),
    ("transaction", "list", "--producer-id"),
    ("transaction", "abort", "-t", "t", "-p"),
    ("transaction", "find-hanging", "--broker-id"),
    ("produce", "t", "--transaction-messages"),
    ("produce", "t", "--transaction-seconds"),
    ("apis", "--broker-id"),
    ("logdirs", "--broker-id"),
    ("producers", "t", "-p"),
    ("producers", "t", "--broker-id"),
    ("topic", "trim", "t", "--before"),
    ("topic", "trim", "t", "--before", "1", "-p"),
    ("cluster", "kill"),
    ("cluster", "start"),
    ("serve", "--node-id"),
    ("bench", "latency", "--rate"),
]


def refused(*words: str) -> CliError:
    """The error of a command line that is wrong."""
    with pytest.raises(CliError) as caught:
        run(list(words))
    assert caught.value.code is ExitCode.USAGE, caught.value
    text = str(caught.value)
    assert "\n" not in text and len(text) < 600, text
    return caught.value


@pytest.mark.parametrize("value", ["1_0", "１２", "nan", "NaN", "inf", "0x10", "", "1 0", "one", MANY_DIGITS])
@pytest.mark.parametrize("words", NUMBERS, ids=" ".join)
def test_a_number_that_is_none_is_a_wrong_command_line(words: tuple[str, ...], value: str) -> None:
    refused(*words, value)


def commands(of: typer.Typer) -> Iterator[Any]:
    for command in of.registered_commands:
        yield command.callback
    for group in of.registered_groups:
        assert group.typer_instance is not None
        yield from commands(group.typer_instance)


def test_every_number_of_every_command_is_read_strictly() -> None:
    """Typer's own reading of numbers is Python's: each option has to bring another."""
    seen = 0
    for command in commands(app_of()):
        for name, hint in get_type_hints(command, include_extras=True).items():
            if get_origin(hint) is not Annotated:
                continue
            kind, info = get_args(hint)[:2]
            inner = {kind, *get_args(kind)} | {arg for part in get_args(kind) for arg in get_args(part)}
            if inner & {int, float}:
                seen += 1
                assert info.parser is not None, (command, name)
    assert seen > 20


@pytest.mark.parametrize(
    "words",
    [
        ("topic", "create", NOT_UTF_8),
        ("topic", "list", "-X", f"client.id={NOT_UTF_8}"),
        ("topic", "create", "t", "-c", f"retention.ms={NOT_UTF_8}"),
        ("topic", "list", "-b", f"{NOT_UTF_8}:1"),
        ("group", "describe", f"a{NOT_UTF_8}"),
        ("group", "delete", NOT_UTF_8),
        ("consume", "t", "-g", NOT_UTF_8),
        ("consume", NOT_UTF_8),
        ("produce", NOT_UTF_8),
        ("produce", "t", "-H", f"{NOT_UTF_8}=v"),
        ("produce", "t", f"--header={NOT_UTF_8}"),
        ("config", "set", "topic", "t", f"a={NOT_UTF_8}"),
        ("config", "describe", "topic", NOT_UTF_8),
        ("cluster", "reassign", "--topics", NOT_UTF_8),
        ("cluster", "elect", NOT_UTF_8),
        ("bench", "produce", "--topic", NOT_UTF_8),
        (NOT_UTF_8,),
    ],
)
def test_bytes_that_are_no_text_are_refused_before_they_reach_librdkafka(words: tuple[str, ...]) -> None:
    assert "not valid UTF-8" in str(refused(*words))


@pytest.mark.parametrize(
    "serve",
    [
        Serve(rack=NOT_UTF_8),
        Serve(listen=f"{NOT_UTF_8}:1"),
        Serve(advertise=f"a{NOT_UTF_8}:1"),
        Serve(overrides={"broker.rack": NOT_UTF_8}),
        Serve(store=f"etcd://{NOT_UTF_8}:1", node_id=1),
        Serve(cluster=NOT_UTF_8, store="etcd://h:1", node_id=1),
        Serve(log_level=NOT_UTF_8),
        Serve(listen=f"{'a' * 300}:1"),
        Serve(listen="a..b:1"),
        Serve(listen="host:１"),
        Serve(listen=f"host:{MANY_DIGITS}"),
        Serve(data=""),
    ],
)
def test_what_a_broker_cannot_be_started_with_is_refused(serve: Serve) -> None:
    with pytest.raises(CliError) as caught:
        serve.check()
    assert caught.value.code is ExitCode.USAGE


def test_a_word_that_is_none_of_several_is_refused_in_plain_words() -> None:
    with pytest.raises(CliError, match=r"^KIND: 'grup' is not one of 'topic'") as caught:
        run(["config", "describe", "grup", "g"])
    assert caught.value.code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("kind", "what"),
    [("broker", "all brokers"), ("group", "group ''"), ("client-metrics", "client-metrics ''")],
)
def test_an_empty_name_stands_for_all_of_brokers_only(
    kind: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = SimpleNamespace(error_code=42, error_message="no", configs=[])
    monkeypatch.setattr(plain, "_ask", lambda *_: SimpleNamespace(results=[result]))
    with pytest.raises(CliError, match=f"^{what}: no$"):
        plain.describe(("127.0.0.1", 9), kind, "", all_=False)


def test_a_folder_with_a_comma_is_explained() -> None:
    with pytest.raises(CliError, match=r"--data 'a,b': give one folder; .* comma"):
        Serve(data="a,b").check()


@pytest.mark.parametrize("node_id", ["1_0", "１", MANY_DIGITS, "-1", "", "2147483648"])
def test_a_node_id_that_is_none_is_left_to_the_command_line_for_people(node_id: str) -> None:
    assert parse(["--node-id", node_id]) is None
    refused("serve", "--node-id", node_id)


@pytest.mark.parametrize(
    "host", ["", "a b", "a\x1b[0m", "a/b", "a..b", "x" * 64, "a\0b", f"a{NOT_UTF_8}", "\u202ea"]
)
def test_what_no_machine_is_called(host: str) -> None:
    assert not is_host(host)
    assert "give HOST:PORT" in str(refused("topic", "list", "-b", f"{host}:1")) or NOT_UTF_8 in host


def test_a_group_id_that_no_request_can_hold_is_refused() -> None:
    check_group("ü" * 16_383)
    with pytest.raises(CliError, match="32767 bytes at most"):
        check_group("ü" * 16_384)


# -- files and standard input ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b'{"headers": [{"key": "\\ud800", "value": "x"}]}',
        b'{"headers": 5}',
        b'{"headers": "abc"}',
        b'{"headers": {"a": 1}}',
        b'{"partition": ' + MANY_DIGITS.encode() + b"}",
        b'{"value": ' + MANY_DIGITS.encode() + b"}",
        b'{"timestamp_ms": 1e3}',
        b'{"partition": true}',
        b'{"value": {"base64": "\xc3\xa9"}}',
        b"[" * 100_000,
        b"\xff",
        b"",
    ],
)
def test_a_line_that_is_no_message_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError):
        from_json(line)


@pytest.mark.parametrize(
    "text",
    [
        '{"partitions": [{"topic": "\\ud800", "partition": 0, "replicas": [1]}]}',
        '{"partitions": [{"topic": "t", "partition": ' + MANY_DIGITS + ', "replicas": [1]}]}',
        '{"partitions": [{"topic": "t", "partition": 2147483648, "replicas": [1]}]}',
        '{"partitions": [{"topic": "t", "partition": NaN, "replicas": [1]}]}',
        '{"partitions": [{"topic": "t", "partition": 0.0, "replicas": [1]}]}',
        '{"partitions": [{"topic": "t", "partition": 0, "replicas": [1e0]}]}',
        '{"partitions": [{"topic": "t", "partition": 0, "replicas": [1], "log_dirs": 5}]}',
        '{"partitions": [{"topic": "t", "partition": 0, "replicas": [1], "log_dirs": [{}]}]}',
        "[" * 100_000,
        '{"version": [' + "1," * 10_000 + '1], "partitions": []}',
    ],
)
def test_a_plan_that_is_none_is_a_value_error_of_one_line(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        plan_file.parse(text)
    assert len(str(caught.value)) < 600 and str(caught.value).isprintable()


def test_a_plan_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text('\ufeff{"partitions": [{"topic": "t", "partition": 0, "replicas": [1]}]}')
    assert plan_file.read(file) == {TopicPartition("t", 0): (1,)}


# -- assignments -----------------------------------------------------------------------------------------

ASSIGNMENT = bytes.fromhex("0001 00000001 0001 74 00000002 00000000 00000003 ffffffff")


def test_the_assignment_of_a_consumer_is_read() -> None:
    assert decode_assignment(ASSIGNMENT) == [TopicPartition("t", 0), TopicPartition("t", 3)]
    assert decode_assignment(b"") == []


@pytest.mark.parametrize("length", range(1, len(ASSIGNMENT) - 4))
def test_an_assignment_that_is_cut_is_none(length: int) -> None:
    assert decode_assignment(ASSIGNMENT[:length]) is None


@pytest.mark.parametrize(
    "data",
    ["00", "00037fffffffabcd", "0000000000017fff", "000000000001000474657374ffffffff",
     "0000000000010002c3280000000100000000", "000000000001ffff00000000", "0000000000010001747fffffff"],
)  # fmt: skip
def test_garbage_in_an_assignment_is_none(data: str) -> None:
    assert decode_assignment(bytes.fromhex(data)) is None


# -- what is shown ---------------------------------------------------------------------------------------


def test_nothing_for_people_changes_their_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(f"topic {ESCAPE}")
    output.warn(f"topic {ESCAPE}\n\u202e")
    output.table((f"column {'x'}", "n"), [(ESCAPE, 1)])
    output.report("topic", [(ESCAPE, "created")], [], json=False)
    out, err = capsys.readouterr()
    for line in (out + err).splitlines():
        assert line.isprintable()
    assert out.count("\\x1b[31mred") == 3 and err.count("\\x1b[31mred\\n\\u202e") == 1


def test_json_stays_exact(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"topic": f"{ESCAPE} é"})
    assert capsys.readouterr().out in (
        '{"topic": "\\u001b[31mred \u00e9"}\n',
        '{"topic": "\\u001b[31mred \\u00e9"}\n',
    )


def test_an_error_is_shown_without_escapes_and_not_for_pages(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(words: list[str]) -> int:
        raise CliError(f"topic {ESCAPE} {'x' * 10_000}", ExitCode.NOT_FOUND)

    monkeypatch.setattr(main, "_run", fail)
    assert main._exit_code([], Interrupts()) == ExitCode.NOT_FOUND
    err = capsys.readouterr().err
    assert err.startswith("ottla: topic \\x1b[31mred xxx") and len(err) < 1100


def test_an_error_of_the_system_names_its_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(words: list[str]) -> int:
        raise PermissionError(13, "Permission denied", "/srv/try")

    monkeypatch.setattr(main, "_run", fail)
    monkeypatch.setattr(main, "_drop_output", lambda: None)
    assert main._exit_code([], Interrupts()) == ExitCode.FAILED
    assert capsys.readouterr().err == "ottla: /srv/try: permission denied\n"


# -- Ctrl-C ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [SystemError("a result with an exception set"), ValueError("any"), CliError("x")]
)
def test_whatever_goes_wrong_after_ctrl_c_is_an_interruption(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupts = Interrupts()

    def interrupted(words: list[str]) -> int:
        with pytest.raises(KeyboardInterrupt):
            interrupts._press(signal.SIGINT, None)
        raise error

    monkeypatch.setattr(main, "_run", interrupted)
    assert main._exit_code([], interrupts) == ExitCode.INTERRUPTED


def test_without_ctrl_c_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(words: list[str]) -> int:
        raise SystemError("ours")

    monkeypatch.setattr(main, "_run", wrong)
    with pytest.raises(SystemError):
        main._exit_code([], Interrupts())


@pytest.mark.parametrize("turn", [1, 2])
def test_what_it_has_ignored_is_heard_of_in_the_next_test(turn: int) -> None:
    assert sys.unraisablehook.__module__ != Interrupts.__module__
    Interrupts().watch()
    assert sys.unraisablehook.__module__ == Interrupts.__module__


# -- closed streams --------------------------------------------------------------------------------------

CLOSED = """
import os, sys
for fd in {fds}:
    os.close(fd)
os.execv(sys.executable, [sys.executable, "-m", "ottla.cli.main", *sys.argv[1:]])
"""


@pytest.mark.parametrize("fds", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["topic", "list", "-b", "127.0.0.1:1"], 3)])
def test_standard_streams_that_are_closed_are_opened_first(
    fds: tuple[int, ...], words: list[str], code: int
) -> None:
    script = CLOSED.format(fds=fds)
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, capture_output=True, env=dict(os.environ), timeout=60, check=False)
    assert done.returncode == code
    assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr
    if 1 not in fds and not code:
        assert done.stdout.startswith(b"ottla ")
    if 2 not in fds and code:
        assert done.stderr.startswith(b"ottla: cannot reach a broker")
