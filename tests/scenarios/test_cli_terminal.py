"""What somebody sees who runs a command that lasts in a terminal: its output, whole, and a bar that is gone
in the end and never stands in a line of the output."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import uuid4

import pytest
from cli_support import Ottla
from terminal_support import AT_ONCE, CONTROL, Screen, Terminal

from interop.process import BrokerProcess

SOURCES = Path(__file__).parents[2] / "src/ottla/cli"
COUNT = 300
LINES = "\n".join(f"message {i}" for i in range(COUNT))

MOVING = f"""{AT_ONCE}
import sys
from types import SimpleNamespace as Of
from ottla.cli.moves import runner
from ottla.types import TopicPartition
runner.STEP_S = 0.01
one, two = TopicPartition("t", 0), TopicPartition("t", 1)
looks = [{{one: (), two: ()}}, {{one: (), two: ()}}, {{two: ()}}, {{}}]
view = Of(partitions={{key: Of(replicas=(1,), leader=1) for key in (one, two)}}, brokers={{1: 1}})
requests = Of(ongoing=lambda: looks.pop(0), sizes=lambda nodes, of: {{}}, reassign=lambda moves: None)
if sys.argv[1] == "carry out":
    runner.carry_out_with_progress(requests, view, {{one: (2,), two: (2,)}}, at_once=2)
else:
    runner.wait(requests)
print("done")
"""


@pytest.fixture
def ottla(ottla_server: BrokerProcess) -> Ottla:
    return Ottla(ottla_server.bootstrap)


@pytest.fixture
def topic() -> str:
    return f"terminal-{uuid4().hex[:10]}"


@pytest.fixture(scope="module")
def filled(ottla_server: BrokerProcess) -> str:
    """A topic that has ``LINES``, for those who only read."""
    name = f"terminal-{uuid4().hex[:10]}"
    Ottla(ottla_server.bootstrap)("produce", name, stdin=LINES.encode())
    return name


def segment_of(ottla_server: BrokerProcess, topic: str) -> Path:
    return ottla_server.data / f"{topic}-0" / f"{0:020}.log"


def test_consume_prints_what_it_prints_into_a_pipe(ottla: Ottla, filled: str) -> None:
    terminal = Terminal(["consume", filled], ottla.environment)
    assert terminal.screen() == LINES


def test_consume_into_a_file_has_a_bar_in_the_terminal(ottla: Ottla, filled: str, tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as file:
        terminal = Terminal(["consume", filled], ottla.environment, stdout=file)
        assert terminal.screen() == ""
    assert f"Consuming {filled}".encode() in terminal.written
    assert (tmp_path / "out").read_text() == LINES + "\n"


def test_follow_has_no_bar_at_all(ottla: Ottla, topic: str, tmp_path: Path) -> None:
    ottla("produce", topic, stdin=b"one\ntwo\n")
    arguments = ["consume", topic, "--follow", "--max", "4"]
    with open(tmp_path / "out", "wb") as file:
        seen = Terminal(arguments, ottla.environment)
        kept = Terminal(arguments, ottla.environment, stdout=file)
        seen.read_until("two")
        ottla("produce", topic, stdin=b"three\nfour\n")
        assert (seen.screen(), kept.screen()) == ("one\ntwo\nthree\nfour", "")
    assert b"Consuming" not in seen.written + kept.written
    assert (tmp_path / "out").read_text() == "one\ntwo\nthree\nfour\n"


def test_produce_tells_what_it_sent_when_its_bar_is_gone(ottla: Ottla, topic: str, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text(LINES)
    with open(tmp_path / "lines", "rb") as lines:
        terminal = Terminal(["produce", topic], ottla.environment, stdin=lines)
        assert terminal.screen() == f"ottla: {COUNT} messages to {topic}"
    assert b"Producing to" in terminal.written


def test_produce_reports_places_in_lines_of_their_own(ottla: Ottla, topic: str, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text(LINES)
    with open(tmp_path / "lines", "rb") as lines:
        terminal = Terminal(["produce", topic, "--report"], ottla.environment, stdin=lines)
        *places, total = terminal.screen().splitlines()
    assert total == f"ottla: {COUNT} messages to {topic}"
    assert b"Producing to" not in terminal.written
    joined = re.sub(r"\s", "", "".join(places))
    assert joined == "".join(f'{{"topic":"{topic}","partition":0,"offset":{i}}}' for i in range(COUNT))


def test_produce_reports_into_a_file_beside_its_bar(ottla: Ottla, topic: str, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text(LINES)
    with open(tmp_path / "lines", "rb") as lines, open(tmp_path / "out", "wb") as file:
        terminal = Terminal(["produce", topic, "--report"], ottla.environment, stdin=lines, stdout=file)
        assert terminal.screen() == f"ottla: {COUNT} messages to {topic}"
    assert b"Producing to" in terminal.written
    assert len((tmp_path / "out").read_text().splitlines()) == COUNT


def test_produce_leaves_the_line_to_who_types(ottla: Ottla, topic: str) -> None:
    terminal = Terminal(["produce", topic], ottla.environment, stdin=None)
    terminal.read_until("Ctrl-D ends\r\n")
    for line in ("one\n", "two\n", "\x04"):
        terminal.type(line)
    shown = terminal.screen()
    assert b"Producing to" not in terminal.written
    assert [line for line in shown.splitlines() if not line.startswith("ottla: ")] == ["one", "two"]
    assert ottla("consume", topic).out == "one\ntwo\n"


@pytest.mark.parametrize("into_file", [False, True])
def test_a_dump_is_whole(
    ottla: Ottla, ottla_server: BrokerProcess, filled: str, tmp_path: Path, into_file: bool
) -> None:
    arguments = ["log", "dump", str(segment_of(ottla_server, filled)), "--records"]
    wanted = ottla(*arguments).out
    assert wanted.count("\n") > COUNT
    with open(tmp_path / "out", "wb") as file:
        terminal = Terminal(arguments, ottla.environment, stdout=file if into_file else None)
        shown = terminal.screen()
    assert (b"Reading" in terminal.written) == into_file
    written = (tmp_path / "out").read_text() if into_file else shown.replace("\n", "")
    assert written == (wanted if into_file else wanted.replace("\n", ""))


def test_commands_that_say_something_in_the_end_have_a_bar_before_it(
    ottla: Ottla, tmp_path: Path, filled: str, ottla_server: BrokerProcess
) -> None:
    folder = tmp_path / f"{filled}-0"
    folder.mkdir()
    # What a broker writes when it gets round to it, and what is there already.
    (folder / "leader-epoch-checkpoint").write_text("0\n1\n0 0\n")
    for file in segment_of(ottla_server, filled).parent.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    cases: list[tuple[list[str], str, str]] = [
        (["cluster", "wait"], "partitions in sync again", r"all partitions are in sync"),
        (
            ["log", "verify", str(tmp_path)],
            "Reading",
            r"ottla: 1 folder, \d+ batch(es)?, \d+ bytes: 0 problems",
        ),
        (["bench", "produce", "--messages", "1000"], "Producing", r"[^\r]*\d[^\r]*"),
    ]
    running = [(Terminal(arguments, ottla.environment), label, said) for arguments, label, said in cases]
    for terminal, label, said in running:
        shown = terminal.screen()
        assert label.encode() in terminal.written, terminal.written
        assert re.fullmatch(said, shown, re.DOTALL), shown
        assert "━" not in shown and label not in shown.splitlines()[0].split(":")[0]


EXPLORED = """
from ottla.explore import explore

@explore(nodes=1, faults="calm")
async def of_two_one_fails(world):
    await world.run(5)
    assert world.seed != 2, "an even seed"
"""


def test_explore_has_a_bar_for_seeds_and_one_for_smaller_runs(ottla: Ottla, tmp_path: Path) -> None:
    (tmp_path / "explored.py").write_text(EXPLORED)
    arguments = ["explore", f"{tmp_path}/explored.py::of_two_one_fails", "--seeds", "1..2", "--shrink", "5"]
    terminal = Terminal(arguments, ottla.environment, columns=80)
    shown = terminal.screen(code=1)
    said = CONTROL.sub("", terminal.written.decode())
    assert re.search(r"none failed, 0\.0 virtual hours; seeds ━+ +1/2 ", said), said
    assert re.search(r"Seed 2: 0 faults, 1 node, 0\.\d of 5 seconds; runs [━ ]+\d+ ", said), said
    assert b"virtual hours" in terminal.written and b"Looking for less than seed 2" in terminal.written
    assert shown.splitlines()[0] == "seed 2: AssertionError: an even seed"
    # Where the line is wrapped goes by how long the path in it is.
    assert "2 seeds, 0.0 virtual hours; failed on 2" in " ".join(shown.split())
    assert "Looking for" not in shown and "━" not in shown


@pytest.mark.parametrize("what", ["carry out", "wait"])
def test_moves_have_a_bar_that_goes(ottla: Ottla, what: str) -> None:
    terminal = Terminal([what], ottla.environment, code=MOVING)
    assert terminal.screen() == "done"
    assert b"partitions moved" in terminal.written


def test_a_remark_beside_a_bar_has_its_own_line(ottla: Ottla) -> None:
    code = f"""{AT_ONCE}
with output.progress("some work", 10) as show:
    for i in range(5):
        show(i)
        output.warn(f"remark {{i}}")
print("done")
"""
    terminal = Terminal([], ottla.environment, code=code)
    assert terminal.screen().splitlines() == [*(f"ottla: remark {i}" for i in range(5)), "done"]


def test_each_command_that_shows_progress_is_tried_here() -> None:
    """A new one says whether it prints meanwhile, and gets a test here."""
    found = {
        str(path.relative_to(SOURCES)): path.read_text().count("output.progress(")
        for path in SOURCES.rglob("*.py")
        if "output.progress(" in path.read_text()
    }
    assert found == {
        "consume.py": 1,
        "explored.py": 2,
        "sender.py": 1,
        "log.py": 1,
        "verify.py": 1,
        "wait.py": 1,
        "bench/runner.py": 1,
        "moves/runner.py": 2,
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one\r\ntwo", "one\ntwo"),
        ("bar 50 %\r\x1b[2Kdone\r\n", "done"),
        ("bar\r\n\x1b[1A\x1b[2K\x1b[?25hline\r\n", "line"),
        ("bar 100\rmessage", "message"),
        ("bar 100 %\rmessage", "message %"),
    ],
)
def test_the_screen_is_a_terminals(text: str, shown: str) -> None:
    screen = Screen()
    screen.feed(text)
    assert screen.text == shown
