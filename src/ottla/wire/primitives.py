"""What the compiled readers and writers share: varints, tagged fields, and the error for bytes that lie."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final
from uuid import UUID

from ottla.types import Buffer

if TYPE_CHECKING:
    # What compiled code keeps in a register; Python's own has plain numbers.
    from mypy_extensions import i64

# The longest string that the protocol has: its length is a signed 16-bit number, and no longer where it is
# written as a varint.
STRING_BYTES_MAX: Final = 0x7FFF

# So many bytes are copied where a part of others is needed.
CUT_BYTES_MAX: Final = 4096

UUID_ZERO: UUID = UUID(int=0)
UUID_ZERO_BYTES: Final = bytes(16)


class MalformedMessage(ValueError):
    """The bytes are not a message of the version that they claim to be."""


class TooManyElements(MalformedMessage):
    """It has more elements than its API may have."""


def read_uvarint(buffer: Buffer, offset: int, first: int) -> tuple[int, int]:
    """Go on with an unsigned varint whose first byte, ``first``, had its high bit set.

    Returns the value and the offset behind it. At most five bytes, as in Kafka's ByteUtils.
    """
    value = first & 0x7F
    for shift in (7, 14, 21, 28):
        byte = buffer[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset
    raise MalformedMessage("a varint is longer than five bytes")


def read_string_size(buffer: Buffer, offset: int, first: int) -> tuple[int, int]:
    """``read_uvarint`` for the length of a string, plus one, in a flexible version.

    Kafka refuses longer ones: a name that came in a flexible version must fit into the answers of the others.
    """
    size, offset = read_uvarint(buffer, offset, first)
    if size > STRING_BYTES_MAX + 1:
        raise MalformedMessage(f"a string of {size - 1} bytes (at most {STRING_BYTES_MAX})")
    return size, offset


def int16_at(data: bytes, position: i64) -> i64:
    """A signed number of two bytes."""
    value: i64 = data[position]
    value = (value << 8) | data[position + 1]
    return value - 0x1_0000 if value >= 0x8000 else value


def int32_at(data: bytes, position: i64) -> i64:
    """A signed number of four bytes."""
    value: i64 = data[position]
    value = (value << 8) | data[position + 1]
    value = (value << 8) | data[position + 2]
    value = (value << 8) | data[position + 3]
    return value - 0x1_0000_0000 if value >= 0x8000_0000 else value


def int64_at(data: bytes, position: i64) -> i64:
    """A signed number of eight bytes."""
    return (int32_at(data, position) << 32) | (int32_at(data, position + 4) & 0xFFFF_FFFF)


def cut(data: Buffer, start: int, end: int) -> Buffer:
    """Some of the bytes: a copy of few, which is cheaper than a view; a view of many."""
    if isinstance(data, bytes) and end - start <= CUT_BYTES_MAX:
        return data[start:end]
    return memoryview(data)[start:end]


def write_uvarint(value: int) -> bytes:
    """An unsigned varint."""
    if value < 0x80:
        return value.to_bytes(1)
    out = bytearray()
    while value >= 0x80:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# Those of one byte.
UVARINTS: Final = tuple(write_uvarint(value) for value in range(0x80))


def shorten(field: str, text: bytes) -> bytes:
    """A string that is too long to be read by anybody: an error's message is cut, all else is refused.

    Messages repeat what a client sent, which may have filled its own string to the brim. ValueError: to cut
    any other string would change what it says.
    """
    if not field.endswith("error_message"):
        raise ValueError(f"{field}: a string of {len(text)} bytes (at most {STRING_BYTES_MAX})")
    return text[:STRING_BYTES_MAX].decode(errors="ignore").encode()


def skip_tags(buffer: Buffer, offset: int, left: list[int]) -> int:
    """Step over a section of tagged fields none of which we know; return the offset behind it.

    Each is taken from ``left``, as in ``take``.
    """
    count = buffer[offset]
    offset += 1
    if not count:
        return offset
    if count >= 0x80:
        count, offset = read_uvarint(buffer, offset, count)
    take(count, len(buffer) - offset, left)
    for _ in range(count):
        _, offset, end = read_tag(buffer, offset)
        offset = end
    return offset


def read_tag(buffer: Buffer, offset: int) -> tuple[int, int, int]:
    """A tagged field's (tag, offset of its value, offset behind it)."""
    tag = buffer[offset]
    offset += 1
    if tag >= 0x80:
        tag, offset = read_uvarint(buffer, offset, tag)
    size = buffer[offset]
    offset += 1
    if size >= 0x80:
        size, offset = read_uvarint(buffer, offset, size)
    end = offset + size
    if end > len(buffer):
        raise MalformedMessage("a tagged field ends behind its message")
    return tag, offset, end


def take(count: int, room: int, left: list[int]) -> None:
    """Count elements of an array, or tagged fields, before memory is spent on them.

    MalformedMessage where they cannot fit into the bytes that are left (each takes one at least), or are more
    than the one number in ``left``, from which they are taken otherwise. A stranger chooses the count, and an
    element of one byte on the wire is some hundred bytes, and some work for a handler, as an object.
    """
    if count > room:
        raise MalformedMessage(f"{count} elements are claimed in {room} bytes")
    if count > left[0]:
        raise TooManyElements(f"{count} elements more, where {left[0]} may come")
    left[0] -= count


# What reading past the end, a bad length, a null where none may be, or text that is not UTF-8 raise.
READ_ERRORS = (MalformedMessage, IndexError, struct.error, UnicodeDecodeError)
