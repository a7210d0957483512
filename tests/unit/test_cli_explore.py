"""`ottla explore`: which tests and seeds it runs, what it says of them, and how it ends."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ottla.cli.app import run
from ottla.cli.errors import CliError, ExitCode
from ottla.explore import workers
from ottla.explore.plan import Plan, Run
from ottla.explore.real import running
from ottla.explore.shrinking import Shrinking

Verdict = Callable[[Plan], str]
# So many faults strike in a run, and no number above the second is of a fault.
STRIKES, STRIKE_MAX = 4, 20


class Fake:
    """In the place of `Workers`: runs fail by the kind that ``verdict`` says, or pass if it is empty."""

    tests: ClassVar = {
        "one": {"seeds": 3, "nodes": 3},
        "two": {"seeds": 2, "nodes": 3},
    }

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.plans: list[Plan] = []
        # The seeds of the second test that have a record in what is checked.
        self.sources = {1}
        # A second check of these.
        self.others = {0}
        self.jobs = 0

    def __call__(self, file: str, jobs: int) -> Fake:
        if file == "nowhere.py":
            raise workers.CannotRun("Traceback (…)\nthere is no file nowhere.py\n")
        self.jobs = jobs
        return self

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def runs(self, plans: Iterable[Plan], deadline_s: float | None = None) -> Iterator[Run]:
        for plan in plans:
            self.plans.append(plan)
            kind = self.verdict(plan)
            given: dict[str, Any] = {
                "virtual_s": 3600.0,
                "nodes": plan.nodes or 3,
                "longest_run_s": plan.run_max_s or 20.0,
            }
            if plan.picture.endswith("full.html"):
                given["no_picture"] = "No space left on device"
            if kind:
                given |= {"error": f"{kind}!", "kind": kind, "story": ["1.0 shipping.1 is killed"]}
            if kind or plan.strikes is not None:
                numbers = range(1, STRIKES + 1) if plan.strikes is None else plan.strikes
                given["strikes"] = [
                    (number, "kill", 1.0, f"n{number} is killed")
                    for number in numbers
                    if number <= STRIKE_MAX
                ]
            if plan.test == "two":
                checks = {"nothing_lost at shop.py:3": self.sources, "once at shop.py:4": self.others}
                checks = {name: seeds for name, seeds in checks.items() if seeds != {0}}
                given["checked"] = {name: plan.seed in seeds for name, seeds in checks.items()}
            yield Run(seed=plan.seed, **given)


@pytest.fixture
def explored(monkeypatch: pytest.MonkeyPatch) -> Callable[[Verdict], Fake]:
    def made(verdict: Verdict) -> Fake:
        fake = Fake(verdict)
        monkeypatch.setattr(workers, "Workers", fake)
        return fake

    return made


Explored = Callable[[Verdict], Fake]


def lost_on_2(plan: Plan) -> str:
    """Seed 2 of the first test fails if its third fault strikes."""
    has_struck = (plan.strikes is None or 3 in plan.strikes) and plan.run_max_s is None
    return "lost" if plan.test == "one" and plan.seed == 2 and has_struck else ""


def test_the_first_failure_is_told_made_smaller_and_ends_with_1(
    explored: Explored, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = explored(lost_on_2)
    assert run(["explore", "shop.py::one"]) == ExitCode.FAILED
    said = capsys.readouterr().out
    assert said.startswith("seed 2: lost!\n")
    assert "It fails with 1 of 4 faults, 1 of 3 nodes, 20 seconds, after 3600.0 virtual seconds." in said
    assert "    ottla explore shop.py::one --seed 2 --strikes 3 --nodes 1\n" in said
    assert "n3 is killed" in said and "shipping.1 is killed" in said
    assert said.endswith("shop.py::one: 2 seeds, 2.0 virtual hours; failed on 2\n")
    assert not any(plan.is_told for plan in fake.plans[:-1])
    assert fake.plans[-1].is_told


def test_the_command_has_the_numbers_of_no_more_faults_than_struck(
    explored: Explored, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The fourth is in the plan, and strikes nothing. Time is over before a run without it was tried.
    monkeypatch.setitem(globals(), "STRIKE_MAX", 3)
    fake = explored(lambda plan: "lost")
    monkeypatch.setattr(Shrinking, "go", lambda one: one._try([replace(one.plan, strikes=(2, 3, 4))]))
    assert run(["explore", "shop.py::one"]) == ExitCode.FAILED
    said = capsys.readouterr().out
    assert "It fails with 2 of 3 faults" in said and "--strikes 2,3\n" in said
    assert [plan.strikes for plan in fake.plans] == [None, (2, 3, 4), (2, 3)]


def test_seeds_that_have_nothing_to_check_do_not_pass(
    explored: Explored, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = explored(lambda plan: "")
    assert run(["explore", "shop.py::two"]) == ExitCode.OK
    said = capsys.readouterr()
    assert "none failed" in said.out and not said.err
    problem = (
        "no seed had a record in what was checked: nothing_lost at shop.py:3. Is the topic's name right?"
    )
    assert run(["explore", "shop.py::two", "--seed", "2"]) == ExitCode.FAILED
    assert f"1 seed, 1.0 virtual hours; {problem}" in capsys.readouterr().out
    fake.others = {2}
    assert run(["explore", "shop.py::two", "--seed", "2"]) == ExitCode.OK
    said = capsys.readouterr()
    assert "none failed" in said.out and said.err == f"ottla: shop.py::two: {problem}\n"
    fake.others = {0}
    fake.sources.clear()
    assert run(["explore", "shop.py", "--json"]) == ExitCode.FAILED
    one, two = map(json.loads, capsys.readouterr().out.splitlines())
    assert (one["problem"], two["problem"], two["failed"]) == ("", problem, [])
    fake.verdict = lambda plan: "lost"
    assert run(["explore", "shop.py::two", "--shrink", "0"]) == ExitCode.FAILED
    assert "no seed had" not in capsys.readouterr().out


def test_failures_are_told_by_their_kind(explored: Explored, capsys: pytest.CaptureFixture[str]) -> None:
    explored(lambda plan: ("", "lost", "twice")[plan.seed % 3] if plan.strikes is None else "")
    arguments = ["explore", "shop.py::one", "--seeds", "1..8", "--keep-going", "--shrink", "0"]
    assert run(arguments) == ExitCode.FAILED
    said = capsys.readouterr().out
    assert said.count("What happened:") == 2
    assert "seed 1: lost!" in said and "So fail 2 other seeds: 4, 7" in said
    assert "seed 2: twice!" in said and "So fail 2 other seeds: 5, 8" in said
    assert "8 seeds, 8.0 virtual hours; failed on 1, 2, 4, 5, 7, 8" in said


def test_for_programs_there_is_a_line_of_json_for_each(
    explored: Explored, capsys: pytest.CaptureFixture[str]
) -> None:
    explored(lost_on_2)
    assert run(["explore", "shop.py", "--json"]) == ExitCode.FAILED
    failure, *summaries = map(json.loads, capsys.readouterr().out.splitlines())
    assert (failure["test"], failure["seed"], failure["kind"]) == ("shop.py::one", 2, "lost")
    assert failure["command"] == "ottla explore shop.py::one --seed 2 --strikes 3 --nodes 1"
    assert [strike["number"] for strike in failure["strikes"]] == [3]
    summary = {"seeds": 2, "virtual_s": 7200.0, "problem": "", "is_interrupted": False}
    assert summaries == [
        {"test": "shop.py::one", "failed": [2], **summary},
        {"test": "shop.py::two", "failed": [], **summary},
    ]


def test_a_part_of_a_run_is_repeated_as_it_was_asked_for(
    explored: Explored, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = explored(lambda plan: "lost")
    arguments = ["--seed", "7", "--strikes", "17,3", "--nodes", "1", "--seconds", "2.5", "--jobs", "8"]
    assert run(["explore", "shop.py::two", *arguments]) == ExitCode.FAILED
    # Twice: nothing smaller is looked for, and the second time for its story.
    plans = [
        Plan(test="two", seed=7, strikes=(3, 17), nodes=1, run_max_s=2.5, is_told=no > 0) for no in (0, 1)
    ]
    assert fake.plans == plans and fake.jobs == 1
    assert "--seed 7 --strikes 3,17 --nodes 1 --seconds 2.5\n" in capsys.readouterr().out
    assert run(["explore", "shop.py::two", "--seed", "7", "--strikes", "none"]) == ExitCode.FAILED
    assert fake.plans[-1].strikes == ()
    assert "--cpu-seconds" not in capsys.readouterr().out
    assert run(["explore", "shop.py::two", "--seed", "7", "--cpu-seconds", "2.5"]) == ExitCode.FAILED
    assert fake.plans[-1].cpu_max_s == 2.5
    assert "--seed 7 --strikes none --nodes 1 --seconds 0.1 --cpu-seconds 2.5\n" in capsys.readouterr().out


def test_a_run_that_does_not_repeat_is_said_to_depend_on_something_else(
    explored: Explored, capsys: pytest.CaptureFixture[str]
) -> None:
    explored(lambda plan: "" if plan.is_told else "lost")
    assert run(["explore", "shop.py::one"]) == ExitCode.FAILED
    assert "When it was repeated it did not fail in this way." in capsys.readouterr().out


def test_ctrl_c_tells_what_was_found_and_ends_with_130(
    explored: Explored, capsys: pytest.CaptureFixture[str]
) -> None:
    def verdict(plan: Plan) -> str:
        if plan.seed == 3:
            raise KeyboardInterrupt
        return "lost" if plan.seed == 2 else ""

    fake = explored(verdict)
    assert run(["explore", "shop.py", "--keep-going"]) == ExitCode.INTERRUPTED
    said = capsys.readouterr().out
    assert "seed 2: lost!" in said and "It fails with 4 faults" in said
    assert said.endswith("shop.py::one: interrupted after 2 seeds, 2.0 virtual hours; failed on 2\n")
    assert len(fake.plans) == 3


def test_ctrl_c_before_any_failure_is_said(explored: Explored, capsys: pytest.CaptureFixture[str]) -> None:
    def verdict(_plan: Plan) -> str:
        raise KeyboardInterrupt

    explored(verdict)
    assert run(["explore", "shop.py"]) == ExitCode.INTERRUPTED
    assert capsys.readouterr().out == (
        "shop.py::one: interrupted after 0 seeds, 0.0 virtual hours; none failed\n"
    )
    assert run(["explore", "shop.py", "--json"]) == ExitCode.INTERRUPTED
    (summary,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert summary["is_interrupted"] and summary["seeds"] == 0


def test_ctrl_c_while_a_smaller_run_is_looked_for_tells_the_smallest_so_far(
    explored: Explored, capsys: pytest.CaptureFixture[str]
) -> None:
    def verdict(plan: Plan) -> str:
        if plan.strikes is not None and len(plan.strikes) == 1:
            raise KeyboardInterrupt
        return "lost" if plan.strikes != () else ""

    explored(verdict)
    assert run(["explore", "shop.py::one"]) == ExitCode.INTERRUPTED
    assert "It fails with 2 of 4 faults, 1 of 3 nodes" in capsys.readouterr().out


def test_what_passes_ends_with_0(explored: Explored, capsys: pytest.CaptureFixture[str]) -> None:
    explored(lambda plan: "")
    assert run(["explore", "shop.py"]) == ExitCode.OK
    assert capsys.readouterr().out == (
        "shop.py::one: 3 seeds, 3.0 virtual hours; none failed\n"
        "shop.py::two: 2 seeds, 2.0 virtual hours; none failed\n"
    )


@pytest.mark.parametrize(
    ("arguments", "problem", "code"),
    [
        (["nowhere.py::one"], "nowhere.py could not be run: there is no file nowhere.py", ExitCode.NOT_FOUND),
        (["shop.py::three"], "has no test three .*; it has one, two", ExitCode.NOT_FOUND),
        (["shop.py::Tests::one"], "not methods of a class", ExitCode.USAGE),
        (["shop.py::one", "--jobs", "none"], "not a whole number", ExitCode.USAGE),
        (["shop.py::one", "--strikes", "3,x"], "no list of numbers", ExitCode.USAGE),
        (["shop.py::one", "--seeds", "3..1"], "first seed is above", ExitCode.USAGE),
        (["shop.py::one", "--strikes", "3"], "name one by --seed N", ExitCode.USAGE),
        (["shop.py::one", "--strikes", "3", "--seeds", "1..2"], "name one by --seed N", ExitCode.USAGE),
        (["shop.py::one", "--picture", "run.png"], r"run\.png: a picture is a page, \.html", ExitCode.USAGE),
        (["shop.py::one", "--picture", "no/such/folder.html"], "no folder for", ExitCode.USAGE),
        (["shop.py::one", "--picture", "."], r"\. is a folder: give the picture a name", ExitCode.USAGE),
        (["shop.py::one", "--picture", "/dev/null/x.svg"], "no folder for", ExitCode.USAGE),
    ],
)
def test_mistakes_are_said(arguments: list[str], problem: str, code: ExitCode, explored: Explored) -> None:
    fake = explored(lambda plan: "")
    with pytest.raises(CliError, match=problem) as raised:
        run(["explore", *arguments])
    assert raised.value.code == code and not fake.plans


def test_numbers_of_no_strike_are_said(explored: Explored, capsys: pytest.CaptureFixture[str]) -> None:
    explored(lambda plan: "")
    assert run(["explore", "shop.py::one", "--seed", "1", "--strikes", "3,998,999"]) == ExitCode.OK
    assert capsys.readouterr().err == "ottla: --strikes: nothing has struck in this run by 998, 999\n"
    assert run(["explore", "shop.py::one", "--seed", "1", "--strikes", "3"]) == ExitCode.OK
    assert run(["explore", "shop.py::one", "--strikes", "none"]) == ExitCode.OK
    assert not capsys.readouterr().err


# ------------------------------------------------------------ tests in real time

REAL = """
from ottla.explore import explore_real


def ran(world): ...


test_one, test_two = explore_real(seeds=2)(ran), explore_real(seeds=3)(ran)
"""


@pytest.fixture
def real_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file with two tests in real time, of which the second fails on its seed 1."""
    file = tmp_path / f"test_{tmp_path.name}.py"
    file.write_text(REAL)

    def run(exploration: Any, first: int, last: int, *, keep_going: bool, say: Callable[[str], None]) -> Any:
        say(f"seeds {first} to {last}")
        return [1] if exploration.seeds == 3 else []

    monkeypatch.setattr(running, "run", run)
    return str(file)


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are imported leave no folders on the path."""
    monkeypatch.setattr(sys, "path", [*sys.path])


def test_all_tests_of_a_file_are_run_also_those_in_real_time(
    real_file: str, explored: Explored, capsys: pytest.CaptureFixture[str]
) -> None:
    explored(lambda plan: "")
    assert run(["explore", real_file]) == ExitCode.FAILED
    said = capsys.readouterr().out
    assert "::two: 2 seeds, 2.0 virtual hours; none failed\n" in said
    assert re.findall(r"in real time:\n(seeds .*)", said) == ["seeds 1 to 2", "seeds 1 to 3"]
    assert run(["explore", f"{real_file}::test_one", "--seed", "7"]) == ExitCode.OK
    assert capsys.readouterr().out == "seeds 7 to 7\n"


def test_what_is_left_out_is_said_with_how_to_run_it(
    real_file: str, explored: Explored, capsys: pytest.CaptureFixture[str]
) -> None:
    explored(lambda plan: "")
    assert run(["explore", real_file, "--json", "--shrink", "0"]) == ExitCode.OK
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2
    assert "left out, since --shrink, --json is not for real time: test_one, test_two." in said.err
    assert f"ottla explore {real_file}::test_one\n" in said.err
    with pytest.raises(CliError, match=r"has no test three .*; it has one, two, test_one, test_two"):
        run(["explore", f"{real_file}::three"])


def test_a_file_without_any_exploration_says_so(explored: Explored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fake, "tests", {})
    explored(lambda plan: "")
    with pytest.raises(CliError, match="has no test that is decorated with @explore or @explore_real"):
        run(["explore", "shop.py"])


def test_what_is_wrong_with_a_file_in_real_time_is_said_in_a_line(tmp_path: Path, explored: Explored) -> None:
    explored(lambda plan: "")
    file = tmp_path / f"test_{tmp_path.name}.py"
    for text, problem in (
        ("@explore_real(seeds=0)\ndef test_it(world): 0", ":2: seeds=0: from 1 to 1000000000"),
        ("@explore_real(nodes=10)\ndef test_it(world): 0", ":2: nodes=10: a world has 1 to 9 nodes"),
        (
            "@explore_real()\nasync def test_it(world): 0",
            ":2: test_it: in real time .*write `def`",
        ),
        ("@explore_real\ndef test_it(world): 0", r":2: write @explore_real\(\), with brackets"),
        (
            "@explore_real()\ndef test_it(world, x): 0",
            r":2: test_it\(world, x\): .* no fixtures",
        ),
        (
            "@explore_real(topics={'a b': 1})\ndef test_it(world): 0",
            ":2: topics: the name .*'a b' contains",
        ),
        (
            "@explore_real(topics=['a'])\ndef test_it(world): 0",
            ":2: topics=.'a'.: give each its partitions",
        ),
        ("@explore_real(topics={'a': 0})\ndef test_it(world): 0", ":2: topics: 'a' has 0 partitions"),
        ("import aiokafk", ":2: No module named 'aiokafk'. Is it installed"),
        ("import (", ":2: invalid syntax"),
        ("1 / 0", "could not be run: ZeroDivisionError: division by zero"),
    ):
        file.write_text(f"from ottla.explore import explore_real\n{text}\n")
        with pytest.raises(CliError, match=f"^{file}.*{problem}") as raised:
            run(["explore", str(file)])
        assert "Traceback" not in str(raised.value)


# ------------------------------------------------------------ pictures


def test_a_picture_is_of_the_smallest_run_of_the_first_failure(explored: Explored, tmp_path: Path) -> None:
    fake = explored(lost_on_2)
    picture = str(tmp_path / "run.html")
    assert run(["explore", "shop.py::one", "--picture", picture]) == ExitCode.FAILED
    assert [plan.picture for plan in fake.plans if plan.picture] == [picture]
    assert fake.plans[-1].picture == picture and fake.plans[-1].strikes == (3,)
    fake.plans.clear()
    assert run(["explore", "shop.py::two", "--seed", "1", "--picture", picture]) == ExitCode.OK
    assert fake.plans == [Plan(test="two", seed=1, is_told=True, picture=picture)]


def test_where_the_picture_is_or_why_there_is_none_is_said(
    explored: Explored, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = explored(lost_on_2)
    picture = str(tmp_path / "run.svg")
    assert run(["explore", "shop.py::one", "--picture", picture]) == ExitCode.FAILED
    assert f"\nIts picture is {picture}\n" in capsys.readouterr().out
    assert run(["explore", "shop.py::two", "--seed", "1", "--picture", picture]) == ExitCode.OK
    assert capsys.readouterr().out.startswith(f"The picture of seed 1 is {picture}\n")
    assert run(["explore", "shop.py::two", "--picture", picture]) == ExitCode.OK
    assert capsys.readouterr().err.startswith("ottla: no picture: no run has failed; ")
    fake.plans.clear()
    # The second test's run does not take the place of the first one's.
    assert run(["explore", "shop.py", "--seed", "1", "--picture", picture]) == ExitCode.OK
    assert [plan.picture for plan in fake.plans] == [picture, ""]


def test_a_picture_that_cannot_be_written_is_said_behind_the_report(
    explored: Explored, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    explored(lost_on_2)
    picture = str(tmp_path / "full.html")
    assert run(["explore", "shop.py::one", "--picture", picture]) == ExitCode.FAILED
    said = capsys.readouterr()
    assert said.out.startswith("seed 2: lost!\n")
    assert said.err == "ottla: no picture: No space left on device\n"
    assert run(["explore", "shop.py::one", "--json", "--picture", picture]) == ExitCode.FAILED
    assert json.loads(capsys.readouterr().out.splitlines()[0])["no_picture"] == "No space left on device"
    with pytest.raises(CliError, match="the run passes, and there is no picture of it: No space left"):
        run(["explore", "shop.py::two", "--seed", "1", "--picture", picture])


def test_what_no_text_is_can_be_said(explored: Explored, capsys: pytest.CaptureFixture[str]) -> None:
    explored(lambda plan: "lost \udc80\x1b[2J")
    assert run(["explore", "shop.py::one", "--json", "--shrink", "0"]) == ExitCode.FAILED
    failure, _ = map(json.loads, capsys.readouterr().out.splitlines())
    assert failure["error"] == "lost \udc80\x1b[2J!"
    assert run(["explore", "shop.py::one", "--shrink", "0"]) == ExitCode.FAILED
    assert capsys.readouterr().out.startswith("seed 1: lost \\udc80\\x1b[2J!\n")
