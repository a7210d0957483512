"""Where TLS's records end in a stream of bytes. Each says in its first five bytes how long it is."""

from __future__ import annotations

from typing import Final, final

_HEAD_BYTES: Final = 5


@final
class Records:
    """Follows one stream, piece by piece. Whether a length may be so is OpenSSL's to say."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        # How much of the current record has still to come; the beginning of one whose length has not come.
        self._left = 0
        self._head = b""

    def end(self, data: memoryview, start: int) -> int:
        """Where the record ends that goes on, or begins, at ``start``; -1 if not in ``data``: the next piece
        goes on where this one stops."""
        size = len(data)
        if self._left:
            stop = start + self._left
        elif self._head or size - start < _HEAD_BYTES:
            known = len(self._head)
            head = self._head + bytes(data[start : start + _HEAD_BYTES - known])
            if len(head) < _HEAD_BYTES:
                self._head = head
                return -1
            self._head = b""
            stop = start - known + _HEAD_BYTES + (head[3] << 8 | head[4])
        else:
            stop = start + _HEAD_BYTES + (data[start + 3] << 8 | data[start + 4])
        if stop > size:
            self._left = stop - size
            return -1
        self._left = 0
        return stop

    def follow(self, data: memoryview) -> None:
        """Go through a piece."""
        start = 0
        while 0 <= start < len(data):
            start = self.end(data, start)
