"""A trading day that never was: trades and quotes of a few instruments, from a date and nothing else.

The same date and symbol give the same day, to the last message. It is made, not recorded, so its statistics
are known; `STATED` and the `Instrument`s name them, and tests/examples/test_market.py measures them:

- Quotes and trades arrive as Poisson processes whose intensity is a U over the day: three times as busy at
  the open and the close as at noon.
- The middle price is a geometric Brownian motion on that clock (no drift), plus a few jumps: a compound
  Poisson process with normal sizes.
- The relative spread is log-normal and returns to its mean (Ornstein-Uhlenbeck in its logarithm). Bids are
  rounded down and asks up, to the cent: on average that adds a cent.
- Buyers and sellers come in runs. Nine trades in ten are at the bid or the ask, the others between them.
- Three trades in a hundred are reported late, by up to three seconds.
- What is to be found: now and then a quote's spread is eight times as wide for half a minute ("spread"), and
  a trade is printed far from any price ("print"). Their messages say so in `truth`, which no stream reads.

Pure: no clock, no broker. Times are ms since the Unix epoch, prices are in dollars with two decimals.
"""

from __future__ import annotations

import datetime
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

MINUTE_MS = 60_000
OPEN_MS = (9 * 60 + 30) * MINUTE_MS
MINUTES = 390
FIRST_DAY = datetime.date(2024, 1, 2)
TICK = 0.01

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What is the same for all instruments."""

    # How many a day, on average.
    jumps: float = 3.0
    spread_episodes: float = 3.0
    bad_prints: float = 4.0
    # Standard deviation of a jump's size; how wide a spread gets, for how long; how far off a print is.
    jump_deviation: float = 0.004
    spread_factor: float = 8.0
    spread_episode_ms: int = 30_000
    print_distance: float = 0.02
    # The logarithm of the spread: its standard deviation, and the half-life of a disturbance.
    spread_deviation: float = 0.25
    spread_half_life_ms: int = 3 * MINUTE_MS
    inside: float = 0.10
    late: float = 0.03
    late_ms_max: int = 3000
    side_repeats: float = 0.7
    size_median: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """What is its own: dollars at the open, standard deviation of a day without jumps, mean spread relative
    to the price, trades and quotes in an average minute."""

    symbol: str
    price: float
    deviation: float
    spread: float
    trades: float
    quotes: float


STATED = Stated()
INSTRUMENTS = (
    Instrument(symbol="AMBER", price=184.0, deviation=0.016, spread=0.00035, trades=16, quotes=36),
    Instrument(symbol="BASALT", price=62.5, deviation=0.022, spread=0.0006, trades=12, quotes=30),
    Instrument(symbol="COBALT", price=417.0, deviation=0.012, spread=0.0003, trades=10, quotes=28),
    Instrument(symbol="DOLOMITE", price=95.0, deviation=0.019, spread=0.0005, trades=8, quotes=24),
)


class Event(NamedTuple):
    """One message: "trade" or "quote", when it reaches the feed, when it happened, what it says."""

    kind: str
    arrives_ms: int
    at_ms: int
    value: dict[str, Any]
    truth: str


def trading_days(after: datetime.date | None = None) -> Iterator[datetime.date]:
    """Monday to Friday, from the first day or from the one after `after`."""
    day = FIRST_DAY if after is None else after + datetime.timedelta(days=1)
    while True:
        if day.weekday() < 5:
            yield day
        day += datetime.timedelta(days=1)


def opens_at_ms(date: datetime.date) -> int:
    """The open, 9:30. The market's clock is UTC: it has no summer time."""
    midnight = datetime.datetime.combine(date, datetime.time(), datetime.UTC)
    return int(midnight.timestamp()) * 1000 + OPEN_MS


def make_day(date: datetime.date, instruments: tuple[Instrument, ...] = INSTRUMENTS) -> list[Event]:
    """All that happens on a day, in the order in which the feed brings it."""
    events = [event for instrument in instruments for event in _make(instrument, date)]
    # A quote before the trades of its millisecond: the order of the feed is what it is, every time.
    return sorted(events, key=lambda event: (event.arrives_ms, event.kind != "quote", event.value["symbol"]))


def intensity(of_day: Floats) -> Floats:
    """How busy it is at this fraction of the day; 1 on average, 1.8 at both ends, 0.6 in the middle."""
    return 0.6 + 1.2 * (2 * of_day - 1) ** 2


def _elapsed(of_day: Floats) -> Floats:
    """The integral of `intensity`: how much of the day's business is done at this fraction of it."""
    return 0.6 * of_day + 0.2 * ((2 * of_day - 1) ** 3 + 1)


def _arrivals(random: np.random.Generator, mean: float) -> Floats:
    """Sorted fractions of the day: the points of a Poisson process with this mean number, and the U."""
    grid = np.linspace(0.0, 1.0, 4096)
    return np.sort(np.interp(random.random(random.poisson(mean)), _elapsed(grid), grid))


def _make(instrument: Instrument, date: datetime.date) -> Iterator[Event]:
    random = np.random.default_rng([date.toordinal(), zlib.crc32(instrument.symbol.encode())])
    quotes = _arrivals(random, instrument.quotes * MINUTES)
    trades = _arrivals(random, instrument.trades * MINUTES)
    # Even milliseconds are for quotes, odd ones for trades, each used once: "before" has one meaning.
    length_ms = MINUTES * MINUTE_MS
    quotes_ms = np.unique((quotes * length_ms).astype(np.int64) // 2 * 2)
    trades_ms = np.unique((trades * length_ms).astype(np.int64) // 2 * 2 + 1)
    quotes_ms = quotes_ms if len(quotes_ms) and quotes_ms[0] == 0 else np.insert(quotes_ms, 0, 0)
    mid = instrument.price * np.exp(_walk(random, quotes_ms / length_ms, instrument.deviation))
    spread = instrument.spread * np.exp(_ornstein_uhlenbeck(random, quotes_ms))
    wide = _episodes(random, quotes_ms, length_ms)
    half = mid * np.where(wide, spread * STATED.spread_factor, spread) / 2
    bid = np.floor((mid - half) / TICK) * TICK
    ask = np.maximum(np.ceil((mid + half) / TICK) * TICK, bid + TICK)
    start_ms = opens_at_ms(date)
    sizes = random.integers(1, 20, (len(quotes_ms), 2)) * 100
    for i, at_ms in enumerate(quotes_ms):
        quote = {
            "symbol": instrument.symbol,
            "at_ms": start_ms + int(at_ms),
            "bid": round(float(bid[i]), 2),
            "ask": round(float(ask[i]), 2),
            "bid_size": int(sizes[i, 0]),
            "ask_size": int(sizes[i, 1]),
        }
        yield Event("quote", quote["at_ms"], quote["at_ms"], quote, "spread" if wide[i] else "")
    yield from _trades(random, instrument, date, trades_ms, quotes_ms, bid, ask)


def _trades(
    random: np.random.Generator,
    instrument: Instrument,
    date: datetime.date,
    trades_ms: npt.NDArray[np.int64],
    quotes_ms: npt.NDArray[np.int64],
    bid: Floats,
    ask: Floats,
) -> Iterator[Event]:
    count, start_ms = len(trades_ms), opens_at_ms(date)
    prevailing = np.searchsorted(quotes_ms, trades_ms, "right") - 1
    # A run of buyers or sellers ends with the chance that the sides do not repeat.
    turns = random.random(count) >= STATED.side_repeats
    buys = (np.cumsum(turns) + int(random.integers(2))) % 2 == 0
    price = np.where(buys, ask[prevailing], bid[prevailing])
    price = np.where(random.random(count) < STATED.inside, (ask[prevailing] + bid[prevailing]) / 2, price)
    bad = random.random(count) < STATED.bad_prints / max(1, count)
    away = np.where(random.random(count) < 0.5, -1, 1) * STATED.print_distance
    price = np.where(bad, price * (1 + away), price)
    size = np.maximum(1, np.rint(STATED.size_median * np.exp(0.8 * random.standard_normal(count))))
    late = random.random(count) < STATED.late
    delay_ms = np.where(late, random.integers(200, STATED.late_ms_max, count), 0)
    for i, at_ms in enumerate(trades_ms):
        trade = {
            "symbol": instrument.symbol,
            "id": f"{instrument.symbol}-{date:%Y%m%d}-{i:05}",
            "at_ms": start_ms + int(at_ms),
            "price": round(float(price[i]), 2),
            "size": int(size[i]),
        }
        yield Event(
            "trade", trade["at_ms"] + int(delay_ms[i]), trade["at_ms"], trade, "print" if bad[i] else ""
        )


def _walk(random: np.random.Generator, of_day: Floats, deviation: float) -> Floats:
    """The logarithm of price over open, at these fractions of the day."""
    steps = np.diff(_elapsed(of_day), prepend=0.0)
    walk = np.cumsum(deviation * np.sqrt(steps) * random.standard_normal(len(steps)))
    # Without drift in the price itself, its logarithm falls a little.
    walk -= deviation**2 / 2 * _elapsed(of_day)
    jumps_at = random.random(random.poisson(STATED.jumps))
    sizes = STATED.jump_deviation * random.standard_normal(len(jumps_at))
    for at, size in zip(jumps_at, sizes, strict=True):
        walk += np.where(of_day >= at, size, 0.0)
    return walk


def _ornstein_uhlenbeck(random: np.random.Generator, at_ms: npt.NDArray[np.int64]) -> Floats:
    """The logarithm of spread over mean spread: the mean of the spread itself is the stated one."""
    keeps = 0.5 ** (np.diff(at_ms, prepend=0) / STATED.spread_half_life_ms)
    noise = STATED.spread_deviation * np.sqrt(1 - keeps**2) * random.standard_normal(len(at_ms))
    values = np.empty(len(at_ms))
    value = STATED.spread_deviation * random.standard_normal()
    for i in range(len(at_ms)):
        value = value * keeps[i] + noise[i]
        values[i] = value
    return values - STATED.spread_deviation**2 / 2


def _episodes(
    random: np.random.Generator, at_ms: npt.NDArray[np.int64], length_ms: int
) -> npt.NDArray[np.bool_]:
    """Which quotes belong to a time of wide spreads."""
    wide = np.zeros(len(at_ms), dtype=np.bool_)
    for start in random.random(random.poisson(STATED.spread_episodes)) * length_ms:
        wide |= (at_ms >= start) & (at_ms < start + STATED.spread_episode_ms)
    return wide
