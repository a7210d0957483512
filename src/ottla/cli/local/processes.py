"""The processes of a local cluster, found by their command lines, so that no other process gets a signal.

A node is a process of `ottla serve` with ``--data`` and its folder, a member of etcd is one of ``etcd`` with
``--data-dir``. Process ids are reused: on Linux a signal goes through a descriptor of the process, whose
command line is read after that was opened.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from ottla.cli.local.layout import LocalNode, Member

PROC = Path("/proc")
STEP_S = 0.02
KILLED_TIMEOUT_S = 10.0
PS_TIMEOUT_S = 10.0

# The word before "serve" in the command line of a node: a script, or a module that Python runs.
_OTTLA = re.compile(r"(?:.*/)?ottla(?:\.cli\.main|/__main__\.py|/cli/main\.py)?", re.DOTALL)
# How many words may come before the program: an interpreter, its options, and a script.
PROGRAM_WORDS_MAX = 4

# Whether the words of a command line are those of the process that is meant.
Matches = Callable[[Sequence[str]], bool]


def of_node(directory: Path, node: LocalNode) -> Matches:
    """Whether a command line is that of this node of the cluster in ``directory``."""
    data = f"{directory}/{node.folder}"
    return lambda words: _serves(words) and _has(words, "--data", data)


def of_member(directory: Path, member: Member) -> Matches:
    """Whether a command line is that of this member of etcd."""
    data = f"{directory}/{member.name}"
    return lambda words: _is_etcd(words) and _has(words, "--data-dir", data)


def _serves(words: Sequence[str]) -> bool:
    first = pairwise(words[: PROGRAM_WORDS_MAX + 1])
    return any(behind == "serve" and _OTTLA.fullmatch(word) is not None for word, behind in first)


def _is_etcd(words: Sequence[str]) -> bool:
    """Whether etcd is run, by itself or by the interpreter of a script of that name."""
    return any(word.rpartition("/")[2] == "etcd" for word in words[:2])


def _has(words: Sequence[str], option: str, value: str) -> bool:
    return f"{option}={value}" in words or (option, value) in pairwise(words)


def find(wanted: Sequence[Matches], known: Iterable[int]) -> list[int | None]:
    """The process that each of ``wanted`` matches, or None. ``known``: ids to look at where the system does
    not list its processes."""
    pids: Iterable[int] = known
    if PROC.is_dir():
        pids = sorted(int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal())
    found: list[int | None] = [None] * len(wanted)
    for pid in pids:
        words = _command(pid)
        for i, matches in enumerate(wanted):
            if found[i] is None and words and matches(words):
                found[i] = pid
    return found


def _command(pid: int) -> list[str]:
    """The words of a process's command line; empty where it has ended, or may not be seen."""
    if PROC.is_dir():
        try:
            return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="surrogateescape").split("\0")
        except OSError:
            return []
    try:
        shown = subprocess.run(
            ["ps", "-ww", "-o", "command=", "-p", str(pid)],
            capture_output=True,
            text=True,
            timeout=PS_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return shown.stdout.split()


def send(pid: int, matches: Matches, signum: int) -> bool:
    """Send a signal to a process, if it still is the one that is meant; whether it was."""
    if not hasattr(os, "pidfd_open"):
        if not matches(_command(pid)):
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
        return True
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not matches(_command(pid)):
            return False
        signal.pidfd_send_signal(process, signum)
    except ProcessLookupError:
        return False
    finally:
        os.close(process)
    return True


def end(pid: int, matches: Matches, *, clean: bool, timeout_s: float) -> bool:
    """End a process and wait until it has ended: with ``clean`` by SIGTERM, and by SIGKILL where it does not
    end in time. Whether it was SIGTERM."""
    if clean:
        send(pid, matches, signal.SIGTERM)
        # One that was paused would not hear it.
        send(pid, matches, signal.SIGCONT)
        if _ends(pid, matches, timeout_s):
            return True
    send(pid, matches, signal.SIGKILL)
    _ends(pid, matches, KILLED_TIMEOUT_S)
    return False


def _ends(pid: int, matches: Matches, timeout_s: float) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while matches(_command(pid)):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(STEP_S)
    return True
