"""What is to be run, a test with a seed or less than all of that, and what became of it.

Both go between processes as JSON, in files.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

# What a worker is asked for: a run; that the run under way ends.
RUN, CANCEL = b"r", b"c"
# So many runs a worker tells of before the first one: nothing is run, and what it takes for itself is taken.
REHEARSALS = 2
# What it answers: the id of the process that was the run, and its status, as `os.waitpid` has it.
ENDED = struct.Struct("=ii")
READ_BYTES = 256 * 1024
# A run that takes more CPU than this is ended: some program spins and awaits nothing.
CPU_MAX_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run of ``test``. The same plan is the same run, to the last message; None is as the test has it.

    ``strikes``: the numbers of the faults that strike, in their order; the others are left out, and these
    strike when they would. ``run_max_s``: how long each `World.run` takes at most, in virtual seconds.
    """

    test: str
    seed: int
    strikes: tuple[int, ...] | None = None
    nodes: int | None = None
    run_max_s: float | None = None
    # What it may take of the CPU.
    cpu_max_s: float | None = None
    # What is told of it: its story, if it has failed, from all that its programs asked and were answered; and
    # the file that a picture of it is written to, none if empty. Neither is known before the run has ended.
    is_told: bool = False
    picture: str = ""

    def to_json(self) -> tuple[str, str]:
        """The run, and what is told of it: two documents, so that the first is the same whatever is told."""
        fields = asdict(self)
        told = {name: fields.pop(name) for name in ("is_told", "picture")}
        return json.dumps(fields), json.dumps(told)

    @classmethod
    def from_json(cls, run: str) -> Plan:
        given = json.loads(run)
        strikes = given["strikes"]
        return cls(**{**given, "strikes": None if strikes is None else tuple(strikes)})

    def with_told(self, told: str) -> Plan:
        return replace(self, **json.loads(told))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What became of a plan. ``error``: empty if the test passed. ``digest``: the same for the same run."""

    seed: int
    error: str = ""
    # Failures of one kind are failures at the same place, of the same check.
    kind: str = ""
    traceback: str = ""
    digest: str = ""
    virtual_s: float = 0.0
    # How often which fault has struck; and all strikes, of a failure and where the plan names some: number,
    # kind, seconds, what happened.
    faults: Mapping[str, int] = field(default_factory=dict)
    strikes: Sequence[tuple[int, str, float, str]] = ()
    nodes: int = 0
    # How long the longest `World.run` was to take, in virtual seconds.
    longest_run_s: float = 0.0
    story: Sequence[str] = ()
    # The last of what a test that failed has printed.
    printed: str = ""
    # Why there is no picture, where one was to be drawn.
    no_picture: str = ""
    # The checks of sources that it made, and whether each had a record to look for.
    checked: Mapping[str, bool] = field(default_factory=dict)
    cpu_s: float = field(default=0.0, compare=False)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Run:
        strikes = tuple((number, kind, at_s, text) for number, kind, at_s, text in given["strikes"])
        return cls(**{**given, "strikes": strikes})


def write(fd: int, document: str) -> None:
    """Have a file contain this and nothing else."""
    left = memoryview(document.encode())
    os.ftruncate(fd, 0)
    at = 0
    while at < len(left):
        at += os.pwrite(fd, left[at:], at)


def read(fd: int) -> str:
    """What `write` has written."""
    pieces = []
    at = 0
    while piece := os.pread(fd, READ_BYTES, at):
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces).decode()
