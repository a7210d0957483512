"""The command: makes the topics, starts the services, starts more of them when there is a rush, kills one in
the middle of its work, shows all of it, and counts at the end."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from examples.common.command import ROOT, finish, parser, require_broker, stop_event
from examples.common.processes import Processes
from examples.common.terminal import Screen, save_picture
from examples.messaging import topics, view
from examples.messaging.observer import Observer
from examples.messaging.scaling import Scaler

HERE = ROOT / "examples" / "messaging"
LOOK_S = 0.1
# How long the last orders may take to be mailed once no more come.
SETTLE_S = 45.0
BILLINGS_MAX = 3
FULFILMENTS_MAX = 3
BILLING_PARTITIONS = sum(topics.PARTITIONS[topic] for topic in (topics.ORDERS, *topics.RETRIES))


class Shop:
    """The services as processes, and what is done to them."""

    def __init__(self, bootstrap: str, run: str, directory: Path, processes: Processes, observer: Observer):
        self.killed: list[str] = []
        self.broken: list[str] = []
        self.orders_done = False
        self._bootstrap = bootstrap
        self._run = run
        self._directory = directory
        self._processes = processes
        self._observer = observer
        self._numbers: dict[str, int] = {}
        self._scalers = {
            "billing": (topics.BILLING, Scaler(BILLINGS_MAX)),
            "fulfilment": (topics.FULFILMENT, Scaler(FULFILMENTS_MAX)),
        }

    def open(self, orders: int | None) -> None:
        """Start one of each service, and the one that takes the orders."""
        for service in ("billing", "fulfilment", "notifications"):
            self._start_one(service)
        command = [sys.executable, "-m", "examples.messaging.orders", "--bootstrap", self._bootstrap]
        command += ["--run", self._run, "--report", str(self._report)]
        if orders is not None:
            command += ["--orders", str(orders)]
        self._processes.start("orders", command)

    @property
    def _report(self) -> Path:
        return self._directory / "orders.json"

    def taken(self) -> dict[str, Any]:
        """What the order service says it did, once it has ended."""
        try:
            return dict(json.loads(self._report.read_text()))
        except FileNotFoundError:
            # It was stopped before it could begin.
            return {"placed": [], "unreadable": [], "refused": [], "asked": 0, "answered": 0}

    def instances(self, service: str) -> list[str]:
        """The processes of one service, oldest first."""
        return [name for name in self._processes.running if name.startswith(f"{service}-")]

    def _start_one(self, service: str) -> str:
        number = self._numbers[service] = self._numbers.get(service, 0) + 1
        name = f"{service}-{number}"
        options = ["--bootstrap", self._bootstrap, "--name", name]
        if service == "billing":
            ledger = str(self._directory / "ledger.db")
            command = [sys.executable, "-m", "examples.messaging.billing", *options, "--ledger", ledger]
        else:
            command = ["node", str(HERE / f"{service}.mjs"), *options, "--directory", str(self._directory)]
        self._processes.start(name, command)
        return name

    def close(self) -> None:
        """No more orders."""
        if "orders" in self._processes.running:
            self._processes.stop("orders")
            self.orders_done = True

    def tend(self) -> None:
        """Notice what has ended, and start or stop instances as the lag of their groups asks for."""
        for name, code in self._processes.fallen().items():
            if name == "orders" and code == 0:
                self.orders_done = True
                self._observer.note("no more orders")
            else:
                self.broken.append(name)
                self._observer.note(f"{name} ended with {code}: see {self._processes.log(name)}")
        for service, (group, scaler) in self._scalers.items():
            running = self.instances(service)
            lag = self._observer.groups[group].lag
            change = scaler.decide(self._observer.elapsed_s, lag, len(running))
            if change > 0:
                self._observer.note(f"{group} is {lag} behind: starting {self._start_one(service)}")
            elif change < 0:
                self._observer.note(f"{group} has little to do: stopping {running[-1]}")
                self._processes.stop(running[-1])

    def kill_one(self) -> None:
        """Once, as soon as there are two: kill -9 for the member of billing that has been there longest."""
        members = self._observer.groups[topics.BILLING].members
        if self.killed or len(members) < 2:
            return
        # In a cooperative rebalance a partition is nobody's for a moment: not then, or nothing would go on.
        owned = sum(len(partitions) for share in members.values() for partitions in share.values())
        if owned < BILLING_PARTITIONS or not all(members.values()):
            return
        victim = self.instances("billing")[0]
        self._processes.kill(victim)
        self.killed.append(victim)
        self._observer.note(f"kill -9 {victim}: its partitions wait for the end of its session, 6 s")

    @property
    def small(self) -> bool:
        """Whether the groups are back to one member each, in the broker's eyes as well."""
        return all(
            len(self.instances(service)) == 1 == len(self._observer.groups[group].members)
            for service, (group, _) in self._scalers.items()
        )


def run_shop(
    arguments: argparse.Namespace, shop: Shop, observer: Observer, stop: threading.Event
) -> Observer:
    """The run itself, from the first order to the last mail."""
    saying = "orders come in"
    settle_until: float | None = None
    with Screen(lambda: view.draw(observer, saying), lambda: view.line(observer, saying)) as screen:
        while True:
            observer.look(LOOK_S)
            shop.tend()
            if arguments.kill:
                shop.kill_one()
            over = stop.is_set() or (arguments.seconds and observer.elapsed_s > arguments.seconds)
            if over and not shop.orders_done:
                shop.close()
            if shop.orders_done:
                saying = "no more orders: what is under way is finished"
                settle_until = settle_until or time.monotonic() + SETTLE_S
                complete = observer.settled(shop.taken()) and (shop.small or arguments.orders is None)
                if complete or shop.broken or time.monotonic() > settle_until:
                    screen.update()
                    return observer
            take_picture(
                arguments, observer, saying, len(observer.groups[topics.BILLING].members) == BILLINGS_MAX
            )
            screen.update()


def take_picture(arguments: argparse.Namespace, observer: Observer, saying: str, now: bool) -> None:
    """Save one picture of the view, when there is the most to see."""
    if arguments.picture and now:
        save_picture(view.draw(observer, saying), arguments.picture, "make example-messaging")
        arguments.picture = None


def charges(ledger: Path) -> list[str]:
    """The orders that were charged; none where billing was stopped before it had made its ledger."""
    with contextlib.closing(sqlite3.connect(ledger)) as tables:
        if not tables.execute("SELECT 1 FROM sqlite_master WHERE name = 'charges'").fetchone():
            return []
        return [order for (order,) in tables.execute('SELECT "order" FROM charges')]


def judge(arguments: argparse.Namespace, shop: Shop, observer: Observer, directory: Path) -> int:
    """Count the effects themselves, not what was said of them, and compare with the orders taken."""
    taken = shop.taken()
    charged = charges(directory / "ledger.db")
    parcels = {path.stem for path in (directory / "parcels").glob("*.txt")}
    mails = {path.stem for path in (directory / "outbox").glob("*.eml")}
    poison = set(taken["unreadable"]) | set(taken["refused"])
    wanted = set(taken["placed"]) - poison
    of_run = {order for order in charged if order.startswith(arguments.run)}
    figures = {
        "orders placed": len(taken["placed"]) + len(taken["unreadable"]),
        "charged": len(of_run),
        "parcels": len([order for order in parcels if order.startswith(arguments.run)]),
        "mails": len([order for order in mails if order.startswith(arguments.run)]),
        "retried": sum(observer.retried.values()),
        "dead letters": len(observer.dead),
        "events that came twice": sum(observer.again(topic) for topic in observer.seen),
        "questions asked": taken["asked"],
        "questions answered": taken["answered"],
        "answers after, ms": f"{observer.answer_ms_at(0.5)} (99 %: {observer.answer_ms_at(0.99)})",
        "most members of billing": observer.members_max[topics.BILLING],
        "most members of fulfilment": observer.members_max[topics.FULFILMENT],
        "rebalances": sum(observer.rebalances.values()),
        "killed": ", ".join(shop.killed) or "nobody",
        "seconds": round(observer.elapsed_s, 1),
    }
    promises = {
        "every order that can be charged was charged, once": of_run == wanted
        and len(charged) == len(set(charged)),
        "every charged order was packed, once": {p for p in parcels if p.startswith(arguments.run)} == wanted,
        "every parcel was announced by mail, once": {m for m in mails if m.startswith(arguments.run)}
        == wanted,
        "every order that nobody can do is a dead letter": set(observer.dead) == poison,
        "every question has its own answer": taken["asked"] == taken["answered"] and observer.answered(),
        "no service broke down": not shop.broken,
    }
    return finish("messaging", figures, promises, arguments.summary)


def main() -> int:
    options = parser("messaging", "A shop of services that talk by topics: README.md says what to look at.")
    options.add_argument("--orders", type=int, metavar="N", help="end by itself after so many orders")
    options.add_argument("--no-kill", dest="kill", action="store_false", help="kill nobody")
    options.add_argument(
        "--directory", type=Path, help="keep logs and effects there (default: a temporary one)"
    )
    arguments = options.parse_args()
    require_broker(arguments.bootstrap)
    stop = stop_event()
    # Orders are named after their run: those of an earlier one may still lie in the topics.
    arguments.run = f"o{time.time_ns() // 1_000_000 % 10**9:09}"
    directory = arguments.directory or Path(tempfile.mkdtemp(prefix="ottla-messaging-"))
    directory.mkdir(parents=True, exist_ok=True)
    topics.create(arguments.bootstrap)
    observer = Observer(arguments.bootstrap, arguments.run)
    with contextlib.closing(observer), Processes(directory / "logs") as processes:
        shop = Shop(arguments.bootstrap, arguments.run, directory, processes, observer)
        shop.open(arguments.orders)
        run_shop(arguments, shop, observer, stop)
        take_picture(arguments, observer, "done", True)
        processes.stop()
        shop.broken += [
            name for name, code in processes.ended.items() if code > 0 and name not in shop.broken
        ]
        for name in shop.broken:
            print(f"--- {name} ended with {processes.ended[name]}:\n{processes.tail(name)}")
        code = judge(arguments, shop, observer, directory)
    if arguments.directory is None and code == 0:
        shutil.rmtree(directory)
    else:
        print(f"  logs, parcels, mails and the ledger are in {directory}")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
