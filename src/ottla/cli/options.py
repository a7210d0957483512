"""Options that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from ottla.cli.errors import CliError, ExitCode
from ottla.cli.positions import SPAN_MS
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
        help="A client property, librdkafka's or Kafka's, such as security.protocol=SSL, or a file of such. "
        "Repeatable.",
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

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]


def parse_pairs(option: str, pairs: Sequence[str] | None) -> dict[str, str]:
    """``NAME=VALUE`` arguments of ``option`` as a mapping; CliError (usage) where one has no '='."""
    result = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise CliError(f"{option} {shown(pair)}: give NAME=VALUE", ExitCode.USAGE)
        result[name] = value
    return result


def takes(
    parameter: str, options: Mapping[str, tuple[Any, Any]], make: Callable[..., Any]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Have a command take several ``options`` in the place of one parameter, which gets what ``make`` makes
    of them: for what more than one command takes. ``options``: the type and the default of each, by name."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        types = get_type_hints(command, include_extras=True)
        found = []
        for name, one in inspect.signature(command).parameters.items():
            if name == parameter:
                found += [
                    inspect.Parameter(option, one.kind, default=default, annotation=kind)
                    for option, (kind, default) in options.items()
                ]
            else:
                found.append(one.replace(annotation=types[name]))

        @wraps(command)
        def taking(**given: Any) -> Any:
            made = make(**{option: given.pop(option) for option in options})
            return command(**given, **{parameter: made})

        # Typer and the documentation go by these.
        taking.__signature__ = inspect.Signature(found)  # type: ignore[attr-defined]
        taking.__annotations__ = {one.name: one.annotation for one in found} | {"return": types.get("return")}
        del taking.__wrapped__
        return taking

    return decorate


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


def duration_ms(low: int) -> Callable[[Any], int]:
    """What reads a time of a command line, in milliseconds: ``12h``, ``7d``, or a number of them."""

    def parse(value: Any) -> int:
        if not isinstance(value, str):
            return int(value)  # a default
        text = trim(value)
        number = parse_whole(text.rstrip("smhd"), low, LONG_MAX)
        factor = SPAN_MS.get(text.lstrip("0123456789"), 0 if text[-1:] in SPAN_MS else 1)
        if number is None or not factor or number * factor > LONG_MAX:
            raise typer.BadParameter(f"{shown(value)} is no time such as 90s, 12h, 7d, or milliseconds.")
        return number * factor

    return parse


def _range(low: float, high: float) -> str:
    """The bounds in words; that numbers end somewhere need not be said."""
    if high in (INT_MAX, LONG_MAX, SECONDS_MAX):
        return "" if low < 0 else f" of {low} or more"
    return f" from {low} to {high}"


BrokerIds = Annotated[
    list[int] | None,
    typer.Option(
        "--broker-id",
        metavar="N",
        parser=whole_number(0),
        show_default="all",
        help="Ask only this node. Repeatable.",
    ),
]
