"""How long a follower's requests wait at a leader: longer where nothing happens.

An idle cluster would be busy with its followers' requests otherwise: replica.fetch.wait.max.ms is half a
second. Records are told at once, however long a request waits; what else there is to tell, a commit or an
ISR that has to be joined, comes with an answer. So only who has heard all of that waits longer, and its
request is answered early where it has something else to follow, or leaves an ISR.
"""

from __future__ import annotations

from ottla.config import BrokerConfig
from ottla.env.clock import Clock
from ottla.replication.followed import Followed

# After so many answers in a row that told nothing requests wait so many times as long, and no longer than
# this part of the time after which a leader takes it that nobody follows, or a follower that nobody leads.
ANSWERS_MIN = 4
WAITS = 10
PATIENCE_PART = 6
# A leader of a release that lets a request wait although another one follows it does not answer within this,
# but when the request's time is over.
HURRIED_MS_MAX = 250


class Quiet:
    """What one fetcher knows of it. Times are monotonic milliseconds."""

    __slots__ = (
        "_anew",
        "_answers",
        "_clock",
        "_config",
        "_ends_ms",
        "_hurried_ms",
        "_is_slow",
        "_node_id",
        "_waits_long",
    )

    def __init__(self, node_id: int, config: BrokerConfig, clock: Clock) -> None:
        self._node_id = node_id
        self._config = config
        self._clock = clock
        # Answers in a row that told nothing; whether something may have changed since it was last looked at.
        self._answers = 0
        self._anew = True
        # Whether the last request waits long, until when, and since when it is to end nevertheless.
        self._waits_long = False
        self._ends_ms = 0
        self._hurried_ms: int | None = None
        # Whether this leader is one that makes it wait all the same.
        self._is_slow = False

    def connected(self) -> None:
        self.disturb()
        self._is_slow = False
        self._hurried_ms = None

    def answered(self) -> None:
        """A request was answered: soon, if it was to be. A leader that was late for once is not one that lets
        it wait, since that would count as long as the connection lasts."""
        if self._hurried_ms is not None:
            now_ms = self._clock.monotonic_ms()
            self._is_slow = now_ms - self._hurried_ms > HURRIED_MS_MAX and now_ms >= self._ends_ms
            self._hurried_ms = None

    def heard(self, anything: bool) -> None:
        """What an answer told, if anything."""
        if anything:
            self.disturb()
        else:
            self._answers += 1

    def disturb(self) -> None:
        """Something has happened here."""
        self._answers = 0
        self._anew = True

    def hurries(self) -> bool:
        """Whether the request that waits is to be answered early: once for each."""
        if not self._waits_long or self._hurried_ms is not None:
            return False
        self._hurried_ms = self._clock.monotonic_ms()
        return True

    def wait_ms(self, followed: Followed, *, told: bool) -> int:
        """How long the next request waits, in which there is something ``told``, or not."""
        get = self._config.get
        wait_ms: int = get("replica.fetch.wait.max.ms")
        self._waits_long = not told and self._is_quiet(followed)
        if not self._waits_long:
            return wait_ms
        patience_ms: int = min(get("replica.lag.time.max.ms"), get("replica.socket.timeout.ms"))
        wait_ms = max(wait_ms, min(WAITS * wait_ms, patience_ms // PATIENCE_PART))
        self._ends_ms = self._clock.monotonic_ms() + wait_ms
        return wait_ms

    def _is_quiet(self, followed: Followed) -> bool:
        """Whether nothing has happened for a while, nor will anything that a leader does not tell at once."""
        if self._answers < ANSWERS_MIN or self._is_slow:
            return False
        if self._answers == ANSWERS_MIN:
            anew, self._anew = self._anew, False
            if not followed.is_settled(self._node_id, anew=anew):
                # Look again after the next answer.
                self._answers -= 1
                return False
        # Where a leader is to wait until there is more than a byte, it does not tell of records at once.
        return bool(self._config.get("replica.fetch.min.bytes") <= 1)
