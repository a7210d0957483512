"""An agent of our own beside collectd: what psutil knows, written as collectd writes it."""

from __future__ import annotations

import argparse
import contextlib
import socket
import time
from pathlib import Path

import psutil
from confluent_kafka import Producer

from examples.common.command import stop_event
from examples.metrics import samples, topics

MIB = 1024 * 1024


def worker_of(pid_file: Path) -> psutil.Process | None:
    """The process whose pid is in the file, if there is one."""
    try:
        return psutil.Process(int(pid_file.read_text()))
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None


def measured(worker: psutil.Process | None) -> dict[tuple[str, str, str], float]:
    """What is measured now. CPU is in percent of one core, since the last call."""
    values: dict[tuple[str, str, str], float] = {("host", "gauge", "processes"): float(len(psutil.pids()))}
    if worker is not None:
        try:
            with worker.oneshot():
                values["worker", "memory", "rss"] = float(worker.memory_info().rss)
                values["worker", "percent", "cpu"] = worker.cpu_percent()
        except psutil.Error:
            pass  # it ended just now: nothing to be measured of it
    return values


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--bootstrap", required=True, metavar="HOST:PORT")
    options.add_argument("--interval", type=float, default=1.0, help="seconds between two samples")
    options.add_argument(
        "--worker", type=Path, required=True, help="a file with the pid of a process to measure"
    )
    arguments = options.parse_args()
    stop = stop_event()
    topics.create(arguments.bootstrap)
    producer = Producer({"bootstrap.servers": arguments.bootstrap, "client.id": "psutil", "linger.ms": 5})
    host = socket.gethostname()
    worker: psutil.Process | None = None
    due_s = time.monotonic()
    while not stop.wait(max(0.0, due_s - time.monotonic())):
        # A machine that slept does not catch up.
        due_s = max(due_s + arguments.interval, time.monotonic())
        if worker is None or not worker.is_running():
            worker = worker_of(arguments.worker)
        message = samples.written(host, time.time(), arguments.interval, measured(worker))
        # A full queue: the broker has been away for long, and what is old by then is not worth keeping.
        with contextlib.suppress(BufferError):
            producer.produce(topics.SAMPLES, message, host)
        producer.poll(0)
    producer.flush(10)


if __name__ == "__main__":
    main()
