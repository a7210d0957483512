"""What clients can have written into the log is bounded, in length and in number."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterable, Iterator

import pytest

from ottla import __version__, implementation, logging_setup
from ottla.broker import request as client
from ottla.logging_setup import (
    FIRST_LINES_MAX,
    LINE_CHARACTERS_MAX,
    LINES_MAX,
    STRANGER_LINES_MAX,
    STRANGERS_LATE_LINES_MAX,
    STRANGERS_LINES_MAX,
    JsonFormatter,
    Limiter,
    TextFormatter,
    networks_of,
)
from ottla.security.principals import user

NOW_S = 1_700_000_000.0


class Log:
    """A logger of its own, and what it wrote."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self.out = io.StringIO()
        self.logger = logging.Logger("clients")
        handler = logging.StreamHandler(self.out)
        handler.addFilter(Limiter())
        handler.setFormatter(formatter)
        self.logger.addHandler(handler)

    def write(self, message: str, *args: object, at_s: float = NOW_S, line: int = 1) -> None:
        record = self.logger.makeRecord("clients", logging.WARNING, "a.py", line, message, args, None)
        record.created = at_s
        self.logger.handle(record)

    def lines(self) -> list[str]:
        return self.out.getvalue().splitlines()


@pytest.fixture
def log() -> Iterator[Log]:
    yield Log(TextFormatter("%(message)s"))


def test_a_line_is_cut(log: Log) -> None:
    log.write("group %s: a member left", "g" * 32_767)
    # As escapes they are longer than they were.
    log.write("group %s: a member left", "\x1b" * LINE_CHARACTERS_MAX)
    assert all(LINE_CHARACTERS_MAX < len(line) < LINE_CHARACTERS_MAX + 50 for line in log.lines())
    assert log.lines()[0].endswith(" more characters)")
    whole = Log(JsonFormatter())
    whole.write("%s", "x" * 32_767)
    assert len(json.loads(whole.lines()[0])["message"]) < LINE_CHARACTERS_MAX + 50


def test_one_place_says_so_much_and_no_more(log: Log) -> None:
    for number in range(LINES_MAX + 500):
        log.write("client %d", number)
    assert len(log.lines()) == LINES_MAX
    assert log.lines()[-1] == f"client {LINES_MAX - 1} (more lines like this are left out for up to 60 s)"
    # Another place has lines of its own.
    log.write("something else", line=2)
    assert log.lines()[-1] == "something else"
    # A minute later, and where the clock was set back, it says so again, and how many were left out.
    log.write("client", at_s=NOW_S + 60)
    assert log.lines()[-1] == "client (500 lines like this were left out before it)"
    log.write("client", at_s=NOW_S - 3600)
    assert log.lines()[-1] == "client"


class Client:
    """Somebody at an address."""

    def __init__(self, host: str) -> None:
        self.host = host

    def __str__(self) -> str:
        return f"client {self.host}"


def test_a_flood_of_one_client_hides_no_other(log: Log) -> None:
    for _ in range(LINES_MAX + 500):
        log.write("%s: the login failed", Client("10.0.0.66"))
    assert len(log.lines()) == LINES_MAX
    for number in range(10):
        log.write("%s: try %d failed", Client("10.0.0.1"), number)
    assert log.lines()[LINES_MAX:] == [
        f"client 10.0.0.1: try {number} failed" for number in range(FIRST_LINES_MAX)
    ]
    # A line may say by itself whose it is.
    record = log.logger.makeRecord("clients", logging.WARNING, "a.py", 1, "x", (), None, extra={"host": "b"})
    record.created = NOW_S
    log.logger.handle(record)
    assert log.lines()[-1] == "x"
    log.write("client", at_s=NOW_S + 60)
    assert log.lines()[-1] == "client (505 lines like this were left out before it)"


def test_an_address_of_strangers_fills_no_log(log: Log) -> None:
    stranger, known = client.Client("10.0.0.66", "L"), client.Client("10.0.0.66", "L")
    known.principal = user("alice")
    for _ in range(5 * LINES_MAX):
        log.write("%s: the login failed", stranger)
    assert len(log.lines()) == STRANGER_LINES_MAX
    assert log.lines()[-1].endswith("(more lines like this from there are left out for up to 60 s)")
    # Whoever has logged in, and others, have as many lines as if nothing had been.
    for _ in range(LINES_MAX):
        log.write("%s: something", known)
    assert len(log.lines()) == STRANGER_LINES_MAX + LINES_MAX
    log.write("client", at_s=NOW_S + 60)
    left_out = 5 * LINES_MAX - STRANGER_LINES_MAX
    assert log.lines()[-1] == f"client ({left_out} lines like this were left out before it)"


def failed_logins(log: Log, hosts: Iterable[str]) -> list[str]:
    """What is written of logins of strangers at these addresses that fail, one each."""
    before = len(log.lines())
    for host in hosts:
        log.write("%s: the login failed", client.Client(host, "L"))
    return log.lines()[before:]


def test_whoever_has_a_network_of_ipv6_says_no_more_than_with_one_address(log: Log) -> None:
    own = failed_logins(log, (f"2001:db8:1:1::{number:x}" for number in range(5 * LINES_MAX)))
    assert len(own) == STRANGER_LINES_MAX
    # Others have theirs: the next network, IPv4, and IPv4 as a socket of IPv6 shows it.
    assert len(failed_logins(log, ["2001:db8:1:2::1", "10.0.0.1", "::ffff:10.0.0.2"])) == 3


def test_strangers_with_networks_without_number_fill_no_log_and_hide_nobody(log: Log) -> None:
    wide = failed_logins(log, (f"2001:db8:1:{number:x}::1" for number in range(5 * LINES_MAX)))
    assert len(wide) == STRANGERS_LINES_MAX
    assert wide[-1].endswith(
        "(more lines like this of clients that have not logged in are left out for up to 60 s)"
    )
    # The first lines of others are written, as long as these are not too many.
    assert len(failed_logins(log, ["10.0.0.1"] * 10)) == FIRST_LINES_MAX
    others = failed_logins(log, (f"2001:db8:{number:x}::1" for number in range(2, 5 * LINES_MAX)))
    assert len(others) == STRANGERS_LATE_LINES_MAX - FIRST_LINES_MAX
    # Whoever has logged in is not concerned.
    known = client.Client("2001:db8:1::1", "L")
    known.principal = user("alice")
    before = len(log.lines())
    for _ in range(LINES_MAX):
        log.write("%s: something", known)
    assert len(log.lines()) == before + LINES_MAX


@pytest.mark.parametrize(
    ("host", "own", "wide"),
    [
        ("10.0.0.1", "10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2::3", bytes.fromhex("20010db800010002"), bytes.fromhex("20010db80001")),
        ("64:ff9b::a00:1", "10.0.0.1", "10.0.0.1"),
        (
            "fe80::1%eth0",
            bytes.fromhex("fe800000000000000000000000000001"),
            bytes.fromhex("fe80000000000000"),
        ),
        ("a:b", "a:b", "a:b"),
        ("", "", ""),
    ],
)
def test_networks_of_an_address(host: str, own: object, wide: object) -> None:
    assert networks_of(host) == (own, wide)


def test_clients_without_number_say_no_more_than_twice_as_much(log: Log) -> None:
    for number in range(5 * LINES_MAX):
        log.write("%s: the login failed", Client(f"10.0.{number >> 8}.{number & 255}"))
    assert len(log.lines()) == 2 * LINES_MAX


def test_the_first_line_says_what_runs(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        logging_setup.set_up("text", "info")
        assert capsys.readouterr().err == ""
        for line in ("one", "two"):
            logging.getLogger("ottla.node").info(line)
        heading, first, second = capsys.readouterr().err.splitlines()
        assert f"ottla {__version__} ({implementation.name()}), Python 3." in heading
        assert (first.endswith(": one"), second.endswith(": two")) == (True, True)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def test_the_process_logs_so() -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        logging_setup.set_up("text", "info")
        assert any(isinstance(one, Limiter) for handler in root.handlers for one in handler.filters)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
