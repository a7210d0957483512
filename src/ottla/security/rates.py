"""How fast something happens, as Kafka's metrics measure it for quotas, and how long it must then wait.

Pure: every function takes the time, of a clock that is not set back, in milliseconds.
"""

from __future__ import annotations

import math
from typing import NamedTuple, final


class Window(NamedTuple):
    """How a rate is measured: over so many samples (``quota.window.num``), each of so many milliseconds
    (``quota.window.size.seconds``). The current one is not full, so one fewer are looked back on."""

    samples: int
    sample_ms: int


@final
class Rate:
    """Something per second (Kafka's ``Rate`` of a ``WindowedSum``)."""

    __slots__ = ("_samples", "_window")

    def __init__(self, window: Window) -> None:
        self._window = window
        # The beginning, the last event and the sum of each, the oldest first.
        self._samples: list[list[float]] = []

    def record(self, value: float, now_ms: int) -> None:
        """Have so much more of it; less than nothing takes back what was recorded."""
        samples = self._samples
        if samples and now_ms - samples[-1][0] < self._window.sample_ms:
            last = samples[-1]
            last[1] = now_ms
            last[2] += value
        else:
            self._forget(now_ms)
            samples.append([now_ms, now_ms, value])

    def per_second(self, now_ms: int) -> float:
        window_ms = self.window_ms(now_ms)
        return sum(sample[2] for sample in self._samples) / (window_ms / 1000)

    def window_ms(self, now_ms: int) -> int:
        """The time that the rate is of: no shorter than all samples but one are."""
        self._forget(now_ms)
        samples, sample_ms = self._window
        elapsed_ms = now_ms - int(self._samples[0][0]) if self._samples else 0
        missing = samples - 1 - elapsed_ms // sample_ms
        if missing > 0:
            elapsed_ms += missing * sample_ms
        return max(elapsed_ms, 1)

    def throttle_ms(self, limit: float, now_ms: int) -> int:
        """How long nothing must come so that the rate is within its limit; 0 where it is (``QuotaUtils``)."""
        rate = self.per_second(now_ms)
        if rate <= limit:
            return 0
        return math.floor((rate - limit) / limit * self.window_ms(now_ms) + 0.5)

    def _forget(self, now_ms: int) -> None:
        """Drop samples in which nothing happened for as long as is looked back on."""
        samples, sample_ms = self._window
        kept = self._samples
        while kept and now_ms - kept[0][1] >= samples * sample_ms:
            del kept[0]


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
        return 0 if self._tokens >= 0 else math.floor(-self._tokens / limit * 1000 + 0.5)

    def _refill(self, limit: float, now_ms: int) -> None:
        earned = limit * (now_ms - self._updated_ms) / 1000
        self._tokens = min(self._burst(limit), self._tokens + earned)
        self._updated_ms = now_ms

    def _burst(self, limit: float) -> float:
        return self._window.samples * self._window.sample_ms / 1000 * limit
