"""What is usual for a series: a median and a spread over the last values, from river's streaming statistics.

A detector of river's kind (`score_one`, `learn_one`), robust where its Gaussian ones are not: a few wild
values move neither the median nor the quartiles, and where little moves not every move is an anomaly.
"""

from __future__ import annotations

from collections import deque

from river import base, stats

WINDOW = 240
WARM_UP = 20
# Of a normal distribution: so many standard deviations are between the quartiles.
QUARTILES = 1.349
RELATIVE_FLOOR = 0.05


class RobustDeviation(base.SupervisedAnomalyDetector):
    """River's interface; `y` is the value, `x` is not looked at. The score is in deviations."""

    def __init__(self, floor: float, window: int = WINDOW, warm_up: int = WARM_UP) -> None:
        self.floor = floor
        self.window = window
        self.warm_up = warm_up
        self.values: deque[float] = deque(maxlen=window)
        self._median = stats.RollingQuantile(0.5, window)
        self._spread = stats.RollingIQR(window)

    def learn_one(self, x: object, y: float) -> None:
        self.values.append(y)
        self._median.update(y)
        self._spread.update(y)

    def usual(self) -> tuple[float, float] | None:
        """The median and one deviation; None before so many values are known that they mean something."""
        if len(self.values) < self.warm_up:
            return None
        median = self._median.get()
        return median, max(self._spread.get() / QUARTILES, self.floor, RELATIVE_FLOOR * abs(median), 1e-12)

    def score_one(self, x: object, y: float) -> float:
        usual = self.usual()
        return abs(y - usual[0]) / usual[1] if usual is not None else 0.0


class RiverScorer:
    """The detector as `incidents.Scorer`: can be saved, restored, and told to forget."""

    def __init__(self, floor: float) -> None:
        self._floor = floor
        self._detector = RobustDeviation(floor)

    def score(self, value: float) -> float | None:
        return self._detector.score_one(None, value) if self._detector.usual() is not None else None

    def learn(self, value: float) -> None:
        self._detector.learn_one(None, value)

    def usual(self) -> tuple[float, float, float] | None:
        usual = self._detector.usual()
        return (usual[0], usual[0] - usual[1], usual[0] + usual[1]) if usual is not None else None

    def forget(self) -> None:
        self._detector = RobustDeviation(self._floor)

    def state(self) -> list[float]:
        """The values of the window: learnt again in their order they give the same statistics."""
        return list(self._detector.values)

    def restore(self, state: list[float]) -> None:
        self.forget()
        for value in state:
            self.learn(value)
