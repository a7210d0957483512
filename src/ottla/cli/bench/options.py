"""Options that several benchmarks share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ottla.cli.options import decimal_number, whole_number
from ottla.numbers import LONG_MAX

Topic = Annotated[
    str | None,
    typer.Option(metavar="NAME", show_default="a new one, deleted in the end", help="Use this topic."),
]
Partitions = Annotated[
    int,
    typer.Option(
        "--partitions", "-p", metavar="N", parser=whole_number(1), help="Partitions of the new topic."
    ),
]
Messages = Annotated[
    int,
    typer.Option(
        "--messages", "-n", metavar="N", parser=whole_number(1, LONG_MAX), help="How many messages."
    ),
]
Size = Annotated[
    int,
    typer.Option("--size", "-s", metavar="N", parser=whole_number(1), help="Bytes of each message's value."),
]
Linger = Annotated[
    float,
    typer.Option(
        "--linger-ms", metavar="N", parser=decimal_number(0), help="How long a batch waits to fill, in ms."
    ),
]
Processes = Annotated[int, typer.Option(metavar="N", parser=whole_number(1, 64), help="Load processes.")]
Seconds = Annotated[
    float,
    typer.Option("--seconds", "-d", metavar="N", parser=decimal_number(0.1), help="How long to measure."),
]
Warmup = Annotated[
    float,
    typer.Option("--warmup-s", metavar="N", parser=decimal_number(0), help="How long to run before that."),
]
BrokerPid = Annotated[
    list[int] | None,
    typer.Option(
        metavar="PID",
        parser=whole_number(1),
        help="A process of the broker's on this machine, where it cannot be found by its port. Repeatable.",
    ),
]


class Beside(StrEnum):
    """What others do while something is measured."""

    PRODUCE = "produce"
    COLD_READER = "cold-reader"


class Api(StrEnum):
    """The requests that can be sent raw."""

    PRODUCE = "produce"
    METADATA = "metadata"
    API_VERSIONS = "api-versions"
