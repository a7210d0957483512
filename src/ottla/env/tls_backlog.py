"""What is to be sent on a TLS connection, until the client takes it: encrypted no sooner."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, final

# What is encrypted at once: what a record holds. OpenSSL keeps memory for a third more than it was ever given
# at once, as long as the connection lasts.
RECORD_BYTES: Final = 16 * 1024

Piece = bytes | bytearray | memoryview


@final
class Backlog:
    """Pieces in order, which are not copied, but where several fit into one record."""

    __slots__ = ("_pieces", "size_bytes")

    def __init__(self) -> None:
        self._pieces: deque[Piece] = deque()
        self.size_bytes = 0

    def append(self, piece: Piece) -> None:
        if piece:
            self._pieces.append(piece)
            self.size_bytes += len(piece)

    def clear(self) -> None:
        self._pieces.clear()
        self.size_bytes = 0

    def encrypt(
        self, write: Callable[[Piece], int], read: Callable[[], bytes], bytes_max: int
    ) -> list[bytes]:
        """The records of what comes next, of some ``bytes_max``. ``write`` takes what fits
        into a record, and ``read`` gives it back encrypted."""
        pieces = self._pieces
        records: list[bytes] = []
        done = 0
        while pieces and done < bytes_max:
            piece = pieces.popleft()
            size = len(piece)
            if size <= RECORD_BYTES:
                done += write(self._join(piece, size))
                records.append(read())
                continue
            start, view = 0, memoryview(piece)
            while start < size and done < bytes_max:
                count = write(view[start : start + RECORD_BYTES])
                records.append(read())
                start += count
                done += count
            if start < size:
                pieces.appendleft(view[start:])
        self.size_bytes -= done
        return records

    def _join(self, piece: Piece, size: int) -> Piece:
        """A piece with those behind it that fit into the same record."""
        pieces = self._pieces
        if not pieces or size + len(pieces[0]) > RECORD_BYTES:
            return piece
        joined = [piece]
        while pieces and size + len(pieces[0]) <= RECORD_BYTES:
            size += len(pieces[0])
            joined.append(pieces.popleft())
        return b"".join(joined)
