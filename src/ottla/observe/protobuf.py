"""Protobuf's wire format, written: the few kinds of fields that OpenTelemetry's messages have."""

from __future__ import annotations

import struct

_DOUBLE, _FIXED64 = struct.Struct("<d"), struct.Struct("<Q")


def varint(value: int) -> bytes:
    """A number from 0 to 2^64 - 1."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def message(number: int, content: bytes) -> bytes:
    """A field that is a message, or bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def text(number: int, content: str) -> bytes:
    return message(number, content.encode("utf-8", "replace"))


def integer(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def double(number: int, value: float) -> bytes:
    return varint(number << 3 | 1) + _DOUBLE.pack(value)


def fixed64(number: int, value: int) -> bytes:
    return varint(number << 3 | 1) + _FIXED64.pack(value)
