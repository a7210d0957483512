"""Holding replication to a rate: what is moved to new replicas must not starve those in sync (pure; Kafka's
``ReplicationQuotaManager`` and ``SimpleRate``, KIP-73).

Sizes are bytes, rates bytes a second, times monotonic milliseconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection

# In a list of throttled replicas: all of the topic's.
ALL_REPLICAS = "*"


def is_listed(replicas: Collection[str], partition: int, node_id: int) -> bool:
    """Whether a topic's list of throttled replicas names this one: ``*``, or ``partition:node``."""
    return ALL_REPLICAS in replicas or f"{partition}:{node_id}" in replicas


class RateMeter:
    """A rate over the last ``samples_max`` windows of ``window_ms`` each."""

    __slots__ = ("_samples", "_samples_max", "_total", "_window_ms")

    def __init__(self, window_ms: int, samples_max: int) -> None:
        self._window_ms = window_ms
        self._samples_max = samples_max
        # When each sample began, and its bytes.
        self._samples: deque[list[int]] = deque()
        self._total = 0

    def record(self, size: int, now_ms: int) -> None:
        """Count ``size`` bytes."""
        self._forget_old(now_ms)
        if not self._samples or now_ms - self._samples[-1][0] >= self._window_ms:
            self._samples.append([now_ms, 0])
        self._samples[-1][1] += size
        self._total += size

    def rate(self, now_ms: int) -> float:
        """Bytes a second since the oldest sample that counts. A first window counts whole."""
        self._forget_old(now_ms)
        return self._total * 1000 / self._elapsed_ms(now_ms)

    def pause_ms(self, rate_max: int, now_ms: int) -> int:
        """How long nothing may be recorded until the rate is ``rate_max`` at most; 0 where it is."""
        if self.rate(now_ms) <= rate_max:
            return 0
        oldest_ms = self._samples[0][0]
        forgotten_ms = oldest_ms + self._span_ms - now_ms
        if rate_max <= 0:
            return forgotten_ms
        return min(math.ceil(oldest_ms + self._total * 1000 / rate_max - now_ms), forgotten_ms)

    @property
    def _span_ms(self) -> int:
        return self._window_ms * self._samples_max

    def _elapsed_ms(self, now_ms: int) -> int:
        return max(now_ms - self._samples[0][0] if self._samples else 0, self._window_ms)

    def _forget_old(self, now_ms: int) -> None:
        samples = self._samples
        while samples and now_ms - samples[0][0] >= self._span_ms:
            self._total -= samples.popleft()[1]


class Quota:
    """What a node sends, or receives, of throttled replicas, and the rate that it is held to."""

    __slots__ = ("_meter", "rate_max")

    def __init__(self, rate_max: int, window_ms: int, samples_max: int) -> None:
        self.rate_max = rate_max
        self._meter = RateMeter(window_ms, samples_max)

    def record(self, size: int, now_ms: int) -> None:
        """Count what was let through, whether there was room for it or not."""
        self._meter.record(size, now_ms)

    def pause_ms(self, now_ms: int) -> int:
        """For how long nothing more may be let through, 0 where something may be."""
        return self._meter.pause_ms(self.rate_max, now_ms)
