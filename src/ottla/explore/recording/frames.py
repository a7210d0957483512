"""One direction of a connection cut into Kafka's frames, for who only looks on."""

from __future__ import annotations

from typing import NamedTuple

# What is larger is not kept as a whole: its first bytes are.
FRAME_BYTES_MAX = 4 * 1024 * 1024
HEAD_BYTES = 1024

_SIZE_BYTES = 4


class Frame(NamedTuple):
    """What lies behind its size. ``end``: how many bytes of the stream there are up to its end."""

    data: bytes
    is_whole: bool
    end: int


class Frames:
    """Takes what comes, piece by piece. After a size that is none nothing is read any more."""

    def __init__(self) -> None:
        self.broken = False
        self._read = 0
        # Of the frame under way: its size as it comes, the size, what has come of it, what is kept of that.
        self._head = bytearray()
        self._size = 0
        self._got = 0
        self._kept = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that end in it."""
        found: list[Frame] = []
        position = 0
        while position < len(data) and not self.broken:
            begin = position
            if len(self._head) < _SIZE_BYTES:
                position = min(len(data), begin + _SIZE_BYTES - len(self._head))
                self._head += data[begin:position]
                if len(self._head) < _SIZE_BYTES:
                    break
                self._size = int.from_bytes(self._head, signed=True)
                self.broken = self._size < 0
            else:
                position = min(len(data), begin + self._size - self._got)
                room = (self._size if self._size <= FRAME_BYTES_MAX else HEAD_BYTES) - len(self._kept)
                self._kept += data[begin : min(position, begin + room)]
                self._got += position - begin
            if self._got == self._size and not self.broken:
                found.append(self._take())
        return found

    def _take(self) -> Frame:
        self._read += _SIZE_BYTES + self._size
        frame = Frame(bytes(self._kept), len(self._kept) == self._size, self._read)
        self._head.clear()
        self._kept.clear()
        self._got = self._size = 0
        return frame
