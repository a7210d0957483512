"""`ottla cluster start`, `kill` and `down`: the process that runs the cluster does it.

If that process is gone and left processes of its cluster behind, the command ends them itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from ottla.cli import output
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.local import control, processes
from ottla.cli.local.child import STOP_TIMEOUT_S
from ottla.cli.local.supervisor import chosen, read_state

# A cluster stops its nodes one after the other, and each may take its time.
DOWN_TIMEOUT_S = 600.0


def start(directory: Path, nodes: Sequence[int]) -> int:
    """Start nodes that do not run, or all of them."""
    directory = control.find_cluster(directory)
    _check_known(directory, nodes)
    code = _ask(directory, {"command": control.START, "nodes": list(nodes)})
    if code is None:
        raise CliError(
            f"the cluster in {directory} does not run; 'ottla cluster up --data {directory}' starts it"
        )
    return code


def kill(directory: Path, nodes: Sequence[int], *, clean: bool) -> int:
    """Kill nodes, or with ``clean`` have them stop."""
    directory = control.find_cluster(directory)
    _check_known(directory, nodes)
    code = _ask(directory, {"command": control.KILL, "nodes": list(nodes), "clean": clean})
    return _end_left_behind(directory, nodes, clean=clean) if code is None else code


def down(directory: Path) -> int:
    """Stop the nodes one after the other, and then etcd; returns when all have ended."""
    directory = control.find_cluster(directory)
    if _ask(directory, {"command": control.DOWN}) is not None:
        _await_end(directory)
        output.say("ottla: cluster stopped")
        return ExitCode.OK
    layout, _ = read_state(directory)
    _end_left_behind(directory, [node.id for node in layout.nodes], clean=True, silent=True)
    ended = _end_members(directory)
    output.say("ottla: cluster stopped" if ended else "ottla: the cluster does not run")
    return ExitCode.OK


def _check_known(directory: Path, nodes: Sequence[int]) -> None:
    layout, _ = read_state(directory)
    chosen(layout.nodes, nodes, directory)


def _ask(directory: Path, asked: dict[str, object]) -> int | None:
    """Have the process that runs the cluster do it; its exit code, or None where there is no such process."""
    deadline_s = time.monotonic() + control.BUSY_TIMEOUT_S
    while True:
        if (code := control.ask(directory, asked)) is not None:
            return code
        with control.locked(directory) as free:
            if free:
                return None
        if time.monotonic() > deadline_s:
            raise CliError(f"the cluster in {directory} is starting or stopping; try again")
        time.sleep(control.BUSY_STEP_S)


def _await_end(directory: Path) -> None:
    deadline_s = time.monotonic() + DOWN_TIMEOUT_S
    while time.monotonic() < deadline_s:
        with control.locked(directory) as free:
            if free:
                return
        time.sleep(control.BUSY_STEP_S)
    raise CliError(f"the cluster in {directory} still runs after {DOWN_TIMEOUT_S:.0f} s: see its logs")


def _end_left_behind(directory: Path, nodes: Sequence[int], *, clean: bool, silent: bool = False) -> int:
    layout, pids = read_state(directory)
    for node in chosen(layout.nodes, nodes, directory):
        matches = processes.of_node(directory, node)
        (pid,) = processes.find([matches], pids)
        if pid is not None:
            well = processes.end(pid, matches, clean=clean, timeout_s=STOP_TIMEOUT_S)
            output.say(f"ottla: {node.name} {'stopped' if well else 'killed'} (pid {pid})")
        elif not silent:
            output.say(f"ottla: {node.name} does not run")
    return ExitCode.OK


def _end_members(directory: Path) -> bool:
    layout, pids = read_state(directory)
    ended = False
    for member in layout.members:
        matches = processes.of_member(directory, member)
        (pid,) = processes.find([matches], pids)
        if pid is not None:
            processes.end(pid, matches, clean=True, timeout_s=STOP_TIMEOUT_S)
            ended = True
    return ended
