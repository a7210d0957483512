"""Incidents: when one begins, that it goes on, and when it is over. A pure machine for one series.

An incident belongs to a series, not to a rule: if a value is unusual and then above its threshold as well,
that is one incident with two reasons. It has two messages, when it begins and when it is over, with the same
id; the id is made of the series and the time of the sample, so the same samples make the same id again.

Time is the samples' own. A sample that is not younger than the last one is passed over.
"""

from __future__ import annotations

import fnmatch
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

WATCHES = Path(__file__).with_name("watches.toml")
# An incident that is one only because the value is unusual: after so long it is the new usual.
ADOPT_MS = 10 * 60 * 1000


class Scorer(Protocol):
    """Knows what is usual; the detector has one from river."""

    def score(self, value: float) -> float | None:
        """How many deviations `value` is from what is usual; None while too little is known."""

    def learn(self, value: float) -> None:
        """This is usual."""

    def usual(self) -> tuple[float, float, float] | None:
        """The middle of what is usual, and one deviation below and above; None while too little is known."""

    def forget(self) -> None:
        """Nothing is known any more."""

    def state(self) -> list[float]:
        """What `restore` needs."""

    def restore(self, state: list[float]) -> None:
        """Know what the one that gave `state` knew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What is asked of a series: watches.toml says what each field means."""

    series: str
    title: str = ""
    unit: str = ""
    above: float | None = None
    below: float | None = None
    sigma: float | None = None
    floor: float = 0.0
    for_s: float = 0.0
    clear_s: float = 0.0

    def matches(self, series: str) -> bool:
        return fnmatch.fnmatchcase(series, self.series)


def watches(path: Path = WATCHES) -> list[Watch]:
    """The watches of a file; the first that matches a series is its."""
    return [Watch(**entry) for entry in tomllib.loads(path.read_text())["watch"]]


@dataclass(slots=True)
class State:
    """What has to survive a restart, apart from the scorer's. Times are ms since the Unix epoch."""

    last_ms: int = 0
    bad_since_ms: int | None = None
    good_since_ms: int | None = None
    opened_ms: int | None = None
    worst: float | None = None
    worst_size: float = 0.0
    reasons: list[str] = field(default_factory=list)


class Series:
    """One series of one host."""

    def __init__(self, host: str, name: str, watch: Watch, scorer: Scorer | None) -> None:
        self.host = host
        self.name = name
        self.watch = watch
        self.state = State()
        self._scorer = scorer if watch.sigma is not None else None

    @property
    def firing(self) -> bool:
        return self.state.opened_ms is not None

    def step(self, at_ms: int, value: float) -> tuple[dict[str, Any], dict[str, Any] | None] | None:
        """Take a sample: its score for the plot, and a message if an incident begins or is over."""
        state = self.state
        if at_ms <= state.last_ms:
            return None
        state.last_ms = at_ms
        usual = self._scorer.usual() if self._scorer is not None else None
        deviation = self._scorer.score(value) if self._scorer is not None else None
        reasons = self._reasons(value, deviation, usual)
        if self._scorer is not None and (deviation is None or deviation < (self.watch.sigma or 0)):
            # What is unusual is not learnt, or it would soon be usual.
            self._scorer.learn(value)
        if reasons:
            self._remember(value, deviation, reasons)
        message = self._close(at_ms, value, reasons) if self.firing else self._open(at_ms, value, reasons)
        low, high = self._band(usual)
        score = {"at_ms": at_ms, "host": self.host, "series": self.name, "value": value}
        return {**score, "low": low, "high": high, "score": deviation, "firing": self.firing}, message

    def _reasons(
        self, value: float, deviation: float | None, usual: tuple[float, float, float] | None
    ) -> list[str]:
        watch = self.watch
        reasons = []
        if watch.above is not None and value > watch.above:
            reasons.append(f"above {watch.above:g}")
        if watch.below is not None and value < watch.below:
            reasons.append(f"below {watch.below:g}")
        if deviation is not None and usual is not None and deviation >= (watch.sigma or 0):
            reasons.append(f"unusual: mostly {usual[0]:.4g}")
        return reasons

    def _band(self, usual: tuple[float, float, float] | None) -> tuple[float | None, float | None]:
        if self.watch.sigma is None:
            return self.watch.below, self.watch.above
        if usual is None:
            return None, None
        middle, below, above = usual
        return middle - self.watch.sigma * (middle - below), middle + self.watch.sigma * (above - middle)

    def _open(self, at_ms: int, value: float, reasons: list[str]) -> dict[str, Any] | None:
        state = self.state
        if not reasons:
            if state.bad_since_ms is not None:
                self.state = State(last_ms=at_ms)
            return None
        if state.bad_since_ms is None:
            state.bad_since_ms = at_ms
        if at_ms - state.bad_since_ms < self.watch.for_s * 1000:
            return None
        state.opened_ms = at_ms
        return self._message("firing", at_ms, value)

    def _close(self, at_ms: int, value: float, reasons: list[str]) -> dict[str, Any] | None:
        state = self.state
        assert state.opened_ms is not None
        if reasons:
            state.good_since_ms = None
            only_unusual = all(reason.startswith("unusual") for reason in reasons)
            if not only_unusual or at_ms - state.opened_ms < ADOPT_MS or self._scorer is None:
                return None
            self._scorer.forget()
            self._scorer.learn(value)
            state.reasons.append("from now on usual")
        else:
            if state.good_since_ms is None:
                state.good_since_ms = at_ms
            if at_ms - state.good_since_ms < self.watch.clear_s * 1000:
                return None
        message = self._message("resolved", at_ms, value)
        self.state = State(last_ms=at_ms)
        return message

    def _remember(self, value: float, deviation: float | None, reasons: list[str]) -> None:
        """The worst value, by how far it is from what it should be, and each kind of reason once."""
        state, watch = self.state, self.watch
        beyond = [value - watch.above] if watch.above is not None else []
        beyond += [watch.below - value] if watch.below is not None else []
        size = deviation if deviation is not None else max(beyond)
        if state.worst is None or size > state.worst_size:
            state.worst, state.worst_size = value, size
        kinds = {reason.split()[0] for reason in state.reasons}
        state.reasons += [reason for reason in reasons if reason.split()[0] not in kinds]

    def _message(self, what: str, at_ms: int, value: float) -> dict[str, Any]:
        state = self.state
        return {
            "incident": f"{self.host}/{self.name}@{state.opened_ms}",
            "state": what,
            "host": self.host,
            "series": self.name,
            "title": self.watch.title or self.name,
            "unit": self.watch.unit,
            "at_ms": at_ms,
            "opened_ms": state.opened_ms,
            "value": value,
            "worst": state.worst,
            "reasons": list(state.reasons),
        }

    def saved(self) -> dict[str, Any]:
        """What `restore` needs, fit for JSON."""
        return {**asdict(self.state), "scorer": self._scorer.state() if self._scorer is not None else []}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on where the one that gave `saved` was."""
        content = dict(saved)
        known = content.pop("scorer")
        self.state = State(**content)
        if self._scorer is not None:
            self._scorer.restore(known)
