"""Messages as text and as JSON, both ways."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.cli import consume, reader
from ottla.cli.errors import CliError
from ottla.cli.messages import (
    BadLine,
    Format,
    Message,
    from_json,
    parse_headers,
    split_lines,
    to_json,
    unescape,
)
from ottla.cli.topic import kafka_id
from ottla.text import id_text
from ottla.types import TopicPartition

data = st.none() | st.binary(max_size=50) | st.text(max_size=50).map(lambda text: text.encode())
header_names = st.text(max_size=10)


@given(
    key=data,
    value=data,
    headers=st.lists(st.tuples(header_names, data), max_size=3).map(tuple),
    partition=st.integers(0, 2**31 - 1),
    timestamp_ms=st.integers(-1, 2**63 - 1),
    timestamp_type=st.sampled_from([None, "CreateTime", "LogAppendTime"]),
)
def test_json_brings_every_byte_back(
    key: bytes | None,
    value: bytes | None,
    headers: tuple[tuple[str, bytes | None], ...],
    partition: int,
    timestamp_ms: int,
    timestamp_type: str | None,
) -> None:
    message = Message(key, value, headers, "t", partition, 5, timestamp_ms, timestamp_type)
    line = to_json(message)
    assert "\n" not in line
    assert from_json(line.encode()) == message._replace(topic="", offset=-1, timestamp_type=None)


def test_text_stays_readable_and_the_rest_is_base64() -> None:
    document = json.loads(to_json(Message("ключ".encode(), b"\xff\xfe")))
    assert document["key"] == "ключ"
    assert document["value"] == {"base64": "//4="}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{}", Message(None, None)),
        (b'{"value": "v"}', Message(None, b"v")),
        (b'{"value": {"a": [1, "\xc3\xa9"]}}', Message(None, '{"a":[1,"é"]}'.encode())),
        (b'{"key": 7, "value": true}', Message(b"7", b"true")),
        (b'{"value": {"base64": 5}}', Message(None, b'{"base64":5}')),
        (b'{"headers": [{"key": "h", "value": null}]}', Message(None, None, (("h", None),))),
        (b'{"offset": 9, "topic": "x", "partition": 2}', Message(None, None, partition=2)),
    ],
)
def test_json_in(line: bytes, message: Message) -> None:
    assert from_json(line) == message


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"nope", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"key": "k", "payload": "v"}', "'payload' is not one of topic, "),
        (b'{"value": {"base64": "%"}}', "value: not base64"),
        (b'{"headers": [1]}', "headers: give"),
        (b'{"headers": [{"value": "x"}]}', "headers: give"),
        (b'{"partition": "1"}', "partition: give a whole number"),
        (b'{"partition": true}', "partition: give a whole number"),
        (b'{"timestamp_ms": -2}', "timestamp_ms: give a whole number"),
    ],
)
def test_json_that_is_no_message(line: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        from_json(line)


def test_lines_are_split_at_the_first_separator() -> None:
    assert split_lines([b"a:b:c", b":v", b"k:"], b":") == ([b"a", b"", b"k"], [b"b:c", b"v", b""])
    assert split_lines([], b":") == ([], [])


@pytest.mark.parametrize("line", [b"abc", b""])
def test_a_line_without_its_separator_is_refused_as_kafka_does(line: bytes) -> None:
    with pytest.raises(BadLine, match="there is no ':' in it to end a key") as caught:
        split_lines([b"k:v", line, b"k:v"], b":")
    assert caught.value.index == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [(r"\t", "\t"), (r"a\nb", "a\nb"), (r"\\n", r"\n"), (r"\x", r"\x"), ("end\\", "end\\"), ("", "")],
)
def test_escapes(text: str, expected: str) -> None:
    assert unescape(text) == expected


def test_headers_may_repeat_hold_equals_signs_or_be_null() -> None:
    assert parse_headers(["a=1", "a=x=y", "b=", "c"]) == (("a", b"1"), ("a", b"x=y"), ("b", b""), ("c", None))
    with pytest.raises(CliError, match="NAME=VALUE"):
        parse_headers(["=x"])


def test_a_format_renders_raw_bytes() -> None:
    message = Message(b"\xff", b"v\n", (("h", b"1"), ("n", None)), "t", 3, 9, 0)
    line = Format(r"{topic}/{partition}@{offset}\t{key}={value}{{}} {headers} {timestamp} {timestamp_ms}")
    assert line.render(message) == b"t/3@9\t\xff=v\n{} h=1,n= 1970-01-01T00:00:00.000Z 0"
    assert Format("").render(message) == b""
    assert Format("{key}|{value}").render(Message(None, None)) == b"|"


@pytest.mark.parametrize("template", ["{nope}", "{value", "{value!r}", "{value:>5}", "{}", "}"])
def test_a_format_that_makes_no_sense(template: str) -> None:
    with pytest.raises(CliError, match="--format: "):
        Format(template)


def test_ids_of_topics_are_as_kafka_writes_them() -> None:
    raw = bytes(range(0xF0, 0x100))
    assert kafka_id(base64.b64encode(raw).decode()) == id_text(UUID(bytes=raw))
    assert "_" in id_text(UUID(bytes=raw))
    assert kafka_id("AAAAAAAAAAAAAAAAAAAAAA==") is None


class Joining:
    """A consumer whose group assigns partitions after some time."""

    def __init__(self, assigned_s: float | None) -> None:
        self.now_s, self.assigned_s = 1000.0, assigned_s
        self.assign: Callable[[Any, list[Any]], None] = lambda consumer, partitions: None

    def monotonic(self) -> float:
        return self.now_s

    def subscribe(self, topics: list[str], *, on_assign: Any, on_revoke: Any) -> None:
        self.assign = on_assign

    def consume(self, count: int, timeout_s: float) -> list[Any]:
        self.now_s += timeout_s
        if self.assigned_s is not None and self.now_s - 1000 >= self.assigned_s:
            self.assign(self, [TopicPartition("t", 0)])
            self.assigned_s = None
        return []

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("assigned_s", "ends_s"), [(3.0, 5.0), (0.0, 2.0), (None, reader.JOIN_S_MAX + 2)])
def test_the_idle_time_begins_when_partitions_are_assigned(
    monkeypatch: pytest.MonkeyPatch, assigned_s: float | None, ends_s: float
) -> None:
    """A new group waits for more members, three seconds as a rule; one that assigns none is not for ever."""
    consumer: Any = Joining(assigned_s)
    monkeypatch.setattr(reader, "time", consumer)
    made = reader.Reader(
        consumer, reader.render_values, follow=True, count_max=None, idle_s_max=2.0, group="g"
    )
    made.subscribe(["t"])
    made.run(lambda count: None)
    assert ends_s - 1 <= consumer.now_s - 1000 <= ends_s + 1


def test_a_topic_without_the_partitions_keeps_no_other_from_being_found() -> None:
    known = {"a": 4, "b": 1, "c": 4}

    def partitions(name: str) -> list[TopicPartition]:
        return [TopicPartition(name, number) for number in range(known[name])]

    cluster: Any = SimpleNamespace(
        refresh=lambda: None, metadata=SimpleNamespace(topics=known), partitions=partitions
    )
    find = consume._finder(cluster, ".", consume.matching(".", True), "2-3")
    assert find is not None
    assert find() == [TopicPartition(name, number) for name in "ac" for number in (2, 3)]
    known.clear()
    assert find() == []
