"""How much one session may send: a bucket of tokens each, of which only so many sessions' are kept."""

from __future__ import annotations

from collections import OrderedDict

EVENTS_PER_S = 20.0
BURST = 300
SESSIONS_MAX = 10_000


class Limits:
    """A pure machine: give it a clock's seconds, which never go back."""

    def __init__(
        self, per_s: float = EVENTS_PER_S, burst: int = BURST, sessions_max: int = SESSIONS_MAX
    ) -> None:
        self._per_s = per_s
        self._burst = burst
        self._sessions_max = sessions_max
        # Tokens left, and when that was; the session that was seen longest ago first.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, session: str, events: int, now_s: float) -> float:
        """Take `events` tokens of the session and give 0, or take none and give how long to wait for them."""
        tokens, then_s = self._buckets.pop(session, (float(self._burst), now_s))
        tokens = min(float(self._burst), tokens + (now_s - then_s) * self._per_s)
        # A batch that is larger than the bucket passes when the bucket is full, or it never would.
        needed = min(events, self._burst)
        taken = tokens >= needed
        self._buckets[session] = (tokens - needed if taken else tokens, now_s)
        if len(self._buckets) > self._sessions_max:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (needed - tokens) / self._per_s
