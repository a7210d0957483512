"""`ottla top`: brokers, topics, groups and the slowest clients, live or once."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from ottla.cli import output
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Json, Properties, decimal_number
from ottla.extras import line

if TYPE_CHECKING:
    from ottla.cli.top.taking import Taker

INTERVAL_MIN_S, INTERVAL_MAX_S = 0.1, 3600


@examples(
    ("ottla top", "Show the cluster in a terminal until 'q' is pressed."),
    ("ottla top --once", "Print one interval and end."),
)
def top(
    once: Annotated[bool, typer.Option("--once", help="Print one interval and end.")] = False,
    interval: Annotated[
        float,
        typer.Option(
            "--interval",
            "-i",
            metavar="SECONDS",
            parser=decimal_number(INTERVAL_MIN_S, INTERVAL_MAX_S),
            help="How long between two looks.",
        ),
    ] = 2.0,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="HOST:PORT,…",
            help="Where nodes tell of their clients, where that is not what they say themselves "
            "(metrics.listener).",
        ),
    ] = None,
    internal: Annotated[bool, typer.Option("--internal", help="Topics of Kafka's own, too.")] = False,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> int:
    """Show brokers, topics, groups and the slowest clients as they change, in a terminal: ? lists the keys.

    Rates are those between two looks. The slowest clients are told of by nodes that have a metrics listener;
    all else works with any cluster. The live view needs the extra "top": pip install 'ottla[top]'.
    """
    from ottla.cli.top.listening import Listening, parse_addresses
    from ottla.cli.top.nodes import Nodes
    from ottla.cli.top.taking import Taker

    if json and not once:
        output.fail_usage("--json prints one interval: add --once")
    if not once:
        _check_terminal()
    addresses = [] if metrics is None else parse_addresses(metrics)
    with closing(Taker(Nodes(bootstrap, property), Listening(addresses))) as taker:
        if once:
            _once(taker, interval, internal=internal, json=json)
        else:
            _live(taker, interval, internal=internal)
    return ExitCode.OK


def _check_terminal() -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        output.fail_usage("this is no terminal: --once prints tables, --once --json is for programs")
    try:
        import textual  # noqa: F401 - whether it is there
    except ImportError:
        raise CliError(f"{line('the live view', 'top')}; --once does without it") from None


def _once(taker: Taker, interval_s: float, *, internal: bool, json: bool) -> None:
    from ottla.cli.top import once
    from ottla.cli.top.snapshot import Wanted

    before = taker.take(None, Wanted(everything=True))
    time.sleep(interval_s)
    found = taker.take(before, Wanted(everything=True))
    if json:
        output.print_json(once.document(found, found.at_s - before.at_s, internal=internal))
    else:
        once.show(found, internal=internal)


def _live(taker: Taker, interval_s: float, *, internal: bool) -> None:
    from ottla.cli.top.look import Look
    from ottla.cli.top.screen import Top

    app = Top(taker.take, Look(interval_s=interval_s, shows_internal=internal))
    app.run(mouse=False)
    if app.is_terminated:
        # The event loop is closed, so the signal ends the process as it ends others.
        signal.raise_signal(signal.SIGTERM)
    if app.failure is not None:
        raise app.failure
