"""Search the lines of a time range, reading only that range of the topic.

    python -m examples.logs search --from 30s --grep timeout --level err
    python -m examples.logs search --from 2026-01-31T12:00:00Z --to 2026-01-31T12:05:00Z --service checkout

The broker says which offset belongs to a time (ListOffsets, what clients call offsets-for-times): one request
for each end of the range, and nothing before it is read, however much there is.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from confluent_kafka import Consumer, KafkaException, TopicPartition

from examples.logs import topics

READ_MAX = 5000
READ_S = 0.02
TIMEOUT_S = 10.0
_SPAN = re.compile(r"-?(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass
class Found:
    """What a search gave: the lines in the order of their times, and what it cost."""

    lines: list[topics.Line]
    read: int
    # Lines in the topic, all of them.
    total: int


def parse_time(text: str, now_ms: int) -> int:
    """'now', a span back from now ('90s', '5m', '2h'), '@' and ms since the epoch, or an ISO 8601 time."""
    if text == "now":
        return now_ms
    if span := _SPAN.fullmatch(text):
        return now_ms - round(float(span[1]) * _UNIT_MS[span[2]])
    if text.startswith("@"):
        return int(text[1:])
    at = datetime.fromisoformat(text)
    return round((at if at.tzinfo else at.astimezone()).timestamp() * 1000)


def search(bootstrap: str, from_ms: int, to_ms: int, wanted: Callable[[topics.Line], bool]) -> Found:
    """The lines written from `from_ms` to `to_ms` that are wanted. A line arrives after it was written, by
    LATE_MS_MAX at most: that is the range of arrival times to read."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "logs.nobody", "enable.auto.commit": False}
    )
    try:
        ranges, total = find_ranges(consumer, from_ms, to_ms + topics.LATE_MS_MAX)
        read = 0
        lines: list[topics.Line] = []
        for line in read_ranges(consumer, ranges):
            read += 1
            if from_ms <= line.at_ms <= to_ms and wanted(line):
                lines.append(line)
        # Stable: what one service wrote in the same millisecond stays in its order.
        lines.sort(key=lambda line: line.at_ms)
        return Found(lines, read, total)
    finally:
        consumer.close()


def find_ranges(consumer: Consumer, from_ms: int, to_ms: int) -> tuple[dict[int, tuple[int, int]], int]:
    """For each partition with lines that arrived in the range: its first offset, and the one behind its last.
    And how many lines the topic has."""
    partitions = list(consumer.list_topics(topics.LINES, TIMEOUT_S).topics[topics.LINES].partitions)
    ends, total = {}, 0
    for partition in partitions:
        low, end = consumer.get_watermark_offsets(TopicPartition(topics.LINES, partition), TIMEOUT_S)
        ends[partition] = end
        total += end - low

    def offsets_at(time_ms: int) -> dict[int, int]:
        asked = [TopicPartition(topics.LINES, partition, time_ms) for partition in partitions]
        # A negative offset: nothing has arrived since.
        return {
            at.partition: at.offset if at.offset >= 0 else ends[at.partition]
            for at in consumer.offsets_for_times(asked, TIMEOUT_S)
        }

    first, last = offsets_at(from_ms), offsets_at(to_ms + 1)
    return {p: (first[p], last[p]) for p in partitions if first[p] < last[p]}, total


def read_ranges(consumer: Consumer, ranges: dict[int, tuple[int, int]]) -> Iterator[topics.Line]:
    """The lines of the ranges, partition after partition as they come."""
    consumer.assign([TopicPartition(topics.LINES, p, first) for p, (first, _) in ranges.items()])
    ends = {partition: end for partition, (_, end) in ranges.items()}
    came_at = time.monotonic()
    while ends:
        # It waits until it has so many, or so long: a long wait would be waited out at each end.
        messages = consumer.consume(READ_MAX, READ_S)
        if messages:
            came_at = time.monotonic()
        elif time.monotonic() - came_at > TIMEOUT_S:
            raise TimeoutError(f"nothing came for {TIMEOUT_S} s")
        for message in messages:
            if error := message.error():
                raise KafkaException(error)
            end = ends.get(message.partition())
            if end is None or message.offset() >= end:
                continue
            yield topics.parse(message.key(), message.value(), message.timestamp()[1])
            if message.offset() == end - 1:
                del ends[message.partition()]


def add_options(options: argparse.ArgumentParser) -> None:
    options.add_argument(
        "--from", dest="since", default="5m", metavar="TIME", help="where to start (default: 5m ago)"
    )
    options.add_argument(
        "--to", dest="until", default="now", metavar="TIME", help="where to end (default: now)"
    )
    options.add_argument("--grep", metavar="REGEX", help="only lines whose text has this in it")
    options.add_argument("--service", metavar="NAME", help="only this service")
    options.add_argument("--level", metavar="LEVEL", help="only this level: info, warning, err, ...")


def main(arguments: argparse.Namespace) -> int:
    """Print what is found; to stderr what it took. Exit code 1 if nothing is found, as grep does."""
    began_at, now_ms = time.monotonic(), time.time_ns() // 1_000_000
    pattern = re.compile(arguments.grep) if arguments.grep else None

    def wanted(line: topics.Line) -> bool:
        return (
            (pattern is None or pattern.search(line.text) is not None)
            and arguments.service in (None, line.service)
            and arguments.level in (None, line.level)
        )

    try:
        from_ms, to_ms = (parse_time(text, now_ms) for text in (arguments.since, arguments.until))
    except ValueError as error:
        print(f"no time: {error}; say 90s, 5m, now, @1769860800000 or 2026-01-31T12:00:00Z", file=sys.stderr)
        return 2
    found = search(arguments.bootstrap, from_ms, to_ms, wanted)
    for line in found.lines:
        at = datetime.fromtimestamp(line.at_ms / 1000, UTC).isoformat(timespec="milliseconds")
        print(f"{at.replace('+00:00', 'Z')} {line.service:<10} {line.level:<7} {line.text}")
    took_ms = (time.monotonic() - began_at) * 1000
    print(
        f"{len(found.lines)} lines found; {found.read} read of {found.total} in the topic; {took_ms:.0f} ms",
        file=sys.stderr,
    )
    return 0 if found.lines else 1
