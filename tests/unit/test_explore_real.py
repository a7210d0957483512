"""Worlds in real time: programs as processes, none of which is left behind, and faults of a real cluster."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import real_programs as programs

from interop.process import wait_until
from interop.raw import RawClient
from ottla.explore import RealWorld, explore_real
from ottla.explore.real import output, running
from ottla.explore.real.schedule import Strike
from ottla.explore.real.striking import Striking
from ottla.explore.real.target import OneNode
from ottla.explore.real.world import NOT_EXACT, NotSettled, ProgramFailed
from ottla.testing import Broker, Cluster

NO_SUCH = [sys.executable, "-c", "raise SystemExit(3)"]


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    with Cluster(3, topics={"orders": 1}) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared: Cluster) -> Cluster:
    shared.reset()
    shared.wait_for_isr("orders")
    return shared


@pytest.fixture
def world(broker: Broker) -> Iterator[RealWorld]:
    """One without faults."""
    with RealWorld(1, cluster=broker, faults="calm") as world:
        yield world


def until(world: RealWorld, condition: Callable[[], Any]) -> None:
    """Let the world's time go by until something is so."""
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s, world.report()
        world.run(0.02)


def alive(pid: int) -> bool:
    """Whether a process is there, and not only its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


# ------------------------------------------------------------ programs


def test_a_function_is_a_program_in_a_process_of_its_own(world: RealWorld) -> None:
    program = world.program("shop", programs.greet, programs.Order(7))
    until(world, lambda: program.done)
    assert program.last_lines(2) == ["--- shop.1", "order 7"]
    assert [text for _, text in world.events] == ["shop.1 starts", "shop.1 has ended"]


def test_a_coroutine_function_is_one_too(world: RealWorld) -> None:
    program = world.program("shop", programs.greet_later, "you")
    until(world, lambda: program.done)
    assert program.last_lines(1) == ["hello you"]


def test_a_command_is_one_with_an_environment_and_a_folder(world: RealWorld, tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ['SHOP'], os.getcwd(), sys.argv[1:])"
    command = [sys.executable, "-c", code]
    program = world.program("shop", command, "a", 1, environment={"SHOP": "shoes"}, cwd=tmp_path)
    until(world, lambda: program.done)
    assert program.last_lines(1) == [f"shoes {tmp_path} ['a', '1']"]


def test_what_cannot_be_a_program_is_refused(world: RealWorld) -> None:
    def local() -> None: ...

    with pytest.raises(TypeError, match="local"):
        world.program("a", local)
    with pytest.raises(TypeError, match=r"as a list, \['kcat', '-L'\]"):
        world.program("b", "kcat -L")
    with pytest.raises(TypeError, match=r"give the function and .* world.program\('f', greet_later, …\)"):
        world.program("f", programs.greet_later("you"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="begins with its name"):
        world.program(programs.fail, "f")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        world.program("c", ["no-such-command"])
    with pytest.raises(ValueError, match="name of its own"):
        world.program("../d", programs.fail)
    world.program("e", programs.greet, programs.Order(1))
    with pytest.raises(ValueError, match="name of its own"):
        world.program("e", programs.greet, programs.Order(1))
    assert [*world.programs] == ["e"]
    with pytest.raises(RuntimeError, match="with RealWorld"):
        RealWorld(1).program("f", programs.fail)


def test_an_error_ends_the_run_with_what_was_printed(world: RealWorld) -> None:
    program = world.program("shop", programs.fail)
    with pytest.raises(ProgramFailed, match="shop ended with 1 ") as failed:
        until(world, lambda: False)
    assert "RuntimeError: no more shoes" in str(failed.value)
    # Nothing of what runs it.
    assert "in fail" in str(failed.value) and "launch.py" not in str(failed.value)
    assert program.failures == [1]


def test_who_restarts_does_so_after_an_error(world: RealWorld) -> None:
    program = world.program("shop", NO_SUCH, restarts=True)
    until(world, lambda: program.starts == 2)
    assert program.failures[0] == 3


def test_a_kill_ends_all_of_the_group_and_a_start_begins_anew(world: RealWorld, tmp_path: Path) -> None:
    program = world.program("shop", programs.family, tmp_path / "pids")
    until(world, (tmp_path / "pids").exists)
    own, child, _ = map(int, (tmp_path / "pids").read_text().split())
    assert own == program.pid and alive(child)
    program.kill()
    wait_until(lambda: not alive(child), what="the end of the child")
    assert not alive(own) and not program.running
    with pytest.raises(RuntimeError, match="does not run"):
        _ = program.pid
    world.run(0.05)
    assert program.starts == 1
    program.start()
    assert program.starts == 2 and program.pid != own


def test_a_paused_program_stands_still(world: RealWorld, tmp_path: Path) -> None:
    ticks = tmp_path / "ticks"
    program = world.program("shop", programs.tick, ticks)
    until(world, ticks.exists)
    program.pause()
    wait_until(lambda: Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    before = ticks.stat().st_size
    world.run(0.2)
    assert ticks.stat().st_size == before
    program.resume()
    until(world, lambda: ticks.stat().st_size > before)


def test_much_output_is_bounded_and_its_end_is_kept(
    world: RealWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "PRINTED_BYTES_MAX", 200_000)
    program = world.program("shop", programs.chat)
    until(world, lambda: program.last_lines(1) == ["the last line"])
    assert program.output.stat().st_size < 200_000


# ------------------------------------------------------------ nothing is left behind


def test_nothing_is_left_of_a_world_that_has_ended(broker: Broker, tmp_path: Path) -> None:
    with RealWorld(1, cluster=broker, faults="calm") as world:
        program = world.program("shop", programs.family, tmp_path / "pids")
        until(world, (tmp_path / "pids").exists)
    assert not any(alive(int(pid)) for pid in (tmp_path / "pids").read_text().split())
    assert not program.output.parent.exists()
    assert broker.running


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_of_a_test_that_is_killed(number: signal.Signals, tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, real_programs as programs\n"
        "from ottla.explore import RealWorld\n"
        "with RealWorld(1, nodes=1, faults='calm') as world:\n"
        f"    shop = world.program('shop', programs.family, pathlib.Path({str(tmp_path)!r}, 'pids'))\n"
        "    print(shop.output.parent, flush=True)\n"
        "    world.run(600)\n"
    )
    test = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        wait_until((tmp_path / "pids").exists)
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        assert all(map(alive, pids))
        test.send_signal(number)
        folder, _ = test.communicate(timeout=60)
    finally:
        test.kill()
    wait_until(lambda: not any(map(alive, pids)), what="the end of all processes")
    wait_until(lambda: not Path(folder.strip()).exists(), what="the end of the folder")


# ------------------------------------------------------------ what a test sees


def test_a_failure_has_the_report_as_a_note(broker: Broker) -> None:
    with pytest.raises(AssertionError) as failed, RealWorld(4, cluster=broker, faults="calm") as world:
        program = world.program("shop", programs.greet, programs.Order(7))
        until(world, lambda: program.done)
        raise AssertionError("an order is missing")
    (note,) = failed.value.__notes__
    assert note.startswith("seed 4, in real time.")
    assert NOT_EXACT in note
    assert "RealWorld(seed=4, ...)" in note
    assert "shop.1 has ended" in note and "    order 7" in note


def test_the_command_repeats_the_schedule_of_a_decorated_test() -> None:
    asked: list[RealWorld] = []

    def test(world: RealWorld) -> None:
        """Of a shop."""
        asked.append(world)
        world.run(0.3)
        assert world.seed < 2

    explored = explore_real(seeds=3, nodes=1, faults={"break": 1, "slow-link": 1}, topics={"orders": 2})(test)
    assert (explored.__name__, explored.__doc__) == ("test", "Of a shop.")
    with pytest.raises(AssertionError) as failed:
        explored()
    assert [world.seed for world in asked] == [1, 2]
    (note,) = failed.value.__notes__
    assert f"    ottla explore {explored.exploration.target} --seed 2\n" in note
    first = asked[0]
    assert first.schedule and explored.exploration.run(1).schedule == first.schedule
    said = [text for _, text in first.events]
    assert said == [str(strike) for strike in first.schedule]


def test_what_is_not_to_be_explored_is_refused() -> None:
    async def test(world: RealWorld) -> None: ...

    with pytest.raises(TypeError, match="write `def`"):
        explore_real()(test)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seeds=0"):
        explore_real(seeds=0)
    with pytest.raises(ValueError, match="in real time: choose of"):
        RealWorld(1, faults=["power"])


def test_settle_waits_until_groups_have_members_and_says_for_what_it_waits(world: RealWorld) -> None:
    with pytest.raises(NotSettled, match="these groups have no members: shipping"):
        world.settle(groups=["shipping"], timeout_s=0.5)
    world.program("shop", programs.tick, Path(os.devnull))
    with pytest.raises(NotSettled, match=r"these programs have not ended: shop\.1"):
        world.settle(timeout_s=0.5)


def test_a_program_that_is_spared_is_struck_by_nothing(broker: Broker) -> None:
    with RealWorld(7, cluster=broker, faults=["program-kill", "program-pause"]) as world:
        world.program("load", programs.tick, Path(os.devnull), spared=True)
        world.run(0.1)
        assert world.schedule == [] and world.programs["load"].starts == 1
        world.program("shop", programs.tick, Path(os.devnull))
        world.run(0.5)
        assert {strike.on for strike in world.schedule} == {("shop",)}


def explored(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`ottla explore`, in the folder of the file that it is told."""
    command = [sys.executable, "-m", "ottla", "explore", *arguments]
    folder = Path(__file__).parent
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_runs_its_seeds_until_one_fails() -> None:
    ended = explored("real_tests.py::odd_seeds_pass")
    assert ended.returncode == 1, ended.stderr
    lines = ended.stdout.splitlines()
    assert "AssertionError: an even seed" in lines
    assert "    ottla explore real_tests.py::odd_seeds_pass --seed 2" in lines
    assert re.fullmatch(r"2 seeds in \d+ s of real time; failed on 2", lines[-1])


@pytest.mark.parametrize(
    ("more", "code", "last"),
    [
        (["--keep-going", "--seeds", "2..4"], 1, "3 seeds in N s of real time; failed on 2, 4"),
        (["--seed", "3"], 0, "1 seed in N s of real time; none failed"),
    ],
)
def test_the_command_runs_the_seeds_that_it_is_told(more: list[str], code: int, last: str) -> None:
    ended = explored("real_tests.py::odd_seeds_pass", *more)
    assert (ended.returncode, re.sub(r"\d+ s of", "N s of", ended.stdout.splitlines()[-1])) == (code, last)


def test_options_of_simulated_tests_are_refused_for_one_in_real_time() -> None:
    ended = explored("real_tests.py::odd_seeds_pass", "--picture", "run.html", "--nodes", "1", "--json")
    assert ended.returncode == 2
    assert "--nodes, --picture, --json: only for tests with @explore; odd_seeds_pass runs" in ended.stderr


def test_ctrl_c_ends_seeds_in_real_time_with_what_was_found() -> None:
    class Interrupted:
        def run(self, seed: int) -> None:
            if seed == 2:
                raise KeyboardInterrupt
            raise AssertionError("no shoes")

    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        running.run(Interrupted(), 1, 9, keep_going=True, say=said.append)  # type: ignore[arg-type]
    assert "AssertionError: no shoes" in said
    assert said[-1] == "2 seeds in 0 s of real time; failed on 1"


# ------------------------------------------------------------ faults of nodes


def struck(cluster: Cluster, **strike: Any) -> tuple[Striking, list[str]]:
    """A strike that is carried out, and what is told of it."""
    told: list[str] = []
    striking = Striking(cluster, {}, told.append)
    striking.strike(Strike(at_s=0, **{"lasts_s": 1.0, **strike}), 0.0)
    return striking, told


def answers(cluster: Cluster, node_id: int) -> bool:
    try:
        with RawClient(cluster.nodes[node_id].bootstrap_servers) as client:
            client.call("ApiVersions", 0)
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("kind", "on"), [("kill", ("n2",)), ("restart", ("n2",)), ("kill-many", ("n1", "n2"))]
)
def test_a_node_is_down_until_its_time_is_over(cluster: Cluster, kind: str, on: tuple[str, ...]) -> None:
    striking, told = struck(cluster, kind=kind, on=on)
    assert set(cluster.running) == {1, 2, 3} - {int(name[1:]) for name in on}
    striking.strike(Strike(at_s=0, kind="kill", on=("n2",), lasts_s=9), 0.0)
    striking.strike(Strike(at_s=0, kind="break", on=("n2",)), 0.0)
    assert "not done, down already" in told[1] and "not done, the node is down" in told[2]
    striking.look(0.9)
    assert 2 not in cluster.running
    striking.look(1.0)
    assert cluster.running == (1, 2, 3)
    assert striking.counts == {kind: 1}


def test_a_node_is_cut_off_from_clients_and_not_from_nodes(cluster: Cluster) -> None:
    leader = cluster.leader("orders")
    striking, _ = struck(cluster, kind="isolate", on=(f"n{leader}",), cut_off="from clients")
    assert not answers(cluster, leader)
    cluster.produce("orders", "a")
    assert cluster.isr("orders") == (1, 2, 3)
    striking.end_all()
    assert answers(cluster, leader)


@pytest.mark.parametrize("cut_off", ["from nodes", "from all"])
def test_a_node_is_cut_off_from_nodes(cluster: Cluster, cut_off: str) -> None:
    leader = cluster.leader("orders")
    striking, told = struck(cluster, kind="isolate", on=(f"n{leader}",), cut_off=cut_off)
    assert cluster.wait_for_leader("orders", other_than=leader)
    assert answers(cluster, leader) == (cut_off == "from nodes")
    striking.strike(Strike(at_s=0, kind="restart", on=(f"n{leader}",)), 0.0)
    striking.strike(Strike(at_s=0, kind="pause", on=(f"n{leader}",)), 0.0)
    assert "could not hand over" in told[1] and "cut off already" in told[2]
    striking.look(1.0)
    cluster.wait_for_isr("orders")


def test_a_split_is_healed_where_it_was(cluster: Cluster) -> None:
    leader = cluster.leader("orders")
    others = sorted({1, 2, 3} - {leader})
    striking, _ = struck(
        cluster, kind="split", on=(f"n{leader}",), others=tuple(f"n{node_id}" for node_id in others)
    )
    cuts = [frozenset((leader, other)) for other in others]
    assert all(map(cluster._wires.is_cut, cuts))
    assert not cluster._wires.is_cut(frozenset(others))
    striking.end_all()
    assert not any(map(cluster._wires.is_cut, cuts))
    assert cluster.produce("orders", "a") == 0


def test_a_paused_node_keeps_clients_waiting(cluster: Cluster) -> None:
    node = cluster.nodes[2]
    striking, _ = struck(cluster, kind="pause", on=("n2",), lasts_s=0.5)
    (rule,) = node.faults.rules
    assert rule.fault.delay_ms == 500
    striking.look(0.5)
    assert not node.faults.rules
    assert answers(cluster, 2)


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ({"kind": "slow-link", "delay_ms": 20}, "slow-link n2 by 20 ms for 1.0 s"),
        (
            {"kind": "lose", "api": "Produce", "times": 2},
            "lose n2 (Produce without answer, 2 times) for 1.0 s",
        ),
        (
            {"kind": "errors", "api": "Fetch", "error": "NOT_LEADER_OR_FOLLOWER", "times": 1},
            "errors n2 (Fetch NOT_LEADER_OR_FOLLOWER, 1 times) for 1.0 s",
        ),
    ],
)
def test_requests_of_clients_meet_a_fault_for_a_while(
    cluster: Cluster, more: dict[str, Any], shown: str
) -> None:
    striking, told = struck(cluster, on=("n2",), **more)
    assert told == [shown]
    assert len(cluster.nodes[2].faults.rules) == 1
    striking.look(1.0)
    assert cluster.nodes[2].faults.rules == ()


def test_connections_are_reset(cluster: Cluster) -> None:
    with RawClient(cluster.nodes[2].bootstrap_servers) as client:
        client.call("ApiVersions", 0)
        struck(cluster, kind="break", on=("n2",), lasts_s=0)
        with pytest.raises(OSError):
            client.call("ApiVersions", 0)


def test_a_broker_is_a_cluster_of_one_node(broker: Broker) -> None:
    node = OneNode(broker)
    striking = Striking(node, {}, print)
    striking.strike(Strike(at_s=0, kind="kill", on=("n1",), lasts_s=1), 0.0)
    assert not broker.running
    striking.end_all()
    assert broker.running
    with RawClient(broker.bootstrap_servers) as client:
        client.call("ApiVersions", 0)
        striking.strike(Strike(at_s=0, kind="restart", on=("n1",), lasts_s=1), 0.0)
        with pytest.raises(OSError):
            client.call("ApiVersions", 0)
    striking.strike(Strike(at_s=0, kind="pause", on=("n1",), lasts_s=0.1), 0.0)
    striking.end_all()
    assert broker.running
