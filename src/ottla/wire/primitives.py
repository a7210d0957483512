"""What the compiled readers and writers share: varints, tagged fields, and the error for bytes that lie."""

from __future__ import annotations

import struct
from uuid import UUID

from ottla.types import Buffer

# A request names at most this many things in one array. Kafka has no such limit, but an element of one
# byte on the wire is some hundred bytes as an object, and a stranger chooses the length.
ARRAY_LENGTH_MAX = 1_000_000

UUID_ZERO = UUID(int=0)
UUID_ZERO_BYTES = bytes(16)


class MalformedMessage(ValueError):
    """The bytes are not a message of the version that they claim to be."""


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


def skip_tags(buffer: Buffer, offset: int) -> int:
    """Step over a section of tagged fields none of which we know; return the offset behind it."""
    count = buffer[offset]
    offset += 1
    if not count:
        return offset
    if count >= 0x80:
        count, offset = read_uvarint(buffer, offset, count)
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


def check_length(count: int, room: int) -> None:
    """Refuse an array whose elements cannot fit into the bytes that are left (each takes one at least)."""
    if count > room or count > ARRAY_LENGTH_MAX:
        raise MalformedMessage(f"an array claims {count} elements in {room} bytes")


# What reading past the end, a bad length, a null where none may be, or text that is not UTF-8 raise.
READ_ERRORS = (MalformedMessage, IndexError, struct.error, UnicodeDecodeError)
