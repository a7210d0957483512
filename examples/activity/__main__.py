"""The command: starts the shop's collector, the live counts and some visitors, shows where to look, and
compares at the end what the visitors did with what the topic has and the page counted."""

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
from collections import Counter
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from examples.activity import topics, view
from examples.common.command import finish, parser, require_broker, stop_event
from examples.common.processes import Processes
from examples.common.terminal import Screen
from examples.common.web import free_port

SHOP_PORT = 8080
DASHBOARD_PORT = 8081
VISITORS = 3
START_S = 60.0
ASK_TIMEOUT_S = 20.0
# How long the last steps may take to be in the topic, and counted, once the visitors are gone.
SETTLE_S = 20.0


class Site:
    """The processes, and where they can be reached."""

    def __init__(self, arguments: argparse.Namespace, directory: Path, processes: Processes) -> None:
        self.broken: list[str] = []
        self.shop = self.dashboard = ""
        self._arguments = arguments
        self._directory = directory
        self._processes = processes

    def open(self) -> None:
        """Start the web servers, then the visitors."""
        ports = {
            "collector": (self._arguments.port, SHOP_PORT),
            "dashboard": (self._arguments.dashboard_port, DASHBOARD_PORT),
        }
        for name, (port, usual) in ports.items():
            # Nobody asked for the usual port: if it is taken, another will do.
            listen = f"127.0.0.1:{free_port(usual) if port is None else port}"
            options = ["--bootstrap", self._arguments.bootstrap, "--listen", listen]
            options += ["--ready", str(self._directory / f"{name}.url")]
            if name == "collector":
                options += ["--report", str(self._directory / "collector.json")]
            self._processes.start(name, [sys.executable, "-m", f"examples.activity.{name}", *options])
        self.shop = self._url_of("collector")
        self.dashboard = self._url_of("dashboard")
        if self._arguments.visitors:
            options = ["--shop", self.shop, "--dashboard", self.dashboard]
            options += ["--visitors", str(self._arguments.visitors), "--seed", str(self._arguments.seed)]
            options += ["--report", str(self._directory / "visitors.json")]
            if self._arguments.picture:
                options += ["--picture", str(self._arguments.picture.absolute())]
            self._processes.start("visitors", [sys.executable, "-m", "examples.activity.visitors", *options])

    def _url_of(self, name: str) -> str:
        ready = self._directory / f"{name}.url"
        deadline = time.monotonic() + START_S
        while not ready.exists():
            if name in self._processes.fallen() or time.monotonic() > deadline:
                raise SystemExit(f"{name} did not start:\n{self._processes.tail(name)}")
            time.sleep(0.02)
        return ready.read_text()

    def tend(self) -> None:
        """Notice what fell by itself."""
        self.broken += self._processes.fallen()

    def counts(self) -> dict[str, Any]:
        """What the dashboard has counted, as anybody can ask it."""
        try:
            with urllib.request.urlopen(f"{self.dashboard}/counts", timeout=ASK_TIMEOUT_S) as answer:
                return dict(json.load(answer))
        except OSError:
            return {}

    def visits(self) -> dict[str, Any]:
        """Once they are gone: what the visitors did."""
        if "visitors" in self._processes.running:
            self._processes.stop("visitors", timeout_s=60)
        report = self._directory / "visitors.json"
        if report.exists():
            return dict(json.loads(report.read_text()))
        return {"agreed": {}, "declined": 0, "leftovers": []}

    def close(self) -> dict[str, Any]:
        """Stop all; what the collector says at its end."""
        self._processes.stop(timeout_s=30)
        self.broken += [name for name, code in self._processes.ended.items() if code > 0]
        report = self._directory / "collector.json"
        return dict(json.loads(report.read_text())) if report.exists() else {"accepted": 0, "lost": -1}


class Reader:
    """Reads the topic from where it ended when the run began."""

    def __init__(self, bootstrap: str) -> None:
        # By session and id: what it was. An event that came twice is once in it.
        self.events: dict[tuple[str, str], dict[str, Any]] = {}
        self.read = 0
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "activity.reader", "enable.auto.commit": False}
        )
        partitions = [TopicPartition(topics.TOPIC, p) for p in range(topics.PARTITIONS)]
        for partition in partitions:
            partition.offset = self._consumer.get_watermark_offsets(partition, ASK_TIMEOUT_S)[1]
        self._consumer.assign(partitions)

    def look(self, wait_s: float) -> None:
        for message in self._consumer.consume(1000, wait_s):
            if error := message.error():
                raise KafkaException(error)
            self.read += 1
            if event := topics.from_record(message.value()):
                self.events[event["session"], event["id"]] = event

    def deeds(self) -> dict[str, Counter[str]]:
        """What each session did, by kind."""
        deeds: dict[str, Counter[str]] = {}
        for event in self.events.values():
            deeds.setdefault(event["session"], Counter())[event["type"]] += 1
        return deeds

    def totals(self) -> Counter[str]:
        totals = Counter(event["type"] for event in self.events.values())
        totals["order"] = sum(topics.stage_of(event) == "order" for event in self.events.values())
        return totals

    def close(self) -> None:
        self._consumer.close()


def counted(now: dict[str, Any], before: dict[str, Any]) -> Counter[str]:
    """What the dashboard counted since `before`."""
    return +(Counter(now.get("totals", {})) - Counter(before.get("totals", {})))


def run(
    arguments: argparse.Namespace, site: Site, reader: Reader, stop: threading.Event
) -> tuple[dict[str, Any], bool]:
    """The run itself; what the visitors did, and whether the page counted just what is in the topic."""
    began_at = time.monotonic()
    saying = "visitors look around" if arguments.visitors else "waiting for a visitor: you"
    counts = before = site.counts()

    def elapsed_s() -> float:
        return time.monotonic() - began_at

    with Screen(
        lambda: view.draw(site.shop, site.dashboard, counts, elapsed_s(), saying),
        lambda: view.line(counts, elapsed_s(), saying),
    ) as screen:
        if not sys.stdout.isatty():
            print(f"the shop: {site.shop}   live counts: {site.dashboard}", flush=True)
        while not (stop.is_set() or site.broken or (arguments.seconds and elapsed_s() > arguments.seconds)):
            reader.look(0.25)
            site.tend()
            counts = site.counts() or counts
            screen.update()
        saying = "the visitors leave"
        screen.update()
        visits = site.visits()
        wanted = {session: Counter(deeds) for session, deeds in visits["agreed"].items()}
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            reader.look(0.1)
            counts = site.counts() or counts
            screen.update()
            same = counted(counts, before) == +reader.totals()
            if same and all(reader.deeds().get(s) == deeds for s, deeds in wanted.items()):
                break
    return visits, same


def judge(
    arguments: argparse.Namespace,
    site: Site,
    reader: Reader,
    visits: dict[str, Any],
    same: bool,
) -> int:
    """Compare what was done, what is in the topic and what was counted."""
    last = site.close()
    reader.look(0.5)
    wanted = {session: Counter(deeds) for session, deeds in visits["agreed"].items()}
    deeds = reader.deeds()
    others = [session for session in deeds if session not in wanted]
    for session, steps in wanted.items():
        if deeds.get(session) != steps:
            print(f"{session}: did {dict(steps)}, and the topic has {dict(deeds.get(session, {}))}")
    figures = {
        "visitors who agreed": len(wanted),
        "visitors who declined": visits["declined"],
        "other sessions": len(others),
        **dict(sorted(reader.totals().items())),
        "events in the topic": len(reader.events),
        "came twice": reader.read - len(reader.events),
        "answers of the collector": last.get("answered", {}),
    }
    promises = {
        "every step of those who agreed is in the topic, once": all(
            deeds.get(session) == steps for session, steps in wanted.items()
        ),
        "those who declined left no cookie, and sent nothing": not visits["leftovers"],
        "the page counted what is in the topic": same,
        "what the collector accepted is in the topic": last["accepted"] <= reader.read and not last["lost"],
        "nothing broke down": not site.broken,
    }
    return finish("activity", figures, promises, arguments.summary)


def main() -> int:
    options = parser(
        "activity", "A shop whose visitors' steps are counted live: README.md says what to look at."
    )
    options.add_argument("--port", type=int, help=f"of the shop (default: {SHOP_PORT}, if it is free)")
    options.add_argument(
        "--dashboard-port", type=int, help=f"of the live counts (default: {DASHBOARD_PORT}, if it is free)"
    )
    options.add_argument(
        "--visitors", type=int, default=VISITORS, help=f"how many at once (default: {VISITORS}; 0: only you)"
    )
    options.add_argument(
        "--seed", type=int, default=time.time_ns() % 2**32, help="of what the visitors choose"
    )
    arguments = options.parse_args()
    require_broker(arguments.bootstrap)
    stop = stop_event()
    topics.create(arguments.bootstrap)
    directory = Path(tempfile.mkdtemp(prefix="ottla-activity-"))
    with contextlib.closing(Reader(arguments.bootstrap)) as reader, Processes(directory) as processes:
        site = Site(arguments, directory, processes)
        site.open()
        visits, same = run(arguments, site, reader, stop)
        code = judge(arguments, site, reader, visits, same)
        for name in dict.fromkeys(site.broken):
            print(f"--- {name} ended with {processes.ended[name]}:\n{processes.tail(name)}")
    if code == 0:
        shutil.rmtree(directory)
    else:
        print(f"  what the processes said is in {directory}")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
