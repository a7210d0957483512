"""Trades into bars of a minute with their VWAP, bars into alarms and signals (Quix Streams)."""

from __future__ import annotations

from typing import Any

from quixstreams import State
from quixstreams.dataframe.windows import Count, Earliest, Latest, Max, Min, Sum

from examples.market import rules, topics
from examples.market.streams import application, json_topic


def _stateful(rule: Any, name: str) -> Any:
    """A rule over a state of its own, in the store that Quix Streams keeps for the key."""

    def apply(bar: dict[str, Any], state: State) -> dict[str, Any] | None:
        own = state.get(name, {})
        result: dict[str, Any] | None = rule(own, bar)
        state.set(name, own)
        return result

    return apply


def main() -> None:
    app = application(topics.BARS_GROUP, __doc__)
    trades = app.dataframe(json_topic(app, topics.TRADES))
    windows = (
        trades.apply(lambda trade: {**trade, "cents": round(trade["price"] * 100) * trade["size"]})
        .tumbling_window(rules.MINUTE_MS, grace_ms=rules.GRACE_MS)
        .agg(
            # By the time of the trade, not of its report.
            open=Earliest("price"),
            high=Max("price"),
            low=Min("price"),
            close=Latest("price"),
            volume=Sum("size"),
            cents=Sum("cents"),
            trades=Count(),
        )
        .final()
    )
    bars = windows.apply(lambda window, key, *_: rules.bar_of(key, window), metadata=True)
    bars.to_topic(json_topic(app, topics.BARS), key=lambda bar: f"{bar['symbol']} {bar['start_ms']}")
    alarms = bars.apply(_stateful(rules.jump_alarm, "jump"), stateful=True).filter(lambda alarm: alarm)
    alarms.to_topic(
        json_topic(app, topics.ALARMS), key=lambda alarm: f"{alarm['symbol']} jump {alarm['at_ms']}"
    )
    signals = bars.apply(_stateful(rules.signal_of, "signal"), stateful=True).filter(lambda signal: signal)
    signals.to_topic(
        json_topic(app, topics.SIGNALS), key=lambda signal: f"{signal['symbol']} {signal['at_ms']}"
    )
    app.run()


if __name__ == "__main__":
    main()
