"""How fast something happens, as Kafka's metrics measure it for quotas, and how long it must then wait.

Pure: every function takes the time, of a clock that is not set back, in milliseconds.
"""

from __future__ import annotations

import math
from typing import NamedTuple, final

from ottla.numbers import INT_MAX


class Window(NamedTuple):
    """How a rate is measured: over so many samples (``quota.window.num``), each of so many milliseconds
    (``quota.window.size.seconds``). The current one is not full, so one fewer are looked back on."""

    samples: int
    sample_ms: int


@final
class Rate:
    """Something per second (Kafka's ``Rate`` of a ``WindowedSum``)."""

    __slots__ = ("_sample_ms", "_samples", "_samples_max", "_total")

    def __init__(self, window: Window) -> None:
        self._samples_max, self._sample_ms = window
        # The beginning, the last event and the sum of each, the oldest first.
        self._samples: list[list[float]] = []
        # The sum of those.
        self._total = 0.0

    def record(self, value: float, now_ms: int) -> None:
        """Have so much more of it; less than nothing takes back what was recorded."""
        samples = self._samples
        self._total += value
        if samples and now_ms - samples[-1][0] < self._sample_ms:
            last = samples[-1]
            last[1] = now_ms
            last[2] += value
        else:
            samples.append([now_ms, now_ms, value])

    def per_second(self, now_ms: int) -> float:
        window_ms = self.window_ms(now_ms)
        return self._total * 1000 / window_ms

    def window_ms(self, now_ms: int) -> int:
        """The time that the rate is of: no shorter than all samples but one are."""
        samples, sample_ms, count = self._samples, self._sample_ms, self._samples_max
        # Those in which nothing happened for as long as is looked back on.
        while samples and now_ms - samples[0][1] >= count * sample_ms:
            self._total -= samples.pop(0)[2]
        if not samples:
            self._total = 0.0
            return max((count - 1) * sample_ms, 1)
        elapsed_ms = now_ms - int(samples[0][0])
        missing = count - 1 - elapsed_ms // sample_ms
        if missing > 0:
            elapsed_ms += missing * sample_ms
        return max(elapsed_ms, 1)

    def throttle_ms(self, limit: float, now_ms: int) -> int:
        """How long nothing must come so that the rate is within its limit; 0 where it is (``QuotaUtils``)."""
        window_ms = self.window_ms(now_ms)
        rate = self._total * 1000 / window_ms
        return 0 if rate <= limit else _whole((rate - limit) / limit * window_ms)


@final
class TokenBucket:
    """Tokens that come at a rate and are kept up to what a window has (KIP-599). There may be a debt."""

    __slots__ = ("_tokens", "_updated_ms", "_window")

    def __init__(self, window: Window, limit: float, now_ms: int) -> None:
        self._window = window
        self._tokens = self._burst(limit)
        self._updated_ms = now_ms

    def take(self, count: float, limit: float, now_ms: int) -> None:
        """Take tokens, whether they are there or not."""
        self._refill(limit, now_ms)
        self._tokens = min(self._burst(limit), self._tokens - count)

    def throttle_ms(self, limit: float, now_ms: int) -> int:
        """How long it is until there is no debt any more; 0 where there is none."""
        self._refill(limit, now_ms)
        return 0 if self._tokens >= 0 else _whole(-self._tokens / limit * 1000)

    def _refill(self, limit: float, now_ms: int) -> None:
        earned = limit * (now_ms - self._updated_ms) / 1000
        self._tokens = min(self._burst(limit), self._tokens + earned)
        self._updated_ms = now_ms

    def _burst(self, limit: float) -> float:
        return self._window.samples * self._window.sample_ms / 1000 * limit


def _whole(time_ms: float) -> int:
    """A time as it is told to clients: 25 days at most, beyond which Kafka's becomes any number."""
    return math.floor(min(time_ms, INT_MAX) + 0.5)
