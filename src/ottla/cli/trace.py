"""`ottla trace`: read along what clients ask a node for, as it happens."""

from __future__ import annotations

import json as json_
import time
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from ottla.cli import output
from ottla.cli.examples import examples
from ottla.cli.options import whole_number
from ottla.config.node import DATA_DEFAULT

SECONDS_DEFAULT, SECONDS_MAX = 30, 600

COLUMNS = (
    ("time", 12), ("node", 4), ("client", 20), ("host", 15), ("principal", 16), ("request", 24),
    ("queue", 8), ("local", 8), ("remote", 9), ("throttle", 8), ("in", 8), ("out", 8), ("error", 0),
)  # fmt: skip
# What is a number, and stands at the right.
RIGHT = frozenset(("node", "queue", "local", "remote", "throttle", "in", "out"))


@examples(
    ("ottla trace --data ./data", "Show the requests that a node of this machine answers."),
    (
        "ottla trace --client 'shop-*' --api Produce --seconds 60",
        "Show the Produce requests of some clients for a minute.",
    ),
)
def trace(
    data: Annotated[
        str, typer.Option(metavar="DIR", help="The node's data directory, as 'ottla serve' was given it.")
    ] = DATA_DEFAULT,
    node: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            parser=whole_number(0),
            help="Of the nodes of 'ottla serve --processes' that have their data there, this one; else all. "
            "Repeatable.",
        ),
    ] = None,
    client: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Requests of this client id alone; of all that begin so: 'ID*'."),
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Requests from this address alone; or 'ADDRESS*'.")
    ] = None,
    principal: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Requests of this principal alone, such as User:alice; or 'NAME*'."
        ),
    ] = None,
    api: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Requests of this kind alone, such as Produce. Repeatable."),
    ] = None,
    seconds: Annotated[
        int,
        typer.Option(
            "--seconds",
            "-d",
            metavar="N",
            parser=whole_number(1, SECONDS_MAX),
            help="How long to read along.",
        ),
    ] = SECONDS_DEFAULT,
    bodies: Annotated[
        bool,
        typer.Option(
            "--bodies",
            help="Show what requests say, too: their fields, in part; no records, no bytes, no passwords.",
        ),
    ] = False,
    json: Annotated[
        bool,
        typer.Option("--json", help="Print a JSON document in each line, one for each request."),
    ] = False,
) -> None:
    """Show the requests that a node of this machine answers, as it happens, with how long each stage took.

    The node need not be prepared for that, nor started again. Only the user who runs it may (and root). What
    cannot be shown in time is left out, and counted: clients do not wait for it.
    """
    asked = {"client": client, "host": host, "principal": principal and _principal(principal)}
    query = [(name, value) for name, value in asked.items() if value is not None]
    query += [("api", name) for name in api or ()]
    query += [("seconds", str(seconds)), ("bodies", str(int(bodies)))]
    # Other commands start without it.
    from ottla.cli.trace_streams import lines_of, open_streams

    _Shown(json=json).show(lines_of(open_streams(data, node or (), urlencode(query))))


def _principal(given: str) -> str:
    return given if ":" in given else f"User:{given}"


class _Shown:
    """Prints what comes: for people, or for programs."""

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._headed = False

    def show(self, lines: Iterator[dict[str, Any]]) -> None:
        for line in lines:
            if "api" in line:
                self._request(line)
            elif "missed" in line and "ended" not in line:
                self._missed(line)

    def _request(self, line: dict[str, Any]) -> None:
        if self._json:
            output.print_json_line(line, flush=True)
            return
        if not self._headed:
            self._headed = True
            output.say(_row({name: name.upper() for name, _ in COLUMNS}), flush=True)
        output.say(_row(_cells(line)), flush=True)
        if "body" in line:
            output.say("    " + json_.dumps(line["body"], ensure_ascii=False), flush=True)

    def _missed(self, line: dict[str, Any]) -> None:
        if self._json:
            output.print_json_line(line, flush=True)
            return
        causes = []
        if line["over_rate"]:
            causes.append(f"{line['over_rate']} since there were too many in a second")
        if line["unread"]:
            causes.append(f"{line['unread']} since they were not read in time")
        requests = output.counted(line["missed"], "request")
        output.warn(f"{requests} of node {line['node']} left out: {', '.join(causes)}")


def _cells(line: dict[str, Any]) -> dict[str, str]:
    seconds = line["time_ms"] / 1000
    clock = time.strftime("%H:%M:%S", time.localtime(seconds))
    error = line["error"] or ""
    if line["errors"] > 1:
        error += f" and {line['errors'] - 1} more"
    if line["ended_connection"]:
        error = "(the connection was ended)"
    version = "" if line["version"] is None else f" v{line['version']}"
    return {
        "time": f"{clock}.{line['time_ms'] % 1000:03d}",
        "node": str(line["node"]),
        "client": _or_dash(line["client_id"]),
        "host": line["host"],
        "principal": line["principal"],
        "request": f"{line['api']}{version}",
        "queue": f"{line['queue_ms']:.3f}",
        "local": f"{line['local_ms']:.3f}",
        "remote": f"{line['remote_ms']:.3f}",
        "throttle": str(line["throttle_ms"]),
        "in": _or_dash(line["request_bytes"]),
        "out": str(line["response_bytes"]),
        "error": error,
    }


def _or_dash(value: str | int | None) -> str:
    return "-" if value is None or value == "" else str(value)


def _row(cells: dict[str, str]) -> str:
    return "  ".join(
        cells[name].rjust(width) if name in RIGHT else cells[name].ljust(width) for name, width in COLUMNS
    ).rstrip()
