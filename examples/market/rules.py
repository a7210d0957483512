"""What the streams decide, as functions of a state and the next value: pure, so that it can be done over.

A state is a dict that fits into JSON. The streams keep it in Quix Streams' stores; `check.py` goes through
the input topics with the same functions and compares. All of it is a demonstration of processing, not of
trading.
"""

from __future__ import annotations

from statistics import median
from typing import Any

State = dict[str, Any]

MINUTE_MS = 60_000
# Bars close when a trade of the same symbol is this much later than their end: late reports still count.
GRACE_MS = 5000

# Robust z-scores: over how many values, from how many on, and what is out of the ordinary.
WINDOW = 60
WARM = 25
ALARM_AT = 8.0
CALM_AT = 4.0
CALM_AFTER = 3
# What is normal is never held to be narrower than this: prices move in ticks.
SPREAD_FLOOR = 0.0001
PRINT_FLOOR = 0.0002
JUMP_FLOOR = 0.0002

FAST_BARS = 8
SLOW_BARS = 21
# The risk filter: no position while a bar's range is so many times its usual one, or when the averages are
# closer than this share of it (a crossing in a market that goes nowhere).
RANGE_TIMES_MAX = 2.5
CROSSING_MIN = 0.35


def unusual(state: State, value: float, at_ms: int, floor: float) -> dict[str, Any] | None:
    """The alarm that begins with this value, or None. Changes `state`.

    The z-score is robust: distance from the median, in units of the median distance (times 1.4826, which
    makes it the standard deviation of normal values). What raised the alarm does not become part of what is
    usual; an alarm ends after a few calm values, and an episode is one alarm."""
    recent: list[float] = state.setdefault("recent", [])
    if len(recent) < WARM:
        recent.append(value)
        return None
    middle = median(recent)
    deviation = max(floor, 1.4826 * median([abs(one - middle) for one in recent]))
    score = (value - middle) / deviation
    episode = state.get("episode", 0)
    if episode:
        state["calm"] = state.get("calm", 0) + 1 if abs(score) < CALM_AT else 0
        state["episode"] = episode + 1
        if state["calm"] >= CALM_AFTER:
            state["episode"] = 0
        elif episode >= WINDOW:
            # It has lasted so long that it is the new usual.
            state.update(recent=[], episode=0)
        return None
    if abs(score) >= ALARM_AT:
        state.update(episode=1, calm=0)
        return {"at_ms": at_ms, "score": round(score, 1), "value": round(value, 6)}
    recent.append(value)
    del recent[:-WINDOW]
    return None


def spread_alarm(state: State, quote: dict[str, Any]) -> dict[str, Any] | None:
    """Whether a quote begins an episode of unusual spreads."""
    middle = (quote["ask"] + quote["bid"]) / 2
    alarm = unusual(state, (quote["ask"] - quote["bid"]) / middle, quote["at_ms"], SPREAD_FLOOR)
    return alarm and {"symbol": quote["symbol"], "kind": "spread", **alarm, "price": round(middle, 2)}


def print_alarm(state: State, quoted: dict[str, Any]) -> dict[str, Any] | None:
    """Whether a trade was printed unusually far outside the quote of its time."""
    if quoted["mid"] is None:
        return None
    away = quoted["price"] / quoted["mid"] - 1
    outside = max(0.0, abs(away) - quoted["spread"] / 2)
    alarm = unusual(state, outside if away > 0 else -outside, quoted["at_ms"], PRINT_FLOOR)
    return alarm and {"symbol": quoted["symbol"], "kind": "print", **alarm, "price": quoted["price"]}


def jump_alarm(state: State, bar: dict[str, Any]) -> dict[str, Any] | None:
    """Whether a bar's volume-weighted price is unusually far from that of the bar before, of the same day."""
    before, day = state.get("vwap"), bar["start_ms"] // 86_400_000
    same_day, state["day"], state["vwap"] = state.get("day") == day, day, bar["vwap"]
    if before is None or not same_day:
        return None
    alarm = unusual(state, bar["vwap"] / before - 1, bar["start_ms"], JUMP_FLOOR)
    return alarm and {"symbol": bar["symbol"], "kind": "jump", **alarm, "price": bar["close"]}


def quote_of(trade: dict[str, Any], quote: dict[str, Any] | None) -> dict[str, Any]:
    """A trade with the quote of its time: what it cost beyond the middle, who was in a hurry."""
    if quote is None:
        return {**trade, "quote_ms": None, "mid": None, "spread": None, "cost": None, "side": None}
    mid = (quote["bid"] + quote["ask"]) / 2
    side = "buy" if trade["price"] > mid else "sell" if trade["price"] < mid else "inside"
    return {
        **trade,
        "quote_ms": quote["at_ms"],
        "mid": round(mid, 4),
        "spread": round((quote["ask"] - quote["bid"]) / mid, 7),
        "cost": round(abs(trade["price"] - mid) * trade["size"], 2),
        "side": side,
    }


def bar_of(symbol: str, window: dict[str, Any]) -> dict[str, Any]:
    """A bar out of a closed window. Cents times shares are whole numbers: VWAP is the same in any order."""
    return {
        "symbol": symbol,
        "start_ms": window["start"],
        **{name: window[name] for name in ("open", "high", "low", "close", "volume", "trades")},
        "vwap": round(window["cents"] / window["volume"] / 100, 4),
    }


def signal_of(state: State, bar: dict[str, Any]) -> dict[str, Any] | None:
    """What a crossing of two moving averages says at the end of a bar, or None. Changes `state`.

    "buy", "sell" (short) or "flat", with `held_back` saying why a crossing was not followed."""
    day = bar["start_ms"] // 86_400_000
    if state.get("day") != day:
        state.clear()
        state.update(day=day, bars=0, fast=bar["close"], slow=bar["close"], range=0.0, position=0)
    width = bar["high"] - bar["low"]
    usual = state["range"] or width
    state["bars"] += 1
    was_above = state["fast"] > state["slow"]
    state["fast"] += (bar["close"] - state["fast"]) * 2 / (FAST_BARS + 1)
    state["slow"] += (bar["close"] - state["slow"]) * 2 / (SLOW_BARS + 1)
    state["range"] = usual + (width - usual) * 2 / (SLOW_BARS + 1)
    above, wild = state["fast"] > state["slow"], width > RANGE_TIMES_MAX * usual
    if state["bars"] <= SLOW_BARS:
        return None
    # A crossing is followed when the averages have parted far enough; until then it waits.
    if above != was_above:
        state["waiting"] = True
    action, held_back = None, None
    if wild and state["position"]:
        action, state["position"] = "flat", 0
    elif state.get("waiting") and abs(state["fast"] - state["slow"]) > CROSSING_MIN * usual:
        state["waiting"] = False
        wanted = 1 if above else -1
        if wild:
            action, held_back = ("buy" if above else "sell"), "range"
        elif wanted != state["position"]:
            action, state["position"] = ("buy" if above else "sell"), wanted
    if action is None:
        return None
    return {
        "symbol": bar["symbol"],
        "at_ms": bar["start_ms"] + MINUTE_MS,
        "action": action,
        "held_back": held_back,
        "price": bar["close"],
        "fast": round(state["fast"], 4),
        "slow": round(state["slow"], 4),
    }
