"""What users of rpk, kcat and Kafka's scripts type: taken, or told in our words with their arguments."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import typer

from ottla.cli import aliases
from ottla.cli.app import COMMANDS, app_of, run
from ottla.cli.errors import CliError, ExitCode

TAKEN = [
    ("topics list", "topic list"),
    ("topics ls -b h:1", "topic list -b h:1"),
    ("topic rm orders", "topic delete orders"),
    ("topic info orders", "topic describe orders"),
    ("list topics", "topic list"),
    ("create topic orders -p 3", "topic create orders -p 3"),
    ("get groups", "group list"),
    ("topic list --brokers h:1", "topic list --bootstrap h:1"),
    ("topic list --bootstrap-server=h:1", "topic list --bootstrap h:1"),
    ("topic produce orders -z lz4", "produce orders -z lz4"),
    ("topic consume orders -o start --num 5", "consume orders -o beginning --max 5"),
    ("topic consume orders -o -7", "consume orders -o -7"),
    ("consume --topic orders --from-beginning --max-messages 5", "consume orders --from beginning --max 5"),
    ("consume orders --offset latest", "consume orders --offset end"),
    ("consume orders --isolation-level read_uncommitted", "consume orders --isolation read_uncommitted"),
    ("produce --topic orders --broker-list h:1", "produce orders --bootstrap h:1"),
    ("produce orders --producer.config /dev/null", "produce orders --command-config /dev/null"),
    ("topic alter-config orders --set a=b", "topic alter orders --config a=b"),
    ("topic trim-prefix orders -o 100", "topic trim orders --before 100"),
    ("topic --create --topic orders --partitions 3", "topic create orders --partitions 3"),
    ("topic --bootstrap-server h:1 --list", "topic list --bootstrap h:1"),
    ("group --describe --group g --members", "group describe g --members"),
    (
        "group --reset-offsets --group g --topic t --to-earliest --dry-run",
        "group reset-offsets g --topic t --to beginning",
    ),
    ("group reset-offsets g -t t --shift-by -5 --execute", "group reset-offsets g -t t --shift -5 --execute"),
    (
        "config --alter --entity-type topics --entity-name t --add-config a=b,c=d",
        "config set topic t a=b c=d",
    ),
    ("config --alter --entity-type brokers --entity-name 1 --delete-config a", "config delete broker 1 a"),
    (
        "acl create --allow-principal User:a --operation read --topic t",
        "acl add User:a --operation read --topic t",
    ),
    ("acl --add --deny-principal User:a --topic t", "acl add User:a --deny --topic t"),
    ("cluster info", "cluster describe"),
    ("group offset-delete g -t t", "group delete-offsets g -t t"),
    ("group --delete-offsets --group g --topic t", "group delete-offsets g --topic t"),
    ("security user list", "user list"),
    ("-b h:1 topic list", "topic list -b h:1"),
    ("--bootstrap-server=h:1 -X a=b topic list --json", "topic list --json --bootstrap h:1 -X a=b"),
    ("-b h:1 consume -- orders", "consume -b h:1 -- orders"),
    ("consume -t orders -c 5 -e", "consume orders --max 5"),
    ("consume -G billing orders -J", "consume --group billing orders --json"),
    ("produce -t orders -K :", "produce orders --key-separator :"),
    ("brokers", "cluster describe"),
    ("metadata -b h:1", "cluster describe -b h:1"),
    ("config alter topics orders a=b", "config set topic orders a=b"),
    ("config describe --topic orders", "config describe topic orders"),
    ("config --alter --broker 1 --add-config a=b", "config set broker 1 a=b"),
    ("config --describe --broker-defaults --all", "config describe broker default --all"),
    ("config --describe --group=g", "config describe group g"),
]
TOLD = [
    (
        "kafka-configs --alter --entity-type topics --entity-name t --add-config a=b,c=d",
        "config set topic t a=b c=d",
    ),
    ("kafka-topics.sh --create --topic orders --bootstrap-server h:1", "topic create orders --bootstrap h:1"),
    ("kafka-topics --describe --topic orders", "topic describe orders"),
    ("kafka-console-consumer.sh --topic t --from-beginning", "consume t --follow --from beginning"),
    (
        "kafka-console-consumer.sh --topic t --partition 0 --offset 5",
        "consume t --follow --partition 0 --offset 5",
    ),
    ("kafka-console-consumer.sh --topic t --group g", "consume t --follow --group g --from end"),
    ("kafka-console-producer --topic t", "produce t"),
    ("kafka-consumer-groups --list", "group list"),
    ("topic add-partitions orders --num 3", "topic alter orders --partitions TOTAL"),
    ("group seek g --to start --topics t", "group reset-offsets g --to beginning --topic t --execute"),
    ("-C -b h:1 -t orders -o beginning -e", "consume orders --bootstrap h:1 --from beginning"),
    ("-C -t orders -c 5 -J", "consume orders --follow --max 5 --json"),
    ("-P -b h:1 -t 'my orders' -K:", "produce 'my orders' --bootstrap h:1 --key-separator :"),
    ("-L -b h:1", "cluster describe --bootstrap h:1"),
    ("-b h:1 -L", "cluster describe --bootstrap h:1"),
    ("-b h:1 -t orders -C -e", "consume orders --bootstrap h:1"),
    ("start", "serve"),
    ("redpanda start --smp 1", "serve"),
    ("container start -n 3", "cluster up --nodes N"),
]


def meant(line: str) -> tuple[list[str], Any]:
    """Our words for a command line, and the command that they are of."""
    words = aliases.command(shlex.split(line)).words
    command: Any = typer.main.get_command(app_of(words[0] if words[0] in COMMANDS else None))
    names = []
    while hasattr(command, "commands"):
        names.append(aliases.verb_of(words[0], command.commands))
        command, words = command.commands[names[-1]], words[1:]
    return [*names, *aliases.options(command.params, words)], command


@pytest.mark.parametrize(("theirs", "ours"), TAKEN)
def test_what_means_the_same_is_taken(theirs: str, ours: str) -> None:
    words, command = meant(theirs)
    # An argument may come before or behind an option.
    assert sorted(words) == sorted(shlex.split(ours))
    assert words[:2] == shlex.split(ours)[:2] or theirs.startswith(("produce", "topic pro"))
    command.make_context("command", words[2 if words[0] not in ("produce", "consume") else 1 :])


@pytest.mark.parametrize(("theirs", "ours"), TOLD)
def test_what_means_something_else_is_told_with_the_users_own_arguments(theirs: str, ours: str) -> None:
    with pytest.raises(CliError) as caught:
        run(shlex.split(theirs))
    assert caught.value.code is ExitCode.USAGE
    assert f": type 'ottla {ours}'" in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "topic list -b h:1 --json",
        "produce orders --key --brokers --key-separator --topic",
        "produce orders -H --offset=1",
        "produce orders --bootstrap=h:1 -z lz4",
        "consume orders -fn 5 -g --offset",
        "consume -- --from-beginning",
        "topic create -p 3 --dry-run t",
        "acl add User:x -o read --topic t",
        "cluster reassign --topics a --dry-run",
        "bench requests -k 5",
    ],
)
def test_our_own_words_are_left_alone(line: str) -> None:
    """Values of options, too, whatever they look like."""
    assert meant(line)[0] == shlex.split(line)


@pytest.mark.parametrize(
    "words",
    [
        "group reset-offsets g --topic t --to end --dry-run --execute",
        "group --reset-offsets --group g --topic t --to-latest --execute --dry-run",
    ],
)
def test_dry_run_is_not_left_out_beside_execute(words: str) -> None:
    with pytest.raises(CliError, match="--dry-run and --execute: give one of them"):
        meant(words)


def test_dry_run_is_never_left_out_where_the_command_would_do_it() -> None:
    words, command = meant("topic delete t --dry-run")
    assert "--dry-run" in words
    with pytest.raises(Exception, match="No such option"):
        command.make_context("command", words[2:])


def test_every_name_that_is_ours_exists() -> None:
    whole: Any = typer.main.get_command(app_of())
    targets = [*aliases.COMMANDS.values(), *aliases.TOOLS.values(), *aliases.KCAT.values()]
    targets += [hint.command for hint in aliases.HINTS.values()]
    targets += [(group, name) for group, names in aliases.ACTIONS.items() for name in names.values()]
    for target in targets:
        command = whole
        for word in target:
            if not word.startswith("-"):
                command = command.commands[word]
    assert set(aliases.GROUPS.values()) <= set(whole.commands)
    for path in (*aliases.COMMANDS, *aliases.HINTS):
        command = whole.commands.get(path[0])
        taken = command is not None and (path[1:] == () or path[1] in command.commands)
        assert not taken, f"{path} is a command of ours"


def options_of(command: Any) -> set[str]:
    if hasattr(command, "commands"):
        return {name for one in command.commands.values() for name in options_of(one)}
    return {name for parameter in command.params for name in parameter.opts}


def test_every_option_that_is_ours_exists() -> None:
    known = options_of(typer.main.get_command(app_of()))
    names = {option.name for row in aliases.OPTIONS.values() for option in row} | set(
        aliases.KCAT_VALUES.values()
    )
    assert names - {"", "--key"} <= known
