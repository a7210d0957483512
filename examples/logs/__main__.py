"""The command: gathers logs, shows them, kills now and then what keeps them, and counts at the end; or it
searches and queries what was gathered."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from confluent_kafka import Consumer

from examples.common.command import ROOT, finish, parser, require_broker, stop_event
from examples.common.processes import Processes
from examples.common.terminal import Screen, save_picture
from examples.logs import applications, query, rsyslog, search, topics, view
from examples.logs.observer import Observer
from examples.logs.sink import folder_of

HERE = ROOT / "examples" / "logs"
DIRECTORY = ROOT / "build" / "examples" / "logs-data"
LOOK_S = 0.1
START_S = 20.0
# How long the last lines may take to arrive, and to be in the files and states, once no more are written.
SETTLE_S = 30.0
# When something is killed, in seconds; and then what it is.
KILLS = ((7.0, "sink"), (8.0, "status"), (9.5, "sink"), (18.0, "sink"), (30.0, "status"))
NUMBER = re.compile(r"#(\d+) ")


class Gathering:
    """The processes: the programs that log, rsyslogd, the keeper of the states, the sink."""

    def __init__(
        self, bootstrap: str, directory: Path, scratch: Path, processes: Processes, observer: Observer
    ) -> None:
        self.killed: list[str] = []
        self.broken: list[str] = []
        self._bootstrap = bootstrap
        self._directory = directory
        self._scratch = scratch
        self._processes = processes
        self._observer = observer
        self._kills = list(KILLS)
        self._applications = [*applications.PACE, "stockroom"]

    def start(self) -> None:
        """rsyslogd first: who logs to a socket wants it to be there."""
        access_log = self._scratch / "access.log"
        access_log.touch()
        self._processes.start("rsyslogd", rsyslog.command(self._bootstrap, self._scratch, access_log))
        self._start_keeper("status")
        self._start_keeper("sink")
        socket = self._scratch / "socket"
        deadline = time.monotonic() + START_S
        while not socket.exists():
            if time.monotonic() > deadline or "rsyslogd" in self._processes.fallen():
                raise SystemExit(f"rsyslogd did not start:\n{self._processes.tail('rsyslogd')}")
            time.sleep(0.02)
        for service in applications.PACE:
            options = ["--bootstrap", self._bootstrap, "--socket", str(socket)]
            options += ["--access-log", str(access_log), "--report", str(self._report(service))]
            command = [sys.executable, "-m", "examples.logs.applications", service, *options]
            self._processes.start(service, command)
        script = [str(HERE / "stockroom.sh"), str(socket), str(self._report("stockroom"))]
        self._processes.start("stockroom", script)

    def _start_keeper(self, name: str) -> None:
        command = [sys.executable, "-m", f"examples.logs.{name}", "--bootstrap", self._bootstrap]
        if name == "sink":
            command += ["--directory", str(self._directory)]
        self._processes.start(name, command)

    def _report(self, service: str) -> Path:
        return self._scratch / f"{service}.json"

    def tend(self) -> None:
        """Kill what is to be killed by now, and start it again; notice what fell by itself."""
        for name, code in self._processes.fallen().items():
            self.broken.append(name)
            self._observer.note(f"{name} ended with {code}: {self._processes.tail(name, 1)}")
        while self._kills and self._observer.elapsed_s > self._kills[0][0]:
            _, name = self._kills.pop(0)
            if name in self._processes.running:
                self._processes.kill(name)
                self.killed.append(name)
                self._start_keeper(name)
                self._observer.note(f"kill -9 {name}, and started again")

    def spare(self) -> None:
        """No more killing."""
        self._kills.clear()

    def silence(self) -> dict[str, dict[str, int]]:
        """Stop the programs that log; how many lines each wrote and dropped."""
        self._processes.stop(*(name for name in self._applications if name in self._processes.running))
        return {name: self._written(name) for name in self._applications}

    def _written(self, name: str) -> dict[str, int]:
        try:
            return dict(json.loads(self._report(name).read_text()))
        except FileNotFoundError:
            # It was stopped before it could begin; one that broke down is told of by its exit code.
            return {"lines": 0, "dropped": 0}


def gather(
    arguments: argparse.Namespace, gathering: Gathering, observer: Observer
) -> dict[str, dict[str, int]]:
    """The run itself; gives what the programs say that they wrote."""
    stop: threading.Event = arguments.stop
    saying = "gathering"
    with Screen(lambda: view.draw(observer, saying), lambda: view.line(observer, saying)) as screen:
        while not stop.is_set() and not (arguments.seconds and observer.elapsed_s > arguments.seconds):
            observer.look(LOOK_S)
            if arguments.kill:
                gathering.tend()
            screen.update()
        observer.search_now()
        saying = "no more lines: what is under way is kept"
        gathering.spare()
        written = gathering.silence()
        wanted = sum(report["lines"] - report["dropped"] for report in written.values())
        settle_until = time.monotonic() + SETTLE_S
        rows_before = None
        while time.monotonic() < settle_until and not gathering.broken:
            observer.look(LOOK_S)
            gathering.tend()
            screen.update()
            arrived = observer.lines_of_run()
            stated = sum(s.lines for s in observer.states.values()) - sum(observer.lines_before.values())
            rows_before = rows_of_run(arguments.folder, observer)
            if arrived >= wanted and stated >= arrived and rows_before >= arrived:
                break
    return written


def rows_of_run(folder: Path, observer: Observer) -> int:
    """How many rows of this run are in the files."""
    return sum(
        query.rows(
            folder, 'SELECT count(*) FROM lines WHERE partition = ? AND "offset" >= ?', partition, first
        )[0][0]
        for partition, first in observer.began_at_offsets.items()
    )


def judge(
    arguments: argparse.Namespace,
    gathering: Gathering,
    observer: Observer,
    written: dict[str, dict[str, int]],
) -> int:
    """Compare what was written, line by line, with what is in the topic, the states and the files."""
    ends = observer.ends()
    ranges = {p: (first, ends[p]) for p, first in observer.began_at_offsets.items() if first < ends[p]}
    reader = Consumer(
        {"bootstrap.servers": arguments.bootstrap, "group.id": "logs.nobody", "enable.auto.commit": False}
    )
    lines = list(search.read_ranges(reader, ranges))
    reader.close()
    came = Counter((line.service, int(number[1])) for line in lines if (number := NUMBER.match(line.text)))
    wrote = Counter(
        (service, number) for service, report in written.items() for number in range(1, report["lines"] + 1)
    )
    dropped = sum(report["dropped"] for report in written.values())
    kept = query.rows(
        arguments.folder, 'SELECT partition, "offset", count(*) FROM lines GROUP BY ALL ORDER BY ALL'
    )
    kept_of_run = [(p, o) for p, o, _ in kept if o >= observer.began_at_offsets[p]]
    in_topic = [(p, o) for p, (first, end) in sorted(ranges.items()) for o in range(first, end)]
    stated = {s: state.lines - observer.lines_before.get(s, 0) for s, state in observer.states.items()}
    arrived = Counter(line.service for line in lines)
    found = observer.found
    figures = {
        **{f"lines of {service}": report["lines"] for service, report in sorted(written.items())},
        "dropped by the handler": dropped,
        "lines in the topic": len(lines),
        "rows in Parquet": len(kept_of_run),
        "files": observer.files,
        "killed": ", ".join(gathering.killed) or "nobody",
        "last search": f"found {len(found.lines)}, read {found.read} of {found.total}",
        "seconds": round(observer.elapsed_s, 1),
    }
    promises = {
        "every line is in the topic, once": came == wrote if not dropped else not came - wrote,
        "every line of the topic is in Parquet, once": kept_of_run == in_topic
        and {n for *_, n in kept} <= {1},
        "every line is counted in the state of its service, once": all(
            stated.get(service) == count for service, count in arrived.items()
        ),
        "nothing broke down": not gathering.broken,
    }
    return finish("logs", figures, promises, arguments.summary)


def run(arguments: argparse.Namespace) -> int:
    arguments.stop = stop_event()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    arguments.folder = folder_of(arguments.bootstrap, arguments.directory)
    observer = Observer(arguments.bootstrap, arguments.folder)
    # A short path: that of a socket has at most 107 characters.
    scratch = Path(tempfile.mkdtemp(prefix="ottla-logs-"))
    with contextlib.closing(observer), Processes(scratch) as processes:
        gathering = Gathering(arguments.bootstrap, arguments.directory, scratch, processes, observer)
        gathering.start()
        written = gather(arguments, gathering, observer)
        if arguments.picture:
            save_picture(view.draw(observer, "done"), arguments.picture, "make example-logs")
        processes.stop()
        gathering.broken += [name for name, code in processes.ended.items() if code > 0]
        for name in dict.fromkeys(gathering.broken):
            print(f"--- {name} ended with {processes.ended[name]}:\n{processes.tail(name)}")
        code = judge(arguments, gathering, observer, written)
    print(f"  the files are in {arguments.folder}")
    if code == 0:
        shutil.rmtree(scratch)
    else:
        print(f"  what the programs said is in {scratch}")
    return code


def main() -> int:
    options = parser("logs", "Gather the logs of several programs: README.md says what to look at.")
    options.add_argument("--directory", type=Path, default=DIRECTORY, help="where the Parquet files go")
    options.add_argument("--no-kill", dest="kill", action="store_false", help="kill nobody")
    commands = options.add_subparsers(dest="command", metavar="search | query")
    search.add_options(commands.add_parser("search", help="find lines of a time range in the topic"))
    commands.add_parser("query", help="ask the Parquet files in SQL").add_argument("sql", help="table: lines")
    arguments = options.parse_args()
    require_broker(arguments.bootstrap)
    topics.create(arguments.bootstrap)
    if arguments.command == "search":
        return search.main(arguments)
    if arguments.command == "query":
        return query.show(folder_of(arguments.bootstrap, arguments.directory), arguments.sql)
    return run(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
