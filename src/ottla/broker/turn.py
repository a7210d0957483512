"""What follows from a client's requests, at the end of what the event loop does for it now."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from ottla.env.clock import Clock
from ottla.env.slices import Slices

log = logging.getLogger(__name__)

# How long one client's requests, or what others do because of them, may go on at a stretch. What is begun is
# ended; then everybody else has their turn.
TURN_MS: Final = 5
# How long requests may be handled as they come, before the event loop is to do all else. libuv looks up to 48
# times for sockets with something to read before it does, 1,024 at a time, as long as it finds so many:
# timers, and so leases and what others wait for, would be late by seconds.
ROUND_MS: Final = 5
# And while clients connect: libuv accepts one each time that it looks for what there is to read.
CONNECTING_ROUND_MS: Final = 1
# So many answers are made before they are sent.
GATHERED_MAX: Final = 64
# How often requests come before anybody asks whether the loop has done all else since.
RECEIVED_AT_ONCE_MAX: Final = 128


class Turn:
    """Work that is put off to the end of what the event loop does now.

    While a connection handles what it received, waiting fetches that an append has woken are collected here,
    so that each of them looks once, however many partitions grew, and after the producers were answered.
    """

    __slots__ = (
        "_clock", "_connecting", "_later", "_put_off", "_received", "_round_due", "_round_ends_ms",
        "_running", "_scheduled", "_sends", "_slices", "_tidying", "answers", "gathers", "is_watched",
    )  # fmt: skip

    def __init__(self, clock: Clock, slices: Slices) -> None:
        self._clock = clock
        self._slices = slices
        # Whether somebody wants to know how long requests wait to be handled.
        self.is_watched = False
        self._later: list[Callable[[], None]] = []
        self._running = False
        self._scheduled = False
        # While several are run whose work was put off: answers, by what they are about, of which others may
        # get the same.
        self.answers: dict[Any, list[Any]] | None = None
        # Whether answers are gathered meanwhile, to be sent in a row; what sends them, and what comes then.
        self.gathers = False
        self._sends: list[Callable[[], None]] = []
        self._tidying: list[Callable[[], None]] = []
        # How often requests have come in this round of the event loop, or in several; whether we hear of
        # the next round, and when this one has been long enough.
        self._received = 0
        self._round_due = False
        self._round_ends_ms = 0
        # Whether somebody has connected in this one.
        self._connecting = False
        # Those whose requests are handled in the next one.
        self._put_off: deque[Callable[[], None]] = deque()

    def begin(self) -> None:
        """Someone starts to handle requests, and will call ``end``."""
        self._running = True

    def end(self) -> None:
        self._running = False
        if self._later and not self._scheduled:
            self._run()

    def deadline_ms(self) -> int:
        """Until when who begins now may go on."""
        return self._clock.monotonic_ms() + TURN_MS

    def is_over(self, deadline_ms: int) -> bool:
        """Whether others are to have their turn."""
        return self._clock.monotonic_ms() >= deadline_ms

    def admits(self) -> bool:
        """Requests have come: whether they may be handled now, rather than after all else that is due."""
        self._received += 1
        if self._received <= RECEIVED_AT_ONCE_MAX:
            return True
        if not self._round_due:
            self._begin_round()
            return True
        return not self._put_off and not self.is_over(self._round_ends_ms)

    def put_off(self, work: Callable[[], None]) -> None:
        """Go on with a client's requests, which were not admitted, in the event loop's next round, in order
        with others."""
        self._put_off.append(work)

    def connected(self) -> None:
        """A client has connected: others may wait to be."""
        self._connecting = True

    def _begin_round(self) -> None:
        self._round_due = True
        round_ms = CONNECTING_ROUND_MS if self._connecting else ROUND_MS
        self._round_ends_ms = self._clock.monotonic_ms() + round_ms
        self._connecting = False
        asyncio.get_running_loop().call_soon(self._next_round)

    def _next_round(self) -> None:
        """The event loop has come to what it does once in each round."""
        self._received = 0
        self._round_due = False
        if not self._put_off:
            return
        # Whoever is heard of now comes behind these.
        self._received = RECEIVED_AT_ONCE_MAX
        self._begin_round()
        while self._put_off and not self.is_over(self._round_ends_ms):
            work = self._put_off.popleft()
            self.begin()
            try:
                work()
            except Exception:
                # It belongs to one client; those of the others must not be left waiting.
                log.exception("requests that were put off failed")
            finally:
                self.end()

    def later(self, work: Callable[[], None]) -> None:
        """Go on with a client's requests when others, and long work that waits already, had their turn."""

        def go_on() -> None:
            self.begin()
            try:
                work()
            finally:
                self.end()

        self._slices.soon(go_on)

    def soon(self, work: Callable[[], None]) -> None:
        """Run ``work`` at the end of this turn."""
        self._later.append(work)
        if not self._running and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        deadline_ms = self.deadline_ms()
        is_over = False
        while self._later and not is_over:
            now, self._later = self._later, []
            several = len(now) > 1
            self.answers = {} if several else None
            self.gathers = several
            for place, work in enumerate(now, 1):
                _attempt(work)
                if len(self._sends) >= GATHERED_MAX:
                    self._send()
                if place < len(now) and self.is_over(deadline_ms):
                    # As when thousands of consumers wait for one message.
                    self._later = now[place:] + self._later
                    self._scheduled = True
                    self._slices.soon(self._run)
                    is_over = True
                    break
            self._send()
            self.gathers = False
        self.answers = None

    def gather(self, send: Callable[[], None]) -> None:
        """Send an answer once those of the others are made. What is made in between is what clients wait for
        that have nothing to do, and fall asleep: they are woken once, not for each answer."""
        self._sends.append(send)

    def tidy(self, work: Callable[[], None]) -> None:
        """What is left to do for a client that is answered: once the others have their answers, too."""
        if self.gathers:
            self._tidying.append(work)
        else:
            work()

    def _send(self) -> None:
        sends, self._sends = self._sends, []
        tidying, self._tidying = self._tidying, []
        for work in (*sends, *tidying):
            _attempt(work)


def _attempt(work: Callable[[], None]) -> None:
    """It belongs to one client; those of the others must not be left waiting."""
    try:
        work()
    except Exception:
        log.exception("work that was put off failed")
