"""Fields of the records that coordinators keep, as Kafka's generated messages have them.

Reading past the end, or what makes no sense, raises one of `wire.primitives.READ_ERRORS` or SchemaError.
"""

from __future__ import annotations

import struct
from typing import Final

from ottla.coordinators.runtime.machine import SchemaError
from ottla.types import Buffer
from ottla.wire.primitives import STRING_BYTES_MAX, read_uvarint, skip_tags, write_uvarint

_INT8: Final = struct.Struct(">b")
_INT16: Final = struct.Struct(">h")
_INT32: Final = struct.Struct(">i")
_INT64: Final = struct.Struct(">q")


class Reader:
    """A cursor over one key or value."""

    __slots__ = ("buffer", "flexible", "offset")

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer
        self.offset = 0
        self.flexible = False

    def int8(self) -> int:
        value: int = _INT8.unpack_from(self.buffer, self.offset)[0]
        self.offset += 1
        return value

    def int16(self) -> int:
        value: int = _INT16.unpack_from(self.buffer, self.offset)[0]
        self.offset += 2
        return value

    def int32(self) -> int:
        value: int = _INT32.unpack_from(self.buffer, self.offset)[0]
        self.offset += 4
        return value

    def int64(self) -> int:
        value: int = _INT64.unpack_from(self.buffer, self.offset)[0]
        self.offset += 8
        return value

    def _compact_length(self) -> int:
        first = self.buffer[self.offset]
        self.offset += 1
        if first >= 0x80:
            first, self.offset = read_uvarint(self.buffer, self.offset, first)
        return first - 1

    def _take(self, length: int) -> bytes:
        end = self.offset + length
        if length < 0 or end > len(self.buffer):
            raise SchemaError(f"a field claims {length} bytes of the {len(self.buffer) - self.offset} left")
        data = bytes(self.buffer[self.offset : end])
        self.offset = end
        return data

    def nullable_string(self) -> str | None:
        length = self._compact_length() if self.flexible else self.int16()
        if length > STRING_BYTES_MAX:
            # It could be shown to nobody: older requests and responses have no room for it.
            raise SchemaError(f"a string of {length} bytes ({STRING_BYTES_MAX} at most)")
        return None if length == -1 else self._take(length).decode()

    def string(self) -> str:
        text = self.nullable_string()
        if text is None:
            raise SchemaError("null where a string is needed")
        return text

    def bytes_(self) -> bytes:
        length = self._compact_length() if self.flexible else self.int32()
        # Kafka writes null for a member without an assignment in some old versions.
        return b"" if length == -1 else self._take(length)

    def array_length(self) -> int:
        count = self._compact_length() if self.flexible else self.int32()
        if not 0 <= count <= len(self.buffer) - self.offset:
            raise SchemaError(f"an array claims {count} elements in {len(self.buffer) - self.offset} bytes")
        return count

    def nullable_array_length(self) -> int:
        """As ``array_length``; 0 for null."""
        offset = self.offset
        count = self._compact_length() if self.flexible else self.int32()
        if count == -1:
            return 0
        self.offset = offset
        return self.array_length()

    def tags(self) -> None:
        if self.flexible:
            # Not more than the record has bytes, and its size was bounded when it was written.
            self.offset = skip_tags(self.buffer, self.offset, [len(self.buffer)])


def string(text: str | None) -> bytes:
    if text is None:
        return b"\xff\xff"
    data = text.encode()
    if len(data) > STRING_BYTES_MAX:
        raise SchemaError(f"a string of {len(data)} bytes cannot be stored ({STRING_BYTES_MAX} at most)")
    return _INT16.pack(len(data)) + data


def compact_string(text: str) -> bytes:
    data = text.encode()
    if len(data) > STRING_BYTES_MAX:
        raise SchemaError(f"a string of {len(data)} bytes cannot be stored ({STRING_BYTES_MAX} at most)")
    return write_uvarint(len(data) + 1) + data
