"""What goes over the connections of programs is kept, in bounded memory, until it is looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from ottla.explore.recording import tape
from ottla.explore.recording.tape import Tape


@dataclass(frozen=True)
class Process:
    is_program: bool


@dataclass(eq=False)
class End:
    process: Process
    peer: Any = field(default=None, repr=False)


def connection(near_is_program: bool, far_is_program: bool) -> tuple[Any, Any]:
    near, far = End(Process(near_is_program)), End(Process(far_is_program))
    near.peer, far.peer = far, near
    return near, far


class Player:
    """What it is shown, and when that was."""

    def __init__(self, shown: Tape) -> None:
        self.seen: list[tuple[float, str, object, object]] = []
        self.interrupt: Callable[[], None] | None = None
        self._tape = shown

    def written(self, end: object, data: bytes) -> None:
        self.seen.append((self._tape.now_s(), "written", end, data))
        interrupt, self.interrupt = self.interrupt, None
        if interrupt is not None:
            interrupt()

    def taken(self, end: object, count: int) -> None:
        self.seen.append((self._tape.now_s(), "taken", end, count))

    def closed(self, end: object) -> None:
        self.seen.append((self._tape.now_s(), "closed", end, None))


class Bench:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.tape = Tape(lambda: self.now_s)
        self.tape.player = self.player = Player(self.tape)


def test_it_is_played_as_it_was_and_once() -> None:
    bench = Bench()
    program, node = connection(True, False)
    expected = []
    for bench.now_s, end in ((1.0, program), (2.5, node)):
        bench.tape.written(end, b"said")
        expected.append((bench.now_s, "written", end, b"said"))
    bench.tape.taken(program, 4)
    bench.tape.closed(node)
    expected += [(2.5, "taken", program, 4), (2.5, "closed", node, None)]
    assert not bench.player.seen
    bench.now_s = 9.0
    bench.tape.play()
    bench.tape.play()
    assert bench.player.seen == expected


def test_what_is_left_is_played_where_it_is_interrupted() -> None:
    bench = Bench()
    program, _ = connection(True, False)
    for bench.now_s in (1.0, 2.0, 3.0):
        bench.tape.written(program, b"said")
    bench.player.interrupt = bench.tape.play
    bench.tape.play()
    assert [at_s for at_s, *_ in bench.player.seen] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(("near", "far"), [(False, False), (True, True)])
def test_what_is_not_between_a_program_and_a_node_is_not_kept(near: bool, far: bool) -> None:
    bench = Bench()
    for end in connection(near, far):
        bench.tape.written(end, b"said")
        bench.tape.taken(end, 4)
        bench.tape.closed(end)
    bench.tape.play()
    assert not bench.player.seen


@pytest.mark.parametrize(
    ("what", "given", "kept_max"),
    [("written", b"x" * 1000, 8), ("written", b"x", 62), ("taken", 1, 62), ("closed", None, 2)],
)
def test_it_is_bounded_whatever_it_keeps(
    monkeypatch: pytest.MonkeyPatch, what: str, given: object, kept_max: int
) -> None:
    """Many bytes, many entries, and many connections that are held by nobody else any more."""
    monkeypatch.setattr(tape, "TAPE_BYTES_MAX", 10_000)
    bench = Bench()
    for number in range(1, 1000):
        end = connection(True, False)[0]
        see = getattr(bench.tape, what)
        see(end) if given is None else see(end, given)
        assert number - len(bench.player.seen) <= kept_max
    bench.tape.play()
    assert len(bench.player.seen) == 999
