"""`ottla produce` without a broker: lines as they come, and what becomes of them in librdkafka's queue."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import pytest
from confluent_kafka import KafkaError
from hypothesis import given
from hypothesis import strategies as st

from ottla.cli import lines as lines_module
from ottla.cli import output
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.lines import read_lines
from ottla.cli.produce import Source
from ottla.cli.sender import Sender

PLAIN = Source(json=False, key=None, key_separator=None, headers=(), partition=-1, null=None)


class FullProducer:
    """Has room for so many messages; delivers some when it is polled."""

    def __init__(self, room: int, refused: bytes = b"refused") -> None:
        self.room, self.refused = room, refused
        self.told: Any = None
        self.delivered: list[tuple[Any, ...]] = []
        self._queue: list[tuple[Any, ...]] = []

    def produce(self, *row: Any) -> None:
        if len(self._queue) >= self.room:
            raise BufferError
        self._queue.append(row)

    def poll(self, timeout_s: float) -> int:
        while self._queue:
            row = self._queue.pop(0)
            if row[1] == self.refused:
                self.told(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), None)
            else:
                self.delivered.append(row)
        return 0

    def flush(self, timeout_s: float = -1) -> int:
        return self.poll(timeout_s)

    def purge(self) -> None:
        while self._queue:
            self._queue.pop()
            self.told(KafkaError(KafkaError._PURGE_QUEUE), None)

    def __len__(self) -> int:
        return len(self._queue)


class InterruptedProducer(FullProducer):
    """Ctrl-C comes as soon as it has taken so many messages."""

    def __init__(self, count: int, room: int) -> None:
        super().__init__(room)
        self._count = count

    def produce(self, *row: Any) -> None:
        super().produce(*row)
        self._count -= 1
        if not self._count:
            raise KeyboardInterrupt


@contextmanager
def written(pieces: list[bytes]) -> Iterator[BinaryIO]:
    """Standard input into which somebody writes these pieces, one after another."""
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb", buffering=0) as stream:
            for piece in pieces:
                stream.write(piece)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with os.fdopen(reading, "rb") as stream:
            yield stream
    finally:
        thread.join()


def run(producer: Any, text: bytes, source: Source = PLAIN) -> None:
    def make(told: Any) -> Any:
        producer.told = told
        return producer

    with written([text]) as stream:
        Sender(make, "t", False).run(stream, source)


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_lines_of_a_pipe_are_those_of_a_file(pieces: list[bytes]) -> None:
    with written(pieces) as stream:
        found = [line for some in read_lines(stream.fileno(), lambda: None) for line in some]
    assert found == [line.removesuffix(b"\n").removesuffix(b"\r") for line in io.BytesIO(b"".join(pieces))]


def test_a_pipe_that_is_silent_says_so_and_a_line_does_not_wait_for_others() -> None:
    reading, writing = os.pipe()
    found = read_lines(reading, lambda: 0.0)
    assert next(found) == []
    os.write(writing, b"on")
    assert next(found) == []
    os.write(writing, b"e\ntwo\nthr")
    assert next(found) == [b"one", b"two"]
    os.close(writing)
    assert list(found) == [[b"thr"]]
    os.close(reading)


def test_a_line_without_an_end_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "LINE_BYTES_MAX", 100_000)
    with (
        written([b"x" * 100_000 + b"\n" + b"x" * 200_000]) as stream,
        pytest.raises(CliError, match="longer than"),
    ):
        list(read_lines(stream.fileno(), lambda: None))


@given(
    st.lists(st.binary(max_size=3).filter(lambda line: b"\n" not in line and b"\r" not in line)),
    st.integers(1, 9),
)
def test_a_full_queue_neither_loses_nor_reorders(values: list[bytes], room: int) -> None:
    producer = FullProducer(room)
    run(producer, b"".join(value + b"\n" for value in values))
    assert [row[1] for row in producer.delivered] == values


def test_a_message_that_no_queue_holds_is_no_endless_wait() -> None:
    with pytest.raises(
        CliError, match=r"larger than the whole queue.*queue\.buffering\.max\.kbytes"
    ) as caught:
        run(FullProducer(0), b"a\n")
    assert caught.value.code is ExitCode.USAGE


def test_a_failure_ends_it_with_the_count_of_what_was_delivered() -> None:
    producer = FullProducer(3, refused=b"c")
    with pytest.raises(CliError, match="2 of 3 messages delivered, then") as caught:
        run(producer, b"a\nb\nc\nd\ne\nf\ng\n")
    assert caught.value.code is ExitCode.FAILED
    assert [row[1] for row in producer.delivered] == [b"a", b"b"]


def test_lines_before_one_that_is_no_message_are_sent() -> None:
    producer = FullProducer(9)
    source = Source(json=False, key=None, key_separator=b":", headers=(("h", b"1"),), partition=4, null=b"-")
    with pytest.raises(CliError, match=r"line 3: there is no ':' .* \(after 2 messages sent\)"):
        run(producer, b"k:v\nk:-\nnone\nk:v\n", source)
    rest = (4, None, None, 0, [("h", b"1")])
    assert producer.delivered == [("t", b"v", b"k", *rest), ("t", None, b"k", *rest)]


def test_an_interruption_says_what_was_delivered(capsys: pytest.CaptureFixture[str]) -> None:
    producer = FullProducer(9)
    flush = producer.flush
    producer.flush = lambda timeout_s=None: interrupted() if timeout_s is None else flush()  # type: ignore[assignment,method-assign]

    def interrupted() -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(producer, b"a\nb\n")
    assert capsys.readouterr().err == "ottla: interrupted: 2 messages to t delivered\n"


def test_a_place_is_reported_once_although_its_report_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    producer: Any = FullProducer(9)
    made = Sender(lambda told: producer, "t", True)
    made._places = [(0, 1)]
    reported: list[str] = []

    def write(lines: Iterator[str]) -> None:
        reported.extend(lines)
        raise KeyboardInterrupt

    monkeypatch.setattr(output, "write_lines", write)
    with pytest.raises(KeyboardInterrupt):
        made._tell()
    made._tell()
    assert reported == ['{"topic": "t", "partition": 0, "offset": 1}']


@pytest.mark.parametrize("room", [100, 3])
@pytest.mark.parametrize("count", [1, 3, 4, 10])
def test_what_was_delivered_before_ctrl_c_is_counted(
    count: int, room: int, capsys: pytest.CaptureFixture[str]
) -> None:
    producer = InterruptedProducer(count, room)
    with pytest.raises(KeyboardInterrupt):
        run(producer, b"x\n" * 10)
    assert len(producer.delivered) == count
    messages = "1 message" if count == 1 else f"{count} messages"
    assert f"interrupted: {messages} to t delivered" in capsys.readouterr().err


def test_a_second_ctrl_c_ends_the_wait_and_what_was_delivered_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def again(timeout_s: float = -1) -> int:
        raise KeyboardInterrupt

    producer = InterruptedProducer(4, 3)
    monkeypatch.setattr(producer, "flush", again)
    with pytest.raises(KeyboardInterrupt):
        run(producer, b"x\n" * 10)
    said = "interrupted: 3 messages to t delivered, 1 sent without an acknowledgement so far"
    assert said in capsys.readouterr().err
