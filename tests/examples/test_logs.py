"""The logs: every line arrives and is kept once, whatever is killed; a search finds just its range."""

from __future__ import annotations

import json
import logging
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from examples_support import ROOT, output_of, picture_of, python_of, run_example, start

from examples.logs import rsyslog, topics
from examples.logs.handler import KafkaHandler
from interop.process import BrokerProcess, wait_until
from measuring import not_waiting

SERVICES = ("checkout", "gateway", "mailer", "search", "stockroom")


def read_lines(bootstrap: str) -> list[tuple[int, int, int, topics.Line]]:
    """Every line of the topic: partition, offset, when it arrived in ms, and the line."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "enable.auto.commit": False})
    at = [TopicPartition(topics.LINES, p, 0) for p in range(topics.LINES_PARTITIONS)]
    count = sum(consumer.get_watermark_offsets(partition, timeout=60)[1] for partition in at)
    consumer.assign(at)
    messages: list[Any] = []
    deadline = time.monotonic() + 60
    while len(messages) < count:
        assert time.monotonic() < deadline
        messages += consumer.consume(count - len(messages), 0.5)
    consumer.close()
    return [
        (m.partition(), m.offset(), m.timestamp()[1], topics.parse(m.key(), m.value(), m.timestamp()[1]))
        for m in messages
    ]


def send(bootstrap: str, lines: list[dict[str, Any]]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5})
    for line in lines:
        producer.produce(topics.LINES, json.dumps(line), line["service"])
        producer.poll(0)
    assert producer.flush(30) == 0


def a_line(number: int, at_ms: int, service: str = "checkout", level: str = "info") -> dict[str, Any]:
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_ms // 1000)) + f".{at_ms % 1000:03}Z"
    return {"at": at, "service": service, "level": level, "text": f"#{number} of the test", "via": "test"}


def search(bootstrap: str, *options: str) -> tuple[int, list[str], str]:
    """Exit code, the lines found, and what was said of them."""
    command = [python_of("logs"), "-m", "examples.logs", "--bootstrap", bootstrap, "search", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout.splitlines(), done.stderr.strip()


def query(bootstrap: str, directory: Path, sql: str) -> list[tuple[Any, ...]]:
    """Rows of the Parquet files, by DuckDB in the environment of the example."""
    program = (
        "import json, sys; from pathlib import Path; from examples.logs import query, sink;"
        "folder = sink.folder_of(sys.argv[1], Path(sys.argv[2]));"
        "print(json.dumps(query.rows(folder, sys.argv[3])))"
    )
    command = [python_of("logs"), "-c", program, bootstrap, str(directory), sql]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return [tuple(row) for row in json.loads(done.stdout)]


# ------------------------------------------------------------ all of it


def test_every_line_is_gathered_and_kept_once(ottla_process: Any, tmp_path: Path) -> None:
    broker: BrokerProcess = ottla_process()
    picture = picture_of("logs")
    picture.unlink(missing_ok=True)
    kept = tmp_path / "kept"
    arguments = ["--seconds", "12", "--directory", str(kept), "--picture", str(picture)]
    run = run_example("logs", broker.bootstrap, tmp_path, *arguments, timeout_s=100)
    assert run.figures["killed"] == "sink, status, sink"
    assert "logs&#160;of&#160;several&#160;programs" in picture.read_text()

    lines = read_lines(broker.bootstrap)
    for service in SERVICES:
        numbers = [int(line.text[1:].split()[0]) for _, _, _, line in lines if line.service == service]
        assert numbers == list(range(1, run.figures[f"lines of {service}"] + 1)), service
    assert {line.via for *_, line in lines} == {"python", "rsyslog"}
    levels = {(line.service, line.level) for *_, line in lines}
    assert {("checkout", "err"), ("stockroom", "warning"), ("mailer", "info")} <= levels

    rows = query(broker.bootstrap, kept, 'SELECT partition, "offset", service, level, text FROM lines')
    in_topic = [(p, o, line.service, line.level, line.text) for p, o, _, line in lines]
    assert sorted(rows) == sorted(in_topic)

    found = search(broker.bootstrap, "--from", "10m", "--grep", "payment timeout", "--level", "err")
    assert len(found[1]) == len([1 for *_, line in lines if "payment timeout" in line.text]) > 0


def test_one_that_ends_at_once_keeps_what_it_promises(ottla_process: Any, tmp_path: Path) -> None:
    """Programs that have not begun yet have nothing to say."""
    broker: BrokerProcess = ottla_process()
    run_example("logs", broker.bootstrap, tmp_path, "--directory", str(tmp_path), "--seconds", "0.1")


# ------------------------------------------------------------ the search


def test_a_search_reads_and_finds_just_its_range(ottla_process: Any) -> None:
    broker: BrokerProcess = ottla_process()
    topics.create(broker.bootstrap)
    send(broker.bootstrap, [a_line(n, time.time_ns() // 1_000_000, "old") for n in range(500)])
    came_ms = max(arrived_ms for _, _, arrived_ms, _ in read_lines(broker.bootstrap))
    wait_until(lambda: time.time_ns() // 1_000_000 > came_ms + 5, 10, "the next millisecond")
    base_ms = time.time_ns() // 1_000_000
    wait_until(lambda: time.time_ns() // 1_000_000 > base_ms + 1000, 10, "the lines' time")
    services, levels = ("checkout", "search", "mailer"), ("info", "err")
    new = [a_line(n, base_ms + n * 10, services[n % 3], levels[n % 2]) for n in range(100)]
    send(broker.bootstrap, new)

    code, lines, said = search(broker.bootstrap, "--from", f"@{base_ms + 200}", "--to", f"@{base_ms + 400}")
    assert code == 0
    assert [int(line.split("#")[1].split()[0]) for line in lines] == list(range(20, 41))
    assert said.startswith("21 lines found; 100 read of 600 in the topic")

    both = ["--service", "search", "--level", "err", "--grep", "#.7 "]
    code, lines, _ = search(broker.bootstrap, "--from", f"@{base_ms}", *both)
    assert [line.split("#")[1].split()[0] for line in lines] == ["37", "67", "97"]

    assert search(broker.bootstrap, "--from", f"@{base_ms - 1}", "--grep", "absent")[:2] == (1, [])
    code, lines, said = search(broker.bootstrap, "--from", "yesterday")
    assert (code, lines) == (2, [])
    assert said.startswith("no time")
    # Nothing has arrived since: no partition has an offset for that time.
    late = time.time_ns() // 1_000_000 + 100_000
    code, lines, said = search(broker.bootstrap, "--from", f"@{late}", "--to", f"@{late + 1}")
    assert (code, lines) == (1, [])
    assert said.startswith("0 lines found; 0 read of 600")


# ------------------------------------------------------------ the sink


def parquet_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*/lines-*.parquet"))


def test_a_sink_that_is_killed_loses_no_row_and_doubles_none(ottla_process: Any, tmp_path: Path) -> None:
    """Killed again and again in the middle of its work, with a second one beside it for a while."""
    broker: BrokerProcess = ottla_process()
    topics.create(broker.bootstrap)
    count = 12_000
    send(broker.bootstrap, [a_line(n, 1_700_000_000_000 + n, f"service-{n % 23}") for n in range(count)])
    options = ["--bootstrap", broker.bootstrap, "--directory", str(tmp_path), "--rows-max", "100"]

    def rows() -> int:
        # What a file holds is in its metadata; the count by names alone would not see a torn one.
        return query(broker.bootstrap, tmp_path, "SELECT count(*) FROM lines")[0][0]

    for more_files in (1, 3, 8, 2):
        known = len(parquet_files(tmp_path))
        process = start("logs", *options, "--wait", "0.01", module="sink")
        try:
            wait_until(lambda: len(parquet_files(tmp_path)) >= known + more_files, 30, "files", pause_s=0.001)  # noqa: B023
        finally:
            process.kill()
            process.communicate()
        assert rows() < count, "it was done before it could be killed: nothing was tested"
    pair = [start("logs", *options, "--name", name, module="sink") for name in ("sink", "other")]
    try:
        wait_until(lambda: rows() >= count, 60, "all rows", pause_s=0.5)
    finally:
        for process in pair:
            process.terminate()
        said = [output_of(process, 30) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], said

    of_partitions = query(
        broker.bootstrap,
        tmp_path,
        'SELECT partition, min("offset"), max("offset") + 1, count(*), count(DISTINCT "offset") '
        "FROM lines GROUP BY ALL",
    )
    assert sum(rows for *_, rows, _ in of_partitions) == count
    for _, first, end, rows_of, distinct in of_partitions:
        assert (first, end, distinct) == (0, rows_of, rows_of)
    texts = query(broker.bootstrap, tmp_path, "SELECT count(DISTINCT text) FROM lines")
    assert texts == [(count,)]
    assert not list(tmp_path.glob("*/.*.draft"))


# ------------------------------------------------------------ the handler


@contextmanager
def a_logger(handler: logging.Handler) -> Iterator[logging.Logger]:
    logger = logging.Logger("test", logging.INFO)
    logger.addHandler(handler)
    yield logger
    handler.close()


def test_the_handler_holds_nobody_up_without_a_broker() -> None:
    """Port 1 is nobody's. What does not fit is dropped at once; what waits, when the program ends."""
    handler = KafkaHandler("127.0.0.1:1", service="test", queued_max=1000)
    took_s = []
    with a_logger(handler) as logger:
        for number in range(5000):
            began_at = time.monotonic()
            logger.info("line %s", number)
            took_s.append(time.monotonic() - began_at)
        assert handler.dropped == 4000
        with not_waiting(60):
            handler.close(timeout_s=0.5)
    # A few pauses of the machine are no finding; waiting for a broker would take seconds each time.
    assert sorted(took_s)[-10] < 1
    assert (handler.sent, handler.dropped) == (0, 5000)


def test_the_handler_says_how_many_lines_are_missing(ottla_process: Any) -> None:
    broker: BrokerProcess = ottla_process()
    topics.create(broker.bootstrap)
    handler = KafkaHandler(broker.bootstrap, service="test", queued_max=10, linger_ms=1)
    with a_logger(handler) as logger:
        for number in range(1000):
            logger.info("line %s", number)
        dropped = handler.dropped
        assert dropped > 0
        wait_until(lambda: (logger.info("after"), handler._told == handler.dropped)[1], 20, "the notice")
    texts = [line.text for *_, line in read_lines(broker.bootstrap)]
    notices = [int(text.split()[0]) for text in texts if "were dropped" in text]
    assert sum(notices) == handler.dropped
    lines = [text for text in texts if text.startswith("line ")]
    assert len(lines) == len(set(lines)) == 1000 - dropped


def test_the_handler_keeps_a_traceback_in_one_line(ottla_process: Any) -> None:
    broker: BrokerProcess = ottla_process()
    topics.create(broker.bootstrap)
    with a_logger(KafkaHandler(broker.bootstrap, service="test")) as logger:
        try:
            raise ValueError("ümläute")
        except ValueError:
            logger.exception("it failed")
    ((_, _, arrived_ms, line),) = read_lines(broker.bootstrap)
    assert line.level == "err"
    assert line.text.startswith("it failed\nTraceback")
    assert "ümläute" in line.text
    assert 0 <= arrived_ms - line.at_ms < 60_000


# ------------------------------------------------------------ rsyslog


def test_rsyslog_keeps_lines_while_the_broker_is_away(ottla_process: Any) -> None:
    broker: BrokerProcess = ottla_process()
    topics.create(broker.bootstrap)
    # Not tmp_path: the path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="ottla-") as name:
        directory = Path(name)
        (directory / "access.log").touch()
        command = rsyslog.command(broker.bootstrap, directory, directory / "access.log")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until((directory / "socket").exists, 20, "rsyslog's socket")
            log = ["logger", "--socket", str(directory / "socket"), "--tag", "test"]
            subprocess.run([*log, "#0 before"], check=True)
            wait_until(lambda: len(read_lines(broker.bootstrap)) == 1, 30, "the first line")
            broker.kill()
            lines = "".join(f"#{number} meanwhile\n" for number in range(1, 201))
            subprocess.run(log, input=lines, text=True, check=True)
            broker.start()
            wait_until(
                lambda: (
                    {line.text for *_, line in read_lines(broker.bootstrap)}
                    >= {f"#{number} meanwhile" for number in range(1, 201)}
                ),
                60,
                "the lines of meanwhile",
                pause_s=0.5,
            )
        finally:
            process.terminate()
            process.wait(60)
    assert process.returncode == 0


def test_what_is_no_line_is_kept_as_it_is() -> None:
    line = topics.parse(b"who", b"\xff not JSON", 1_700_000_000_000)
    assert (line.service, line.at_ms, line.via) == ("who", 1_700_000_000_000, "unread")
    assert "not JSON" in line.text
    assert topics.parse(None, b'{"at": 5}', 7).at_ms == 7
    assert topics.parse(None, None, 7).text == ""
