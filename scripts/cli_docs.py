"""docs/CLI.md, from the command line's own definition."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

import typer

from ottla.cli.app import app_of
from ottla.cli.errors import ExitCode
from ottla.cli.examples import examples_of
from ottla.cli.help import CONNECTION

HEAD = """\
# The command line

Generated from the code by `scripts/cli_docs.py`: change a command, then run `make docs`.

`ottla serve` runs a broker, `ottla cluster up` a whole cluster on this machine ([CLUSTER.md](CLUSTER.md)).
Everything else talks to a cluster, Ottla's or any other, through Kafka's protocol; except `ottla log`,
which works on a broker's files.

Those who know Kafka's own tools, rpk or kcat find the same jobs in [FROM-KAFKA.md](FROM-KAFKA.md).

- **Where.** `--bootstrap HOST:PORT`, or `OTTLA_BOOTSTRAP` in the environment, or a profile, or
  127.0.0.1:9092. See [Connection](#connection).
- **For people and for programs.** A terminal gets tables with colours, a pipe gets plain aligned text with
  the same headings. Partitions are shown as ranges (`orders-[0-5]`), topics of users before internal ones.
  `--json` prints one JSON document; `consume`, `log dump` and `trace` print a document in each line. JSON has
  each partition by itself, numbers as numbers, and null for a value that is not known. Remarks, errors and
  progress go to stderr.
- **Positions.** `consume --from` and `group reset-offsets --to` take `beginning`, `end`, an offset (`42`),
  the last N of each partition (`-10`), a time (`2026-01-31T12:00:00Z`, or `@1769860800000` in epoch
  milliseconds), or a span back from now (`90s`, `15m`, `2h`, `7d`).
- **Messages in JSON.** `{"topic": …, "partition": …, "offset": …, "timestamp_ms": …, "timestamp_type": …,
  "key": …, "value": …, "headers": [{"key": …, "value": …}]}`. What is not UTF-8 is `{"base64": "…"}`.
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

ottla acl add alice --operation read --topic orders --group billing
ottla token create --renewer User:scheduler --max-lifetime 7d  # for a program that gets no password

ottla feature describe                                         # what the cluster has agreed on
ottla feature upgrade --release-version 4.3 --dry-run

ottla log dump data/orders-0/*.log --records
ottla log verify ./data --repair                               # read everything, mend what can be
ottla log stray list ./data                                    # what was set aside
ottla trace --client 'shop-*' --api Produce --seconds 60        # what clients ask a node for, as it happens
ottla bench produce --messages 2000000 --compression lz4
```
"""


CONNECTING = """\
All commands that talk to a cluster take the options below. TLS and a login are client properties, under
Kafka's names or librdkafka's: `--command-config` takes the file that Kafka's own tools take.

Each of these comes before those below it:

1. The options `--bootstrap`, `-X` and `--command-config`, in this order. `bootstrap.servers` of a property or
   of a file says where the brokers are, if `--bootstrap` does not.
2. The profile that `--profile` names.
3. The environment: `OTTLA_BOOTSTRAP`, and the file of client properties that `OTTLA_CLIENT_PROPERTIES` names.
4. The current profile: `OTTLA_PROFILE` names it, or else `ottla profile use` chose it, or else it is the
   profile `default`, if there is one.
5. The default: 127.0.0.1:9092 and no client properties.

Client properties of several of these are merged, by name. If `--profile` is given, 3 and 4 do not count: no
password of one cluster is sent to another one.

A profile is a file of client properties that only its owner can read, in `$XDG_CONFIG_HOME/ottla/profiles`
(`~/.config/ottla/profiles`). Kafka's own tools take it by `--command-config`. `ottla profile create` makes
one, and no command shows the passwords in it. A profile may have defaults of options, too, such as
`ottla.default.compression=zstd`."""


@dataclass(frozen=True)
class Parameter:
    """An argument or option as the code declares it."""

    name: str
    names: tuple[str, ...]
    value: str | None
    help: str
    default: Any
    shown_default: str | None
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
    shown = info.show_default if isinstance(info.show_default, str) else None
    return Parameter(name, names, value, text, default, shown, info.envvar, is_argument)


def _row(parameter: Parameter) -> str:
    names = ", ".join(f"`{name}`" for name in parameter.names)
    if parameter.value and not parameter.is_argument:
        names += f" `{parameter.value}`"
    text = parameter.help
    if parameter.envvar:
        text += f" Environment: `{parameter.envvar}`."
    if default := _default(parameter):
        text += f" Default: {default}."
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in (names, text)) + " |"


def _default(parameter: Parameter) -> str | None:
    """The default, as the help shows it; the page leaves out that a flag is off and that nothing is set."""
    if parameter.shown_default is not None:
        return parameter.shown_default
    if parameter.default in (None, inspect.Parameter.empty) or parameter.default is False:
        return None
    return f"`{getattr(parameter.default, 'value', parameter.default)}`"


def _section(path: str, function: Callable[..., Any]) -> str:
    found = parameters(function)
    words = [name for parameter in found if parameter.is_argument for name in parameter.names]
    usage = " ".join([path, *words, "[OPTIONS]"])
    own = [parameter for parameter in found if parameter.name not in CONNECTION]
    parts = [f"### {path}", f"`{usage}`", inspect.getdoc(function) or ""]
    if own:
        parts.append("\n".join(["| | |", "| --- | --- |", *map(_row, own)]))
    if len(own) < len(found):
        parts.append("Also the [connection options](#connection).")
    width = max(len(one.line) for one in examples_of(function))
    lines = [f"{one.line.ljust(width)}  # {one.text}" for one in examples_of(function)]
    parts.append("\n".join(["```sh", *lines, "```"]))
    return "\n\n".join(parts) + "\n"


def _connection() -> str:
    """The options of all commands that talk to a cluster, once."""
    found: dict[str, Parameter] = {}
    for _, function in commands(app_of()):
        found |= {one.name: one for one in parameters(function) if one.name in CONNECTION}
    return "\n".join(["| | |", "| --- | --- |", *map(_row, found.values()), ""])


def render() -> str:
    """The whole page."""
    codes = "".join(f"| {code.value} | {code.doc} |\n" for code in ExitCode)
    sections = [_section(path, function) for path, function in commands(app_of())]
    connection = f"\n## Connection\n\n{CONNECTING}\n\n{_connection()}"
    return HEAD + codes + EXAMPLES + connection + "\n## Commands\n\n" + "\n".join(sections)
