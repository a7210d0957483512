"""Processes that run plans: in order whatever their number, each run as if it were the first, and bounded."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.machinery import FileFinder
from pathlib import Path

import pytest

from ottla import implementation
from ottla.explore import addresses
from ottla.explore.finding import find, report
from ottla.explore.plan import Plan, Run
from ottla.explore.workers import Workers

FAULT = "FaultFailed: a fault of Ottla's has failed, and nothing of yours: "
EXITED = "ProgramExited: the program shop has ended"
ODDITIES = Path(__file__).with_name("oddities.py")
SHOP = Path(__file__).with_name("shop.py")


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(str(ODDITIES), jobs=2) as made:
        yield made


def only(workers: Workers, plan: Plan) -> Run:
    (run,) = workers.runs([plan])
    return run


@contextmanager
def fixed() -> Iterator[bool]:
    """Processes that are started meanwhile have fixed addresses (setarch -R), if the kernel lets them."""
    libc = ctypes.CDLL(None)
    before = libc.personality(addresses.LOOK)
    try:
        yield libc.personality(before | addresses.ADDR_NO_RANDOMIZE) >= 0
    finally:
        libc.personality(before)


def fixes_addresses() -> bool:
    """Whether the kernel lets a process have the same addresses as another one."""
    with fixed() as is_allowed:
        return is_allowed


TELLS = """
import os
import stock
from ottla.explore import explore

# As a conftest.py may.
os.environ["STOCK"] = os.environ.get("STOCK", "") + "much " * 100
assert len(os.environ["STOCK"]) == 500
os.chdir("/")

PARCEL = stock.Parcel()

@explore(faults="calm", nodes=1)
async def tells(world):
    import later
    raise ValueError(f"{id(PARCEL):x} {id(later.Parcel()):x} {[*{stock.Parcel() for _ in range(9)}]}")
"""
STOCK = "class Parcel:\n    pass\n"


def told(file: Path) -> set[str]:
    with Workers(str(file), jobs=2) as workers:
        return {run.error for run in workers.runs([Plan(test="tells", seed=1)] * 5)}


@pytest.mark.parametrize("is_written", [False, True])
def test_objects_lie_at_the_same_addresses_in_each_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_written: bool
) -> None:
    """Also once modules have been compiled, while files come and go in the folders of modules, and where
    whoever started it has fixed addresses."""
    here, there = tmp_path / "here", tmp_path / "there"
    for name, text in (("test_tells.py", TELLS), ("stock.py", STOCK), ("later.py", STOCK)):
        here.mkdir(exist_ok=True)
        (here / name).write_text(text)
    there.mkdir()
    monkeypatch.chdir(there)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if is_written:
        monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    else:
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    first = told(here / "test_tells.py")
    assert [error.split(": ")[0] for error in first] == ["ValueError"]
    assert (here / "__pycache__").exists() == is_written
    for folder in (here, there):
        for length in range(1, 40):
            (folder / f"{'x' * length}.txt").touch()
    with fixed():
        second = told(here / "test_tells.py")
    assert len(second) == 1
    assert (first == second) == fixes_addresses()


def test_where_folders_may_not_tell_cases_apart_they_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = FileFinder._fill_cache  # type: ignore[attr-defined]
    monkeypatch.setattr(FileFinder, "_fill_cache", before)
    monkeypatch.setattr(sys, "platform", "darwin")
    addresses.forget_names()
    assert FileFinder._fill_cache is before  # type: ignore[attr-defined]


def test_a_set_of_objects_has_its_order_from_the_seed_whatever_ran_before(tmp_path: Path) -> None:
    """Its order decides what is written: the program has objects that lie in it by their addresses."""
    plans = [Plan(test="parcels", seed=seed) for seed in range(1, 7)]
    with Workers(str(SHOP), jobs=1) as one:
        first = list(one.runs(plans))
        assert not [run.error for run in first if run.error]
        for run in one.runs([replace(plans[0], test="commit_last"), plans[1]]):
            assert run.seed == 1
            # The second one is under way, and is ended.
            break
        told = replace(plans[2], is_told=True, picture=str(tmp_path / "run.svg"))
        assert list(one.runs([told])) == first[2:3]
        assert list(one.runs(plans[3:4])) == first[3:4]
    with Workers(str(SHOP), jobs=2) as two:
        assert list(two.runs(plans)) == first
    if fixes_addresses():
        with Workers(str(SHOP), jobs=1) as alone:
            assert list(alone.runs(plans[-1:])) == first[-1:]


def test_what_is_drawn_when_the_file_is_imported_is_the_same_in_each_process(workers: Workers) -> None:
    # Both of the workers run one of the first two.
    plan = Plan(test="tells_what_was_drawn", seed=1)
    assert len({run.error for run in workers.runs([plan] * 2)}) == 1


def test_the_tests_of_a_file_are_told(workers: Workers) -> None:
    assert workers.tests["listed"] == {"seeds": 7, "nodes": 3}
    assert "COUNTED" not in workers.tests


def test_a_program_that_spins_is_ended_at_its_line_and_drawn(workers: Workers, tmp_path: Path) -> None:
    picture = tmp_path / "run.svg"
    run = only(workers, Plan(test="spins", seed=1, cpu_max_s=1.0, is_told=True, picture=str(picture)))
    assert run.error.startswith("the run has taken 1 s of CPU: it was ended at ")
    line = int(run.error.rpartition(":")[2])
    begin = 1 + ODDITIES.read_text().splitlines().index("        while True:")
    assert begin <= line <= begin + 4 and "oddities.py:" in run.error
    assert "in spinner" in run.traceback and "loop.py" not in run.traceback
    assert 0 < run.longest_run_s <= 5
    assert any("spinner starts" in line for line in run.story)
    assert not run.no_picture and "the run has taken 1 s of CPU" in picture.read_text(encoding="utf-8")


def test_a_function_in_c_that_does_not_return_is_ended_too(workers: Workers) -> None:
    run = only(workers, Plan(test="spins_in_c", seed=1, cpu_max_s=1.0, is_told=True, picture="run.svg"))
    assert run.no_picture == "what was recorded went with the process of the run"
    assert "ended before its time, with SIGXCPU" in run.error
    assert "before the sum" in run.printed
    assert "in spins_in_c" in run.printed


@pytest.mark.parametrize("statm", ["/proc/self/statm", "/nowhere"])
def test_a_run_that_waits_for_something_real_is_ended(statm: str) -> None:
    """Also where the system does not say how much memory a process has, as macOS."""
    code = (
        "import os, pathlib, threading\n"
        "from ottla.explore.programs import limits\n"
        f"limits.STATM = pathlib.Path({statm!r})\n"
        "from ottla.explore.world.loop import VirtualLoop\n"
        "def ended(reason, frame):\n"
        "    print(reason, frame is not None, flush=True)\n"
        "    os._exit(0)\n"
        "limits.LOOK_S = 0.5\n"
        "limits.begin(VirtualLoop(), 60, ended)\n"
        "threading.Event().wait()\n"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout == "nothing has gone on for 1 s of real time True\n"


@pytest.mark.parametrize(
    ("test", "error"),
    [
        ("ends_the_process", "the process of the run ended before its time, with exit code 3"),
        ("leaves", "SystemExit: no more"),
        ("logs_what_cannot_be_said", "ValueError: after the line"),
        ("has_a_fault_that_fails", f"{FAULT}ValueError('Total of weights must be greater than zero')"),
        ("has_a_fault_that_fails_later", f'{FAULT}KeyError("of Ottla\'s")'),
        ("has_a_fault_with_a_task_that_fails", f'{FAULT}KeyError("of Ottla\'s")'),
        ("has_a_program_that_exits", f"{EXITED} with exit code 3"),
        (
            "has_a_program_that_is_interrupted",
            f"{EXITED} by KeyboardInterrupt",
        ),
        ("fails_by_pytest", "Failed: no boots"),
        ("has_a_program_that_fails_by_pytest", "Failed: no shoes"),
        ("takes_all_memory", "MemoryError: a run may take 4 GiB"),
    ],
)
def test_a_run_that_ends_in_another_way_has_failed(workers: Workers, test: str, error: str) -> None:
    for _ in range(2):
        run = only(workers, Plan(test=test, seed=5))
        assert run.error == error and run.seed == 5 and run.kind
        assert ("before the end" in run.printed) == (test == "ends_the_process")


@pytest.mark.parametrize(
    ("picture", "problem"),
    [("/nowhere/run.html", "No such file or directory"), ("/dev/full", "No space left")],
)
def test_a_picture_that_cannot_be_saved_costs_no_report(workers: Workers, picture: str, problem: str) -> None:
    run = only(workers, Plan(test="takes_much_memory", seed=1, is_told=True, picture=picture))
    assert run.error.startswith("MemoryError") and run.story
    assert run.no_picture.startswith(f"{picture}: {problem}")


def test_programs_end_their_process_wherever_they_exit(workers: Workers) -> None:
    assert only(workers, Plan(test="has_programs_that_exit", seed=1)).error == ""


@pytest.mark.parametrize(
    ("test", "error"),
    [
        (
            "gives_a_coroutine",
            r"TypeError: give the function and .*: world.program\('shop', answering, …\)",
        ),
        (
            "gives_no_name",
            r"TypeError: a program begins with its name, not with <built-in .*>: .*",
        ),
        ("does_not_await", r"TypeError: .*oddities.py:\d+: `await` is missing: write `await world.run\(…\)`"),
        (
            "awaits_neither",
            r"TypeError: .*oddities.py:\d+: `await` is missing: write `await world.run\(…\)`",
        ),
        ("checks_what_it_has_not_awaited", r"TypeError: 'coroutine' object is not iterable"),
        (
            "misspells_a_topic",
            r"ValueError: there is no topic 'order': name it in `topics=`, beside .*",
        ),
    ],
)
def test_a_mistake_is_told_at_the_users_own_line(workers: Workers, test: str, error: str) -> None:
    run = only(workers, Plan(test=test, seed=5))
    assert re.fullmatch(error, run.error), run.error
    files = re.findall('File "(.*)", line', run.traceback)
    assert {Path(file).name for file in files} <= {"oddities.py"}
    if "not iterable" in error:
        assert run.traceback.endswith("\n`await` is missing before what the line calls, or called.\n")

    if test == "awaits_neither":
        assert "`await` is missing: write `await world.settle(…)`" in run.traceback
        assert re.search(r"The test failed at oddities.py:\d+ by \w+: ", run.traceback)


@pytest.mark.parametrize(
    ("test", "call"),
    [
        ("is_refused_and_settles", "time.sleep(1)"),
        ("is_refused_and_spins", "time.sleep(1)"),
        ("is_refused_at_the_end", "time.sleep(2)"),
        ("is_refused_and_fails", "time.sleep(2)"),
    ],
)
def test_a_refusal_that_the_program_takes_fails_the_run(workers: Workers, test: str, call: str) -> None:
    lines = ODDITIES.read_text().splitlines()
    (number,) = [at for at, text in enumerate(lines, 1) if text.strip() == call]
    run = only(workers, Plan(test=test, seed=1, cpu_max_s=1.0))
    assert run.error.startswith(f"NotSimulated: {ODDITIES}:{number}: a real sleep "), run.error
    assert run.kind == f"NotSimulated at oddities.py:{number}"


def test_an_assert_has_its_values_and_fails_in_the_same_way_with_others(workers: Workers) -> None:
    one, two = (only(workers, Plan(test="asserts_by_seed", seed=seed)) for seed in (1, 2))
    assert one.error == "AssertionError: assert seed == 0, where seed = 1"
    assert two.error == "AssertionError: assert seed == 0, where seed = 2"
    assert one.kind == two.kind and one.kind.startswith("AssertionError at oddities.py:")


def test_a_test_whose_program_never_works_does_not_pass(workers: Workers) -> None:
    run = only(workers, Plan(test="has_a_program_that_never_works", seed=1))
    starts = r"the program shop has ended by an error at each of its (19|20) starts, the last time by "
    assert re.match(f"NeverWorked: the test passes, but {starts}AttributeError", run.error), run.error
    assert 'raise AttributeError("no shoez")' in run.traceback
    assert only(workers, Plan(test="has_a_program_that_works_later", seed=1)).error == ""


def test_a_run_finds_nothing_of_the_one_before(workers: Workers) -> None:
    assert [run.error for run in workers.runs([Plan(test="counts", seed=seed) for seed in (1, 2, 3)])] == [
        ""
    ] * 3


def test_answers_come_in_the_order_of_the_plans_and_a_run_that_nobody_waits_for_is_ended(
    workers: Workers,
) -> None:
    slow = Plan(test="spins", seed=1, cpu_max_s=2.0)
    fast = [Plan(test="counts", seed=seed) for seed in (2, 3, 4)]
    assert [run.seed for run in workers.runs([slow, *fast])] == [1, 2, 3, 4]
    endless = Plan(test="spins", seed=9, cpu_max_s=10_000.0)
    for run in workers.runs([fast[0], endless]):
        assert run.seed == 2
        break
    assert [run.seed for run in workers.runs(fast)] == [2, 3, 4]


def test_runs_that_an_iterator_has_left_under_way_are_none_of_the_next_one(workers: Workers) -> None:
    quick = Plan(test="counts", seed=1)
    left = workers.runs([quick, Plan(test="spins", seed=2, cpu_max_s=3.0)])
    assert next(left).seed == 1
    assert [run.seed for run in workers.runs([replace(quick, seed=3)])] == [3]
    assert list(left) == []


def test_what_no_world_has_is_said(workers: Workers) -> None:
    with (
        Workers(str(ODDITIES)) as others,
        pytest.raises(RuntimeError, match=r"shaken: there is no preset 'earthquake'.*choose of"),
    ):
        only(others, Plan(test="shaken", seed=1))


def test_a_strike_that_is_left_out_leaves_the_others_alone(workers: Workers) -> None:
    (whole,) = workers.runs([Plan(test="listed", seed=3)])
    assert whole.error == "AssertionError: the end of 30 s" and whole.longest_run_s == pytest.approx(30)
    numbers = [number for number, *_ in whole.strikes]
    assert len(numbers) > 5 and numbers == sorted(numbers)
    some = tuple(numbers[1::2])
    (rest,) = workers.runs([Plan(test="listed", seed=3, strikes=some)])
    assert tuple(number for number, *_ in rest.strikes) == some
    times = {number: (kind, round(at_s, 2)) for number, kind, at_s, _ in whole.strikes}
    assert {number: (kind, round(at_s, 2)) for number, kind, at_s, _ in rest.strikes} == {
        number: times[number] for number in some
    }
    assert rest.kind == whole.kind and "oddities.py:" in rest.kind
    (smaller,) = workers.runs([Plan(test="listed", seed=3, strikes=(), nodes=1, run_max_s=2.0)])
    assert (smaller.strikes, smaller.nodes, smaller.error) == ((), 1, "AssertionError: the end of 2 s")
    assert smaller.kind == whole.kind


def test_the_number_of_processes_changes_nothing(workers: Workers) -> None:
    plans = [Plan(test="listed", seed=seed) for seed in (1, 2, 3)]
    with Workers(str(ODDITIES)) as one:
        alone = list(one.runs(plans))
    assert list(workers.runs(plans)) == alone
    assert [run.seed for run in alone] == [1, 2, 3]


def test_a_seed_is_the_same_run_where_the_hot_path_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = [Plan(test="commit_last", seed=seed) for seed in (1, 2)]
    with Workers(str(SHOP), jobs=2) as as_it_is:
        # Compiled, where there is a build of the sources that are there.
        found = list(as_it_is.runs(plans))
    monkeypatch.setenv(implementation.PURE_VARIABLE, "1")
    with Workers(str(SHOP), jobs=2) as pure:
        assert list(pure.runs(plans)) == found


def test_a_failure_is_made_smaller_and_drawn(workers: Workers, tmp_path: Path) -> None:
    picture = tmp_path / "run.html"
    plan = Plan(test="listed", seed=3, picture=str(picture))
    (whole,) = workers.runs([plan])
    finding = find(workers, "oddities.py::listed", plan, whole)
    assert finding.plan == Plan(test="listed", seed=3, strikes=(), nodes=1, run_max_s=0.1)
    assert finding.is_repeatable and finding.run.kind == whole.kind
    assert "--seed 3 --strikes none --nodes 1 --seconds 0.1\n" in report(finding)
    assert "listed, seed 3" in picture.read_text(encoding="utf-8")


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        direct = [int(word) for word in children.read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [*direct, *(below for child in direct for below in descendants(child))]


def is_alive(pid: int) -> bool:
    """Neither gone nor waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_ctrl_c_ends_at_once_with_what_was_found_and_no_process_is_left() -> None:
    arguments = [f"{ODDITIES}::spins", "--jobs", "2", "--seeds", "1..", "--cpu-seconds", "10000"]
    with subprocess.Popen(
        [sys.executable, "-m", "ottla.cli.main", "explore", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            # Two workers with a run each, and what they are forked from.
            wait_until(lambda: process.poll() is not None or len(descendants(process.pid)) == 5)
            below = descendants(process.pid)
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=120)
        finally:
            # If Ctrl-C has not ended it, they would spin for hours. (Its workers end with it.)
            process.kill()
    assert process.returncode == 130, err
    assert out.endswith("spins: interrupted after 0 seeds, 0.0 virtual hours; none failed\n")
    assert len(below) == 5
    wait_until(lambda: not any(map(is_alive, below)))
