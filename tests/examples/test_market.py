"""The market: what the processors write is right, though both are killed and one loses its disk."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from examples_support import ROOT, picture_of, python_of, run_example

from examples.market import check, rules, topics
from interop.process import BrokerProcess

# The picture of the documents has more of the day.
MINUTES = 150 if os.environ.get("OTTLA_PICTURES") == "docs" else 36


def write(bootstrap: str, topic: str, key: str, value: dict[str, Any]) -> None:
    """One message more in a topic, where the others of its key are."""
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(topic, key=key, value=topics.encode(value), timestamp=1_704_190_000_000)
    assert producer.flush(20) == 0


def test_no_bar_is_wrong_after_two_kills(ottla_process: Any, tmp_path: Path) -> None:
    broker: BrokerProcess = ottla_process()
    picture = picture_of("market", "png")
    picture.unlink(missing_ok=True)
    arguments = ["--minutes", str(MINUTES), "--picture", str(picture)]
    run = run_example("market", broker.bootstrap, tmp_path, *arguments, timeout_s=100)

    assert sorted(run.figures["killed"].split(", ")) == ["bars", "join"]
    assert run.figures["trades joined with quotes"] == run.figures["trades sent"] > 1000
    # Of four symbols nearly every minute has a trade; the last one of each is still open.
    assert run.figures["bars"] > 4 * (MINUTES - 1) - 20
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 40_000

    # What the killed join had written in its open transaction is in the topic, and was written again by the
    # one after it: without exactly-once it would be there twice.
    ids = {}
    for isolation in ("read_committed", "read_uncommitted"):
        messages = topics.read_all(broker.bootstrap, topics.QUOTED, **{"isolation.level": isolation})
        ids[isolation] = [message.key() for message in messages]
    committed, all_of_it = ids.values()
    assert len(committed) == len(set(committed)) == run.figures["trades sent"]
    assert set(all_of_it) == set(committed)
    assert len(all_of_it) > len(committed)

    for kind in ("spreads", "prints"):
        found, hidden = run.figures[f"hidden {kind} found"].split(" of ")
        assert found == hidden

    # The run has judged itself: see that it would have noticed a wrong bar and a trade that nobody read.
    wrong, late = (topics.decode(message) for message in topics.read_all(broker.bootstrap, topics.BARS)[:2])
    keys = [f"{bar['symbol']} {bar['start_ms']}" for bar in (wrong, late)]
    write(broker.bootstrap, topics.BARS, keys[0], {**wrong, "volume": wrong["volume"] + 1})
    trade = {"symbol": late["symbol"], "id": "late", "at_ms": late["start_ms"], "price": 0.01, "size": 1}
    write(broker.bootstrap, topics.TRADES, late["symbol"], trade)
    outputs = check.judge(broker.bootstrap).outputs
    assert set(outputs[topics.BARS].wrong) == set(keys)
    assert outputs[topics.BARS].changed == keys[:1]
    assert outputs[topics.BARS].missing == []
    assert outputs[topics.QUOTED].missing == ["late"]


def test_the_day_has_the_statistics_that_are_stated() -> None:
    """Bounds are four standard errors or more over these days; the days are always the same."""
    command = [python_of("market"), "-m", "examples.market.measure", "--days", "6"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True)
    found = json.loads(done.stdout)
    assert len(found) == 4
    for symbol, both in found.items():
        stated, measured = both["stated"], both["measured"]
        assert measured["trades a minute"] == pytest.approx(stated["trades a minute"], rel=0.03), symbol
        assert measured["dispersion"] == pytest.approx(1.0, abs=0.12), symbol
        # The U: twenty minutes at the open and at noon, 1.69 to 0.6.
        assert measured["open over noon"] == pytest.approx(2.8, abs=0.4), symbol
        assert measured["deviation"] == pytest.approx(stated["deviation"], rel=0.15), symbol
        # Bids are rounded down and asks up: half a cent each, on average.
        assert measured["spread"] == pytest.approx(stated["spread"] + 0.01 / stated["price"], rel=0.08), (
            symbol
        )
        assert measured["spread deviation"] == pytest.approx(stated["spread deviation"], rel=0.2), symbol
        assert measured["side repeats"] == pytest.approx(stated["side repeats"], abs=0.03), symbol
        assert measured["inside"] == pytest.approx(stated["inside"], abs=0.015), symbol
        assert measured["late"] == pytest.approx(stated["late"], abs=0.008), symbol
    for name in ("prints a day", "episodes a day"):
        mean = sum(both["measured"][name] for both in found.values()) / len(found)
        assert mean == pytest.approx(both["stated"][name], rel=0.4), name
    # Of normal steps one in 1.7 million is so far away: these are the jumps.
    assert sum(both["measured"]["beyond five deviations"] for both in found.values()) > 0


def test_an_alarm_is_one_episode_and_does_not_become_usual() -> None:
    state: rules.State = {}
    usual = [1.0 + 0.01 * (i % 5) for i in range(100)]
    alarms = [rules.unusual(state, value, i, 0.01) for i, value in enumerate(usual)]
    assert alarms == [None] * 100
    episode = [rules.unusual(state, 2.0, 100 + i, 0.01) for i in range(20)]
    assert [alarm is not None for alarm in episode] == [True] + [False] * 19
    assert episode[0] is not None
    assert episode[0]["at_ms"] == 100
    assert [rules.unusual(state, 1.02, 200 + i, 0.01) for i in range(rules.CALM_AFTER)] == [None] * 3
    assert rules.unusual(state, 2.0, 300, 0.01) is not None, "an episode had become usual"
    # What lasts is the new usual.
    lasting = [rules.unusual(state, 2.0, 400 + i, 0.01) for i in range(200)]
    assert lasting == [None] * 200
    assert rules.unusual(state, 1.0, 600, 0.01) is not None


def bar_at(minute: int, close: float, width: float = 0.2) -> dict[str, Any]:
    return {
        "symbol": "X",
        "start_ms": minute * rules.MINUTE_MS,
        "close": close,
        "high": close + width / 2,
        "low": close - width / 2,
    }


def test_a_signal_follows_a_crossing_and_the_risk_filter_holds_it_back() -> None:
    """Down, then up: one buy. Where that bar is a wild one the crossing is not followed; and a wild bar later
    ends the position."""
    path = [100 - 0.1 * i for i in range(40)] + [96 + 0.15 * i for i in range(40)]

    def signals(wild_minute: int) -> list[dict[str, Any]]:
        state: rules.State = {}
        widths = [0.2 if minute != wild_minute else 0.9 for minute in range(len(path))]
        bars = [bar_at(i, close, width) for i, (close, width) in enumerate(zip(path, widths, strict=True))]
        return [signal for bar in bars if (signal := rules.signal_of(state, bar)) is not None]

    (calm,) = signals(wild_minute=-1)
    assert (calm["action"], calm["held_back"]) == ("buy", None)
    minute = calm["at_ms"] // rules.MINUTE_MS - 1
    assert 40 < minute < 60
    (held_back,) = signals(wild_minute=minute)
    assert (held_back["action"], held_back["held_back"]) == ("buy", "range")
    assert [signal["action"] for signal in signals(wild_minute=minute + 5)] == ["buy", "flat"]


def test_a_new_day_begins_with_nothing() -> None:
    state: rules.State = {}
    for minute in range(60):
        rules.signal_of(state, bar_at(minute, 100 + 0.1 * minute))
    assert rules.signal_of(state, bar_at(24 * 60, 50.0)) is None
    assert (state["bars"], state["position"], state["fast"]) == (1, 0, 50.0)
