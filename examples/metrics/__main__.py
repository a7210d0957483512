"""The command: starts the agents, the application that they measure, the detector, the notifier, the page;
makes a burst of jobs, kills the detector in the middle of the incident, and counts messages at the end."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter, deque
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from examples.common.command import finish, parser, require_broker, stop_event
from examples.common.processes import Processes
from examples.common.terminal import Screen, save_picture
from examples.common.web import free_port
from examples.metrics import collectd, store, topics, view
from examples.metrics.incidents import WATCHES

PORT = 8082
INTERVAL_S = 0.5
START_S = 60.0
ASK_TIMEOUT_S = 20.0
# How long the burst may take to be noticed, worked off and told of, once the time is up.
SETTLE_S = 60.0
# Between knowing what is usual and the burst: so that one sees it.
CALM_S = 2.0
BURST_SERIES = "filecount-spool/files"


class Watching:
    """The processes, and what is done to them."""

    def __init__(self, arguments: argparse.Namespace, directory: Path, processes: Processes) -> None:
        self.broken: list[str] = []
        self.killed: list[str] = []
        self.url = ""
        self.events: deque[str] = deque(maxlen=100)
        self._arguments = arguments
        self._directory = directory
        self._processes = processes
        self._ready_at: float | None = None
        self.burst = False

    def start(self) -> None:
        """Who is asked before those who ask; the page is the webhook as well."""
        arguments, directory = self._arguments, self._directory
        (directory / "spool").mkdir()
        ready = directory / "page.url"
        port = free_port(PORT) if arguments.port is None else arguments.port
        watches = ["--watches", str(arguments.watches)]
        listen = ["--listen", f"127.0.0.1:{port}", "--ready", str(ready), "--directory", str(directory)]
        self._start("page", *listen, *watches)
        self._start_detector()
        self._start("spool", "--directory", str(directory), broker=False)
        worker = ["--worker", str(directory / "worker.pid")]
        self._start("sampler", "--interval", str(arguments.interval), *worker)
        command = collectd.command(arguments.bootstrap, directory, arguments.interval)
        self._processes.start("collectd", command)
        deadline = time.monotonic() + START_S
        while not ready.exists():
            if "page" in self._processes.fallen() or time.monotonic() > deadline:
                raise SystemExit(f"the page did not start:\n{self._processes.tail('page')}")
            time.sleep(0.02)
        self.url = ready.read_text()
        self._start("notifier", "--webhook", arguments.webhook or f"{self.url}/webhook")

    def _start(self, name: str, *options: str, broker: bool = True) -> None:
        bootstrap = ["--bootstrap", self._arguments.bootstrap] if broker else []
        command = [sys.executable, "-m", f"examples.metrics.{name}", *bootstrap, *options]
        self._processes.start(name, command)

    def _start_detector(self) -> None:
        options = ["--store", str(self._directory / "detector.db"), "--watches", str(self._arguments.watches)]
        self._start("detector", *options)

    def tend(self, state: dict[str, Any], now_s: float) -> None:
        """Notice what fell; make the burst once it can be told from what is usual."""
        self.broken += self._processes.fallen()
        jobs = [s for s in state.get("series", ()) if s["series"] == BURST_SERIES]
        if not self.burst and self._arguments.burst and jobs and jobs[0]["ready"]:
            self._ready_at = self._ready_at or now_s
            if now_s - self._ready_at > CALM_S:
                self.burst = True
                (self._directory / "burst").touch()
                self.events.append("a burst of jobs comes")

    def kill_detector(self) -> None:
        """In the middle of the incident, once: another one has to go on where this one was."""
        if not self._arguments.kill or self.killed:
            return
        self._processes.kill("detector")
        self.killed.append("detector")
        self._start_detector()
        self.events.append("kill -9 detector, and started again")

    def ask(self, path: str) -> dict[str, Any]:
        """What the page answers; nothing if it does not."""
        try:
            with urllib.request.urlopen(f"{self.url}/{path}", timeout=ASK_TIMEOUT_S) as answer:
                return dict(json.load(answer))
        except OSError:
            return {}

    def close(self) -> dict[str, int]:
        """Stop those who measure first, then the rest; what the detector took up."""
        for names in (("collectd", "sampler", "spool"), ("notifier", "detector"), ("page",)):
            self._processes.stop(*(name for name in names if name in self._processes.running))
        self.broken += [name for name, code in self._processes.ended.items() if code > 0]
        return store.summary(self._directory / "detector.db")


class Alerts:
    """Reads the alerts from where they ended when the run began."""

    def __init__(self, bootstrap: str) -> None:
        self.messages: list[dict[str, Any]] = []
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "metrics.reader", "enable.auto.commit": False}
        )
        partition = TopicPartition(topics.ALERTS, 0)
        partition.offset = self._consumer.get_watermark_offsets(partition, ASK_TIMEOUT_S)[1]
        self._consumer.assign([partition])

    def look(self, wait_s: float) -> list[dict[str, Any]]:
        """What is new."""
        new = []
        for message in self._consumer.consume(100, wait_s):
            if error := message.error():
                raise KafkaException(error)
            if alert := topics.decode(message.value()):
                new.append(alert)
        self.messages += new
        return new

    def of(self, series: str) -> Counter[str]:
        """How many messages of each state a series had."""
        return Counter(m["state"] for m in self.messages if m["series"] == series)

    def keys(self) -> list[str]:
        return [f"{m['incident']}/{m['state']}" for m in self.messages]

    def close(self) -> None:
        self._consumer.close()


def told(alert: dict[str, Any]) -> str:
    """An alert in a line."""
    value = f"{alert['value']:.0f}" if abs(alert["value"]) >= 1000 else f"{alert['value']:.4g}"
    return f"{alert['state']}: {alert['title']}, {value} {alert['unit']} ({', '.join(alert['reasons'])})"


def run(
    arguments: argparse.Namespace, watching: Watching, alerts: Alerts, stop: threading.Event
) -> dict[str, Any]:
    """The run itself, until the time is up and the incident is over; what the webhook heard."""
    began_at = time.monotonic()
    saying = "learning what is usual"
    state: dict[str, Any] = {}
    heard: dict[str, Any] = {}
    settle_until: float | None = None

    def elapsed_s() -> float:
        return time.monotonic() - began_at

    with Screen(
        lambda: view.draw(watching.url, state, watching.events, elapsed_s(), saying),
        lambda: view.line(state, elapsed_s(), saying),
    ) as screen:
        if not sys.stdout.isatty():
            print(f"the plot: {watching.url}", flush=True)
        while not watching.broken:
            for alert in alerts.look(0.2):
                watching.events.append(told(alert))
                if not sys.stdout.isatty():
                    print(told(alert), flush=True)
                if alert["series"] == BURST_SERIES and alert["state"] == "firing":
                    watching.kill_detector()
            state = watching.ask("state") or state
            watching.tend(state, elapsed_s())
            if watching.burst:
                saying = "watching; the button on the page makes another burst"
            screen.update()
            if stop.is_set() or (arguments.seconds and elapsed_s() > arguments.seconds):
                settle_until = settle_until or elapsed_s() + SETTLE_S
                heard = watching.ask("webhook")
                of = alerts.of(BURST_SERIES)
                calm = of["firing"] == of["resolved"] >= (arguments.burst and not stop.is_set())
                if (calm and set(alerts.keys()) <= set(heard.get("taken", ()))) or elapsed_s() > settle_until:
                    break
                saying = "waiting for the end of the incident"
        if arguments.picture:
            save_picture(screen._draw(), arguments.picture, "make example-metrics")
    return heard


def judge(
    arguments: argparse.Namespace,
    watching: Watching,
    alerts: Alerts,
    heard: dict[str, Any],
) -> int:
    """Count the messages, and compare what was sent with what was heard."""
    taken = watching.close()
    alerts.look(0.5)
    of = alerts.of(BURST_SERIES)
    keys = alerts.keys()
    opened = {m["incident"] for m in alerts.messages if m["state"] == "firing"}
    figures = {
        "messages of the agents": taken["taken"],
        "alerts of the burst": of["firing"],
        "messages that it is over": of["resolved"],
        "other alerts": len(opened) - of["firing"],
        "heard by the webhook": len(set(keys) & set(heard.get("taken", ()))),
        "told it again": heard.get("again", 0),
        "killed": ", ".join(watching.killed) or "nobody",
    }
    promises = {
        "no incident was told of twice": len(keys) == len(set(keys)),
        "what is over had begun": {m["incident"] for m in alerts.messages} == opened,
        "the detector took up each message once": taken["taken"] == taken["span"] > 0,
        "nothing broke down": not watching.broken,
    }
    if watching.burst:
        promises["the burst was one alert, and one message when it was over"] = (
            of["firing"] == of["resolved"] == 1
        )
    if not arguments.webhook:
        promises["the webhook heard of each"] = set(keys) <= set(heard.get("taken", ()))
    return finish("metrics", figures, promises, arguments.summary)


def main() -> int:
    options = parser("metrics", "Host metrics, watched: README.md says what to look at.")
    options.add_argument("--port", type=int, help=f"of the page (default: {PORT}, if it is free)")
    options.add_argument(
        "--interval", type=float, default=INTERVAL_S, help=f"seconds between samples (default: {INTERVAL_S})"
    )
    options.add_argument("--watches", type=Path, default=WATCHES, help="what is watched (watches.toml)")
    options.add_argument("--webhook", metavar="URL", help="tell this one, not the page's own")
    options.add_argument(
        "--no-burst", dest="burst", action="store_false", help="make none; the page has a button"
    )
    options.add_argument("--no-kill", dest="kill", action="store_false", help="kill nobody")
    arguments = options.parse_args()
    require_broker(arguments.bootstrap)
    stop = stop_event()
    topics.create(arguments.bootstrap)
    directory = Path(tempfile.mkdtemp(prefix="ottla-metrics-"))
    with (
        contextlib.closing(Alerts(arguments.bootstrap)) as alerts,
        Processes(directory / "logs") as processes,
    ):
        watching = Watching(arguments, directory, processes)
        watching.start()
        heard = run(arguments, watching, alerts, stop)
        code = judge(arguments, watching, alerts, heard)
        for name in dict.fromkeys(watching.broken):
            print(f"--- {name} ended with {processes.ended[name]}:\n{processes.tail(name)}")
    if code == 0:
        shutil.rmtree(directory)
    else:
        print(f"  what the processes said is in {directory}")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
