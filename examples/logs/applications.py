"""Programs that log, each in its way; what they do is invented, how they log is real.

    checkout, search   Python's logging with our KafkaHandler, straight to the topic
    mailer             Python's logging with the SysLogHandler, to rsyslog
    gateway            an access log in a file, which rsyslog follows
    (stockroom is a shell script: stockroom.sh)

Each numbers its lines, so that it can be told whether one is missing or came twice.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import logging.handlers
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from examples.logs.handler import KafkaHandler

# Lines in each second.
PACE = {"checkout": 60, "search": 40, "mailer": 15, "gateway": 80}
# The incident: from when to when after the start, in seconds, and again in each minute.
INCIDENT_S = (4.0, 7.0)
INCIDENT_EVERY_S = 60.0


class Application:
    """Writes numbered lines until it is stopped."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.lines = 0
        self.stop = threading.Event()
        self._dice = random.Random(service)
        self._began_at = time.monotonic()

    def run(self, write: Callable[[int, str], None]) -> None:
        """`write` gets a level of Python's logging, and a text."""
        while not self.stop.wait(self._dice.expovariate(PACE[self.service])):
            self.lines += 1
            level, text = self.invent()
            write(level, f"#{self.lines} {text}")

    def invent(self) -> tuple[int, str]:
        dice = self._dice
        order = f"order {dice.randrange(10**6):06}"
        second = (time.monotonic() - self._began_at) % INCIDENT_EVERY_S
        if self.service == "checkout":
            if INCIDENT_S[0] < second < INCIDENT_S[1] and dice.random() < 0.4:
                return logging.ERROR, f"payment timeout after {dice.randrange(3000, 5000)} ms, {order}"
            return logging.INFO, f"{order} paid in {dice.randrange(20, 90)} ms"
        if self.service == "search":
            if dice.random() < 0.02:
                return logging.WARNING, f"slow query: {dice.randrange(800, 2000)} ms"
            return logging.INFO, f"{dice.randrange(0, 50)} hits in {dice.randrange(3, 40)} ms"
        if self.service == "mailer":
            if dice.random() < 0.03:
                return logging.ERROR, f"mailbox of customer-{dice.randrange(40):02} is full"
            return logging.INFO, f"mail for {order} sent"
        status = dice.choices((200, 304, 404, 502), (80, 12, 6, 2))[0]
        at = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
        return logging.INFO, f'10.0.0.{dice.randrange(1, 250)} - - [{at}] "GET /item HTTP/1.1" {status} 512'


def through_logging(application: Application, handler: logging.Handler) -> None:
    """Log with the handler, as any program would; a traceback now and then."""
    logger = logging.getLogger(application.service)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    dice = random.Random(application.service)

    def write(level: int, text: str) -> None:
        if level == logging.INFO and dice.random() < 0.005:
            try:
                {}["basket"]  # type: ignore[index]
            except KeyError:
                logger.exception(f"{text.split()[0]} no basket in the session")
                return
        logger.log(level, text)

    application.run(write)
    # Before the report is written: closing sends what is queued.
    handler.close()


def through_a_file(application: Application, path: Path) -> None:
    with path.open("a", buffering=1) as file:
        application.run(lambda _, text: print(text, file=file))


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m examples.logs.applications", description=__doc__)
    options.add_argument("service", choices=PACE)
    options.add_argument("--bootstrap", required=True)
    options.add_argument("--socket", required=True, help="rsyslog's")
    options.add_argument("--access-log", type=Path, required=True)
    options.add_argument("--report", type=Path, required=True, help="where to say how many lines there were")
    arguments = options.parse_args()
    application = Application(arguments.service)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: application.stop.set())
    dropped = 0
    if arguments.service == "gateway":
        through_a_file(application, arguments.access_log)
    elif arguments.service == "mailer":
        handler = logging.handlers.SysLogHandler(arguments.socket, facility="local0")
        handler.ident = "mailer: "
        # The protocol of old ends a line with a zero byte; rsyslog does without.
        handler.append_nul = False
        through_logging(application, handler)
    else:
        kafka = KafkaHandler(arguments.bootstrap, service=arguments.service)
        through_logging(application, kafka)
        dropped = kafka.dropped
    arguments.report.write_text(json.dumps({"lines": application.lines, "dropped": dropped}))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
