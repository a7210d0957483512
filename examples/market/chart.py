"""The day as a chart: candles, VWAP, signals and alarms of one symbol in full, the others small."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import dates as mdates
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.lines import Line2D

from examples.market import rules
from examples.market.observer import MINUTE_MS, Observer, Symbol

UP, DOWN, INK, FAINT = "#1a9e77", "#d1495b", "#22303c", "#8a99a6"
VWAP, FAST, SLOW, ALARM = "#e09f3e", "#3d7ea6", "#7b5ea7", "#c2185b"
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": "#c8d0d7",
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e8edf1",
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
}
MARKERS = {"spread": ("D", "spread alarm"), "print": ("X", "bad print"), "jump": ("P", "jump")}


def draw(observer: Observer, path: Path) -> None:
    """Draw what the observer has of its day into a PNG."""
    shown = sorted(
        ((name, symbol) for name, symbol in observer.symbols.items() if len(symbol.bars) > 1),
        key=lambda item: (-len(item[1].alarms) - len(item[1].signals), item[0]),
    )
    if not shown:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(14, 8.2), dpi=110)
        grid = figure.add_gridspec(
            6, 3, hspace=0.28, wspace=0.17, left=0.05, right=0.985, top=0.885, bottom=0.06
        )
        price = figure.add_subplot(grid[:4, :2])
        volume = figure.add_subplot(grid[4, :2], sharex=price)
        spread = figure.add_subplot(grid[5, :2], sharex=price)
        name, symbol = shown[0]
        _price(price, symbol, full=True)
        _volume(volume, symbol)
        _spread(spread, symbol)
        price.set_title(name, loc="left", fontsize=10, weight="bold")
        for axes in (price, volume):
            axes.tick_params(labelbottom=False)
        for i, (other, its) in enumerate(shown[1:4]):
            axes = figure.add_subplot(grid[2 * i : 2 * i + 2, 2])
            _price(axes, its, full=False)
            axes.set_title(other, loc="left", fontsize=10, weight="bold")
            axes.tick_params(labelbottom=i == len(shown[1:4]) - 1)
        _heading(figure, observer)
        figure.savefig(path, facecolor="white")
        plt.close(figure)


def _heading(figure: Any, observer: Observer) -> None:
    assert observer.day is not None
    bars = sum(len(symbol.bars) for symbol in observer.symbols.values())
    alarms = sum(len(symbol.alarms) for symbol in observer.symbols.values())
    signals = sum(len(symbol.signals) for symbol in observer.symbols.values())
    figure.text(0.05, 0.955, f"{observer.day:%A, %d %B %Y}", fontsize=15, weight="bold")
    figure.text(
        0.05,
        0.928,
        f"{bars} bars, {alarms} alarms and {signals} signals out of market.trades and market.quotes"
        " · a made-up market, a demonstration and no advice",
        fontsize=9,
        color=FAINT,
    )


def _at(at_ms: int) -> float:
    moment = datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC)
    return float(mdates.date2num(moment))


def _time_axis(axes: Axes) -> None:
    locator = mdates.AutoDateLocator(minticks=3, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mdates.DateFormatter("%H:%M"))


def _price(axes: Axes, symbol: Symbol, full: bool) -> None:
    bars = [bar for _, bar in sorted(symbol.bars.items())]
    times = [_at(bar["start_ms"] + MINUTE_MS // 2) for bar in bars]
    colours = [UP if bar["close"] >= bar["open"] else DOWN for bar in bars]
    half = 0.36 * MINUTE_MS / 86_400_000
    wicks = [[(t, bar["low"]), (t, bar["high"])] for t, bar in zip(times, bars, strict=True)]
    axes.add_collection(LineCollection(wicks, colors=colours, linewidths=0.9))
    bodies = [
        [(t - half, bar["open"]), (t + half, bar["open"]), (t + half, bar["close"]), (t - half, bar["close"])]
        for t, bar in zip(times, bars, strict=True)
    ]
    axes.add_collection(PolyCollection(bodies, facecolors=colours, edgecolors=colours, linewidths=0.8))
    axes.plot(times, _running_vwap(bars), color=VWAP, linewidth=1.6, zorder=3)
    if full:
        fast, slow = _averages(bars)
        axes.plot(times, fast, color=FAST, linewidth=1.0, zorder=3)
        axes.plot(times, slow, color=SLOW, linewidth=1.0, zorder=3)
    # A bad print must not set the scale: that is the one of nearly all prices, and the print is at its edge.
    prices = sorted(bar[name] for bar in bars for name in ("open", "close", "vwap"))
    cut = 1 + len(prices) // 60
    lowest, highest = prices[cut], prices[-1 - cut]
    margin = max(0.15 * (highest - lowest), 0.02)
    low, high = lowest - margin, highest + margin
    axes.set_ylim(low, high)
    axes.set_xlim(times[0] - 3 * half, times[-1] + 3 * half)
    _signals(axes, symbol, margin, 60 if full else 26)
    _alarms(axes, symbol, low, high, margin, 46 if full else 22)
    _time_axis(axes)
    if full:
        _legend(axes)


def _running_vwap(bars: list[dict[str, Any]]) -> list[float]:
    values, money, volume = [], 0.0, 0
    for bar in bars:
        money, volume = money + bar["vwap"] * bar["volume"], volume + bar["volume"]
        values.append(money / volume)
    return values


def _averages(bars: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    fast, slow = [bars[0]["close"]], [bars[0]["close"]]
    for bar in bars[1:]:
        fast.append(fast[-1] + (bar["close"] - fast[-1]) * 2 / (rules.FAST_BARS + 1))
        slow.append(slow[-1] + (bar["close"] - slow[-1]) * 2 / (rules.SLOW_BARS + 1))
    return fast, slow


def _signals(axes: Axes, symbol: Symbol, margin: float, size: float) -> None:
    for at_ms, signal in symbol.signals.items():
        up = signal["action"] == "buy"
        marker = {"buy": "^", "sell": "v", "flat": "o"}[signal["action"]]
        colour = {"buy": UP, "sell": DOWN, "flat": INK}[signal["action"]]
        axes.scatter(
            _at(at_ms),
            signal["price"] + (-0.45 if up else 0.45) * margin,
            marker=marker,
            s=size,
            facecolors="none" if signal["held_back"] else colour,
            edgecolors=colour,
            zorder=5,
        )


def _alarms(axes: Axes, symbol: Symbol, low: float, high: float, margin: float, size: float) -> None:
    for (kind, at_ms), alarm in symbol.alarms.items():
        where = min(high - 0.2 * margin, max(low + 0.2 * margin, alarm["price"]))
        axes.scatter(
            _at(at_ms),
            where,
            marker=MARKERS[kind][0],
            s=size,
            color=ALARM,
            edgecolors="white",
            linewidths=0.7,
            zorder=6,
        )


def _legend(axes: Axes) -> None:
    lines = [
        Line2D([], [], color=VWAP, linewidth=1.6, label="VWAP of the day"),
        Line2D([], [], color=FAST, label=f"average of {rules.FAST_BARS} bars"),
        Line2D([], [], color=SLOW, label=f"of {rules.SLOW_BARS}"),
        *(
            Line2D([], [], linestyle="", marker=marker, color=colour, label=label)
            for marker, colour, label in (("^", UP, "buy"), ("v", DOWN, "sell"), ("o", INK, "flat"))
        ),
        *(
            Line2D([], [], linestyle="", marker=marker, color=ALARM, label=label)
            for marker, label in MARKERS.values()
        ),
    ]
    axes.legend(
        handles=lines,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=9,
        fontsize=7.5,
        frameon=False,
        columnspacing=1.1,
        handletextpad=0.4,
        handlelength=1.4,
        borderaxespad=0.1,
    )


def _volume(axes: Axes, symbol: Symbol) -> None:
    bars = [bar for _, bar in sorted(symbol.bars.items())]
    axes.bar(
        [_at(bar["start_ms"] + MINUTE_MS // 2) for bar in bars],
        [bar["volume"] / 1000 for bar in bars],
        width=0.72 * MINUTE_MS / 86_400_000,
        color=[UP if bar["close"] >= bar["open"] else DOWN for bar in bars],
        alpha=0.55,
    )
    axes.set_title("thousand shares a minute", loc="left", fontsize=8, color=FAINT, pad=2)


def _spread(axes: Axes, symbol: Symbol) -> None:
    minutes = sorted(symbol.spreads.items())
    times = [_at(minute + MINUTE_MS // 2) for minute, _ in minutes]
    values = [total / count * 1e4 for _, (total, count) in minutes]
    axes.fill_between(times, values, color=FAST, alpha=0.18, linewidth=0)
    axes.plot(times, values, color=FAST, linewidth=1.0)
    for (kind, at_ms), alarm in symbol.alarms.items():
        if kind == "spread":
            axes.scatter(
                _at(at_ms),
                min(max(values), alarm["value"] * 1e4),
                marker=MARKERS[kind][0],
                s=36,
                color=ALARM,
                edgecolors="white",
                linewidths=0.7,
                zorder=5,
            )
    axes.set_ylim(0, None)
    axes.set_title(
        "spread at the trades, basis points (joined as of)", loc="left", fontsize=8, color=FAINT, pad=2
    )
    _time_axis(axes)
