"""Messages as text and as JSON, both ways."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.cli.errors import CliError
from ottla.cli.messages import Format, Message, from_json, from_line, parse_headers, to_json, unescape

data = st.none() | st.binary(max_size=50) | st.text(max_size=50).map(lambda text: text.encode())
header_names = st.text(max_size=10)


@given(
    key=data,
    value=data,
    headers=st.lists(st.tuples(header_names, data), max_size=3).map(tuple),
    partition=st.integers(0, 2**31 - 1),
    timestamp_ms=st.integers(-1, 2**63 - 1),
)
def test_json_brings_every_byte_back(
    key: bytes | None,
    value: bytes | None,
    headers: tuple[tuple[str, bytes | None], ...],
    partition: int,
    timestamp_ms: int,
) -> None:
    message = Message(key, value, headers, "t", partition, 5, timestamp_ms)
    line = to_json(message)
    assert "\n" not in line
    assert from_json(line.encode()) == message._replace(topic="", offset=-1)


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


@pytest.mark.parametrize(
    ("line", "separator", "expected"),
    [
        (b"a:b:c", b":", (b"a", b"b:c")),
        (b"abc", b":", (None, b"abc")),
        (b":v", b":", (b"", b"v")),
        (b"a:b", None, (None, b"a:b")),
        (b"", b":", (None, b"")),
    ],
)
def test_lines(line: bytes, separator: bytes | None, expected: tuple[bytes | None, bytes]) -> None:
    assert from_line(line, separator) == expected


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
