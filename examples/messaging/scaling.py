"""How many of each service there should be: more when the group falls behind, fewer when it has little to do.

A pure rule; the command applies it. Lag is what a group has not committed yet, in messages.
"""

from __future__ import annotations

from dataclasses import dataclass

LAG_HIGH = 30
LAG_LOW = 3
BEHIND_S = 0.8
IDLE_S = 2.0
# After a change the group needs time to rebalance, and its lag time to show it.
REST_S = 2.0


@dataclass
class Scaler:
    """Decides for one group. Tell it the lag now and then."""

    instances_max: int
    instances_min: int = 1
    _high_since_s: float | None = None
    _low_since_s: float | None = None
    _rests_until_s: float = 0.0

    def decide(self, now_s: float, lag: int, instances: int) -> int:
        """+1, -1 or 0 instances."""
        if lag < LAG_HIGH:
            self._high_since_s = None
        elif self._high_since_s is None:
            self._high_since_s = now_s
        if lag > LAG_LOW:
            self._low_since_s = None
        elif self._low_since_s is None:
            self._low_since_s = now_s
        if now_s < self._rests_until_s:
            return 0
        if (
            instances < self.instances_max
            and self._high_since_s is not None
            and now_s - self._high_since_s >= BEHIND_S
        ):
            self._rests_until_s = now_s + REST_S
            return 1
        if (
            instances > self.instances_min
            and self._low_since_s is not None
            and now_s - self._low_since_s >= IDLE_S
        ):
            self._rests_until_s = now_s + REST_S
            return -1
        return 0
