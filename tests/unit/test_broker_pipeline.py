"""A pipeline as a state machine: whatever comes, and whenever it is answered, order and limits hold."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from coordinators_support import ManualClock

from ottla.broker import pipeline
from ottla.broker.memory import Memory
from ottla.broker.pending import Pending, Pieces
from ottla.broker.pipeline import Pipeline
from ottla.broker.request import Client, CloseConnection
from ottla.broker.turn import TURN_MS, Turn
from ottla.env.slices import Slices
from ottla.wire.framing import FrameError
from ottla.wire.messages import MalformedMessage

# What becomes of a request.
KINDS = ["now", "later", "later", "blocks", "none", "settles"]
# How it all ends, if it does.
ENDS = ["closes", "malformed", "broken", "fails", "drain", "close", "lose"]
STEPS = 80


class Recorder:
    """The outlet: what was written, and whether the client is listened to."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self.receiving = True
        self.closed = False

    def write(self, pieces: Pieces) -> None:
        assert not self.closed
        # Answers to what came together may come in one piece.
        self.written += map(int, b"".join(pieces).split())

    def receive(self, go_on: bool) -> None:
        assert self.receiving is not go_on
        self.receiving = go_on

    def close(self) -> None:
        self.closed = True


class Others(Slices):
    """What waits until others had their turn."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Callable[[], object]] = []

    def soon(self, work: Callable[[], object]) -> None:
        self.waiting.append(work)

    def had_their_turn(self) -> None:
        waiting, self.waiting = self.waiting, []
        for work in waiting:
            work()


class Machine:
    """Requests are numbered; ``expected`` has those that were handled and are owed an answer, in order."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.size = chance.choice([8, 100, pipeline.HELD_BYTES_MAX // 3])
        self.reply_size = chance.choice([8, 100, pipeline.HELD_BYTES_MAX // 3])
        self.outlet = Recorder()
        self.memory = Memory()
        self.clock = ManualClock()
        self.others = Others()
        self.pipeline = Pipeline(
            Client("h", "PLAINTEXT"), self.handle, self.outlet, self.memory, Turn(self.clock, self.others)
        )
        self.kinds: dict[int, str] = {}
        self.handled: list[int] = []
        self.expected: list[int] = []
        self.pending: dict[int, Pending] = {}
        self.failed: set[int] = set()
        # When others are to have their turn.
        self.end_ms = 1 << 62
        # What came and may be handled, in order.
        self.came: list[int] = []
        self.gone = self.ending = self.draining = self.choked = self.given_up = False

    # ------------------------------------------------------------ the handler

    def handle(self, client: Client, frame: Any) -> Any:
        number = int(bytes(frame[:8]))
        kind = self.kinds[number]
        assert not self.choked and not self.gone and not self.ending
        assert not self.blocked() and not self.replies_are_full()
        assert self.handled == self.came[: len(self.handled)] and self.came[len(self.handled)] == number
        self.handled.append(number)
        # What comes together is begun within the time of a turn, and no later.
        assert self.clock.ms < self.end_ms
        self.clock.ms += self.chance.choice([0, 0, TURN_MS // 2])
        if kind == "malformed":
            self.ending = True
            raise MalformedMessage("nonsense")
        if kind == "closes":
            self.ending = True
            raise CloseConnection("asked to")
        if kind == "none":
            return None
        self.expected.append(number)
        if kind in ("later", "blocks"):
            made = Pending(kind == "blocks", None)
            self.pending[number] = made
            return made
        if kind == "settles":
            # It answers the oldest that waits, as an append does that others have waited for.
            for other in [n for n, p in self.pending.items() if not p.done][:1]:
                self.pending[other].resolve(self.reply(other))
            self.give_up()
        return self.reply(number)

    def reply(self, number: int) -> Pieces:
        return [(b"%d" % number).ljust(self.reply_size)]

    # ------------------------------------------------------------ what happens

    def step(self) -> None:
        chance = self.chance
        unanswered = [n for n, p in self.pending.items() if not p.done]
        what = chance.choices(["receive", "many", "answer", "choke", "unchoke", "turn"], [8, 1, 10, 1, 2, 8])[
            0
        ]
        if what == "receive" and self.outlet.receiving:
            self.take(chance.choices(KINDS, k=chance.randint(1, 8)))
        elif what == "many" and self.outlet.receiving and self.size < 1000:
            self.take([chance.choice(["later", "now"])] * 150)
        elif what == "answer" and unanswered:
            for number in chance.choice([unanswered, unanswered[:1], unanswered[-1:], unanswered[::-1]]):
                # An answer that is the end of all cancels those behind it.
                self.pending[number].resolve(self.reply(number))
                self.give_up()
        elif what == "choke":
            self.choked = True
            self.pipeline.choke()
        elif what == "unchoke":
            self.choked = False
            self.pipeline.unchoke()
        elif what == "turn":
            self.others.had_their_turn()

    def end(self, how: str) -> None:
        unanswered = [n for n, p in self.pending.items() if not p.done]
        if how == "drain":
            self.draining = True
            self.pipeline.drain()
        elif how == "close":
            self.ending = True
            self.pipeline.close()
        elif how == "lose":
            self.gone = True
            self.pipeline.lost()
        elif how == "fails" and unanswered:
            number = self.chance.choice(unanswered[:2])
            self.failed.add(number)
            self.pending[number].fail(CloseConnection("asked to"))
            self.give_up()
            if self.outlet.receiving:
                self.take(["settles", "now"])
        elif self.outlet.receiving:
            kinds = [self.chance.choice(KINDS), "later", "now"]
            self.take(kinds if how in ("broken", "fails") else [*kinds[:2], how, "now"], how == "broken")

    def take(self, kinds: list[str], broken: bool = False) -> None:
        numbers = range(len(self.kinds), len(self.kinds) + len(kinds))
        self.kinds.update(zip(numbers, kinds, strict=True))
        if not self.ending:
            self.came.extend(numbers)

        def frames() -> Iterator[bytes]:
            for number in numbers:
                yield (b"%08d" % number).ljust(self.size, b" ")
            if broken:
                raise FrameError("no such size")

        self.end_ms = self.clock.ms + TURN_MS
        try:
            # As they come: one by itself is handed over as such.
            alone = len(kinds) == 1 and not broken
            self.pipeline.received(tuple(frames()) if alone else frames())
        except FrameError as error:
            self.pipeline.refuse(str(error))
            self.ending = True
        self.end_ms = 1 << 62

    def give_up(self) -> None:
        """An answer that failed ends everything, once it is its turn."""
        for index, number in enumerate(self.expected):
            pending = self.pending.get(number)
            if pending is not None and not pending.done:
                return
            if number in self.failed:
                self.expected = self.expected[:index]
                self.ending = self.given_up = True
                return

    # ------------------------------------------------------------ what holds

    def answers_leave_in_order_and_none_too_early(self) -> None:
        written = self.outlet.written
        assert written == self.expected[: len(written)]
        if not (self.gone or self.given_up) and len(written) < len(self.expected):
            first = self.pending.get(self.expected[len(written)])
            assert first is not None and not first.done

    def whatever_may_be_handled_is_handled(self) -> None:
        if self.others.waiting:
            return
        if not (self.blocked() or self.choked or self.gone or self.ending or self.replies_are_full()):
            assert self.handled == self.came and self.pipeline.idle is (not self.waiting())

    def a_client_with_too_much_in_hand_is_not_listened_to(self) -> None:
        assert self.pipeline.receiving is self.outlet.receiving or self.gone
        if self.ending or self.draining or self.gone:
            assert self.gone or not self.outlet.receiving
            return
        queued = len(self.came) - len(self.handled)
        full = (
            self.choked
            or queued >= pipeline.QUEUED_REQUESTS_MAX
            or queued * self.size >= pipeline.HELD_BYTES_MAX
            or self.replies_are_full()
        )
        assert self.outlet.receiving is not full

    def it_ends_once_what_was_taken_on_is_answered(self) -> None:
        if self.ending and not self.gone:
            assert self.outlet.closed is (not self.waiting())
        if self.gone or self.given_up:
            assert all(p.done for p in self.pending.values())

    def every_byte_is_counted(self) -> None:
        over = self.gone or self.given_up
        queued = 0 if self.ending or over else len(self.came) - len(self.handled)
        kept = [] if over else [n for n in self.waiting() if n in self.pending]
        assert self.memory.request_bytes == (queued + len(kept)) * self.size
        assert self.memory.unsent_bytes == (0 if over else self.made() * self.reply_size)

    def made(self) -> int:
        """How many answers are there, and wait for the one before them."""
        return sum(
            n not in self.pending or (self.pending[n].done and n not in self.failed) for n in self.waiting()
        )

    def replies_are_full(self) -> bool:
        """Whether nothing more is handled before something is answered."""
        kept = sum(n in self.pending for n in self.waiting())
        return (
            len(self.waiting()) >= pipeline.PENDING_REPLIES_MAX
            or kept * self.size + self.made() * self.reply_size >= pipeline.HELD_BYTES_MAX
        )

    def blocked(self) -> bool:
        return any(self.pending[n].blocks for n in self.waiting() if n in self.pending)

    def waiting(self) -> list[int]:
        """What is owed an answer, and has none that is about to be sent with others."""
        about_to_be = len(b"".join(self.pipeline._together or []).split())
        return self.expected[len(self.outlet.written) + about_to_be :]

    def check(self) -> None:
        self.answers_leave_in_order_and_none_too_early()
        self.whatever_may_be_handled_is_handled()
        self.a_client_with_too_much_in_hand_is_not_listened_to()
        self.it_ends_once_what_was_taken_on_is_answered()
        self.every_byte_is_counted()


@pytest.mark.parametrize("how", ["not", *ENDS])
def test_order_and_limits_hold_whatever_comes(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "HELD_BYTES_MAX", 3_000)
    for seed in range(40):
        chance = random.Random(f"{how}-{seed}")
        # From one answer at a time to all that there are.
        monkeypatch.setattr(pipeline, "TOGETHER_BYTES_MAX", chance.choice([1, 150, 2_500, 1_000_000]))
        machine = Machine(chance)
        ends_at = chance.randrange(STEPS) if how != "not" else -1
        for step in range(STEPS):
            if step == ends_at:
                machine.end(how)
            else:
                machine.step()
            machine.check()


def test_a_broker_that_stops_does_not_wait_for_who_is_over_a_quota() -> None:
    handled: list[bytes] = []
    is_over = False

    def handle(client: Client, frame: Any) -> Pieces:
        handled.append(bytes(frame))
        if is_over:
            made.mute()
        return [frame]

    others, memory, outlet = Others(), Memory(), Recorder()
    made = Pipeline(Client("h", "PLAINTEXT"), handle, outlet, memory, Turn(ManualClock(), others))
    made.mute()
    made.received((b"1", b"2"))
    assert not made.idle and memory.request_bytes == 2
    made.drain()
    assert made.idle and memory.request_bytes == 0
    made.unmute()
    assert not handled
    # One that is found to be so when it is answered.
    outlet = Recorder()
    made = Pipeline(Client("h", "PLAINTEXT"), handle, outlet, memory, Turn(ManualClock(), others))
    made.choke()
    made.received((b"1", b"2"))
    made.drain()
    is_over = True
    made.unchoke()
    assert handled == [b"1"] and outlet.written == [1]
    assert made.idle and memory.request_bytes == 0
