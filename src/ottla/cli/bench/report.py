"""Figures of a run: percentiles, costs, and how they are printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ottla.cli import output
from ottla.cli.bench.processes import Usage

PERCENTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))
MEGA = 1_000_000
GIGA = 1_000_000_000


def percentiles(latencies_s: Sequence[float]) -> dict[str, float]:
    """Mean, percentiles and maximum in milliseconds; empty where nothing was measured."""
    if not latencies_s:
        return {}
    ordered = sorted(latencies_s)
    figures = {"mean": sum(ordered) / len(ordered) * 1000}
    for name, share in PERCENTILES:
        figures[name] = ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000
    return {name: round(value, 3) for name, value in figures.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run. ``count`` messages (or requests) of ``bytes_total`` in all took ``seconds``."""

    test: str
    client: str
    settings: dict[str, Any]
    unit: str
    count: int
    bytes_total: int
    seconds: float
    failed: int = 0
    client_cpu_s: float | None = None
    latencies_s: Sequence[float] = ()
    before: Usage | None = None
    after: Usage | None = None
    notes: list[str] = field(default_factory=list)
    # What others did meanwhile: the broker's costs are for both.
    beside: Result | None = None

    def figures(self) -> dict[str, Any]:
        """Everything, JSON-ready; broker figures are null where its process cannot be seen."""
        cpu_s = self.after.cpu_s - self.before.cpu_s if self.before and self.after else None
        per_request = self.unit == "requests"
        own_cpu_s = cpu_s if self.beside is None else None
        figures = {
            "test": self.test,
            "client": self.client,
            "settings": self.settings,
            self.unit: self.count,
            "failed": self.failed,
            "seconds": round(self.seconds, 3),
            f"{self.unit}_per_s": round(self.count / self.seconds) if self.seconds else None,
            "mb_per_s": round(self.bytes_total / self.seconds / MEGA, 2) if self.seconds else None,
            "latency_ms": percentiles(self.latencies_s),
            "client_cpu_s": _round(self.client_cpu_s),
            "broker_cpu_s": _round(cpu_s),
            "broker_cpu_s_per_million": None if per_request else _per(own_cpu_s, self.count, MEGA),
            "broker_cpu_us_per_message": None if per_request else _per(own_cpu_s, self.count, MEGA, digits=1),
            "broker_cpu_us_per_request": _per(own_cpu_s, self.count, MEGA, digits=1) if per_request else None,
            "broker_cpu_s_per_gb": _per(own_cpu_s, self.bytes_total, GIGA),
            "broker_memory_mb": round(self.after.memory_bytes / MEGA, 1) if self.after else None,
            "notes": self.notes,
        }
        if self.beside is not None:
            figures["beside"] = self.beside.beside_figures()
        return figures

    def beside_figures(self) -> dict[str, Any]:
        """What is told of it where it was done beside something else."""
        figures = self.figures()
        told = ("test", "settings", self.unit, "failed", f"{self.unit}_per_s", "mb_per_s", "latency_ms")
        return {name: figures[name] for name in told}


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _per(cost: float | None, count: int, unit: int, digits: int = 3) -> float | None:
    return round(cost / count * unit, digits) if cost is not None and count else None


# Per message where the load is paced, per million and per GB where it is not.
HIDDEN = {
    "latency": ("broker_cpu_s_per_million", "broker_cpu_s_per_gb", "mb_per_s"),
    "produce": ("broker_cpu_us_per_message",),
    "consume": ("broker_cpu_us_per_message",),
}

LABELS = {
    "messages": ("messages", ""),
    "requests": ("requests", ""),
    "failed": ("failed", ""),
    "seconds": ("time", "s"),
    "messages_per_s": ("rate", "messages/s"),
    "requests_per_s": ("rate", "requests/s"),
    "mb_per_s": ("throughput", "MB/s"),
    "client_cpu_s": ("client CPU", "s"),
    "broker_cpu_s": ("broker CPU", "s"),
    "broker_cpu_s_per_million": ("broker CPU per million messages", "s"),
    "broker_cpu_us_per_message": ("broker CPU per message", "µs"),
    "broker_cpu_us_per_request": ("broker CPU per request", "µs"),
    "broker_cpu_s_per_gb": ("broker CPU per GB", "s"),
    "broker_memory_mb": ("broker memory", "MB"),
}


def show(result: Result, json: bool) -> None:
    """Print a result for a program or for a person."""
    figures = result.figures()
    if json:
        output.print_json(figures)
        return
    output.say(f"{result.test}: {settings_text(result.settings)}")
    output.say(f"load from {result.client}")
    rows: list[tuple[str, str, str]] = []
    hidden = HIDDEN.get(result.test, ())
    for name, (label, unit) in LABELS.items():
        if name not in hidden and figures.get(name) is not None and (name != "failed" or figures[name]):
            rows.append((label, number(figures[name]), unit))
    rows += [(f"latency {name}", number(value), "ms") for name, value in figures["latency_ms"].items()]
    if (beside := figures.get("beside")) is not None:
        rows.append(("beside it: throughput", number(beside["mb_per_s"]), "MB/s"))
        rows += [
            (f"beside it: latency {name}", number(value), "ms")
            for name, value in beside["latency_ms"].items()
        ]
    output.table(("figure", "value", "unit"), rows, right=(1,))
    if result.before is None:
        output.say(
            "broker CPU and memory: not visible from here (another machine, or another user's process)"
        )
    for note in result.notes:
        output.say(note)


# How a setting's unit, the end of its name, is written behind its value.
UNITS = {"_bytes": " B", "_ms": " ms", "_per_s": "/s"}


def settings_text(settings: dict[str, Any]) -> str:
    """Settings, for people."""
    return ", ".join(_setting(name, value) for name, value in settings.items())


def _setting(name: str, value: Any) -> str:
    for suffix, unit in UNITS.items():
        if name.endswith(suffix):
            plain = int(value) if value == int(value) else value
            return f"{name.removesuffix(suffix)} {plain}{unit}"
    return f"{name.replace('_', ' ')} {value}"


def number(value: float) -> str:
    """A figure, for people."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}".rstrip("0").rstrip(".")
