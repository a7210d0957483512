"""The command that each example is: its options, whether a broker is there, and how it ends.

    python -m examples.NAME [--bootstrap HOST:PORT] [--seconds S] [--summary FILE] [--picture FILE]

An example runs until Ctrl-C, or for `--seconds`, and ends with what it saw: its figures, and its promises,
each kept or broken. It exits with 0 when all are kept, 1 when one is broken, 2 when there is no broker.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BOOTSTRAP = "127.0.0.1:9092"


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """The options that every example has; the example adds its own."""
    options = argparse.ArgumentParser(
        prog=f"python -m examples.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument(
        "--bootstrap",
        metavar="HOST:PORT",
        default=os.environ.get("OTTLA_BOOTSTRAP", BOOTSTRAP),
        help=f"the broker (default: $OTTLA_BOOTSTRAP, or {BOOTSTRAP})",
    )
    options.add_argument("--seconds", metavar="S", type=float, help="end by itself after so long")
    options.add_argument("--summary", metavar="FILE", type=Path, help="write the summary there, as JSON")
    options.add_argument("--picture", metavar="FILE", type=Path, help="save a picture of the run there")
    return options


def require_broker(bootstrap: str, timeout_s: float = 5.0) -> None:
    """Return if something listens at `bootstrap`; otherwise say how to start it, and exit with 2."""
    host, _, port = bootstrap.split(",")[0].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
    except (OSError, ValueError) as error:
        print(f"no broker at {bootstrap} ({error}): start one with `make run`", file=sys.stderr)
        raise SystemExit(2) from None


def stop_event() -> threading.Event:
    """Set by the first Ctrl-C or SIGTERM, so that the example ends in order; a second Ctrl-C insists."""
    event = threading.Event()

    def stop(number: int, _frame: object) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return event


def finish(
    name: str,
    figures: Mapping[str, Any],
    promises: Mapping[str, bool],
    summary: Path | None = None,
) -> int:
    """Print the summary, write it to `summary` as JSON, and give the exit code.

    `figures` are what was counted, `promises` what the example says of itself, and whether it was so."""
    width = max((len(label) for label in figures), default=0)
    print(f"\n{name}: what was seen")
    for label, value in figures.items():
        print(f"  {label:<{width}}  {value}")
    for promise, kept in promises.items():
        print(f"  {'kept  ' if kept else 'BROKEN'}  {promise}")
    sys.stdout.flush()
    if summary is not None:
        content = {"example": name, "figures": dict(figures), "promises": dict(promises)}
        summary.write_text(json.dumps(content, indent=2, default=str) + "\n")
    return 0 if all(promises.values()) else 1
