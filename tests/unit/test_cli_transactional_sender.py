"""`ottla produce --transactional-id`: which messages are in which transaction, and what is said of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import given
from hypothesis import strategies as st

from ottla.cli.errors import CliError, ExitCode
from ottla.cli.produce import Source
from ottla.cli.transactional_sender import TransactionalSender

PLAIN = Source(json=False, key=None, key_separator=None, headers=(), partition=-1, null=None)
JSON = Source(json=True, key=None, key_separator=None, headers=(), partition=-1, null=None)


class Delivered:
    """Where a message is."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset


class FakeProducer:
    """Delivers when it is flushed; keeps what was committed. ``failures``: by call, what comes before."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.committed: list[list[bytes]] = []
        self.failures: dict[str, list[BaseException]] = {}
        self.refusal: KafkaError | None = None
        self._open: list[bytes] | None = None
        self._waiting = 0
        self.told: Any = None
        self._offset = 0

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if left := self.failures.get(name):
            raise left.pop(0)

    def init_transactions(self, timeout_s: float) -> None:
        self._call("init")

    def begin_transaction(self) -> None:
        self._call("begin")
        assert self._open is None
        self._open = []

    def commit_transaction(self, timeout_s: float) -> None:
        self._call("commit")
        assert self._open is not None
        self.committed.append(self._open)
        self._open = None

    def abort_transaction(self, timeout_s: float) -> None:
        self._call("abort")
        assert self._open is not None
        self._open = None

    def produce(self, topic: str, value: bytes, *others: Any) -> None:
        assert self._open is not None
        self._open.append(value)
        self._waiting += 1

    def __len__(self) -> int:
        return self._waiting

    def poll(self, timeout_s: float) -> int:
        return 0

    def flush(self, timeout_s: float = -1) -> int:
        while self._waiting:
            self._waiting -= 1
            self.told(self.refusal, Delivered(self._offset))
            self._offset += 1
        return 0


def sender(
    producer: Any,
    count: int | None = None,
    seconds: float | None = None,
    *,
    report: bool = False,
    **clock: Any,
) -> TransactionalSender:
    def make(told: Any) -> Any:
        producer.told = told
        return producer

    return TransactionalSender(make, "t", report, count, seconds, **clock)


@contextmanager
def piped(text: bytes) -> Iterator[BinaryIO]:
    """Standard input that has this text, less than a pipe holds."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as stream:
        stream.write(text)
    with os.fdopen(reading, "rb") as stream:
        yield stream


def run(made: TransactionalSender, text: bytes, source: Source = PLAIN) -> None:
    with piped(text) as stream:
        made.run(stream, source)


def failure(code: int, **kinds: bool) -> KafkaException:
    return KafkaException(KafkaError(code, **kinds))


def failed(producer: FakeProducer, text: bytes, count: int | None = None, source: Source = PLAIN) -> CliError:
    with pytest.raises(CliError) as caught:
        run(sender(producer, count), text, source)
    return caught.value


@given(st.integers(0, 12), st.one_of(st.none(), st.integers(1, 5)))
def test_each_line_is_in_one_transaction(lines: int, count: int | None) -> None:
    producer = FakeProducer()
    values = [str(number).encode() for number in range(lines)]
    run(sender(producer, count), b"".join(value + b"\n" for value in values), PLAIN)
    assert [value for committed in producer.committed for value in committed] == values
    size = count or max(lines, 1)
    assert [len(committed) for committed in producer.committed] == [
        min(size, lines - start) for start in range(0, lines, size)
    ]
    assert producer.calls == ["init", *["begin", "commit"] * len(producer.committed)]


def test_places_are_told_once_they_are_committed(capsys: pytest.CaptureFixture[str]) -> None:
    producer = FakeProducer()
    with pytest.raises(CliError, match="line 4: "):
        run(sender(producer, 2, report=True), b'{"value":"a"}\n' * 3 + b"x\n", JSON)
    assert [line[-2] for line in capsys.readouterr().out.splitlines()] == ["0", "1"]


def test_an_error_aborts_what_is_open_and_says_what_is_not() -> None:
    producer = FakeProducer()
    error = failed(producer, b'{"value":"a"}\n' * 3 + b"x\n", 2, JSON)
    assert error.code is ExitCode.USAGE
    assert str(error).endswith("(2 messages in 1 transaction committed, 1 aborted)")
    assert producer.calls[-2:] == ["begin", "abort"]


def test_what_is_not_delivered_is_not_committed() -> None:
    producer = FakeProducer()
    producer.refusal = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
    error = failed(producer, b"a\nb\n")
    assert str(error).endswith("(nothing was committed, 2 aborted)")
    assert producer.committed == []
    assert producer.calls == ["init", "begin", "abort"]


def test_steps_that_take_long_go_on() -> None:
    producer = FakeProducer()
    slow = KafkaError._TIMED_OUT
    producer.failures = {
        name: [failure(slow, retriable=True), failure(slow, retriable=True)] for name in ("init", "commit")
    }
    run(sender(producer), b"a\n", PLAIN)
    assert producer.calls == ["init"] * 3 + ["begin"] + ["commit"] * 3
    assert producer.committed == [[b"a"]]


def test_whoever_is_fenced_can_abort_nothing() -> None:
    producer = FakeProducer()
    producer.failures = {
        "commit": [failure(KafkaError._FENCED, fatal=True)],
        "abort": [failure(KafkaError._FENCED, fatal=True)],
    }
    error = failed(producer, b"a\n")
    assert "(nothing was committed, 1 perhaps: their commit was under way)" in str(error)
    producer = FakeProducer()
    producer.refusal = KafkaError(KafkaError._FENCED)
    producer.failures = {"abort": [failure(KafkaError._FENCED, fatal=True)]}
    assert "1 left to the broker, which aborts them in time" in str(failed(producer, b"a\n"))


def test_nothing_is_aborted_where_nothing_has_begun() -> None:
    producer = FakeProducer()
    producer.failures = {"init": [failure(KafkaError._UNSUPPORTED_FEATURE, fatal=True)]}
    assert str(failed(producer, b"a\n")).endswith("(nothing was committed)")
    assert producer.calls == ["init"]


def test_an_interruption_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    producer = FakeProducer()
    producer.failures = {"commit": [KeyboardInterrupt()]}
    with pytest.raises(KeyboardInterrupt):
        run(sender(producer), b"a\n", PLAIN)
    assert producer.calls[-1] == "abort"
    assert capsys.readouterr().err == "ottla: nothing was committed, 1 aborted\n"


def test_time_ends_a_transaction() -> None:
    """By a clock that says so: with the line behind its end, and if no line comes."""
    producer = FakeProducer()
    now_s = [0.0]
    made = sender(producer, seconds=5.0, clock_s=lambda: now_s[0])
    made._send_lines(PLAIN, [b"a"], 1)
    assert made._wait_s() == 0.1
    now_s[0] = 4.95
    assert made._wait_s() == pytest.approx(0.05)
    made._send_lines(PLAIN, [], 2)
    assert producer.committed == []
    now_s[0] = 9.0
    made._send_lines(PLAIN, [b"b"], 2)
    assert producer.committed == [[b"a", b"b"]]
    assert made._wait_s() is None
    made._send_lines(PLAIN, [b"c"], 3)
    now_s[0] = 14.0
    made._send_lines(PLAIN, [], 4)
    assert producer.committed == [[b"a", b"b"], [b"c"]]
