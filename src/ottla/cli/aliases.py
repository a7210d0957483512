"""What users of rpk, kcat and Kafka's scripts type, as tables: taken as it is meant, or told in our words.

What means the same here is taken without a word: ``ottla topics ls``, ``ottla topic --create --topic orders
--bootstrap-server HOST:PORT``. What would do something else, or is another tool's name, gets one line with
the command to type. Help and documentation show none of it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ottla.cli.errors import CliError, ExitCode

# Names of groups of commands.
GROUPS = {
    f"{name}s": name
    for name in (
        "topic",
        "group",
        "config",
        "feature",
        "transaction",
        "acl",
        "user",
        "token",
        "quota",
        "profile",
    )
} | {"consumer-groups": "group", "txn": "transaction"}
# Names of commands within a group that has one of the second name, and none of the first.
VERBS = {
    "ls": "list",
    "rm": "delete",
    "remove": "delete",
    "info": "describe",
    "show": "describe",
    "get": "describe",
    "add": "create",
    "new": "create",
    "update": "alter",
}
# Verbs that may come before the name of a group: 'create topic orders'.
VERB_FIRST = frozenset(("create", "list", "describe", "alter", "delete", "get", "ls", "rm", "add", "remove"))
# Commands that are elsewhere here, or have another name.
COMMANDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("topic", "produce"): ("produce",),
    ("topic", "consume"): ("consume",),
    ("topic", "alter-config"): ("topic", "alter"),
    ("topic", "trim-prefix"): ("topic", "trim"),
    ("group", "offset-delete"): ("group", "delete-offsets"),
    ("cluster", "info"): ("cluster", "describe"),
    ("cluster", "metadata"): ("cluster", "describe"),
    ("cluster", "health"): ("cluster", "describe"),
    ("cluster", "logdirs", "describe"): ("logdirs",),
    ("cluster", "txn"): ("transaction",),
    ("acl", "create"): ("acl", "add"),
    ("acl", "delete"): ("acl", "remove"),
    ("security", "acl"): ("acl",),
    ("security", "user"): ("user",),
    ("config", "alter"): ("config", "set"),
    ("broker", "list"): ("cluster", "describe"),
    ("brokers", "list"): ("cluster", "describe"),
    ("container", "status"): ("cluster", "status"),
    ("container", "stop"): ("cluster", "down"),
    ("profile", "print"): ("profile", "show"),
    ("metadata",): ("cluster", "describe"),
    ("brokers",): ("cluster", "describe"),
}
# What Kafka's scripts do is an option of theirs.
ACTIONS: dict[str, dict[str, str]] = {
    "topic": {f"--{name}": name for name in ("create", "list", "describe", "alter", "delete")},
    "group": {
        f"--{name}": name
        for name in (
            "list",
            "describe",
            "delete",
            "reset-offsets",
            "delete-offsets",
        )
    },
    "config": {"--describe": "describe", "--alter": "set"},
    "acl": {f"--{name}": name for name in ("add", "list", "remove")},
    "token": {f"--{name}": name for name in ("create", "renew", "expire")} | {"--describe": "list"},
}
# Kafka's scripts, and what we call them.
TOOLS: dict[str, tuple[str, ...]] = {
    "kafka-topics": ("topic",),
    "kafka-console-producer": ("produce",),
    "kafka-console-consumer": ("consume", "--follow"),
    "kafka-consumer-groups": ("group",),
    "kafka-configs": ("config",),
    "kafka-acls": ("acl",),
    "kafka-features": ("feature",),
    "kafka-transactions": ("transaction",),
    "kafka-delegation-tokens": ("token",),
    "kafka-log-dirs": ("logdirs",),
    "kafka-broker-api-versions": ("apis",),
    "kafka-dump-log": ("log", "dump"),
    "kafka-delete-records": ("topic", "trim"),
    "kafka-leader-election": ("cluster", "elect"),
    "kafka-reassign-partitions": ("cluster", "reassign"),
    "kafka-get-offsets": ("topic", "describe"),
    "kafka-server-start": ("serve",),
}
# Without one of these kafka-console-consumer.sh shows new messages only.
STARTS = frozenset(("--from-beginning", "--offset", "--from"))


class Option(NamedTuple):
    """An option of ours in place of another's: ``value`` where theirs has none, ``values`` in other words."""

    name: str
    value: str | None = None
    values: Mapping[str, str] = {}
    # Only in commands that have this option, too.
    needs: str | None = None


_PLACES = {"start": "beginning", "earliest": "beginning", "latest": "end"}
# The first that the command has counts; an empty name leaves the option out.
OPTIONS: dict[str, tuple[Option, ...]] = {
    "--brokers": (Option("--bootstrap"),),
    "--broker-list": (Option("--bootstrap"),),
    "--bootstrap-server": (Option("--bootstrap"),),
    "--bootstrap-servers": (Option("--bootstrap"),),
    "--bootstrap-controller": (Option("--bootstrap"),),
    "--producer.config": (Option("--command-config"),),
    "--consumer.config": (Option("--command-config"),),
    "--producer-config": (Option("--command-config"),),
    "--consumer-config": (Option("--command-config"),),
    "--producer-property": (Option("--property"),),
    "--consumer-property": (Option("--property"),),
    "--command-property": (Option("--property"),),
    "--from-beginning": (Option("--from", "beginning"),),
    "--offset": (Option("--from", values=_PLACES), Option("--before")),
    "-o": (Option("--from", values=_PLACES), Option("--before")),
    "--max-messages": (Option("--max"),),
    # kcat's: the count; to end at the end, which is what our command does without --follow.
    "-c": (Option("--max"),),
    "-e": (Option("", needs="--follow"),),
    "-G": (Option("--group"),),
    "-J": (Option("--json", ""),),
    "-K": (Option("--key-separator"),),
    "-F": (Option("--command-config"),),
    "--num": (Option("--max"),),
    "--isolation-level": (Option("--isolation"),),
    "--compression-codec": (Option("--compression"),),
    "--request-required-acks": (Option("--acks"),),
    "--replicas": (Option("--replication-factor"),),
    "--topic-config": (Option("--config"),),
    "--set": (Option("--config"),),
    "--topics": (Option("--topic"),),
    "--partitions": (Option("--partition"),),
    "--to-earliest": (Option("--to", "beginning"),),
    "--to-latest": (Option("--to", "end"),),
    "--to-offset": (Option("--to"),),
    "--to-datetime": (Option("--to"),),
    "--shift-by": (Option("--shift"),),
    # To show what would change is what our command does without --execute.
    "--dry-run": (Option("", needs="--execute"),),
    "--deny-principal": (Option("--deny", ""),),
}
# Options of theirs that are arguments here, by the name that the argument has in the help.
ARGUMENTS = {
    "--topic": "TOPIC",
    "-t": "TOPIC",
    "--group": "GROUP",
    "--transactional-id": "TRANSACTIONAL_ID",
    "--entity-type": "KIND",
    "--entity-name": "NAME",
    "--add-config": "CONFIG=VALUE",
    "--delete-config": "CONFIG",
    "--allow-principal": "PRINCIPAL",
    "--deny-principal": "PRINCIPAL",
    "--files": "FILE",
}
# Options that say of what the configurations are, where KIND and NAME are arguments.
KIND_OPTIONS = {
    "--topic": "topic",
    "--broker": "broker",
    "--group": "group",
    "--broker-logger": "logger",
    "--client-metrics": "client-metrics",
}
KINDS = {"topics": "topic", "brokers": "broker", "groups": "group", "broker-loggers": "logger"}


class Hint(NamedTuple):
    """A command that does not mean what one of ours does: ours, with the options to leave out and to add,
    and the difference."""

    command: tuple[str, ...]
    drop: tuple[str, ...]
    add: tuple[str, ...]
    why: str


HINTS: dict[tuple[str, ...], Hint] = {
    ("topic", "add-partitions"): Hint(
        ("topic", "alter"),
        ("--num", "-n"),
        ("--partitions", "TOTAL"),
        "TOTAL is the number of partitions in all, not of those that are added",
    ),
    ("group", "seek"): Hint(
        ("group", "reset-offsets"), (), ("--execute",), "without --execute it shows what would change"
    ),
    ("start",): Hint(("serve",), (), (), ""),
    ("server",): Hint(("serve",), (), (), ""),
    ("redpanda", "start"): Hint(("serve",), ("--smp", "--memory", "--mode"), (), ""),
    ("container", "start"): Hint(("cluster", "up"), ("--nodes", "-n"), ("--nodes", "N"), "N is 1 to 9"),
}
# Options of every command of theirs that may come before its name, each with a value.
BEFORE = frozenset(
    ("-b", "--bootstrap", "--bootstrap-server", "--brokers", "-X", "--profile", "--command-config")
)
# kcat's modes and options.
KCAT = {"-C": ("consume", "--follow"), "-P": ("produce",), "-L": ("cluster", "describe"), "-G": ("consume",)}
KCAT_VALUES = {
    "-b": "--bootstrap",
    "-p": "--partition",
    "-o": "--from",
    "-c": "--max",
    "-K": "--key-separator",
    "-k": "--key",
    "-X": "--property",
    "-z": "--compression",
    "-F": "--command-config",
}


class Words(NamedTuple):
    """A command line after its first words were looked up; ``hint``: what to say instead of running it."""

    words: list[str]
    hint: str | None = None
    why: str = ""


def command(words: Sequence[str]) -> Words:
    """The command that the first words of a command line mean."""
    given = _named_first(words)
    if given and given[0] in KCAT:
        return Words(_of_kcat(given), "this is kcat's command line")
    hint = None
    if given and (tool := given[0].removesuffix(".sh").removesuffix(".bat")) in TOOLS:
        hint = f"{given[0]!r} is a script of Kafka"
        given[:1] = TOOLS[tool]
        if tool == "kafka-console-consumer" and STARTS.isdisjoint(word.partition("=")[0] for word in given):
            given += ["--from", "end"]
    given[:1] = [GROUPS.get(word, word) for word in given[:1]]
    if len(given) > 1 and given[0] in VERB_FIRST:
        name = GROUPS.get(given[1], given[1])
        verb = "list" if given[0] == "get" and not given[2:] else given[0]
        given[:2] = [name, verb] if name in GROUPS.values() else given[:2]
    for length in (3, 2, 1):
        found = COMMANDS.get(tuple(given[:length]))
        if found is not None:
            given[:length] = found
    for length in (2, 1):
        if (row := HINTS.get(tuple(given[:length]))) is not None:
            rest = _without(given[length:], row.drop)
            no_command = f"there is no command {' '.join(given[:length])!r}"
            return Words([*row.command, *rest, *row.add], no_command, row.why)
    return Words(_with_action(given), hint)


def _named_first(words: Sequence[str]) -> list[str]:
    """The words with what the command is called in front, and what came before that at the end."""
    if not words or not words[0].startswith("-"):
        return list(words)
    for position, word in enumerate(words):
        if word in KCAT:
            return [word, *words[:position], *words[position + 1 :]]
    at = 0
    while at < len(words) and words[at].partition("=")[0] in BEFORE:
        at += 1 if "=" in words[at] else 2
    if at >= len(words):
        return list(words)
    end = words.index("--") if "--" in words else len(words)
    return [*words[at:end], *words[:at], *words[end:]]


def _with_action(words: list[str]) -> list[str]:
    """The option that says what to do, in the place of our command's name."""
    actions = ACTIONS.get(words[0], {}) if len(words) > 1 and words[1].startswith("-") else {}
    for position, word in enumerate(words):
        if word in actions:
            name = actions[word]
            if name == "set" and "--delete-config" in words:
                name = "delete"
            return [words[0], name, *words[1:position], *words[position + 1 :]]
    return words


def _without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    left: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word.partition("=")[0] in options:
            skip = "=" not in word
        else:
            left.append(word)
    return left


def _of_kcat(words: Sequence[str]) -> list[str]:
    """kcat's options in ours, as far as there are any."""
    made = list(KCAT[words[0]])
    topic: list[str] = []
    rest = iter(words[1:])
    for word in rest:
        option, value = word[:2], word[2:]
        if option in KCAT_VALUES:
            made += [KCAT_VALUES[option], value or next(rest, "…")]
        elif option == "-t":
            topic = [value or next(rest, "TOPIC")]
        elif option == "-J":
            made.append("--json")
        elif option == "-e" and "--follow" in made:
            made.remove("--follow")
        elif not option.startswith("-") and words[0] == "-G":
            made += ["--group", word] if "--group" not in made else []
            topic = topic if made[-1] == word else [word]
    at = next((i for i, word in enumerate(made) if word.startswith("-")), len(made))
    needed = topic or ([] if words[0] == "-L" else ["TOPIC"])
    return [*made[:at], *(needed if words[0] != "-L" else []), *made[at:]]


def verb_of(name: str, known: Mapping[str, Any]) -> str:
    """The command of a group that ``name`` means; ``name`` where it is none."""
    meant = VERBS.get(name, name)
    return meant if name not in known and meant in known else name


def options(parameters: Sequence[Any], words: Sequence[str]) -> list[str]:
    """The words behind a command, with ours for others' options.

    ``parameters`` are the command's. An option that the command has is left alone, with its value.
    """
    known = {
        name: parameter
        for parameter in parameters
        if parameter.param_type_name == "option"
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    arguments = [
        str(parameter.metavar or parameter.name).strip("[]…").upper()
        for parameter in parameters
        if parameter.param_type_name == "argument"
    ]
    by_option: dict[str, list[str]] = {}
    made: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--":
            made += [word, *rest]
        elif not word.startswith("-") or word == "-":
            is_kind = "KIND" in arguments and "KIND" not in by_option and not made
            made.append(KINDS.get(word, word) if is_kind else word)
        else:
            made += _option(word, rest, known, arguments, by_option)
    if "--execute" in made and _is_left_out("--dry-run", known, words):
        raise CliError("--dry-run and --execute: give one of them", ExitCode.USAGE)
    return [*(value for name in arguments for value in by_option.get(name, ())), *made]


def _is_left_out(name: str, known: Mapping[str, Any], words: Sequence[str]) -> bool:
    before = words[: words.index("--")] if "--" in words else words
    return name in before and name not in known


def _option(
    word: str,
    rest: Iterator[str],
    known: Mapping[str, Any],
    arguments: Sequence[str],
    by_option: dict[str, list[str]],
) -> Iterator[str]:
    name, equals, value = word.partition("=")
    if not word.startswith("--"):
        name, equals, value = word[:2], word[2:3], word[2:]
    if name in known:
        taking = not getattr(known[name], "is_flag", False) and not equals
        yield word
        if taking or (not word.startswith("--") and _ends_open(word, known)):
            places = _PLACES if known[name].metavar == "POSITION" else {}
            yield from (places.get(given, given) for given in _next(rest))
        return
    if "KIND" in arguments and (name in KIND_OPTIONS or name == "--broker-defaults"):
        by_option["KIND"] = [KIND_OPTIONS.get(name, "broker")]
        by_option["NAME"] = (
            ["default"] if name == "--broker-defaults" else [value] if equals else [*_next(rest)]
        )
        return
    taken = False
    if (argument := ARGUMENTS.get(name)) in arguments and argument is not None:
        given = value if equals else next(rest, None)
        if given is None:
            yield word
            return
        parts = given.split(",") if argument.startswith("CONFIG") else [given]
        if argument == "KIND":
            parts = [KINDS.get(given, given)]
        by_option.setdefault(argument, []).extend(parts)
        taken = True
    for option in OPTIONS.get(name, ()):
        if (option.name in known or not option.name) and (option.needs is None or option.needs in known):
            yield from _ours(option, value if equals else None, rest)
            return
    if not taken:
        yield word


def _ours(option: Option, value: str | None, rest: Iterator[str]) -> Iterator[str]:
    if not option.name:
        return
    yield option.name
    if option.value is not None:
        yield from filter(None, [option.value])
    else:
        for given in [value] if value is not None else _next(rest):
            yield option.values.get(given, given)


def _next(rest: Iterator[str]) -> Iterator[str]:
    word = next(rest, None)
    if word is not None:
        yield word


def _ends_open(word: str, known: Mapping[str, Any]) -> bool:
    """Whether the last of several short options in a word has its value in the next."""
    for position, letter in enumerate(word[1:], 1):
        parameter = known.get(f"-{letter}")
        if parameter is None:
            return False
        if not getattr(parameter, "is_flag", False):
            return position == len(word) - 1
    return False


def hint(words: Sequence[str], given: Words) -> CliError:
    """The line that names the command to type."""
    why = f" ({given.why})" if given.why else ""
    return CliError(f"{given.hint}: type 'ottla {shlex.join(words)}'{why}.", ExitCode.USAGE)
