"""Measures the made-up days, to compare with what `day.py` states of them.

Prints JSON: for each symbol what was measured over so many days (`--days`), and what is stated.
"""

from __future__ import annotations

import argparse
import itertools
import json
from typing import Any

import numpy as np

from examples.market.day import (
    INSTRUMENTS,
    MINUTE_MS,
    MINUTES,
    STATED,
    Event,
    Instrument,
    intensity,
    make_day,
    opens_at_ms,
    trading_days,
)


def measure(instrument: Instrument, days: list[list[Event]], opens_ms: list[int]) -> dict[str, Any]:
    """One instrument over all days."""
    counts, spreads, returns, repeats, inside, late, prints, episodes = [], [], [], [], [], [], 0, 0
    for events, opens in zip(days, opens_ms, strict=True):
        quotes = [event for event in events if event.kind == "quote"]
        trades = sorted((event for event in events if event.kind == "trade"), key=lambda event: event.at_ms)
        bid = np.array([event.value["bid"] for event in quotes])
        ask = np.array([event.value["ask"] for event in quotes])
        wide = np.array([event.truth == "spread" for event in quotes])
        at_ms = np.array([event.at_ms for event in quotes])
        # By five minutes on the market's own clock: there the walk has the same pace all day.
        middle = np.log((bid + ask) / 2)
        marks = np.searchsorted(at_ms, opens + np.arange(0, MINUTES * MINUTE_MS, 5 * MINUTE_MS), "right") - 1
        pace = np.sqrt(intensity((np.arange(len(marks) - 1) + 0.5) / (len(marks) - 1)))
        returns.append(np.diff(middle[marks]) / pace)
        spreads.append(((ask - bid) / ((ask + bid) / 2))[~wide])
        episodes += int(np.sum(np.diff(wide.astype(int), prepend=0) == 1))
        minute = [(event.at_ms - opens) // MINUTE_MS for event in trades]
        counts.append(np.bincount(minute, minlength=MINUTES))
        prints += sum(event.truth == "print" for event in trades)
        late.append(np.mean([event.arrives_ms > event.at_ms for event in trades]))
        prevailing = np.searchsorted(at_ms, [event.at_ms for event in trades], "right") - 1
        price = np.array([event.value["price"] for event in trades])
        side = np.where(price >= ask[prevailing], 1, np.where(price <= bid[prevailing], -1, 0))
        inside.append(np.mean(side == 0))
        known = side[side != 0]
        repeats.append(np.mean(known[1:] == known[:-1]))
    all_counts, all_returns = np.array(counts), np.concatenate(returns)
    expected = all_counts.mean() * intensity((np.arange(MINUTES) + 0.5) / MINUTES)
    quartiles = np.percentile(all_returns, [25, 75])
    return {
        "trades a minute": float(all_counts.mean()),
        # 1 for a Poisson process, whatever its intensity.
        "dispersion": float(np.mean((all_counts - expected) ** 2 / expected)),
        "open over noon": float(all_counts[:, :20].mean() / all_counts[:, 185:205].mean()),
        # From the quartiles: jumps do not reach them.
        "deviation": float((quartiles[1] - quartiles[0]) / 1.349 * np.sqrt(MINUTES / 5)),
        "beyond five deviations": int(
            np.sum(np.abs(all_returns) > 5 * (quartiles[1] - quartiles[0]) / 1.349)
        ),
        "spread": float(np.concatenate(spreads).mean()),
        "spread deviation": float(np.log(np.concatenate(spreads)).std()),
        "side repeats": float(np.mean(repeats)),
        "inside": float(np.mean(inside)),
        "late": float(np.mean(late)),
        "prints a day": prints / len(days),
        "episodes a day": episodes / len(days),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--days", type=int, default=10)
    dates = list(itertools.islice(trading_days(), options.parse_args().days))
    result = {}
    for instrument in INSTRUMENTS:
        days = [make_day(date, (instrument,)) for date in dates]
        result[instrument.symbol] = {
            "measured": measure(instrument, days, [opens_at_ms(date) for date in dates]),
            "stated": {
                "trades a minute": instrument.trades,
                "deviation": instrument.deviation,
                "spread": instrument.spread,
                "price": instrument.price,
                "spread deviation": STATED.spread_deviation,
                "side repeats": STATED.side_repeats,
                "inside": STATED.inside,
                "late": STATED.late,
                "prints a day": STATED.bad_prints,
                "episodes a day": STATED.spread_episodes,
            },
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
