"""`ottla user`: users who log in by SCRAM, as kafka-configs.sh --entity-type users keeps their passwords."""

from __future__ import annotations

import getpass
import secrets
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from ottla.cli import output
from ottla.cli.direct import DirectCluster, check
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.examples import examples
from ottla.cli.options import BOOTSTRAP_DEFAULT, Bootstrap, Json, Properties, whole_number
from ottla.cli.values import check_text, shown
from ottla.env.small_files import read_within
from ottla.errors import ErrorCode
from ottla.security.sasl.scram import (
    ITERATIONS_MAX,
    ITERATIONS_MIN,
    NONCE_BYTES,
    ScramHash,
    salt_of,
    salted_password,
)

app = typer.Typer(no_args_is_help=True, help="Keep the passwords of users who log in by SCRAM.")

PASSWORD_BYTES_MAX = 64 * 1024

_HASHES = {hash.mechanism: hash for hash in ScramHash}
_MECHANISMS = {hash.number: hash.mechanism for hash in ScramHash}

Name = Annotated[str, typer.Argument(metavar="USER", help="The user's name, without 'User:'.")]
Mechanism = Annotated[
    list[str] | None,
    typer.Option(
        "--mechanism",
        "-m",
        metavar="MECHANISM",
        show_default="both",
        help="SCRAM-SHA-256 or SCRAM-SHA-512. Repeatable.",
    ),
]


@app.command()
@examples(
    ("ottla user create alice", "Create a user. The command asks for the password."),
    (
        "ottla user create alice --mechanism SCRAM-SHA-512 --password-file alice.txt",
        "Take the password from a file.",
    ),
)
def create(
    user: Name,
    mechanism: Mechanism = None,
    iterations: Annotated[
        int,
        typer.Option(
            "--iterations",
            metavar="N",
            parser=whole_number(ITERATIONS_MIN, ITERATIONS_MAX),
            help="How often the password is hashed.",
        ),
    ] = ITERATIONS_MIN,
    password_file: Annotated[
        Path | None,
        typer.Option(
            "--password-file",
            metavar="FILE",
            show_default="the command asks for it",
            help="The file of the password; the end of its line does not count.",
        ),
    ] = None,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Give a user a password, or another one.

    It does not leave this machine: what is sent and kept cannot be turned back into it.
    """
    check_text("USER", user)
    hashes = _hashes(mechanism)
    password = _password(user, password_file)
    with closing(DirectCluster(bootstrap, property)) as brokers:
        for hash in hashes:
            salt = salt_of(secrets.token_bytes(NONCE_BYTES))
            upsertion = {
                "name": user,
                "mechanism": hash.number,
                "iterations": iterations,
                "salt": salt,
                "salted_password": salted_password(hash, password, salt, iterations),
            }
            _alter(brokers, user, {"deletions": (), "upsertions": [upsertion]})
    _say_done(user, [hash.mechanism for hash in hashes], "set", json)


@app.command(name="list")
@examples(
    ("ottla user list", "List all users and the mechanisms that they can log in by."),
    ("ottla user list alice --json", "Show one user as JSON."),
)
def list_(
    user: Annotated[
        list[str] | None, typer.Argument(metavar="USER", show_default="all", help="Only these users.")
    ] = None,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """List users, and the mechanisms that they can log in by."""
    with closing(DirectCluster(bootstrap, property)) as brokers:
        results = _described(brokers, *dict.fromkeys(user or ()))
    found = []
    for result in sorted(results, key=lambda each: str(each.user)):
        if result.error_code != ErrorCode.resource_not_found:
            check(result.error_code, result.error_message, f"user {shown(result.user)}")
        found += [(result.user, _name(i.mechanism), i.iterations) for i in result.credential_infos]
    columns = ("user", "mechanism", "iterations")
    documents = [dict(zip(columns, row, strict=True)) for row in found]
    output.listing(documents, columns, found, json, none="no users")
    missing = [result.user for result in results if not result.credential_infos]
    if missing:
        raise CliError(f"user {shown(missing[0])} does not exist; see 'ottla user list'", ExitCode.NOT_FOUND)


@app.command()
@examples(
    ("ottla user delete alice --mechanism SCRAM-SHA-256", "Delete the password for one mechanism."),
    ("ottla user delete alice", "Delete the passwords for all mechanisms."),
)
def delete(
    user: Name,
    mechanism: Mechanism = None,
    json: Json = False,
    bootstrap: Bootstrap = BOOTSTRAP_DEFAULT,
    property: Properties = None,
) -> None:
    """Take a user's password away. Who has logged in stays so until the connection ends."""
    check_text("USER", user)
    wanted = {hash.number for hash in _hashes(mechanism)}
    with closing(DirectCluster(bootstrap, property)) as brokers:
        (result,) = _described(brokers, user)
        there = [info.mechanism for info in result.credential_infos if info.mechanism in wanted]
        if not there:
            raise CliError(
                f"user {shown(user)} has no such password; see 'ottla user list'", ExitCode.NOT_FOUND
            )
        for number in there:
            _alter(brokers, user, {"deletions": [{"name": user, "mechanism": number}], "upsertions": ()})
    _say_done(user, list(map(_name, there)), "deleted", json)


def _hashes(mechanisms: list[str] | None) -> list[ScramHash]:
    found = []
    for name in mechanisms or _HASHES:
        hash = _HASHES.get(name.upper())
        if hash is None:
            output.fail_usage(f"--mechanism {shown(name)}: give one of {', '.join(_HASHES)}")
        found.append(hash)
    return list(dict.fromkeys(found))


def _name(number: int) -> str:
    return _MECHANISMS.get(number, f"mechanism {number}")


def _password(user: str, file: Path | None) -> bytes:
    """The password, from a file, from a terminal, or else from standard input."""
    if file is not None:
        try:
            password = read_within(str(file), PASSWORD_BYTES_MAX + 2)
        except ValueError as error:
            raise CliError(f"--password-file {file}: {error}", ExitCode.USAGE) from None
    elif sys.stdin.isatty():
        password = getpass.getpass(f"password of {user}: ").encode()
        if getpass.getpass("once more: ").encode() != password:
            raise CliError("the two are not the same")
    else:
        password = sys.stdin.buffer.readline(PASSWORD_BYTES_MAX + 1)
    password = password.removesuffix(b"\n").removesuffix(b"\r")
    if not password or len(password) > PASSWORD_BYTES_MAX:
        raise CliError(f"a password has at least one byte, and {PASSWORD_BYTES_MAX} at most", ExitCode.USAGE)
    return password


def _described(brokers: DirectCluster, *users: str) -> Any:
    fields = {"users": [{"name": name} for name in users] or None}
    answer = brokers.ask("DescribeUserScramCredentials", fields)
    check(answer.error_code, answer.error_message, "users")
    return answer.results


def _alter(brokers: DirectCluster, user: str, fields: dict[str, Any]) -> None:
    for result in brokers.ask("AlterUserScramCredentials", fields).results:
        check(result.error_code, result.error_message, f"user {shown(user)}")


def _say_done(user: str, mechanisms: list[str], what: str, json: bool) -> None:
    documents = [{"user": user, "mechanism": name, "result": what} for name in mechanisms]
    output.say_done(documents, [f"{user}: {name} {what}" for name in mechanisms], json)
