"""The command: makes the topics, starts the feed and the two stream processors, kills both of these in the
middle (one loses its disk as well), shows what they write, and does everything over at the end."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from examples.common.command import ROOT, finish, parser, require_broker, stop_event
from examples.common.processes import Processes
from examples.common.terminal import Screen
from examples.market import chart, topics, view
from examples.market.check import Verdict, judge
from examples.market.observer import Observer

LOOK_S = 0.1
# How long the streams may take to finish what is there once no more comes.
SETTLE_S = 60.0
LAG_EVERY_S = 0.5
CHART_EVERY_S = 10.0
# Kills: after how many bars or joined trades, and how long until the processor is started again.
KILL_BARS_AFTER = 60
KILL_JOIN_AFTER = 300
DEAD_S = 1.0


class Market:
    """The processes, and what is done to them."""

    def __init__(self, arguments: argparse.Namespace, directory: Path, processes: Processes) -> None:
        self.kills: list[str] = []
        self.broken: list[str] = []
        self.feed_done = False
        self._bootstrap = arguments.bootstrap
        self._directory = directory
        self._processes = processes
        self._restart_at: dict[str, float] = {}
        levels = ("read_committed", "read_uncommitted")
        self._readers = [topics.reader(self._bootstrap, **{"isolation.level": level}) for level in levels]
        feed = ["--report", str(self._report), "--speed", str(arguments.speed)]
        if arguments.minutes:
            feed += ["--minutes", str(arguments.minutes)]
        self._start("bars")
        self._start("join")
        processes.start("feed", self._command("replay", *feed))

    @property
    def _report(self) -> Path:
        return self._directory / "feed.json"

    def sent(self) -> dict[str, int]:
        """How many quotes and trades the feed sent; it has to have ended."""
        return dict(json.loads(self._report.read_text())["sent"])

    def _command(self, module: str, *options: str) -> list[str]:
        return [sys.executable, "-m", f"examples.market.{module}", "--bootstrap", self._bootstrap, *options]

    def _state(self, name: str) -> Path:
        return self._directory / f"state-{name}"

    def _start(self, name: str) -> None:
        self._processes.start(name, self._command(name, "--state", str(self._state(name))))

    def joins(self) -> bool:
        """Whether the join has written something in a transaction that is open, which a kill leaves so."""
        committed, written = (topics.ends(reader, (topics.QUOTED,)) for reader in self._readers)
        return written != committed

    def kill(self, name: str, lose_state: bool) -> str:
        """kill -9 for a stream processor, which is started again after a second; what was done, in words."""
        self._processes.kill(name)
        # Where it was just committed nothing has to be undone: it is killed once more.
        if name != "join" or self.joins():
            self.kills.append(name)
        if lose_state:
            shutil.rmtree(self._state(name))
        self._restart_at[name] = time.monotonic() + DEAD_S
        return f"kill -9 {name}" + (
            ", and its disk is lost: the changelog topics have its state" if lose_state else ""
        )

    def tend(self, note: Callable[[str, str], None]) -> None:
        """Start again what was killed; notice what has ended."""
        for name, at in list(self._restart_at.items()):
            if time.monotonic() >= at:
                del self._restart_at[name]
                self._start(name)
                note(f"{name} is started again", "bold magenta")
        for name, code in self._processes.fallen().items():
            if name == "feed" and code == 0:
                self.feed_done = True
            else:
                self.broken.append(name)
                note(f"{name} ended with {code}: see {self._processes.log(name)}", "bold red")

    def close_feed(self) -> None:
        """No more quotes and trades."""
        if "feed" in self._processes.running:
            self._processes.stop("feed")
        self.feed_done = True

    @property
    def whole(self) -> bool:
        """Whether all of it runs."""
        return not self._restart_at and not self.broken


def run_market(
    arguments: argparse.Namespace, market: Market, observer: Observer, stop: threading.Event
) -> None:
    """The run itself, until the streams have done all that the feed sent."""
    saying, lag_at, settle_until, chart_at = "the streams start", 0.0, 0.0, CHART_EVERY_S
    with Screen(lambda: view.draw(observer, saying), lambda: view.line(observer, saying)) as screen:
        while True:
            observer.look(LOOK_S)
            market.tend(observer.note)
            bars, joined = observer.counts[topics.BARS], observer.counts[topics.QUOTED]
            if observer.latest_ms and not market.feed_done:
                saying = "quotes and trades come in"
            due = {"bars": bars >= KILL_BARS_AFTER, "join": joined >= KILL_JOIN_AFTER}
            for name in due:
                if not arguments.kill or name in market.kills or not due[name] or not market.whole:
                    continue
                if name != "join" or market.joins():
                    observer.note(market.kill(name, lose_state=name == "bars"), "bold magenta")
            if stop.is_set() or (arguments.seconds and observer.elapsed_s > arguments.seconds):
                market.close_feed()
            if arguments.picture and observer.elapsed_s > chart_at and not market.feed_done:
                chart_at = observer.elapsed_s + CHART_EVERY_S
                chart.draw(observer, arguments.picture)
            screen.update()
            if market.broken:
                return
            if market.feed_done and time.monotonic() > lag_at:
                saying = "no more comes: what is there is finished"
                lag_at = time.monotonic() + LAG_EVERY_S
                settle_until = settle_until or time.monotonic() + SETTLE_S
                done = market.whole and not any(observer.lags().values())
                if done or time.monotonic() > settle_until:
                    while observer.look(2 * LOOK_S):
                        pass
                    screen.update()
                    return


def report(arguments: argparse.Namespace, market: Market, observer: Observer, verdict: Verdict) -> int:
    """The summary: what was counted, and what was promised."""
    lost = {topic: len(one.missing) for topic, one in verdict.outputs.items()}
    bars, quoted = verdict.outputs[topics.BARS], verdict.outputs[topics.QUOTED]
    sent = market.sent()
    figures = {
        "quotes sent": sent["quote"],
        "trades sent": sent["trade"],
        "trades joined with quotes": observer.counts[topics.QUOTED],
        "bars": observer.counts[topics.BARS],
        "alarms": observer.counts[topics.ALARMS],
        "signals": observer.counts[topics.SIGNALS],
        "hidden spreads found": f"{verdict.found['spread']} of {verdict.hidden['spread']}",
        "hidden prints found": f"{verdict.found['print']} of {verdict.hidden['print']}",
        "false alarms": sum(verdict.false_alarms.values()),
        "killed": ", ".join(market.kills) or "nobody",
        "seconds": round(observer.elapsed_s, 1),
    }
    promises = {
        "no bar is missing or wrong: done over from all trades, they are the same": bars.right,
        "every trade has the latest quote that is no later": quoted.right,
        "every alarm and signal is the one that follows from the input": verdict.outputs[topics.ALARMS].right
        and verdict.outputs[topics.SIGNALS].right,
        "nothing is lost": not any(lost.values()),
        "nothing is written twice, though processors are killed": not any(
            one.again for one in verdict.outputs.values()
        ),
        "no process broke down": not market.broken,
    }
    for topic, one in verdict.outputs.items():
        for key in (*one.missing[:3], *one.wrong[:3], *one.changed[:3]):
            print(f"  {topic}: {key}")
    return finish("market", figures, promises, arguments.summary)


def main() -> int:
    options = parser("market", "A trading day as streams: README.md says what to look at.")
    options.add_argument("--speed", type=float, default=300.0, help="times as fast as it was (default: 300)")
    options.add_argument("--minutes", type=float, metavar="M", help="end by itself after M minutes of market")
    options.add_argument("--no-kill", dest="kill", action="store_false", help="kill nobody")
    options.add_argument(
        "--directory", type=Path, help="keep logs and state there (default: a temporary one)"
    )
    options.set_defaults(picture=ROOT / "build" / "pictures" / "market.png")
    arguments = options.parse_args()
    require_broker(arguments.bootstrap)
    stop = stop_event()
    directory = arguments.directory or Path(tempfile.mkdtemp(prefix="ottla-market-"))
    directory.mkdir(parents=True, exist_ok=True)
    topics.create(arguments.bootstrap)
    observer = Observer(arguments.bootstrap)
    with contextlib.closing(observer), Processes(directory / "logs") as processes:
        market = Market(arguments, directory, processes)
        run_market(arguments, market, observer, stop)
        market.close_feed()
        processes.stop()
        market.broken += [n for n, code in processes.ended.items() if code > 0 and n not in market.broken]
        for name in market.broken:
            print(f"--- {name} ended with {processes.ended[name]}:\n{processes.tail(name)}")
        chart.draw(observer, arguments.picture)
        code = report(arguments, market, observer, judge(arguments.bootstrap))
    print(f"  the chart is {arguments.picture}")
    if arguments.directory is None and code == 0:
        shutil.rmtree(directory)
    else:
        print(f"  logs and state are in {directory}")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
