"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from ottla.cli.errors import CliError, ExitCode

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
        metavar="NAME=VALUE",
        help="A librdkafka client property, such as security.protocol=SSL. Repeatable.",
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
            raise CliError(f"{option} {pair!r}: give NAME=VALUE", ExitCode.USAGE)
        result[name] = value
    return result
