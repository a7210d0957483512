"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from ottla.cli.errors import CliError, ExitCode
from ottla.cli.values import shown
from ottla.numbers import INT_MAX, LONG_MAX, parse_double, parse_whole, trim

BOOTSTRAP_DEFAULT = "127.0.0.1:9092"

Bootstrap = Annotated[
    str,
    typer.Option(
        "--bootstrap",
        "-b",
        envvar="OTTLA_BOOTSTRAP",
        metavar="HOST:PORT",
        help="The broker to ask first; several with commas.",
    ),
]

Properties = Annotated[
    list[str] | None,
    typer.Option(
        "--property",
        "-X",
        metavar="NAME=VALUE|@FILE",
        help="A librdkafka client property, such as security.protocol=SSL, or a file of such or of Kafka's "
        "client properties. Repeatable; $OTTLA_CLIENT_PROPERTIES names a file for all commands.",
    ),
]


class Acks(StrEnum):
    """Which replicas must have a message before the broker acknowledges it."""

    ALL = "all"
    LEADER = "1"
    NONE = "0"


class Compression(StrEnum):
    """The codecs of record batches."""

    NONE = "none"
    GZIP = "gzip"
    SNAPPY = "snappy"
    LZ4 = "lz4"
    ZSTD = "zstd"


AcksOption = Annotated[Acks, typer.Option("--acks", help="Acknowledgements to wait for.")]
CompressionOption = Annotated[
    Compression, typer.Option("--compression", "-z", help="The codec of the batches.")
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def parse_pairs(option: str, pairs: Sequence[str] | None) -> dict[str, str]:
    """``NAME=VALUE`` arguments of ``option`` as a mapping; CliError (usage) where one has no '='."""
    result = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise CliError(f"{option} {shown(pair)}: give NAME=VALUE", ExitCode.USAGE)
        result[name] = value
    return result


SECONDS_MAX = 1e9


def whole_number(low: int, high: int = INT_MAX) -> Callable[[Any], int]:
    """What reads a whole number of a command line. Typer would read it as Python does."""

    def parse(value: Any) -> int:
        if not isinstance(value, str):
            return int(value)  # a default
        number = parse_whole(trim(value), low, high)
        if number is None:
            raise typer.BadParameter(f"{shown(value)} is not a whole number{_range(low, high)}.")
        return number

    return parse


def decimal_number(low: float, high: float = SECONDS_MAX) -> Callable[[Any], float]:
    """What reads a number of a command line that need not be whole."""

    def parse(value: Any) -> float:
        if not isinstance(value, str):
            return float(value)  # a default
        number = parse_double(value)
        # NaN is neither.
        if number is None or not low <= number <= high:
            raise typer.BadParameter(f"{shown(value)} is not a number{_range(low, high)}.")
        return number

    return parse


def _range(low: float, high: float) -> str:
    """The bounds in words; that numbers end somewhere need not be said."""
    if high in (INT_MAX, LONG_MAX, SECONDS_MAX):
        return "" if low < 0 else f" of {low} or more"
    return f" from {low} to {high}"
