"""Does it over: all bars, joined trades, alarms and signals from the inputs, to compare with the outputs.

It reads the topics as they are, from the beginning, and uses the rules of `rules.py`, but none of the
streams' machinery: no windows, no stores, no join of Quix Streams. `python -m examples.market.check
--bootstrap HOST:PORT` does it at any time when the streams have caught up.
"""

from __future__ import annotations

import argparse
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Message

from examples.market import rules, topics

Value = dict[str, Any]
FOUND_WITHIN_MS = 60_000


@dataclass(slots=True, kw_only=True)
class Comparison:
    """One output topic: what it should hold and does not, and what it holds and should not, by key."""

    expected: int
    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    # Keys that were written more than once, and those of them whose writes were not all the same.
    again: int = 0
    changed: list[str] = field(default_factory=list)

    @property
    def right(self) -> bool:
        """Whether the topic holds what it should."""
        return not (self.missing or self.wrong or self.changed)


@dataclass(slots=True, kw_only=True)
class Verdict:
    """All of them, and how many of the events that were hidden in the input raised an alarm."""

    outputs: dict[str, Comparison]
    hidden: dict[str, int]
    found: dict[str, int]
    false_alarms: dict[str, int]


def recomputed_bars(trades: list[Value]) -> list[Value]:
    """The bars of one symbol that have to be closed, from its trades in the order of the topic."""
    latest_ms = max(trade["at_ms"] for trade in trades)
    minutes: dict[int, list[Value]] = {}
    for trade in trades:
        minutes.setdefault(trade["at_ms"] // rules.MINUTE_MS * rules.MINUTE_MS, []).append(trade)
    bars = []
    for start_ms, within in sorted(minutes.items()):
        if start_ms + rules.MINUTE_MS + rules.GRACE_MS > latest_ms:
            continue
        within.sort(key=lambda trade: trade["at_ms"])
        prices, volume = [trade["price"] for trade in within], sum(trade["size"] for trade in within)
        bars.append(
            {
                "symbol": within[0]["symbol"],
                "start_ms": start_ms,
                "open": prices[0],
                "high": max(prices),
                "low": min(prices),
                "close": prices[-1],
                "volume": volume,
                "trades": len(within),
                "vwap": round(
                    sum(round(trade["price"] * 100) * trade["size"] for trade in within) / volume / 100, 4
                ),
            }
        )
    return bars


def recomputed_join(trades: list[Value], quotes: list[Value]) -> list[Value]:
    """The trades of one symbol, each with the latest quote that is no later."""
    by_time = sorted(quotes, key=lambda quote: quote["at_ms"])
    times_ms = [quote["at_ms"] for quote in by_time]
    joined = []
    for trade in trades:
        at = bisect_right(times_ms, trade["at_ms"])
        joined.append(rules.quote_of(trade, by_time[at - 1] if at else None))
    return joined


def _by_symbol(messages: list[Message]) -> dict[str, list[Value]]:
    found: dict[str, list[Value]] = {}
    for message in messages:
        found.setdefault(message.key().decode(), []).append(topics.decode(message))
    return found


def _all_of(rule: Callable[[rules.State, Value], Value | None], values: list[Value]) -> list[Value]:
    state: rules.State = {}
    return [result for value in values if (result := rule(state, value)) is not None]


def _compare(bootstrap: str, topic: str, expected: dict[str, Value]) -> Comparison:
    written: dict[str, list[Value]] = {}
    for message in topics.read_all(bootstrap, topic):
        written.setdefault(message.key().decode(), []).append(topics.decode(message))
    return Comparison(
        expected=len(expected),
        missing=sorted(expected.keys() - written.keys()),
        wrong=sorted(key for key, values in written.items() if values[-1] != expected.get(key)),
        again=sum(len(values) > 1 for values in written.values()),
        changed=sorted(key for key, values in written.items() if any(v != values[0] for v in values)),
    )


def judge(bootstrap: str) -> Verdict:
    """Read everything, do it over, compare."""
    trade_messages = topics.read_all(bootstrap, topics.TRADES)
    quote_messages = topics.read_all(bootstrap, topics.QUOTES)
    trades, quotes = _by_symbol(trade_messages), _by_symbol(quote_messages)
    bars = {symbol: recomputed_bars(values) for symbol, values in trades.items()}
    joined = {symbol: recomputed_join(values, quotes.get(symbol, [])) for symbol, values in trades.items()}
    alarms = [alarm for values in bars.values() for alarm in _all_of(rules.jump_alarm, values)]
    alarms += [alarm for values in joined.values() for alarm in _all_of(rules.print_alarm, values)]
    alarms += [alarm for values in quotes.values() for alarm in _all_of(rules.spread_alarm, values)]
    signals = [signal for values in bars.values() for signal in _all_of(rules.signal_of, values)]
    expected: dict[str, dict[str, Value]] = {
        topics.BARS: {f"{b['symbol']} {b['start_ms']}": b for values in bars.values() for b in values},
        topics.QUOTED: {trade["id"]: trade for values in joined.values() for trade in values},
        topics.ALARMS: {f"{a['symbol']} {a['kind']} {a['at_ms']}": a for a in alarms},
        topics.SIGNALS: {f"{s['symbol']} {s['at_ms']}": s for s in signals},
    }
    outputs = {topic: _compare(bootstrap, topic, values) for topic, values in expected.items()}
    return _search(outputs, trade_messages + quote_messages, alarms)


def _search(outputs: dict[str, Comparison], inputs: list[Message], alarms: list[Value]) -> Verdict:
    """Which hidden events raised an alarm: of wide spreads and bad prints it is known where they are."""
    hidden: dict[str, list[tuple[str, int]]] = {"spread": [], "print": []}
    last_ms: dict[str, int] = {}
    for message in sorted(inputs, key=lambda message: message.timestamp()[1]):
        truth, symbol, at_ms = topics.truth_of(message), message.key().decode(), message.timestamp()[1]
        if truth == "spread" and at_ms - last_ms.get(symbol, -FOUND_WITHIN_MS) < FOUND_WITHIN_MS:
            last_ms[symbol] = at_ms
            continue
        if truth:
            hidden[truth].append((symbol, at_ms))
        if truth == "spread":
            last_ms[symbol] = at_ms
    found, false_alarms = {}, {}
    for kind, places in hidden.items():
        raised = [(alarm["symbol"], alarm["at_ms"]) for alarm in alarms if alarm["kind"] == kind]
        near = [
            place
            for place in places
            if any(place[0] == one[0] and 0 <= one[1] - place[1] < FOUND_WITHIN_MS for one in raised)
        ]
        found[kind] = len(near)
        false_alarms[kind] = sum(
            not any(place[0] == one[0] and 0 <= one[1] - place[1] < FOUND_WITHIN_MS for place in places)
            for one in raised
        )
    return Verdict(
        outputs=outputs,
        hidden={kind: len(places) for kind, places in hidden.items()},
        found=found,
        false_alarms=false_alarms,
    )


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--bootstrap", required=True, metavar="HOST:PORT")
    verdict = judge(options.parse_args().bootstrap)
    for topic, one in verdict.outputs.items():
        print(
            f"{topic}: {one.expected} expected, {len(one.missing)} missing, {len(one.wrong)} wrong,"
            f" {one.again} written again, {len(one.changed)} of them differently"
        )
        for key in (*one.missing[:5], *one.wrong[:5], *one.changed[:5]):
            print(f"  {key}")
    for kind, count in verdict.hidden.items():
        print(f"{kind}: {verdict.found[kind]} of {count} found, {verdict.false_alarms[kind]} false alarms")
    return 0 if all(one.right for one in verdict.outputs.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
