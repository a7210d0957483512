"""Messages as lines of text or JSON, both ways. Pure.

In JSON a key, a value or a header's value is a string where it is UTF-8, ``{"base64": "…"}`` where it is not,
and null where it is null; so `ottla consume A --json | ottla produce B --json` copies a topic byte for byte.
"""

from __future__ import annotations

import base64
import binascii
import json
from string import Formatter
from typing import Any, NamedTuple

from ottla.cli.errors import CliError, ExitCode
from ottla.cli.positions import format_time
from ottla.cli.values import check_text, shown
from ottla.text import is_text

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\"}
# What a line of JSON may hold; topic, offset and the timestamp's type tell of where it was read from.
JSON_FIELDS = ("topic", "partition", "offset", "timestamp_ms", "timestamp_type", "key", "value", "headers")
FIELDS = ("topic", "partition", "offset", "timestamp", "timestamp_ms", "key", "value", "headers")

Header = tuple[str, bytes | None]

_encode = json.JSONEncoder(ensure_ascii=False).encode


class Message(NamedTuple):
    """A message on its way in or out. Partition, offset and timestamp are -1 where they are not known."""

    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()
    topic: str = ""
    partition: int = -1
    offset: int = -1
    timestamp_ms: int = -1
    # "CreateTime" or "LogAppendTime", as the topic's message.timestamp.type has it; None without a timestamp.
    timestamp_type: str | None = None


def unescape(text: str) -> str:
    """Resolve \\n, \\t, \\r, \\0 and \\\\, as a shell user writes separators and formats."""
    out, rest = [], iter(text)
    for char in rest:
        if char == "\\" and (following := next(rest, None)) is not None:
            out.append(ESCAPES.get(following, "\\" + following))
        else:
            out.append(char)
    return "".join(out)


def to_json_bytes(data: bytes | None) -> str | dict[str, str] | None:
    """Bytes in the JSON form that the module's head describes."""
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def from_json_bytes(form: Any, name: str) -> bytes | None:
    """Bytes from their JSON form. Other JSON values are taken as the JSON text of themselves."""
    if form is None:
        return None
    if isinstance(form, str):
        return form.encode("utf-8", "surrogatepass")
    if isinstance(form, dict) and form.keys() == {"base64"} and isinstance(form["base64"], str):
        try:
            return base64.b64decode(form["base64"], validate=True)
        except binascii.Error as error:
            raise ValueError(f"{name}: not base64 ({error})") from None
    return json.dumps(form, ensure_ascii=False, separators=(",", ":")).encode()


def to_json(message: Message) -> str:
    """A message as one line of JSON."""
    return _encode(
        {
            "topic": message.topic,
            "partition": message.partition,
            "offset": message.offset,
            "timestamp_ms": message.timestamp_ms,
            "timestamp_type": message.timestamp_type,
            "key": to_json_bytes(message.key),
            "value": to_json_bytes(message.value),
            "headers": [{"key": key, "value": to_json_bytes(value)} for key, value in message.headers],
        }
    )


def from_json(line: bytes) -> Message:
    """A message from one line of JSON; ValueError says what is wrong.

    Topic, offset and timestamp_type are not looked at.
    """
    try:
        document = json.loads(line)
    except RecursionError:
        raise ValueError("not a message: it is nested too deeply") from None
    except ValueError as error:
        # Also of bytes that are not UTF-8, and of a number with more digits than Python reads.
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(document, dict):
        raise ValueError('not a JSON object: give {"value": "…"}')
    # A misspelt name would otherwise be a lost key, or a tombstone.
    if unknown := document.keys() - set(JSON_FIELDS):
        raise ValueError(f"{min(unknown)!r} is not one of {', '.join(JSON_FIELDS)}")
    headers = []
    given = document.get("headers")
    if given is not None and not isinstance(given, list):
        raise ValueError('headers: give [{"key": "…", "value": "…"}]')
    for header in given or ():
        if not isinstance(header, dict) or not isinstance(header.get("key"), str):
            raise ValueError('headers: give [{"key": "…", "value": "…"}]')
        if not is_text(header["key"]):
            raise ValueError("headers: a key is no text, it has half of a character")
        headers.append((header["key"], from_json_bytes(header.get("value"), "headers")))
    numbers = []
    for name, bits in (("partition", 31), ("timestamp_ms", 63)):
        number = document.get(name, -1)
        if type(number) is not int or not -1 <= number < 1 << bits:
            raise ValueError(f"{name}: give a whole number of up to {bits} bits")
        numbers.append(number)
    return Message(
        from_json_bytes(document.get("key"), "key"),
        from_json_bytes(document.get("value"), "value"),
        tuple(headers),
        partition=numbers[0],
        timestamp_ms=numbers[1],
    )


class BadLine(ValueError):
    """A line that is no message. ``index``: which one it is of those that were given, from 0."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


def split_lines(lines: list[bytes], key_separator: bytes) -> tuple[list[bytes], list[bytes]]:
    """The keys and the values of lines. BadLine if one lacks the separator, as in Kafka's console producer:
    whoever splits lines does not mean any to be without a key."""
    parts = [line.partition(key_separator) for line in lines]
    for index, (_, found, _) in enumerate(parts):
        if not found:
            text = repr(key_separator.decode("utf-8", "backslashreplace"))
            raise BadLine(index, f"there is no {text} in it to end a key")
    return [key for key, _, _ in parts], [value for _, _, value in parts]


def parse_headers(pairs: list[str] | None) -> tuple[Header, ...]:
    """``NAME=VALUE`` headers, repeated names kept; ``NAME`` alone is a header with a null value."""
    headers: list[Header] = []
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not name:
            raise CliError(f"--header {shown(pair)}: give NAME=VALUE", ExitCode.USAGE)
        check_text("--header", name)
        headers.append((name, value.encode("utf-8", "surrogateescape") if equals else None))
    return tuple(headers)


class Format:
    """A template such as ``{partition} {offset} {key}: {value}``, compiled; renders raw bytes."""

    def __init__(self, template: str) -> None:
        self._parts: list[tuple[bytes, str | None]] = []
        try:
            for literal, name, spec, conversion in Formatter().parse(unescape(template)):
                if name is not None and (name not in FIELDS or spec or conversion):
                    raise ValueError(f"{{{name}}} is not one of {', '.join(FIELDS)}")
                self._parts.append((literal.encode("utf-8", "surrogateescape"), name))
        except ValueError as error:
            raise CliError(f"--format: {error}", ExitCode.USAGE) from None

    def render(self, message: Message) -> bytes:
        """The line, without a newline. Null keys and values are empty."""
        return b"".join(literal + (_field(message, name) if name else b"") for literal, name in self._parts)


def _field(message: Message, name: str) -> bytes:
    if name == "value":
        return message.value or b""
    if name == "key":
        return message.key or b""
    if name == "headers":
        return b",".join(key.encode() + b"=" + (value or b"") for key, value in message.headers)
    if name == "timestamp":
        return format_time(message.timestamp_ms).encode()
    return str(getattr(message, name)).encode()
