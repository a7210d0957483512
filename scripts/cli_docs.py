"""docs/CLI.md, from the command line's own definition."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

import typer

from ottla.cli.app import app
from ottla.cli.errors import ExitCode

HEAD = """\
# The command line

Generated from the code by `scripts/cli_docs.py`: change a command, then run `make docs`.

`ottla serve` runs a broker, `ottla cluster up` a whole cluster on this machine ([CLUSTER.md](CLUSTER.md)).
Everything else talks to a cluster, Ottla's or any other, through Kafka's protocol; except `ottla log`,
which works on a broker's files.

- **Where.** `--bootstrap HOST:PORT`, or `OTTLA_BOOTSTRAP` in the environment, or 127.0.0.1:9092. What else a
  client needs (TLS, SASL) goes in with `-X NAME=VALUE`, under librdkafka's names.
- **For people and for programs.** Tables in a terminal; plain aligned text in a pipe; JSON with `--json`: one
  document, or a line for each message or entry where there may be many. Remarks, errors and progress go to
  stderr.
- **Positions.** `consume --from` and `group reset-offsets --to` take `beginning`, `end`, an offset (`42`),
  the last N of each partition (`-10`), a time (`2026-01-31T12:00:00Z`, or `@1769860800000` in epoch
  milliseconds), or a span back from now (`90s`, `15m`, `2h`, `7d`).
- **Messages in JSON.** `{"topic": …, "partition": …, "offset": …, "timestamp_ms": …, "key": …, "value": …,
  "headers": [{"key": …, "value": …}]}`. What is not UTF-8 is `{"base64": "…"}`.
  `ottla consume A --json | ottla produce B --json` copies a topic byte for byte.
- **Errors** are one line on stderr. A broker that is not there is reported within five seconds.

| Exit code | |
| --- | --- |
"""

EXAMPLES = """
## Examples

```sh
ottla serve --data ./data --set log.retention.hours=24        # a broker on 127.0.0.1:9092

ottla topic create orders --partitions 6 --config retention.ms=3600000
echo 'hello' | ottla produce orders
printf 'k1:one\\nk2:two\\n' | ottla produce orders --key-separator : -H source=shell
ottla consume orders                                           # what is there now
ottla consume orders --follow --from end --format '{partition}/{offset} {key}: {value}'
ottla consume orders --group billing --max 100 --json | jq .value

ottla group describe billing                                   # with lag
ottla group reset-offsets billing --topic orders --to 2h       # shows what would change
ottla group reset-offsets billing --topic orders --to 2h --execute

ottla produce orders --transactional-id loader --transaction-messages 1000 < orders.txt
ottla consume orders --isolation read_uncommitted              # what is open or aborted, too
ottla transaction list --state Ongoing                         # who has what open
ottla transaction find-hanging --topic orders                  # ... and what nobody will end
ottla transaction abort --topic orders --partition 0 --start-offset 4711

ottla config set topic orders max.message.bytes=2000000
ottla config describe broker 1 --all

ottla cluster up --nodes 3 --data ./try                        # etcd and three nodes, to try
ottla cluster describe                                         # who is there, and what is not well
ottla cluster reassign --all --dry-run                         # what a new node would take over
ottla cluster drain 3                                          # ... and how one is emptied

ottla feature describe                                         # what the cluster has agreed on
ottla feature upgrade --release-version 4.3 --dry-run

ottla log dump data/orders-0/*.log --records
ottla log verify ./data --repair                               # read everything, mend what can be
ottla log stray list ./data                                    # what was set aside
ottla bench produce --messages 2000000 --compression lz4
```
"""


@dataclass(frozen=True)
class Parameter:
    """An argument or option as the code declares it."""

    names: tuple[str, ...]
    value: str | None
    help: str
    default: Any
    envvar: str | None
    is_argument: bool


def commands(group: typer.Typer, path: str = "ottla") -> Iterator[tuple[str, Callable[..., Any]]]:
    """Each command of an app with its full name and its function, in the order of ``--help``."""
    for command in group.registered_commands:
        assert command.callback is not None
        yield f"{path} {command.name or command.callback.__name__}", command.callback
    for child in group.registered_groups:
        assert child.typer_instance is not None
        yield from commands(child.typer_instance, f"{path} {child.name}")


def parameters(function: Callable[..., Any]) -> list[Parameter]:
    """The arguments and options of a command."""
    hints = get_type_hints(function, include_extras=True)
    signature = inspect.signature(function)
    return [
        _parameter(name, hints[name], signature.parameters[name].default) for name in signature.parameters
    ]


def _parameter(name: str, hint: Any, default: Any) -> Parameter:
    plain, info = get_args(hint)
    kind = plain
    while inner := [arg for arg in get_args(kind) if arg is not type(None)]:
        kind = inner[0]
    is_argument = isinstance(info, typer.models.ArgumentInfo)
    text = info.help or ""
    if isinstance(kind, type) and issubclass(kind, Enum):
        value: str | None = "|".join(member.value for member in kind)
    else:
        value = info.metavar or {int: "N", float: "N", bool: None}.get(kind, "TEXT")
    if is_argument:
        several = "…" if any(get_origin(one) is list for one in (plain, *get_args(plain))) else ""
        names: tuple[str, ...] = ((info.metavar or name.rstrip("_").upper()) + several,)
        text += f" One of {value.replace('|', ', ')}." if value and "|" in value else ""
    else:
        # In Annotated, Typer takes the first name of an option for its default.
        given = (info.default, *(info.param_decls or ()))
        names = tuple(one for one in given if isinstance(one, str))
        names = names or ("--" + name.strip("_").replace("_", "-"),)
    return Parameter(names, value, text, default, info.envvar, is_argument)


def _row(parameter: Parameter) -> str:
    names = ", ".join(f"`{name}`" for name in parameter.names)
    if parameter.value and not parameter.is_argument:
        names += f" `{parameter.value}`"
    text = parameter.help
    if parameter.default not in (None, inspect.Parameter.empty) and parameter.default is not False:
        text += f" Default: `{getattr(parameter.default, 'value', parameter.default)}`."
    if parameter.envvar:
        text += f" Environment: `{parameter.envvar}`."
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in (names, text)) + " |"


def _section(path: str, function: Callable[..., Any]) -> str:
    found = parameters(function)
    words = [name for parameter in found if parameter.is_argument for name in parameter.names]
    usage = " ".join([path, *words, "[OPTIONS]"])
    rows = ["| | |", "| --- | --- |", *map(_row, found)]
    return "\n".join([f"### {path}", "", f"`{usage}`", "", inspect.getdoc(function) or "", "", *rows, ""])


def render() -> str:
    """The whole page."""
    codes = "".join(f"| {code.value} | {code.doc} |\n" for code in ExitCode)
    sections = [_section(path, function) for path, function in commands(app)]
    return HEAD + codes + EXAMPLES + "\n## Commands\n\n" + "\n".join(sections)
