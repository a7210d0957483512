"""Trades with the quotes of their time, and alarms on spreads and prints (Quix Streams).

The join is as of: to each trade the latest quote that is no later than it. Quix Streams takes the two topics
in the order of their times, partition by partition, and keeps the quotes of the last ten minutes.
"""

from __future__ import annotations

from typing import Any

from quixstreams import State

from examples.market import rules, topics
from examples.market.streams import application, json_topic

QUOTES_KEPT_MS = 10 * 60_000


def _spread(quote: dict[str, Any], state: State) -> dict[str, Any] | None:
    own = state.get("spread", {})
    alarm = rules.spread_alarm(own, quote)
    state.set("spread", own)
    return alarm


def _print(quoted: dict[str, Any], state: State) -> dict[str, Any] | None:
    own = state.get("print", {})
    alarm = rules.print_alarm(own, quoted)
    state.set("print", own)
    return alarm


def main() -> None:
    app = application(topics.JOIN_GROUP, __doc__)
    trades = app.dataframe(json_topic(app, topics.TRADES))
    quotes = app.dataframe(json_topic(app, topics.QUOTES))
    alarms = json_topic(app, topics.ALARMS)

    def key_of(alarm: dict[str, Any]) -> str:
        return f"{alarm['symbol']} {alarm['kind']} {alarm['at_ms']}"

    quotes.apply(_spread, stateful=True).filter(lambda alarm: alarm).to_topic(alarms, key=key_of)
    quoted = trades.join_asof(quotes, how="left", on_merge=rules.quote_of, grace_ms=QUOTES_KEPT_MS)
    quoted.to_topic(json_topic(app, topics.QUOTED), key=lambda trade: trade["id"])
    quoted.apply(_print, stateful=True).filter(lambda alarm: alarm).to_topic(alarms, key=key_of)
    app.run()


if __name__ == "__main__":
    main()
